"""Read predictions as others publish them: one reader for ``lmolt score``, ``nli`` and ``atoms``.

What a file is, its content says, and its name only where the content does not:

- JSON lines or an array of JSON objects, such as this companion's
  `{"id": ..., "task": ..., "reference": ..., "raw": ..., "prediction": ...}`;
- MolT5's and L+M-24's tables: tab-separated, header `SMILES / ground truth / output` (then it holds captions) or
  `description / ground truth / output` (molecules);
- a table with a header of our names, separated by tabs, commas or semicolons;
- L+M-24's submissions: one output per line, with or without a header; the references come from a second file.

Any of them may be gzipped or the one file of a zip. In a table with commas or semicolons quotes are CSV's. With tabs
they are characters of the answer (MolT5's files need that), unless the file is written the way pandas writes one.
Nothing is trimmed. What was decided about a file stands in `frame.attrs["notes"]`; what cannot be decided is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from lmolt_utils.featurise import parse_smiles
from lmolt_utils.files import BadFileError
from lmolt_utils.rows import ALIASES

#: Bytes of an unpacked file: predictions for ten times L+M-24's test set stay below.
MAX_BYTES = 512 << 20

#: What the columns may be called; case, spaces around and underscores do not matter.
_NAMES = {
    "id": ("id", "cid"),
    "task": ("task",),
    "source": ("source",),
    "reference": ("reference", "references", "ground truth"),
    "raw": ("raw",),
    "prediction": ("prediction", "predictions", "output", "outputs"),
}
_OF_TASK = {
    task: tuple(name.replace("_", " ") for name in ALIASES[column])
    for task, column in {"mol2cap": "caption", "cap2mol": "molecule"}.items()
}
_KNOWN = {name for names in (*_NAMES.values(), *_OF_TASK.values()) for name in names}
#: The first column of MolT5's tables says what the others hold.
_TASK_BY_SOURCE = {"smiles": "mol2cap", "description": "cap2mol"}
_ABSENT = object()  # a field that a JSON object lacks; null is a missing answer


@dataclass
class _Table:
    """header: names as written, or None for a file of lines. rows: cells; places: the line or row each came from."""

    path: Path
    header: list[str] | None
    rows: list[list[Any]]
    places: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [" ".join(str(name).lower().replace("_", " ").split()) for name in self.header or ()]

    @property
    def told(self) -> str:
        return ", ".join(map(str, self.header or ()))

    def column(self, wanted: Sequence[str], *, null: bool = False) -> list[Any] | None:
        """The cells of the one column called so, all of them text; None: there is no such column."""
        cells = self._cells(wanted)
        for place, cell in zip(self.places, cells, strict=True) if cells else ():
            if not isinstance(cell, str) and not (null and cell is None):
                got = "missing" if cell is _ABSENT else "null" if cell is None else f"{cell!r:.40}"
                raise BadFileError(f"{self.path} {place}: {wanted[0]!r} is {got}; text is needed")
        return cells

    def _cells(self, wanted: Sequence[str]) -> list[Any] | None:
        found = [place for place, name in enumerate(self.names) if name in wanted]
        if len(found) > 1:
            told = ", ".join(repr((self.header or [])[place]) for place in found)
            raise BadFileError(f"{self.path} has {len(found)} columns for the same thing ({told}): keep one of them")
        return [row[found[0]] for row in self.rows] if found else None

    def ids(self) -> list[Any] | None:
        """Text or whole numbers, each once; None: the file has none."""
        cells = self._cells(_NAMES["id"])
        seen: dict[str, str] = {}
        for place, cell in zip(self.places, cells, strict=True) if cells else ():
            if isinstance(cell, bool) or not isinstance(cell, (str, int)) or cell == "":
                got = "missing" if cell is _ABSENT else repr(cell)
                raise BadFileError(f"{self.path} {place}: the id is {got:.40}; text or a whole number is needed")
            if first := seen.get(str(cell)):
                raise BadFileError(f"{self.path} {place}: id {cell!r} is also in {first}; each id may stand once")
            seen[str(cell)] = place
        return cells


def read_predictions(path: str | Path, *, task: str | None = None, reference: str | Path | None = None) -> pd.DataFrame:
    """The predictions of one system: a frame with id, source, reference and prediction, and `task` and `raw`
    where the file has them. Rows without an id are numbered from 0; `-` is standard input.

    reference: a file with the references; it also replaces those the predictions come with. Rows are matched by id
    where both files have ids, else one by one. Its column is `reference`, `ground truth`, or the task's own name
    (`description`, `SMILES`); a file of one column without header works too.

    Raises BadFileError for a file that is missing, is none of the formats, or whose rows do not match the
    references': the first bad place is named.
    """
    table = _read(Path(path))
    ids = table.ids()
    columns = {name: table.column(_NAMES[name], null=name != "task") for name in ("task", "source", "raw")}
    predictions = table.column(_NAMES["prediction"], null=True)
    if predictions is None:
        predictions = columns["raw"] if table.header is not None and len(table.header) > 1 else _only_column(table)
    if predictions is None:
        raise BadFileError(
            f"{table.path} has the columns {table.told}; a table of predictions has SMILES or description, ground "
            "truth, output; or prediction (or raw), and reference or a second file with it"
        )
    if columns["task"] is None:
        told = _task_by_header(table)
        columns["task"] = [told or task] * len(predictions) if told or task else None
        if told and columns["source"] is None:
            columns["source"] = table.column([name for name, of in _TASK_BY_SOURCE.items() if of == told])
    columns["source"] = columns["source"] or [""] * len(predictions)
    references = table.column(_NAMES["reference"])
    if reference is not None:
        told = columns["task"][0] if columns["task"] else None
        references = _partners(table, ids, predictions, _read(Path(reference)), told, given=references is not None)
    elif references is None:
        raise BadFileError(
            f"{table.path} holds outputs only ({len(predictions)} lines): name the file with their references "
            "(--reference FILE), or call their column 'reference'"
        )
    lookalikes = sum(text in ("nan", "NaN", "None", "null") for text in predictions)
    if lookalikes:
        table.notes.append(f"{lookalikes} predictions read 'nan', 'None' or 'null': taken as text, not as missing")
    frame = pd.DataFrame(
        {"id": range(len(predictions)) if ids is None else ids, "reference": references, "prediction": predictions}
        | {name: cells for name, cells in columns.items() if cells is not None},
        dtype=object,
    )
    frame.attrs["notes"] = table.notes
    return frame


def read_captions(path: str | Path) -> tuple[list[str], list[str]]:
    """The captions of a file, and notes: its lines, or its column of predictions, or else of captions.

    Raises BadFileError as :func:`read_predictions` does.
    """
    table = _read(Path(path))
    for names in (_NAMES["prediction"], _NAMES["raw"], _OF_TASK["mol2cap"]):
        if (cells := table.column(names, null=True)) is not None:
            return [cell or "" for cell in cells], table.notes
    if (cells := _only_column(table)) is not None:
        return cells, table.notes
    raise BadFileError(f"{table.path} has the columns {table.told}: call that of the captions 'caption'")


def _only_column(table: _Table) -> list[Any] | None:
    """The cells of a file of lines, or of one column under a known name."""
    if table.header is None:
        return [row[0] for row in table.rows]
    known = _KNOWN.difference(*(_NAMES[name] for name in ("id", "task", "source")))
    return table.column(table.names, null=True) if len(table.names) == 1 and table.names[0] in known else None


def _task_by_header(table: _Table) -> str | None:
    told = [task for name, task in _TASK_BY_SOURCE.items() if name in table.names]
    return told[0] if len(told) == 1 and {"ground truth", "output"} <= set(table.names) else None


# -------------------------------------------------------------------------------------------- references


def _partners(
    table: _Table,
    ids: Sequence[Any] | None,
    predictions: Sequence[Any],
    other: _Table,
    task: str | None,
    *,
    given: bool,
) -> list[str]:
    """The references in the order of the predictions."""
    references, theirs = _references(other, task), other.ids()
    table.notes += [f"references: {note}" for note in other.notes]
    if given:
        table.notes.append(f"references are {other.path}'s; the file's own are not used")
    if ids is None or theirs is None:
        if len(references) != len(predictions):
            plain = table.header is None or other.header is None
            hint = ". Is a first line a header? Call it 'prediction' or 'reference'" if plain else ""
            raise BadFileError(
                f"{table.path} has {len(predictions)} predictions and {other.path} {len(references)} references: the "
                f"first without a partner is line {min(len(predictions), len(references)) + 1} of the longer one{hint}"
            )
        if ids is not None or theirs is not None:
            table.notes.append("rows are paired in the order of the files: only one of them has ids")
        return references
    by_id = {str(name): text for name, text in zip(theirs, references, strict=True)}
    ours = [str(name) for name in ids]
    for place, name in zip(table.places, ours, strict=True):
        if name not in by_id:
            raise BadFileError(f"{table.path} {place}: id {name!r} is not in {other.path}")
    wanted = set(ours)
    if left := [name for name in by_id if name not in wanted]:
        raise BadFileError(
            f"{other.path} has {len(left)} ids without a prediction in {table.path}; the first is {left[0]!r}"
        )
    return [by_id[name] for name in ours]


def _references(other: _Table, task: str | None) -> list[str]:
    cells = other.column(_NAMES["reference"])
    if cells is None and task in _OF_TASK:
        cells = other.column(_OF_TASK[task])
    if cells is None and (cells := _only_column(other)) is not None:
        if other.header is None:
            _refuse_header(other, cells[0], task)
        elif None in cells:
            raise BadFileError(f"{other.path} {other.places[cells.index(None)]}: the reference is null; text is needed")
    if cells is None:
        wanted = (*_NAMES["reference"], *_OF_TASK.get(task or "", ()))
        hint = "" if task else " (say which task it is: --task)"
        raise BadFileError(
            f"{other.path} has no column with references ({' or '.join(wanted)}; it has {other.told}){hint}"
        )
    return cells


def _refuse_header(other: _Table, first: str, task: str | None) -> None:
    """One word above the references that is none: scored as a row, a header is a silent error."""
    word = re.fullmatch(r"[A-Za-z_][\w -]*", first) if task == "cap2mol" else re.fullmatch(r"\w+", first)
    if word and len(other.rows) > 1 and (task != "cap2mol" or parse_smiles(first) is None):
        raise BadFileError(
            f"{other.path} line 1 ({first!r}) is no {'molecule' if task == 'cap2mol' else 'caption'} but looks like a "
            "header: call it 'reference'. If it is a reference, put a line 'reference' above it"
        )


# --------------------------------------------------------------------------------------------- formats


def _read(path: Path) -> _Table:
    if str(path) == "-":
        path = Path("/dev/stdin")
    data, name = _unpacked(path)
    text = _decoded(data, path)
    if not text:
        raise BadFileError(f"{path} is empty")
    ending = PurePath(name.lower().removesuffix(".gz")).suffix
    if ending in (".json", ".jsonl", ".ndjson") or re.match(r"\s*(\{|\[\s*\{)", text):
        return _json(path, text)
    told = re.match(r'"?sep=(.)"?\r?\n', text)  # Excel's own first line
    skipped = 1 if told else 0
    if told:
        text = text[told.end() :]
    first = text.split("\n", 1)[0].removesuffix("\r")
    separator = told[1] if told else _separator(first, ending)
    if separator in (",", ";"):
        return _separated(path, text, separator, skipped)
    if separator == "\t":
        return _tabbed(path, text, skipped)
    if separator is not None:
        raise BadFileError(f"{path} is separated by {separator!r}: tabs, commas and semicolons are read")
    lines = _lines(path, text, skipped)
    places = [f"line {number}" for number in range(1, len(lines) + 1)]
    if _named(lines[0]):
        return _Table(
            path, [lines[0]], [[line] for line in lines[1:]], places[1:], [f"line 1 ({lines[0]!r}) is a header"]
        )
    return _Table(path, None, [[line] for line in lines], places)


def _unpacked(path: Path) -> tuple[bytes, str]:
    """The bytes of a file, of a gzipped one, or of the one file in a zip; and the name that tells the format."""
    name = path.name
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
        for _ in range(2):  # a gzipped file in a zip
            if data[:2] == b"\x1f\x8b":
                with gzip.open(io.BytesIO(data)) as packed:
                    data = packed.read(MAX_BYTES + 1)
            elif data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    name = _only_member(path, archive)
                    with archive.open(name) as member:
                        data = member.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadFileError(f"{path} is missing: give the path of a predictions file") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError, RuntimeError) as error:
        # RuntimeError: a zip with a password, or packed in a way that Python does not know.
        raise BadFileError(f"{path} cannot be read ({error}): fetch it again, or unpack it") from None
    if data[:2] in (b"\x1f\x8b", b"PK"):
        raise BadFileError(f"{path} is packed more than twice: unpack it")
    if len(data) > MAX_BYTES:
        raise BadFileError(f"{path} has more than {MAX_BYTES >> 20} MB unpacked: this is no file of predictions")
    return data, name


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    ]
    if len(names) != 1:
        raise BadFileError(f"{path} holds {len(names)} files ({', '.join(names[:5])}): unpack it and name one of them")
    return names[0]


def _decoded(data: bytes, path: Path) -> str:
    try:
        text = data.decode("utf-8-sig")
        problem = "it holds NUL characters" if "\0" in text else ""
    except UnicodeDecodeError as error:
        before = data[: error.start].count(b"\n")
        problem = f"line {before + 1}: {error}"
    if problem:
        kind = "it is Parquet" if data[:4] == b"PAR1" else "it looks like UTF-16" if b"\0" in data[:64] else problem
        raise BadFileError(f"{path} is not UTF-8 text ({kind}): save it as UTF-8 text, CSV or JSON lines")
    return text


def _lines(path: Path, text: str, skipped: int) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    for number, line in enumerate(lines, start=1 + skipped):
        if "\r" in line:
            raise BadFileError(
                f"{path} line {number} has a carriage return inside: save the file with line feeds as line ends"
            )
    return lines


def _named(cell: str) -> bool:
    return " ".join(cell.lower().replace("_", " ").split()) in _KNOWN


def _separator(first: str, ending: str) -> str | None:
    """What separates the cells; None: a file of lines. A header of known names says it, else a tab or the ending."""
    for separator in ("\t", ",", ";"):
        cells = [cell.strip().strip('"') for cell in first.split(separator)]
        if len(cells) > 1 and any(map(_named, cells)) and all(len(cell) <= 40 for cell in cells):
            return separator
    return "\t" if "\t" in first else "," if ending == ".csv" else None


def _separated(path: Path, text: str, separator: str, skipped: int) -> _Table:
    """A table by CSV's rules: a quoted cell may hold separators, doubled quotes and line breaks."""
    csv.field_size_limit(MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    places: list[str] = []
    start = 1 + skipped
    try:
        for row in reader:
            rows.append(row)
            places.append(f"line {start}")
            start = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise BadFileError(
            f"{path} line {start}: {error}. A cell with a quote, a separator or a line break stands in quotes, and a "
            "quote inside is doubled; is one of them stray?"
        ) from None
    table = _checked(path, rows, places)
    broken = [place for row, place in zip(table.rows, table.places, strict=True) if any("\n" in cell for cell in row)]
    if broken:
        table.notes.append(f"{len(broken)} rows have a cell of several lines, the first in {broken[0]}")
    return table


def _tabbed(path: Path, text: str, skipped: int) -> _Table:
    """A table with tabs. Quotes are characters, unless the file reads as pandas writes."""
    if '"' in text and _as_pandas_writes(text):
        table = _separated(path, text, "\t", skipped)
        table.notes.append("cells in quotes are read as pandas writes them: without the quotes")
        return table
    lines = _lines(path, text, skipped)
    places = [f"line {number}" for number in range(1 + skipped, len(lines) + 1 + skipped)]
    table = _checked(path, [line.split("\t") if line else [] for line in lines], places)
    quoted = sum(len(cell) > 1 and cell[0] == cell[-1] == '"' for row in table.rows for cell in row)
    if quoted:
        table.notes.append(f"{quoted} cells begin and end with a quote; it is read as part of the text")
    return table


def _as_pandas_writes(text: str) -> bool:
    """Whether reading by CSV's rules and writing again gives the same text, or every name in the header is quoted."""
    first = text.split("\n", 1)[0].removesuffix("\r")
    if all(len(cell) > 2 and cell[0] == cell[-1] == '"' for cell in first.split("\t")):
        return True
    csv.field_size_limit(MAX_BYTES)
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter="\t", lineterminator="\r\n" if text[len(first) :][:1] == "\r" else "\n")
    try:
        writer.writerows(csv.reader(io.StringIO(text, newline="\n"), delimiter="\t", strict=True))
    except csv.Error:
        return False
    return written.getvalue().rstrip("\r\n") == text.rstrip("\r\n")


