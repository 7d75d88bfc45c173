"""What RDKit makes of SMILES strings, computed in worker processes that may be lost.

RDKit can hang: ten wildcard atoms, each bonded to every other (350 characters that parse), keep its path fingerprint
busy for minutes and fill the memory. No call of it can be interrupted from Python, so the system ends a worker that
exceeds a limit of processor time; what it had begun is computed again in a new worker, molecule by molecule. A molecule
that RDKit cannot finish has no fingerprints.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula, GetMACCSKeysFingerprint

from lmolt_utils.data.molecules import parse
from lmolt_utils.errors import CompanionError

SECONDS = 10.0  # processor time per molecule; ordinary molecules take 3 ms
MEMORY = 4 << 30  # bytes of data in a worker
#: Characters: RDKit is not asked about longer strings, for which its time grows with the square of the length. The
#: longest molecule of L+M-24 has 990.
LONGEST = 5_000
_CHUNK = 50  # molecules per task: small enough that the workers end together


@dataclass
class Molecule:
    """What RDKit makes of one string. A feature is None where there is none (yet).

    canonical: empty for the empty molecule. MACCS, RDK, Morgan: fingerprints (bits, bits, sparse counts). inchi: empty
    where InChI has no name for it. gave_up: it is longer than LONGEST or reached the limit of time or memory.
    """

    valid: bool = False
    formula: str | None = None
    canonical: str | None = None
    MACCS: Any = None
    RDK: Any = None
    Morgan: Any = None
    inchi: str | None = None
    gave_up: bool = False


# ------------------------------------------------------------------------------------------------ in a worker


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # the system grants less, or knows no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _inchi(mol: Chem.Mol) -> str:
    try:
        return str(Chem.MolToInchi(mol))
    except Exception:  # InChI refuses some molecules that RDKit accepts
        return ""


_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2)
_FEATURES: dict[str, Callable[[Chem.Mol], Any]] = {
    "valid": lambda mol: True,
    "formula": CalcMolFormula,
    "canonical": Chem.MolToSmiles,
    "Morgan": _MORGAN.GetSparseCountFingerprint,
    "MACCS": GetMACCSKeysFingerprint,
    "RDK": Chem.RDKFingerprint,
    "inchi": _inchi,
}
BASIC, INCHI = tuple(_FEATURES)[:-1], ("inchi",)
_CHEAP = BASIC[:3]  # what RDKit does not hang on


def _features(chunk: Sequence[str], names: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """The named features of each molecule; ``valid`` alone where it does not parse."""
    found = []
    with rdBase.BlockLogs():
        for smiles in chunk:
            # Left to itself SIGPROF ends the process, in the middle of a call into RDKit too.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            mol = parse(smiles) if smiles else Chem.Mol()  # officially, no output is a molecule without atoms
            found.append({"valid": False} if mol is None else {name: _FEATURES[name](mol) for name in names})
    signal.setitimer(signal.ITIMER_PROF, 0)
    return found


# ------------------------------------------------------------------------------------------------ who asks them


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    """Kept from one file to the next. Not forked: this process may have threads, and much memory."""
    main = sys.modules["__main__"]
    if not hasattr(main, "__spec__"):  # some notebook kernels' has none, and multiprocessing reads it
        main.__spec__ = None
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)


@dataclass
class Featuriser:
    """Molecules by SMILES string, each distinct one computed once. seconds: processor time per molecule."""

    workers: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    seconds: float = SECONDS
    table: dict[str, Molecule] = field(default_factory=dict)

    def molecules(self, smiles: Iterable[str]) -> dict[str, Molecule]:
        """Every distinct string with its molecule; all features but InChI.

        Raises CompanionError where no worker can compute anything.
        """
        wanted = list(dict.fromkeys(smiles))
        new = [text for text in wanted if text not in self.table]
        self.table |= {text: Molecule(gave_up=len(text) > LONGEST) for text in new}
        self._compute([text for text in new if len(text) <= LONGEST], BASIC)
        return {text: self.table[text] for text in wanted}

    def add_inchi(self, smiles: Iterable[str]) -> None:
        """Compute `inchi` of molecules of this featuriser that have none yet."""
        self._compute([text for text in dict.fromkeys(smiles) if self.table[text].inchi is None], INCHI)

    def _compute(self, smiles: Sequence[str], names: Sequence[str]) -> None:
        waiting = [smiles[start : start + _CHUNK] for start in range(0, len(smiles), _CHUNK)]
        while waiting:
            lost = self._ask(waiting, names)
            # Work begins in the order it was given, so the worker that died had one of the first.
            for text in (text for chunk in lost[: self.workers] for text in chunk):
                if self._ask([[text]], names):
                    self._check_workers()
                    self.table[text].gave_up = True
                    self._ask([[text]], _CHEAP)
            waiting = lost[self.workers :]

    def _ask(self, chunks: Sequence[Sequence[str]], names: Sequence[str]) -> list[Sequence[str]]:
        """Fill in features; returns the chunks that were lost with a worker."""
        lost = []
        tasks = [self._submit(chunk, names) for chunk in chunks]
        for chunk, task in zip(chunks, tasks, strict=True):
            try:
                answers = task.result()
            except (BrokenProcessPool, MemoryError):
                lost.append(chunk)
                continue
            for text, features in zip(chunk, answers, strict=True):
                for name, value in features.items():
                    setattr(self.table[text], name, value)
        if lost:
            _pool.cache_clear()  # a pool that lost a worker takes no more work
        return lost

    def _submit(self, chunk: Sequence[str], names: Sequence[str]) -> Future[list[dict[str, Any]]]:
        try:
            return _pool(self.workers).submit(_features, chunk, names, self.seconds)
        except BrokenProcessPool as error:  # by a chunk before this one
            failed: Future[list[dict[str, Any]]] = Future()
            failed.set_exception(error)
            return failed

    def _check_workers(self) -> None:
        """Workers that cannot do methane say nothing of molecules."""
        self.table.setdefault("C", Molecule())
        if self._ask([["C"]], BASIC):
            raise CompanionError(
                "RDKit's worker processes die. Is there too little memory (ulimit -v, a batch system's limit)? A "
                "script that scores needs the usual `if __name__ == '__main__':` of programs with processes."
            )
