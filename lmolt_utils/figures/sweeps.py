"""Figures of the merges under CPO: the mixing ratio of SLERP, and soup against SLERP and TIES."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.published import load_published
from lmolt_utils.config.systems import ratio
from lmolt_utils.figures import style
from lmolt_utils.figures.tables import index_scores
from lmolt_utils.metrics.results import NOT_RUN

#: What ``merge_comparison`` draws; Levenshtein and FCD do not lie between 0 and 1.
_BARS: dict[Task, tuple[str, ...]] = {
    "mol2cap": ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"),
    "cap2mol": ("BLEU", "MACCS", "RDK", "Morgan", "Validity"),
}
_HATCHES = ("", "////", "....", "xxxx")


def _lookup(scores: pd.DataFrame) -> Callable[[str, str, str], float]:
    """The value of (system, task, metric): NaN where nothing ran, infinity where it is undefined."""
    found = index_scores(scores)
    return lambda *key: found[key]["reproduced"] if key in found else math.nan


@style.styled
def ratio_sweep(scores: pd.DataFrame, ratios: Mapping[str, float]) -> style.Drawn:
    """CPO from SLERP merges against the mixing ratio (L4M, Fig. 4).

    ``scores``: system, task, metric, value, n. ``ratios``: per system the share of the mol2cap model, strictly between
    0 and 1: the axis is logistic, so that 1:18 and 19:1 do not crowd at its ends.
    """
    value_of, published = _lookup(scores), load_published()
    best, other = published.facts["fig4-best-ratio"], published.facts["fmix-ratio"]
    printed = {"mol2cap": published.table("T4"), "cap2mol": published.table("T5")}
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 3.0))
    lines: list[dict[str, object]] = []
    ordered = sorted(ratios.items(), key=lambda pair: pair[1])
    for index, (task, name) in enumerate(style.HEADLINE.items()):
        heights = [value_of(system, task, name) for system, _ in ordered]
        for (system, share), height in zip(ordered, heights, strict=True):
            point = {"task": task, "metric": name, "system": system, "mol2cap_share": share}
            lines.append({**point, "reproduced": style.number_or_word(height)})
        look = style.look_of(index)
        axes.plot([share for _, share in ordered], heights, label=f"{style.TASK_TITLES[task]}, {name}", **look)
        paper: Any = printed[task].value("SLERP+CPO", name)
        hollow = {**look, "linestyle": "none", "markerfacecolor": "white"}
        size = 9 - 3.5 * index  # the paper's two values coincide: the second mark fits into the first
        axes.plot([best.value], [paper], zorder=1.5 + 0.1 * index, markersize=size, **hollow)
        point = {"task": task, "metric": name, "system": "paper, SLERP+CPO", "mol2cap_share": best.value}
        lines.append({**point, "paper": paper})
    missing = []
    for system, share in ordered:
        # Without one of the two tasks there is no trade-off to see: that is said too.
        both = [style.number_or_word(value_of(system, task, name)) for task, name in style.HEADLINE.items()]
        words = [value for value in both if isinstance(value, str)]
        if words:
            missing.append(system if NOT_RUN in words else f"{system} ({style.UNDEFINED})")
            axes.plot([share], [0.03], marker="x", color=style.MUTED, linestyle="none")
            axes.text(share, 0.06, words[0], rotation=90, ha="center", va="bottom", color=style.MUTED)

    axes.set_xscale("logit", use_overline=False)
    ends = [*ratios.values(), best.value, other.value]
    axes.set_xlim(min(ends) * 0.7, 1 - (1 - max(ends)) * 0.7)
    axes.set_ylim(0, 1)
    ticks = _spaced([best.value, other.value, *sorted(ratios.values(), key=lambda s: abs(s - 0.5))])
    axes.set_xticks(ticks, labels=[ratio(share) for share in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("Mixing ratio, mol2cap : cap2mol")
    axes.set_ylabel("Score")
    for fact, name, side in ((best, "L4M", "left"), (other, "FMix", "right")):
        axes.axvline(fact.value, color=style.MUTED, linewidth=0.8, linestyle=":", zorder=0)
        text = f" {fact.printed} ({name}) "
        axes.annotate(text, (fact.value, 0.995), ha=side, va="top", color=style.MUTED, fontsize=6.5)
    figure.legend(loc="outside upper center", ncols=1)
    note = (
        f"Hollow: the paper's SLERP+CPO. FMix writes {other.printed} without an order; read as "
        f"cap2mol : mol2cap it is a share of {1 - other.value:.2f} mol2cap, beside {best.printed}. "
    )
    style.add_note(figure, note + style.not_run_note(missing))
    columns = ["task", "metric", "system", "mol2cap_share", "reproduced", "paper"]
    return figure, pd.DataFrame(lines, columns=columns)


def _spaced(shares: Iterable[float], apart: float = 0.45) -> list[float]:
    """The shares, first come first served, that are ``apart`` in logits, so that tick labels do not touch."""
    kept: list[float] = []
    for share in shares:
        logit = np.log(share / (1 - share))
        if all(abs(logit - np.log(other / (1 - other))) >= apart for other in kept):
            kept.append(share)
    return sorted(kept)


@style.styled
def merge_comparison(scores: pd.DataFrame, labels: Mapping[str, str]) -> style.Drawn:
    """Grouped bars of the merges under CPO, both tasks (L4M, Fig. 8: soup, SLERP, TIES).

    ``scores``: system, task, metric, value, n. ``labels``: the systems to draw, by name.
    """
    value_of = _lookup(scores)
    widths = [len(names) for names in _BARS.values()]
    size = (style.TWO_COLUMNS, 2.6)
    figure, grid = plt.subplots(1, len(_BARS), figsize=size, sharey=True, width_ratios=widths)
    width = 0.8 / max(1, len(labels))
    looks: list[dict[str, Any]] = [
        {"facecolor": style.colour_of(index), "hatch": _HATCHES[index % len(_HATCHES)], "edgecolor": "white"}
        for index in range(len(labels))
    ]
    lines: list[dict[str, object]] = []
    missing: list[str] = []
    for axes, letter, (task, names) in zip(grid, "AB", _BARS.items(), strict=True):
        for index, system in enumerate(labels):
            for place, name in enumerate(names):
                value = style.number_or_word(value_of(system, task, name))
                lines.append({"task": task, "metric": name, "system": system, "reproduced": value})
                x = place + (index - (len(labels) - 1) / 2) * width
                if isinstance(value, str):
                    missing += [labels[system]] if value == NOT_RUN else []
                    axes.text(x, 0.01, value, rotation=90, ha="center", va="bottom", color=style.MUTED, fontsize=6)
                else:
                    axes.bar(x, value, width * 0.92, linewidth=0, **looks[index])
        axes.set_title(f"({letter}) {style.TASK_TITLES[task]}")
        axes.set_xticks(range(len(names)), labels=names)
        axes.tick_params(axis="x", length=0, labelsize=6.5)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1)
    grid[0].set_ylabel("Score")
    handles = [plt.Rectangle((0, 0), 1, 1, **look) for look in looks]
    figure.legend(handles, list(labels.values()), loc="outside upper center", ncols=max(1, len(labels)))
    if missing:
        style.add_note(figure, style.not_run_note(missing))
    return figure, pd.DataFrame(lines, columns=["task", "metric", "system", "reproduced"])
