"""The rows of a corpus: read so that one bad row costs one row, completed, and divided into splits.

A bad row is listed with its file, line and reason. A cell never spans lines, so a stray quote cannot swallow the rows
after it; a CSV record whose quoted cell does span lines is rejected whole. How files are read otherwise:
:mod:`lmolt_utils.data.text_tables`; how cells of properties are: :mod:`lmolt_utils.grammar.property_cells`.

Files without captions, such as the property file of L+M-24's release (``additional_data.zip``), get theirs composed
from the property sets; without properties these are read off the captions (:mod:`lmolt_utils.data.captioner`).
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmolt_utils.data.captioner import NO_PROPERTIES, STATED, Knowledge, recaptioned
from lmolt_utils.data.molecules import parse
from lmolt_utils.data.sources import (
    EMBEDDED,
    FORMATS,
    PROPERTY_FILE,
    SPLIT_WORDS,
    SPLITS,
    Source,
    data_files,
    fetched,
    select,
)
from lmolt_utils.data.text_tables import ABSENT, Bad, Table, plain, read_table
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.errors import DataError
from lmolt_utils.files import BadFileError, fingerprint
from lmolt_utils.grammar.property_cells import MISSING, PropertyCells
from lmolt_utils.run.notebook import READ_OFF

REJECTED_COLUMNS = ("file", "line", "reason", "detail")
#: What the columns are called elsewhere, in order of preference; case and underscores do not matter.
ALIASES: dict[str, tuple[str, ...]] = {
    "molecule": ("molecule", "smiles", "canonical smiles"),
    "caption": ("caption", "description", "text"),
    "properties": ("properties", "props"),
    "id": ("id", "cid"),
    "split": ("split",),
}
_KNOWN = {alias for aliases in ALIASES.values() for alias in aliases}
#: Characters. The longest molecule of L+M-24 has 990; RDKit's time grows faster than the length.
MAX_MOLECULE, MAX_CAPTION = 5_000, 50_000
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: Molecules in L+M-24's own training and validation splits (its hub page; together its release's 160,560).
LPM24_SIZES = {"train": 126_864, "validation": 33_696}
#: Of the held-out ones those that nothing is chosen on: as many as the papers test.
TEST_ROWS = 3_000
#: The evaluation sets hold the shared task's mystery molecules, which nobody has a reference for.
_MYSTERY = "mystery molecule"


# ---- one file ----


@dataclass
class Rows:
    """What a file holds: ``frame`` (line, molecule, caption, properties, id, split), ``rejected``, ``notes``.

    ``rejected`` has :data:`REJECTED_COLUMNS`; line numbers count from 1 and include the header (Parquet and JSON
    arrays: row numbers). ``notes`` counts oddities that reject nothing.
    """

    frame: pd.DataFrame
    rejected: pd.DataFrame
    notes: dict[str, int]


def read_rows_of(path: Path, name: str | None = None) -> Rows:
    """All rows of a CSV, TSV, JSON-lines or Parquet file, or of the property file in a ``.zip``; ``.gz`` is unpacked.

    ``name`` is what the file is called in reports. Rows must have a molecule, and a caption or properties.
    RDKit reads every molecule once, the slowest part. Raises :class:`DataError` when the file as a whole cannot be
    read or has no such columns.
    """
    name = name or path.name
    bad: list[Bad] = []
    try:
        table = _table(path, bad)
    except BadFileError as error:
        raise DataError(str(error)) from None
    columns = _columns(table.header or [], name)
    good, seen, notes, cells = [], dict[Any, int](), Counter[str](), PropertyCells()
    for number, row in zip(table.numbers, table.rows, strict=True):
        record = {column: None if row[at] is ABSENT else row[at] for column, at in columns.items()}
        problem = _problem(record, number, cells, notes)
        if not problem and record.get("id") is not None and seen.setdefault(record["id"], number) != number:
            problem = "repeated id", f"{record['id']!r:.40} is also in line {seen[record['id']]}"
        if problem:
            bad.append((number, *problem))
        else:
            good.append({"line": number, **record})
    if doubt := cells.doubt():
        raise DataError(f"{name} {doubt}")
    frame = pd.DataFrame(good, columns=["line", *ALIASES])
    frame = frame.astype(dict.fromkeys(ALIASES, object))
    valid = {text: " " not in text and parse(text) is not None for text in frame["molecule"].unique()}
    keep = frame["molecule"].map(valid).astype(bool)
    bad += [(n, "invalid SMILES", ascii(text)[:60]) for n, text in frame.loc[~keep, ["line", "molecule"]].to_numpy()]
    frame = frame[keep].reset_index(drop=True)
    doubled = sum(r"\\" in text for text in frame["molecule"])
    if doubled:
        notes["molecules with doubled backslashes (kept as they are; RDKit reads both)"] = doubled
    notes.update(dict.fromkeys(table.notes, 1))
    rejected = pd.DataFrame([(name, *one) for one in sorted(bad)], columns=list(REJECTED_COLUMNS))
    return Rows(frame, rejected, dict(notes))


def _table(path: Path, bad: list[Bad]) -> Table:
    kind = next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")
    if kind not in FORMATS:
        raise DataError(f"{path}: {kind or 'no ending'} is none of {', '.join(FORMATS)} (or with .gz)")
    if kind == ".parquet":
        try:
            file = pq.ParquetFile(path)
            wanted = [column for column in file.schema_arrow.names if plain(column) in _KNOWN]
            values = file.read(columns=wanted).columns if wanted else []
            rows = [list(row) for row in zip(*(column.to_pylist() for column in values), strict=True)]
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise BadFileError(f"{path} is damaged, or no Parquet ({error}): fetch it again") from error
        return Table(path, wanted or file.schema_arrow.names, rows, list(range(1, len(rows) + 1)), "row")
    try:
        table = read_table(path, _KNOWN, member=PROPERTY_FILE if kind == ".zip" else None, bad=bad)
    except FileNotFoundError as error:
        raise DataError(str(error)) from None
    released = kind == ".zip" or PROPERTY_FILE.search(path.name)
    if released and table.header and not set(table.names) & set(ALIASES["molecule"]):  # the release has no header
        table.rows.insert(0, list(table.header))
        table.numbers.insert(0, 1)
        table.header = ["molecule", "properties"]
    return table


def _columns(header: Sequence[str], name: str) -> dict[str, int]:
    """Where this package's columns stand; raises :class:`DataError` for a file without the needed ones."""
    names = [plain(name) for name in header]
    found = {
        column: alias
        for column, aliases in ALIASES.items()
        if (alias := next((a for a in aliases if a in names), None))
    }
    if "molecule" not in found or not {"caption", "properties"} & set(found):
        missing = "caption" if "molecule" in found else "molecule"
        raise DataError(
            f"{name} has no column {missing!r} (nor {', '.join(map(repr, ALIASES[missing][1:]))}); "
            f"it has {', '.join(map(str, header)) or 'none'}: rename one"
        )
    twice = [alias for alias in found.values() if names.count(alias) > 1]
    if twice:
        raise DataError(f"{name} has the column {twice[0]!r} more than once: leave one")
    return {column: names.index(alias) for column, alias in found.items()}


