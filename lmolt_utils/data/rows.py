"""The rows of a corpus: read so that one bad row costs one row, completed, and divided into splits.

A bad row is listed with its file, line and reason. Files without captions, such as L+M-24's release, get theirs
composed from the property sets; without properties these are read off the captions.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmolt_utils.data import sources, text_tables
from lmolt_utils.data.captioner import NO_PROPERTIES, STATED, Knowledge, recaptioned
from lmolt_utils.data.molecules import parse
from lmolt_utils.data.sources import EMBEDDED, FORMATS, PROPERTY_FILE, SPLITS, Source, data_files, fetched, select
from lmolt_utils.data.text_tables import ABSENT, Bad, Table, read_table
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.errors import DataError
from lmolt_utils.files import BadFileError, fingerprint
from lmolt_utils.grammar.property_cells import MISSING, names_in, other_separator
from lmolt_utils.run.notebook import READ_OFF

REJECTED_COLUMNS = ("file", "line", "reason", "detail")
#: What the columns may be called; case and underscores do not matter.
ALIASES: dict[str, tuple[str, ...]] = {
    "molecule": ("molecule", "smiles", "canonical smiles"),
    "caption": ("caption", "description", "text"),
    "properties": ("properties", "props"),
    "split": ("split",),
}
_KNOWN = {alias for aliases in ALIASES.values() for alias in aliases}
#: Characters. The longest molecule of L+M-24 has 990; RDKit's time grows faster than the length.
LONGEST = {"molecule": 5_000, "caption": 50_000, "properties": 50_000}
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: Molecules in L+M-24's own training and validation splits (its hub page; together its release's 160,560).
LPM24_SIZES = {"train": 126_864, "validation": 33_696}
#: Of the held-out ones those that nothing is chosen on: as many as the papers test.
TEST_ROWS = 3_000
#: The share of bad rows above which a source is refused.
MAX_BAD_SHARE = 0.01


# ---- one file ----


@dataclass(frozen=True)
class Loaded:
    """What a file or a source holds: rows, ``rejected`` rows (:data:`REJECTED_COLUMNS`), ``facts`` for the manifest.

    ``frame``: split, molecule, caption, properties; of a source also families, and of the embedded one id. ``facts`` of
    a file: counts of oddities. Line numbers count from 1 and include the header (Parquet, JSON arrays: row numbers).
    """

    frame: pd.DataFrame
    rejected: pd.DataFrame
    facts: dict[str, Any]


def read_rows_of(path: Path, name: str | None = None) -> Loaded:
    """All rows of a CSV, TSV, JSON-lines or Parquet file, or of the property file in a ``.zip``; ``.gz`` is unpacked.

    ``name`` is what the file is called in reports. Rows must have a molecule and a caption; in a file without captions,
    properties. Raises :class:`DataError` when the file as a whole cannot be read or has no such columns.
    """
    name = name or path.name
    bad: list[Bad] = []
    try:
        table = _table(path, bad)
        columns = {column: cells for column, aliases in ALIASES.items() if (cells := table.cells(aliases)) is not None}
    except (BadFileError, FileNotFoundError) as error:
        raise DataError(str(error)) from None
    if "molecule" not in columns or not {"caption", "properties"} & set(columns):
        missing = "caption" if "molecule" in columns else "molecule"
        raise DataError(
            f"{name} has no column {missing!r} (nor {', '.join(map(repr, ALIASES[missing][1:]))}); "
            f"it has {table.told or 'none'}: rename one"
        )
    stated = zip(table.numbers, columns.get("properties", ()), strict=False)
    if doubt := other_separator([(line, cell) for line, cell in stated if cell is not None and cell is not ABSENT]):
        raise DataError(f"{name} {doubt}")
    notes, good = Counter(dict.fromkeys(table.notes, 1)), []
    readable = cache(lambda text: " " not in text and parse(text) is not None)
    for number, row in zip(table.numbers, zip(*columns.values(), strict=True), strict=True):
        record = {key: None if cell is ABSENT else cell for key, cell in zip(columns, row, strict=True)}
        problem = _problem(record, notes)
        if not problem and not readable(record["molecule"]):
            problem = "invalid SMILES", ascii(record["molecule"])[:60]
        if problem:
            bad.append((number, *problem))
        else:
            good.append(record)
    frame = pd.DataFrame(good, columns=list(ALIASES), dtype=object)
    rejected = pd.DataFrame([(name, *one) for one in sorted(bad)], columns=list(REJECTED_COLUMNS))
    return Loaded(frame, rejected, dict(notes))


def _table(path: Path, bad: list[Bad]) -> Table:
    kind = next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")
    if kind not in FORMATS:
        raise DataError(f"{path}: {kind or 'no ending'} is none of {', '.join(FORMATS)} (or with .gz)")
    if kind == ".parquet":
        try:
            columns = _parquet(path)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise BadFileError(f"{path} is damaged, or no Parquet ({error}): fetch it again") from error
        rows = [list(row) for row in zip(*(column.to_pylist() for column in columns.columns), strict=True)]
        return Table(path, columns.column_names, rows, list(range(1, len(rows) + 1)), "row")
    table = read_table(path, _KNOWN, member=PROPERTY_FILE if kind == ".zip" else None, bad=bad)
    released = kind == ".zip" or PROPERTY_FILE.search(path.name)
    if released and table.header and not set(table.names) & set(ALIASES["molecule"]):  # the release has no header
        table.rows.insert(0, list(table.header))
        table.numbers.insert(0, 1)
        table.header = ["molecule", "properties"]
    return table


def _parquet(path: Path) -> pa.Table:
    """The file, a thousand rows at a time: equal cells are packed so well that kilobytes may unpack to gigabytes."""
    size, batches, file = 0, [], pq.ParquetFile(path)
    for batch in file.iter_batches(batch_size=1024):
        batches.append(batch)
        size += sum((c.dictionary_decode() if pa.types.is_dictionary(c.type) else c).nbytes for c in batch.columns)
        if size > text_tables.MAX_BYTES:
            raise BadFileError(f"{path} has more than {text_tables.MAX_BYTES >> 20} MB unpacked: split it")
    return pa.Table.from_batches(batches, file.schema_arrow)


def _problem(record: dict[str, Any], notes: Counter[str]) -> tuple[str, str] | None:
    """Reason and detail when a row is not usable; otherwise tidies it in place."""
    for column in ("caption", "properties"):
        value = record.get(column)
        if isinstance(value, str) and value.strip() in MISSING:
            notes[f"cells of {column} with a missing value written out, such as nan (taken as empty)"] += 1
            record[column] = None
    if record.get("properties") is None and record.get("caption") is not None:
        record["properties"] = ""
    elif isinstance(record.get("properties"), (str, list)):
        try:
            record["properties"] = "|".join(names_in(record["properties"]))
        except ValueError as error:
            return "not a property list", f"{error}: {record['properties']!r:.60}"
    for column, limit in LONGEST.items():
        if column not in record:
            continue
        value = record[column]
        if value is None:
            return "empty cell", column
        if not isinstance(value, str):
            return "not text", f"{column} is {type(value).__name__}: {value!r:.40}"
        record[column] = text = value.strip(" ")
        if not text and not (column == "properties" and record.get("caption")):
            return "empty cell", column
        if found := _FORBIDDEN.search(text):
            what = "line break" if found[0] == "\n" else "control character"
            return what, f"{column} has U+{ord(found[0]):04X} at character {found.start() + 1}"
        if len(text) > limit:
            return "too long", f"{column} has {len(text)} characters, more than {limit}"
    return None


# ---- a source ----


def load(source: Source, splits: Sequence[str] = SPLITS, *, known: Knowledge | None = None) -> Loaded:
    """The rows of ``source`` in ``splits``; a single file without a split in its name is divided (:func:`divided`).

    The embedded corpus comes whole, with a fourth split, ``withheld``. Raises :class:`DataError` naming what is missing
    and how to point at a local copy, or if more than :data:`MAX_BAD_SHARE` of the rows are bad.
    """
    known = known or Knowledge()
    facts: dict[str, Any] = {"source": source.name, "revision": None, "files": {}, "exclusions": {}, "notes": {}}
    if source.name == EMBEDDED:
        frame = generate(source.rows, source.seed)
        rejected = pd.DataFrame(columns=list(REJECTED_COLUMNS))
        return Loaded(frame, rejected, facts | {"properties": STATED, "rows_read": len(frame)})
    place, facts["revision"] = (source.path, None) if source.path else fetched(source)
    folder = place.parent if place.is_file() else place
    names = [place.name] if place.is_file() else data_files(folder)
    chosen, facts["ignored_files"] = select(names, splits, source.name)
    frames, rejections, notes = [], [], Counter[str]()
    for name, split in chosen.items():
        rows = read_rows_of(folder / name, name)
        frames.append(rows.frame.assign(split=split if split else rows.frame["split"]))
        rejections.append(rows.rejected)
        notes.update(rows.facts)
        facts["files"][name] = {"sha256": fingerprint(folder / name), "split": split}
    frame, rejected = pd.concat(frames, ignore_index=True), pd.concat(rejections, ignore_index=True)
    exclusions = {str(reason): int(count) for reason, count in rejected["reason"].value_counts().items()}
    total = len(frame) + len(rejected)
    facts |= {"place": str(folder.resolve()), "rows_read": total, "exclusions": exclusions, "notes": dict(notes)}
    if not total:
        raise DataError(f"{source.name} has no rows")
    if len(rejected) > MAX_BAD_SHARE * total:
        counts = ", ".join(f"{count} {reason}" for reason, count in exclusions.items())
        first = "; ".join(f"{r.file} line {r.line}: {r.reason} ({r.detail})" for r in rejected.head(3).itertuples())
        raise DataError(
            f"{source.name}: {len(rejected)} of {total} rows are bad ({counts}), more than the {MAX_BAD_SHARE:.0%} "
            f"that may be. First: {first}. Mend the file"
        )
    frame = frame.assign(families="").fillna({"properties": ""})
    frame = _with_splits(frame, source, splits, known, facts)
    frame = _completed(frame[["split", "molecule", "caption", "properties", "families"]], facts, source.seed, known)
    return Loaded(frame, rejected, facts)


def _with_splits(
    frame: pd.DataFrame, source: Source, splits: Sequence[str], known: Knowledge, facts: dict[str, Any]
) -> pd.DataFrame:
    """The rows of the wanted splits, as the file's name or a column says; a file that says nothing is divided."""
    if frame["split"].isna().all():
        facts["notes"]["rows divided by seed"] = len(frame)
        frame = frame.assign(split=divided(frame, source.seed, known.withheld))
    words = frame["split"].fillna("").astype(str).str.lower().replace(sources.SPLIT_WORDS)
    odd = frame[~words.isin((*SPLITS, "withheld"))]
    if len(odd):
        told = f"{len(odd)} rows are in no known split (the first says {odd['split'].iloc[0]!r:.60})"
        raise DataError(f"{source.name}: {told}: write {', '.join(SPLITS)} or withheld in the column 'split'")
    wanted = words.isin((*splits, "withheld") if splits == SPLITS else splits)
    if not wanted.all():
        facts["exclusions"]["in other splits"] = int((~wanted).sum())
    return frame.assign(split=words)[wanted].reset_index(drop=True)


