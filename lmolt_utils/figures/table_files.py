"""Tables as files, written by pandas: CSV for programs, Markdown for GitHub and notebooks, LaTeX with booktabs."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from lmolt_utils.config.published import METRICS
from lmolt_utils.figures.style import UNDEFINED
from lmolt_utils.figures.tables import (
    DIFFERENCE,
    MARKS,
    NO_PAPER_VALUE,
    NOISE,
    PRINTED,
    RELATIVE,
    Cell,
    TableResult,
)
from lmolt_utils.files import write_text
from lmolt_utils.metrics.results import NOT_RUN

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
        "×": r"$\times$",
        "Δ": r"$\Delta$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "→": r"$\rightarrow$",
        "β": r"$\beta$",
        "±": r"$\pm$",
        "≈": r"$\approx$",
        "≥": r"$\geq$",
    }
)


def escape_latex(text: str) -> str:
    """``text`` with LaTeX's special characters, and the symbols these tables use, made printable."""
    return text.translate(_LATEX)


def escape_markdown(text: str) -> str:
    """``text`` with Markdown's special characters made printable."""
    return "".join("\\" + character if character in "\\|*_`<>[]" else character for character in text)


def markdown_table(frame: pd.DataFrame) -> str:
    """A frame of Markdown texts as a table, all columns but the index aligned to the right."""
    align = ["left", *["right"] * len(frame.columns)]
    return frame.to_markdown(colalign=align, disable_numparse=True)


def latex_table(frame: pd.DataFrame, caption: str, label: str) -> str:
    """A frame of LaTeX texts as a two-column float (``table*``) with booktabs; ``caption`` is plain text."""
    narrow = [{"selector": "scriptsize", "props": ":;"}, {"selector": "setlength", "props": r":{\tabcolsep}{2.5pt};"}]
    return frame.style.set_table_styles(narrow).to_latex(
        column_format="l" + "r" * len(frame.columns),
        position="t",
        position_float="centering",
        hrules=True,
        label=f"tab:{label}",
        caption=escape_latex(caption),
        multicol_align="c",
        environment="table*",
    )


def write_files(folder: Path, stem: str, contents: Mapping[str, str | pd.DataFrame]) -> list[Path]:
    """Write ``stem.<ending>`` for each of ``contents``, a text or the frame of a CSV, atomically; returns the paths."""
    paths = []
    for ending, content in contents.items():
        text = content if isinstance(content, str) else content.to_csv(index=False, lineterminator="\n")
        paths.append(folder / f"{stem}.{ending}")
        write_text(paths[-1], text)
    return paths


def write_table(result: TableResult, folder: Path) -> list[Path]:
    """Write ``table_<id>.csv``, ``.md`` and ``.tex`` into ``folder``, each atomically; returns the paths."""
    contents: dict[str, str | pd.DataFrame] = {
        "csv": to_frame(result),
        "md": to_markdown(result),
        "tex": to_latex(result),
    }
    return write_files(folder, f"table_{result.id}", contents)


def to_frame(result: TableResult) -> pd.DataFrame:
    """The table in tidy long form, one line per number, to ten digits.

    Columns: table, row, kind (``value``; for deltas ``as printed``, ``difference``, ``relative, %``), metric,
    paper, reproduced, n, system, low and high (95 % interval of the reproduced number), p (of the difference from
    the reference system, or of the delta; after Holm's correction), note. ``reproduced`` reads "not run" where
    nothing ran, ``paper`` is empty where the paper prints nothing.
    """

    def digits(value: float | None, missing: str, undefined: str = UNDEFINED) -> str:
        return missing if value is None else undefined if math.isnan(value) else f"{value:.10g}"

    def numbers(cell: Cell) -> dict[str, str]:
        ends = {name: digits(getattr(cell, name), "", "") for name in ("low", "high", "p")}
        n = "" if cell.n is None else str(cell.n)
        return {"paper": digits(cell.paper, ""), "reproduced": digits(cell.reproduced, NOT_RUN), "n": n, **ends}

    lines: list[dict[str, str]] = []
    for row in result.rows:
        note = "control: the papers have no such row" if row.control else ""
        for name, cell in row.cells.items():
            line = {"row": row.label, "kind": "value", "metric": name, "system": row.system or "", "note": note}
            lines.append({**line, **numbers(cell)})
    for delta in result.deltas:
        for name, (text, check) in delta.printed.items():
            line = {"row": delta.label, "metric": name, "note": delta.note}
            flagged = f"{delta.note}; {check}" if check else delta.note
            lines.append({**line, "kind": PRINTED, "paper": text or "", "note": flagged})
            lines.append({**line, "kind": DIFFERENCE, **numbers(delta.difference[name])})
            lines.append({**line, "kind": RELATIVE, **numbers(delta.relative[name])})
    columns = ["table", "row", "kind", "metric", "paper", "reproduced", "n", "system", "low", "high", "p", "note"]
    return pd.DataFrame(lines).assign(table=result.id).reindex(columns=columns).fillna("")


