"""Steps: work that is done once, recorded, and not done again while what it is made from is the same.

The key in its record, ``<first output>.record.json``, decides. When only code changed, a step that took less than
``redo_below_s`` is made again, a longer one is kept and said to be made by older code until ``LMOLT_REDO`` asks (``1``,
``all`` or a pattern, ``train*``). The work folder, ``.<first output>.work``, survives a kill, until the key changes.
"""

import ast
import fcntl
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lmolt_utils.files import as_json, drop_parts, fingerprint, read_kept, write_json
from lmolt_utils.paths import root, shown

_LIBRARIES = ("torch", "transformers", "trl", "peft", "mergekit", "rdkit", "numpy", "datasets", "bitsandbytes")
_WORK_KEY = "key.json"
#: Endings of the package's own data files that its modules read; the shipped models have hashes.json.
DATA = (".j2", ".mplstyle", ".tsv", ".yaml")


@cache
def _read(module: str) -> tuple[bytes, frozenset[str]]:
    """What a module of this package says to Python, with the data files beside it that it names, and which others it
    imports; nothing for other names.
    """
    source = Path(__file__).resolve().parents[2] / f"{module.replace('.', '/')}.py"
    if not source.is_file():
        return b"", frozenset()
    tree, found, texts = ast.parse(source.read_text(encoding="utf-8")), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False):
            del node.body[0]
        elif isinstance(node, ast.Constant):
            texts.add(node.value)
    data = sorted(path for path in source.parent.iterdir() if path.suffix in DATA and path.name in texts)
    said = b"".join([ast.dump(tree).encode(), *(path.read_bytes() for path in data)])
    return said, frozenset(name for name in found if name.startswith("lmolt_utils"))


@cache
def code_hash(module: str) -> str:
    """One hash over ``module`` and every module of this package that it imports, without comments and docstrings."""
    seen: dict[str, bytes] = {}
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen[name], imports = _read(name)
        waiting |= imports - seen.keys()
    return hashlib.sha256(b"".join(seen[name] for name in sorted(seen))).hexdigest()[:16]


@cache
def commit() -> str:
    """The repository's commit, ``+changes`` if more than figures/ differs from it; ``unknown`` without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root(), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".", ":(exclude)figures")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a number."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES}


def peak_memory_mb() -> float:
    """Largest resident memory of this process, in MB, since :func:`forget_peak` (macOS: since its start)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let :func:`peak_memory_mb` begin anew: a step's record names its own peak, not an earlier step's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process works on a step; the lock goes with the process, also when it is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def record_path(output: Path) -> Path:
    """Where the record of a step lies: beside its first output."""
    return output.with_name(output.name + ".record.json")


def output_path(first: Path, name: str) -> Path:
    """A step's output by its name: beside its first one or, as logs are, in another folder of the run."""
    beside = first.with_name(name)
    return beside if beside.exists() else next(first.parents[1].glob(f"*/{name}"), beside)


def _record(output: Path) -> dict[str, Any] | None:
    """The record beside ``output``; ``None`` where it is damaged or none of ours."""
    found = read_kept(record_path(output))
    needed = {"step": str, "key": dict, "outputs": dict, "code": dict, "wall_s": float | int}
    whole = isinstance(found, dict) and all(isinstance(found.get(part), kind) for part, kind in needed.items())
    if not whole or not {"module", "hash", "commit"} <= found["code"].keys():
        return None
    return found if all(Path(name).name == name for name in found["outputs"]) else None


