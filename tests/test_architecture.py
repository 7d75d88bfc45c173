"""The house as docs/architecture.md draws it: rooms, what may import what, sizes, and how to add things."""

import ast
import json
from pathlib import Path

import pytest

from lmolt_utils.paths import root
from lmolt_utils.run.notebooks import NOTEBOOKS

#: From the top down: a room imports from those after it only.
ROOMS = (
    "cli", "figures", "nli", "metrics", "training", "merging", "negatives", "data", "embedded", "grammar", "models",
    "run", "config", "files", "paths", "errors",
)  # fmt: skip
#: Which rooms each notebook opens, besides run, config and figures.
OPENS = {
    "01_data": {"data"},
    "02_negatives": {"negatives"},
    "03_sft": {"training"},
    "04_alignment": {"training"},
    "05_merging": {"merging", "training"},
    "06_ablation": {"training", "metrics"},
    "07_nli_evaluation": {"metrics", "nli"},
    "08_figures": {"metrics", "nli"},
}
PACKAGE = root() / "lmolt_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(source: str) -> set[str]:
    """Dotted names of this repository that ``source`` imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("lmolt_utils", "benchmarks", "tools")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_downwards_only(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imported(path.read_text(encoding="utf-8")):
        package, *parts = name.split(".")
        assert package == "lmolt_utils", f"{name}: benchmarks and tools import the package, never the other way"
        assert ROOMS.index(parts[0]) >= ROOMS.index(room), f"{room} imports from {parts[0]}"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_opens_its_own_room(notebook: str) -> None:
    cells = json.loads((root() / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    rooms = {name.split(".")[1] for name in imported(code)}
    assert rooms <= OPENS[notebook] | {"run", "config", "figures"}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_package_stays_thin() -> None:
    assert {path.name: lines(path) for path in MODULES if lines(path) > 400} == {}
    rooms = {folder.name: len(list(folder.glob("[!_]*.py"))) for folder in PACKAGE.iterdir() if folder.is_dir()}
    assert {room: count for room, count in rooms.items() if count > 12} == {}
    sizes = {room: sum(map(lines, (PACKAGE / room).rglob("*.py"))) for room in rooms}
    assert {room: size for room, size in sizes.items() if size > 2500} == {}
    assert sum(map(lines, MODULES)) <= 11_500
    outside = [path for name in ("benchmarks", "tools") for path in (root() / name).rglob("*.py")]
    assert sum(map(lines, outside)) <= 2_200
    assert sum(map(lines, (root() / "tests").rglob("*.py"))) <= 7_500