def _problem(record: dict[str, Any], number: int, cells: PropertyCells, notes: Counter[str]) -> tuple[str, str] | None:
    """Reason and detail when a row is not usable; otherwise tidies it in place."""
    for column, value in record.items():
        if isinstance(value, float) and value != value:
            record[column] = None
        elif isinstance(value, str) and column != "molecule":
            if value.strip() in MISSING:
                notes[f"cells of {column} with a missing value written out, such as nan (taken as empty)"] += 1
                record[column] = None
            elif column in ("id", "split") and not value.strip():
                record[column] = None
    for column in ("id", "split"):
        value = record.get(column)
        if not (value is None or isinstance(value, str) or (column == "id" and type(value) is int)):
            return "not text", f"{column} is {type(value).__name__}: {value!r:.40}"
    if record.get("properties") is None and record.get("caption") is not None:
        record["properties"] = ""
    elif isinstance(record.get("properties"), (str, list, tuple)):
        try:
            record["properties"] = cells.read(record["properties"], number)
        except ValueError as error:
            return "not a property list", f"{error}: {record['properties']!r:.60}"
    for column in ("molecule", "caption", "properties"):
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
            code = ord(found[0])
            if 0xDC80 <= code <= 0xDCFF:
                return "not UTF-8", f"{column}: byte 0x{code - 0xDC00:02X} at character {found.start() + 1}"
            return "control character", f"{column} has U+{code:04X} at character {found.start() + 1}"
        limit = MAX_MOLECULE if column == "molecule" else MAX_CAPTION
        if len(text) > limit:
            return "too long", f"{column} has {len(text)} characters, more than {limit}"
    return None


