"""Rejected answers without a model: references of other rows, shuffled or of the most similar molecules.

What gives a negative generator's answers away (their length, their alphabet, a few favourite answers) is not in such
pairs. All come from the training split, so that no test molecule is ever rejected.
"""

import random
from typing import Literal

import numpy as np
import pandas as pd
from rdkit.DataStructs import BulkTanimotoSimilarity

from lmolt_utils.config.prompts import Task
from lmolt_utils.data.molecules import molecules

#: Source and answer column of each task.
SIDES: dict[Task, tuple[str, str]] = {"mol2cap": ("molecule", "caption"), "cap2mol": ("caption", "molecule")}
_TRIES = 200
_NONE = ("", "")


def draw(
    kind: Literal["shuffled", "nearest"], sampled: pd.DataFrame, corpus: pd.DataFrame, task: Task, seed: int
) -> pd.DataFrame:
    """A rejected answer for each row of ``sampled``: columns id, rejected, origin (the row that it was taken from).

    ``shuffled``: the sample's references, permuted. ``nearest``: the reference of the most similar molecule (Tanimoto,
    Morgan radius 2) with another property set: with the same set it would be a right answer. Neither the row's own
    answer nor one of the same source is ever given; where there is no other, both columns are empty.
    """
    pool = corpus[corpus["split"] == "train"].reset_index(drop=True)
    found = _shuffled(sampled, task, seed) if kind == "shuffled" else _nearest(sampled, pool, task)
    return pd.DataFrame({"id": sampled["id"], "rejected": [f[0] for f in found], "origin": [f[1] for f in found]})


def same_properties(drawn: pd.DataFrame, sampled: pd.DataFrame, corpus: pd.DataFrame) -> int:
    """How many rejected answers come from a row with the same property set: right answers all the same."""
    sets = dict(zip(corpus["id"], _sets(corpus), strict=True))
    own = _sets(sampled)
    return sum(bool(mine) and sets.get(origin) == mine for mine, origin in zip(own, drawn["origin"], strict=True))


def _sets(frame: pd.DataFrame) -> list[frozenset[str]]:
    """Each row's property set; empty where the data has none."""
    return [frozenset(filter(None, text.split("|"))) for text in frame["properties"]]


def _shuffled(sampled: pd.DataFrame, task: Task, seed: int) -> list[tuple[str, str]]:
    source, answer = SIDES[task]
    rows = list(zip(sampled[source], sampled[answer], sampled["id"], strict=True))
    rng = random.Random(f"shuffled:{seed}:{task}")
    order = rng.sample(range(len(rows)), len(rows))

    def clash(row: int, other: int) -> bool:
        return rows[row][0] == rows[other][0] or rows[row][1] == rows[other][1]

    for row in range(len(rows)):
        for _ in range(_TRIES):
            if not clash(row, order[row]):
                break
            other = rng.randrange(len(rows))
            if not clash(row, order[other]) and not clash(other, order[row]):
                order[row], order[other] = order[other], order[row]
    return [_NONE if clash(row, other) else rows[other][1:] for row, other in enumerate(order)]


def _nearest(sampled: pd.DataFrame, pool: pd.DataFrame, task: Task) -> list[tuple[str, str]]:
    known, pool_sets = molecules(pool["molecule"]), _sets(pool)
    prints, canonical = [one.fingerprint for one in known], np.array([one.canonical for one in known], dtype=object)
    codes = {names: code for code, names in enumerate(dict.fromkeys(pool_sets))}
    set_of = np.array([codes[names] for names in pool_sets])
    asked, answers = sampled[SIDES[task][1]], pool[SIDES[task][1]].to_numpy(dtype=object)
    found = []
    for mine, own_answer, own in zip(molecules(sampled["molecule"]), asked, _sets(sampled), strict=True):
        likeness = np.array(BulkTanimotoSimilarity(mine.fingerprint, prints))
        likeness[(canonical == mine.canonical) | (answers == own_answer)] = -1
        if own:
            likeness[set_of == codes.get(own, -1)] = -1
        at = int(likeness.argmax())
        found.append(_NONE if likeness[at] < 0 else (answers[at], pool["id"].iloc[at]))
    return found
