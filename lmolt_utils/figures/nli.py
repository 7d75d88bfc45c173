"""Figures of the NLI evaluation (Less for More, Figs. 5 to 7 and 10; ALMol, Fig. 1).

As in :mod:`lmolt_utils.figures.style`, every function returns the figure and a frame of exactly what it plots, and says
what did not run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmolt_utils.config.published import load_published
from lmolt_utils.figures.distributions import QUANTITIES, histograms
from lmolt_utils.figures.style import (
    MUTED,
    TWO_COLUMNS,
    UNDEFINED,
    Drawn,
    add_note,
    colour_of,
    line_of,
    mark_empty,
    not_run_note,
    styled,
)
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.nli.divergence import BINS, CUTS, FEWEST

#: The methods as panels, in the paper's order; what its two sentence-level ones (C and D) are it does not say.
METHODS = {
    "atomic": "Atomic",
    "full text": "Full text",
    "sentence": "Sentence",
    "SummaC-ZS": "SummaC-ZS",
    "SummaC-Conv": "SummaC-Conv",
}
#: What Fig. 5 shows, and what its Eq. 6 cannot see.
SCORES = {
    "hallucination": "(A) Hallucination",
    "coverage": "(B) Coverage",
    "unsupported": "(C) Unsupported",
}
_HISTOGRAM = ["panel", "system", "n", "mean", "left", "right", "share"]


@dataclass(frozen=True)
class Contrast:
    """Which captions a figure of relative entropy is about, and what the paper prints for them.

    figure: the paper's number of it; words: the least words of a reference, paper_words: the paper's; paper: its values
    per method, as (low, high).
    """

    figure: str
    words: int
    paper_words: int
    paper: Mapping[str, tuple[float, float]]


def contrasts(cuts: tuple[int, int]) -> list[Contrast]:
    """Figs. 6, 7 and 10 with these cuts for long and extreme captions."""
    fact = load_published().fact
    atomic, long = fact("fig6-divergence-atomic").value, fact("fig7-divergence-long").value
    others = fact("fig6-divergence-others-low").value, fact("fig6-divergence-others-high").value
    everyone = dict.fromkeys(METHODS, others) | {"atomic": (atomic, atomic)}
    return [
        Contrast("Fig. 6", 0, 0, everyone),
        Contrast("Fig. 7", cuts[0], CUTS[0], {"atomic": (long, long)}),
        Contrast("Fig. 10", cuts[1], CUTS[1], {}),
    ]


@styled
def nli_distributions(rows: pd.DataFrame, labels: Mapping[str, str]) -> Drawn:
    """Distributions of atomic cross-NLI's scores (L4M, Fig. 5), with the coverage that the paper states.

    ``rows``: system, method, hallucination, coverage, unsupported; NaN is left out. ``labels``: the systems to draw, by
    name.
    """
    atomic = rows[rows["method"] == "atomic"]
    figure, grid = plt.subplots(1, len(SCORES), figsize=(TWO_COLUMNS, 2.6), sharey=True)
    lines: list[dict[str, object]] = []
    for axes, (quantity, title) in zip(grid, SCORES.items(), strict=True):
        values = _values(atomic, quantity, labels)
        axes.set_title(title, pad=9)
        means = ", ".join(f"{found.mean():.2g}" for found in values.values() if len(found))
        axes.set_xlabel(f"{title.split()[1]}\nmeans: {means}" if means else title.split()[1])
        lines += [{"panel": quantity, **bar} for bar in histograms(axes, values, quantity)]
    grid[0].set_ylabel("Share of captions")
    stated = {"slerp+cpo": "fig5-coverage-ours", "meditron": "fig5-coverage-meditron"}
    printed = {system: load_published().fact(stated[system]) for system in labels if system in stated}
    for system, fact in printed.items():
        colour = colour_of(list(labels).index(system))
        grid[1].axvline(fact.value, color=colour, linewidth=0.8, linestyle=":", zorder=0)
        lines.append({"panel": "coverage", "system": f"paper, {labels[system]}", "mean": fact.value})
    drawn = _legend(figure, labels, lines)
    papers = " and ".join(f"{fact.printed} ({labels[system]})" for system, fact in printed.items())
    note = f"Triangles: means, written in the legend's order; dotted: the paper's mean coverage, {papers}. "
    note += "(C) is not in the paper: facts of the output that no fact of the reference entails. "
    add_note(figure, note + not_run_note(label for system, label in labels.items() if system not in drawn))
    return figure, pd.DataFrame(lines, columns=_HISTOGRAM)


def _values(frame: pd.DataFrame, column: str, systems: Iterable[str]) -> dict[str, np.ndarray]:
    """A column's values by system, undefined ones left out."""
    return {name: frame.loc[frame["system"] == name, column].dropna().to_numpy(dtype=float) for name in systems}


