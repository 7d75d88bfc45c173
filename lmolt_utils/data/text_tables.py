"""The one reader of tables as text: predictions, references, corpora. What a file is, its content says before its name.

JSON lines or an array of JSON objects; a header of known names with tabs, commas or semicolons; or one text per line.
Any of them may be gzipped, or lie in a zip. With commas and semicolons quotes are CSV's. With tabs they are
characters of the text, as in MolT5's and L+M-24's files.
"""

import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from lmolt_utils.files import BadFileError

#: Bytes of an unpacked file: L+M-24's train-extra, 802,800 rows, stays below.
MAX_BYTES = 1 << 30
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
ABSENT = object()  # a field that a JSON object lacks; null is a missing answer
#: A bad row: its line (or row) number, what is wrong, and the details.
Bad = tuple[int, str, str]


def plain(name: object) -> str:
    """A column's name as names are compared: case, spaces around and underscores do not matter."""
    return " ".join(str(name).lower().replace("_", " ").split())


@dataclass
class Table:
    """header: names as written, or None for a file of lines. rows: cells; numbers: the line (``unit``) of each row."""

    path: Path
    header: list[str] | None
    rows: list[list[Any]]
    numbers: list[int]
    unit: str = "line"
    notes: list[str] = field(default_factory=list)

    @property
    def places(self) -> list[str]:
        """Where each row stands, for messages."""
        return [f"{self.unit} {number}" for number in self.numbers]

    @property
    def names(self) -> list[str]:
        """The header, to compare with."""
        return [plain(name) for name in self.header or ()]

    @property
    def told(self) -> str:
        """The header, for messages."""
        return f"{', '.join(map(str, self.header or ())):.500}"

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


def read_table(
    path: Path, known: Collection[str], *, member: re.Pattern[str] | None = None, bad: list[Bad] | None = None
) -> Table:
    """Read a file of any of the formats; ``-`` is standard input. known: names that make a first line a header.

    member: the file of a zip that is meant; without it the zip must hold a single one. bad: where bad rows are listed;
    without it the first one stops the reading, as any file that is missing, damaged, too large or no text.
    """
    if str(path) == "-":
        path = Path("/dev/stdin")
    data, name = unpacked(path, member)
    reader, text = _Reader(path, bad), _decoded(path, data)
    if not text:
        raise BadFileError(f"{path} is empty")
    ending = PurePath(name.lower().removesuffix(".gz")).suffix
    if ending in (".json", ".jsonl", ".ndjson") or re.match(r"\s*(\{|\[\s*\{)", text):
        return reader.objects(text)
    first = text.split("\n", 1)[0].removesuffix("\r")
    separator = _separator_of(first, ending, known)
    if separator is not None:
        return reader.separated(text, separator)
    lines = reader.lines(text)
    numbers = list(range(1, len(lines) + 1))
    if plain(lines[0]) in known:
        note = f"line 1 ({lines[0]!r}) is a header"
        return Table(path, [lines[0]], [[line] for line in lines[1:]], numbers[1:], notes=[note])
    return Table(path, None, [[line] for line in lines], numbers)


def unpacked(path: Path, member: re.Pattern[str] | None = None) -> tuple[bytes, str]:
    """The bytes of a file, of a gzipped one, or of one in a zip; and the name that tells the format.

    Raises FileNotFoundError where a zip has no ``member``, BadFileError as :func:`read_table`.
    """
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
                    name = _member(path, archive, member)
                    with archive.open(name) as inner:
                        data = inner.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if path.exists():
            raise
        raise BadFileError(f"{path} is missing: give the path of the file") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError, RuntimeError, ValueError) as error:
        # RuntimeError: a zip with a password, or packed in a way that Python does not know; ValueError: wrong places.
        damaged = not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile)
        raise BadFileError(f"{path} cannot be read ({error}){': fetch it again, or unpack it' * damaged}") from None
    if data.startswith((_GZIP, *_ZIP)):
        raise BadFileError(f"{path} is packed more than twice: unpack it")
    if len(data) > MAX_BYTES:
        raise BadFileError(f"{path} has more than {MAX_BYTES >> 20} MB unpacked: split it")
    return data, name


def _member(path: Path, archive: zipfile.ZipFile, wanted: re.Pattern[str] | None) -> str:
    hidden = re.compile(r"(^|/)(\.|__MACOSX)|/$")
    names = [name for name in archive.namelist() if not hidden.search(name)]
    if wanted:
        matching = [name for name in names if wanted.search(name)]
        if not matching:
            raise FileNotFoundError(f"{path} holds no file like {wanted.pattern}; it has {', '.join(names)}")
        return matching[0]
    if len(names) != 1:
        raise BadFileError(f"{path} holds {len(names)} files ({', '.join(names[:5])}): unpack it and name one of them")
    return names[0]


