"""The papers' figures, and two overviews of paper against reproduction.

Every function returns the figure and a frame of exactly what it plots; ``save`` writes both. A system without
a score is drawn as "not run" or named in the figure's note, never left out. Colours always come with a second
cue (marker, line style or hatch).
"""

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.config.published import load_published, metric
from lmolt_utils.figures.tables import NOT_RUN, UNDEFINED, Score, TableResult, check_columns, index_scores
from lmolt_utils.files import atomic, write_text
from lmolt_utils.metrics.winrates import CHR_F, LENGTH

# Loading the backend switches interactive drawing on where a notebook wants it. Done inside a style's context, as the
# first figure would, it is switched off again at its end, and no later cell shows its plot.
plt.switch_backend(plt.get_backend())

STYLE = Path(__file__).with_name("companion.mplstyle")
#: Widths of a column and of the text block in inches (ACL's two-column style, which Less for More uses).
ONE_COLUMN = 3.03
TWO_COLUMNS = 6.30
MUTED = "0.45"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "////", "....", "xxxx")

TASK_TITLES: dict[Task, str] = {"mol2cap": "Molecule to caption", "cap2mol": "Caption to molecule"}
LENGTH_UNITS: dict[Task, str] = {"mol2cap": "word pieces", "cap2mol": "characters"}
#: The per-sample quantities of ``distributions``, with the label of each.
QUANTITIES = {
    "length_deviation": "Length deviation",
    "chr_f": "Chr-F",
    "entailment": "Entailment probability",
}

Drawn = tuple[Figure, pd.DataFrame]
_P = ParamSpec("_P")


def _styled(draw: Callable[_P, Drawn]) -> Callable[_P, Drawn]:
    """Draw in the companion's style; close the figure so that a notebook shows it once."""

    @functools.wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Drawn:
        with plt.style.context(STYLE):
            figure, data = draw(*args, **kwargs)
            plt.close(figure)
        for text in figure.findobj(Text):  # a system's label is text, also with "${" in it
            text.set_parse_math("$" not in text.get_text())
        return figure, data

    return styled


def _colour(index: int) -> str:
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(colours[index % len(colours)])


def _look(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the ``index``-th series; 28 differ."""
    return {
        "color": _colour(index),
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index // len(MARKERS) % len(LINES)],
    }


def _line(index: int) -> Any:
    """A line style that changes with every series: outlines of histograms have no markers."""
    return LINES[index % len(LINES)]


def _note(figure: Figure, text: str) -> None:
    """A note below the figure; the layout keeps room for it."""
    wrapped = textwrap.fill(text, width=int(19.5 * figure.get_figwidth()))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=6.5, color=MUTED)


def _value(score: Score | float | None) -> float | str:
    """The number to draw, or the words to write where there is none."""
    value = score.value if isinstance(score, Score) else score
    return NOT_RUN if value is None else UNDEFINED if math.isnan(value) else value


def _not_run_note(labels: Iterable[str]) -> str:
    missing = list(dict.fromkeys(labels))
    return f"Not run: {', '.join(missing)}." if missing else ""


def _empty(axes: Axes, text: str = NOT_RUN) -> None:
    """Say inside an empty panel why it is empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


# ---- figures of the papers ----


@_styled
def distributions(
    samples: pd.DataFrame, labels: Mapping[str, str], length_units: Mapping[Task, str] = LENGTH_UNITS
) -> Drawn:
    """Length deviation, Chr-F and entailment per prediction (FMix, Fig. 1; ALMol, Figs. 1 and 2).

    ``samples``: system, task, id, quantity (``length_deviation``: prediction minus reference, in
    ``length_units``; ``chr_f`` and ``entailment``: 0 to 1), value; NaN is left out. ``labels``: the systems
    to draw, by name. One row of panels per task, one column per quantity; entailment is for captions only.
    The data holds the histograms: the share of a system's samples per bin.
    """
    check_columns(samples, ("system", "task", "id", "quantity", "value"), "samples")
    figure, grid = plt.subplots(2, len(QUANTITIES), figsize=(TWO_COLUMNS, 3.7))
    lines: list[dict[str, object]] = []
    for row, task in zip(grid, TASKS, strict=True):
        row[0].set_title(TASK_TITLES[task], pad=9)
        row[0].set_ylabel("Share of samples")
        for axes, (quantity, title) in zip(row, QUANTITIES.items(), strict=True):
            if (task, quantity) == ("cap2mol", "entailment"):
                _empty(axes, "captions only")
                axes.set_axis_off()
                continue
            values = _samples_of(samples, task, quantity, labels)
            unit = f" ({length_units[task]})" if quantity == "length_deviation" else ""
            axes.set_xlabel(title + unit)
            bars = _histograms(axes, values, quantity)
            lines += [{"task": task, "quantity": quantity, **bar} for bar in bars]
            absent = [labels[system] for system, found in values.items() if not len(found)]
            if 0 < len(absent) < len(labels):
                text = f"{NOT_RUN}:\n" + "\n".join(absent)
                x, side = (0.97, "right") if quantity == "entailment" else (0.03, "left")  # it piles up at 0
                axes.text(x, 0.97, text, transform=axes.transAxes, ha=side, va="top", color=MUTED, fontsize=6)
    drawn = {line["system"] for line in lines if line["n"]}
    handles = [
        Line2D([], [], color=_colour(index), linestyle=_line(index), label=label)
        if system in drawn
        else Line2D([], [], color=MUTED, marker="x", linestyle="none", label=f"{label} ({NOT_RUN})")
        for index, (system, label) in enumerate(labels.items())
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, max(1, len(handles))))
    _note(figure, "Triangles: means. The outermost length bins also hold what lies beyond them.")
    columns = ["task", "quantity", "system", "n", "mean", "left", "right", "share"]
    return figure, pd.DataFrame(lines, columns=columns)