def why_not(outputs: Sequence[Path], key: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why a step must run: ``None`` when its outputs are there, whole and made from exactly ``key``."""
    if missing := [shown(output) for output in outputs if not output.exists()]:
        return f"{missing[0]} is not there yet"
    record = _record(outputs[0])
    if record is None:
        which = "a damaged record" if record_path(outputs[0]).exists() else "no record, as a kill leaves it"
        return f"{shown(outputs[0])} has {which}"
    for part, now in key.items():
        before = record["key"].get(part) or {}
        if names := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
            return f"changed {part}: {', '.join(names)}"
    changed = [output for output in outputs if fingerprint(output) != record["outputs"].get(output.name)]
    return f"{shown(changed[0])} was changed after it was made" if changed else None


def _work_folder(output: Path, key: Mapping[str, Any], code: str) -> tuple[Path, str, float]:
    """The step's work folder, as a kill left it or empty; the code that began in it, and seconds spent before."""
    folder = output.with_name(f".{output.name}.work")
    begun = read_kept(folder / _WORK_KEY)
    if isinstance(begun, dict) and begun.get("key") == key:
        times = [path.stat().st_mtime for path in folder.rglob("*")]
        return folder, str(begun.get("code")), max(times) - (folder / _WORK_KEY).stat().st_mtime
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / _WORK_KEY, {"key": key, "code": code})
    return folder, code, 0.0


def redo_asked(name: str) -> bool:
    """Whether ``LMOLT_REDO`` names the step, should older code have made it."""
    asked = os.environ.get("LMOLT_REDO", "")
    return asked in ("1", "all") or fnmatch(name, asked)


def step(
    name: str,
    make: Callable[[Path], object],
    *,
    outputs: Sequence[Path],
    params: Mapping[str, Any],
    inputs: Mapping[str, Path | str] | None = None,
    redo_below_s: float = 120.0,
    notebook: str = "",
    say: Callable[[str], None] = print,
) -> bool:
    """Run ``make`` unless its ``outputs`` are there and were made from the same inputs and parameters; whether it ran.

    ``make`` is given the step's work folder. ``inputs`` maps a name to a path (hashed) or to text that identifies it
    (a hub id and revision). When ``make`` raises, nothing is recorded, the work folder stays, and the next run goes on.
    """
    with _locked(outputs[0].parent / f".{outputs[0].name}.lock"):
        hashed = {k: fingerprint(value) if isinstance(value, Path) else value for k, value in (inputs or {}).items()}
        key = json.loads(as_json({"params": dict(params), "inputs": hashed}))
        code = code_hash(make.__module__)
        reason = why_not(outputs, key)
        if reason is None:
            record = _record(outputs[0]) or {}
            if record["code"]["hash"] == code:
                say(f"{name}: up to date")
                return False
            if record["wall_s"] >= redo_below_s and not redo_asked(name):
                commit_then = record["code"]["commit"][:7]
                say(f"{name}: up to date, made by older code ({commit_then}; lmolt reproduce --redo makes it again)")
                return False
            reason = "its code changed"
        record_path(outputs[0]).unlink(missing_ok=True)
        for output in outputs:
            drop_parts(output)
        work, began_with, before = _work_folder(outputs[0], key, code)
        say(f"{name}: made now ({reason}" + ("; what was kept of it is used)" if before else ")"))
        start = time.perf_counter()
        forget_peak()
        make(work)
        record = {
            "step": name,
            "notebook": notebook,
            "key": key,
            "outputs": {output.name: fingerprint(output) for output in outputs},
            "code": {"module": make.__module__, "hash": began_with, "commit": commit()},
            "versions": versions(),
            "hardware": {"machine": platform.machine(), "system": platform.system()},
            "wall_s": round(before + time.perf_counter() - start, 2),
            "peak_mb": round(peak_memory_mb()),
        }
        write_json(record_path(outputs[0]), record)
        shutil.rmtree(work)
    return True


def records(folder: Path) -> dict[Path, dict[str, Any]]:
    """Every provenance record in a run's folder, by the first output that it stands beside."""
    outputs = [path.with_name(path.name.removesuffix(".record.json")) for path in folder.rglob("*.record.json")]
    return {output: record for output in sorted(outputs) if (record := _record(output))}


def made_by_older_code(folder: Path) -> dict[str, dict[str, Any]]:
    """Steps of a run that were kept though their code changed since, each with its record."""
    found = records(folder).values()
    return {r["step"]: r for r in found if r["code"]["hash"] != code_hash(r["code"]["module"])}
