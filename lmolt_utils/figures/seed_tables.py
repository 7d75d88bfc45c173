"""How far training seeds alone move a score: mean and standard deviation per trained system of the papers' tables.

A second table beside the papers', because its ± is another: Tables 2 to 5 give half the 95 % interval over test rows of
one training, this one the standard deviation over trainings that differ in their seed only.
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
from lmolt_utils.figures.table_files import (
    escape_latex,
    escape_markdown,
    heading,
    latex_table,
    markdown_table,
    write_files,
)
from lmolt_utils.metrics.results import NOT_RUN, SEED_COLUMNS, seed_spread
from lmolt_utils.run.notebook import Run

#: The published tables whose metrics are shown per task.
_SHAPES: dict[Task, str] = {"mol2cap": "T2", "cap2mol": "T3"}


@dataclass(frozen=True, eq=False)
class SeedTable:
    """A run's spread over seeds; the last expression of a notebook cell shows it.

    lines: one per trained system of the tables, task and metric (:data:`~lmolt_utils.metrics.results.SEED_COLUMNS`);
    ``seeds`` of a line is 0 where a metric is undefined, NaN where nothing ran. Empty with one seed.
    """

    seeds: tuple[int, ...]
    labels: dict[str, str]
    lines: pd.DataFrame

    @property
    def known(self) -> bool:
        """Whether more than one seed was asked for."""
        return len(self.seeds) > 1

    @property
    def legend(self) -> str:
        """What ± is, or that there is none."""
        if not self.known:
            return (
                f"One seed ({self.seeds[0]}): the spread over training seeds is not known. "
                "'lmolt reproduce --profile seeds' trains every trained system of the tables three times."
            )
        return (
            f"Mean ± standard deviation (of the sample) over the training seeds {', '.join(map(str, self.seeds))}, on "
            "the same pairs and test rows. Not the ± of the papers' tables, which is half a 95 % interval over test "
            f"rows at seed {self.seeds[0]}. In brackets: how many seeds a value has, where it is not all of them; from "
            "one, the spread is not known."
        )

    def texts(self, task: Task) -> list[list[str]]:
        """Per system its label and per metric ``0.623 ± 0.012``, with the number of seeds where it is not all."""
        own = self.lines[self.lines["task"] == task]
        return [
            [self.labels[str(system)], *(self._text(line) for line in part.itertuples())]
            for system, part in own.groupby("system", sort=False)
        ]

    def _text(self, line: Any) -> str:
        if not line.seeds > 0:
            return NOT_RUN if math.isnan(line.seeds) else UNDEFINED
        decimals = 3 if METRICS[line.metric].within_0_and_1 else 2
        value = f"{line.mean:.{decimals}f}" + (f" ± {line.spread:.{decimals}f}" if line.seeds > 1 else "")
        return value if line.seeds == len(self.seeds) else f"{value} ({line.seeds:.0f})"

    def _repr_markdown_(self) -> str:
        return to_markdown(self)


def _metrics(task: Task) -> list[str]:
    return load_published().table(_SHAPES[task]).metrics


def seed_table(run: Run, systems: Sequence[System], seeds: Sequence[int]) -> SeedTable:
    """The table of a run from its score files; ``systems`` with their copies for further ``seeds``."""
    labels = {system.name: system.label for system in systems if system.trained_for_tables and not system.replica}
    keys = [(name, task, metric) for task in TASKS for name in labels for metric in _metrics(task)]
    spread = seed_spread(run, systems).astype({"system": str, "task": str, "metric": str})  # an empty one has floats
    wanted = pd.DataFrame(keys if len(seeds) > 1 else [], columns=["system", "task", "metric"], dtype=str)
    return SeedTable(tuple(seeds), labels, wanted.merge(spread, how="left", on=["system", "task", "metric"]))


def to_frame(table: SeedTable) -> pd.DataFrame:
    """The lines as texts, to ten digits; mean reads "not run" where nothing ran. With one seed there are no lines."""
    lines = table.lines
    numbers = lines[["mean", "spread", "low", "high"]].astype(float)
    texts = numbers.map("{:.10g}".format).where(numbers.notna(), "")
    texts["mean"] = texts["mean"].mask(lines["seeds"] == 0, UNDEFINED).mask(lines["seeds"].isna(), NOT_RUN)
    seeds = lines["seeds"].fillna(0).astype(int)
    return lines.assign(**texts, seeds=seeds, wanted=len(table.seeds))[list(SEED_COLUMNS)]


def to_markdown(table: SeedTable) -> str:
    """Both tasks' tables for GitHub and notebooks, or one line when there is one seed."""
    parts = [f"**Spread over training seeds.** {escape_markdown(table.legend)}"]
    for task in TASKS if table.known else ():
        rows = [list(map(escape_markdown, texts)) for texts in table.texts(task)]
        parts.append(markdown_table([task, *map(heading, _metrics(task))], rows))
    return "\n\n".join(parts) + "\n"


def to_latex(table: SeedTable) -> str:
    """A two-column float per task (booktabs), or a comment when there is one seed."""
    if not table.known:
        return f"% {table.legend}\n"
    floats = []
    for task in TASKS:
        rows = [list(map(escape_latex, texts)) for texts in table.texts(task)]
        header = pd.Index(["", *(escape_latex(heading(name)) for name in _metrics(task))])
        caption = f"Spread over training seeds, {task}. {table.legend}"
        floats.append(latex_table(header, rows, caption, f"seeds-{task}"))
    return "".join(floats)


def write_seed_table(table: SeedTable, folder: Path) -> list[Path]:
    """Write ``seed_spread.csv``, ``.md`` and ``.tex`` into ``folder``, each atomically; returns the paths.

    They are written with one seed too, and then say so: a spread from an earlier run must not stay behind.
    """
    return write_files(folder, "seed_spread", to_frame(table), to_markdown(table), to_latex(table))
