"""Tables as text: what a file is, told by its content, and by its name only where the content does not say it.

JSON lines or an array of JSON objects; a header of known names with tabs, commas or semicolons; or one text per line.
Any of them may be gzipped, or the one file of a zip. With commas and semicolons quotes are CSV's. With tabs they are
characters of the text (MolT5's files need that), unless the file is written the way pandas writes one.
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
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from lmolt_utils.errors import DataError
from lmolt_utils.files import BadFileError

#: Bytes of an unpacked file: predictions for ten times L+M-24's test set stay below.
MAX_BYTES = 512 << 20
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
#: What the columns are called elsewhere, in order of preference; case does not matter.
ALIASES: dict[str, tuple[str, ...]] = {
    "molecule": ("molecule", "smiles", "canonical_smiles"),
    "caption": ("caption", "description", "text"),
    "properties": ("properties", "props"),
    "id": ("id", "cid"),
    "split": ("split",),
}
ABSENT = object()  # a field that a JSON object lacks; null is a missing answer


def plain(name: object) -> str:
    """A column's name as names are compared: case, spaces around and underscores do not matter."""
    return " ".join(str(name).lower().replace("_", " ").split())


@dataclass
class Table:
    """header: names as written, or None for a file of lines. rows: cells; places: the line or row each came from."""

    path: Path
    header: list[str] | None
    rows: list[list[Any]]
    places: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The header, to compare with."""
        return [plain(name) for name in self.header or ()]

    @property
    def told(self) -> str:
        """The header, for messages."""
        return ", ".join(map(str, self.header or ()))

    def column(self, wanted: Sequence[str], *, null: bool = False) -> list[Any] | None:
        """The cells of the one column called so, all of them text; None: there is no such column."""
        cells = self.cells(wanted)
        for place, cell in zip(self.places, cells, strict=True) if cells else ():
            if not isinstance(cell, str) and not (null and cell is None):
                got = "missing" if cell is ABSENT else "null" if cell is None else f"{cell!r:.40}"
                raise BadFileError(f"{self.path} {place}: {wanted[0]!r} is {got}; text is needed")
        return cells

    def cells(self, wanted: Sequence[str]) -> list[Any] | None:
        """The same, whatever they hold."""
        found = [place for place, name in enumerate(self.names) if name in wanted]
        if len(found) > 1:
            told = ", ".join(repr((self.header or [])[place]) for place in found)
            raise BadFileError(f"{self.path} has {len(found)} columns for the same thing ({told}): keep one of them")
        return [row[found[0]] for row in self.rows] if found else None


def read_table(path: Path, known: Collection[str]) -> Table:
    """Read a file of any of the formats; ``-`` is standard input. known: names that make a first line a header.

    Raises BadFileError for a file that is missing, damaged, too large, no text, or whose rows do not fit its header.
    """
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
        text = text[told.end() :] or "\n"
    first = text.split("\n", 1)[0].removesuffix("\r")
    separator = told[1] if told else separator_of(first, ending, known)
    if separator in (",", ";"):
        return _separated(path, text, separator, skipped)
    if separator == "\t":
        return _tabbed(path, text, skipped)
    if separator is not None:
        raise BadFileError(f"{path} is separated by {separator!r}: tabs, commas and semicolons are read")
    lines = _lines(path, text, skipped)
    places = [f"line {number}" for number in range(1, len(lines) + 1)]
    if plain(lines[0]) in known:
        return Table(
            path, [lines[0]], [[line] for line in lines[1:]], places[1:], [f"line 1 ({lines[0]!r}) is a header"]
        )
    return Table(path, None, [[line] for line in lines], places)


def _unpacked(path: Path) -> tuple[bytes, str]:
    """The bytes of a file, of a gzipped one, or of the one file in a zip; and the name that tells the format."""
    name = path.name
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
        for _ in range(2):  # a gzipped file in a zip
            if data.startswith(_GZIP):
                with gzip.open(io.BytesIO(data)) as packed:
                    data = packed.read(MAX_BYTES + 1)
            elif data.startswith(_ZIP):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    name = _only_member(path, archive)
                    with archive.open(name) as member:
                        data = member.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadFileError(f"{path} is missing: give the path of a predictions file") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError, RuntimeError) as error:
        # RuntimeError: a zip with a password, or packed in a way that Python does not know.
        plain_error = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
        hint = "" if plain_error else ": fetch it again, or unpack it"
        raise BadFileError(f"{path} cannot be read ({error}){hint}") from None
    if data.startswith((_GZIP, *_ZIP)):
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


def separator_of(first: str, ending: str, known: Collection[str]) -> str | None:
    """What separates the cells; None: a file of lines. A header of known names says it, else a tab or the ending."""
    for separator in ("\t", ",", ";"):
        cells = [cell.strip().strip('"') for cell in first.split(separator)]
        if len(cells) > 1 and any(plain(cell) in known for cell in cells) and all(len(cell) <= 40 for cell in cells):
            return separator
    return "\t" if "\t" in first else "," if ending == ".csv" else None


def _separated(path: Path, text: str, separator: str, skipped: int) -> Table:
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


def _tabbed(path: Path, text: str, skipped: int) -> Table:
    """A table with tabs. Quotes are characters, unless the file reads as pandas writes."""
    if as_pandas_writes(text):
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


def as_pandas_writes(text: str) -> bool:
    """Whether reading by CSV's rules and writing again gives the same text, or every name in the header is quoted.

    A quoted cell that covers whole rows does not count: two stray quotes would read and write alike.
    """
    first = text.split("\n", 1)[0]
    end = "\r\n" if first.endswith("\r") else "\n"
    names = first.removesuffix("\r").split("\t")
    if '"' not in text or all(len(cell) > 2 and cell[0] == cell[-1] == '"' for cell in names):
        return '"' in text
    csv.field_size_limit(MAX_BYTES)
    written = _Same(text.rstrip("\r\n") + end)
    writer = csv.writer(written, delimiter="\t", lineterminator=end)
    try:
        lines = (line[0] for line in re.finditer(r"[^\n]*\n", written.text))
        for row in csv.reader(lines, delimiter="\t", strict=True):
            writer.writerow(row)
            if any("\n" in cell and cell.count("\t") == cell.count("\n") * (len(names) - 1) for cell in row):
                return False
    except csv.Error:
        return False
    return True


class _Same:
    """Takes what is written and stops with ``csv.Error`` where it is not ``text``: nothing is kept twice."""

    def __init__(self, text: str) -> None:
        self.text, self._at = text, 0

    def write(self, part: str) -> None:
        if not self.text.startswith(part, self._at):
            raise csv.Error("another text")
        self._at += len(part)


def _checked(path: Path, rows: list[list[str]], places: list[str]) -> Table:
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
    return Table(path, header, [row for row, _ in kept], [place for _, place in kept])


def _json(path: Path, text: str) -> Table:
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
    return Table(path, header, [[record.get(name, ABSENT) for name in header] for record in records], places)


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


def columns_in(header: Sequence[str], name: str) -> dict[str, str]:
    """This package's column names to the file's; raises :class:`DataError` for a file without the needed ones."""
    known = {called.strip().lower(): called for called in reversed(header)}
    named = {
        column: known[alias]
        for column, aliases in ALIASES.items()
        if (alias := next((a for a in aliases if a in known), None))
    }
    if "molecule" not in named:
        missing = "molecule"
    elif "caption" not in named and "properties" not in named:
        missing = "caption"
    else:
        spelt = [called.strip().lower() for called in header]
        twice = [called for called in named.values() if spelt.count(called.strip().lower()) > 1]
        if twice:
            raise DataError(f"{name} has the column {twice[0]!r} more than once: leave one")
        return named
    raise DataError(
        f"{name} has no column {missing!r} (nor {', '.join(map(repr, ALIASES[missing][1:]))}); "
        f"it has {', '.join(map(str, header)) or 'none'}: rename one"
    )
