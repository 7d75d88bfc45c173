"""What RDKit makes of SMILES strings, computed in worker processes that may be lost.

RDKit can hang: ten wildcard atoms, each bonded to every other (350 characters that parse), keep its path
fingerprint busy for minutes and fill the memory. No call of it can be interrupted from Python, so it runs in a
process of its own with a limit on processor time and memory for each molecule. A worker that crosses one dies;
the molecule is asked for once more, feature by feature: it keeps what can be computed, `gave_up` names the feature
that cannot, and another worker goes on with the next molecule. Workers also use more than one core.

A worker is this file run as a program: one line of JSON in (molecules and the features wanted), one line out per
molecule, or per feature where it was told to be careful. It lives as long as the process that started it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any

from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula, GetMACCSKeysFingerprint

SECONDS = 10.0  # processor time per molecule and request; ordinary molecules take 3 ms
_FIRST_TRY = 0.2  # of these seconds, before a molecule is asked for feature by feature
MEMORY = 4 << 30  # bytes of address space of a worker, or less where the system grants less
#: Characters: RDKit is not asked about longer strings, for which its time grows with the square of the length. The
#: longest molecule of L+M-24 has 990.
LONGEST = 5_000
_CHUNK = 50  # molecules per request: small enough that the workers end together

#: Every feature, the cheap ones first: what comes before one that hangs is kept.
BASIC = ("parsed", "formula", "canonical", "Morgan", "MACCS", "RDK")
INCHI = ("inchi",)


@dataclass
class Molecule:
    """What RDKit makes of one string. A feature is None where there is none (yet).

    valid: it parses. canonical: canonical SMILES, empty for the empty molecule. formula: Hill notation.
    MACCS, RDK, Morgan: fingerprints (bits, bits, sparse counts). inchi: empty where InChI has no name for it.
    gave_up: the feature that reached the limit of time or memory, or empty; the ones after it are missing too.
    "length": the string is longer than LONGEST, and nothing is known of it.
    """

    valid: bool = False
    formula: str | None = None
    canonical: str | None = None
    MACCS: Any = None
    RDK: Any = None
    Morgan: Any = None
    inchi: str | None = None
    gave_up: str = ""


@dataclass
class Featuriser:
    """Molecules by SMILES string: each distinct string is computed once, however many systems give it.

    workers: processes side by side. seconds: processor time per molecule. capacity: strings kept; beyond it the
    oldest are dropped (and computed again when asked for).
    """

    workers: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    seconds: float = SECONDS
    capacity: int = 200_000
    table: dict[str, Molecule] = field(default_factory=dict)

    def molecules(self, smiles: Iterable[str]) -> dict[str, Molecule]:
        """Every distinct string of `smiles` with its molecule; all features but InChI."""
        wanted = list(dict.fromkeys(smiles))
        new = [text for text in wanted if text not in self.table]
        self.table |= {text: Molecule(gave_up="length" if len(text) > LONGEST else "") for text in new}
        self._compute([text for text in new if len(text) <= LONGEST], BASIC)
        found = {text: self.table[text] for text in wanted}
        for text in list(self.table)[: max(0, len(self.table) - self.capacity)]:
            del self.table[text]
        return found

    def add_inchi(self, molecules: dict[str, Molecule]) -> None:
        """Compute `inchi` of those that have none yet; they are molecules of this featuriser."""
        self.table |= molecules
        self._compute([text for text, molecule in molecules.items() if molecule.inchi is None], INCHI)

    def _compute(self, smiles: Sequence[str], features: Sequence[str]) -> None:
        chunks: SimpleQueue[Sequence[str]] = SimpleQueue()
        for start in range(0, len(smiles), _CHUNK):
            chunks.put(smiles[start : start + _CHUNK])

        def work() -> None:
            while True:
                try:
                    chunk = chunks.get_nowait()
                except Empty:
                    return
                self._ask(chunk, features)

        count = min(self.workers, chunks.qsize())
        if count <= 1:
            work()
            return
        with ThreadPoolExecutor(count) as threads:
            for done in [threads.submit(work) for _ in range(count)]:
                done.result()

    def _ask(self, chunk: Sequence[str], features: Sequence[str]) -> None:
        """Fill in the features of a chunk; a molecule that kills its worker is asked for again by itself."""
        todo = list(chunk)
        while todo:
            done = 0
            with _worker() as worker:
                for values in _request(worker, todo, features, _FIRST_TRY * self.seconds):
                    self._fill(todo[done], features, values)
                    done += 1
            todo = todo[done:]
            if todo:
                self._ask_carefully(todo.pop(0), features)

    def _ask_carefully(self, smiles: str, features: Sequence[str]) -> None:
        answered = 0
        with _worker() as worker:
            for value in _request(worker, [smiles], features, self.seconds, careful=True):
                self._fill(smiles, features[answered : answered + 1], value)
                answered += 1
        molecule = self.table[smiles]
        if not answered or (molecule.valid and answered < len(features)):
            _check_workers(features)
            molecule.gave_up = features[answered]

    def _fill(self, smiles: str, features: Sequence[str], values: Sequence[str]) -> None:
        molecule = self.table[smiles]
        for feature, value in zip(features, values, strict=False):  # a string that does not parse has no others
            _READ[feature](molecule, value)


def _set_valid(molecule: Molecule, value: str) -> None:
    molecule.valid = value == "yes"


def _set(name: str, read: Callable[[str], Any] = str) -> Callable[[Molecule, str], None]:
    return lambda molecule, value: setattr(molecule, name, read(value))


def _bits(text: str) -> Any:
    binary: Any = bytes.fromhex(text)  # RDKit's type hints know no bytes here
    return DataStructs.ExplicitBitVect(binary)


def _counts(text: str) -> Any:
    binary: Any = bytes.fromhex(text)
    return DataStructs.ULongSparseIntVect(binary)


_READ: dict[str, Callable[[Molecule, str], None]] = {
    "parsed": _set_valid,
    "formula": _set("formula"),
    "canonical": _set("canonical"),
    "inchi": _set("inchi"),
    "MACCS": _set("MACCS", _bits),
    "RDK": _set("RDK", _bits),
    "Morgan": _set("Morgan", _counts),
}


def _check_workers(features: Sequence[str]) -> None:
    """A molecule was given up: is it its fault? A worker that cannot do methane either says nothing of molecules."""
    from lmolt_utils.errors import CompanionError  # here: a worker runs this file, perhaps without the package

    with _worker() as worker:
        answers = list(_request(worker, ["C"], features, SECONDS))
    if answers and len(answers[0]) == len(features):
        return
    raise CompanionError(
        f"RDKit's worker processes die (the last with exit status {worker.returncode}): no molecule can be judged. "
        "Is there too little memory (ulimit -v, a batch system's limit), or a system that kills processes?"
    )


# ------------------------------------------------------------------------------------ this side of the pipes

_END = b"\n"  # of the answers to a request

_IDLE: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()


@contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    """An idle worker or a new one; one that has died, or whose answers were not all read, is put away."""
    worker = _take_worker()
    try:
        yield worker
    except BaseException:
        worker.kill()
        worker.wait()
        raise
    finally:
        if worker.poll() is None:
            _IDLE.put(worker)
        else:
            _close(worker)


def _take_worker() -> subprocess.Popen[bytes]:
    while True:
        try:
            worker = _IDLE.get_nowait()
        except Empty:
            # -P: this file's folder is not put on the module path.
            return subprocess.Popen(
                [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1
            )
        if worker.poll() is None:
            return worker
        _close(worker)


def _request(
    worker: subprocess.Popen[bytes],
    smiles: Sequence[str],
    features: Sequence[str],
    seconds: float,
    *,
    careful: bool = False,
) -> Iterator[list[str]]:
    """The values of each molecule; careful: of each feature. Ends early, the worker with it, at a limit."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(OSError):  # it died before it read
        worker.stdin.write(json.dumps([list(smiles), list(features), seconds, careful]).encode() + b"\n")
        worker.stdin.flush()
        while (line := worker.stdout.readline()) != _END:
            if not line.endswith(b"\n"):
                worker.kill()
                worker.wait()
                return
            yield json.loads(line)


