"""The papers' tables, rebuilt: each reproduced value beside the printed one, each delta recomputed.

``build_table`` joins the published rows, the systems that stand for them and the scores; the result is one
object that is shown as Markdown in a notebook and written as CSV, Markdown and LaTeX. Whatever has no score
says "not run", so a partial run can never look complete.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.published import (
    CELL_ROUNDING,
    METRICS,
    REFERENCE,
    Metric,
    Published,
    PublishedTable,
    RowRef,
    SystemRow,
    load_published,
    parse_printed,
    systems_by_row,
)
from lmolt_utils.files import write_text

NOT_RUN = "not run"
UNDEFINED = "undefined"  # it ran, but the number does not exist (FCD without a valid molecule, x / 0)
NO_PAPER_VALUE = "–"

SCORE_COLUMNS = ("system", "task", "metric", "value", "n")

#: How a printed delta relates to the printed cells it is the difference of.
Check = Literal[
    "",
    "differs from the printed cells by their rounding at most",
    "does not follow from the printed cells, rounding included",
]
WITHIN_ROUNDING: Check = "differs from the printed cells by their rounding at most"
DOES_NOT_FOLLOW: Check = "does not follow from the printed cells, rounding included"
_MARKS: dict[Check, str] = {"": "", WITHIN_ROUNDING: "‡", DOES_NOT_FOLLOW: "†"}

#: The system that every row is tested against: the per-task model, which all but one of the papers' tables print.
ALPHA = 0.05
NOISE = "≈"  # behind a value that the test cannot tell from the reference system's
SIGNIFICANCE_COLUMNS = ("task", "metric", "a", "b", "low", "high", "p_holm")

DIFFERENCE = "difference"
RELATIVE = "relative, %"
PRINTED = "as printed"


@dataclass(frozen=True)
class Score:
    """One reproduced value (NaN: it ran, but the metric is undefined) over ``n`` predictions, and its interval."""

    value: float
    n: int
    low: float = math.nan
    high: float = math.nan

    @property
    def half(self) -> float:
        """Half the width of the interval; NaN without one."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Comparison:
    """A difference of two systems with its paired 95 % interval and p, corrected over the compared systems."""

    low: float
    high: float
    p: float

    @property
    def half(self) -> float:
        """Half the width of the interval; NaN without one."""
        return (self.high - self.low) / 2

    @property
    def noise(self) -> bool:
        """Whether the test leaves open that there is no difference at all."""
        return self.p >= ALPHA


@dataclass(frozen=True)
class Cell:
    """The paper's value (None: it prints none) and the reproduced score (None: not run).

    against: the difference from the table's reference system; None if it was not tested, or is that system.
    """

    paper: float | None
    score: Score | None
    against: Comparison | None = None

    @property
    def reproduced(self) -> float | None:
        return None if self.score is None else self.score.value


@dataclass(frozen=True)
class TableRow:
    """One row: its label, the system behind it (None: the companion has none), a cell per metric."""

    label: str
    system: str | None
    control: bool
    cells: dict[str, Cell]

    @property
    def n(self) -> int | None:
        """Predictions scored; None if not run. The largest, where a metric leaves some out."""
        return max((cell.score.n for cell in self.cells.values() if cell.score), default=None)


@dataclass(frozen=True)
class DeltaCell:
    """One delta: as printed, whether that follows, and both sides of it recomputed."""

    printed: str | None
    check: Check
    of: Cell
    over: Cell
    tested: Comparison | None = None

    def difference(self, side: Literal["paper", "reproduced"]) -> float | None:
        """``of`` minus ``over`` in the metric's own unit; None if either is missing."""
        of, over = getattr(self.of, side), getattr(self.over, side)
        return None if of is None or over is None else of - over

    def relative(self, side: Literal["paper", "reproduced"]) -> float | None:
        """The difference in per cent of ``over``; NaN if ``over`` prints as 0, None if either is missing."""
        difference, over = self.difference(side), getattr(self.over, side)
        if difference is None:
            return None
        # A value that two decimals print as 0.00 (BLEU's smallest is 1e-8, not 0) is nothing to be relative to.
        return math.nan if abs(over) < 0.005 else 100 * difference / over