def _checked(path: Path, rows: list[list[str]], places: list[str]) -> _Table:
    """A table with a header, every row as many cells as that; blank lines are no rows."""
    header, body = rows[0], list(zip(rows[1:], places[1:], strict=True))
    if len(header) == 1:  # an empty line is an empty answer
        body = [(row or [""], place) for row, place in body]
    for row, place in body:
        if row and len(row) != len(header):
            raise BadFileError(
                f"{path} {place} has {len(row)} cells where the header has {len(header)} ({', '.join(header)}): a "
                "separator or a line break inside an answer must be escaped (tabs) or the answer quoted (commas)"
            )
    kept = [(row, place) for row, place in body if row]
    return _Table(path, header, [row for row, _ in kept], [place for _, place in kept])


def _json(path: Path, text: str) -> _Table:
    """An array of objects, or one object per line."""
    if text.lstrip().startswith("["):
        records = _parsed(path, text, "as a whole")
        places = [f"row {number}" for number in range(1, len(records) + 1)]
    else:
        numbered = [(line, f"line {n}") for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        places = [place for _, place in numbered]
        records = [_parsed(path, line, place) for line, place in numbered]
    for record, place in zip(records, places, strict=True):
        if not isinstance(record, dict):
            raise BadFileError(f"{path} {place} is no JSON object but {type(record).__name__}")
    header = list(dict.fromkeys(name for record in records for name in record))
    if not header:
        raise BadFileError(f"{path} has no rows")
    return _Table(path, header, [[record.get(name, _ABSENT) for name in header] for record in records], places)


def _parsed(path: Path, text: str, place: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a name stands twice in one object")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadFileError(
            f"{path} {place} is not JSON ({error}); an array of objects or one object per line is needed"
        ) from None
