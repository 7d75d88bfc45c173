"""The test set as a switch: held-out molecules, or what the papers and their released code tested on.

The papers call their 3,000 molecules unseen. They come from L+M-24's train-extra, five re-captionings of its own
training and validation molecules (audit D21): ``extra_valid`` is what the released code draws from, ``extra_train`` is
what the papers' "635k pairs" fits (5 x 126,864).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from lmolt_utils.data.rows import DataError
from lmolt_utils.data.sample import held_out
from lmolt_utils.data.sources import (
    CHEBI20,
    LPM24,
    LPM24_EVAL,
    LPM24_EXTRA,
    Compose,
    Loaded,
    Read,
    Source,
    load,
    recaptioned,
)
from lmolt_utils.embedded.captions import caption_for


@dataclass(frozen=True)
class TestSet:
    """A test set: what it is, the corpus ``split`` its molecules are of, and the hub set it comes from."""

    __test__ = False  # to pytest, a class of this name would hold tests

    meaning: str
    split: str
    hub: str | None = None
    recaptioned: bool = False


TEST_SETS: dict[str, TestSet] = {
    "test": TestSet("held-out molecules: the corpus's own test split", "test"),
    "validation": TestSet("the corpus's validation molecules", "validation"),
    "withheld_combos": TestSet(
        "held-out molecules that combine properties never seen together in training", "withheld"
    ),
    "extra_valid": TestSet("validation molecules, captioned again (audit D21)", "validation", LPM24_EXTRA, True),
    "extra_train": TestSet("training molecules, captioned again (audit D21)", "train", LPM24_EXTRA, True),
    "eval_official": TestSet("the shared task's evaluation set", "test", LPM24_EVAL),
    "chebi20": TestSet("ChEBI-20's test split (the released inference.py)", "test", CHEBI20),
}


def source_of(name: str, corpus: Source, test_corpus: str | None, revision: str | None) -> Source | None:
    """The data set that test set ``name`` is read from; ``None`` when it is made from the corpus.

    ``test_corpus`` points at a copy, such as a local folder. Raises :class:`~lmolt_utils.data.rows.DataError` when a
    ``test_corpus`` is given for a test set that is part of the corpus.
    """
    known = TEST_SETS[name]
    if known.hub is None:
        if test_corpus:
            raise DataError(
                f"test_set {name!r} is part of the corpus: leave test_corpus out, or choose another test_set"
            )
        return None
    if test_corpus:
        return replace(corpus, name=test_corpus, revision=revision)
    if known.recaptioned and corpus.name != LPM24:
        return None
    return replace(corpus, name=known.hub, revision=revision)


def draw(
    name: str,
    corpus: pd.DataFrame,
    rows: int,
    seed: int,
    *,
    source: Source | None = None,
    corpus_seed: int = 0,
    max_bad_share: float = 0.01,
    compose: Compose = caption_for,
    read: Read | None = None,
) -> tuple[pd.DataFrame, Loaded | None]:
    """At most ``rows`` molecules of test set ``name``: id, split, molecule, caption, properties, families.

    Read from ``source`` (see :func:`source_of`) the first caption of each molecule counts, as in the released code;
    without one they come from ``corpus``, captioned again from their properties where the test set is that (molecules
    without any are left out). The second
    value is what was loaded, for the manifest. Raises :class:`~lmolt_utils.data.rows.DataError` for an empty test set.
    """
    known = TEST_SETS[name]
    if source is not None:
        wanted = (known.split,) if known.recaptioned else None
        loaded = load(source, wanted, max_bad_share=max_bad_share, compose=compose, read=read)
        first = loaded.frame.drop_duplicates("molecule")
        again = len(loaded.frame) - len(first)
        if again:
            loaded.facts["exclusions"]["further captions of a molecule"] = again
        first = first.assign(id=[f"t{index:07d}" for index in range(len(first))], split=known.split)
        return held_out(first[list(corpus.columns)], known.split, rows, seed), loaded
    if name == "withheld_combos" and "withheld" not in set(corpus["split"]):
        corpus = never_together(corpus)
    if known.recaptioned and len(corpus):
        corpus = corpus[corpus["properties"] != ""]
        if corpus.empty:
            raise DataError(
                f"test_set {name!r} captions molecules again from their properties, and none here has any: "
                "give the data set with the further captions as test_corpus"
            )
    drawn = held_out(corpus, known.split, rows, seed)
    if known.recaptioned:
        drawn = drawn.assign(caption=recaptioned(drawn, corpus_seed, 1, compose))
    return drawn, None


def unstated(corpus: pd.DataFrame, test_set: TestSet) -> dict[str, int]:
    """How many molecules cannot be captioned again, for the manifest: they have no properties."""
    count = int(((corpus["split"] == test_set.split) & (corpus["properties"] == "")).sum())
    return {"without properties": count} if test_set.recaptioned and count else {}


def never_together(corpus: pd.DataFrame) -> pd.DataFrame:
    """Held-out rows with two properties that no training row combines, both seen in training; as split ``withheld``."""
    training = corpus[corpus["split"] == "train"]
    seen = {pair for properties in set(training["properties"]) for pair in _pairs(properties)}
    single = {name for properties in set(training["properties"]) for name in properties.split("|")}
    held = corpus[corpus["split"] != "train"]
    new = {
        properties
        for properties in set(held["properties"])
        if any(pair not in seen and single.issuperset(pair) for pair in _pairs(properties))
    }
    return held[held["properties"].isin(new)].assign(split="withheld").reset_index(drop=True)


def _pairs(properties: str) -> Iterator[tuple[str, str]]:
    return combinations(sorted(set(properties.split("|")) - {""}), 2)
