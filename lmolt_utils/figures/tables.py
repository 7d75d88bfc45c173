"""The papers' tables, rebuilt: each reproduced value beside the printed one, each delta recomputed.

``build_table`` joins the published rows, the systems that stand for them and the scores. Whatever has no score says
"not run", so a partial run can never look complete.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lmolt_utils.config.prompts import TASKS
from lmolt_utils.config.published import (
    CELL_ROUNDING,
    METRICS,
    REFERENCE,
    Metric,
    PublishedTable,
    RowRef,
    SystemRow,
    load_published,
    parse_printed,
    systems_by_row,
)
from lmolt_utils.config.systems import System
from lmolt_utils.figures.style import UNDEFINED, check_columns
from lmolt_utils.figures.table_files import (
    ALPHA,
    DIFFERENCE,
    DOES_NOT_FOLLOW,
    MARKS,
    NO_PAPER_VALUE,
    NOISE,
    PRINTED,
    RELATIVE,
    VALUE,
    WITHIN_ROUNDING,
    TableResult,
)
from lmolt_utils.metrics.results import NOT_RUN, SCORE_COLUMNS, conventions
from lmolt_utils.run.notebook import Run


class Score(NamedTuple):
    """One reproduced value over ``n`` predictions, and its interval."""

    value: float
    n: int
    low: float
    high: float


def index_scores(scores: pd.DataFrame) -> dict[tuple[str, str, str], Score]:
    """Look up a score by (system, task, metric).

    ``scores`` is long: system, task, metric, value (NaN: it ran, but the metric is undefined), n, and low and high
    where there are intervals. Raises ValueError if a column is missing or if one system has two values for a metric.
    """
    keys = ["system", "task", "metric"]
    check_columns(scores, SCORE_COLUMNS[:5], "scores")
    full = scores.reindex(columns=list(SCORE_COLUMNS))
    for system, task, name in full.loc[full.duplicated(keys), keys].itertuples(index=False):
        raise ValueError(f"two scores for system {system!r}, {task}, {name}: keep one run per system")
    full = full.astype({"value": float, "low": float, "high": float}).fillna({"value": math.inf})
    return {(system, task, name): Score(*numbers) for system, task, name, *numbers in full.itertuples(index=False)}


def _index_tests(significance: pd.DataFrame | None) -> dict[tuple[str, ...], dict[str, float]]:
    """Interval and p of a difference by (task, metric, system, the system it is held against), in both orders."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    if significance is None or significance.empty:
        return found
    columns = ["task", "metric", "a", "b", "low", "high", "p_holm"]
    check_columns(significance, columns, "significance")
    for task, name, a, b, low, high, p in significance[columns].itertuples(index=False):
        found[task, name, a, b] = {"low": low, "high": high, "p": p}
        found[task, name, b, a] = {"low": -high, "high": -low, "p": p}
    return found


