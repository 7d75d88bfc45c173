"""How far training seeds alone move a score: mean and standard deviation per trained system of the papers' tables.

A table beside the papers', because its ± is another: Tables 2 to 5 give half the 95 % interval over test rows of one
training, this one the standard deviation over trainings that differ in their seed only.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from IPython.display import Markdown

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import METRICS, load_published
from lmolt_utils.config.systems import System
from lmolt_utils.figures.style import UNDEFINED
from lmolt_utils.figures.table_files import escape_markdown, heading, markdown_table, write_files
from lmolt_utils.metrics.results import NOT_RUN, SEED_COLUMNS, seed_spread
from lmolt_utils.run.notebook import Run


def write_seed_table(run: Run, systems: Sequence[System]) -> Markdown:
    """Write ``seed_spread.csv`` and ``.md`` to the run's figures; returns the second as a notebook shows it.

    ``systems``: with their copies for further seeds. With one seed there are no lines, but the files are written too,
    so that no spread of an earlier run stays behind.
    """
    labels = {system.name: system.label for system in systems if system.trained_for_tables and not system.replica}
    keys = [(name, task, metric) for task in TASKS for name in labels for metric in _metrics(task)]
    spread = seed_spread(run, systems).astype({"system": str, "task": str, "metric": str})  # an empty one has floats
    wanted = pd.DataFrame(keys if len(run.params.seeds) > 1 else [], columns=["system", "task", "metric"], dtype=str)
    lines = wanted.merge(spread, how="left", on=["system", "task", "metric"])
    numbers = lines[["mean", "spread", "low", "high"]].astype(float)
    texts = numbers.map("{:.10g}".format).where(numbers.notna(), "")
    # No defined value among the seeds: undefined. No line of scores at all: not run.
    texts["mean"] = texts["mean"].mask(lines["seeds"] == 0, UNDEFINED).mask(lines["seeds"].isna(), NOT_RUN)
    seeds = lines["seeds"].fillna(0).astype(int)
    frame = lines.assign(**texts, seeds=seeds, wanted=len(run.params.seeds))[list(SEED_COLUMNS)]
    text = _markdown(lines, labels, run.params.seeds)
    csv = frame.to_csv(index=False, lineterminator="\n")
    run.wrote(*write_files(run.figures, "seed_spread", csv=csv, md=text))
    return Markdown(text)


def _metrics(task: Task) -> list[str]:
    return load_published().table({"mol2cap": "T2", "cap2mol": "T3"}[task]).metrics


def _markdown(lines: pd.DataFrame, labels: dict[str, str], seeds: Sequence[int]) -> str:
    """A table per task, or one line when there is one seed."""
    if len(seeds) == 1:
        return (
            f"**Spread over training seeds.** One seed ({seeds[0]}): the spread is not known. "
            "'lmolt reproduce --profile seeds' trains every trained system of the tables three times.\n"
        )
    legend = (
        f"Mean ± standard deviation (of the sample) over the training seeds {', '.join(map(str, seeds))}, on "
        "the same pairs and test rows. Not the ± of the papers' tables, which is half a 95 % interval over test "
        f"rows at seed {seeds[0]}. In brackets: how many seeds a value has, where it is not all of them."
    )
    parts = [f"**Spread over training seeds.** {escape_markdown(legend)}"]
    for task in TASKS:
        rows = [
            [escape_markdown(labels[str(name)]), *(_text(line, len(seeds)) for line in part.itertuples())]
            for name, part in lines[lines["task"] == task].groupby("system", sort=False)
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