def _separator_of(first: str, ending: str, known: Collection[str]) -> str | None:
    """What separates the cells; None: a file of lines. A header of known names says it, else a tab or the ending."""
    for separator in ("\t", ",", ";"):
        cells = [cell.strip().strip('"') for cell in first.split(separator)]
        if len(cells) > 1 and any(plain(cell) in known for cell in cells) and all(len(cell) <= 40 for cell in cells):
            return separator
    return "\t" if "\t" in first else "," if ending == ".csv" else None


@dataclass
class _Reader:
    """Reads one file's text; a bad row is listed in ``bad``, or, without it, stops the reading."""

    path: Path
    bad: list[Bad] | None
    unit: str = "line"

    def reject(self, number: int, reason: str, detail: str, remedy: str) -> None:
        if self.bad is None:
            raise BadFileError(f"{self.path} {self.unit} {number}: {reason} ({detail}): {remedy}")
        self.bad.append((number, reason, detail))

    def lines(self, text: str) -> list[str]:
        """The lines of a text without their ends; a carriage return inside one stops the reading."""
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        for number, line in enumerate(lines, start=1) if self.bad is None else ():  # of a corpus it costs the row
            if "\r" in line:
                remedy = "save the file with line feeds as line ends"
                self.reject(number, "it has a carriage return inside", ascii(line)[:60], remedy)
        return lines

    # ---- separated cells ----

    def separated(self, text: str, separator: str) -> Table:
        """A table with a header; every row has as many cells as that, and blank lines are no rows."""
        quoted = separator != "\t"
        records = self._quoted(text, separator)
        if not quoted:
            records = ((n, line.split("\t") if line else []) for n, line in enumerate(self.lines(text), start=1))
        _, header = next(records, (1, []))
        table = Table(self.path, header, [], [])
        for number, row in records:
            cells = row or [""] * (len(header) == 1)
            if len(cells) == len(header):
                table.rows.append(cells)
                table.numbers.append(number)
            elif cells:
                remedy = "a comma inside one needs quotes" if quoted else "a tab inside an answer must be escaped"
                self.reject(number, "wrong number of cells", f"{len(cells)} instead of {len(header)}", remedy)
        literal = sum(len(cell) > 1 and cell[0] == cell[-1] == '"' for row in table.rows for cell in row)
        if literal and not quoted:
            table.notes.append(f"{literal} cells begin and end with a quote; it is read as part of the text")
        several = [n for n, row in zip(table.numbers, table.rows, strict=True) if any("\n" in cell for cell in row)]
        if several:
            table.notes.append(f"{len(several)} rows have a cell of several lines, the first in line {several[0]}")
        return table

    def _quoted(self, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Records by CSV's rules; a stray quote may hide any number of rows, so it stops the reading."""
        csv.field_size_limit(MAX_BYTES)
        records = csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True)
        number = 1
        try:
            for row in records:
                yield number, row
                number = records.line_num + 1
        except csv.Error as error:
            remedy = "a cell with a quote, a separator or a line break stands in quotes, and a quote is doubled"
            raise BadFileError(f"{self.path} line {number}: unbalanced quotes ({error}): {remedy}") from None

    # ---- JSON ----

    def objects(self, text: str) -> Table:
        """An array of objects, or one object per line; the columns are those of all of them."""
        array = text.lstrip().startswith("[")
        self.unit, needed = "row" if array else "line", "a JSON array of objects, or one object per line, is needed"
        try:
            records = json.loads(text) if array else text.split("\n")
        except (ValueError, RecursionError) as error:
            raise BadFileError(f"{self.path} is not JSON ({error}): {needed}") from None
        kept: dict[int, dict[str, Any]] = {}
        for number, record in enumerate(records, start=1):
            try:
                if array or record.strip():
                    kept[number] = record if array else json.loads(record)
                    if not isinstance(kept[number], dict):
                        raise ValueError(f"no object but {type(kept.pop(number)).__name__}")
            except (ValueError, RecursionError) as error:
                self.reject(number, "not JSON", str(error), needed)
        header = list(dict.fromkeys(name for record in kept.values() for name in record))
        if not header:
            raise BadFileError(f"{self.path} has no rows: {needed}")
        rows = [[record.get(name, ABSENT) for name in header] for record in kept.values()]
        return Table(self.path, header, rows, list(kept), self.unit)


def _decoded(path: Path, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
        if "\0" not in text:
            return text
        problem = "it holds NUL characters"
    except UnicodeDecodeError as error:
        problem = "line {}: {}".format(1 + data.count(b"\n", 0, error.start), error)
    kind = "it is Parquet" if data[:4] == b"PAR1" else "it looks like UTF-16" if b"\0" in data[:64] else problem
    raise BadFileError(f"{path} is not UTF-8 text ({kind}): save it as UTF-8 text, CSV or JSON lines")