def build_table(
    table: str,
    systems: Sequence[SystemRow],
    scores: pd.DataFrame,
    *,
    significance: pd.DataFrame | None = None,
    context: Mapping[str, str] | None = None,
) -> TableResult:
    """Table ``table`` ("T2" to "T5", "AT1", "AT2") with ``scores`` beside the paper's values.

    Rows: the published ones in printed order, then the controls in the systems' order. ``scores`` is long (system,
    task, metric, value, n; low and high for intervals), values in each metric's own unit. ``significance`` (task,
    metric, a, b, low, high, p_holm) marks what cannot be told from the system ``REFERENCE``. ``context`` feeds the
    caption: keys ``profile``, ``test set``, ``n`` (else taken from the scores), ``tokenizer``, and ``scale``, which is
    ``embedded`` when the models are not the papers' own; other keys are appended. Raises ValueError for an unknown
    table, a misspelt row, two systems on one row, or scores of the wrong shape.
    """
    published = load_published()
    spec = published.table(table)
    found, tests = index_scores(scores), _index_tests(significance)
    for system in systems:
        for named in system.rows:
            published.table(named)  # a row in an unknown table would be lost without a word
    placed = {t.id: systems_by_row(t, systems) for t in published.tables}

    def name_of(ref: RowRef) -> str:
        return placed[ref.table][ref.row].name if ref.row in placed[ref.table] else ""

    def cell(ref: RowRef, name: str) -> dict[str, float]:
        source, system = published.table(ref.table), name_of(ref)
        paper = source.value(ref.row, name)
        paper = math.nan if paper is None else paper
        if (score := found.get((system, source.task, name))) is None:
            return {"paper": paper, "reproduced": math.nan}
        p = tests.get((source.task, name, system, REFERENCE), {}).get("p", math.nan)
        return {"paper": paper, "reproduced": score.value, "n": score.n, "low": score.low, "high": score.high, "p": p}

    lines: list[dict[str, object]] = []
    for row in dict.fromkeys([*spec.rows, *placed[spec.id]]):
        ref, control = RowRef(table=spec.id, row=row), row not in spec.rows
        told = {"row": row, "kind": VALUE, "system": name_of(ref), "title": f"{row} (control)" if control else row}
        note = "control: the papers have no such row" if control else ""
        lines += [{**told, "metric": name, "note": note, **cell(ref, name)} for name in spec.metrics]
    for delta in spec.deltas:
        note = f"{delta.of} minus {delta.over}"
        for name, printed in zip(spec.metrics, delta.printed, strict=True):
            of, over = cell(delta.of, name), cell(delta.over, name)
            test = tests.get((spec.task, name, name_of(delta.of), name_of(delta.over)), {})
            check = check_printed(printed, of["paper"] - over["paper"], METRICS[name])
            told = {"row": delta.label, "metric": name, "note": note, "title": f"Δ {delta.label}: {note}"}
            flagged = {"note": f"{note}; {check}" if check else note, "check": check}
            lines.append({**told, "kind": PRINTED, "printed": printed or "", **flagged})
            lines.append({**told, "kind": DIFFERENCE, **_both(_difference, of, over), **test})
            lines.append({**told, "kind": RELATIVE, **_both(_relative, of, over)})
    frame = _with_best(pd.DataFrame(lines))
    caption = _caption(spec, frame, dict(context or {}), {s.name: s.label for s in systems}, found)
    return TableResult(spec.id, spec.task, tuple(spec.metrics), frame, tuple(caption))


