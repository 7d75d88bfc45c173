"""``lmolt why TABLE ROW METRIC``: one number of a table, walked back to its corpus by the provenance records.

A record names its inputs by hash. The walk looks for the record whose output has this hash, and says of each file on
the way which step made it, and whether it is still what was made.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lmolt_utils.config.params import ParameterError, load, profiles
from lmolt_utils.config.published import load_published
from lmolt_utils.config.reading import nearest
from lmolt_utils.files import BadFileError, emptied, fingerprint, read_kept
from lmolt_utils.paths import root, run_folder, shown
from lmolt_utils.run.notebook import read_notebook_record
from lmolt_utils.run.steps import code_hash, output_path, records


def why(table: str, row: str, metric: str) -> int:
    """Print where a cell of ``table`` comes from; :class:`ParameterError` names the nearest table, row or metric."""
    path = Path(table)
    if not (path.is_file() and path.name.startswith("table_") and path.suffix == ".csv"):
        known = [shown(each) for each in sorted(path.parent.glob("table_*.csv"))] or [
            shown(each) for each in sorted((root() / "figures").glob("table_*.csv"))
        ]
        raise ParameterError(f"no table {table}{nearest(table, known)} (there are: {', '.join(known)})")
    cell, run = _cell(path, row, metric), _run_of(path)
    print(f"{shown(path)}: {cell['row']}, {metric} = {cell['reproduced']} (paper {cell['paper'] or 'none'})")
    for line in [_table(path, run), *_walk(cell, run)]:
        print(f"  {line}")
    return 0


def _cell(path: Path, row: str, metric: str) -> dict[str, str]:
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError:  # pandas' errors, and texts that are not UTF-8
        lines = pd.DataFrame()
    if not {"table", "row", "kind", "metric", "paper", "reproduced", "system", "note"} <= set(lines):
        raise BadFileError(f"{shown(path)} is no table of 08_figures, or damaged: run 08_figures again")
    values = lines[lines["kind"] == "value"]
    mine = values[(values["row"] == row) | (values["system"] == row)]
    if mine.empty:
        known = list(dict.fromkeys(values["row"]))
        told = f" is no row{nearest(row, known)} (there are: {', '.join(known)})"
        if notes := list(lines.loc[lines["row"] == row, "note"]):
            told = f" is a difference ({notes[0].partition(';')[0]}): ask for one of the two rows"
        raise ParameterError(f"{shown(path)}: {row!r}{told}")
    found = mine[mine["metric"] == metric]
    if found.empty:
        known = list(mine["metric"])
        raise ParameterError(f"{shown(path)} has no metric {metric!r}{nearest(metric, known)} ({', '.join(known)})")
    return {str(name): str(value) for name, value in found.iloc[0].items()}


def _run_of(path: Path) -> Path:
    """The run folder whose 08 writes its tables beside ``path``."""
    place = path.resolve().parent
    if place.name == "figures" and (place.parent / "scores").is_dir():
        return place.parent
    for profile in profiles():
        if (root() / load(profile).figures_dir).resolve() == place:
            return run_folder(profile)
    raise ParameterError(f"no profile writes its tables to {shown(place)}: name a table in figures/ or runs/")


def _table(path: Path, run: Path) -> str:
    record = read_notebook_record(run, "08_figures")
    if record is None:
        return f"file: made by profile {run.name}; its commit is not known: {shown(run)} has no record of 08_figures"
    hashes = [digest for name, digest in record["files"].items() if name in (shown(path), f"figures/{path.name}")]
    state = "not written by this run" if not hashes else _state(path, hashes[0])
    return f"file: step 08_figures of {shown(run)}, {_commit(record.get('commit', 'unknown'))}, {state}"


def _walk(cell: dict[str, str], run: Path) -> Iterator[str]:
    if not cell["system"]:
        yield f"not run: no system of the run stands for {cell['row']!r} (params/systems.yaml)"
        return
    found = records(run)
    made = {digest: (output_path(file, name), r) for file, r in found.items() for name, digest in r["outputs"].items()}
    scored = f"score {cell['system']} {load_published().table(cell['table']).task}"
    score = next((file for file, record in found.items() if record["step"] == scored), None)
    if score is None:
        lacking = f"no step {scored!r} yet" if run.is_dir() else f"{shown(run)} is not here"
        yield f"scores: {lacking}: make reproduce PROFILE={run.name.partition('+')[0]} makes it"
        return
    value = (read_kept(score) or {}).get("metrics", {}).get(cell["metric"])
    number = pd.to_numeric(cell["reproduced"], errors="coerce")  # NaN: not run or undefined, as None in the score file
    same = cell["reproduced"] == "undefined" if value is None else math.isclose(value, number, rel_tol=1e-9)
    yield f"score: {value}, {'the number in the table' if same else 'NOT the number in the table'}"
    models = root() / "lmolt_utils" / "embedded" / "models"
    shipped = {fingerprint(path): path for path in models.iterdir() if path.is_dir()}
    seen = set()

    def lines(role: str, digest: str, indent: str) -> Iterator[str]:
        """What made ``digest``, its parameters, then the same of its inputs further to the right; each step once."""
        if digest in shipped:
            yield f"{indent}{role}: {shown(shipped[digest])}, comes with the package"
            return
        if digest not in made:
            lost = f"LOST: no record has hash {digest[:12]}; the file is gone or was made again"
            yield f"{indent}{role}: {lost if re.fullmatch('[0-9a-f]{64}', digest) else digest}"
            return
        file, record = made[digest]
        step, code, key = record["step"], record["code"], record["key"]
        again = ", as above" if step in seen else ""
        older = "" if code["hash"] == code_hash(code["module"]) else " (older code)"
        told = f"step {step!r}, {record['wall_s']:g} s, {_commit(code['commit'])}{older}"
        yield f"{indent}{role}: {file.relative_to(run).as_posix()}, {_state(file, digest)}, {told}{again}"
        if again:
            return
        seen.add(step)
        params = ", ".join(f"{name} = {value}" for name, value in key.get("params", {}).items())
        yield f"{indent}  parameters: {params or 'none'}"
        for name, text in key.get("inputs", {}).items():
            yield from lines(name, text, f"{indent}  ")

    yield from lines("scores", found[score]["outputs"][score.name], "")


def _commit(commit: str) -> str:
    return f"commit {commit[:7]}{'+changes' if commit.endswith('+changes') else ''}"


def _state(path: Path, digest: str) -> str:
    if not path.exists():
        return "MISSING"
    if fingerprint(path) != digest:
        return "CHANGED since"
    return "contents deleted to save space" if emptied(path) else "unchanged"