def _legend(figure: Figure, labels: Mapping[str, str], lines: Sequence[Mapping[str, object]]) -> set[object]:
    """A legend of the systems that have bars in ``lines``; returns which these are."""
    drawn = {line.get("system") for line in lines if line.get("n")}
    handles = [
        Line2D([], [], color=colour_of(index), linestyle=line_of(index), label=label)
        for index, (system, label) in enumerate(labels.items())
        if system in drawn
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(handles)))
    return drawn


@styled
def coverage_contrast(
    rows: pd.DataFrame, table: pd.DataFrame, shown: Contrast, labels: Mapping[str, str], reason: str = ""
) -> Drawn:
    """Coverage of preferred and dispreferred captions by each NLI method (L4M, Figs. 6, 7 and 10).

    ``rows``: system, method, coverage, words. ``table``: a line per method and cut, as
    :func:`~lmolt_utils.nli.divergence.divergences` gives it. ``labels``: the preferred and the dispreferred system, by
    name. ``reason``: why the table is empty. The last panel holds the relative entropies: interval over resampled
    rows, what swapped labels give, and for a cut what as many random captions give.
    """
    figure, grid = plt.subplots(2, 3, figsize=(TWO_COLUMNS, 4.1))
    panels, last = [*grid.flat][:-1], grid.flat[-1]
    found = {} if table.empty else {line["method"]: line for _, line in table[table["words"] == shown.words].iterrows()}
    lines: list[dict[str, object]] = []
    for axes, letter, (method, title) in zip(panels, "ABCDE", METHODS.items(), strict=True):
        axes.set_title(f"({letter}) {title}", pad=9)
        axes.set_xlabel("Coverage")
        line = found.get(method)
        if line is None or line["reason"]:
            mark_empty(axes, NOT_RUN if line is None else f"n = {int(line['n'])}: too few\n({FEWEST} needed)")
            lines.append({"panel": method, "note": NOT_RUN if line is None else line["reason"]})
            continue
        own = rows[(rows["method"] == method) & (rows["words"] >= shown.words)]
        lines += [{"panel": method, **bar} for bar in _pair_of_histograms(axes, _values(own, "coverage", labels))]
        axes.text(0.5, 0.97, _said(line), transform=axes.transAxes, ha="center", va="top", fontsize=6.5)
    for axes in (panels[0], panels[3]):
        axes.set_ylabel("Share of captions")
    lines += _entropies(last, found, shown.paper)
    handles = [
        Line2D([], [], color=colour_of(index), linestyle=line_of(index), label=f"{label} ({role})")
        for index, (label, role) in enumerate(zip(labels.values(), ("preferred", "dispreferred"), strict=True))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    which = f"captions whose reference has at least {shown.words} words" if shown.words else "all captions"
    which += f" (the paper: {shown.paper_words})" if shown.words != shown.paper_words else ""
    n = max((int(line["n"]) for line in found.values()), default=0)
    note = f"{shown.figure}: {which}, n = {n}. KL: relative entropy of the two, nats, {BINS} bins, with 95 % interval. "
    if reason:
        note += f"{reason[0].upper()}{reason[1:]}."
    else:
        note += "Triangles: means. x: KL with labels swapped at random. "
        note += "Bar: KL of as many random captions. " if shown.words else ""
        note += "Diamonds: the paper's." if shown.paper else ""
    add_note(figure, note)
    columns = [*_HISTOGRAM, "kl", "low", "high", "null", "random", "random_low", "random_high", "paper", "note"]
    return figure, pd.DataFrame(lines).reindex(columns=columns)


def _pair_of_histograms(axes: Axes, values: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Coverage of both systems in the bins of the relative entropy; room for two lines of text above."""
    edges = np.linspace(0, 1, BINS + 1)
    lines: list[dict[str, Any]] = []
    for index, (system, found) in enumerate(values.items()):
        shares = np.histogram(found, edges)[0] / max(1, len(found))
        colour = colour_of(index)
        axes.stairs(shares, edges, color=colour, linestyle=line_of(index))
        axes.stairs(shares, edges, color=colour, alpha=0.1, fill=True)
        axes.plot(found.mean(), 1.03, "v", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
        lines += [
            {"system": system, "n": len(found), "mean": found.mean(), "left": left, "right": right, "share": share}
            for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True)
        ]
    axes.set(xlim=(0, 1), ylim=(0, 1.45 * max(line["share"] for line in lines)))
    return lines


def _said(line: "pd.Series[float]") -> str:
    return (
        f"KL {line['kl']:.2f} [{line['low']:.2f}, {line['high']:.2f}]\n"
        f"difference {line['difference']:+.2f} [{line['difference_low']:+.2f}, {line['difference_high']:+.2f}]"
    )


def _entropies(
    axes: Axes, found: Mapping[str, "pd.Series[float]"], paper: Mapping[str, tuple[float, float]]
) -> list[dict[str, object]]:
    """Relative entropy per method; what random rows of the same number and swapped labels give; the paper's."""
    axes.set_title("(F) Relative entropy", pad=9)
    axes.set_xlabel("KL (nats)")
    drawn = {method: line for method, line in found.items() if not math.isnan(line["kl"])}
    if not drawn:
        mark_empty(axes, UNDEFINED if found else NOT_RUN)
        return []
    lines: list[dict[str, object]] = []
    for place, method in enumerate(METHODS):
        y = len(METHODS) - place
        if method in drawn:
            line = drawn[method]
            if not math.isnan(line["random"]):
                axes.hlines(y, line["random_low"], line["random_high"], color="0.8", linewidth=6)
            axes.hlines(y, line["low"], line["high"], color="black", linewidth=1)
            axes.plot(line["kl"], y, "o", color="black", markersize=4)
            axes.plot(line["null"], y, "x", color=MUTED, markersize=4)
            kept = ("n", "kl", "low", "high", "null", "random", "random_low", "random_high")
            lines.append({"panel": "relative entropy", "system": method, **{name: line[name] for name in kept}})
        else:
            axes.text(0.02, y, NOT_RUN, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=6)
        if method in paper:
            low, high = paper[method]
            axes.hlines(y - 0.3, low, high, color=colour_of(1), linestyle=":", linewidth=1)
            axes.plot([low, high], [y - 0.3] * 2, "D", color=colour_of(1), markerfacecolor="white", markersize=3)
            lines.append({"panel": "relative entropy", "system": method, "paper": low, "note": "the paper's, lowest"})
            lines.append({"panel": "relative entropy", "system": method, "paper": high, "note": "the paper's, highest"})
    axes.set_yticks(range(len(METHODS), 0, -1), labels=list(METHODS.values()))
    axes.set_ylim(0.4, len(METHODS) + 0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    return lines


@styled
def author_distributions(samples: pd.DataFrame, authors: pd.DataFrame | None, labels: Mapping[str, str]) -> Drawn:
    """Length deviation and entailment of captions, by the authors' own file and by this run (ALMol, Fig. 1).

    ``samples``: system, task, id, quantity, value, this run's. ``authors``: system, quantity, value, as
    :func:`~lmolt_utils.figures.author_scores.read_author_scores` gives them; None where the file is not there.
    ``labels``: the systems to draw, by name.
    """
    ours = samples[samples["task"] == "mol2cap"]
    figure, grid = plt.subplots(2, 2, figsize=(TWO_COLUMNS, 3.9))
    lines: list[dict[str, object]] = []
    for column, title, frame in ((0, "The authors' file", authors), (1, "This run", ours)):
        grid[0][column].set_title(title, pad=9)
        for axes, quantity in zip(grid[:, column], ("length_deviation", "entailment"), strict=True):
            axes.set_xlabel(QUANTITIES[quantity] + (" (tokens)" if quantity == "length_deviation" else ""))
            if frame is None:
                mark_empty(axes, "file not there:\nparameter author_scores")
                lines.append({"panel": f"{title}, {quantity}", "note": "file not there"})
                continue
            values = _values(frame[frame["quantity"] == quantity], "value", labels)
            lines += [{"panel": f"{title}, {quantity}", **bar} for bar in histograms(axes, values, quantity)]
    for axes in grid[:, 0]:
        axes.set_ylabel("Share of captions")
    _legend(figure, labels, lines)
    here = set(ours["system"])
    note = "Triangles: means. The outermost length bins also hold what lies beyond them. "
    add_note(figure, note + not_run_note(label for system, label in labels.items() if system not in here))
    return figure, pd.DataFrame(lines).reindex(columns=[*_HISTOGRAM, "note"])
