"""The steps of 01_data: the corpus, the 10 % sample, the validation sample, the test set, their manifests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data import manifest
from lmolt_utils.data.captioner import Knowledge, captioner, knowledge, reader
from lmolt_utils.data.rows import REJECTED_COLUMNS
from lmolt_utils.data.sample import CORPUS_COLUMNS, SAMPLE_COLUMNS, sample, triples
from lmolt_utils.data.sources import EMBEDDED, Source, load
from lmolt_utils.data.test_sets import TEST_SETS, draw, source_of, unstated
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


def make_corpus(run: Run) -> pd.DataFrame:
    """The corpus (:data:`~lmolt_utils.data.sample.CORPUS_COLUMNS`), loaded once and kept with its manifest and rejected
    rows.

    Molecules without a caption get one, captions without properties are read (:mod:`~lmolt_utils.data.captioner`).
    Beside it lie the property tree and the withheld pairs there are, for the later notebooks. Raises
    :class:`~lmolt_utils.data.manifest.ManifestError` when a file that it was made from has changed since,
    :class:`~lmolt_utils.data.rows.DataError` when it cannot be loaded.
    """
    output, rejected = run.path("data", "corpus.jsonl"), run.path("data", "corpus.rejected.jsonl")
    record, source = run.path("data", "corpus.manifest.json"), corpus_source(run)
    tree, pairs = run.path("data", "property_tree.json"), run.path("data", "withheld_pairs.json")
    _verify(record, "", source)
    known = _knowledge(run)

    def make(_: Path) -> None:
        revision = source.revision or manifest.pinned(record, "", source.name)
        found = Source(source.name, source.rows, source.seed, revision)
        loaded = load(
            found,
            compose=captioner(run.params.corpus, known.tree),
            read=reader(known.tree).properties,
            withheld=known.withheld,
        )
        frame = loaded.frame
        if "id" not in frame:
            frame = frame.assign(id=[f"m{index:07d}" for index in range(len(frame))])
        write_rows(output, frame[list(CORPUS_COLUMNS)])
        _write_rejected(rejected, loaded.rejected)
        write_json(tree, known.tree)
        write_json(pairs, known.withheld)
        write_json(record, manifest.described(loaded) | known.facts)

    run.step(
        "corpus",
        make,
        outputs=[output, rejected, record, tree, pairs],
        params=source.relevant() | known.facts,
    )
    return read_rows(output, CORPUS_COLUMNS)


def make_sample_and_test(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training sample and the test set; beside them the validation sample and ``manifest.json``.

    Raises what :func:`make_corpus` does, for the test set's own source.
    """
    data = run.path("data")
    corpus_file, facts_file = data / "corpus.jsonl", data / "corpus.manifest.json"
    names = ("sample.jsonl", "validation.jsonl", "test.jsonl", "test.rejected.jsonl", "manifest.json")
    outputs = [data / name for name in names]
    copy, revision = _split(run.params.test_corpus) if run.params.test_corpus else (None, None)
    source = source_of(run.params.test_set, corpus_source(run), copy, revision)
    if source:
        _verify(outputs[-1], "test", source)
    known = _knowledge(run)

    def make(_: Path) -> None:
        corpus = read_rows(corpus_file, CORPUS_COLUMNS)
        sampled = sample(corpus, run.params.sample_share, run.params.seed, run.params.sample_pools)
        held = corpus[corpus["split"] == "validation"]
        if (
            round(run.params.sample_share * len(held)) < 2
        ):  # a corpus may have no validation split: then no sample of it
            held = held.head(0)
        else:
            held = sample(corpus, run.params.sample_share, run.params.seed, "shared", "validation")[
                list(CORPUS_COLUMNS)
            ]
        found = source and Source(
            source.name, source.rows, source.seed, source.revision or manifest.pinned(outputs[-1], "test", source.name)
        )
        tested, loaded = draw(
            run.params.test_set,
            corpus,
            run.params.test_rows,
            run.params.seed,
            source=found,
            corpus_seed=run.params.corpus_seed,
            compose=captioner(run.params.corpus, known.tree),
            read=reader(known.tree).properties,
        )
        for path, frame in zip(outputs, (sampled, held, tested), strict=False):
            _write(path, frame)
        _write_rejected(outputs[3], loaded.rejected if loaded else pd.DataFrame(columns=list(REJECTED_COLUMNS)))
        own = {"source": "the corpus", "files": {}, "exclusions": unstated(corpus, TEST_SETS[run.params.test_set])}
        own["properties"] = read_json(facts_file)["properties"]
        facts = {
            "corpus": read_json(facts_file),
            "sample": {
                "share": run.params.sample_share,
                "pools": run.params.sample_pools,
                "seed": run.params.seed,
                "molecules": len(sampled),
                "triples": triples(sampled),
                "validation_molecules": len(held),
            },
            "test": (manifest.described(loaded) if loaded else own)
            | {"test_set": run.params.test_set, "meaning": TEST_SETS[run.params.test_set].meaning, "drawn": len(tested)}
            | {"draw_seed": run.params.seed},
            "written": {path.name: fingerprint(path) for path in (corpus_file, *outputs[:3])},
        }
        write_json(outputs[-1], facts)

    run.step(
        "sample and test set",
        make,
        outputs=outputs,
        params={
            "share": run.params.sample_share,
            "pools": run.params.sample_pools,
            "test_set": run.params.test_set,
            "test_source": source.relevant() if source else None,
            "rows": run.params.test_rows,
            "seed": run.params.seed,
            "corpus_seed": run.params.corpus_seed,
            **known.facts,
        },
        inputs={"corpus": corpus_file, "corpus manifest": facts_file},
    )
    manifest.verify_written(data)
    return read_rows(outputs[0], SAMPLE_COLUMNS), read_rows(outputs[2], CORPUS_COLUMNS)


def _knowledge(run: Run) -> Knowledge:
    return knowledge(corpus_source(run), run.params.property_tree, run.params.withheld_combinations)


def _verify(record: Path, section: str, source: Source) -> None:
    """Check the files that this source was loaded from before, unless another source is wanted now."""
    facts = read_kept(record)  # a damaged one is made again
    if source.name == EMBEDDED or facts is None:
        return
    facts = facts[section] if section else facts
    if facts["source"] == source.name and source.revision in (None, facts["revision"]):
        manifest.verify(facts, record)


def _write(path: Path, frame: pd.DataFrame) -> None:
    write_rows(path, frame) if len(frame) else write_text(path, "")


def _write_rejected(path: Path, rejected: pd.DataFrame) -> None:
    _write(path, rejected[list(REJECTED_COLUMNS)])


def rejected_rows(run: Run) -> pd.DataFrame:
    """Rows left out of the corpus and the test set: dataset, file, line, reason, detail."""
    frames = []
    for dataset in ("corpus", "test"):
        path = run.path("data", f"{dataset}.rejected.jsonl")
        if path.exists() and path.stat().st_size:
            frames.append(read_rows(path, REJECTED_COLUMNS).assign(dataset=dataset))
    columns = ["dataset", *REJECTED_COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def manifest_table(run: Run) -> pd.DataFrame:
    """The manifest as a table: per data set its source, revision, files, rows read, kept and left out."""
    facts = read_json(run.path("data", "manifest.json"))
    rows = []
    for dataset in ("corpus", "test"):
        entry: Mapping[str, Any] = facts[dataset]
        kept = entry.get("rows", {"drawn": entry.get("drawn", 0)})
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
            }
        )
    return pd.DataFrame(rows).set_index("data set")
