"""What a run's data was made from: source, revision, hashes of the files read, counts, seed, exclusions.

A manifest lies beside the data it describes (``data/corpus.manifest.json``, ``data/manifest.json``). Loading verifies
it: a source file that changed since stops the run instead of silently giving other numbers.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.rows import REJECTED_COLUMNS, Loaded
from lmolt_utils.data.sources import Source
from lmolt_utils.errors import CompanionError
from lmolt_utils.files import fingerprint, read_json, read_kept, read_rows
from lmolt_utils.run.notebook import Run


class ManifestError(CompanionError):
    """A file that is no longer what the manifest says it was."""


def described(loaded: Loaded) -> dict[str, Any]:
    """The manifest of one data set: ``loaded.facts`` and the rows that were kept, per split."""
    counts = loaded.frame["split"].value_counts().sort_index()
    return loaded.facts | {"rows": {str(split): int(count) for split, count in counts.items()}}


def as_before(source: Source, manifest: Path, section: str = "") -> Source:
    """``source`` at the commit that ``manifest`` loaded it at, so that a moving hub branch cannot change a run's data.

    Raises :class:`ManifestError` for a local file that changed since, naming it, both hashes and the remedy; a file
    that is gone is no error: the data made from it is still there.
    """
    facts = read_kept(manifest) or {}  # a damaged one is made again
    facts = facts.get(section, {}) if section else facts
    if facts.get("source") != source.name or source.revision not in (None, facts["revision"]):
        return source
    for name, entry in facts["files"].items():
        path = Path(facts["place"]) / name
        if path.is_file() and (found := fingerprint(path)) != entry["sha256"]:
            raise ManifestError(
                f"{path} changed since {source.name!r} was loaded: expected sha256 {entry['sha256']}, "
                f"found {found}. Put the former file back, or delete {manifest} to load the new one"
            )
    return replace(source, revision=facts["revision"])


def rejected_rows(run: Run) -> pd.DataFrame:
    """Rows left out of the corpus and the test set: dataset, file, line, reason, detail."""
    frames = [pd.DataFrame(columns=["dataset", *REJECTED_COLUMNS])]
    for dataset in ("corpus", "test"):
        path = run.path("data", f"{dataset}.rejected.jsonl")
        if path.exists() and path.stat().st_size:
            frames.append(read_rows(path, REJECTED_COLUMNS).assign(dataset=dataset))
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def manifest_table(run: Run) -> pd.DataFrame:
    """The manifest as a table: per data set its source, revision, files, rows read, kept and left out, and notes."""
    facts = read_json(run.path("data", "manifest.json"))
    rows = []
    for dataset in ("corpus", "test"):
        entry: Mapping[str, Any] = facts[dataset]
        kept = entry.get("rows", {"drawn": entry.get("drawn")})
        rows.append(
            {
                "data set": dataset,
                "source": entry["source"],
                "revision": (entry.get("revision") or "-")[:12],
                "files": len(entry["files"]),
                "rows read": entry.get("rows_read", "-"),
                "rows kept": ", ".join(f"{count} {split}" for split, count in kept.items()),
                "properties": entry["properties"],
                "left out": ", ".join(f"{count} {reason}" for reason, count in entry["exclusions"].items()) or "none",
                "notes": "; ".join(entry.get("notes", {})) or "none",
            }
        )
    return pd.DataFrame(rows).set_index("data set")
