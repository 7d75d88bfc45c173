"""A rebuilt table and its files: CSV for programs, Markdown for GitHub and notebooks, LaTeX."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.config.prompts import Task
from lmolt_utils.config.published import METRICS
from lmolt_utils.figures.style import SMALL, UNDEFINED
from lmolt_utils.files import write_text
from lmolt_utils.metrics.results import NOT_RUN
from lmolt_utils.run.notebook import Run

NO_PAPER_VALUE = "–"
NOISE = "≈"  # behind a value that the test cannot tell from the reference system's
ALPHA = 0.05
EACH_CELL = "Each cell: reproduced ± half of its 95 % interval (the paper's; reproduced minus the paper's)."

#: The kinds of a table's lines: a value, and what there is of a delta.
VALUE, PRINTED, DIFFERENCE, RELATIVE = "value", "as printed", "difference", "relative, %"

#: How a printed delta relates to the printed cells it is the difference of, with its mark; "": it follows.
WITHIN_ROUNDING = "differs from the printed cells by their rounding at most"
DOES_NOT_FOLLOW = "does not follow from the printed cells, rounding included"
MARKS = {"": "", WITHIN_ROUNDING: "‡", DOES_NOT_FOLLOW: "†"}


@dataclass(frozen=True, eq=False)
class TableResult:
    """A rebuilt table; the last expression of a notebook cell shows it.

    lines: one per number. row: its label; title: the same as shown; kind: ``VALUE``, or of deltas ``PRINTED``,
    ``DIFFERENCE`` and ``RELATIVE``; paper and reproduced: NaN where there is none, infinity where it is undefined; n:
    predictions scored; low, high: 95 % interval; p: of the difference from the reference system (of a delta: from 0),
    after Holm's correction; best: of its column, at two decimals. Of printed deltas: printed, the text, and check,
    whether it follows from the printed cells.
    """

    id: str
    task: Task
    metrics: tuple[str, ...]
    lines: pd.DataFrame
    caption: tuple[str, ...]

    @property
    def values(self) -> pd.DataFrame:
        """The lines of the rows, without the deltas."""
        return self.lines[self.lines["kind"] == VALUE]

    def to_html(self) -> str:
        """The table for notebooks: as in Markdown, small, and the deltas folded."""
        rows, deltas = _cells(self, escape, "<b>{}</b>")
        frames = [pd.DataFrame(part, columns=_header(self)) for part in (rows, deltas)]
        small = [frame.style.hide(axis="index").set_properties(**SMALL).to_html() for frame in frames]
        head, *notes = map(escape, self.caption)
        told = f"<p><b>Table {self.id}.</b> {head} {EACH_CELL}</p>{small[0]}<p>{' '.join(notes)}</p>"
        return told + (f"<details><summary>deltas</summary>{small[1]}</details>" if deltas else "")

    _repr_html_ = to_html


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "–": "--",
        "†": r"\textsuperscript{\textdagger}",
        "‡": r"\textsuperscript{\textdaggerdbl}",
        "Δ": r"$\Delta$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "±": r"$\pm$",
        "≈": r"$\approx$",
    }
)


def escape_latex(text: str) -> str:
    return text.translate(_LATEX)


def escape_markdown(text: str) -> str:
    return "".join("\\" + character if character in "\\|*_`<>[]" else character for character in text)


def heading(name: str) -> str:
    """A metric's name with the arrow of its better direction."""
    return f"{name} {METRICS[name].arrow}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown texts as a table, all columns but the first aligned to the right."""
    align = ["left", *["right"] * (len(header) - 1)]
    return pd.DataFrame(rows, columns=list(header)).to_markdown(index=False, colalign=align, disable_numparse=True)


def write_files(folder: Path, stem: str, **texts: str) -> list[Path]:
    """Write ``stem.ENDING`` for every ending in ``texts``; returns the paths."""
    for ending, text in texts.items():
        write_text(folder / f"{stem}.{ending}", text)
    return [folder / f"{stem}.{ending}" for ending in texts]


def save_csv(run: Run, name: str, frame: pd.DataFrame, float_format: str | None = None) -> None:
    """Write ``name.csv`` to the run's figures, and note it as this notebook's."""
    csv = frame.to_csv(index=False, lineterminator="\n", float_format=float_format)
    run.wrote(*write_files(run.figures, name, csv=csv))


def write_table(result: TableResult, folder: Path) -> list[Path]:
    """Write ``table_<id>.csv``, ``.md`` and ``.tex`` into ``folder``."""
    csv = to_frame(result).to_csv(index=False, lineterminator="\n")
    return write_files(folder, f"table_{result.id}", csv=csv, md=to_markdown(result), tex=to_latex(result))


def to_frame(result: TableResult) -> pd.DataFrame:
    """The lines as texts, to ten digits; ``paper`` and ``to_paper``, the difference, may be empty."""
    lines = result.lines.assign(to_paper=to_paper(result.lines))
    printed = lines["kind"] == PRINTED
    texts = {
        name: lines[name].map(lambda x: "" if math.isnan(x) else UNDEFINED if math.isinf(x) else f"{x:.10g}")
        for name in ("paper", "reproduced", "to_paper", "n", "low", "high", "p")
    }
    texts["reproduced"] = texts["reproduced"].mask(lines["reproduced"].isna() & ~printed, NOT_RUN)
    texts["paper"] = texts["paper"].mask(printed, lines["printed"])
    return lines.assign(table=result.id, **texts)[["table", "row", "kind", "metric", *texts, "system", "note"]]


