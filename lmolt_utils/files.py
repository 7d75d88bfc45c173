"""Files written once, atomically, and read with errors that say what to do."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.errors import CompanionError

_MISSING = "{} is missing: run the notebook that writes it, or make reproduce"
#: The one file of a folder whose contents were deleted to save space: what they were.
EMPTIED = "emptied.json"


class BadFileError(CompanionError):
    """A file that is missing, cut short or not what it should be."""


@contextmanager
def atomic(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A temporary file (or an empty folder) beside ``path`` that takes its place only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as place:
            part = Path(place, path.name)
            if folder:
                part.mkdir()
            yield part
            if folder:
                shutil.rmtree(path, ignore_errors=True)
            os.replace(part, path)
    except OSError as error:
        if folder:  # made by libraries, which read others meanwhile
            raise
        told = f"{path} could not be written ({error.strerror}); free space or choose another LMOLT_RUNS"
        raise OSError(error.errno, told) from error


def drop_parts(path: Path) -> None:
    """Delete what kills left of unfinished writes of ``path``, such as half a merged model."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.{'[a-z0-9_]' * 8}/"):  # as tempfile names them
        shutil.rmtree(part)


def atomic_folder(path: Path) -> AbstractContextManager[Path]:
    return atomic(path, folder=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Keys sorted, so that equal values give equal bytes."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _text(path: Path) -> str:
    if not path.exists():
        raise BadFileError(_MISSING.format(path))
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path} is damaged ({error}): delete it and run again") from None


def read_json(path: Path) -> Any:
    """Read JSON; raises :class:`BadFileError` naming the file when it is missing or damaged."""
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise BadFileError(f"{path} is damaged ({error}): delete it and run again") from None


def read_kept(path: Path) -> Any:
    """Read JSON that was kept to save work; ``None`` where it is missing or damaged, so that the work is done again."""
    with suppress(BadFileError):
        return read_json(path)
    return None


def write_rows(path: Path, frame: pd.DataFrame) -> None:
    with atomic(path) as part:
        frame.to_json(part, orient="records", lines=True, force_ascii=False)


def read_rows(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read JSON lines with at least ``columns``; :class:`BadFileError` names the broken line or missing column."""
    text = _text(path)
    if text and not text.endswith("\n"):
        raise BadFileError(f"{path} is cut short: its last line has no end; delete it and run again")
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadFileError(f"{path} line {number} is not JSON ({error.msg}): delete it and run again") from None
    frame = pd.DataFrame(rows)
    if missing := [name for name in columns if name not in frame]:
        lacking = (
            f"column {missing[0]!r} (it has: {', '.join(map(str, frame))})" if rows else "rows: run again what makes it"
        )
        raise BadFileError(f"{path} has no {lacking}")
    return frame


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of a folder's names and contents."""
    if path.is_file():
        status = path.stat()
        return _digest(str(path), status.st_size, status.st_mtime_ns)
    if not path.is_dir():
        raise BadFileError(_MISSING.format(path))
    if emptied(path):
        return str(read_json(path / EMPTIED)["fingerprint"])
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            whole.update(f"{file.relative_to(path).as_posix()}\0{fingerprint(file)}\n".encode())
    return whole.hexdigest()


def emptied(path: Path) -> bool:
    """Whether :func:`empty` deleted what the folder held."""
    return (path / EMPTIED).is_file()


def empty(path: Path) -> None:
    """Delete what a folder holds but keep its fingerprint, so that nothing made from it has to be made again."""
    if not emptied(path):
        digest = fingerprint(path)
        with atomic_folder(path) as part:
            write_json(part / EMPTIED, {"fingerprint": digest})


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
