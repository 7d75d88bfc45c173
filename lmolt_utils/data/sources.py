"""Every place molecules and captions come from, behind one function, :func:`load`.

A source is ``embedded``, a local file or folder (:mod:`lmolt_utils.data.rows` says which formats), or the id of a hub
data set. A hub data set is fetched file by file into the hub's cache and then read like a folder, so that bad rows,
hashes and splits are handled in one way; its commit is part of what is recorded.

Files belong to the split that their name holds (``train``, ``validation``, ``test``). Beside ``split_train``, ``train``
holds the validation rows again (L+M-24) and is left out; a file of unknown use is refused. Files without captions, such
as the property file of L+M-24's release (``additional_data.zip``), get theirs composed from the property sets; without
properties these are read off the captions. Both ways are the caller's (:mod:`lmolt_utils.data.captioner`), and
recorded.
"""

import random
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.rows import (
    FORMATS,
    PROPERTY_FILE,
    REJECTED_COLUMNS,
    UNREADABLE,
    DataError,
    read_rows_of,
    refuse_too_many,
    unpacked,
)
from lmolt_utils.embedded.captions import caption_for
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.files import fingerprint
from lmolt_utils.grammar.property_cells import pairs_in
from lmolt_utils.paths import from_root, root

EMBEDDED = "embedded"
SPLITS = ("train", "validation", "test")
LPM24, LPM24_EXTRA = "language-plus-molecules/LPM-24_train", "language-plus-molecules/LPM-24_train-extra"
LPM24_EVAL, CHEBI20 = "language-plus-molecules/LPM-24_eval-caption", "liupf/ChEBI-20-MM"
#: Molecules in L+M-24's own training and validation splits (its hub page; together its release's 160,560).
LPM24_SIZES = {"train": 126_864, "validation": 33_696}
#: Writes a caption: molecule, properties, seed, variant (0, 1, ... for several captions of one molecule).
Compose = Callable[[str, Sequence[str], int, int], str]
#: Reads the names of the properties that a caption states.
Read = Callable[[str], Collection[str]]

#: As in the hub's own library, ``eval`` is a test split.
_SPLIT_WORDS = {
    **{"training": "train", "valid": "validation", "val": "validation", "dev": "validation"},
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])((?:split_)?)({'|'.join((*SPLITS, *_SPLIT_WORDS))})(?![a-z])")
#: L+M-24's release, which may lie beside the files of the splits.
_RELEASED = re.compile(rf"{PROPERTY_FILE.pattern}|(^|/)additional_data[^/]*\.zip$")
TREE_FILE, WITHHELD_FILE = "nested_props.json", "train_withheld_combos.txt"
#: What a corpus's property sets are: its own, read off its captions, or none.
STATED, READ_OFF, NO_PROPERTIES = "stated", "read off the captions", "none"
#: The evaluation sets hold the shared task's mystery molecules, which nobody has a reference for.
_MYSTERY = "mystery molecule"


@dataclass(frozen=True)
class Source:
    """Where molecules come from: ``embedded``, a local file or folder, or a hub id (at ``revision``).

    ``rows`` is the size of the embedded corpus; ``seed`` decides it, and the captions and splits a source lacks.
    """

    name: str
    rows: int = 0
    seed: int = 0
    revision: str | None = None

    @property
    def path(self) -> Path | None:
        """The local file or folder, relative to the repository's root; ``None`` if there is none."""
        place = Path(from_root(self.name))
        return place if self.name != EMBEDDED and place.is_absolute() and place.exists() else None

    def relevant(self) -> dict[str, str | int | None]:
        """The values that decide the rows: what the corpus's record is keyed by."""
        if self.name == EMBEDDED:
            return {"corpus": self.name, "rows": self.rows, "seed": self.seed}
        return {"corpus": self.name, "revision": self.revision, "seed": self.seed}


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
    compose: Compose = caption_for,
    read: Read | None = None,
    withheld: Sequence[tuple[str, str]] | None = None,
) -> Loaded:
    """The rows of ``source`` in ``splits``; ``None``: its test split, or all it has if it has no splits.

    A single file without a split in its name is a corpus to be divided (see :func:`divided`), unless ``splits`` is
    ``None``; molecules that combine ``withheld`` properties (by default the pairs of the list that lies with the data)
    are then not in training. ``compose`` writes the captions
    that are missing, ``read`` reads properties off captions where no row has any.

    Raises :class:`~lmolt_utils.data.rows.DataError` naming what is missing and how to point at a local copy, or
    if more than ``max_bad_share`` of the rows are bad.
    """
    if source.name == EMBEDDED:
        return _embedded(source, splits)
    local = source.path
    place, revision = (local, None) if local else _fetched(source, splits)
    if withheld is None:
        pairs = beside(source, WITHHELD_FILE)
        withheld = pairs_in(pairs[1], pairs[0]) if pairs else []
    loaded = _read(source, place, revision, splits, max_bad_share, withheld)
    return Loaded(_completed(loaded, source.seed, compose, read), loaded.rejected, loaded.facts)


