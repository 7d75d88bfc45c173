"""Steps: work that is done once, recorded, and not done again while nothing it depends on changed.

A step's record, ``<first output>.record.json``, keeps what made it: the hashes of its inputs and outputs, its
parameters, the hash of the code it ran (its module and every module of this package that one imports), the
commit, package versions, hardware, wall time and peak memory.
"""

import ast
import fcntl
import hashlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lmolt_utils.files import BadFileError, fingerprint, read_json, write_json
from lmolt_utils.paths import root, shown

PACKAGE = "lmolt_utils"
_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "mergekit",
    "rdkit",
    "numpy",
    "datasets",
    "bitsandbytes",
)


def _source(module: str) -> Path | None:
    base = Path(__file__).resolve().parents[2] / module.replace(".", "/")
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of this package that ``module`` imports, found in its source without running it."""
    source = _source(module)
    if source is None:
        return frozenset()
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in found if name.startswith(PACKAGE) and _source(name))


def closure(modules: Sequence[str]) -> list[str]:
    """``modules`` and every module of this package they import, directly or not; sorted."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imports(module)
    return sorted(seen)


def sources(modules: Sequence[str]) -> list[Path]:
    """Source files of :func:`closure`."""
    return [path for module in closure(modules) if (path := _source(module))]


def code_hash(modules: Sequence[str]) -> str:
    """One hash over what :func:`closure` does: comments, docstrings and layout do not count."""
    whole = hashlib.sha256()
    for path in sources(modules):
        state = path.stat()
        whole.update(_meaning(path, state.st_mtime_ns, state.st_size))
    return whole.hexdigest()


@cache
def _meaning(path: Path, _mtime_ns: int, _size: int) -> bytes:
    """What a source file says to Python. A notebook asks for it at every step, and again once the file changed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[:1] = []
    return ast.dump(tree).encode()


@cache
def commit() -> str:
    """The repository's commit, marked ``+changes`` when the working tree differs; ``unknown`` without git.

    figures/ does not count: it is what a run writes, not what it is made from.
    """
    try:
        git = ["git", "-C", str(root())]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--", ".", ":(exclude)figures"]
        dirty = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if dirty.strip() else "")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a number."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES}


def peak_memory_mb() -> float:
    """Largest resident memory of this process since :func:`forget_peak`, in MB.

    Where the kernel cannot forget (macOS), since its start.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let :func:`peak_memory_mb` begin anew: a step's record names its own peak, not an earlier step's."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


@contextmanager
def _locked(path: Path, name: str) -> Any:
    """Only one process works on a step; the lock goes with the process, also when it is killed.

    The file holds the step's ``name`` while it is at work: :func:`cut_short` finds it there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(name)
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def cut_short(folder: Path, since: float) -> list[str]:
    """Names of the steps in ``folder`` that began after ``since`` (seconds of the clock) and whose process died."""
    names = []
    for path in sorted(folder.rglob(".*.lock")):
        with open(path, encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is at work on it
                continue
            if path.stat().st_mtime >= since and (name := handle.read()):
                names.append(name)
    return names


def record_path(output: Path) -> Path:
    """Where the record of a step lies: beside its first output."""
    return output.with_name(output.name + ".record.json")


def why_not(outputs: Sequence[Path], key: Mapping[str, Any]) -> str | None:
    """Why a step must run: ``None`` when its outputs are there, whole and made from exactly ``key``."""
    path = record_path(outputs[0])
    missing = [shown(output) for output in outputs if not output.exists()]
    if missing:
        return f"{missing[0]} is not there yet"
    if not path.exists():
        return f"{shown(outputs[0])} has no record of what made it"
    try:
        record = read_json(path)
        then, made = dict(record["key"]), dict(record["outputs"])
    except (BadFileError, KeyError, TypeError, ValueError):
        return f"{shown(path)} is damaged"
    for part in ("params", "inputs", "code"):
        before, now = then.get(part), key[part]
        if before == now:
            continue
        if isinstance(now, dict) and isinstance(before, dict):
            names = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
            return f"changed {part}: {', '.join(names)}"
        return "its code changed"
    for output in outputs:
        if fingerprint(output) != made.get(output.name):
            return f"{shown(output)} was changed after it was made"
    return None


def step(
    name: str,
    make: Callable[[], Any],
    *,
    outputs: Sequence[Path],
    params: Mapping[str, Any],
    modules: Sequence[str],
    inputs: Mapping[str, Path | str] | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Run ``make`` unless its ``outputs`` are there and were made from the same inputs, parameters and code.

    ``inputs`` maps a name to a path (hashed) or to text that identifies it (a hub id and revision). Says in one
    line whether and why it runs. Returns whether ``make`` ran. Raises whatever ``make`` raises; nothing is
    recorded then, so the next run tries again.
    """
    lock = outputs[0].parent / f".{outputs[0].name}.lock"
    with _locked(lock, name):
        made_from = {
            key: fingerprint(value) if isinstance(value, Path) else value for key, value in (inputs or {}).items()
        }
        key = {"params": dict(params), "inputs": made_from, "code": code_hash(modules)}
        reason = why_not(outputs, key)
        if reason is None:
            say(f"{name}: up to date")
            return False
        say(f"{name}: {reason}")
        record_path(outputs[0]).unlink(missing_ok=True)
        start = time.perf_counter()
        forget_peak()
        make()
        write_json(
            record_path(outputs[0]),
            {
                "step": name,
                "key": key,
                "outputs": {output.name: fingerprint(output) for output in outputs},
                "commit": commit(),
                "versions": versions(),
                "hardware": {"machine": platform.machine(), "system": platform.system()},
                "wall_s": round(time.perf_counter() - start, 2),
                "peak_mb": round(peak_memory_mb()),
            },
        )
    return True
