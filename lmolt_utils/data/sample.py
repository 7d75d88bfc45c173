"""What is used of a corpus: the 10 % sample that is trained on, and the test set.

The papers call their 3,000 test molecules unseen. They come from L+M-24's train-extra, five re-captionings of its own
training and validation molecules (audit D21): ``extra_valid`` is what the released code draws from, ``extra_train`` is
what the papers' "635k pairs" fits (5 x 126,864). Which test set is drawn is therefore a switch.
"""

import random
from dataclasses import replace

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.captioner import Knowledge, recaptioned
from lmolt_utils.data.rows import Loaded, load, withheld_rows
from lmolt_utils.data.sources import Source
from lmolt_utils.errors import DataError
from lmolt_utils.run.hub import LPM24, LPM24_EXTRA

CORPUS_COLUMNS = ("id", "split", "molecule", "caption", "properties", "families")
#: The sample says in ``tasks`` what each molecule is used for: ``mol2cap|cap2mol``, or one of the two.
SAMPLE_COLUMNS = (*CORPUS_COLUMNS, "tasks")
TEST_COLUMNS = ("id", "molecule", "caption", "properties")
PAIR_COLUMNS = ("id", "task", "source", "chosen", "rejected")


def property_key(text: object, fold_case: bool = True) -> str | None:
    """A property set regardless of its order (and case); ``None`` for an empty or missing one."""
    if not isinstance(text, str):
        return None
    names = {name.strip() for name in (text.lower() if fold_case else text).split("|")} - {""}
    return "|".join(sorted(names)) or None


# ---- the sample ----


def sample(corpus: pd.DataFrame, share: float, seed: int, pools: str = "shared") -> pd.DataFrame:
    """``share`` of the training molecules (L4M §4.1: 10 %), in corpus order, with a column ``tasks``.

    ``pools``: ``shared``, the same molecules for both tasks; ``independent``, a draw for each task, as in the released
    code: 10 % per task cover about 19 % of the molecules (1 - 0.9², audit D23). :class:`DataError` for less than two.
    """
    rows = corpus[corpus["split"] == "train"]
    count = round(share * len(rows))
    if count < 2:
        raise DataError(f"a share of {share} of {len(rows)} training molecules leaves {count}: raise sample_share")
    first = set(random.Random(f"sample:{seed}").sample(range(len(rows)), count))
    draws: dict[Task, set[int]] = dict.fromkeys(TASKS, first)
    if pools == "independent":
        draws["cap2mol"] = set(random.Random(f"sample:{seed}:cap2mol").sample(range(len(rows)), count))
    picked = sorted(set().union(*draws.values()))
    tasks = ["|".join(task for task in TASKS if index in draws[task]) for index in picked]
    return rows.iloc[picked].assign(tasks=tasks).reset_index(drop=True)


def for_task(sampled: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The sampled molecules that ``task`` uses: those that name it in ``tasks``."""
    return sampled[sampled["tasks"].str.split("|").map(lambda tasks: task in tasks)].reset_index(drop=True)


def triples(sampled: pd.DataFrame) -> int:
    """Training triples of a sample: one per molecule and task (25.4k for 12.7k molecules, audit D3)."""
    return sum(len(for_task(sampled, task)) for task in TASKS)


# ---- the test set ----


#: The split that each test set is drawn from.
TEST_SETS = {
    "test": "test",
    "validation": "validation",
    "withheld_combos": "withheld",
    "extra_valid": "validation",
    "extra_train": "train",
}
#: Molecules of the corpus itself, captioned again (audit D21).
CAPTIONED_AGAIN = ("extra_valid", "extra_train")


def source_of(name: str, corpus: Source, test_corpus: str | None, revision: str | None) -> Source | None:
    """The data set that test set ``name`` is read from, or its copy ``test_corpus``; ``None``: made from the corpus."""
    if test_corpus and name not in CAPTIONED_AGAIN:
        raise DataError(f"test_set {name!r} is part of the corpus: leave test_corpus out, or choose another test_set")
    if test_corpus or (name in CAPTIONED_AGAIN and corpus.name == LPM24):
        return replace(corpus, name=test_corpus or LPM24_EXTRA, revision=revision)
    return None


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
    without one they come from ``corpus``, captioned again from their properties (molecules without any are left out)
    where the test set is that. The second value is what was loaded. Raises :class:`DataError` for an empty test set.
    """
    split, known = TEST_SETS[name], known or Knowledge()
    if source is not None:
        loaded = load(source, (split,), known=known)
        first = loaded.frame.drop_duplicates("molecule")
        if again := len(loaded.frame) - len(first):
            loaded.facts["exclusions"]["further captions of a molecule"] = again
        first = first.assign(id=[f"t{index:07d}" for index in range(len(first))])
        return held_out(first[list(corpus.columns)], split, rows, seed), loaded
    if name == "withheld_combos" and "withheld" not in set(corpus["split"]):  # L+M-24's are among its validation rows
        corpus = corpus[corpus["split"] != "train"].reset_index(drop=True)
        combined = corpus.index.isin(withheld_rows(corpus, known.withheld))
        corpus = corpus.assign(split=corpus["split"].mask(combined, "withheld"))
    if name not in CAPTIONED_AGAIN:
        return held_out(corpus, split, rows, seed), None
    corpus = corpus[corpus["properties"] != ""]
    if corpus.empty:
        raise DataError(
            f"test_set {name!r} captions molecules again from their properties, and none here has any: "
            "give the data set with the further captions as test_corpus"
        )
    drawn = held_out(corpus, split, rows, seed)
    return drawn.assign(caption=recaptioned(drawn, corpus_seed, 1, known.compose)), None


def held_out(corpus: pd.DataFrame, split: str, rows: int, seed: int) -> pd.DataFrame:
    """At most ``rows`` molecules of ``split``, drawn with ``seed``, in corpus order."""
    held = corpus[corpus["split"] == split]
    if len(held) < 2:
        counts = corpus["split"].value_counts()
        there = ", ".join(f"{name} ({counts[name]:,})" for name in counts.index) or "no split at all"
        raise DataError(
            f"the test set has {len(held)} molecules: of the split {split!r} that it is drawn from. There is {there}. "
            "Choose another test_set (validation: those molecules as they are; extra_valid: captioned again, as in "
            "the papers), or a larger corpus (corpus_rows)"
        )
    picked = sorted(random.Random(f"test:{seed}").sample(range(len(held)), min(rows, len(held))))
    return held.iloc[picked].reset_index(drop=True)
