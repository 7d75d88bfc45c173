"""What a run's data was made from: source, revision, hashes of the files read, counts, seed, exclusions.

A manifest lies beside the data it describes (``data/corpus.manifest.json``, ``data/manifest.json``). Loading verifies
it: a source file that changed since stops the run instead of silently giving other numbers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.sources import READ_OFF, Loaded
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_json, read_kept


class ManifestError(CompanionError):
    """A file that is no longer what the manifest says it was."""


def described(loaded: Loaded) -> dict[str, Any]:
    """The manifest of one data set: ``loaded.facts`` and the rows that were kept, per split."""
    counts = loaded.frame["split"].value_counts().sort_index()
    return loaded.facts | {"rows": {str(split): int(count) for split, count in counts.items()}}


def verify(facts: Mapping[str, Any], manifest: Path) -> pd.DataFrame:
    """The source files of a manifest, each with what is found now: file, bytes, sha256, now.

    A file that is gone is only said to be: the data made from it is still there. Raises :class:`ManifestError` for one
    that changed, naming the file, both hashes and the remedy.
    """
    rows = []
    for name, entry in facts["files"].items():
        path = Path(facts["place"]) / name
        state = "unchanged" if path.is_file() else "no longer there"
        if path.is_file() and (found := fingerprint(path)) != entry["sha256"]:
            raise ManifestError(
                f"{path} changed since {facts['source']!r} was loaded: expected sha256 {entry['sha256']}, "
                f"found {found}. Put the former file back, or delete {manifest} to load the new one"
            )
        rows.append({"file": name, "split": entry["split"], "bytes": entry["bytes"], "sha256": entry["sha256"]})
        rows[-1]["now"] = state
    return pd.DataFrame(rows, columns=["file", "split", "bytes", "sha256", "now"])


def verify_written(folder: Path) -> None:
    """Check the files of a run's data folder that its ``manifest.json`` lists under ``written``.

    Raises :class:`ManifestError` for one that changed or is gone.
    """
    manifest = folder / "manifest.json"
    for name, expected in read_json(manifest)["written"].items():
        path = folder / name
        found = fingerprint(path) if path.is_file() else "no file"
        if found != expected:
            raise ManifestError(
                f"{path} is not what 01_data wrote: expected sha256 {expected}, found {found}. Run 01_data again"
            )


def pinned(manifest: Path, section: str, source: str) -> str | None:
    """The commit that ``source`` was loaded at before, so that a moving hub branch cannot change a run's data."""
    facts = read_kept(manifest) or {}
    facts = facts.get(section, {}) if section else facts
    return facts.get("revision") if facts.get("source") == source else None


def property_note(data: Path) -> str:
    """What belongs beside every number that rests on property sets, if a run's were read off captions; else nothing.

    ``data`` is the run's data folder.
    """
    record = data / "corpus.manifest.json"
    if not record.exists() or read_json(record).get("properties") != READ_OFF:
        return ""
    return "Property sets were read off the captions by the grammar: the corpus states none."
