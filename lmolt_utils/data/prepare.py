"""The steps of 01_data: the corpus, the 10 % sample, the test set, their manifests."""

from pathlib import Path
from typing import Any

import pandas as pd

from lmolt_utils.data import manifest
from lmolt_utils.data.captioner import Knowledge, knowledge
from lmolt_utils.data.rows import REJECTED_COLUMNS, load
from lmolt_utils.data.sample import (
    CAPTIONED_AGAIN,
    CORPUS_COLUMNS,
    SAMPLE_COLUMNS,
    TEST_SETS,
    draw,
    sample,
    source_of,
)
from lmolt_utils.data.sources import Source
from lmolt_utils.files import read_json, read_rows, write_json, write_rows, write_text
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

    Raises :class:`~lmolt_utils.data.manifest.ManifestError` when a file that it was made from has changed since,
    :class:`~lmolt_utils.errors.DataError` when it cannot be loaded.
    """
    output, rejected = run.path("data", "corpus.jsonl"), run.path("data", "corpus.rejected.jsonl")
    record, source = run.path("data", "corpus.manifest.json"), corpus_source(run)
    tree, pairs = run.path("data", "property_tree.json"), run.path("data", "withheld_pairs.json")
    pinned, known = manifest.as_before(source, record), _knowledge(run)

    def make(_: Path) -> None:
        loaded = load(pinned, known=known)
        frame = loaded.frame
        if "id" not in frame:
            frame = frame.assign(id=[f"m{index:07d}" for index in range(len(frame))])
        write_rows(output, frame[list(CORPUS_COLUMNS)])
        _write(rejected, loaded.rejected[list(REJECTED_COLUMNS)])
        write_json(tree, known.tree)
        write_json(pairs, known.withheld)
        write_json(record, manifest.described(loaded) | known.facts)

    run.step("corpus", make, outputs=[output, rejected, record, tree, pairs], params=source.relevant() | known.facts)
    return read_rows(output, CORPUS_COLUMNS)


def make_sample_and_test(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training sample and the test set; raises what :func:`make_corpus` does, for the test set's own source."""
    data, params = run.path("data"), run.params
    corpus_file, facts_file = data / "corpus.jsonl", data / "corpus.manifest.json"
    names = ("sample.jsonl", "test.jsonl", "test.rejected.jsonl", "manifest.json")
    outputs = [data / name for name in names]
    copy, revision = _split(params.test_corpus) if params.test_corpus else (None, None)
    source = source_of(params.test_set, corpus_source(run), copy, revision)
    pinned, known = source and manifest.as_before(source, outputs[-1], "test"), _knowledge(run)

    def make(_: Path) -> None:
        corpus = read_rows(corpus_file, CORPUS_COLUMNS)
        sampled = sample(corpus, params.sample_share, params.seed, params.sample_pools)
        tested, loaded = draw(
            params.test_set,
            corpus,
            params.test_rows,
            params.seed,
            source=pinned,
            corpus_seed=params.corpus_seed,
            known=known,
        )
        rejected = loaded.rejected if loaded else pd.DataFrame(columns=list(REJECTED_COLUMNS))
        for path, frame in zip(outputs, (sampled, tested, rejected[list(REJECTED_COLUMNS)]), strict=False):
            _write(path, frame)
        corpus_facts = read_json(facts_file)
        own: dict[str, Any] = {
            "source": "the corpus",
            "files": {},
            "exclusions": {},
            "properties": corpus_facts["properties"],
        }
        unstated = (corpus["split"] == TEST_SETS[params.test_set]) & (corpus["properties"] == "")
        if params.test_set in CAPTIONED_AGAIN and unstated.any():
            own["exclusions"] = {"without properties": int(unstated.sum())}
        test_facts = (manifest.described(loaded) if loaded else own) | {"drawn": len(tested)}
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
