"""Measure a profile: wall time and peak memory per notebook, and the papers' effects that its scores show."""

import argparse
import os
import sys
import tempfile
import time
from typing import Any

import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.systems import load_systems
from lmolt_utils.files import read_json
from lmolt_utils.metrics.results import all_scores, effects
from lmolt_utils.paths import run_folder
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.notebook_files import NOTEBOOKS
from lmolt_utils.run.runner import reproduce


def bench(profile: str, cores: int, *, fresh: bool = True) -> int:
    """Run ``profile`` from nothing in a folder of its own (or report its last run), print the tables.

    Returns the exit status of the run.
    """
    if not fresh:
        _report(profile, None)
        return 0
    with tempfile.TemporaryDirectory(prefix="lmolt-bench-") as folder:
        os.environ["LMOLT_RUNS"] = folder
        started = time.perf_counter()
        status = reproduce(profile, cores)
        _report(profile, time.perf_counter() - started)
    return status


def _report(profile: str, wall: float | None) -> None:
    run = Run("08_figures", run_folder(profile), load(profile))
    rows: dict[str, Any] = {notebook: {} for notebook in NOTEBOOKS}
    for record in sorted(run.path("notebooks").glob("*.run.json")):  # jobs of some systems have one too
        rows[record.name.removesuffix(".run.json")] = read_json(record)
    table = pd.DataFrame(rows).T.reindex(columns=["seconds", "peak_mb"])
    print(table.to_string(na_rep="not run"))
    sides = f"; wall time {wall:.0f} s" if wall is not None else ""
    print(f"sum {table['seconds'].sum():.0f} s, largest {table['peak_mb'].max():.0f} MB{sides}\n")
    systems = load_systems()
    print(effects(run, systems, all_scores(run, systems)).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--cores", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--last", action="store_true", help="do not run: report the profile's last run")
    told = parser.parse_args()
    sys.exit(bench(told.profile, told.cores, fresh=not told.last))
