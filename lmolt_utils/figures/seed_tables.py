"""How far training seeds alone move a score: mean and standard deviation per trained system of the papers' tables.

A second table beside the papers', because its ± is another: Tables 2 to 5 give half the 95 % interval over test rows of
one training, this one the standard deviation over trainings that differ in their seed only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import METRICS, Metric, load_published
from lmolt_utils.config.systems import System
from lmolt_utils.figures.tables import NOT_RUN, UNDEFINED, escape_latex, escape_markdown, markdown_grid, write_formats
from lmolt_utils.metrics.results import SEED_COLUMNS, seed_spread
from lmolt_utils.run.notebook import Run

NAME = "seed_spread"
#: The published tables whose metrics are shown per task.
_SHAPES: dict[Task, str] = {"mol2cap": "T2", "cap2mol": "T3"}


@dataclass(frozen=True, eq=False)
class SeedTable:
    """The trained systems of the tables with their spread; the last expression of a notebook cell shows it."""

    seeds: tuple[int, ...]
    systems: tuple[System, ...]
    spread: pd.DataFrame

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

    def _repr_markdown_(self) -> str:
        return to_markdown(self)


def seed_table(run: Run, systems: Sequence[System], seeds: Sequence[int]) -> SeedTable:
    """The table of a run from its score files; ``systems`` with their copies for further ``seeds``."""
    spread = seed_spread(run, systems)
    return SeedTable(tuple(seeds), tuple(s for s in systems if s.trained_for_tables and not s.replica), spread)


def _metrics(task: Task) -> list[Metric]:
    return [METRICS[name] for name in load_published().table(_SHAPES[task]).metrics]


def _cell(table: SeedTable, line: Any, metric: Metric) -> str:
    """``0.623 ± 0.012``, with the number of seeds where it is not all."""
    if line is None:
        return NOT_RUN
    if not line.seeds:
        return UNDEFINED
    decimals = 3 if metric.within_0_and_1 else 2
    value = f"{line.mean:.{decimals}f}"
    if line.seeds > 1:
        value += f" ± {line.spread:.{decimals}f}"
    return value if line.seeds == len(table.seeds) else f"{value} ({line.seeds})"


def _lines(table: SeedTable, task: Task) -> list[list[str]]:
    """One row of texts per system: its label, then a cell per metric."""
    own = table.spread[table.spread["task"] == task]
    found = {(line.system, line.metric): line for line in own.itertuples(index=False)}
    return [
        [system.label, *(_cell(table, found.get((system.name, metric.name)), metric) for metric in _metrics(task))]
        for system in table.systems
    ]


def to_frame(table: SeedTable) -> pd.DataFrame:
    """One line per system, task and metric (:data:`~lmolt_utils.metrics.results.SEED_COLUMNS`), to ten digits.

    mean reads "not run" where nothing ran. With one seed there are no lines.
    """
    lines = []
    numbers = ("mean", "spread", "low", "high")
    for task in TASKS if table.known else ():
        own = table.spread[table.spread["task"] == task]
        found = {(line["system"], line["metric"]): line for line in own.to_dict("records")}
        for system in table.systems:
            for metric in _metrics(task):
                line = found.get((system.name, metric.name), {"seeds": 0, "wanted": len(table.seeds)})
                texts = {name: f"{line[name]:.10g}" if pd.notna(line.get(name)) else "" for name in numbers}
                if not line["seeds"]:
                    texts["mean"] = UNDEFINED if "mean" in line else NOT_RUN
                counts = {"seeds": line["seeds"], "wanted": line["wanted"]}
                lines.append({"system": system.name, "task": task, "metric": metric.name, **texts, **counts})
    return pd.DataFrame(lines, columns=list(SEED_COLUMNS))


def to_markdown(table: SeedTable) -> str:
    """Both tasks' tables for GitHub and notebooks, or one line when there is one seed."""
    parts = [f"**Spread over training seeds.** {escape_markdown(table.legend)}"]
    for task in TASKS if table.known else ():
        header = [task, *(f"{metric.name} {metric.arrow}" for metric in _metrics(task))]
        rows = [[escape_markdown(text) for text in line] for line in _lines(table, task)]
        parts.append("\n".join(markdown_grid(header, rows)))
    return "\n\n".join(parts) + "\n"


def to_latex(table: SeedTable) -> str:
    """A two-column float per task (booktabs), or a comment when there is one seed."""
    if not table.known:
        return f"% {table.legend}\n"
    lines: list[str] = []
    for task in TASKS:
        metrics = _metrics(task)
        lines += [r"\begin{table*}[t]", r"\centering", r"\scriptsize"]
        lines += [r"\begin{tabular}{l" + "r" * len(metrics) + "}", r"\toprule"]
        lines.append(" & ".join(["", *(escape_latex(f"{m.name} {m.arrow}") for m in metrics)]) + r" \\")
        lines.append(r"\midrule")
        lines += [" & ".join(escape_latex(text) for text in line) + r" \\" for line in _lines(table, task)]
        caption = escape_latex(f"Spread over training seeds, {task}. {table.legend}")
        lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", rf"\label{{tab:seeds-{task}}}"]
        lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"


def write_seed_table(table: SeedTable, folder: Path) -> list[Path]:
    """Write ``seed_spread.csv``, ``.md`` and ``.tex`` into ``folder``, each atomically; returns the paths.

    They are written with one seed too, and then say so: a spread from an earlier run must not stay behind.
    """
    contents = {
        "csv": to_frame(table).to_csv(index=False, lineterminator="\n"),
        "md": to_markdown(table),
        "tex": to_latex(table),
    }
    return write_formats(folder, NAME, contents)