# ---- a source ----


@dataclass(frozen=True)
class Loaded:
    """``frame``: split, molecule, caption, properties, families (embedded: id too); ``rejected`` rows; ``facts``.

    ``facts`` goes into the manifest: source, revision, files (name: sha256, bytes, split), rows, exclusions, notes.
    """

    frame: pd.DataFrame
    rejected: pd.DataFrame
    facts: dict[str, Any]


def load(
    source: Source,
    splits: Sequence[str] | None = SPLITS,
    *,
    max_bad_share: float = 0.01,
    known: Knowledge | None = None,
) -> Loaded:
    """The rows of ``source`` in ``splits``; ``None``: its test split, or all it has if it has no splits.

    A single file without a split in its name is a corpus to be divided (see :func:`divided`), unless ``splits`` is
    ``None``. ``known`` writes the captions that are missing, reads properties off captions where no row has any, and
    says which pairs of properties training withholds. Raises :class:`DataError` naming what is missing and how to point
    at a local copy, or if more than ``max_bad_share`` of the rows are bad.
    """
    known = known or Knowledge()
    if source.name == EMBEDDED:
        return _embedded(source, splits)
    place, revision = (source.path, None) if source.path else fetched(source, splits)
    folder = place.parent if place.is_file() else place
    names = [place.name] if place.is_file() else data_files(folder)
    chosen, ignored = select(names, splits, source.name)
    frames, rejected, notes, files = [], [], Counter[str](), dict[str, Any]()
    for name, split in chosen.items():
        rows = read_rows_of(folder / name, name)
        frames.append(rows.frame.assign(split=split if split else rows.frame["split"]))
        rejected.append(rows.rejected)
        notes.update(rows.notes)
        size = (folder / name).stat().st_size
        files[name] = {"sha256": fingerprint(folder / name), "bytes": size, "split": split}
    frame, bad = pd.concat(frames, ignore_index=True), pd.concat(rejected, ignore_index=True)
    read = len(frame) + len(bad)
    _refuse_too_many(source.name, bad, read, max_bad_share)
    exclusions = {str(reason): int(count) for reason, count in bad["reason"].value_counts().items()}
    frame = frame.drop(columns=["line", "id"]).assign(families="").fillna({"properties": ""})
    mystery = frame["properties"].str.lower() == _MYSTERY
    if mystery.any():
        exclusions["mystery molecule, no reference"] = int(mystery.sum())
        frame = frame[~mystery].reset_index(drop=True)
    facts = {
        "source": source.name,
        "place": str(folder.resolve()),
        "revision": revision,
        "files": files,
        "ignored_files": ignored,
        "seed": source.seed,
        "rows_read": read,
        "exclusions": exclusions,
        "notes": dict(notes),
    }
    frame = _with_splits(frame, source, splits, known.withheld, facts)
    frame = _completed(frame[["split", "molecule", "caption", "properties", "families"]], facts, source.seed, known)
    return Loaded(frame, bad, facts)