def _histograms(axes: Axes, values: Mapping[str, np.ndarray], quantity: str, bins: int = 25) -> list[dict[str, object]]:
    """Draw one outline per system; returns a line per bar, or one with n = 0 for a system without values."""
    lines: list[dict[str, object]] = [{"system": system, "n": 0} for system, found in values.items() if not len(found)]
    if len(lines) == len(values):
        _empty(axes)
        return lines
    edges = _edges(np.concatenate(list(values.values())), quantity, bins)
    for index, (system, found) in enumerate(values.items()):
        if not len(found):
            continue
        shares = np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0] / len(found)
        mean, colour = found.mean(), _colour(index)
        axes.stairs(shares, edges, color=colour, linestyle=_line(index))
        axes.stairs(shares, edges, color=colour, alpha=0.1, fill=True)
        axes.plot(mean, 1.03, "v", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
        lines += [
            {"system": system, "n": len(found), "mean": mean, "left": left, "right": right, "share": share}
            for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True)
        ]
    if quantity == "length_deviation":
        axes.axvline(0, color=MUTED, linewidth=0.6, zorder=0)
    axes.set_ylim(bottom=0)
    return lines


def _samples_of(samples: pd.DataFrame, task: Task, quantity: str, systems: Iterable[str]) -> dict[str, np.ndarray]:
    """Values, shape (n,), per system; NaN dropped."""
    if samples.empty:
        return {system: np.array([]) for system in systems}
    part = samples[(samples["task"] == task) & (samples["quantity"] == quantity)].dropna(subset=["value"])
    return {system: part.loc[part["system"] == system, "value"].to_numpy(dtype=float, copy=True) for system in systems}


def _edges(values: np.ndarray, quantity: str, bins: int) -> np.ndarray:
    """Bin edges, shape (bins + 1,), common to all systems: 0 to 1, or where 99 in 100 lengths lie."""
    if quantity != "length_deviation":
        return np.linspace(0, 1, bins + 1)
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(np.floor(low), -1), max(np.ceil(high), 1)
    step = max(1, np.ceil((high - low) / bins))  # lengths are whole numbers: so are the bins, around each
    return np.arange(low - 0.5, high + step + 0.5, step)