def _with_best(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines of :class:`TableResult`, the best reproduced value of each column marked."""
    texts = dict.fromkeys(("system", "note", "printed", "check"), "")
    columns = ["row", "kind", "metric", "paper", "reproduced", "n", "low", "high", "p", "title", *texts]
    full = lines.reindex(columns=columns).fillna(texts)
    signs = full["metric"].map(lambda name: 1 if METRICS[name].better == "higher" else -1)
    shown = signs * full["reproduced"].where(full["kind"] == VALUE).replace(math.inf, np.nan).map(lambda x: round(x, 2))
    return full.assign(best=shown == shown.groupby(full["metric"]).transform("max"))


def _both(change: Callable[[float, float], float], of: dict[str, float], over: dict[str, float]) -> dict[str, float]:
    return {side: change(of[side], over[side]) for side in ("paper", "reproduced")}


def _difference(of: float, over: float) -> float:
    if math.isnan(of) or math.isnan(over):
        return math.nan
    return math.inf if math.inf in (of, over) else of - over


def _relative(of: float, over: float) -> float:
    """The difference in per cent of ``over``; undefined if ``over`` prints as 0."""
    difference = _difference(of, over)
    if not math.isfinite(difference):
        return difference
    # A value that two decimals print as 0.00 (BLEU's smallest is 1e-8, not 0) is nothing to be relative to.
    return math.inf if abs(over) < 0.005 else 100 * difference / over


def check_printed(printed: str | None, difference: float, metric: Metric) -> str:
    """Compare a printed delta with ``difference``, that of the printed cells, in the metric's own unit."""
    if printed is None or math.isnan(difference):
        return ""
    delta = parse_printed(printed)
    scale = 100 if delta.percent and metric.within_0_and_1 else 1
    error = abs(delta.value - scale * difference)
    half_step = 0.5 * 10**-delta.decimals
    if error <= half_step + 1e-9:  # 1e-9: binary fractions
        return ""
    # Both cells are rounded, so the difference of the unrounded values may be off by both.
    return WITHIN_ROUNDING if error < half_step + scale * 2 * CELL_ROUNDING else DOES_NOT_FOLLOW


def caption_context(run: Run, systems: Sequence[System]) -> dict[str, str]:
    """``context`` for ``build_table``: which run and test set the scores of ``systems`` are of, by which tools.

    Raises :class:`~lmolt_utils.metrics.results.MixedScoresError` where a table would mix scores of two kinds.
    """
    how, _ = (conventions(run, systems, task) for task in TASKS)
    first, *others = run.params.seeds
    note = run.property_note
    return {
        "profile": run.title,
        "test set": run.params.test_set,
        "tokenizer": how.get("tokenizer", "none"),
        "METEOR": how.get("meteor_matcher", "none"),
        "training seed": f"{first}, spread: seed_spread" if others else "one: spread not known",
        "scale": run.scale,
        **({"Constant and Rule": note} if note else {}),
        **({"made by older code, and kept": run.older_code} if run.older_code else {}),
    }


# ---- the caption: what a reader must know to judge the numbers ----


def _caption(
    spec: PublishedTable,
    lines: pd.DataFrame,
    context: dict[str, str],
    labels: Mapping[str, str],
    found: Iterable[tuple[str, str, str]],
) -> list[str]:
    values = lines[lines["kind"] == VALUE]
    sizes = values.groupby("row", sort=False)["n"].max()  # the largest, where a metric leaves some rows out
    scale = context.pop("scale", None)
    stated = {
        "profile": "not stated",
        "test set": "not stated",
        "n": ", ".join(f"{n:.0f}" for n in sorted(set(sizes.dropna()))) or NOT_RUN,
        "tokenizer": "not stated",
        **context,
    }
    if spec.task != "mol2cap":
        stated = {key: value for key, value in stated.items() if key not in ("tokenizer", "METEOR")}
    text = "; ".join(f"{key}: {value}" for key, value in stated.items())
    caption = [f"{spec.title}: {spec.source}.", f"{text[:1].upper()}{text[1:]}."]
    if scale is not None:
        caption.append("Embedded scale: not the paper's models." if scale == "embedded" else f"Scale: {scale}.")
    if absent := list(sizes.index[sizes.isna()]):
        caption.append(f"Not run: {', '.join(absent)}.")
    caption.append(
        f"Bold: best reproduced value of its column. {NO_PAPER_VALUE}: the paper prints no value. "
        f"{UNDEFINED.capitalize()}: no such number exists (a relative change over 0, FCD without molecules)."
    )
    if (values["high"] >= values["low"]).any():
        caption.append(
            "±: half the 95 % interval over test rows (bootstrap; FCD: derivative by row; a rate of 0 or 1: Wilson). "
            "It holds for these weights, not for another training seed. No ±: every row scored the same, or the "
            "metric allows none."
        )
    elif np.isfinite(values["reproduced"]).any():
        caption.append("No intervals: these scores were made without them.")
    if lines["p"].notna().any():
        caption.append(
            f"{NOISE}: within noise, that is not to be told from {labels.get(REFERENCE, REFERENCE)} (a difference: "
            "from 0) by a paired permutation test (FCD: normal approximation), "
            f"p ≥ {ALPHA} after Holm's correction over the systems."
        )
    if spec.deltas:
        caption.append(_delta_legend(lines[lines["printed"] != ""]))
    if strangers := sorted({system for system, _, _ in found} - set(labels)):
        caption.append(f"Scored, but not in the systems table: {', '.join(strangers)}.")
    return caption


def _delta_legend(printed: pd.DataFrame) -> str:
    """What the printed deltas are, and what their marks mean."""
    text = f"Deltas: {DIFFERENCE}, in the metric's own unit, and {RELATIVE}, of the row after 'minus'. "
    if printed["printed"].str.contains("%").any():
        text += "What the paper prints with a per cent sign is the absolute difference, times 100"
        raw = [name for name in printed["metric"].unique() if not METRICS[name].within_0_and_1]
        text += f" (not for {' and '.join(raw)}). " if raw else ". "
    else:
        text += "The paper prints absolute differences. "
    used = set(printed["check"])
    return (text + " ".join(f"{mark}: {check}." for check, mark in MARKS.items() if mark and check in used)).strip()