def divided(frame: pd.DataFrame, seed: int, withheld: Sequence[tuple[str, str]] = ()) -> list[str]:
    """``train``, ``validation`` or ``test`` per row, drawn with ``seed``: L+M-24's proportion of training molecules
    (126,864 to 33,696), and of the held-out ones :data:`TEST_ROWS` for ``test``.

    All rows of a molecule, told by its text, are in one split. The release does not say which; what it says is kept:
    molecules that combine two ``withheld`` properties (1,980 of the 160,560) are in validation.
    """
    molecules = frame["molecule"].tolist()
    kept_out = {molecules[index] for index in withheld_rows(frame, withheld)}
    units = list(dict.fromkeys(molecules))
    free = [molecule for molecule in units if molecule not in kept_out]
    share = LPM24_SIZES["train"] / sum(LPM24_SIZES.values())
    rng = random.Random(f"divide:{seed}")
    split = dict.fromkeys(units, "validation")
    split |= dict.fromkeys(rng.sample(free, min(round(share * len(units)), len(free))), "train")
    left = [molecule for molecule in free if split[molecule] != "train"]
    tested = round(TEST_ROWS / sum(LPM24_SIZES.values()) * len(units))
    split |= dict.fromkeys(rng.sample(left, min(tested, len(left))), "test")
    return [split[molecule] for molecule in molecules]


