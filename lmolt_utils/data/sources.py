"""Where a corpus comes from: ``embedded``, a local file or folder, or a hub data set; and which of its files are read.

A hub data set is fetched into the hub's cache and then read like a folder; its commit is recorded. Files belong to the
split that their name holds (``train``, ``validation``, ``test``). Beside ``split_train`` and ``split_valid``, ``train``
holds all rows again (L+M-24) and is left out; a file of unknown use is refused.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmolt_utils.data.text_tables import unpacked
from lmolt_utils.errors import DataError
from lmolt_utils.paths import from_root, root

EMBEDDED = "embedded"
SPLITS = ("train", "validation", "test")
#: As in the hub's own library, ``eval`` is a test split.
SPLIT_WORDS = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "test"}
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])((?:split_)?)({'|'.join((*SPLITS, *SPLIT_WORDS))})(?![a-z])")
FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".zip")
#: Property files without captions, by their names in L+M-24's release; the older one has no header line.
PROPERTY_FILE = re.compile(r"(^|/)(molecule_properties|train_props)[^/]*\.(tsv|txt)(\.gz)?$")
#: L+M-24's release, which may lie beside the files of the splits.
_RELEASED = re.compile(rf"{PROPERTY_FILE.pattern}|(^|/)additional_data[^/]*\.zip$")


@dataclass(frozen=True)
class Source:
    """``name``: ``embedded``, a local file or folder, or a hub id (at ``revision``). ``rows``: the embedded corpus's.

    ``seed`` decides the embedded corpus, and the captions and splits that another source lacks.
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

    def beside(self, name: str) -> tuple[str, str] | None:
        """A file of L+M-24's release that lies in a local source's zip or folder: where, and its text."""
        if self.path is None:
            return None
        folder = self.path if self.path.is_dir() else self.path.parent
        archives = sorted(folder.glob("additional_data*.zip")) if self.path.is_dir() else [self.path]
        for archive in (path for path in archives if path.suffix.lower() == ".zip"):
            with suppress(FileNotFoundError):  # a zip without the file
                data, _ = unpacked(archive, re.compile(rf"(^|/){re.escape(name)}$"))
                return f"{archive.name}: {name}", data.decode("utf-8")
        path = folder / name
        return (name, path.read_text(encoding="utf-8")) if path.is_file() else None


# ---- which files ----


def data_files(folder: Path) -> list[str]:
    """Data files below a folder, by their relative paths; hidden ones and a download's cache are left out."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts) and _is_data(p))


def _is_data(path: Path) -> bool:
    """Endings this package reads; a ``.txt``, ``.json`` or ``.zip`` only under a name that says it is data."""
    suffix = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if suffix in (".txt", ".json", ".zip"):
        stem = path.name.split(".")[0].lower()
        return bool(_SPLIT_IN_NAME.fullmatch(stem)) or stem in ("train_props", "molecule_properties", "additional_data")
    return suffix in FORMATS


def _split_of(name: str) -> str | None:
    """The split that a file's name says, or its folder's: by the last such word; ``split_`` stays before it."""
    found = [] if "train_props" in name.lower() else _SPLIT_IN_NAME.findall(name.lower())
    return found[-1][0] + SPLIT_WORDS.get(found[-1][1], found[-1][1]) if found else None


def select(names: Sequence[str], splits: Sequence[str], source: str) -> tuple[dict[str, str | None], list[str]]:
    """Which files are read, with their split (``None``: the rows say it, or it is drawn), and which are not.

    Raises :class:`DataError` when a corpus lacks its training split or none of ``splits`` has a file, or the names do
    not say: no other file is left out of a corpus without a word.
    """
    words = {name: word for name in names if (word := _split_of(name))}
    if not words:
        only = [name for name in names if PROPERTY_FILE.search(name)] or names
        if len(only) != 1:
            listed = ", ".join(names[:8]) or f"no file ending in {', '.join(FORMATS)}"
            told = "give one file, or name them train, validation and test"
            raise DataError(f"{source}: cannot tell which file is which ({listed}): {told}")
        return {only[0]: None}, [name for name in names if name not in only]
    marked = {name for name, word in words.items() if word.startswith("split_")}
    tagged = {name: words[name].removeprefix("split_") for name in names if name in (marked or words)}
    chosen: dict[str, str | None] = {name: split for name, split in tagged.items() if split in splits}
    unclear = [name for name in names if name not in tagged and not _RELEASED.search(name)]
    if "train" in tagged.values():  # beside split_train, train holds all rows again; without it, nobody knows
        unclear = [name for name in unclear if words.get(name) != "train"]
    if unclear and ("train" in splits or not chosen):
        raise DataError(
            f"{source}: cannot tell what {', '.join(unclear[:8])} is beside {', '.join(list(tagged)[:8])}: "
            "name each file train, validation or test, one of each, or move it elsewhere"
        )
    if not chosen or "train" in set(splits) - set(chosen.values()):
        there = ", ".join(sorted(set(tagged.values())))
        missing = "train" if "train" in splits else ", ".join(splits)
        raise DataError(f"data set {source!r} has no file for {missing}; it has {there}")
    stems = [name.removesuffix(".gz").rpartition(".")[0] for name in chosen]
    if twins := [name for name, stem in zip(chosen, stems, strict=True) if stems.count(stem) > 1]:
        raise DataError(f"{source}: {', '.join(twins)} may hold the same rows in several formats: keep one")
    return chosen, [name for name in names if name not in chosen]


# ---- the hub ----


def fetched(source: Source) -> tuple[Path, str]:
    """The hub's data files in its cache, and the commit they are of; without a network, what the cache has."""
    if source.name.count("/") != 1 or source.name.startswith((".", "~")):
        raise DataError(f"there is no file or folder {source.name!r} (from {root()}), and it is no hub id (owner/name)")
    from huggingface_hub import snapshot_download

    from lmolt_utils.models.loading import HUB_TROUBLES
    from lmolt_utils.run.hub import must_have

    named = f"{source.name}@{source.revision}" if source.revision else source.name
    away = must_have(named, "dataset", "corpus")
    wanted = [f"*{ending}{packed}" for ending in FORMATS for packed in ("", ".gz")]
    try:
        found = snapshot_download(
            source.name, repo_type="dataset", revision=source.revision, allow_patterns=wanted, local_files_only=away
        )
    except HUB_TROUBLES as error:
        raise DataError(
            f"data set {source.name!r} (revision {source.revision or 'newest'}) is no local path, nor can the hub or "
            f"its cache give it ({type(error).__name__}: {str(error).splitlines()[0]}). Where there is a network: "
            f"hf download {source.name} --repo-type dataset --local-dir FOLDER; then give FOLDER as corpus"
        ) from None
    return Path(found), Path(found).name