def _close(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written has no reader
                pipe.close()


@atexit.register
def stop_workers() -> None:
    """End the idle workers (they would also end by themselves when this process does)."""
    while True:
        try:
            worker = _IDLE.get_nowait()
        except Empty:
            return
        _close(worker)
        worker.wait()


# ---------------------------------------------------------------------------------------------- the worker


def parse_smiles(smiles: str) -> Chem.Mol | None:
    """RDKit's molecule, or None for whatever it cannot read: never raises, never logs."""
    with rdBase.BlockLogs():
        try:
            return Chem.MolFromSmiles(smiles)
        except Exception:  # text that has no UTF-8 form, for one
            return None


@lru_cache(maxsize=1)
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2)


def _inchi(mol: Chem.Mol) -> str:
    try:
        return str(Chem.MolToInchi(mol))
    except Exception:  # InChI refuses some molecules that RDKit accepts
        return ""


_COMPUTE: dict[str, Callable[[Chem.Mol], str]] = {
    "formula": CalcMolFormula,
    "canonical": Chem.MolToSmiles,
    "Morgan": lambda mol: _morgan().GetSparseCountFingerprint(mol).ToBinary().hex(),
    "MACCS": lambda mol: GetMACCSKeysFingerprint(mol).ToBinary().hex(),
    "RDK": lambda mol: Chem.RDKFingerprint(mol).ToBinary().hex(),
    "inchi": _inchi,
}


def _serve() -> None:
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; a closed pipe ends this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    with suppress(ValueError, OSError):  # macOS knows no such limit; the one of time stays
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    block = rdBase.BlockLogs()
    for line in sys.stdin.buffer:
        smiles, features, seconds, careful = json.loads(line)
        for text in smiles:
            # Left to itself SIGPROF ends the process, in the middle of a call into RDKit too.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            values = _values(text, features)
            for answer in ([value] for value in values) if careful else [list(values)]:
                _answer(json.dumps(answer).encode() + b"\n")
            signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(_END)
    del block


def _values(smiles: str, features: Sequence[str]) -> Iterator[str]:
    """The wanted features, each computed when it is asked for; "no" alone where the string does not parse."""
    mol = parse_smiles(smiles)
    for feature in features:
        if feature == "parsed":
            yield "no" if mol is None else "yes"
        elif mol is not None:
            yield _COMPUTE[feature](mol)


def _answer(line: bytes) -> None:
    """Written at once: what was computed survives the worker's end."""
    data = memoryview(line)
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    _serve()
