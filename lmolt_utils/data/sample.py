"""From a corpus to what is used of it: the 10 % sample, held-out molecules.

Where a corpus comes from is :mod:`lmolt_utils.data.sources`; which test set is drawn,
:mod:`lmolt_utils.data.test_sets`.
"""

import random

import pandas as pd

from lmolt_utils.config.prompts import TASKS, Task
from lmolt_utils.data.rows import DataError as DataError

CORPUS_COLUMNS = ("id", "split", "molecule", "caption", "properties", "families")
#: The sample says in ``tasks`` what each molecule is used for: ``mol2cap|cap2mol``, or one of the two.
SAMPLE_COLUMNS = (*CORPUS_COLUMNS, "tasks")
TEST_COLUMNS = ("id", "molecule", "caption", "properties")
PAIR_COLUMNS = ("id", "task", "source", "chosen", "rejected")


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
