"""Measure a profile: wall time and peak memory per notebook, and the papers' effects that its scores show."""

import os
import tempfile
import time
from pathlib import Path

import pandas as pd

from lmolt_utils.effects import look
from lmolt_utils.files import read_json
from lmolt_utils.notebook import NOTEBOOKS
from lmolt_utils.paths import run_folder
from lmolt_utils.prompts import TASKS
from lmolt_utils.runner import reproduce
from lmolt_utils.systems import load_systems


def bench(profile: str, cores: int, *, fresh: bool = True) -> int:
    """Run ``profile`` from nothing in a folder of its own (or report its last run), print the tables.

    Returns the exit status of the run.
    """
    if not fresh:
        _report(run_folder(profile), None)
        return 0
    with tempfile.TemporaryDirectory(prefix="lmolt-bench-") as folder:
        os.environ["LMOLT_RUNS"] = folder
        started = time.perf_counter()
        status = reproduce(profile, cores)
        _report(run_folder(profile), time.perf_counter() - started)
    return status


def _report(folder: Path, wall: float | None) -> None:
    rows = {}
    for notebook in NOTEBOOKS:
        record = folder / "notebooks" / f"{notebook}.run.json"
        rows[notebook] = read_json(record) if record.exists() else {}
    table = pd.DataFrame(rows).T.reindex(columns=["seconds", "peak_mb"])
    print(table.to_string(na_rep="not run"))
    sides = f"; wall time {wall:.0f} s" if wall is not None else ""
    print(f"sum of notebooks {table['seconds'].sum():.0f} s, largest {table['peak_mb'].max():.0f} MB{sides}\n")
    print(look(_scores(folder)).to_string(index=False))


def _scores(folder: Path) -> pd.DataFrame:
    lines = []
    for system in load_systems():
        for task in TASKS:
            path = folder / "scores" / f"{system.name}.{task}.json"
            if path.exists():
                values = read_json(path)["metrics"]
                lines += [(system.name, task, metric, value) for metric, value in values.items()]
    return pd.DataFrame(lines, columns=["system", "task", "metric", "value"])
