"""The papers' tables, rebuilt: each reproduced value beside the printed one, each delta recomputed.

``build_table`` joins the published rows, the systems that stand for them and the scores. Whatever has no score says
"not run", so a partial run can never look complete.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

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
    systems_by_row,
)
from lmolt_utils.config.systems import System
from lmolt_utils.figures.table_files import (
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


def index_scores(scores: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, float]]:
    """Reproduced value (infinity: undefined), n, low and high by (system, task, metric).

    ``scores``: system, task, metric, value (NaN: it ran, but the metric is undefined), n, and low and high where there
    are intervals.
    """
    full = scores.reindex(columns=list(SCORE_COLUMNS)).rename(columns={"value": "reproduced"})
    full = full.astype({"reproduced": float, "low": float, "high": float}).fillna({"reproduced": math.inf})
    lines: Any = full.to_dict("records")
    return {(line.pop("system"), line.pop("task"), line.pop("metric")): line for line in lines}


def _index_tests(significance: pd.DataFrame) -> dict[tuple[str, ...], dict[str, float]]:
    """Interval and p of a difference by (task, metric, system, the system it is held against), in both orders."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    tests: Iterable[Any] = significance.itertuples()
    for test in tests:
        found[test.task, test.metric, test.a, test.b] = {"low": test.low, "high": test.high, "p": test.p_holm}
        found[test.task, test.metric, test.b, test.a] = {"low": -test.high, "high": -test.low, "p": test.p_holm}
    return found


def build_table(
    table: str,
    systems: Sequence[SystemRow],
    scores: pd.DataFrame,
    *,
    significance: pd.DataFrame,
    context: Mapping[str, str],
) -> TableResult:
    """Table ``table`` ("T2" to "T5", "AT1", "AT2") with ``scores`` beside the paper's values.

    ``scores``: as :func:`index_scores` reads them, in the metrics' own unit. ``significance`` (task, metric, a, b, low,
    high, p_holm) marks what cannot be told from the system ``REFERENCE``. ``context`` goes into the caption.
    """
    published = load_published()
    spec = published.table(table)
    found, tests = index_scores(scores), _index_tests(significance)
    placed = {t.id: systems_by_row(t, systems) for t in published.tables}

    def name_of(ref: RowRef) -> str:
        return placed[ref.table][ref.row].name if ref.row in placed[ref.table] else ""

    def cell(ref: RowRef, name: str) -> dict[str, float]:
        source, system = published.table(ref.table), name_of(ref)
        paper = source.value(ref.row, name)
        p = tests.get((source.task, name, system, REFERENCE), {}).get("p", math.nan)
        score = found.get((system, source.task, name), {"reproduced": math.nan})
        return {"paper": math.nan if paper is None else paper, "p": p, **score}

    lines: list[dict[str, object]] = []
    for row in dict.fromkeys([*spec.rows, *placed[spec.id]]):
        ref, control = RowRef(table=spec.id, row=row), row not in spec.rows
        told = {"row": row, "kind": VALUE, "system": name_of(ref), "title": f"{row} (control)" if control else row}
        note = "control: the papers have no such row" if control else ""
        lines += [{**told, "metric": name, "note": note, **cell(ref, name)} for name in spec.metrics]
    for delta in spec.deltas:
        note = f"{delta.of} minus {delta.over}"
        for name, printed in zip_longest(spec.metrics, delta.printed):  # own metrics come last
            of, over = cell(delta.of, name), cell(delta.over, name)
            test = tests.get((spec.task, name, name_of(delta.of), name_of(delta.over)), {})
            check = check_printed(printed, of["paper"] - over["paper"], METRICS[name])
            told = {"row": delta.label, "metric": name, "note": note, "title": f"Δ {delta.label}: {note}"}
            flagged = {"note": f"{note}; {check}" if check else note, "check": check}
            lines.append({**told, "kind": PRINTED, "printed": printed or "", **flagged})
            lines.append({**told, "kind": DIFFERENCE, **_both(_difference, of, over), **test})
            lines.append({**told, "kind": RELATIVE, **_both(_relative, of, over)})
    frame = _with_best(pd.DataFrame(lines))
    reference = next((system.label for system in systems if system.name == REFERENCE), REFERENCE)
    return TableResult(spec.id, spec.task, tuple(spec.metrics), frame, _caption(spec, frame, context, reference))


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
    number = printed.rstrip("%")
    scale = 100 if printed != number and metric.within_0_and_1 else 1
    error = abs(float(number) - scale * difference)
    half_step = 0.5 * 10 ** -len(number.partition(".")[2])
    if error <= half_step + 1e-9:  # 1e-9: binary fractions
        return ""
    # Both cells are rounded, so the difference of the unrounded values may be off by both.
    return WITHIN_ROUNDING if error < half_step + scale * 2 * CELL_ROUNDING else DOES_NOT_FOLLOW


def untrue_deltas(table: str) -> int:
    """How many printed deltas of a published table do not follow from the printed cells, rounding included."""
    lines = build_table(table, (), pd.DataFrame(), significance=pd.DataFrame(), context={}).lines
    return int((lines["check"] == DOES_NOT_FOLLOW).sum())


def caption_context(run: Run, systems: Sequence[System]) -> dict[str, str]:
    """``context`` for ``build_table``: which run, test set, models and tools the scores of ``systems`` are of.

    Raises :class:`~lmolt_utils.errors.CompanionError` where a table would mix scores of two kinds.
    """
    how, _ = (conventions(run, systems, task) for task in TASKS)
    first, *others = run.params.seeds
    note = run.property_note
    return {
        "profile": run.title,
        "test set": run.params.test_set,
        "models": "embedded, not the paper's" if run.scale == "embedded" else run.scale,
        "training seed": f"{first}, spread: seed_spread" if others else "one: spread not known",
        "tokenizer": how.get("tokenizer", "none"),
        "METEOR": how.get("meteor_matcher", "none"),
        **({"Constant and Rule": note} if note else {}),
        **({"made by older code, and kept": run.older_code} if run.older_code else {}),
    }


def _caption(spec: PublishedTable, lines: pd.DataFrame, context: Mapping[str, str], reference: str) -> tuple[str, ...]:
    """What a reader must know to judge the numbers; 08_figures says once what ± and the deltas are."""
    values = lines[lines["kind"] == VALUE]
    sizes = values.groupby("row", sort=False)["n"].max()  # the largest, where a metric leaves some rows out
    n = ", ".join(f"{n:.0f}" for n in sorted(set(sizes.dropna()))) or NOT_RUN
    about_captions = () if spec.task == "mol2cap" else ("tokenizer", "METEOR")
    facts = [f"{key}: {value}" for key, value in context.items() if key not in about_captions]
    caption = [f"{spec.title}: {spec.source}.", "; ".join([f"n: {n}", *facts]) + "."]
    if absent := list(sizes.index[sizes.isna()]):
        caption.append(f"Not run: {', '.join(absent)}.")
    marks = [f"{NO_PAPER_VALUE}: the paper prints no value"] if values["paper"].isna().any() else []
    if lines["p"].notna().any():
        marks.append(f"{NOISE}: not to be told from {reference} (a difference: from 0)")
    used = set(lines["check"])
    marks += [f"{mark}: {check}" for check, mark in MARKS.items() if mark and check in used]
    return (*caption, f"{'; '.join(marks)}.") if marks else tuple(caption)