def withheld_rows(frame: pd.DataFrame, withheld: Sequence[tuple[str, str]]) -> set[int]:
    """Numbers of the rows that combine the two properties of a ``withheld`` pair."""
    owners: dict[str, set[int]] = {}
    for index, properties in enumerate(frame["properties"]):
        for name in properties.split("|"):
            owners.setdefault(name, set()).add(index)
    return {index for a, b in withheld for index in owners.get(a, set()) & owners.get(b, set())}


def _completed(frame: pd.DataFrame, facts: dict[str, Any], seed: int, known: Knowledge) -> pd.DataFrame:
    """The rows with the captions, or the property sets, that the source lacks; the facts say which."""
    missing = frame["caption"].isna()
    if missing.any():
        facts["notes"]["captions composed from property sets"] = int(missing.sum())
        captions = frame["caption"].where(~missing, recaptioned(frame[missing], seed, 0, known.compose))
        frame = frame.assign(caption=captions)
    facts["properties"] = STATED if (frame["properties"] != "").any() else NO_PROPERTIES
    if facts["properties"] == NO_PROPERTIES and known.read:
        frame = frame.assign(properties=["|".join(sorted(known.read(caption))) for caption in frame["caption"]])
        found = int((frame["properties"] != "").sum())
        facts["notes"]["rows whose property set was read off the caption"] = found
        facts["properties"] = READ_OFF if found else NO_PROPERTIES
    return frame