@dataclass(frozen=True)
class DeltaRow:
    """One row of deltas, with the rows it compares."""

    label: str
    of: RowRef
    over: RowRef
    cells: dict[str, DeltaCell]


@dataclass(frozen=True)
class TableResult:
    """A rebuilt table; the last expression of a notebook cell shows it as Markdown."""

    id: str
    title: str
    source: str
    task: Task
    metrics: tuple[Metric, ...]
    rows: tuple[TableRow, ...]
    deltas: tuple[DeltaRow, ...]
    caption: tuple[str, ...]

    def _repr_markdown_(self) -> str:
        return to_markdown(self)


# ---- scores ----


def check_columns(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Raise ValueError naming the columns that ``frame`` lacks; a frame without any data may lack all."""
    missing = [column for column in columns if column not in frame.columns]
    if missing and not (frame.empty and not len(frame.columns)):
        raise ValueError(f"{what} lack the columns {', '.join(missing)}; they have {', '.join(frame.columns)}")


def index_scores(scores: pd.DataFrame) -> dict[tuple[str, str, str], Score]:
    """Look up a score by (system, task, metric).

    ``scores`` is long: system, task, metric, value, n, and low and high where there are intervals. Raises
    ValueError if a column is missing or if one system has two values for a metric.
    """
    check_columns(scores, SCORE_COLUMNS, "scores")
    found: dict[tuple[str, str, str], Score] = {}
    if scores.empty:
        return found
    full = scores.reindex(columns=[*SCORE_COLUMNS, "low", "high"])
    for system, task, name, value, n, *ends in full.itertuples(index=False):
        if (system, task, name) in found:
            raise ValueError(f"two scores for system {system!r}, {task}, {name}: keep one run per system")
        value, low, high = (math.nan if pd.isna(number) else float(number) for number in (value, *ends))
        found[system, task, name] = Score(value, int(n), low, high)
    return found


def index_significance(significance: pd.DataFrame | None) -> dict[tuple[str, str, str, str], Comparison]:
    """Look up a comparison by (task, metric, system, the system it is held against), in both orders.

    ``significance`` is long (:data:`SIGNIFICANCE_COLUMNS`); None or empty: nothing was tested. Raises ValueError if
    a column is missing.
    """
    found: dict[tuple[str, str, str, str], Comparison] = {}
    if significance is None or significance.empty:
        return found
    check_columns(significance, SIGNIFICANCE_COLUMNS, "significance")
    for task, name, a, b, low, high, p in significance[list(SIGNIFICANCE_COLUMNS)].itertuples(index=False):
        found[task, name, a, b] = Comparison(float(low), float(high), float(p))
        found[task, name, b, a] = Comparison(-float(high), -float(low), float(p))
    return found


# ---- building ----


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


def build_table(
    table: str,
    systems: Sequence[SystemRow],
    scores: pd.DataFrame,
    *,
    significance: pd.DataFrame | None = None,
    reference: str = REFERENCE,
    context: Mapping[str, str] | None = None,
    published: Published | None = None,
) -> TableResult:
    """Table ``table`` ("T2" to "T5", "AT1", "AT2") with ``scores`` beside the paper's values.

    Rows: the published ones in printed order, then the controls in the systems' order. ``scores`` is long
    (system, task, metric, value, n; low and high for intervals), values in each metric's own unit.
    ``significance`` (:data:`SIGNIFICANCE_COLUMNS`) marks what cannot be told from the system ``reference``.
    ``context`` feeds the caption: keys
    ``profile``, ``test set``, ``n`` (else taken from the scores), ``tokenizer``, and ``scale``, which is
    ``embedded`` when the models are not the papers' own; other keys are appended. Raises ValueError for an
    unknown table, a misspelt row, two systems on one row, or scores of the wrong shape.
    """
    published = published or load_published()
    spec = published.table(table)
    found, tests = index_scores(scores), index_significance(significance)
    for system in systems:
        for named in system.rows:
            published.table(named)  # a row in an unknown table would be lost without a word
    placed = {t.id: systems_by_row(t, systems) for t in published.tables}

    def cell(ref: RowRef, name: str) -> Cell:
        source, system = published.table(ref.table), placed[ref.table].get(ref.row)
        score = found.get((system.name, source.task, name)) if system else None
        tested = tests.get((source.task, name, system.name, reference)) if system and score else None
        return Cell(source.value(ref.row, name), score, tested)

    def comparison(of: RowRef, over: RowRef, name: str) -> Comparison | None:
        pair = [placed[ref.table].get(ref.row) for ref in (of, over)]
        names = [system.name for system in pair if system is not None]
        return tests.get((spec.task, name, names[0], names[1])) if len(names) == 2 else None

    labels = [*spec.rows, *(row for row in placed[spec.id] if row not in spec.rows)]
    rows = [
        TableRow(
            label=label,
            system=placed[spec.id][label].name if label in placed[spec.id] else None,
            control=label not in spec.rows,
            cells={name: cell(RowRef(table=spec.id, row=label), name) for name in spec.metrics},
        )
        for label in labels
    ]
    deltas = []
    for delta in spec.deltas:
        cells = {}
        for name, printed in zip(spec.metrics, delta.printed, strict=True):
            of, over = cell(delta.of, name), cell(delta.over, name)
            difference = None if of.paper is None or over.paper is None else of.paper - over.paper
            cells[name] = DeltaCell(
                printed,
                check_printed(printed, difference, METRICS[name]),
                of,
                over,
                comparison(delta.of, delta.over, name),
            )
        deltas.append(DeltaRow(delta.label, delta.of, delta.over, cells))

    strangers = sorted({system for system, _, _ in found} - {system.name for system in systems})
    return TableResult(
        id=spec.id,
        title=spec.title,
        source=spec.source,
        task=spec.task,
        metrics=tuple(METRICS[name] for name in spec.metrics),
        rows=tuple(rows),
        deltas=tuple(deltas),
        caption=_caption(spec, rows, deltas, dict(context or {}), strangers, _label_of(reference, systems)),
    )


def _label_of(name: str, systems: Sequence[SystemRow]) -> str:
    return next((system.label for system in systems if system.name == name), name)


def _caption(
    spec: PublishedTable,
    rows: Sequence[TableRow],
    deltas: Sequence[DeltaRow],
    context: dict[str, str],
    strangers: Sequence[str],
    reference: str,
) -> tuple[str, ...]:
    """What a reader must know to judge the numbers, one sentence or two per line."""
    sizes = sorted({row.n for row in rows if row.n is not None})
    scale = context.pop("scale", None)
    stated = {
        "profile": context.pop("profile", "not stated"),
        "test set": context.pop("test set", "not stated"),
        "n": context.pop("n", ", ".join(map(str, sizes)) or NOT_RUN),
        "tokenizer": context.pop("tokenizer", "not stated"),
        **context,
    }
    if spec.task != "mol2cap":
        stated = {key: value for key, value in stated.items() if key not in ("tokenizer", "METEOR")}
    lines = [
        f"{spec.title}: {spec.source}.",
        _sentence("; ".join(f"{key}: {value}" for key, value in stated.items())),
    ]
    if scale == "embedded":
        lines.append("Embedded scale: not the paper's models.")
    elif scale is not None:
        lines.append(f"Scale: {scale}.")
    absent = [row.label for row in rows if row.n is None]
    if absent:
        lines.append(f"Not run: {', '.join(absent)}.")
    lines.append(
        f"Bold: best reproduced value of its column. {NO_PAPER_VALUE}: the paper prints no value. "
        f"{UNDEFINED.capitalize()}: no such number exists (a relative change over 0, FCD without molecules)."
    )
    lines += _noise_legend(rows, deltas, reference)
    if deltas:
        lines.append(_delta_legend(deltas))
    if strangers:
        lines.append(f"Scored, but not in the systems table: {', '.join(strangers)}.")
    return tuple(lines)


def _noise_legend(rows: Sequence[TableRow], deltas: Sequence[DeltaRow], reference: str) -> list[str]:
    """What ± and the mark of noise mean, and what goes without them; nothing where nothing ran."""
    cells = [cell for row in rows for cell in row.cells.values() if cell.score and not math.isnan(cell.score.value)]
    lines = []
    if any(not math.isnan(cell.score.half) for cell in cells if cell.score):
        lines.append(
            "±: half the 95 % interval over test rows (bootstrap; FCD: derivative by row; a rate of 0 or 1: Wilson). "
            "It holds for these weights, not for another training seed. No ±: every row scored the same, or the "
            "metric allows none."
        )
    elif cells:
        lines.append("No intervals: these scores were made without them.")
    tested = [cell.against for cell in cells if cell.against] + [
        cell.tested for delta in deltas for cell in delta.cells.values() if cell.tested
    ]
    if tested:
        lines.append(
            f"{NOISE}: within noise, that is not to be told from {reference} (a difference: from 0) by a paired "
            f"permutation test (FCD: normal approximation), p ≥ {ALPHA} after Holm's correction over the systems."
        )
    return lines


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _delta_legend(deltas: Sequence[DeltaRow]) -> str:
    """What the printed deltas are, and what their marks mean."""
    cells = [(name, cell) for delta in deltas for name, cell in delta.cells.items() if cell.printed]
    text = f"Deltas: {DIFFERENCE}, in the metric's own unit, and {RELATIVE}, of the row after 'minus'. "
    if any("%" in (cell.printed or "") for _, cell in cells):
        text += "What the paper prints with a per cent sign is the absolute difference, times 100"
        raw = [name for name in dict.fromkeys(name for name, _ in cells) if not METRICS[name].within_0_and_1]
        text += f" (not for {' and '.join(raw)}). " if raw else ". "
    else:
        text += "The paper prints absolute differences. "
    marks = [f"{mark}: {check}." for check, mark in _MARKS.items() if any(c.check == check for _, c in cells) and mark]
    return (text + " ".join(marks)).strip()


def best_reproduced(result: TableResult, metric: Metric) -> float | None:
    """The best reproduced value of a column, at the two decimals shown; None if nothing ran."""
    shown = [row.cells[metric.name].reproduced for row in result.rows]
    values = [round(value, 2) for value in shown if value is not None and not math.isnan(value)]
    if not values:
        return None
    return max(values) if metric.better == "higher" else min(values)


# ---- writing ----


def _number(value: float | None, missing: str, sign: bool = False) -> str:
    """``value`` to two decimals, ``missing`` for None."""
    if value is None:
        return missing
    if math.isnan(value):
        return UNDEFINED
    value = round(value, 2) + 0.0  # no minus zero
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _half(half: float) -> str:
    """The ± part, or nothing without an interval."""
    return "" if math.isnan(half) else f" ± {half:.2f}"


def _noise(tested: Comparison | None) -> str:
    return NOISE if tested is not None and tested.noise else ""


def _heading(metric: Metric) -> str:
    return f"{metric.name} {metric.arrow}"


def _row_label(row: TableRow) -> str:
    return f"{row.label} (control)" if row.control else row.label


def _is_best(result: TableResult, metric: Metric, cell: Cell) -> bool:
    value = cell.reproduced
    return value is not None and not math.isnan(value) and round(value, 2) == best_reproduced(result, metric)


def to_frame(result: TableResult) -> pd.DataFrame:
    """The table in tidy long form, one line per number, to ten digits.

    Columns: table, row, kind (``value``; for deltas ``as printed``, ``difference``, ``relative, %``), metric,
    paper, reproduced, n, system, low and high (95 % interval of the reproduced number), p (of the difference from
    the reference system, or of the delta; after Holm's correction), note. ``reproduced`` reads "not run" where
    nothing ran, ``paper`` is empty where the paper prints nothing.
    """

    def text(value: float | None, missing: str) -> str:
        return missing if value is None else UNDEFINED if math.isnan(value) else f"{value:.10g}"

    def ends(found: Score | Comparison | None, tested: Comparison | None) -> tuple[str, ...]:
        numbers = (found.low, found.high) if found else (math.nan, math.nan)
        return tuple("" if math.isnan(x) else f"{x:.10g}" for x in (*numbers, tested.p if tested else math.nan))

    lines: list[tuple[str, ...]] = []
    for row in result.rows:
        for name, cell in row.cells.items():
            note = "control: the papers have no such row" if row.control else ""
            n = str(cell.score.n) if cell.score else ""
            values = text(cell.paper, ""), text(cell.reproduced, NOT_RUN)
            spread = ends(cell.score, cell.against)
            lines.append((row.label, "value", name, *values, n, row.system or "", *spread, note))
    for delta in result.deltas:
        for name, part in delta.cells.items():
            note = f"{delta.of} minus {delta.over}"
            flagged = f"{note}; {part.check}" if part.check else note
            differences = text(part.difference("paper"), ""), text(part.difference("reproduced"), NOT_RUN)
            relatives = text(part.relative("paper"), ""), text(part.relative("reproduced"), NOT_RUN)
            spread, none = ends(part.tested, part.tested), ("", "", "")
            lines.append((delta.label, PRINTED, name, part.printed or "", "", "", "", *none, flagged))
            lines.append((delta.label, DIFFERENCE, name, *differences, "", "", *spread, note))
            lines.append((delta.label, RELATIVE, name, *relatives, "", "", *none, note))
    columns = ["table", "row", "kind", "metric", "paper", "reproduced", "n", "system", "low", "high", "p", "note"]
    return pd.DataFrame([(result.id, *line) for line in lines], columns=columns)


def escape_markdown(text: str) -> str:
    """``text`` with Markdown's special characters made printable."""
    return "".join("\\" + character if character in "\\|*_`<>[]" else character for character in text)


def markdown_grid(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, all columns but the first aligned to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *lines)]


def to_markdown(result: TableResult) -> str:
    """The table for GitHub and notebooks: "reproduced (paper)" in each cell, the deltas below."""

    def shown(metric: Metric, cell: Cell) -> str:
        value = _number(cell.reproduced, NOT_RUN)
        value = f"**{value}**" if _is_best(result, metric, cell) else value
        spread = _half(cell.score.half) if cell.score else ""
        return f"{value}{spread}{_noise(cell.against)} ({_number(cell.paper, NO_PAPER_VALUE)})"

    headings = [_heading(metric) for metric in result.metrics]
    rows = [
        [escape_markdown(_row_label(row)), NOT_RUN if row.n is None else str(row.n)]
        + [shown(metric, row.cells[metric.name]) for metric in result.metrics]
        for row in result.rows
    ]
    head = f"{result.caption[0]} Each cell: reproduced{_spread_word(result)} (paper)."
    lines = [f"**Table {result.id}.** {escape_markdown(head)}", ""]
    lines += markdown_grid(["", "n", *headings], rows)
    for line in result.caption[1:]:
        lines += ["", escape_markdown(line)]

    if result.deltas:
        blocks = []
        for delta in result.deltas:
            cells = [delta.cells[metric.name] for metric in result.metrics]
            name = f"Δ {delta.label}: {delta.of} minus {delta.over}"
            blocks.append(
                [escape_markdown(name), f"paper, {PRINTED}"]
                + [f"{cell.printed or NO_PAPER_VALUE}{_MARKS[cell.check]}" for cell in cells]
            )
            for kind, numbers in _delta_numbers(cells):
                blocks.append(["", kind, *(f"{reproduced} ({paper})" for reproduced, paper in numbers)])
        lines += ["", *markdown_grid(["", "", *headings], blocks)]
    return "\n".join(lines) + "\n"


def _uncertain(tested: Comparison | None) -> str:
    return _half(tested.half) + _noise(tested) if tested else ""


def _spread_word(result: TableResult) -> str:
    scores = [cell.score for row in result.rows for cell in row.cells.values() if cell.score]
    return " ± half-width" if any(not math.isnan(score.half) for score in scores) else ""


def _delta_numbers(cells: Sequence[DeltaCell]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Both recomputed kinds with their (reproduced, paper) texts per metric."""
    differences = [
        (
            _number(cell.difference("reproduced"), NOT_RUN, sign=True) + _uncertain(cell.tested),
            _number(cell.difference("paper"), NO_PAPER_VALUE, sign=True),
        )
        for cell in cells
    ]
    relatives = [
        (
            _number(cell.relative("reproduced"), NOT_RUN, sign=True),
            _number(cell.relative("paper"), NO_PAPER_VALUE, sign=True),
        )
        for cell in cells
    ]
    return [(DIFFERENCE, differences), (RELATIVE, relatives)]


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "–": "--",
        "×": r"$\times$",
        "Δ": r"$\Delta$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "→": r"$\rightarrow$",
        "β": r"$\beta$",
        "†": r"\textsuperscript{\textdagger}",
        "‡": r"\textsuperscript{\textdaggerdbl}",
        "±": r"$\pm$",
        "≈": r"$\approx$",
        "≥": r"$\geq$",
    }
)


def escape_latex(text: str) -> str:
    """``text`` with LaTeX's special characters, and the symbols these tables use, made printable."""
    return text.translate(_LATEX)


def _latex_number(text: str) -> str:
    """A number's hyphen is a minus sign, what follows ± is small; words pass through."""
    number, plus_minus, half = text.partition(" ± ")
    shown = escape_latex(number.replace("-", "−")).replace("−", "$-$")
    if not plus_minus:
        return shown
    mark = r"{\approx}" if half.endswith(NOISE) else ""
    return rf"{shown}$_{{\pm {half.removesuffix(NOISE)}}}{mark}$"


def to_latex(result: TableResult) -> str:
    """The table as a two-column float with booktabs: per metric a reproduced and a paper column.

    Needs ``\\usepackage{booktabs}`` and a document with two-column floats (``table*``).
    """
    count = len(result.metrics)
    width = 2 + 2 * count
    starts = range(3, 3 + 2 * count, 2)
    lines = [
        r"\begin{table*}[t]",
        r"\centering",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{2.5pt}",
        r"\begin{tabular}{lr" + "rr" * count + "}",
        r"\toprule",
        " & & "
        + " & ".join(rf"\multicolumn{{2}}{{c}}{{{escape_latex(_heading(m))}}}" for m in result.metrics)
        + r" \\",
        "".join(rf"\cmidrule(lr){{{start}-{start + 1}}}" for start in starts),
        " & $n$ & " + " & ".join(["repr. & paper"] * count) + r" \\",
        r"\midrule",
    ]
    for row in result.rows:
        texts = []
        for metric in result.metrics:
            cell = row.cells[metric.name]
            value = _latex_number(_number(cell.reproduced, NOT_RUN))
            value = rf"\textbf{{{value}}}" if _is_best(result, metric, cell) else value
            texts.append(value + _latex_number((_half(cell.score.half) if cell.score else "") + _noise(cell.against)))
            texts.append(_latex_number(_number(cell.paper, NO_PAPER_VALUE)))
        n = NOT_RUN if row.n is None else str(row.n)
        lines.append(" & ".join([escape_latex(_row_label(row)), n, *texts]) + r" \\")
    for delta in result.deltas:
        cells = [delta.cells[metric.name] for metric in result.metrics]
        name = escape_latex(f"Δ {delta.label}: {delta.of} minus {delta.over}")
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{{name}}} \\"]
        printed = [
            f"& {_latex_number(cell.printed or NO_PAPER_VALUE)}{escape_latex(_MARKS[cell.check])}" for cell in cells
        ]
        lines.append(rf"\quad {PRINTED} & & " + " & ".join(printed) + r" \\")
        for kind, numbers in _delta_numbers(cells):
            texts = [_latex_number(text) for pair in numbers for text in pair]
            lines.append(rf"\quad {escape_latex(kind)} & & " + " & ".join(texts) + r" \\")
    head, *notes = result.caption
    caption = escape_latex(" ".join([head, "repr.: reproduced.", *notes]))
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{result.id}}}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def write_table(result: TableResult, folder: Path) -> list[Path]:
    """Write ``table_<id>.csv``, ``.md`` and ``.tex`` into ``folder``, each atomically; returns the paths."""
    contents = {
        "csv": to_frame(result).to_csv(index=False, lineterminator="\n"),
        "md": to_markdown(result),
        "tex": to_latex(result),
    }
    return write_formats(folder, f"table_{result.id}", contents)


def write_formats(folder: Path, stem: str, contents: Mapping[str, str]) -> list[Path]:
    """Write one table's texts as ``stem.<ending>``, each atomically; returns the paths."""
    paths = [folder / f"{stem}.{ending}" for ending in contents]
    for path, text in zip(paths, contents.values(), strict=True):
        write_text(path, text)
    return paths
