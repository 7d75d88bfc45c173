"""Figures of the NLI evaluation (Less for More, Figs. 5 to 7 and 10; ALMol, Fig. 1)."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lmolt_utils.config.published import load_published
from lmolt_utils.figures.distributions import QUANTITIES, histograms, outlines, values_of
from lmolt_utils.figures.style import (
    MUTED,
    TWO_COLUMNS,
    UNDEFINED,
    Drawn,
    add_note,
    colour_of,
    mark_empty,
    not_run_note,
    styled,
)
from lmolt_utils.files import BadFileError
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.nli.divergence import BINS, COLUMNS, CUTS, FEWEST
from lmolt_utils.paths import from_root

#: The methods as panels, in the paper's order; what its two sentence-level ones (C and D) are it does not say.
METHODS = ("atomic", "full text", "sentence", "SummaC-ZS", "SummaC-Conv")
_TITLES = {method: method[0].upper() + method[1:] for method in METHODS}
_HISTOGRAM = ["panel", "system", "n", "mean", "left", "right", "share"]
_ENTROPY = ["kl", "low", "high", "null", "random", "random_low", "random_high"]


def _printed(figure: str) -> dict[str, tuple[float, float]]:
    """The relative entropies that the paper prints for a figure, by method: lowest and highest."""
    names = ("fig6-divergence-atomic", "fig6-divergence-others-low", "fig6-divergence-others-high")
    atomic, low, high, long = (load_published().facts[name].value for name in (*names, "fig7-divergence-long"))
    everyone = dict.fromkeys(METHODS, (low, high)) | {"atomic": (atomic, atomic)}
    return {"Fig. 6": everyone, "Fig. 7": {"atomic": (long, long)}}.get(figure, {})


@styled
def nli_distributions(rows: pd.DataFrame, labels: Mapping[str, str]) -> Drawn:
    """Distributions of atomic cross-NLI's scores (L4M, Fig. 5), with the coverage that the paper states.

    ``rows``: system, method, hallucination, coverage, unsupported. ``labels``: the systems to draw, by name.
    """
    atomic = rows[rows["method"] == "atomic"]
    figure, grid = plt.subplots(1, 3, figsize=(TWO_COLUMNS, 2.4), sharey=True)
    lines: list[dict[str, object]] = []
    for axes, letter, quantity in zip(grid, "ABC", ("hallucination", "coverage", "unsupported"), strict=True):
        values, title = values_of(atomic, quantity, labels), quantity.capitalize()
        axes.set_title(f"({letter}) {title}", pad=9)
        means = ", ".join(f"{found.mean():.2g}" for found in values.values() if len(found))
        axes.set_xlabel(f"{title}\nmeans: {means}" if means else title)
        lines += [{"panel": quantity, **bar} for bar in histograms(axes, values, quantity)]
    grid[0].set_ylabel("Share of captions")
    stated = {"slerp+cpo": "fig5-coverage-ours", "meditron": "fig5-coverage-meditron"}
    printed = []
    for index, (system, label) in enumerate(labels.items()):
        if system in stated:
            fact = load_published().facts[stated[system]]
            grid[1].axvline(fact.value, color=colour_of(index), linewidth=0.8, linestyle=":", zorder=0)
            lines.append({"panel": "coverage", "system": f"paper, {label}", "mean": fact.value})
            printed.append(f"{fact.printed} ({label})")
    drawn = {line["system"] for line in lines if line.get("n")}
    figure.legend(handles=outlines(labels, drawn), loc="outside upper center", ncols=len(labels))
    note = (
        f"Triangles: means, written in the legend's order; dotted: the paper's mean coverage, {' and '.join(printed)}. "
    )
    note += "(C) is not in the paper: facts of the output that no fact of the reference entails. "
    add_note(figure, note + not_run_note(label for system, label in labels.items() if system not in drawn))
    return figure, pd.DataFrame(lines, columns=_HISTOGRAM)


@styled
def coverage_contrast(
    name: str, rows: pd.DataFrame, table: pd.DataFrame, labels: Mapping[str, str], cuts: Sequence[int], reason: str
) -> Drawn:
    """Coverage of two systems' captions by each NLI method: L4M, Figs. 6, 7 and 10 (``name``: which).

    ``rows``: system, method, coverage, words. ``table``: of :func:`~lmolt_utils.nli.divergence.divergences`.
    ``labels``: the system that the paper prefers, and the other one, by name. ``cuts``: the words from which a
    reference is long (Fig. 7) and extreme (Fig. 10). ``reason``: why the table is empty.
    """
    least, paper_least = {"Fig. 6": (0, 0), "Fig. 7": (cuts[0], CUTS[0]), "Fig. 10": (cuts[1], CUTS[1])}[name]
    paper = _printed(name)
    figure, grid = plt.subplots(2, 3, figsize=(TWO_COLUMNS, 3.7))
    found = table.reindex(columns=["method", *COLUMNS]).query("words == @least").set_index("method")
    lines: list[dict[str, object]] = []
    for axes, letter, method in zip(grid.flat, "ABCDE", METHODS, strict=False):
        axes.set_title(f"({letter}) {_TITLES[method]}", pad=9)
        axes.set_xlabel("Coverage")
        line: Any = found.loc[method] if method in found.index else None
        if line is None or line["reason"]:
            mark_empty(axes, NOT_RUN if line is None else f"n = {line['n']:.0f}: too few\n({FEWEST} needed)")
            lines.append({"panel": method, "note": NOT_RUN if line is None else line["reason"]})
            continue
        own = rows[(rows["method"] == method) & (rows["words"] >= least)]
        bars = histograms(axes, values_of(own, "coverage", labels), "coverage", BINS)
        lines += [{"panel": method, **bar} for bar in bars]
        axes.set(xlim=(0, 1), ylim=(0, 1.45), yticks=[0, 0.5, 1])  # room for two lines of text
        text = (
            "KL {kl:.2f} [{low:.2f}, {high:.2f}]\n"
            "difference {difference:+.2f} [{difference_low:+.2f}, {difference_high:+.2f}]"
        ).format(**line)
        axes.text(0.5, 0.97, text, transform=axes.transAxes, ha="center", va="top", fontsize=6)
    for row in grid:
        row[0].set_ylabel("Share of captions")
    drawn = _entropies(grid[1][2], found, paper)
    figure.legend(handles=outlines(labels, labels), loc="outside upper center", ncols=len(labels))
    which = f"captions whose reference has at least {least} words" if least else "all captions"
    which += f" (the paper: {paper_least})" if least != paper_least else ""
    note = f"{name}: {which}, n = {found['n'].max() if len(found) else 0:.0f}. KL: relative entropy of the two, nats, "
    note += f"{BINS} bins, with 95 % interval. The paper calls captions of {next(iter(labels.values()))} preferred. "
    if reason:
        note += f"{reason[0].upper()}{reason[1:]}."
    else:
        note += "Triangles: means. x: KL with labels swapped at random. "
        note += "Bar: KL of as many random captions. " if least else ""
        note += "Diamonds: the paper's." if paper else ""
    add_note(figure, note)
    data = pd.concat([pd.DataFrame(lines), drawn], ignore_index=True)
    return figure, data.reindex(columns=[*_HISTOGRAM, *_ENTROPY, "paper", "note"])


def _entropies(axes: Axes, found: pd.DataFrame, paper: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Relative entropy per method; what random rows of the same number and swapped labels give; the paper's."""
    axes.set_title("(F) Relative entropy", pad=9)
    axes.set_xlabel("KL (nats)")
    drawn = found[found["kl"].notna()][["n", *_ENTROPY]].astype(float)
    if drawn.empty:
        mark_empty(axes, UNDEFINED if len(found) else NOT_RUN)
        return drawn
    places = pd.Series(range(len(METHODS), 0, -1), index=METHODS)
    y = places[drawn.index]
    if drawn["random"].notna().any():
        axes.hlines(y, drawn["random_low"], drawn["random_high"], color="0.8", linewidth=6)
    axes.hlines(y, drawn["low"], drawn["high"], color="black", linewidth=1)
    axes.plot(drawn["kl"], y, "o", color="black", markersize=4)
    axes.plot(drawn["null"], y, "x", color=MUTED, markersize=4)
    for place in places.drop(drawn.index):
        axes.text(0.02, place, NOT_RUN, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=6)
    for method, ends in paper.items():
        axes.plot(ends, [places[method] - 0.3] * 2, "D:", color="black", markerfacecolor="white", markersize=3, lw=1)
    axes.set_yticks(places, labels=list(_TITLES.values()))
    axes.set(xlim=(0, None), ylim=(0.4, len(METHODS) + 0.6))
    axes.grid(axis="y", visible=False)
    printed = [{"system": method, "paper": end} for method, ends in paper.items() for end in ends]
    both = pd.concat([drawn.rename_axis("system").reset_index(), pd.DataFrame(printed)], ignore_index=True)
    return both.assign(panel="relative entropy")