def to_paper(lines: pd.DataFrame) -> pd.Series:
    """Reproduced minus the paper's value; NaN where one of them is not there, undefined, or itself a difference."""
    both = lines["reproduced"].map(math.isfinite) & lines["paper"].map(math.isfinite) & (lines["kind"] == VALUE)
    return (lines["reproduced"] - lines["paper"]).where(both)


def _number(value: float, missing: str, sign: bool) -> str:
    if not math.isfinite(value):
        return missing if math.isnan(value) else UNDEFINED
    value = round(value, 2) + 0.0  # no minus zero
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _texts(line: Any) -> tuple[str, str, str, str, str]:
    """What a cell shows: reproduced, its half interval, the mark of noise, the paper's value, the difference to it."""
    if line.kind == PRINTED:
        return "", "", "", f"{line.printed or NO_PAPER_VALUE}{MARKS[line.check]}", ""
    sign, half = line.kind != VALUE, (line.high - line.low) / 2
    reproduced, paper = _number(line.reproduced, NOT_RUN, sign), _number(line.paper, NO_PAPER_VALUE, sign)
    away = _number(line.to_paper, "", True)
    return reproduced, "" if math.isnan(half) else f"{half:.2f}", NOISE if line.p >= ALPHA else "", paper, away


def _count(lines: pd.DataFrame) -> str:
    """The largest number of predictions scored: a metric may leave some out."""
    n = lines["n"].max()
    return NOT_RUN if math.isnan(n) else f"{n:.0f}"


def _header(result: TableResult) -> list[str]:
    return ["", "n", *map(heading, result.metrics)]


def _grouped(result: TableResult) -> Any:
    return result.lines.assign(to_paper=to_paper(result.lines)).groupby(["title", "kind"], sort=False)


def _cells(result: TableResult, escaped: Callable[[str], str], bold: str) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the table and of its deltas: "reproduced (paper; difference)" in each cell."""

    def cell(line: Any) -> str:
        reproduced, half, noise, paper, away = _texts(line)
        value = bold.format(reproduced) if line.best else reproduced
        return f"{value}{half and f' ± {half}'}{noise} ({paper}{away and f'; {away}'})" if reproduced else paper

    rows, deltas = [], []
    for (title, kind), lines in _grouped(result):
        cells, name = [cell(line) for line in lines.itertuples()], escaped(str(title))
        if kind == VALUE:
            rows.append([name, _count(lines), *cells])
        else:
            deltas.append([name, f"paper, {kind}", *cells] if kind == PRINTED else ["", str(kind), *cells])
    return rows, deltas


def to_markdown(result: TableResult) -> str:
    """The table for GitHub, the deltas below."""
    rows, deltas = _cells(result, escape_markdown, "**{}**")
    head = f"**Table {result.id}.** {escape_markdown(f'{result.caption[0]} {EACH_CELL}')}"
    parts = [head, markdown_table(_header(result), rows), *map(escape_markdown, result.caption[1:])]
    if deltas:
        parts.append(markdown_table(["", "", *_header(result)[2:]], deltas))
    return "\n\n".join(parts) + "\n"


def to_latex(result: TableResult) -> str:
    """The table as a two-column float (``table*``; booktabs, graphicx): per metric a reproduced and a paper column."""

    def number(text: str) -> str:
        return f"$-${escape_latex(text[1:])}" if text.startswith("-") else escape_latex(text)

    def pair(line: Any) -> list[str]:
        reproduced, half, noise, paper, away = _texts(line)
        value = rf"\textbf{{{number(reproduced)}}}" if line.best else number(reproduced)
        mark = (half and rf"_{{\pm {half}}}") + (noise and r"{\approx}")
        return [value + (mark and f"${mark}$"), number(paper) + (away and f" ({number(away)})")]

    rows = []
    for (title, kind), lines in _grouped(result):
        cells = [text for line in lines.itertuples() for text in pair(line)]
        if kind == PRINTED:
            # The name of a delta is longer than its column: it runs over the empty cells beside it.
            rows.append([rf"\midrule \rlap{{{escape_latex(str(title))}}}", "", *[""] * len(cells)])
        if kind == VALUE:
            rows.append([escape_latex(str(title)), _count(lines), *cells])
        else:
            rows.append([rf"\quad {escape_latex(str(kind))}", "", *cells])
    headings = [escape_latex(heading(name)) for name in result.metrics]
    sides = [(title, side) for title in headings for side in ("repr.", "paper")]
    columns = pd.MultiIndex.from_tuples([("", ""), ("", "$n$"), *sides])
    head, *notes = result.caption
    legend = "repr.: reproduced ± half of its 95 % interval; in brackets: reproduced minus the paper's."
    narrow: Any = [
        {"selector": "scriptsize", "props": ":;"},
        {"selector": "setlength", "props": r":{\tabcolsep}{2.5pt};"},
    ]
    latex = (
        pd.DataFrame(rows, columns=columns)
        .style.hide(axis="index")
        .set_table_styles(narrow)
        .to_latex(
            column_format="l" + "r" * (len(columns) - 1),
            position="t",
            position_float="centering",
            hrules=True,
            label=f"tab:{result.id}",
            caption=escape_latex(" ".join([head, legend, *notes])),
            multicol_align="c",
            environment="table*",
        )
    )
    # Up to twenty columns are wider than a page.
    fitted = latex.replace(r"\begin{tabular}", r"\resizebox{\textwidth}{!}{\begin{tabular}")
    return fitted.replace(r"\end{tabular}", r"\end{tabular}}")