def _embedded(source: Source, splits: Sequence[str] | None) -> Loaded:
    """The generated corpus; its fourth split, ``withheld``, comes along when all are wanted."""
    frame = generate(source.rows, source.seed)
    facts: dict[str, Any] = {"source": EMBEDDED, "place": "", "revision": None, "files": {}, "ignored_files": []}
    facts |= {"seed": source.seed, "rows_read": len(frame), "exclusions": {}, "notes": {}, "properties": STATED}
    if splits != SPLITS:
        frame = frame[frame["split"].isin(splits or ("test",))].reset_index(drop=True)
    return Loaded(frame, pd.DataFrame(columns=list(REJECTED_COLUMNS)), facts)


def _read(
    source: Source,
    place: Path,
    revision: str | None,
    splits: Sequence[str] | None,
    share: float,
    withheld: Sequence[tuple[str, str]],
) -> Loaded:
    names = [place.name] if place.is_file() else sorted(p.relative_to(place).as_posix() for p in _files(place))
    folder = place.parent if place.is_file() else place
    chosen, ignored = select(names, splits, source.name)
    frames, rejected, notes, files = [], [], dict[str, int](), dict[str, Any]()
    for name, split in chosen.items():
        rows = read_rows_of(folder / name, name)
        frames.append(rows.frame.assign(split=split if split else rows.frame["split"]))
        rejected.append(rows.rejected)
        files[name] = {"sha256": fingerprint(folder / name), "bytes": (folder / name).stat().st_size}
        files[name]["split"] = split
        for note, count in rows.notes.items():
            notes[note] = notes.get(note, 0) + count
    frame, bad = pd.concat(frames, ignore_index=True), pd.concat(rejected, ignore_index=True)
    read = len(frame) + len(bad)
    refuse_too_many(source.name, bad, read, share)
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
        "notes": notes,
    }
    frame = _with_splits(frame, source, splits, withheld, facts)
    return Loaded(frame[["split", "molecule", "caption", "properties", "families"]], bad, facts)


