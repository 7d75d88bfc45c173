"""How far training seeds alone move a score: mean and standard deviation per trained system of the papers' tables.

A table beside the papers', because its ± is another: Tables 2 to 5 give half the 95 % interval over test rows of one
training, this one the standard deviation over trainings that differ in their seed only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import METRICS, load_published
from lmolt_utils.config.systems import System
from lmolt_utils.figures.style import UNDEFINED
from lmolt_utils.figures.table_files import escape_markdown, heading, markdown_table, write_files
from lmolt_utils.metrics.results import NOT_RUN, SEED_COLUMNS, seed_spread
from lmolt_utils.run.notebook import Run


@dataclass(frozen=True, eq=False)
class SeedTable:
    """A run's spread over seeds; the last expression of a notebook cell shows it.

    lines: one per trained system of the tables, task and metric (:data:`~lmolt_utils.metrics.results.SEED_COLUMNS`);
    ``seeds`` of a line is 0 where a metric is undefined, NaN where nothing ran. Empty with one seed.
    """

    seeds: tuple[int, ...]
    labels: dict[str, str]
    lines: pd.DataFrame

    def _repr_markdown_(self) -> str:
        return to_markdown(self)


def _metrics(task: Task) -> list[str]:
    return load_published().table({"mol2cap": "T2", "cap2mol": "T3"}[task]).metrics


def seed_table(run: Run, systems: Sequence[System], seeds: Sequence[int]) -> SeedTable:
    """The table of a run from its score files; ``systems`` with their copies for further ``seeds``."""
    labels = {system.name: system.label for system in systems if system.trained_for_tables and not system.replica}
    keys = [(name, task, metric) for task in TASKS for name in labels for metric in _metrics(task)]
    spread = seed_spread(run, systems).astype({"system": str, "task": str, "metric": str})  # an empty one has floats
    wanted = pd.DataFrame(keys if len(seeds) > 1 else [], columns=["system", "task", "metric"], dtype=str)
    return SeedTable(tuple(seeds), labels, wanted.merge(spread, how="left", on=["system", "task", "metric"]))


def to_frame(table: SeedTable) -> pd.DataFrame:
    """The lines as texts, to ten digits; mean reads "not run" where nothing ran."""
    lines = table.lines
    numbers = lines[["mean", "spread", "low", "high"]].astype(float)
    texts = numbers.map("{:.10g}".format).where(numbers.notna(), "")
    texts["mean"] = texts["mean"].mask(lines["seeds"] == 0, UNDEFINED).mask(lines["seeds"].isna(), NOT_RUN)
    seeds = lines["seeds"].fillna(0).astype(int)
    return lines.assign(**texts, seeds=seeds, wanted=len(table.seeds))[list(SEED_COLUMNS)]


def to_markdown(table: SeedTable) -> str:
    """A table per task, or one line when there is one seed."""
    if len(table.seeds) == 1:
        return (
            f"**Spread over training seeds.** One seed ({table.seeds[0]}): the spread is not known. "
            "'lmolt reproduce --profile seeds' trains every trained system of the tables three times.\n"
        )
    legend = (
        f"Mean ± standard deviation (of the sample) over the training seeds {', '.join(map(str, table.seeds))}, on "
        "the same pairs and test rows. Not the ± of the papers' tables, which is half a 95 % interval over test "
        f"rows at seed {table.seeds[0]}. In brackets: how many seeds a value has, where it is not all of them."
    )
    parts = [f"**Spread over training seeds.** {escape_markdown(legend)}"]
    for task in TASKS:
        own = table.lines[table.lines["task"] == task]
        rows = [
            [escape_markdown(table.labels[str(name)]), *(_text(line, len(table.seeds)) for line in part.itertuples())]
            for name, part in own.groupby("system", sort=False)
        ]
        parts.append(markdown_table([task, *map(heading, _metrics(task))], rows))
    return "\n\n".join(parts) + "\n"


def _text(line: Any, wanted: int) -> str:
    """``0.623 ± 0.012``, with the number of seeds where it is not all that are ``wanted``."""
    if not line.seeds > 0:
        return NOT_RUN if math.isnan(line.seeds) else UNDEFINED
    decimals = 3 if METRICS[line.metric].within_0_and_1 else 2
    value = f"{line.mean:.{decimals}f}" + (f" ± {line.spread:.{decimals}f}" if line.seeds > 1 else "")
    return value if line.seeds == wanted else f"{value} ({line.seeds:.0f})"


def write_seed_table(table: SeedTable, folder: Path) -> list[Path]:
    """Write ``seed_spread.csv`` and ``.md``; with one seed too, so that no spread of an earlier run stays behind."""
    csv = to_frame(table).to_csv(index=False, lineterminator="\n")
    return write_files(folder, "seed_spread", csv=csv, md=to_markdown(table))
