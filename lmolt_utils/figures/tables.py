"""The papers' tables, rebuilt: each reproduced value beside the printed one, each delta recomputed.

``build_table`` joins the published rows, the systems that stand for them and the scores; the result is one object that
a notebook shows as Markdown and that :mod:`lmolt_utils.figures.table_files` writes as CSV, Markdown and LaTeX. Whatever
has no score says "not run", so a partial run can never look complete.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import pandas as pd

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.published import (
    CELL_ROUNDING,
    METRICS,
    REFERENCE,
    Metric,
    PublishedDelta,
    RowRef,
    SystemRow,
    load_published,
    parse_printed,
    systems_by_row,
)
from lmolt_utils.figures.style import UNDEFINED, check_columns
from lmolt_utils.metrics.results import NOT_RUN, SCORE_COLUMNS

NO_PAPER_VALUE = "–"
NOISE = "≈"  # behind a value that the test cannot tell from the reference system's
ALPHA = 0.05

#: How a printed delta relates to the printed cells it is the difference of.
Check = Literal[
    "",
    "differs from the printed cells by their rounding at most",
    "does not follow from the printed cells, rounding included",
]
WITHIN_ROUNDING: Check = "differs from the printed cells by their rounding at most"
DOES_NOT_FOLLOW: Check = "does not follow from the printed cells, rounding included"
MARKS: dict[Check, str] = {"": "", WITHIN_ROUNDING: "‡", DOES_NOT_FOLLOW: "†"}

PRINTED = "as printed"
DIFFERENCE = "difference"
RELATIVE = "relative, %"


@dataclass(frozen=True)
class Cell:
    """A number of the paper (None: it prints none) and its reproduction (None: not run; NaN: undefined).

    low, high: 95 % interval of the reproduction; p: of its difference from the reference system (of a delta: from 0),
    after Holm's correction; each NaN where there is none. n: predictions scored. best: the best of its column, at the
    two decimals shown.
    """

    paper: float | None
    reproduced: float | None
    n: int | None = None
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    best: bool = False

    @property
    def half(self) -> float:
        """Half the width of the interval; NaN without one."""
        return (self.high - self.low) / 2

    @property
    def noise(self) -> bool:
        """Whether the test leaves open that there is no difference at all."""
        return self.p >= ALPHA


@dataclass(frozen=True)
class TableRow:
    """One row: its label, the system behind it (None: the companion has none), a cell per metric."""

    label: str
    system: str | None
    control: bool
    cells: dict[str, Cell]

    @property
    def title(self) -> str:
        """The label, with "(control)" where the papers have no such row."""
        return f"{self.label} (control)" if self.control else self.label

    @property
    def n(self) -> int | None:
        """Predictions scored; None if not run. The largest, where a metric leaves some out."""
        return max((cell.n for cell in self.cells.values() if cell.n is not None), default=None)


class Printed(NamedTuple):
    """A delta as the paper prints it (None: it does not), and whether it follows from the printed cells."""

    text: str | None
    check: Check


@dataclass(frozen=True)
class DeltaRow:
    """One row of deltas per metric: as printed; the difference, in the metric's own unit; that in per cent."""

    label: str
    note: str
    printed: dict[str, Printed]
    difference: dict[str, Cell]
    relative: dict[str, Cell]


@dataclass(frozen=True)
class TableResult:
    """A rebuilt table; the last expression of a notebook cell shows it as Markdown."""

    id: str
    task: Task
    metrics: tuple[str, ...]
    rows: tuple[TableRow, ...]
    deltas: tuple[DeltaRow, ...]
    caption: tuple[str, ...]

    def _repr_markdown_(self) -> str:
        from lmolt_utils.figures.table_files import to_markdown

        return to_markdown(self)


class Score(NamedTuple):
    """One reproduced value (NaN: it ran, but the metric is undefined) over ``n`` predictions, and its interval."""

    value: float
    n: int
    low: float
    high: float


