"""Figures of scores with their 95 % intervals: every system, the mixing ratio of SLERP, the merges under CPO."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.published import load_published
from lmolt_utils.config.systems import ratio
from lmolt_utils.figures import style
from lmolt_utils.figures.table_files import TableResult, heading
from lmolt_utils.figures.tables import index_scores
from lmolt_utils.metrics.results import NOT_RUN

#: What ``merge_comparison`` draws; Levenshtein and FCD do not lie between 0 and 1.
_BARS: dict[Task, tuple[str, ...]] = {
    "mol2cap": ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"),
    "cap2mol": ("BLEU", "MACCS", "RDK", "Morgan", "Validity"),
}
_HATCHES = ("", "////", "....", "xxxx")
_PAPER: dict[str, Any] = {
    "marker": "D",
    "color": "black",
    "markerfacecolor": "none",
    "linestyle": "none",
    "markersize": 5,
}
_POINT = ["task", "metric", "system", "reproduced", "low", "high"]


def _points(scores: pd.DataFrame, systems: Iterable[str], task: Task, metrics: Sequence[str]) -> pd.DataFrame:
    """A line (``_POINT``) per metric and system; reproduced is NaN where nothing ran, infinity where undefined."""
    found = index_scores(scores)
    keys = [(system, task, metric) for metric in metrics for system in systems]
    lines = [{"system": key[0], "task": task, "metric": key[2], **found.get(key, {})} for key in keys]
    return pd.DataFrame(lines).reindex(columns=_POINT).astype({"reproduced": float, "low": float, "high": float})


def _reach(points: pd.DataFrame) -> np.ndarray:
    """How far each interval reaches below and above its value, shape (2, n); 0 where there is none."""
    ends = points["reproduced"] - points["low"], points["high"] - points["reproduced"]
    return np.clip(np.nan_to_num(ends, posinf=0), 0, None)


def _told(points: pd.DataFrame) -> pd.DataFrame:
    """The points as files hold them: words in place of NaN and infinity."""
    return points.assign(reproduced=points["reproduced"].map(style.number_or_word))


@style.styled
def overview(tables: Sequence[TableResult]) -> style.Drawn:
    """One dot plot of every system: BLEU-2 for captions, MACCS similarity for molecules, with 95 % intervals.

    Filled: reproduced; hollow: the paper; "not run" beside the panel where nothing ran. Rows of several tables with
    one label are one line.
    """
    parts = [
        table.values[table.values["metric"] == style.HEADLINE[table.task]].assign(task=table.task, table=table.id)
        for table in tables
    ]
    data = pd.concat(parts).assign(row=lambda lines: lines["title"])
    rows = list(dict.fromkeys(data["row"]))
    size = (style.TWO_COLUMNS, 1.1 + 0.155 * max(4, len(rows)))
    figure, grid = plt.subplots(1, len(style.HEADLINE), figsize=size, sharey=True)
    for index, (axes, (task, name)) in enumerate(zip(grid, style.HEADLINE.items(), strict=True)):
        own = data[data["task"] == task]
        places = own["row"].map(rows.index)
        ran = np.isfinite(own["reproduced"])
        axes.plot(own["paper"], places, **_PAPER, label="paper")
        dots = {"fmt": "o", "color": style.colour_of(index), "markersize": 3.5, "elinewidth": 1}
        axes.errorbar(own.loc[ran, "reproduced"], places[ran], xerr=_reach(own[ran]), **dots, label="reproduced")
        for y, value in zip(places[~ran], own.loc[~ran, "reproduced"], strict=True):
            word = style.number_or_word(value)
            axes.text(1.02, y, word, transform=axes.get_yaxis_transform(), va="center", color=style.MUTED)
        axes.set(title=style.TASK_TITLES[task], xlabel=heading(name), xlim=(-0.03, 1.03))
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(rows)), labels=rows)
    grid[0].set_ylim(max(1, len(rows)) - 0.5, -0.5)
    handles = [entry for axes in grid for entry in axes.get_legend_handles_labels()[0]]
    names = ["paper", "reproduced, captions", "paper", "reproduced, molecules"]
    figure.legend(handles[1:], names[1:], loc="outside upper right", ncols=3)
    style.add_note(figure, "Lines: 95 % intervals over test rows. Control: the papers have no such row.")
    return figure, _told(data)[["task", "table", "row", "metric", "paper", "reproduced", "low", "high"]]


@style.styled
def ratio_sweep(scores: pd.DataFrame, ratios: Mapping[str, float]) -> style.Drawn:
    """CPO from SLERP merges against the mixing ratio (L4M, Fig. 4), with 95 % intervals.

    ``scores``: system, task, metric, value, n, low, high. ``ratios``: per system the share of the mol2cap model,
    strictly between 0 and 1: the axis is logistic, so that 1:18 and 19:1 do not crowd at its ends.
    """
    published = load_published()
    best, other = published.facts["fig4-best-ratio"], published.facts["fmix-ratio"]
    ordered = dict(sorted(ratios.items(), key=lambda pair: pair[1]))
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 2.7))
    parts, words = [], dict[float, str]()
    papers = dict[float, list[str]]()
    for index, ((task, name), table) in enumerate(zip(style.HEADLINE.items(), ("T4", "T5"), strict=True)):
        points = _points(scores, ordered, task, [name]).assign(mol2cap_share=list(ordered.values()))
        ran = points.replace(np.inf, np.nan)
        label = f"{style.TASK_TITLES[task]}, {name}"
        axes.errorbar(ran["mol2cap_share"], ran["reproduced"], _reach(ran), **style.look_of(index), label=label)
        parts.append(_told(points))
        # Without one of the two tasks there is no trade-off to see: that is said too.
        words |= parts[-1].loc[~np.isfinite(points["reproduced"])].set_index("mol2cap_share")["reproduced"].to_dict()
        if (printed := published.table(table).value("SLERP+CPO", name)) is not None:
            papers.setdefault(printed, []).append(name)
            paper = {"task": task, "metric": name, "system": "paper, SLERP+CPO", "mol2cap_share": best.value}
            parts.append(pd.DataFrame([{**paper, "paper": printed}]))
    for printed, names in papers.items():
        text = f"Paper, SLERP+CPO: {printed:g}" + (f", {names[0]}" if len(papers) > 1 else "")
        axes.plot(best.value, printed, **_PAPER, label=text)
    for share, word in words.items():
        axes.text(share, 0.03, word, rotation=90, ha="center", va="bottom", color=style.MUTED)
    axes.set_xscale("logit", use_overline=False)
    ticks = sorted({best.value, other.value, *ratios.values()})
    axes.set(xlabel="Mixing ratio, mol2cap : cap2mol", xlim=(ticks[0] * 0.7, 1 - (1 - ticks[-1]) * 0.7))
    axes.set(ylabel="Score", ylim=(0, 1))
    axes.set_xticks(ticks, labels=[ratio(share) for share in ticks], rotation=0 if len(ticks) < 6 else 90)
    axes.set_xticks([], minor=True)
    for fact, name, side in ((best, "L4M", "left"), (other, "FMix", "right")):
        axes.axvline(fact.value, color=style.MUTED, linewidth=0.8, linestyle=":", zorder=0)
        text = f" {fact.printed} ({name}) "
        axes.annotate(text, (fact.value, 0.995), ha=side, va="top", color=style.MUTED, fontsize=6.5)
    figure.legend(loc="outside upper center", ncols=1)
    note = (
        f"Bars: 95 % intervals. FMix writes {other.printed} without an order; read as cap2mol : mol2cap it is a share "
        f"of {1 - other.value:.2f} mol2cap, beside {best.printed}. "
    )
    style.add_note(figure, note + style.not_run_note(ratio(share) for share, word in words.items() if word == NOT_RUN))
    return figure, pd.concat(parts).reindex(columns=[*_POINT, "mol2cap_share", "paper"])


@style.styled
def merge_comparison(scores: pd.DataFrame, labels: Mapping[str, str]) -> style.Drawn:
    """Grouped bars of the merges under CPO with 95 % intervals, both tasks (L4M, Fig. 8: soup, SLERP, TIES).

    ``scores``: system, task, metric, value, n, low, high. ``labels``: the systems to draw, by name.
    """
    widths, size = [len(names) for names in _BARS.values()], (style.TWO_COLUMNS, 2.3)
    figure, grid = plt.subplots(1, len(_BARS), figsize=size, sharey=True, width_ratios=widths)
    width = 0.8 / max(1, len(labels))
    parts = []
    for axes, letter, (task, names) in zip(grid, "AB", _BARS.items(), strict=True):
        for index, (system, label) in enumerate(labels.items()):
            points = _points(scores, [system], task, names)
            places = np.arange(len(names)) + (index - (len(labels) - 1) / 2) * width
            look = {"facecolor": style.colour_of(index), "hatch": _HATCHES[index % len(_HATCHES)], "edgecolor": "white"}
            bars = points["reproduced"].replace(np.inf, np.nan)
            axes.bar(places, bars, width * 0.92, yerr=_reach(points), linewidth=0, label=label, **look)
            for x, value in zip(places, points["reproduced"], strict=True):
                if not np.isfinite(value):
                    word = style.number_or_word(value)
                    axes.text(x, 0.01, word, rotation=90, ha="center", va="bottom", color=style.MUTED, fontsize=6)
            parts.append(points)
        axes.set_title(f"({letter}) {style.TASK_TITLES[task]}")
        axes.set_xticks(range(len(names)), labels=names)
        axes.tick_params(axis="x", length=0, labelsize=6.5)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1)
    grid[0].set_ylabel("Score")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=max(1, len(labels)))
    data = _told(pd.concat(parts, ignore_index=True))
    absent = data.loc[data["reproduced"] == NOT_RUN, "system"].map(dict(labels))
    style.add_note(figure, f"Lines: 95 % intervals over test rows. {style.not_run_note(absent)}")
    return figure, data