def _embedded(source: Source, splits: Sequence[str] | None) -> Loaded:
    """The generated corpus; its fourth split, ``withheld``, comes along when all are wanted."""
    frame = generate(source.rows, source.seed)
    facts: dict[str, Any] = {"source": EMBEDDED, "place": "", "revision": None, "files": {}, "ignored_files": []}
    facts |= {"seed": source.seed, "rows_read": len(frame), "exclusions": {}, "notes": {}, "properties": STATED}
    if splits != SPLITS:
        frame = frame[frame["split"].isin(splits or ("test",))].reset_index(drop=True)
    return Loaded(frame, pd.DataFrame(columns=list(REJECTED_COLUMNS)), facts)


def _refuse_too_many(name: str, rejected: pd.DataFrame, total: int, max_bad_share: float) -> None:
    if not total:
        raise DataError(f"{name} has no rows")
    if len(rejected) <= max_bad_share * total and len(rejected) < total:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in rejected["reason"].value_counts().items())
    first = "; ".join(f"{r.file} line {r.line}: {r.reason} ({r.detail})" for r in rejected.head(3).itertuples())
    raise DataError(
        f"{name}: {len(rejected)} of {total} rows are bad ({counts}), more than the {max_bad_share:.0%} that may be. "
        f"First: {first}. Mend the file"
    )


def _with_splits(
    frame: pd.DataFrame,
    source: Source,
    splits: Sequence[str] | None,
    withheld: Sequence[tuple[str, str]],
    facts: dict[str, Any],
) -> pd.DataFrame:
    """The rows of the wanted splits, as the file's name or a column says; a file that says nothing is divided.

    With ``splits`` left open, the test split is taken, or all rows of a file that has only one split: as ``test``.
    """
    if frame["split"].isna().all() and splits is None:
        return frame.assign(split="test")
    if frame["split"].isna().all():
        facts["notes"]["rows divided by seed"] = len(frame)
        frame = frame.assign(split=divided(frame, source.seed, withheld))
    words = frame["split"].fillna("").str.lower().replace(SPLIT_WORDS)
    odd = frame[~words.isin((*SPLITS, "withheld"))]
    if len(odd):
        raise DataError(
            f"{source.name}: {len(odd)} rows are in no known split (the first says {odd['split'].iloc[0]!r}): "
            f"write {', '.join(SPLITS)} or withheld in the column 'split'"
        )
    there = set(words)
    if splits is None and "test" not in there and len(there) > 1:
        raise DataError(f"{source.name} has no test split; it has {', '.join(sorted(there))}: give one file")
    taken = set(splits or ()) or ({"test"} & there or there)
    if splits == SPLITS:
        taken.add("withheld")
    wanted = words.isin(taken)
    if not wanted.all():
        facts["exclusions"]["in other splits"] = int((~wanted).sum())
    return frame.assign(split="test" if splits is None else words)[wanted].reset_index(drop=True)


def divided(frame: pd.DataFrame, seed: int, withheld: Sequence[tuple[str, str]] = ()) -> list[str]:
    """``train``, ``validation`` or ``test`` per row, drawn with ``seed``: L+M-24's proportion of training molecules
    (126,864 to 33,696), and of the held-out ones :data:`TEST_ROWS` for ``test``.

    All rows of a molecule, told by its text, are in one split. The release does not say which molecule is in which
    split. What it does say is kept: molecules that combine two ``withheld`` properties (1,980 of the 160,560) are in
    validation.
    """
    owners: dict[str, set[int]] = {}
    for index, properties in enumerate(frame["properties"]):
        for name in properties.split("|"):
            owners.setdefault(name, set()).add(index)
    held = {index for a, b in withheld for index in owners.get(a, set()) & owners.get(b, set())}
    molecules = frame["molecule"].tolist()
    kept_out = {molecules[index] for index in held}
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
