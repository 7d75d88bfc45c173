"""Notebooks executed by the tests: a repository of few systems, and notebooks one after the other in one kernel."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from lmolt_utils.paths import root
from lmolt_utils.run.notebooks import NOTEBOOKS, notebook_path


def repository_with(systems: Sequence[str], folder: Path) -> None:
    """A copy of the repository whose systems table has these rows only."""
    for name in ("notebooks", "Snakefile", "profiles", "lmolt_utils", "pyproject.toml"):
        (folder / name).symlink_to(root() / name)
    shutil.copytree(root() / "params", folder / "params")
    table = folder / "params" / "systems.yaml"
    rows = table.read_text().splitlines(keepends=True)
    named = [re.match(r"- \{name: ([^,]+)", row) for row in rows]
    table.write_text("".join(row for row, name in zip(rows, named, strict=True) if not name or name[1] in systems))


def in_one_kernel(profile: str, place: Path, notebooks: Sequence[str] = NOTEBOOKS) -> nbformat.NotebookNode:
    """Execute ``notebooks`` in the folder ``place``, cell by cell without papermill; one import of torch for all."""
    cells = []
    for notebook in notebooks:
        book = nbformat.read(notebook_path(notebook), as_version=4)
        for cell in book.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = f'profile, systems, overrides = "{profile}", [], {{}}'
        cells += [nbformat.v4.new_code_cell("%reset -f"), *book.cells]  # no notebook sees another's variables
    whole = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(whole, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    return whole