@styled
def author_distributions(samples: pd.DataFrame, authors: pd.DataFrame | None, labels: Mapping[str, str]) -> Drawn:
    """Length deviation and entailment of captions, by this run and, if given, the authors' own file (ALMol, Fig. 1).

    ``samples``: system, task, id, quantity, value. ``authors``: of :func:`read_author_scores`. ``labels``: the systems
    to draw, by name.
    """
    ours = samples[samples["task"] == "mol2cap"]
    sources = {"This run": ours} if authors is None else {"This run": ours, "The authors' file": authors}
    size = (TWO_COLUMNS, 0.6 + 1.6 * len(sources))
    figure, grid = plt.subplots(len(sources), 2, figsize=size, squeeze=False)
    lines: list[dict[str, object]] = []
    for row, (title, frame) in zip(grid, sources.items(), strict=True):
        row[0].set_title(title, pad=9)
        row[0].set_ylabel("Share of captions")
        for axes, quantity in zip(row, ("length_deviation", "entailment"), strict=True):
            axes.set_xlabel(QUANTITIES[quantity] + (" (tokens)" if quantity == "length_deviation" else ""))
            values = values_of(frame[frame["quantity"] == quantity], "value", labels)
            lines += [{"panel": f"{title}, {quantity}", **bar} for bar in histograms(axes, values, quantity)]
    drawn = {line["system"] for line in lines if line["n"]}
    figure.legend(handles=outlines(labels, drawn), loc="outside upper center", ncols=len(labels))
    here = set(ours["system"])
    note = "Triangles: means. The outermost length bins also hold what lies beyond them. "
    note += "The authors' scores: not given (parameter author_scores). " if authors is None else ""
    add_note(figure, note + not_run_note(label for system, label in labels.items() if system not in here))
    return figure, pd.DataFrame(lines).reindex(columns=_HISTOGRAM)


