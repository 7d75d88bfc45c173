"""Where things are: the repository root, and the folder of one run."""

import os
from pathlib import Path


def root() -> Path:
    """The repository root: ``$LMOLT_ROOT``, or the folder that holds this package, ``params`` and ``notebooks``.

    Raises ``FileNotFoundError`` when the package was installed without its repository.
    """
    named = os.environ.get("LMOLT_ROOT")
    here = Path(named) if named else Path(__file__).resolve().parent.parent
    if not (here / "params").is_dir():
        raise FileNotFoundError(
            f"{here} has no params/ folder: install the package from its repository (make env), or name the "
            "repository in LMOLT_ROOT"
        )
    return here


def from_root(given: str) -> str:
    """``given``, a parameter, as an absolute path where the repository has such a file or folder, else unchanged.

    A relative path means the same wherever a notebook is started from: papermill starts it in the repository's root,
    JupyterLab in ``notebooks/``.
    """
    path = root() / Path(given).expanduser()
    return str(path) if path.exists() else given


def run_folder(profile: str) -> Path:
    """The folder of one profile's files: below ``$LMOLT_RUNS``, by default ``runs/`` in the repository."""
    base = os.environ.get("LMOLT_RUNS")
    return (Path(base) if base else root() / "runs") / profile


def shown(path: Path) -> str:
    """``path`` relative to the repository when it lies in it: for messages and records."""
    try:
        return path.resolve().relative_to(root().resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def figures_folder(profile: str, figures_dir: str) -> Path:
    """Where tables and figures go: ``figures_dir`` in the repository, or the run's folder when runs lie elsewhere."""
    if os.environ.get("LMOLT_RUNS"):
        return run_folder(profile) / "figures"
    return root() / figures_dir
