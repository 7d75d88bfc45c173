"""Answers of an NLI model, each pair asked once: within a run, across systems, and across runs.

Captions of one corpus share most of their facts, so the pairs of thousands of captions are few distinct ones. All
that are new are collected first and asked together, the longest texts together; one answer (three probabilities)
serves every metric. Answers outlive the process in an SQLite file.
"""

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lmolt_utils.files import BadFileError
from lmolt_utils.nli.classifier import Pair
from lmolt_utils.run.notebook import Run

#: Probabilities of contradiction, entailment and neutral.
Answer = tuple[float, float, float]

_BLOB = struct.Struct("<3d")
_WAIT_S = 60.0
_MAGIC = b"SQLite format 3\0"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS answers (
    model INTEGER NOT NULL, pair BLOB NOT NULL, probabilities BLOB NOT NULL, PRIMARY KEY (model, pair)
) WITHOUT ROWID;
"""


class Model(Protocol):
    """What is asked: a :class:`~lmolt_utils.nli.classifier.Classifier`."""

    @property
    def identity(self) -> dict[str, str]: ...
    def batches(self, pairs: Iterable[Pair]) -> Iterator[list[Pair]]: ...
    def forward(self, pairs: Sequence[Pair]) -> np.ndarray: ...


def answer_file(run: Run) -> Path:
    """The one file of a run's answers: full-text entailment and cross-NLI share it."""
    return Path(run.path("cache", "nli.sqlite"))


class AnswerFile:
    """Answers on disk, keyed by model, revision, precision and both texts (by their SHA-256).

    An answer is three float64: what is read is bit for bit what was stored. Every call opens the file anew and writes
    in one transaction, in write-ahead mode: several processes may share it, a killed one leaves whole answers or
    none, and of two that stored the same pair the last one's answer stays. Not for network file systems, on which
    SQLite's write-ahead log does not work. An answer that is no probabilities counts as missing.

    A database that was cut short is begun anew. Raises :class:`~lmolt_utils.files.BadFileError` for another file.
    """

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_if_cut()
        key = json.dumps(dict(identity), sort_keys=True)
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            connection.execute("INSERT OR IGNORE INTO models (identity) VALUES (?)", (key,))
            (self._model,) = connection.execute("SELECT id FROM models WHERE identity = ?", (key,)).fetchone()
            connection.commit()

    def _drop_if_cut(self) -> None:
        if not self.path.is_file() or _first_bytes(self.path) != _MAGIC:
            return  # no file yet, or one that is not ours to remove
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection:
                whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.OperationalError:
            return  # in use, or not readable: told when it is opened
        except sqlite3.DatabaseError:
            whole = False
        if not whole:
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection:
                connection.execute("PRAGMA synchronous=NORMAL")
                yield connection
        except sqlite3.OperationalError as error:
            raise OSError(
                f"{self.path}: {error}; NLI answers could not be kept there: is its disk full, its folder not "
                "writable, on a network, or does another process hold it?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise BadFileError(f"{self.path} cannot be used as a cache of NLI answers ({error}): delete it") from error

    def read(self, pairs: Iterable[Pair]) -> dict[Pair, Answer]:
        """The answers there are."""
        found: dict[Pair, Answer] = {}
        with self._open() as connection:
            wanted = list(pairs)
            for start in range(0, len(wanted), 500):
                by_key = {_key(pair): pair for pair in wanted[start : start + 500]}
                marks = ",".join("?" * len(by_key))
                query = f"SELECT pair, probabilities FROM answers WHERE model = ? AND pair IN ({marks})"
                for key, blob in connection.execute(query, (self._model, *by_key)):
                    if (answer := _answer(blob)) is not None:
                        found[by_key[key]] = answer
        return found

    def write(self, answers: Mapping[Pair, Answer]) -> None:
        """Store answers, in one transaction."""
        rows = [(self._model, _key(pair), _BLOB.pack(*answer)) for pair, answer in answers.items()]
        with self._open() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(len(_MAGIC))


def _key(pair: Pair) -> bytes:
    """One key per ordered pair; JSON keeps ("a b", "c") apart from ("a", "b c")."""
    return hashlib.sha256(json.dumps(pair).encode()).digest()


def _answer(blob: object) -> Answer | None:
    if not isinstance(blob, bytes) or len(blob) != _BLOB.size:
        return None
    values: Answer = _BLOB.unpack(blob)
    return values if min(values) >= 0 and abs(sum(values) - 1) < 1e-2 else None  # bfloat16 sums are not exact


class PairScorer:
    """Asks a model about pairs, each distinct one once in this object's life, and never one that ``cache`` holds.

    ``asked``: pairs that went through the model; ``cached``: pairs that came from the file. Without ``cache`` nothing
    is kept on disk. Memory grows with the distinct pairs, not with the captions.
    """

    #: Forward passes between two writes to the file: what a kill may lose.
    _BATCHES_PER_WRITE = 16

    def __init__(self, model: Model, cache: Path | None = None) -> None:
        self._model = model
        self._file = None if cache is None else AnswerFile(cache, model.identity)
        self._answers: dict[Pair, Answer] = {}
        self.asked = 0
        self.cached = 0

    def __call__(self, pairs: Iterable[Pair], *, progress: bool = True) -> Mapping[Pair, Answer]:
        """The answers to ``pairs`` (and to all pairs asked before)."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._answers]
        if self._file is not None and new:
            known = self._file.read(new)
            self.cached += len(known)
            self._answers |= known
            new = [pair for pair in new if pair not in known]
        self.asked += len(new)
        batches = list(self._model.batches(new))
        fresh: dict[Pair, Answer] = {}
        shown = tqdm(batches, desc="NLI", unit="batch", leave=False, mininterval=5, disable=not progress)
        for number, batch in enumerate(shown, start=1):
            for pair, (no, yes, open_) in zip(batch, self._model.forward(batch).tolist(), strict=True):
                fresh[pair] = no, yes, open_
            if number % self._BATCHES_PER_WRITE == 0 or number == len(batches):
                if self._file is not None:
                    self._file.write(fresh)
                self._answers |= fresh
                fresh = {}
        return self._answers