@styled
def fact_matrices(
    contradiction: np.ndarray, entailment: np.ndarray, reference: Sequence[str], output: Sequence[str]
) -> Drawn:
    """All answers about one pair of captions (L4M, Fig. 3), with what Eqs. 6 and 7 pool of each row boxed.

    contradiction: the output's facts by the reference's, shape (L, N). entailment: the other way round, (N, L).
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 1.1 + 0.3 * max(contradiction.shape)))
    known = [f"R{number}" for number in range(1, len(reference) + 1)]
    stated = [f"O{number}" for number in range(1, len(output) + 1)]
    one = pd.DataFrame(contradiction, index=stated, columns=known)
    other = pd.DataFrame(entailment, index=known, columns=stated)
    for axis, frame, facts, colours in ((axes[0], one, output, "Oranges"), (axes[1], other, reference, "Greens")):
        named = zip(facts, frame.index, strict=True)
        rows = [f"{textwrap.shorten(fact, 40, placeholder='…')}  {name}" for fact, name in named]
        sns.heatmap(frame, cmap=colours, vmin=0, vmax=1, annot=True, fmt=".2f", cbar=False, yticklabels=rows, ax=axis)
        pooled = frame.to_numpy().argmin(axis=1) if frame is one else frame.to_numpy().argmax(axis=1)
        for row, column in enumerate(pooled):
            axis.add_patch(Rectangle((column, row), 1, 1, fill=False, clip_on=False))
    axes[0].set_title("Contradiction: output (O) by reference (R)")
    axes[1].set_title("Entailment: reference (R) by output (O)")
    return figure, pd.concat({"contradiction": one.stack(), "entailment": other.stack()}).reset_index()


#: The groups of the authors' released per-caption scores (ALMol's Fig. 1), and the systems that they are here.
GROUPS = {"Meditron": "meditron", "CPO-Meditron_Lan": "cpo", "CPO-Meditron_Mol": "cpo-mol2cap"}
HOW_TO_GET = (
    "The authors' scores are not there: save smiles2caption.txt of github.com/gkoumasd/alignment_tuning_LLMS and give "
    "its path as parameter author_scores."
)


def read_author_scores(given: Path | str) -> pd.DataFrame:
    """Long table of the file: system, quantity (``entailment``, 0..1; ``length_deviation``, tokens), value."""
    path = Path(from_root(str(given)))
    try:
        types = {"score": float, "length": float, "group": str}
        frame = pd.read_csv(path, usecols=list(types), dtype=types, compression=None)
    except (OSError, ValueError) as error:
        raise BadFileError(f"{path} cannot be read ({error!s:.200}). {HOW_TO_GET}") from None
    frame["system"] = frame["group"].map(GROUPS)
    if frame.isna().any(axis=None) or not frame["score"].between(0, 1).all():
        raise BadFileError(f"{path} has an empty cell, an unknown group or a score outside 0..1. {HOW_TO_GET}")
    named = frame.rename(columns={"score": "entailment", "length": "length_deviation"})
    return named.melt(id_vars=["system"], value_vars=["entailment", "length_deviation"], var_name="quantity")
