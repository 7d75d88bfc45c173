"""The steps of 01_data: the corpus, the 10 % sample, the test set, and the manifest of what they were made from.

A manifest (``data/corpus.manifest.json``, ``data/manifest.json``) holds source, revision, hashes of the files read,
counts, exclusions. A source file that changed since stops the run instead of silently giving other numbers.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data.captioner import Knowledge, knowledge
from lmolt_utils.data.rows import REJECTED_COLUMNS, Loaded, load
from lmolt_utils.data.sample import CAPTIONED_AGAIN, CORPUS_COLUMNS, SAMPLE_COLUMNS, TEST_SETS, draw, sample, source_of
from lmolt_utils.data.sources import Source
from lmolt_utils.errors import DataError
from lmolt_utils.files import fingerprint, read_json, read_kept, read_rows, write_json, write_rows, write_text
from lmolt_utils.paths import from_root
from lmolt_utils.run.notebook import Run


def corpus_source(run: Run) -> Source:
    """The corpus that a run's parameters name."""
    name, revision = _split(run.params.corpus)
    return Source(name, run.params.corpus_rows, run.params.corpus_seed, revision)


def _split(reference: str) -> tuple[str, str | None]:
    """Name and revision of a data set, a hub id with ``@revision`` or without; a local path may hold an @ itself."""
    name, _, revision = reference.rpartition("@")
    return (name, revision) if name and not Path(from_root(reference)).exists() else (reference, None)


def _knowledge(run: Run) -> Knowledge:
    return knowledge(corpus_source(run), run.params.property_tree, run.params.withheld_combinations)


def make_corpus(run: Run) -> pd.DataFrame:
    """The corpus, loaded once; kept with its manifest, its rejected rows, the property tree and the withheld pairs.

    Raises :class:`DataError` when it cannot be loaded, or a file that it was made from has changed since.
    """
    names = ("corpus.jsonl", "corpus.rejected.jsonl", "corpus.manifest.json", "property_tree.json")
    outputs = [run.path("data", name) for name in (*names, "withheld_pairs.json")]
    source, known = corpus_source(run), _knowledge(run)
    pinned = as_before(source, outputs[2])

    def make(_: Path) -> None:
        loaded = load(pinned, known=known)
        frame = loaded.frame
        if "id" not in frame:
            frame = frame.assign(id=[f"m{index:07d}" for index in range(len(frame))])
        write_rows(outputs[0], frame[list(CORPUS_COLUMNS)])
        _write(outputs[1], loaded.rejected)
        for path, value in zip(outputs[2:], (described(loaded) | known.facts, known.tree, known.withheld), strict=True):
            write_json(path, value)

    run.step("corpus", make, outputs=outputs, params=source.relevant() | known.facts)
    return read_rows(outputs[0], CORPUS_COLUMNS)


def make_sample_and_test(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training sample and the test set; raises what :func:`make_corpus` does, for the test set's own source."""
    params = run.params
    corpus_file, facts_file = run.path("data", "corpus.jsonl"), run.path("data", "corpus.manifest.json")
    names = ("sample.jsonl", "test.jsonl", "test.rejected.jsonl", "manifest.json")
    outputs = [run.path("data", name) for name in names]
    copy, revision = _split(params.test_corpus) if params.test_corpus else (None, None)
    source, known = source_of(params.test_set, corpus_source(run), copy, revision), _knowledge(run)
    pinned = source and as_before(source, outputs[-1], "test")

    def make(_: Path) -> None:
        corpus, corpus_facts = read_rows(corpus_file, CORPUS_COLUMNS), read_json(facts_file)
        drawn_from: dict[str, Any] = {"source": pinned, "corpus_seed": params.corpus_seed, "known": known}
        sampled = sample(corpus, params.sample_share, params.seed, params.sample_pools)
        tested, loaded = draw(params.test_set, corpus, params.test_rows, params.seed, **drawn_from)
        write_rows(outputs[0], sampled)
        write_rows(outputs[1], tested)
        _write(outputs[2], loaded.rejected if loaded else pd.DataFrame())
        facts: dict[str, Any] = {"source": "the corpus", "files": {}, "exclusions": {}}
        facts["properties"] = corpus_facts["properties"]
        unstated = (corpus["split"] == TEST_SETS[params.test_set]) & (corpus["properties"] == "")
        if params.test_set in CAPTIONED_AGAIN and unstated.any():
            facts["exclusions"] = {"without properties": int(unstated.sum())}
        test_facts = (described(loaded) if loaded else facts) | {"drawn": len(tested)}
        write_json(outputs[-1], {"corpus": corpus_facts, "test": test_facts})

    run.step(
        "sample and test set",
        make,
        outputs=outputs,
        params={
            "share": params.sample_share,
            "pools": params.sample_pools,
            "test_set": params.test_set,
            "test_source": source.relevant() if source else None,
            "rows": params.test_rows,
            "seed": params.seed,
            "corpus_seed": params.corpus_seed,
            **known.facts,
        },
        inputs={"corpus": corpus_file, "corpus manifest": facts_file},
    )
    return read_rows(outputs[0], SAMPLE_COLUMNS), read_rows(outputs[1], CORPUS_COLUMNS)


def _write(path: Path, frame: pd.DataFrame) -> None:
    write_rows(path, frame) if len(frame) else write_text(path, "")


# ---- the manifest ----


def described(loaded: Loaded) -> dict[str, Any]:
    """The manifest of one data set: ``loaded.facts`` and the rows that were kept, per split."""
    counts = loaded.frame["split"].value_counts().sort_index()
    return loaded.facts | {"rows": {str(split): int(count) for split, count in counts.items()}}


def as_before(source: Source, manifest: Path, section: str = "") -> Source:
    """``source`` at the commit that ``manifest`` loaded it at, so that a moving hub branch cannot change a run's data.

    Raises :class:`DataError` for a local file that changed since, naming it, both hashes and the remedy; a file that is
    gone is no error: the data made from it is still there.
    """
    facts = read_kept(manifest) or {}  # a damaged one is made again
    facts = facts.get(section, {}) if section else facts
    if facts.get("source") != source.name or source.revision not in (None, facts["revision"]):
        return source
    for name, entry in facts["files"].items():
        path = Path(facts["place"]) / name
        if path.is_file() and (found := fingerprint(path)) != entry["sha256"]:
            raise DataError(
                f"{path} was edited after this run had loaded it (sha256 {entry['sha256']}, now {found}). To use the "
                f"edited file, delete {manifest} and run again: all that rests on it is made anew. To keep the run's "
                "numbers, put the former file back, and give the edited one another name"
            )
    return replace(source, revision=facts["revision"])


def rejected_rows(run: Run) -> pd.DataFrame:
    """Rows left out of the corpus and the test set: dataset, file, line, reason, detail."""
    columns, frames = ["dataset", *REJECTED_COLUMNS], []
    for dataset in ("corpus", "test"):
        path = run.path("data", f"{dataset}.rejected.jsonl")
        if path.exists() and path.stat().st_size:
            frames.append(read_rows(path, REJECTED_COLUMNS).assign(dataset=dataset)[columns])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def manifest_table(run: Run) -> pd.DataFrame:
    """The manifest as a table: per data set its source, revision, files, rows read, kept and left out, and notes."""
    rows = []
    for dataset, entry in read_json(run.path("data", "manifest.json")).items():
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
