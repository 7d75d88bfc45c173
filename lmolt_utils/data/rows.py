"""Rows of molecules and captions, read so that one bad row costs one row: it is listed with its line and reason.

Text files are read line by line: a cell never spans lines, so a stray quote cannot swallow the rows after it; a CSV
record whose quoted cell does span lines is rejected whole. In tab-separated files quotes are ordinary characters, as in
L+M-24's and MolT5's own reader (``QUOTE_NONE``), unless the file is written as pandas writes. What separates cells and
what a column is called: :mod:`lmolt_utils.data.text_tables`; how properties are read:
:mod:`lmolt_utils.grammar.property_cells`.
"""

import csv
import gzip
import json
import re
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmolt_utils.data.molecules import parse
from lmolt_utils.data.text_tables import ALIASES as ALIASES
from lmolt_utils.data.text_tables import as_pandas_writes, columns_in, plain, separator_of
from lmolt_utils.errors import DataError as DataError
from lmolt_utils.grammar.property_cells import MISSING, PropertyCells

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".zip")
REJECTED_COLUMNS = ("file", "line", "reason", "detail")
_READ = {alias for aliases in ALIASES.values() for alias in aliases}
#: Characters. The longest molecule of L+M-24 has 990; RDKit's time grows faster than the length.
MAX_MOLECULE, MAX_CAPTION = 5_000, 50_000
#: Bytes of one unpacked file; train-extra's 802,800 rows are below 1 GB.
MAX_BYTES = 2 << 30
#: Property files without captions, by their names in L+M-24's release; the older one has no header line.
PROPERTY_FILE = re.compile(r"(^|/)(molecule_properties|train_props)[^/]*\.(tsv|txt)(\.gz)?$")
#: The most lines that a quoted CSV cell is looked for on.
_LONGEST_RECORD = 100
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: What a damaged, encrypted (RuntimeError) or foreign (NotImplementedError, a zip's method) file raises.
UNREADABLE = (
    *(OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError),
    *(pa.ArrowException, UnicodeDecodeError),
)


@dataclass
class Rows:
    """What a file holds: ``frame`` (molecule, caption, properties, and line, id, split), ``rejected``, ``notes``.

    ``rejected`` has :data:`REJECTED_COLUMNS`; line numbers count from 1 and include the header (Parquet: row numbers).
    ``notes`` counts oddities that reject nothing, such as lines that end differently from the others.
    """

    frame: pd.DataFrame
    rejected: pd.DataFrame
    notes: dict[str, int]

    @property
    def total(self) -> int:
        """Rows in the file, good and bad."""
        return len(self.frame) + len(self.rejected)


@dataclass
class _Reader:
    """Good rows and bad rows of one file while it is read."""

    name: str
    good: list[dict[str, Any]] = field(default_factory=list)
    bad: list[tuple[str, int, str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    cells: PropertyCells = field(default_factory=PropertyCells)

    def reject(self, line: int, reason: str, detail: str) -> None:
        self.bad.append((self.name, line, reason, detail))


def read_rows_of(path: Path, name: str | None = None, *, check: bool = True) -> Rows:
    """All rows of a CSV, TSV, JSON-lines or Parquet file, or of the property file in a ``.zip``; ``.gz`` is unpacked.

    ``name`` is what the file is called in reports. Rows must have a molecule, and a caption or properties. ``check``
    has RDKit read every molecule once, the slowest part (see :mod:`benchmarks.data`). Raises
    :class:`DataError` when the file as a whole cannot be read or has no such columns.
    """
    reader = _Reader(name or path.name)
    seen: dict[Any, int] = {}
    try:
        for line, record in _records(path, reader):
            problem = _problem(record, seen, line, reader)
            if problem:
                reader.reject(line, *problem)
            else:
                reader.good.append(record | {"line": line})
    except FileNotFoundError:
        raise DataError(f"{path} is missing: check the path in corpus or test_corpus") from None
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged, or not what its name says ({error}): fetch it again") from error
    if doubt := reader.cells.doubt():
        raise DataError(f"{reader.name} {doubt}")
    frame = pd.DataFrame(reader.good, columns=["line", "molecule", "caption", "properties", "id", "split"])
    frame = frame.astype(dict.fromkeys(frame.columns[1:], object))
    if check:
        frame = _readable(frame, reader)
    rejected = pd.DataFrame(reader.bad, columns=list(REJECTED_COLUMNS)).sort_values("line", ignore_index=True)
    doubled = int(frame["molecule"].str.contains(r"\\\\", regex=True).sum()) if len(frame) else 0
    if doubled:
        reader.notes["molecules with doubled backslashes (kept as they are; RDKit reads both)"] = doubled
    return Rows(frame, rejected, dict(reader.notes))


def _problem(record: dict[str, Any], seen: dict[Any, int], line: int, reader: _Reader) -> tuple[str, str] | None:
    """Reason and detail when a row is not usable; otherwise tidies it in place."""
    for column in ("caption", "properties", "id", "split"):
        value = record.get(column)
        if isinstance(value, str) and (value.strip() in MISSING or (column in ("id", "split") and not value.strip())):
            record[column] = None
            if value.strip():
                reader.notes[f"cells of {column} with a missing value written out, such as nan (taken as empty)"] += 1
    properties = record.get("properties")
    if isinstance(properties, (str, list, tuple)):
        try:
            record["properties"] = reader.cells.read(properties, line)
        except ValueError as error:
            return "not a property list", f"{error}: {properties!r:.60}"
    for column in ("molecule", "caption", "properties"):
        if column not in record:
            continue
        value = record[column]
        if value is None or value != value:
            if column == "properties" and "caption" in record:
                record[column] = ""
                continue
            return "empty cell", column
        if isinstance(value, bytes):
            return "not UTF-8", f"{column}: {value[:40]!r}"
        if not isinstance(value, str):
            return "not text", f"{column} is {type(value).__name__}: {value!r:.40}"
        text = value.strip(" ")
        if text != value:
            reader.notes["cells with surrounding spaces (removed)"] += 1
            record[column] = text
        if column == "caption" and len(text) > 1 and text[0] == text[-1] == '"':
            reader.notes["captions that begin and end with a quote (read as part of the text)"] += 1
        if not text and not (column == "properties" and "caption" in record):
            return "empty cell", column
        found = _FORBIDDEN.search(text)
        if found:
            return "control character", f"{column} has U+{ord(found[0]):04X} at character {found.start() + 1}"
        limit = MAX_MOLECULE if column == "molecule" else MAX_CAPTION
        if len(text) > limit:
            return "too long", f"{column} has {len(text)} characters, more than {limit}"
    for column in ("id", "split"):
        value = record.get(column)
        if not (value is None or value != value or isinstance(value, str) or (column == "id" and type(value) is int)):
            return "not text", f"{column} is {type(value).__name__}: {value!r:.40}"
    key = record.get("id")
    if key is not None and seen.setdefault(key, line) != line:
        return "repeated id", f"{key!r:.40} is also in line {seen[key]}"
    return None


def _readable(frame: pd.DataFrame, reader: _Reader) -> pd.DataFrame:
    """The rows whose molecule RDKit can read; a molecule that comes more than once is read once."""
    valid = {text: " " not in text and parse(text) is not None for text in set(frame["molecule"])}
    keep = frame["molecule"].map(valid).astype(bool)
    for line, text in zip(frame.loc[~keep, "line"], frame.loc[~keep, "molecule"], strict=True):
        reader.reject(int(line), "invalid SMILES", ascii(text)[:60])
    return frame[keep].reset_index(drop=True)


# ------------------------------------------------------------------------------------------- formats


def _records(path: Path, reader: _Reader) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their line numbers, under this package's column names."""
    kind = next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")
    if kind not in FORMATS:
        raise DataError(f"{path}: {kind or 'no ending'} is none of {', '.join(FORMATS)} (or with .gz)")
    if kind == ".parquet":
        return _parquet(path, reader)
    data, member = unpacked(path)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:64]:
        raise DataError(f"{path} is not UTF-8 text (it looks like UTF-16): save it as UTF-8")
    if kind in (".jsonl", ".ndjson", ".json"):
        return _json(data, kind, reader)
    return _cells(data, kind, reader, member)


def unpacked(path: Path, member: re.Pattern[str] = PROPERTY_FILE) -> tuple[bytes, str]:
    """A file's bytes without ``.gz``, or those of the first ``member`` of a ``.zip``; and the name of what was read."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if member.search(name)]
            if not names:
                raise DataError(f"{path} holds no file like {member.pattern}; it has {', '.join(archive.namelist())}")
            name = names[0]
            with archive.open(name) as packed, _gunzipped(packed, name) as handle:
                data = handle.read(MAX_BYTES + 1)
    else:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as handle:
            data, name = handle.read(MAX_BYTES + 1), path.name
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} unpacks to more than {MAX_BYTES >> 30} GB: split it")
    return data, name


def _gunzipped(packed: IO[bytes], name: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=packed)) if name.endswith(".gz") else packed


def _lines(data: bytes, reader: _Reader) -> Iterator[tuple[int, str]]:
    """Numbered lines, whatever ends them; blank ones and ones that are not UTF-8 are noted or rejected."""
    windows, unix = data.count(b"\r\n"), data.count(b"\n")
    odd = min(windows, unix - windows) + data.count(b"\r") - windows
    if odd:
        reader.notes["lines that end differently from the others"] = odd
    for number, raw in enumerate(data.splitlines(), start=1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            reader.reject(number, "not UTF-8", f"byte 0x{raw[error.start]:02X} at byte {error.start + 1}")
            continue
        if text.strip():
            yield number, text
        else:
            reader.notes["blank lines (no rows)"] += 1


def _unquoted(separator: str, text: str) -> list[str]:
    return text.split(separator)


def _quoted(separator: str, text: str) -> list[str]:
    # The csv module only where there is a quote: most lines of long files have none, and str.split is ten times faster.
    if '"' not in text:
        return text.split(separator)
    return next(csv.reader([text], delimiter=separator, strict=True))


def _cells(data: bytes, kind: str, reader: _Reader, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(MAX_BYTES)
    lines = _lines(data, reader)
    first = next(lines, None)
    molecules = {plain(alias) for alias in ALIASES["molecule"]}
    separator = separator_of(first[1], kind, molecules) if first else None
    quoted = separator in (",", ";")
    if not quoted and b'"' in data and as_pandas_writes(data.decode("utf-8", "surrogateescape")):
        quoted, reader.notes["files with cells in quotes, as pandas writes them (quotes removed)"] = True, 1
    split = partial(_quoted if quoted else _unquoted, separator or "\t")
    header = split(first[1]) if first else []
    if first and PROPERTY_FILE.search(name) and not any(plain(cell) in molecules for cell in header):
        lines, header = chain([first], lines), ["molecule", "properties"]
    named = columns_in(header, reader.name)
    positions = {column: header.index(called) for column, called in named.items()}
    return _numbered_cells(lines, reader, split, quoted, len(header), positions)


def _numbered_cells(
    lines: Iterator[tuple[int, str]],
    reader: _Reader,
    split: Callable[[str], list[str]],
    quoted: bool,
    width: int,
    positions: dict[str, int],
) -> Iterator[tuple[int, dict[str, Any]]]:
    ahead: deque[tuple[int, str]] = deque()
    while (found := ahead.popleft() if ahead else next(lines, None)) is not None:
        number, text = found
        if quoted and text.count('"') % 2:
            tail = _to_the_next_odd(lines, ahead)
            if len(_safe_cells(split, "\n".join([text, *(more for _, more in tail)]))) == width:
                for place, part in (found, *tail):
                    reader.reject(place, "cell over several lines", ascii(part)[:60])
                continue
            ahead.extendleft(reversed(tail))
        try:
            cells = split(text)
        except csv.Error as error:
            reader.reject(number, "unbalanced quotes", f"{error}: {ascii(text)[:60]}")
            continue
        if len(cells) != width:
            reader.reject(number, "wrong number of cells", f"{len(cells)} instead of {width}: {ascii(text)[:60]}")
            continue
        yield number, {column: cells[position] for column, position in positions.items()}


def _to_the_next_odd(lines: Iterator[tuple[int, str]], ahead: deque[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines that a quoted cell may run over: up to the next with an odd number of quotes, taken off both."""
    tail: list[tuple[int, str]] = []
    while len(tail) < _LONGEST_RECORD and (found := ahead.popleft() if ahead else next(lines, None)) is not None:
        tail.append(found)
        if found[1].count('"') % 2:
            break
    return tail


def _safe_cells(split: Callable[[str], list[str]], text: str) -> list[str]:
    try:
        return split(text)
    except csv.Error:
        return []


def _json(data: bytes, kind: str, reader: _Reader) -> Iterator[tuple[int, dict[str, Any]]]:
    """JSON lines, or an array of objects. The columns are those of all records: exporters leave out what is null."""
    records: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    for number, row in _array(data, kind, reader) or _parsed_lines(data, reader):
        if not isinstance(row, dict):
            reader.reject(number, "not JSON", f"not an object: {ascii(row)[:60]}")
            continue
        columns |= dict.fromkeys(row)
        records.append((number, {key: value for key, value in row.items() if key.strip().lower() in _READ}))
    if kind == ".json" and not records:
        raise DataError(f"{reader.name} is neither a JSON array of objects nor JSON lines: write it as one of these")
    named = columns_in(list(columns), reader.name) if records else {}
    for number, row in records:
        yield number, {column: row.get(called) for column, called in named.items()}


def _array(data: bytes, kind: str, reader: _Reader) -> list[tuple[int, Any]]:
    """The numbered items of a JSON array; none if the file is not one."""
    if not data.lstrip().startswith(b"["):
        return []
    try:
        return list(enumerate(json.loads(data, object_pairs_hook=_once), start=1))
    except (ValueError, RecursionError) as error:
        if kind == ".json":
            raise DataError(f"{reader.name} is neither a JSON array of objects nor JSON lines: {error}") from None
        return []


def _parsed_lines(data: bytes, reader: _Reader) -> Iterator[tuple[int, Any]]:
    for number, text in _lines(data, reader):
        try:
            yield number, json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            reader.reject(number, "not JSON", f"{error}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ``ValueError`` for a key that comes twice, where Python would take the last."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"a key comes twice in {', '.join(key for key, _ in pairs)[:80]}")
    return row


def _parquet(path: Path, reader: _Reader) -> Iterator[tuple[int, dict[str, Any]]]:
    file = pq.ParquetFile(path)
    named = columns_in(file.schema_arrow.names, reader.name)
    return _parquet_rows(file, named)


def _parquet_rows(file: pq.ParquetFile, named: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in file.iter_batches(batch_size=20_000, columns=list(named.values())):
        values = [_values(batch.column(called)) for called in named.values()]
        for cells in zip(*values, strict=True):
            number += 1
            yield number, dict(zip(named, cells, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """Python values; text that is not UTF-8 stays bytes, so that one cell does not stop the file."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_decoded(cell) for cell in column.cast(pa.binary()).to_pylist()]


def _decoded(cell: bytes | None) -> str | bytes | None:
    try:
        return cell.decode("utf-8") if cell is not None else None
    except UnicodeDecodeError:
        return cell


def refuse_too_many(name: str, rejected: pd.DataFrame, total: int, max_bad_share: float) -> None:
    """Raise :class:`DataError` when more than ``max_bad_share`` of the rows of ``name`` are bad, or all are."""
    if not total:
        raise DataError(f"{name} has no rows")
    if len(rejected) <= max_bad_share * total and len(rejected) < total:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in rejected["reason"].value_counts().items())
    first = "; ".join(f"{r.file} line {r.line}: {r.reason} ({r.detail})" for r in rejected.head(3).itertuples())
    raise DataError(
        f"{name}: {len(rejected)} of {total} rows are bad ({counts}), more than max_bad_share = {max_bad_share}. "
        f"First: {first}. Mend the file, or raise max_bad_share"
    )
