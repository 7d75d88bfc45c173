"""Two overviews of paper against reproduction, from the rebuilt tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from lmolt_utils.config.published import METRICS
from lmolt_utils.figures import style
from lmolt_utils.figures.table_files import TableResult, heading
from lmolt_utils.metrics.results import NOT_RUN


@style.styled
def paper_against_reproduced(tables: Sequence[TableResult]) -> style.Drawn:
    """Each table cell: the paper's value (x) against the reproduced one (y); metrics within 0 and 1 only."""
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 3.5))
    parts: list[pd.DataFrame] = []
    missing: list[str] = []
    for index, table in enumerate(tables):
        printed = table.values.dropna(subset=["paper"])
        printed = printed[[METRICS[name].within_0_and_1 for name in printed["metric"]]]
        values = printed["reproduced"].map(style.number_or_word)
        parts.append(printed.assign(table=table.id, reproduced=values))
        ran = np.isfinite(printed["reproduced"])
        for paper in printed.loc[~ran, "paper"]:
            axes.plot([paper], [-0.06], marker="|", color=style.MUTED, linestyle="none")
        missing += [
            row if value == NOT_RUN else f"{row} ({value})"
            for row, value in zip(printed["row"][~ran], values[~ran], strict=True)
        ]
        look = {**style.look_of(index), "linestyle": "none", "alpha": 0.75, "markersize": 4, "markeredgewidth": 0}
        axes.plot(printed.loc[ran, "paper"], printed.loc[ran, "reproduced"], **look, label=f"{table.id}, {table.task}")
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, zorder=1)
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
        style.add_note(figure, style.not_run_note(missing))
    return figure, pd.concat(parts)[["table", "row", "metric", "paper", "reproduced"]]


@style.styled
def overview(tables: Sequence[TableResult]) -> style.Drawn:
    """One dot plot of every system: BLEU-2 for captions, MACCS similarity for molecules.

    Filled: reproduced; hollow: the paper; "not run" beside the panel where nothing ran. Rows of several tables with
    one label are one line.
    """
    parts = [
        table.values[table.values["metric"] == style.HEADLINE[table.task]].assign(task=table.task, table=table.id)
        for table in tables
    ]
    data = pd.concat(parts).assign(row=lambda lines: lines["title"])
    rows = list(dict.fromkeys(data["row"]))
    size = (style.TWO_COLUMNS, 1.1 + 0.19 * max(4, len(rows)))
    figure, grid = plt.subplots(1, len(style.HEADLINE), figsize=size, sharey=True)
    for index, (axes, (task, name)) in enumerate(zip(grid, style.HEADLINE.items(), strict=True)):
        colour = style.colour_of(index)
        lines: Iterable[Any] = data[data["task"] == task].itertuples()
        for line in lines:
            y, printed, ran = rows.index(line.row), pd.notna(line.paper), np.isfinite(line.reproduced)
            if printed and ran:
                axes.plot([line.paper, line.reproduced], [y, y], color=colour, linewidth=0.8, alpha=0.5)
            if printed:
                axes.plot(line.paper, y, "o", color=colour, markerfacecolor="white", markersize=6.5)
            if ran:
                axes.plot(line.reproduced, y, "o", color=colour, markersize=3.5)
            else:
                words = str(style.number_or_word(line.reproduced))
                axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), va="center", color=style.MUTED)
        axes.set_title(style.TASK_TITLES[task])
        axes.set_xlabel(heading(name))
        axes.set_xlim(-0.03, 1.03)
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(rows)), labels=rows)
    grid[0].set_ylim(max(1, len(rows)) - 0.5, -0.5)
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": "black"}
    reproduced_dot = Line2D([], [], **dot, markersize=3.5, label="reproduced")
    paper_dot = Line2D([], [], **dot, markersize=6.5, markerfacecolor="white", label="paper")
    figure.legend(handles=[reproduced_dot, paper_dot], loc="outside upper right", ncols=2)
    data["reproduced"] = data["reproduced"].map(style.number_or_word)
    return figure, data[["task", "table", "row", "metric", "paper", "reproduced"]]