def index_scores(scores: pd.DataFrame) -> dict[tuple[str, str, str], Score]:
    """Look up a score by (system, task, metric).

    ``scores`` is long: system, task, metric, value, n, and low and high where there are intervals. Raises ValueError if
    a column is missing or if one system has two values for a metric.
    """
    keys = ["system", "task", "metric"]
    check_columns(scores, SCORE_COLUMNS[:5], "scores")
    full = scores.reindex(columns=list(SCORE_COLUMNS))
    for system, task, name in full.loc[full.duplicated(keys), keys].itertuples(index=False):
        raise ValueError(f"two scores for system {system!r}, {task}, {name}: keep one run per system")
    numbers = full.astype({"value": float, "low": float, "high": float}).itertuples(index=False)
    return {
        (system, task, name): Score(value, int(n), low, high) for system, task, name, value, n, low, high in numbers
    }


class _Test(NamedTuple):
    """A paired test of two systems: the 95 % interval of their difference, and p after Holm's correction."""

    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def _index_tests(significance: pd.DataFrame | None) -> dict[tuple[str, str, str, str], _Test]:
    """Look up a test by (task, metric, system, the system it is held against), in both orders."""
    found: dict[tuple[str, str, str, str], _Test] = {}
    if significance is None or significance.empty:
        return found
    columns = ["task", "metric", "a", "b", "low", "high", "p_holm"]
    check_columns(significance, columns, "significance")
    for task, name, a, b, low, high, p in significance[columns].itertuples(index=False):
        found[task, name, a, b] = _Test(low, high, p)
        found[task, name, b, a] = _Test(-high, -low, p)
    return found


# ---- building ----


def build_table(
    table: str,
    systems: Sequence[SystemRow],
    scores: pd.DataFrame,
    *,
    significance: pd.DataFrame | None = None,
    context: Mapping[str, str] | None = None,
    older: Mapping[str, str] | None = None,
) -> TableResult:
    """Table ``table`` ("T2" to "T5", "AT1", "AT2") with ``scores`` beside the paper's values.

    Rows: the published ones in printed order, then the controls in the systems' order. ``scores`` is long (system,
    task, metric, value, n; low and high for intervals), values in each metric's own unit. ``significance`` (task,
    metric, a, b, low, high, p_holm) marks what cannot be told from the system ``REFERENCE``. ``context`` feeds the
    caption: keys ``profile``, ``test set``, ``n`` (else taken from the scores), ``tokenizer``, and ``scale``, which is
    ``embedded`` when the models are not the papers' own; other keys are appended. ``older``: systems made by older
    code, each with its commit, which the caption names. Raises ValueError for an unknown table, a misspelt row, two
    systems on one row, or scores of the wrong shape.
    """
    published = load_published()
    spec = published.table(table)
    found, tests = index_scores(scores), _index_tests(significance)
    for system in systems:
        for named in system.rows:
            published.table(named)  # a row in an unknown table would be lost without a word
    placed = {t.id: systems_by_row(t, systems) for t in published.tables}

    def cell(ref: RowRef, name: str) -> Cell:
        source, system = published.table(ref.table), placed[ref.table].get(ref.row)
        paper = source.value(ref.row, name)
        score = found.get((system.name, source.task, name)) if system else None
        if system is None or score is None:
            return Cell(paper, None)
        tested = tests.get((source.task, name, system.name, REFERENCE), _Test())
        return Cell(paper, score.value, score.n, score.low, score.high, tested.p)

    def test(delta: PublishedDelta, name: str) -> _Test:
        pair = [placed[ref.table].get(ref.row) for ref in (delta.of, delta.over)]
        names = [system.name for system in pair if system is not None]
        return tests.get((spec.task, name, names[0], names[1]), _Test()) if len(names) == 2 else _Test()

    rows = [
        TableRow(
            label=label,
            system=placed[spec.id][label].name if label in placed[spec.id] else None,
            control=label not in spec.rows,
            cells={name: cell(RowRef(table=spec.id, row=label), name) for name in spec.metrics},
        )
        for label in dict.fromkeys([*spec.rows, *placed[spec.id]])
    ]
    deltas = [_delta(delta, spec.metrics, cell, test) for delta in spec.deltas]
    labels = {system.name: system.label for system in systems}
    kept = {row.title: (older or {})[row.system] for row in rows if row.system in (older or {})}
    lines = [
        f"{spec.title}: {spec.source}.",
        *_origin(spec.task, rows, dict(context or {})),
        *_absent_and_older(rows, kept),
        f"Bold: best reproduced value of its column. {NO_PAPER_VALUE}: the paper prints no value. "
        f"{UNDEFINED.capitalize()}: no such number exists (a relative change over 0, FCD without molecules).",
        *_noise_legend(rows, deltas, labels.get(REFERENCE, REFERENCE)),
    ]
    if deltas:
        lines.append(_delta_legend(deltas))
    if strangers := sorted({system for system, _, _ in found} - set(labels)):
        lines.append(f"Scored, but not in the systems table: {', '.join(strangers)}.")
    return TableResult(spec.id, spec.task, tuple(spec.metrics), _with_best(rows), tuple(deltas), tuple(lines))


