"""The notebooks as files: their cells, the parameters they list, and all that what they write depends on."""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lmolt_utils.config.params import ParameterError, load, nearest
from lmolt_utils.config.systems import load_systems, with_ratio_grid
from lmolt_utils.files import fingerprint
from lmolt_utils.paths import root
from lmolt_utils.run.steps import PACKAGE, _source, closure, code_hash

NOTEBOOKS = (
    "01_data",
    "02_negatives",
    "03_sft",
    "04_alignment",
    "05_merging",
    "06_ablation",
    "07_nli_evaluation",
    "08_figures",
)
#: Which notebooks' files each one reads. 03 to 06 are independent of each other and may run side by side.
AFTER: dict[str, tuple[str, ...]] = {
    "01_data": (),
    "02_negatives": ("01_data",),
    "03_sft": ("02_negatives",),
    "04_alignment": ("02_negatives",),
    "05_merging": ("02_negatives",),
    "06_ablation": ("02_negatives",),
    "07_nli_evaluation": ("01_data", "03_sft", "04_alignment", "05_merging", "06_ablation"),
    "08_figures": ("07_nli_evaluation",),
}
#: Parameters every notebook has, whether its cell lists them or not: they decide how it runs.
ALWAYS = ("profile", "seed", "threads", "device", "dtype", "quantize")
#: Parameters that change no number, only how or where a run works: with another value it stays the same run.
SAME_NUMBERS = (
    "threads",
    "ablation_jobs",
    "figures_dir",
    "save_steps",
    "negatives_shard_rows",
    "keep_merges",
    "stop_above",
)


def changes(profile: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``values``, those that make another run than the profile's; raises :class:`ParameterError` for wrong ones.

    ``systems`` does not count: a notebook narrowed to some of them makes the same files of these.
    """
    given = {name: value for name, value in values.items() if name not in ("profile", "systems")}
    base, own = load(profile).model_dump(), load(profile, given).model_dump()
    return {name: own[name] for name in sorted(own) if own[name] != base[name] and name not in SAME_NUMBERS}


def untouched(changed: Iterable[str]) -> list[str]:
    """The notebooks whose files do not depend on the parameters ``changed``, nor on a notebook whose files do."""
    found: list[str] = []
    for notebook in NOTEBOOKS:
        if not set(changed) & set(declared(notebook)) and set(AFTER[notebook]) <= set(found):
            found.append(notebook)
    return found


def notebook_path(notebook: str) -> Path:
    """The source of a notebook; raises :class:`ParameterError` for an unknown one."""
    if notebook not in NOTEBOOKS:
        raise ParameterError(f"no notebook {notebook!r}{nearest(notebook, list(NOTEBOOKS))}")
    return root() / "notebooks" / f"{notebook}.ipynb"


def code_cells(notebook: str) -> list[tuple[str, list[str]]]:
    """Source and tags of each code cell, in order.

    Read as the JSON that it is: importing nbformat takes two seconds (its validator's), and every process of a run
    asks.
    """
    book = json.loads(notebook_path(notebook).read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]


@cache
def declared(notebook: str) -> tuple[str, ...]:
    """The parameters that a notebook's parameters cell lists, and those that every notebook has."""
    cells = [source for source, tags in code_cells(notebook) if "parameters" in tags]
    if len(cells) != 1:
        raise ParameterError(f"{notebook} has {len(cells)} cells tagged parameters, not one")
    names = list(assigned(cells[0]))
    return tuple(dict.fromkeys([*names, *ALWAYS]))


def assigned(source: str) -> dict[str, ast.expr]:
    """Names that a cell assigns at its top level, with their expressions."""
    found: dict[str, ast.expr] = {}
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with IPython magics assigns no parameter
        return found
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return found


#: Files that are no code but change what a notebook that uses the module makes.
_DATA_OF = {
    f"{PACKAGE}.models.loading": root() / PACKAGE / "embedded" / "models" / "hashes.json",
    f"{PACKAGE}.figures.plots": root() / PACKAGE / "figures" / "companion.mplstyle",
    f"{PACKAGE}.metrics.results": root() / "params" / "effects.yaml",
    f"{PACKAGE}.figures.published": root() / "params" / "published.yaml",
}


def package_sources(notebook: str) -> list[str]:
    """Files of the package that ``notebook`` uses, directly or not, with the data that belongs to them."""
    return [str(path) for path in [*filter(None, map(_source, closure(_modules(notebook)))), *_data(notebook)]]


def _modules(notebook: str) -> list[str]:
    """Modules of the package that ``notebook`` names."""
    modules: set[str] = {f"{PACKAGE}.notebook"}
    for source, _ in code_cells(notebook):
        modules |= _imported(source)
    return sorted(modules)


def _data(notebook: str) -> list[Path]:
    return [path for module, path in _DATA_OF.items() if module in closure(_modules(notebook))]


def _imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def notebook_params(notebook: str, profile: str) -> dict[str, Any]:
    """The values ``notebook`` depends on in ``profile``, and the rows of the systems table that it makes or draws."""
    values = load(profile).model_dump()
    used = {name: values[name] for name in declared(notebook) if name in values}
    rows = with_ratio_grid(load_systems(), load(profile))
    own = [row for row in rows if row.notebook == notebook]
    if own or notebook in ("07_nli_evaluation", "08_figures"):
        used["systems"] = [row.model_dump() for row in (own or rows)]
    return used


def made_from(notebook: str, profile: str) -> dict[str, str]:
    """A hash of each thing that ``notebook``'s files depend on: its parameters, its systems, its code."""
    cells = [source for source, _ in code_cells(notebook)]
    code = "\0".join([*map(code_hash, _modules(notebook)), *cells, *map(fingerprint, _data(notebook))])
    return {name: _short_hash(value) for name, value in notebook_params(notebook, profile).items()} | {
        "code": _short_hash(code)
    }


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def outdated(receipt: Mapping[str, Any], profile: str) -> list[str]:
    """Parameters that the notebook of ``receipt`` was run with at other values than ``profile`` has now.

    What only adds systems does not count, nor what changes no number.
    """
    now = notebook_params(receipt["notebook"], profile)
    then = receipt["made_from"]
    return [
        name
        for name, value in now.items()
        if name not in ("systems", "seeds", "ratio_grid", *SAME_NUMBERS) and then.get(name) != _short_hash(value)
    ]