@_styled
def win_rates(curves: pd.DataFrame, labels: Mapping[str, str]) -> Drawn:
    """Win rates against their thresholds (FMix, section 3.4 and Fig. 2), with the paper's thresholds marked.

    ``curves``: system, task, threshold (Chr-F or entailment), length (the molecules' other threshold, "any" for
    none), value, low, high, n. ``labels``: the systems to draw, by name. Molecules against Chr-F (length within 5),
    molecules against length (Chr-F above 0.3), captions against entailment; bands are 95 % intervals. The data holds
    the points drawn.
    """
    columns = ("system", "task", "threshold", "length", "value", "low", "high", "n")
    check_columns(curves, columns, "curves")
    figure, grid = plt.subplots(1, 3, figsize=(TWO_COLUMNS, 2.5), sharey=True)
    molecules, captions = (curves[curves["task"] == task] for task in ("cap2mol", "mol2cap"))
    at_length = molecules[molecules["length"] == LENGTH]
    at_chr_f = molecules[np.isclose(molecules["threshold"].astype(float), CHR_F)]
    sizes = list(dict.fromkeys(at_chr_f["length"]))
    panels = (
        ("Chr-F threshold", at_length, "threshold", CHR_F),
        ("Length threshold (characters)", at_chr_f, "length", LENGTH),
        ("Entailment threshold", captions, "threshold", None),
    )
    for axes, (title, points, column, marked) in zip(grid, panels, strict=True):
        axes.set_xlabel(title)
        place = sizes.index if column == "length" else float
        if points[points["system"].isin(labels)].empty:
            _empty(axes)
            continue
        for index, system in enumerate(labels):
            own = points[points["system"] == system]
            x = [place(value) for value in own[column]]
            look = _look(index) | ({} if column == "length" else {"marker": ""})
            axes.plot(x, own["value"].astype(float), **look)
            axes.fill_between(
                x, own["low"].astype(float), own["high"].astype(float), color=look["color"], alpha=0.12, linewidth=0
            )
        if column == "length":
            axes.set_xticks(range(len(sizes)), labels=[size if size == "any" else f"{size:g}" for size in sizes])
        if marked is not None:
            axes.axvline(place(marked), color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
    grid[0].set_ylim(0, 1)
    grid[0].set_ylabel("Share of wins")
    grid[0].set_title(TASK_TITLES["cap2mol"], pad=9)
    grid[2].set_title(TASK_TITLES["mol2cap"], pad=9)
    handles = [Line2D([], [], label=label, **_look(index)) for index, label in enumerate(labels.values())]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(5, max(1, len(handles))))
    note = "Dotted: the paper's thresholds. Molecules must also be valid. The paper's caption wins need no threshold: "
    absent = [label for system, label in labels.items() if system not in set(curves["system"])]
    _note(figure, f"{note}entailment is the likeliest label. {_not_run_note(absent)}")
    drawn = pd.concat([at_length, at_chr_f, captions]).drop_duplicates()
    return figure, drawn[drawn["system"].isin(labels)][list(columns)].reset_index(drop=True)