def _with_best(rows: Sequence[TableRow]) -> tuple[TableRow, ...]:
    """The rows with the best reproduced value of each column marked, at the two decimals shown."""

    def shown(cell: Cell) -> float | None:
        return None if cell.reproduced is None or math.isnan(cell.reproduced) else round(cell.reproduced, 2)

    best = {}
    for name in rows[0].cells:
        values = [value for row in rows if (value := shown(row.cells[name])) is not None]
        best[name] = (max if METRICS[name].better == "higher" else min)(values, default=None)
    return tuple(
        replace(
            row,
            cells={
                name: replace(cell, best=(value := shown(cell)) is not None and value == best[name])
                for name, cell in row.cells.items()
            },
        )
        for row in rows
    )


def _delta(
    delta: PublishedDelta,
    metrics: Sequence[str],
    cell: Callable[[RowRef, str], Cell],
    test: Callable[[PublishedDelta, str], _Test],
) -> DeltaRow:
    row = DeltaRow(delta.label, f"{delta.of} minus {delta.over}", {}, {}, {})
    for name, printed in zip(metrics, delta.printed, strict=True):
        of, over = cell(delta.of, name), cell(delta.over, name)
        paper = _difference(of.paper, over.paper)
        row.printed[name] = Printed(printed, check_printed(printed, paper, METRICS[name]))
        row.difference[name] = Cell(paper, _difference(of.reproduced, over.reproduced), None, *test(delta, name))
        row.relative[name] = Cell(_relative(of.paper, over.paper), _relative(of.reproduced, over.reproduced))
    return row


def _difference(of: float | None, over: float | None) -> float | None:
    return None if of is None or over is None else of - over


def _relative(of: float | None, over: float | None) -> float | None:
    """The difference in per cent of ``over``; NaN if ``over`` prints as 0, None if either is missing."""
    if of is None or over is None:
        return None
    # A value that two decimals print as 0.00 (BLEU's smallest is 1e-8, not 0) is nothing to be relative to.
    return math.nan if abs(over) < 0.005 else 100 * (of - over) / over


def check_printed(printed: str | None, difference: float | None, metric: Metric) -> Check:
    """Compare a printed delta with ``difference``, that of the printed cells, in the metric's own unit."""
    if printed is None or difference is None:
        return ""
    delta = parse_printed(printed)
    scale = 100 if delta.percent and metric.within_0_and_1 else 1
    error = abs(delta.value - scale * difference)
    half_step = 0.5 * 10**-delta.decimals
    if error <= half_step + 1e-9:  # 1e-9: binary fractions
        return ""
    # Both cells are rounded, so the difference of the unrounded values may be off by both.
    return WITHIN_ROUNDING if error < half_step + scale * 2 * CELL_ROUNDING else DOES_NOT_FOLLOW


