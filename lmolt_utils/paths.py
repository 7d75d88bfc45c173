"""Where things are: the repository root, and the folder of one run."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lmolt_utils.errors import CompanionError


def root() -> Path:
    """The repository root: ``$LMOLT_ROOT``, or the folder that holds this package, ``params`` and ``notebooks``."""
    here = Path(os.environ.get("LMOLT_ROOT") or Path(__file__).resolve().parent.parent)
    if not (here / "params").is_dir():
        raise FileNotFoundError(f"{here} has no params/: name the repository in LMOLT_ROOT, or install with make env")
    return here


def from_root(given: str) -> str:
    """``given`` as a path from the repository's root, wherever a notebook runs; unchanged if nothing is there."""
    path = root() / Path(given).expanduser()
    return str(path) if path.exists() else given


def run_folder(profile: str, changed: Mapping[str, Any] | None = None) -> Path:
    """The folder of a run, named by its profile and what differs: below ``$LMOLT_RUNS``, by default ``runs/``."""
    items = sorted((changed or {}).items())
    name = "+".join([profile, *(f"{key}={_plain(value)}" for key, value in items)])
    if len(name) > 80 or not re.fullmatch(r"[A-Za-z0-9._,=+@-]+", name):  # a path, a mapping, or many parameters
        digest = hashlib.sha256(repr(items).encode()).hexdigest()[:8]
        name = "+".join([profile, *(key for key, _ in items)])[:70] + f"-{digest}"
    return Path(os.environ.get("LMOLT_RUNS") or root() / "runs") / name


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def shown(path: Path) -> str:
    """``path`` relative to the repository when it lies in it: for messages and records."""
    try:
        return path.resolve().relative_to(root().resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def inside(name: str) -> bool:
    """Whether a relative name, as a record or an archive gives it, stays in its folder."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def figures_folder(run: Path, figures_dir: str) -> Path:
    """Where a profile's tables and figures go: ``figures_dir`` in the repository, or ``run`` when runs lie elsewhere.

    Raises :class:`~lmolt_utils.errors.CompanionError` for a folder outside ``figures`` and ``runs``.
    """
    folder = root() / figures_dir
    if not any(folder.resolve().is_relative_to((root() / name).resolve()) for name in ("figures", "runs")):
        raise CompanionError(f"figures_dir = {figures_dir!r}: name a folder in figures/ or runs/, or set LMOLT_RUNS")
    return run / "figures" if os.environ.get("LMOLT_RUNS") else folder
