"""Two overviews of paper against reproduction, from the rebuilt tables."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from lmolt_utils.config.published import metric
from lmolt_utils.figures.style import (
    HEADLINE,
    MUTED,
    ONE_COLUMN,
    TASK_TITLES,
    TWO_COLUMNS,
    UNDEFINED,
    Drawn,
    add_note,
    colour_of,
    look_of,
    not_run_note,
    number_or_word,
    styled,
)
from lmolt_utils.figures.tables import TableResult
from lmolt_utils.metrics.results import NOT_RUN


@styled
def paper_against_reproduced(tables: Sequence[TableResult]) -> Drawn:
    """Each table cell: the paper's value (x) against the reproduced one (y); metrics within 0 and 1 only."""
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 3.5))
    lines: list[dict[str, object]] = []
    missing: list[str] = []
    for index, table in enumerate(tables):
        points: list[tuple[float, float]] = []
        for row in table.rows:
            for name, cell in row.cells.items():
                if not metric(name).within_0_and_1 or cell.paper is None:
                    continue
                value = number_or_word(cell.reproduced)
                found = {"paper": cell.paper, "reproduced": value}
                lines.append({"table": table.id, "row": row.label, "metric": name, **found})
                if isinstance(value, str):
                    missing.append(row.label if value == NOT_RUN else f"{row.label} ({UNDEFINED})")
                    axes.plot([cell.paper], [-0.06], marker="|", color=MUTED, linestyle="none")
                else:
                    points.append((cell.paper, value))
        look = {**look_of(index), "linestyle": "none", "alpha": 0.75, "markersize": 4, "markeredgewidth": 0}
        x, y = [x for x, _ in points], [y for _, y in points]
        axes.plot(x, y, **look, label=f"{table.id}, {table.task}")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, zorder=1)
    axes.set_xlim(-0.1, 1.05)
    axes.set_ylim(-0.1, 1.05)
    axes.set_aspect("equal", anchor="N")
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks)
    axes.set_yticks([-0.06, *ticks], labels=[NOT_RUN, *(f"{tick:.1f}" for tick in ticks)])
    axes.set_xlabel("Paper")
    axes.set_ylabel("Reproduced")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=0.8, handletextpad=0.1)
    if missing:
        add_note(figure, not_run_note(missing))
    return figure, pd.DataFrame(lines, columns=["table", "row", "metric", "paper", "reproduced"])


@styled
def overview(tables: Sequence[TableResult]) -> Drawn:
    """One dot plot of every system: BLEU-2 for captions, MACCS similarity for molecules.

    Filled: reproduced; hollow: the paper; "not run" beside the panel where nothing ran. Rows of several tables with
    one label are one line.
    """
    lines: list[dict[str, object]] = [
        {
            "task": table.task,
            "table": table.id,
            "row": row.title,
            "metric": name,
            "paper": row.cells[name].paper,
            "reproduced": number_or_word(row.cells[name].reproduced),
        }
        for table in tables
        if (name := HEADLINE[table.task]) in table.metrics
        for row in table.rows
    ]
    rows = list(dict.fromkeys(str(line["row"]) for line in lines))
    size = (TWO_COLUMNS, 1.1 + 0.19 * max(4, len(rows)))
    figure, grid = plt.subplots(1, len(HEADLINE), figsize=size, sharey=True)
    for index, (axes, (task, name)) in enumerate(zip(grid, HEADLINE.items(), strict=True)):
        colour = colour_of(index)
        for line in lines:
            if line["task"] != task:
                continue
            y, paper, reproduced = rows.index(str(line["row"])), line["paper"], line["reproduced"]
            if paper is not None and isinstance(reproduced, float):
                axes.plot([paper, reproduced], [y, y], color=colour, linewidth=0.8, alpha=0.5)
            if paper is not None:
                axes.plot(paper, y, "o", color=colour, markerfacecolor="white", markersize=6.5)
            if isinstance(reproduced, float):
                axes.plot(reproduced, y, "o", color=colour, markersize=3.5)
            else:
                axes.text(1.02, y, str(reproduced), transform=axes.get_yaxis_transform(), va="center", color=MUTED)
        axes.set_title(TASK_TITLES[task])
        axes.set_xlabel(f"{name} {metric(name).arrow}")
        axes.set_xlim(-0.03, 1.03)
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(rows)), labels=rows)
    grid[0].set_ylim(max(1, len(rows)) - 0.5, -0.5)
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": "black"}
    reproduced_dot = Line2D([], [], **dot, markersize=3.5, label="reproduced")
    paper_dot = Line2D([], [], **dot, markersize=6.5, markerfacecolor="white", label="paper")
    figure.legend(handles=[reproduced_dot, paper_dot], loc="outside upper right", ncols=2)
    columns = ["task", "table", "row", "metric", "paper", "reproduced"]
    return figure, pd.DataFrame(lines, columns=columns)