def older_systems(steps: Mapping[str, str], systems: Iterable[SystemRow]) -> dict[str, str]:
    """For ``build_table``: of ``steps`` (name: commit) that were made by older code, the systems that they name."""
    words = {step: step.split() for step in steps}
    return {system.name: steps[step] for system in systems for step in steps if system.name in words[step]}


# ---- the caption: what a reader must know to judge the numbers ----


def _origin(task: Task, rows: Sequence[TableRow], context: dict[str, str]) -> list[str]:
    """Which run, test set and tools the numbers are of, and at which scale."""
    sizes = sorted({row.n for row in rows if row.n is not None})
    scale = context.pop("scale", None)
    stated = {
        "profile": "not stated",
        "test set": "not stated",
        "n": ", ".join(map(str, sizes)) or NOT_RUN,
        "tokenizer": "not stated",
        **context,
    }
    if task != "mol2cap":
        stated = {key: value for key, value in stated.items() if key not in ("tokenizer", "METEOR")}
    text = "; ".join(f"{key}: {value}" for key, value in stated.items())
    lines = [f"{text[:1].upper()}{text[1:]}."]
    if scale == "embedded":
        lines.append("Embedded scale: not the paper's models.")
    elif scale is not None:
        lines.append(f"Scale: {scale}.")
    return lines


def _absent_and_older(rows: Sequence[TableRow], older: Mapping[str, str]) -> list[str]:
    """What did not run, and what ran with code that has changed since."""
    absent = [row.label for row in rows if row.n is None]
    lines = [f"Not run: {', '.join(absent)}."] if absent else []
    if older:
        named = ", ".join(f"{label} ({commit[:7]})" for label, commit in older.items())
        lines.append(f"Made by older code, and kept: {named}.")
    return lines


def _noise_legend(rows: Sequence[TableRow], deltas: Sequence[DeltaRow], reference: str) -> list[str]:
    """What ± and the mark of noise mean, and what goes without them; nothing where nothing ran."""
    cells = [cell for row in rows for cell in row.cells.values()]
    ran = [cell for cell in cells if cell.reproduced is not None and not math.isnan(cell.reproduced)]
    lines = []
    if any(not math.isnan(cell.half) for cell in ran):
        lines.append(
            "±: half the 95 % interval over test rows (bootstrap; FCD: derivative by row; a rate of 0 or 1: Wilson). "
            "It holds for these weights, not for another training seed. No ±: every row scored the same, or the "
            "metric allows none."
        )
    elif ran:
        lines.append("No intervals: these scores were made without them.")
    if any(not math.isnan(cell.p) for cell in [*cells, *(c for delta in deltas for c in delta.difference.values())]):
        lines.append(
            f"{NOISE}: within noise, that is not to be told from {reference} (a difference: from 0) by a paired "
            f"permutation test (FCD: normal approximation), p ≥ {ALPHA} after Holm's correction over the systems."
        )
    return lines


def _delta_legend(deltas: Sequence[DeltaRow]) -> str:
    """What the printed deltas are, and what their marks mean."""
    cells = [(name, cell) for delta in deltas for name, cell in delta.printed.items() if cell.text]
    text = f"Deltas: {DIFFERENCE}, in the metric's own unit, and {RELATIVE}, of the row after 'minus'. "
    if any("%" in (cell.text or "") for _, cell in cells):
        text += "What the paper prints with a per cent sign is the absolute difference, times 100"
        raw = [name for name in dict.fromkeys(name for name, _ in cells) if not METRICS[name].within_0_and_1]
        text += f" (not for {' and '.join(raw)}). " if raw else ". "
    else:
        text += "The paper prints absolute differences. "
    used = {cell.check for _, cell in cells}
    return (text + " ".join(f"{mark}: {check}." for check, mark in MARKS.items() if mark and check in used)).strip()
