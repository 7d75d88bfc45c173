"""What is used of a corpus: the 10 % sample that is trained on, and the test set.

The papers call their 3,000 test molecules unseen. They come from L+M-24's train-extra, five re-captionings of its own
training and validation molecules (audit D21): ``extra_valid`` is what the released code draws from, ``extra_train`` is
what the papers' "635k pairs" fits (5 x 126,864). Which test set is drawn is therefore a switch.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.captioner import Knowledge, recaptioned
from lmolt_utils.data.rows import Loaded, load
from lmolt_utils.data.sources import CHEBI20, LPM24, LPM24_EVAL, LPM24_EXTRA, Source
from lmolt_utils.errors import DataError

CORPUS_COLUMNS = ("id", "split", "molecule", "caption", "properties", "families")
#: The sample says in ``tasks`` what each molecule is used for: ``mol2cap|cap2mol``, or one of the two.
SAMPLE_COLUMNS = (*CORPUS_COLUMNS, "tasks")
TEST_COLUMNS = ("id", "molecule", "caption", "properties")
PAIR_COLUMNS = ("id", "task", "source", "chosen", "rejected")


def property_key(text: object, fold_case: bool = True) -> str | None:
    """A property set regardless of its order (and case); ``None`` for an empty one."""
    if not isinstance(text, str):
        return None
    names = {name.strip() for name in (text.lower() if fold_case else text).split("|")} - {""}
    return "|".join(sorted(names)) or None


# ---- the sample ----


def sample(corpus: pd.DataFrame, share: float, seed: int, pools: str = "shared", split: str = "train") -> pd.DataFrame:
    """``share`` of the molecules of ``split`` (L4M §4.1: 10 %), in corpus order, with a column ``tasks``.

    ``pools``: ``shared``, the same molecules for both tasks; ``independent``, a draw for each task, as in the released
    code, which makes 10 % per task cover about 19 % of the molecules (1 - 0.9², audit D23). Raises
    :class:`DataError` when fewer than two molecules would be left.
    """
    rows = corpus[corpus["split"] == split]
    count = round(share * len(rows))
    if count < 2:
        raise DataError(f"a share of {share} of {len(rows)} {split} molecules leaves {count}: raise sample_share")
    first = set(random.Random(f"sample:{seed}").sample(range(len(rows)), count))
    draws: dict[Task, set[int]] = dict.fromkeys(TASKS, first)
    if pools == "independent":
        draws["cap2mol"] = set(random.Random(f"sample:{seed}:cap2mol").sample(range(len(rows)), count))
    picked = sorted(set().union(*draws.values()))
    tasks = ["|".join(task for task in TASKS if index in draws[task]) for index in picked]
    return rows.iloc[picked].assign(tasks=tasks).reset_index(drop=True)


def for_task(sampled: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The sampled molecules that ``task`` uses: those that name it in ``tasks``, or all without that column."""
    if "tasks" not in sampled:
        return sampled.reset_index(drop=True)
    return sampled[sampled["tasks"].str.split("|").map(lambda tasks: task in tasks)].reset_index(drop=True)


def triples(sampled: pd.DataFrame) -> int:
    """Training triples of a sample: one per molecule and task (25.4k for 12.7k molecules, audit D3)."""
    return sum(len(for_task(sampled, task)) for task in TASKS)


# ---- the test set ----


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

    ``test_corpus`` points at a copy, such as a local folder. Raises :class:`DataError` when it is given for a test set
    that is part of the corpus.
    """
    known = TEST_SETS[name]
    if known.hub is None and test_corpus:
        raise DataError(f"test_set {name!r} is part of the corpus: leave test_corpus out, or choose another test_set")
    if test_corpus:
        return replace(corpus, name=test_corpus, revision=revision)
    if known.hub is None or (known.recaptioned and corpus.name != LPM24):
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
    known: Knowledge | None = None,
) -> tuple[pd.DataFrame, Loaded | None]:
    """At most ``rows`` molecules of test set ``name``: id, split, molecule, caption, properties, families.

    Read from ``source`` (see :func:`source_of`) the first caption of each molecule counts, as in the released code;
    without one they come from ``corpus``, captioned again from their properties where the test set is that (molecules
    without any are left out). The second value is what was loaded, for the manifest. Raises :class:`DataError` for an
    empty test set.
    """
    test_set, known = TEST_SETS[name], known or Knowledge()
    if source is not None:
        loaded = load(source, (test_set.split,) if test_set.recaptioned else None, known=known)
        first = loaded.frame.drop_duplicates("molecule")
        again = len(loaded.frame) - len(first)
        if again:
            loaded.facts["exclusions"]["further captions of a molecule"] = again
        first = first.assign(id=[f"t{index:07d}" for index in range(len(first))], split=test_set.split)
        return held_out(first[list(corpus.columns)], test_set.split, rows, seed), loaded
    if name == "withheld_combos" and "withheld" not in set(corpus["split"]):
        corpus = never_together(corpus)
    if test_set.recaptioned and len(corpus):
        corpus = corpus[corpus["properties"] != ""]
        if corpus.empty:
            raise DataError(
                f"test_set {name!r} captions molecules again from their properties, and none here has any: "
                "give the data set with the further captions as test_corpus"
            )
    drawn = held_out(corpus, test_set.split, rows, seed)
    if test_set.recaptioned:
        drawn = drawn.assign(caption=recaptioned(drawn, corpus_seed, 1, known.compose))
    return drawn, None


def held_out(corpus: pd.DataFrame, split: str, rows: int, seed: int) -> pd.DataFrame:
    """At most ``rows`` molecules of ``split``, drawn with ``seed``, in corpus order."""
    held = corpus[corpus["split"] == split]
    if len(held) < 2:
        counts = corpus["split"].value_counts()
        there = ", ".join(f"{name} ({counts[name]:,})" for name in counts.index) or "no split at all"
        generated = "families" in corpus and (corpus["families"] != "").any()  # a file's rows have none
        more = ", or raise corpus_rows" if generated else ""
        raise DataError(
            f"the test set has {len(held)} molecules: of the split {split!r} that it is drawn from. There is {there}. "
            "Choose another test_set (validation: those molecules as they are; extra_valid: captioned again, as in "
            f"the papers), give one in test_corpus{more}"
        )
    picked = sorted(random.Random(f"test:{seed}").sample(range(len(held)), min(rows, len(held))))
    return held.iloc[picked].reset_index(drop=True)


def unstated(corpus: pd.DataFrame, test_set: TestSet) -> dict[str, int]:
    """How many molecules cannot be captioned again, for the manifest: they have no properties."""
    count = int(((corpus["split"] == test_set.split) & (corpus["properties"] == "")).sum())
    return {"without properties": count} if test_set.recaptioned and count else {}


def never_together(corpus: pd.DataFrame) -> pd.DataFrame:
    """Held-out rows with two properties that no training row combines, both seen in training; as split ``withheld``."""
    trained = set(corpus.loc[corpus["split"] == "train", "properties"])
    seen = {pair for properties in trained for pair in _pairs(properties)}
    single = {name for properties in trained for name in properties.split("|")}
    held = corpus[corpus["split"] != "train"]
    new = {
        properties
        for properties in set(held["properties"])
        if any(pair not in seen and single.issuperset(pair) for pair in _pairs(properties))
    }
    return held[held["properties"].isin(new)].assign(split="withheld").reset_index(drop=True)


def _pairs(properties: str) -> Iterator[tuple[str, str]]:
    return combinations(sorted(set(properties.split("|")) - {""}), 2)