@_styled
def ratio_sweep(
    scores: pd.DataFrame, ratios: Mapping[str, float], metric_by_task: Mapping[Task, str] | None = None
) -> Drawn:
    """CPO from SLERP merges against the mixing ratio (L4M, Fig. 4).

    ``scores``: system, task, metric, value, n. ``ratios``: per system the share of the mol2cap model,
    strictly between 0 and 1 (the axis is logistic: 1:18 and 19:1 do not crowd at its ends). One metric per
    task, each within 0 and 1. The paper's SLERP+CPO (Tables 4 and 5) stands at its 1:18, hollow.
    """
    metric_by_task = metric_by_task or {"mol2cap": "BLEU-2", "cap2mol": "MACCS"}
    for system, share in ratios.items():
        if not 0 < share < 1:
            raise ValueError(f"system {system!r}: share {share} of mol2cap is not between 0 and 1")
    _within_0_and_1(metric_by_task.values())
    found, published = index_scores(scores), load_published()
    best, other = published.fact("fig4-best-ratio"), published.fact("fmix-ratio")
    printed = {"mol2cap": published.table("T4"), "cap2mol": published.table("T5")}

    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 3.0))
    lines: list[dict[str, object]] = []
    ordered = sorted(ratios.items(), key=lambda pair: pair[1])
    for index, (task, name) in enumerate(metric_by_task.items()):
        points = [(system, share, found.get((system, task, name))) for system, share in ordered]
        lines += [
            {
                "task": task,
                "metric": name,
                "system": system,
                "mol2cap_share": share,
                "reproduced": _value(score),
            }
            for system, share, score in points
        ]
        look = _look(index)
        shares = [share for _, share, _ in points]
        heights = [score.value if score else np.nan for _, _, score in points]  # the line breaks at a gap
        axes.plot(shares, heights, label=f"{TASK_TITLES[task]}, {name}", **look)
        paper = printed[task].value("SLERP+CPO", name)
        if paper is not None:
            hollow = {**look, "linestyle": "none", "markerfacecolor": "white"}
            size = 9 - 3.5 * index  # the paper's two values coincide: the second mark fits into the first
            axes.plot([best.value], [paper], zorder=1.5 + 0.1 * index, markersize=size, **hollow)
            lines.append(
                {
                    "task": task,
                    "metric": name,
                    "system": "paper, SLERP+CPO",
                    "mol2cap_share": best.value,
                    "paper": paper,
                }
            )
    missing = []
    for system, share in ordered:
        # Without one of the two tasks there is no trade-off to see: that is said too.
        values = [_value(found.get((system, task, name))) for task, name in metric_by_task.items()]
        words = [value for value in values if isinstance(value, str)]
        if words:
            missing.append(system if NOT_RUN in words else f"{system} ({UNDEFINED})")
            axes.plot([share], [0.03], marker="x", color=MUTED, linestyle="none")
            axes.text(share, 0.06, words[0], rotation=90, ha="center", va="bottom", color=MUTED)

    axes.set_xscale("logit", use_overline=False)
    ends = [*ratios.values(), best.value, other.value]
    axes.set_xlim(min(ends) * 0.7, 1 - (1 - max(ends)) * 0.7)
    axes.set_ylim(0, 1)
    ticks = _spaced([best.value, other.value, *sorted(ratios.values(), key=lambda s: abs(s - 0.5))])
    axes.set_xticks(ticks, labels=[_ratio_text(share) for share in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("Mixing ratio, mol2cap : cap2mol")
    axes.set_ylabel("Score")
    for fact, side in ((best, "left"), (other, "right")):
        axes.axvline(fact.value, color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
        name = "L4M" if fact is best else "FMix"
        axes.annotate(
            f" {fact.printed} ({name}) ",
            (fact.value, 0.995),
            ha=side,
            va="top",
            color=MUTED,
            fontsize=6.5,
        )
    figure.legend(loc="outside upper center", ncols=1)
    note = (
        f"Hollow: the paper's SLERP+CPO. FMix writes {other.printed} without an order; read as "
        f"cap2mol : mol2cap it is a share of {1 - other.value:.2f} mol2cap, beside {best.printed}. "
    )
    _note(figure, note + _not_run_note(missing))
    columns = ["task", "metric", "system", "mol2cap_share", "reproduced", "paper"]
    return figure, pd.DataFrame(lines, columns=columns)


def _ratio_text(share: float) -> str:
    """0.0526 as 1:18."""
    fraction = Fraction(share).limit_denominator(40)
    return f"{fraction.numerator}:{fraction.denominator - fraction.numerator}"


def _spaced(shares: Iterable[float], apart: float = 0.45) -> list[float]:
    """The shares, first come first served, that are ``apart`` in logits, so that tick labels do not touch."""
    kept: list[float] = []
    for share in shares:
        logit = np.log(share / (1 - share))
        if all(abs(logit - np.log(other / (1 - other))) >= apart for other in kept):
            kept.append(share)
    return sorted(kept)


def _within_0_and_1(names: Iterable[str]) -> None:
    for name in names:
        if not metric(name).within_0_and_1:
            raise ValueError(f"{name} does not lie between 0 and 1 and cannot share this axis; leave it out")


@_styled
def merge_comparison(
    scores: pd.DataFrame,
    systems: Sequence[str],
    labels: Mapping[str, str] | None = None,
    metrics: Mapping[Task, Sequence[str]] | None = None,
) -> Drawn:
    """Grouped bars of the merges under CPO, both tasks (L4M, Fig. 8: soup, SLERP, TIES).

    ``scores``: system, task, metric, value, n. ``systems``: names, one bar each; ``labels``: how to call
    them. ``metrics``: per task, each within 0 and 1 (ValueError otherwise).
    """
    metrics = metrics or {
        "mol2cap": ("BLEU-2", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"),
        "cap2mol": ("BLEU", "MACCS", "RDK", "Morgan", "Validity"),
    }
    for names in metrics.values():
        _within_0_and_1(names)
    labels = {system: (labels or {}).get(system, system) for system in systems}
    found = index_scores(scores)
    figure, grid = plt.subplots(
        1,
        len(metrics),
        figsize=(TWO_COLUMNS, 2.6),
        sharey=True,
        squeeze=False,
        width_ratios=[max(1, len(names)) for names in metrics.values()],
    )
    width = 0.8 / max(1, len(systems))
    lines: list[dict[str, object]] = []
    missing: list[str] = []
    for axes, letter, (task, names) in zip(grid[0], "ABCDEFGH", metrics.items(), strict=False):
        for index, system in enumerate(systems):
            for place, name in enumerate(names):
                value = _value(found.get((system, task, name)))
                lines.append({"task": task, "metric": name, "system": system, "reproduced": value})
                x = place + (index - (len(systems) - 1) / 2) * width
                if isinstance(value, str):
                    missing += [labels[system]] if value == NOT_RUN else []
                    axes.text(x, 0.01, value, rotation=90, ha="center", va="bottom", color=MUTED, fontsize=6)
                else:
                    look = {"color": _colour(index), "hatch": HATCHES[index % len(HATCHES)]}
                    axes.bar(x, value, width * 0.92, edgecolor="white", linewidth=0, **look)
        axes.set_title(f"({letter}) {TASK_TITLES[task]}")
        axes.set_xticks(range(len(names)), labels=names)
        axes.tick_params(axis="x", length=0, labelsize=6.5)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1)
    grid[0][0].set_ylabel("Score")
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=_colour(index), hatch=HATCHES[index % len(HATCHES)], edgecolor="white")
        for index in range(len(systems))
    ]
    figure.legend(handles, list(labels.values()), loc="outside upper center", ncols=max(1, len(systems)))
    if missing:
        _note(figure, _not_run_note(missing))
    return figure, pd.DataFrame(lines, columns=["task", "metric", "system", "reproduced"])


@_styled
def word_counts(lengths: "pd.Series[int]", cuts: Sequence[int] = ()) -> Drawn:
    """Words per reference caption of the test set (L4M, Fig. 9), with the mean and SD the paper states.

    ``lengths``: words per caption, shape (n,); the standard deviation is the sample's (n - 1). ``cuts``: words from
    which a caption is long; they are marked, and the captions beyond each counted.
    """
    published = load_published()
    mean, sd = published.fact("fig9-words-mean"), published.fact("fig9-words-sd")
    stated = f"The paper states a mean of {mean.printed} and an SD of {sd.printed} words."
    values = lengths.dropna().to_numpy(dtype=float)
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 2.4))
    columns = ["left", "right", "captions"]
    if not len(values):
        _empty(axes)
        _note(figure, f"No captions. {stated}")
        return figure, pd.DataFrame(columns=columns)
    step = max(1, int(np.ceil((values.max() - values.min() + 1) / 30)))
    edges = np.arange(values.min() - 0.5, values.max() + step + 0.5, step)
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color=_colour(0), alpha=0.75)
    axes.axvline(values.mean(), color="black", label=f"mean here, {values.mean():.1f}")
    axes.axvline(mean.value, color=_colour(1), linestyle="--", label=f"paper, {mean.printed}")
    axes.set_xlabel("Words per caption")
    axes.set_ylabel("Captions")
    for cut in cuts:
        axes.axvline(cut, color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
    figure.legend(loc="outside upper center", ncols=2)
    spread = f"{values.std(ddof=1):.1f}" if len(values) > 1 else "undefined"
    beyond = ", ".join(f"{(values >= cut).sum():,} of at least {cut} words" for cut in cuts)
    told = f"Here: mean {values.mean():.1f}, SD {spread}, n = {len(values)}. {stated}"
    _note(figure, told + (f" Dotted: cuts; here {beyond}." if beyond else ""))
    data = pd.DataFrame({"left": edges[:-1], "right": edges[1:], "captions": counts}, columns=columns)
    return figure, data


@_styled
def training_curves(logs: pd.DataFrame, labels: Mapping[str, str] | None = None) -> Drawn:
    """Loss against step, and the time each training took (L4M, Fig. 12).

    ``logs``: system, step, loss, seconds (since the training began), and optionally tokens (seen since then);
    one line per logged step. ``labels``: the systems to draw, by name; default: those in the logs. Losses of
    different methods are different functions: compare shapes, not heights.
    """
    check_columns(logs, ("system", "step", "loss", "seconds"), "training logs")
    in_logs = [] if logs.empty else list(dict.fromkeys(logs["system"]))
    labels = dict(labels) if labels is not None else {system: system for system in in_logs}
    height = max(2.4, 0.9 + 0.17 * len(labels))
    figure, (left, right) = plt.subplots(1, 2, figsize=(TWO_COLUMNS, height), width_ratios=[1.25, 1])
    parts: list[pd.DataFrame] = []
    for index, system in enumerate(labels):
        if system not in in_logs:
            right.annotate(NOT_RUN, (0, index), xytext=(4, 0), textcoords="offset points", va="center", color=MUTED)
            parts.append(pd.DataFrame({"system": [system], "note": [NOT_RUN]}))
            continue
        log = logs[logs["system"] == system].sort_values("step").reset_index(drop=True)
        window = max(1, len(log) // 20)
        smooth = log["loss"].rolling(window, center=True, min_periods=1).mean()
        look = _look(index)
        left.plot(log["step"], log["loss"], color=look["color"], alpha=0.2, linewidth=0.6)
        left.plot(log["step"], smooth, **look, markevery=max(1, len(log) // 6), markersize=3.5)
        seconds = float(log["seconds"].max())
        right.hlines(index, 0, seconds, color=look["color"], linestyle=look["linestyle"])
        right.plot([seconds], [index], color=look["color"], marker=look["marker"])
        text = f"{seconds:.3g} s"
        tokens = log["tokens"].max() if "tokens" in log.columns else np.nan
        if pd.notna(tokens) and seconds > 0:
            text += f", {tokens / seconds:,.0f} tokens/s"
        right.annotate(text, (seconds, index), xytext=(6, 0), textcoords="offset points", va="center", fontsize=6.5)
        parts.append(log.assign(smoothed_loss=smooth))
    left.set_xlabel("Optimiser step")
    left.set_ylabel("Loss")
    right.set_xlabel("Training time (s)")
    right.set_yticks(range(len(labels)), labels=list(labels.values()))
    right.set_ylim(len(labels) - 0.5, -0.5)
    right.set_xlim(0, 1.9 * max([float(p["seconds"].max()) for p in parts if "seconds" in p], default=1))
    right.grid(axis="y", visible=False)
    missing = [label for system, label in labels.items() if system not in in_logs]
    if len(missing) == len(labels):
        _empty(left)
    left_out = [system for system in in_logs if system not in labels]
    note = "Lines: running means; pale: each step. Each method minimises its own loss: heights do not compare. "
    note += _not_run_note(missing)
    note += f" Logged but not drawn: {', '.join(left_out)}." if left_out else ""
    _note(figure, note)
    columns = ["system", "step", "loss", "smoothed_loss", "seconds", "tokens", "note"]
    data = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return figure, data.reindex(columns=columns)


# ---- paper against reproduction ----


@_styled
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
                value = _value(cell.reproduced)
                found = {"paper": cell.paper, "reproduced": value}
                lines.append({"table": table.id, "row": row.label, "metric": name, **found})
                if isinstance(value, str):
                    missing.append(row.label if value == NOT_RUN else f"{row.label} ({UNDEFINED})")
                    axes.plot([cell.paper], [-0.06], marker="|", color=MUTED, linestyle="none")
                else:
                    points.append((cell.paper, value))
        look = {**_look(index), "linestyle": "none"}
        task = table.task
        axes.plot(
            *zip(*points, strict=True) if points else ([], []),
            **look,
            alpha=0.75,
            markersize=4,
            markeredgewidth=0,
            label=f"{table.id}, {task}",
        )
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, zorder=1)
    axes.set_xlim(-0.1, 1.05)
    axes.set_ylim(-0.1, 1.05)
    axes.set_aspect("equal", anchor="N")
    axes.set_xticks(np.linspace(0, 1, 6))
    shown = np.linspace(0, 1, 6)
    axes.set_yticks([-0.06, *shown], labels=[NOT_RUN, *(f"{tick:.1f}" for tick in shown)])
    axes.set_xlabel("Paper")
    axes.set_ylabel("Reproduced")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=0.8, handletextpad=0.1)
    if missing:
        _note(figure, _not_run_note(missing))
    return figure, pd.DataFrame(lines, columns=["table", "row", "metric", "paper", "reproduced"])


@_styled
def overview(tables: Sequence[TableResult], metric_by_task: Mapping[Task, str] | None = None) -> Drawn:
    """One dot plot of every system: BLEU-2 for captions, MACCS similarity for molecules.

    Filled: reproduced; hollow: the paper; "not run" beside the panel where nothing ran. Rows of several
    tables with one label are one line.
    """
    metric_by_task = metric_by_task or {"mol2cap": "BLEU-2", "cap2mol": "MACCS"}
    _within_0_and_1(metric_by_task.values())
    lines: list[dict[str, object]] = []
    for table in tables:
        name = metric_by_task.get(table.task)
        for row in table.rows:
            if name not in row.cells:
                continue
            cell = row.cells[name]
            lines.append(
                {
                    "task": table.task,
                    "table": table.id,
                    "row": f"{row.label} (control)" if row.control else row.label,
                    "metric": name,
                    "paper": cell.paper,
                    "reproduced": _value(cell.reproduced),
                }
            )
    rows = list(dict.fromkeys(str(line["row"]) for line in lines))
    figure, grid = plt.subplots(
        1,
        len(metric_by_task),
        figsize=(TWO_COLUMNS, 1.1 + 0.19 * max(4, len(rows))),
        sharey=True,
        squeeze=False,
    )
    for index, (axes, (task, name)) in enumerate(zip(grid[0], metric_by_task.items(), strict=True)):
        colour = _colour(index)
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
    grid[0][0].set_yticks(range(len(rows)), labels=rows)
    grid[0][0].set_ylim(max(1, len(rows)) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker="o", linestyle="none", color="black", markersize=3.5, label="reproduced"),
        Line2D(
            [],
            [],
            marker="o",
            linestyle="none",
            color="black",
            markersize=6.5,
            markerfacecolor="white",
            label="paper",
        ),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    columns = ["task", "table", "row", "metric", "paper", "reproduced"]
    return figure, pd.DataFrame(lines, columns=columns)


# ---- writing ----


def save(figure: Figure, data: pd.DataFrame, stem: str, folder: Path, alt: str) -> list[Path]:
    """Write ``stem.pdf``, ``stem.png`` (200 dpi) and ``stem.csv`` (what is plotted); returns the paths.

    The same figure gives the same bytes: no dates are written. ``alt``, a sentence for those who cannot see
    the figure, goes into both files' metadata. Raises ValueError if it is empty.
    """
    if not alt.strip():
        raise ValueError(f"figure {stem!r} has no alt text: say in a sentence what it shows")
    metadata = {
        "pdf": {"CreationDate": None, "Title": stem, "Subject": alt},
        "png": {"Title": stem, "Description": alt},
    }
    paths = [folder / f"{stem}.{ending}" for ending in ("pdf", "png", "csv")]
    with plt.style.context(STYLE):
        for path in paths[:2]:
            ending = path.suffix[1:]
            with atomic(path) as part:
                figure.savefig(part, format=ending, metadata=metadata[ending])
    write_text(paths[2], data.to_csv(index=False, lineterminator="\n", float_format="%.10g"))
    return paths
