"""What RDKit makes of SMILES strings, computed in worker processes that may be lost.

RDKit can hang: ten wildcard atoms, each bonded to every other (350 characters that parse), keep its path
fingerprint busy for minutes and fill the memory. No call of it can be interrupted from Python, so it runs in a
process of its own with a limit on processor time and memory for each molecule. A worker that crosses one dies;
the molecule keeps what was computed before, `gave_up` names the feature that was not, and another worker goes on
with the next molecule. Workers also use more than one core.

A worker is this file run as a program: one line of JSON in (molecules and the features wanted), one line out per
feature. It lives as long as the process that started it.
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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any

from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.rdMolDescriptors import CalcMolFormula, GetMACCSKeysFingerprint

SECONDS = 10.0  # processor time per molecule and request; ordinary molecules take 3 ms
MEMORY = 4 << 30  # bytes of address space of a worker
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
        self.table |= {text: Molecule() for text in new}
        self._compute(new, BASIC)
        found = {text: self.table[text] for text in wanted}
        for text in list(self.table)[: max(0, len(self.table) - self.capacity)]:
            del self.table[text]
        return found

    def add_inchi(self, molecules: dict[str, Molecule]) -> None:
        """Compute `inchi` of those that have none yet."""
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
        """Fill in the features of a chunk; a molecule that kills its worker is left, the rest asked again."""
        todo = list(chunk)
        while todo:
            worker = _take_worker()
            answered = 0  # features of todo[0] that came back
            for feature, value in _request(worker, tuple(todo), features, self.seconds):
                molecule = self.table[todo[0]]
                if feature == "end":
                    todo.pop(0)
                    answered = 0
                    continue
                answered += 1
                _READ[feature](molecule, value)
            if todo:
                worker.kill()
                worker.wait()
                _close(worker)
                self.table[todo.pop(0)].gave_up = features[answered]
            else:
                _IDLE.put(worker)


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


# ------------------------------------------------------------------------------------ this side of the pipes

_IDLE: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()


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
    worker: subprocess.Popen[bytes], smiles: Sequence[str], features: Sequence[str], seconds: float
) -> Iterator[tuple[str, str]]:
    """Features as they come, ("end", "") after each molecule; stops early where the worker dies."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps([list(smiles), list(features), seconds]).encode() + b"\n")
        worker.stdin.flush()
    except OSError:  # it died before it read
        return
    ended = 0
    while ended < len(smiles):
        line = worker.stdout.readline()
        if not line.endswith(b"\n"):
            return
        feature, value = json.loads(line)
        ended += feature == "end"
        yield feature, value


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
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    block = rdBase.BlockLogs()
    for line in sys.stdin.buffer:
        smiles, features, seconds = json.loads(line)
        for text in smiles:
            # Left to itself SIGPROF ends the process, in the middle of a call into RDKit too.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            mol = parse_smiles(text)
            for feature in features:
                if feature == "parsed":
                    _answer(feature, "no" if mol is None else "yes")
                elif mol is not None:
                    _answer(feature, _COMPUTE[feature](mol))
            signal.setitimer(signal.ITIMER_PROF, 0)
            _answer("end", "")
    del block


def _answer(feature: str, value: str) -> None:
    """One line, written at once: what was computed survives the worker's end."""
    data = memoryview(json.dumps([feature, value]).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    _serve()