def _files(folder: Path) -> list[Path]:
    """Data files below a folder; hidden ones and hidden folders (a download's cache) left out."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _is_data(path)
    ]


def _is_data(path: Path) -> bool:
    """Endings this package reads; a ``.txt``, ``.json`` or ``.zip`` only under a name that says it is data."""
    suffix = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if suffix in (".txt", ".json", ".zip"):
        stem = path.name.split(".")[0].lower()
        return bool(_SPLIT_IN_NAME.fullmatch(stem)) or stem in ("train_props", "molecule_properties", "additional_data")
    return suffix in FORMATS


def split_of(name: str) -> str | None:
    """The split that a file's name says, or its folder's: by the last such word; ``split_`` stays before it."""
    found = [] if "train_props" in name.lower() else _SPLIT_IN_NAME.findall(name.lower())
    return found[-1][0] + _SPLIT_WORDS.get(found[-1][1], found[-1][1]) if found else None


def select(names: Sequence[str], splits: Sequence[str] | None, source: str) -> tuple[dict[str, str | None], list[str]]:
    """Which files are read, with their split (``None``: the rows say it, or it is drawn), and which are not.

    Beside ``split_train`` and ``split_valid``, ``train`` is left out. Raises :class:`~lmolt_utils.data.rows.DataError`
    when none of ``splits`` has a file, or the names do not say: no other file is left out of a corpus without a word.
    """
    words = {name: word for name in names if (word := split_of(name))}
    marked = {word for word in words.values() if word.startswith("split_")}
    tagged = {name: word.removeprefix("split_") for name, word in words.items() if word != "train" or not marked}
    needed, there = splits or ("test",), set(tagged.values())
    unclear = [name for name in names if name not in words and not _RELEASED.search(name)] if tagged else []
    if "train" not in needed and there.issuperset(needed):
        unclear = []
    twice = [name for name, word in words.items() if f"split_{word}" in marked and word != "train" and word in needed]
    if marked and "train" in needed and "train" not in there:  # it may hold the validation rows again
        twice += [name for name, word in words.items() if word == "train"]
    if unclear or twice:
        raise DataError(
            f"{source}: cannot tell what {', '.join((unclear + twice)[:8])} is beside {', '.join(list(tagged)[:8])}: "
            "name each file train, validation or test, one of each, or move it elsewhere"
        )
    chosen: dict[str, str | None]
    if not tagged:
        released = [name for name in names if PROPERTY_FILE.search(name)]
        if len(names) != 1 and len(released) != 1:
            listed = ", ".join(names[:8]) or f"no file ending in {', '.join(FORMATS)}"
            raise DataError(
                f"{source}: cannot tell which file is which ({listed}): give one file, or name them train, "
                "validation and test"
            )
        chosen = {(released or names)[0]: None}
    elif splits is None:
        present = set(tagged.values())
        if "test" not in present and len(present) > 1:
            raise DataError(f"{source} has no test split; it has {', '.join(sorted(present))}: give one file")
        chosen = {name: split for name, split in tagged.items() if split == "test" or len(present) == 1}
    else:
        chosen = {name: split for name, split in tagged.items() if split in splits}
        if not chosen:
            found = ", ".join(sorted(set(tagged.values())))
            raise DataError(f"data set {source!r} has none of the splits {', '.join(splits)}; it has {found}")
    return chosen, [name for name in names if name not in chosen]


# ------------------------------------------------------------------------------- what a source may lack


def _completed(loaded: Loaded, seed: int, compose: Compose, read: Read | None) -> pd.DataFrame:
    """The rows with the captions, or the property sets, that the source lacks; the facts say which."""
    frame, facts = loaded.frame, loaded.facts
    missing = frame["caption"].isna()
    if missing.any():
        facts["notes"]["captions composed from property sets"] = int(missing.sum())
        captions = frame["caption"].where(~missing, recaptioned(frame[missing], seed, 0, compose))
        frame = frame.assign(caption=captions)
    facts["properties"] = STATED if (frame["properties"] != "").any() else NO_PROPERTIES
    if facts["properties"] == NO_PROPERTIES and read is not None:
        frame = frame.assign(properties=["|".join(sorted(read(caption))) for caption in frame["caption"]])
        found = int((frame["properties"] != "").sum())
        facts["notes"]["rows whose property set was read off the caption"] = found
        facts["properties"] = READ_OFF if found else NO_PROPERTIES
    return frame


def recaptioned(frame: pd.DataFrame, seed: int, variant: int, compose: Compose = caption_for) -> pd.Series:
    """Captions of ``frame``'s molecules composed from their property sets: the ``variant``-th of each, by index."""
    captions = [
        compose(molecule, properties.split("|"), seed, variant)
        for molecule, properties in zip(frame["molecule"], frame["properties"], strict=True)
    ]
    return pd.Series(captions, index=frame.index, dtype=object)


def beside(source: Source, name: str) -> tuple[str, str] | None:
    """A file of L+M-24's release that lies with a local source, in its zip or its folder: where, and its text."""
    place = source.path
    if place is None:
        return None
    folder = place if place.is_dir() else place.parent
    archives = [place] if place.suffix.lower() == ".zip" else sorted(folder.glob("additional_data*.zip"))
    if place.is_file():
        archives = [path for path in archives if path == place]
    for archive in archives:
        try:
            data = unpacked(archive, re.compile(rf"(^|/){re.escape(name)}$"))[0]
            return f"{archive.name}: {name}", data.decode("utf-8")
        except DataError:  # a zip without the file
            continue
        except UNREADABLE as error:
            raise DataError(f"{archive} is damaged, or {name} in it is no text ({error}): fetch it again") from error
    path = folder / name
    return (name, path.read_text(encoding="utf-8")) if path.is_file() else None