def _number(value: float | None, missing: str, sign: bool = False) -> str:
    """``value`` to two decimals, ``missing`` for None."""
    if value is None:
        return missing
    if math.isnan(value):
        return UNDEFINED
    value = round(value, 2) + 0.0  # no minus zero
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _headings(result: TableResult) -> list[str]:
    return [f"{name} {METRICS[name].arrow}" for name in result.metrics]


def _count(n: int | None) -> str:
    return NOT_RUN if n is None else str(n)


def to_markdown(result: TableResult) -> str:
    """The table for GitHub and notebooks: "reproduced (paper)" in each cell, the deltas below."""

    def shown(cell: Cell, sign: bool = False) -> str:
        value = _number(cell.reproduced, NOT_RUN, sign)
        value = f"**{value}**" if cell.best else value
        half = "" if math.isnan(cell.half) else f" ± {cell.half:.2f}"
        return f"{value}{half}{NOISE if cell.noise else ''} ({_number(cell.paper, NO_PAPER_VALUE, sign)})"

    headings = _headings(result)
    spread = any(not math.isnan(cell.half) for row in result.rows for cell in row.cells.values())
    head = f"{result.caption[0]} Each cell: reproduced{' ± half-width' if spread else ''} (paper)."
    values = pd.DataFrame(
        [[_count(row.n), *map(shown, row.cells.values())] for row in result.rows],
        index=[escape_markdown(row.title) for row in result.rows],
        columns=["n", *headings],
    )
    parts = [f"**Table {result.id}.** {escape_markdown(head)}", markdown_table(values)]
    parts += map(escape_markdown, result.caption[1:])
    if result.deltas:
        lines = {}
        for delta in result.deltas:
            printed = [f"{text or NO_PAPER_VALUE}{MARKS[check]}" for text, check in delta.printed.values()]
            name = escape_markdown(f"Δ {delta.label}: {delta.note}")
            lines[name, f"paper, {PRINTED}"] = printed
            lines[name, DIFFERENCE] = [shown(cell, sign=True) for cell in delta.difference.values()]
            lines[name, RELATIVE] = [shown(cell, sign=True) for cell in delta.relative.values()]
        names = [name if kind.endswith(PRINTED) else "" for name, kind in lines]
        texts = [[kind, *cells] for (_, kind), cells in lines.items()]
        parts.append(markdown_table(pd.DataFrame(texts, index=names, columns=["", *headings])))
    return "\n\n".join(parts) + "\n"


def to_latex(result: TableResult) -> str:
    """The table as a float: per metric a reproduced and a paper column.

    Needs ``\\usepackage{booktabs,multirow}`` and a document with two-column floats (``table*``).
    """

    def number(text: str) -> str:
        return ("$-$" + escape_latex(text[1:])) if text.startswith("-") else escape_latex(text)

    def pairs(cells: Iterable[Cell], sign: bool = False) -> list[str]:
        texts = []
        for cell in cells:
            value = number(_number(cell.reproduced, NOT_RUN, sign))
            value = rf"\textbf{{{value}}}" if cell.best else value
            half = "" if math.isnan(cell.half) else rf"_{{\pm {cell.half:.2f}}}"
            mark = half + (r"{\approx}" if cell.noise else "")
            texts += [f"{value}${mark}$" if mark else value, number(_number(cell.paper, NO_PAPER_VALUE, sign))]
        return texts

    lines = [(escape_latex(row.title), [_count(row.n), *pairs(row.cells.values())]) for row in result.rows]
    for delta in result.deltas:
        # The name of a delta is longer than its column: it runs over the empty cells beside it.
        name = escape_latex(f"Δ {delta.label}: {delta.note}")
        printed = [
            number(text or NO_PAPER_VALUE) + escape_latex(MARKS[check]) for text, check in delta.printed.values()
        ]
        lines += [
            (rf"\midrule \rlap{{{name}}}", [""] * (1 + 2 * len(result.metrics))),
            (rf"\quad {PRINTED}", ["", *(part for text in printed for part in ("", text))]),
            (rf"\quad {DIFFERENCE}", ["", *pairs(delta.difference.values(), sign=True)]),
            (rf"\quad {escape_latex(RELATIVE)}", ["", *pairs(delta.relative.values(), sign=True)]),
        ]
    headings = [(escape_latex(heading), side) for heading in _headings(result) for side in ("repr.", "paper")]
    columns = pd.MultiIndex.from_tuples([("", "$n$"), *headings])
    frame = pd.DataFrame([texts for _, texts in lines], index=[name for name, _ in lines], columns=columns)
    head, *notes = result.caption
    return latex_table(frame, " ".join([head, "repr.: reproduced.", *notes]), result.id)
