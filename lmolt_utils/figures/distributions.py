"""Distributions over test rows: per-sample quantities, win rates against their thresholds, words per caption."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import load_published
from lmolt_utils.figures import style
from lmolt_utils.metrics.distributions import CHR_F, LENGTH
from lmolt_utils.metrics.results import NOT_RUN

#: The per-sample quantities of ``distributions``, with the label of each.
QUANTITIES = {"length_deviation": "Length deviation", "chr_f": "Chr-F", "entailment": "Entailment probability"}
LENGTH_UNITS: dict[Task, str] = {"mol2cap": "tokens", "cap2mol": "characters"}


@style.styled
def distributions(samples: pd.DataFrame, labels: Mapping[str, str]) -> style.Drawn:
    """Length deviation, Chr-F and entailment per prediction (FMix, Fig. 1; ALMol, Figs. 1 and 2).

    ``samples``: system, task, id, quantity (``length_deviation``: prediction minus reference, in ``LENGTH_UNITS``;
    ``chr_f`` and ``entailment``: 0 to 1), value; NaN is left out. ``labels``: the systems to draw, by name. The data
    holds the histograms: the share of a system's samples per bin.
    """
    figure, grid = plt.subplots(2, len(QUANTITIES), figsize=(style.TWO_COLUMNS, 3.2))
    lines: list[dict[str, object]] = []
    for row, task in zip(grid, TASKS, strict=True):
        row[0].set_title(style.TASK_TITLES[task], pad=9)
        row[0].set_ylabel("Share of samples")
        for axes, (quantity, title) in zip(row, QUANTITIES.items(), strict=True):
            if (task, quantity) == ("cap2mol", "entailment"):
                axes.set_axis_off()  # captions only: its place is the legend's
                continue
            own = samples[(samples["task"] == task) & (samples["quantity"] == quantity)]
            values = values_of(own, "value", labels)
            unit = f" ({LENGTH_UNITS[task]})" if quantity == "length_deviation" else ""
            axes.set_xlabel(title + unit)
            bars = histograms(axes, values, quantity)
            lines += [{"task": task, "quantity": quantity, **bar} for bar in bars]
            absent = [labels[system] for system, found in values.items() if not len(found)]
            if 0 < len(absent) < len(labels):
                text = f"{NOT_RUN}:\n" + "\n".join(absent)
                x, side = (0.97, "right") if quantity == "entailment" else (0.03, "left")  # it piles up at 0
                axes.text(x, 0.97, text, transform=axes.transAxes, ha=side, va="top", color=style.MUTED, fontsize=6)
    drawn = {line["system"] for line in lines if line["n"]}
    grid[-1][-1].legend(handles=outlines(labels, drawn), loc="center")
    note = "Triangles: means. The outermost length bins also hold what lies beyond them. "
    absent = [label for system, label in labels.items() if system not in drawn]
    style.add_note(figure, note + style.not_run_note(absent))
    columns = ["task", "quantity", "system", "n", "mean", "left", "right", "share"]
    return figure, pd.DataFrame(lines, columns=columns)


def outlines(labels: Mapping[str, str], drawn: Iterable[object]) -> list[Line2D]:
    """The legend of histograms: those of ``labels`` that were ``drawn``."""
    return [
        Line2D([], [], color=style.colour_of(index), linestyle=style.line_of(index), label=label)
        for index, (system, label) in enumerate(labels.items())
        if system in drawn
    ]


def histograms(axes: Axes, values: Mapping[str, np.ndarray], quantity: str, bins: int = 25) -> list[dict[str, object]]:
    """Draw one outline per system; returns a line per bar, or one with n = 0 for a system without values."""
    lines: list[dict[str, object]] = [{"system": system, "n": 0} for system, found in values.items() if not len(found)]
    if len(lines) == len(values):
        style.mark_empty(axes)
        return lines
    edges = _edges(np.concatenate(list(values.values())), quantity, bins)
    highest = []
    for index, (system, found) in enumerate(values.items()):
        if not len(found):
            continue
        shares = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(found)
        mean, colour = found.mean(), style.colour_of(index)
        axes.stairs(shares, edges, color=colour, linestyle=style.line_of(index))
        axes.stairs(shares, edges, color=colour, alpha=0.1, fill=True)
        axes.plot(mean, 1.03, "v", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
        highest.append((shares.max() > 0.99, shares.argmax()))
        lines += [
            {"system": system, "n": len(found), "mean": mean, "left": left, "right": right, "share": share}
            for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True)
        ]
    if quantity == "length_deviation":
        axes.axvline(0, color=style.MUTED, linewidth=0.6, zorder=0)
    if len(set(highest)) == 1 and highest[0][0]:
        left, right = edges[highest[0][1] :][:2]
        text = f"more than 99 % of each\nsystem lie between\n{left:.2g} and {right:.2g}"
        axes.text(0.55, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=style.MUTED)
    axes.set_ylim(bottom=0)
    return lines


def values_of(frame: pd.DataFrame, column: str, systems: Iterable[str]) -> dict[str, np.ndarray]:
    """A column's values by system, NaN left out."""
    return {name: frame.loc[frame["system"] == name, column].dropna().to_numpy(dtype=float) for name in systems}