def _with_splits(
    frame: pd.DataFrame,
    source: Source,
    splits: Sequence[str] | None,
    pairs: Sequence[tuple[str, str]],
    facts: dict[str, Any],
) -> pd.DataFrame:
    """The rows of the wanted splits, as the file's name or a column says; a file that says nothing is divided.

    With ``splits`` left open, the test split is taken, or all rows of a file that has only one split: as ``test``.
    """
    if frame["split"].isna().all() and splits is None:
        return frame.assign(split="test")
    if frame["split"].isna().all():
        facts["notes"]["rows divided by seed"] = len(frame)
        frame = frame.assign(split=divided(frame, source.seed, pairs))
    words = frame["split"].fillna("").str.lower().replace(_SPLIT_WORDS)
    odd = frame[~words.isin((*SPLITS, "withheld"))]
    if len(odd):
        raise DataError(
            f"{source.name}: {len(odd)} rows are in no known split (the first says {odd['split'].iloc[0]!r}): "
            f"write {', '.join(SPLITS)} or withheld in the column 'split'"
        )
    if splits is None and "test" not in set(words) and words.nunique() > 1:
        raise DataError(f"{source.name} has no test split; it has {', '.join(sorted(set(words)))}: give one file")
    if splits is None:
        taken: set[str] = {"test"} if "test" in set(words) else set(words)
    else:
        taken = {*splits, "withheld"} if splits == SPLITS else set(splits)
    wanted = words.isin(taken)
    if not wanted.all():
        facts["exclusions"]["in other splits"] = int((~wanted).sum())
    return frame.assign(split="test" if splits is None else words)[wanted].reset_index(drop=True)


def divided(frame: pd.DataFrame, seed: int, withheld: Sequence[tuple[str, str]] = ()) -> list[str]:
    """``train`` or ``validation`` per row, in L+M-24's proportion (126,864 to 33,696), drawn with ``seed``.

    All rows of a molecule, told by its text, are in one split. The release does not say which molecule is in which
    split. What it does say is kept: molecules that combine two
    ``withheld`` properties (1,980 of the 160,560) are in validation.
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
    picked = set(random.Random(f"divide:{seed}").sample(free, min(round(share * len(units)), len(free))))
    return ["train" if molecule in picked else "validation" for molecule in molecules]


# --------------------------------------------------------------------------------------------- the hub


def _fetched(source: Source, splits: Sequence[str] | None) -> tuple[Path, str]:
    """The hub's files of the wanted splits in its cache, and the commit they are of; offline: what the cache has."""
    if source.name.count("/") != 1 or source.name.startswith((".", "~")):
        raise DataError(f"there is no file or folder {source.name!r} (from {root()}), and it is no hub id (owner/name)")
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    fetch: Callable[..., Any] = partial(
        snapshot_download, source.name, repo_type="dataset", cache_dir=constants.HF_HUB_CACHE
    )
    # Whichever client the hub speaks with, its errors have the bases of this one.
    troubles: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, HFValidationError, OSError)
    wanted: list[str] = []
    try:
        info = HfApi().dataset_info(source.name, revision=source.revision, timeout=30)
        names = [file.rfilename for file in info.siblings or [] if _is_data(Path(file.rfilename))]
        wanted = list(select(names, splits, source.name)[0])
        return Path(fetch(revision=info.sha, allow_patterns=wanted)), str(info.sha)
    except troubles as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    with suppress(DataError, *troubles):
        folder = Path(fetch(revision=source.revision, local_files_only=True))
        kept, _ = select(sorted(path.relative_to(folder).as_posix() for path in _files(folder)), splits, source.name)
        # A cache may hold part of a data set: a corpus without its training split is no corpus.
        if set(kept) >= set(wanted) and ("train" not in (splits or ()) or {"train", None} & set(kept.values())):
            return folder, folder.name
    cache = Path(constants.HF_HUB_CACHE) / f"datasets--{source.name.replace('/', '--')}" / "snapshots"
    needed = ", ".join(wanted) or f"the data files of {', '.join(splits or ('test',))}"
    raise DataError(
        f"data set {source.name!r} (revision {source.revision or 'newest'}) is neither a local path nor to be had from "
        f"the hub ({reason}), and its cache lacks it. Needed: {needed}, in {cache / (source.revision or '<commit>')}. "
        f"Where there is a network: hf download {source.name} --repo-type dataset --local-dir FOLDER; then give the "
        "folder's path as corpus (or test_corpus)"
    )