def _edges(values: np.ndarray, quantity: str, bins: int) -> np.ndarray:
    """Bin edges common to all systems: 0 to 1, or where 99 in 100 lengths lie."""
    if quantity != "length_deviation":
        return np.linspace(0, 1, bins + 1)
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(np.floor(low), -1), max(np.ceil(high), 1)
    step = max(1, np.ceil((high - low) / bins))  # lengths are whole numbers: so are the bins, around each
    return np.arange(low - 0.5, high + step + 0.5, step)


@style.styled
def win_rates(curves: pd.DataFrame, labels: Mapping[str, str]) -> style.Drawn:
    """Win rates against their thresholds (FMix, section 3.4 and Fig. 2), with the paper's thresholds marked.

    ``curves``: system, task, threshold (Chr-F or entailment), length (the molecules' other threshold, "any" for
    none), value, low, high (95 %), n. ``labels``: the systems to draw, by name.
    """
    columns = ["system", "task", "threshold", "length", "value", "low", "high", "n"]
    figure, grid = plt.subplots(1, 3, figsize=(style.TWO_COLUMNS, 2.3), sharey=True)
    molecules, captions = (curves[curves["task"] == task] for task in ("cap2mol", "mol2cap"))
    at_length = molecules[molecules["length"] == LENGTH]
    at_chr_f = molecules[np.isclose(molecules["threshold"].astype(float), CHR_F)]
    sizes = list(dict.fromkeys(at_chr_f["length"]))
    panels = (
        ("Chr-F threshold", at_length, "threshold", CHR_F),
        ("Length threshold (characters)", at_chr_f, "length", LENGTH),
        ("Entailment threshold", captions, "threshold", None),
    )
    looks = [style.look_of(index) | {"markersize": 3} for index in range(len(labels))]
    for axes, (title, points, column, marked) in zip(grid, panels, strict=True):
        axes.set_xlabel(title)
        place = sizes.index if column == "length" else float
        if points[points["system"].isin(labels)].empty:
            style.mark_empty(axes)
            continue
        for index, system in enumerate(labels):
            own = points[points["system"] == system]
            x = [place(value) for value in own[column]]
            low, high = own["low"].astype(float), own["high"].astype(float)
            every = max(1, len(own) // 5)  # apart from the other systems' marks, where curves coincide
            axes.plot(x, own["value"].astype(float), **looks[index], markevery=(index % every, every), clip_on=False)
            axes.fill_between(x, low, high, color=looks[index]["color"], alpha=0.12, linewidth=0)
        if column == "length":
            axes.set_xticks(range(len(sizes)), labels=[size if size == "any" else f"{size:g}" for size in sizes])
        if marked is not None:
            axes.axvline(place(marked), color=style.MUTED, linewidth=0.8, linestyle=":", zorder=0)
    grid[0].set(ylabel="Share of wins", ylim=(0, 1))
    grid[0].set_title(style.TASK_TITLES["cap2mol"], pad=9)
    grid[2].set_title(style.TASK_TITLES["mol2cap"], pad=9)
    handles = [Line2D([], [], label=label, **look) for label, look in zip(labels.values(), looks, strict=True)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(5, max(1, len(handles))))
    note = "Dotted: the paper's thresholds. Molecules must also be valid. The paper's caption wins need no threshold: "
    absent = [label for system, label in labels.items() if system not in set(curves["system"])]
    style.add_note(figure, f"{note}entailment is the likeliest label. {style.not_run_note(absent)}")
    drawn = pd.concat([at_length, at_chr_f, captions]).drop_duplicates()
    return figure, drawn[drawn["system"].isin(labels)][columns].reset_index(drop=True)


@style.styled
def word_counts(lengths: "pd.Series[int]", cuts: Sequence[int]) -> style.Drawn:
    """Words per reference caption of the test set (L4M, Fig. 9), with the mean and SD the paper states.

    ``cuts``: words from which a caption is long; they are marked, and the captions beyond each counted.
    """
    published = load_published()
    mean, sd = published.facts["fig9-words-mean"], published.facts["fig9-words-sd"]
    values = lengths.to_numpy(dtype=float)
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 2.4))
    step = max(1, int(np.ceil((values.max() - values.min() + 1) / 30)))
    edges = np.arange(values.min() - 0.5, values.max() + step + 0.5, step)
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color=style.colour_of(0), alpha=0.75)
    axes.axvline(values.mean(), color="black", label=f"mean here, {values.mean():.1f}")
    axes.axvline(mean.value, color=style.colour_of(1), linestyle="--", label=f"paper, {mean.printed}")
    axes.set(xlabel="Words per caption", ylabel="Captions")
    for cut in cuts:
        axes.axvline(cut, color="black", linewidth=0.8, linestyle=":")
    figure.legend(loc="outside upper center", ncols=2)
    beyond = ", ".join(f"{(values >= cut).sum():,} of at least {cut} words" for cut in cuts)
    told = (
        f"Here: mean {values.mean():.1f}, SD {values.std(ddof=1):.1f}, n = {len(values)}. The paper states a mean of "
        f"{mean.printed} and an SD of {sd.printed} words. Dotted: cuts; here {beyond}."
    )
    style.add_note(figure, told)
    return figure, pd.DataFrame({"left": edges[:-1], "right": edges[1:], "captions": counts})
