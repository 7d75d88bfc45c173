"""The shortcut audit: what gives rejected answers away without any chemistry, such as lengths, characters, repeats.

A preference loss can be lowered by telling a negative generator's habits from a reference's. MolT5-Large's official
outputs on L+M-24 have no ``#`` and no ``\\`` and 473 distinct captions in 21,942 (audit D24).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csgraph, csr_matrix
from scipy.stats import bootstrap
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler

FOLDS = 5
#: Pairs that the classifiers see: enough for an interval of one or two percent.
MOST_PAIRS = 2000


def surface(texts: Sequence[str]) -> dict[str, Any]:
    """Facts of a set of answers: texts, distinct, share of distinct ones, mean characters, characters used."""
    return {
        "texts": len(texts),
        "distinct": len(set(texts)),
        "distinct share": len(set(texts)) / len(texts),
        "mean length": float(np.mean([len(text) for text in texts])),
        "characters": "".join(sorted({character for text in texts for character in text})),
    }


def audit(pairs: pd.DataFrame) -> pd.DataFrame:
    """:func:`surface` of chosen and rejected answers per task, and how many pairs have equal or empty ones."""
    rows = {}
    for task, group in pairs.groupby("task", sort=False):
        equal = int((group["rejected"] == group["chosen"]).sum())
        for side in ("chosen", "rejected"):
            counts = {"equal to the other": equal, "empty": int((group[side] == "").sum())}
            rows[task, side] = surface(list(group[side])) | counts
    return pd.DataFrame(rows).T.rename_axis(["task", "side"])


def absent_characters(present: Sequence[str], absent: Sequence[str]) -> pd.DataFrame:
    """Characters of ``present`` that occur in none of ``absent``, with the share of ``present`` texts that have them.

    Each of them marks a text as one of ``present``; the commonest comes first.
    """
    missing = {c for text in present for c in text} - {c for text in absent for c in text}
    found = [character for text in present for character in set(text) & missing]
    return _counted(found, len(present), ["character", "texts", "share"])


def most_frequent(texts: Sequence[str], top: int = 5) -> pd.DataFrame:
    """The ``top`` most frequent texts: text, rows, share; equally frequent ones in alphabetical order."""
    return _counted(texts, len(texts), ["text", "rows", "share"]).head(top)


def _counted(things: Sequence[str], total: int, columns: list[str]) -> pd.DataFrame:
    ordered = sorted(Counter(things).items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame([(name, count, count / total) for name, count in ordered], columns=columns)


def _lengths(texts: Sequence[str]) -> np.ndarray:
    sizes = np.array([[len(text)] for text in texts], dtype=float)
    return np.hstack([sizes, sizes**2])  # the square: rejected answers may be both shorter and longer


#: What a linear classifier is given: groups of surface features.
FEATURES: dict[str, tuple[Any, ...]] = {
    "length": (FunctionTransformer(_lengths), StandardScaler()),
    "character set": (CountVectorizer(analyzer="char", lowercase=False, binary=True),),
    "character pairs": (CountVectorizer(analyzer="char", lowercase=False, ngram_range=(1, 2)), MaxAbsScaler()),
}


def separability(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How often surface features alone tell chosen from rejected: 0.5 is fair, 1.0 gives every pair away.

    Cross-validated accuracy of a linear classifier per task and feature group, on at most :data:`MOST_PAIRS` pairs
    with two different, non-empty answers: columns task, features, accuracy, low, high (95 %, bootstrap over groups),
    pairs, groups, held_together (:func:`fold_groups`). NaN with fewer than five groups, or with too few texts of one
    kind for the folds.
    """
    rows = []
    for task, group in pairs.groupby("task", sort=False):
        real = group[(group["rejected"] != group["chosen"]) & (group["rejected"] != "") & (group["chosen"] != "")]
        real = real.sample(min(MOST_PAIRS, len(real)), random_state=seed).sort_index()
        texts = [*real["chosen"], *real["rejected"]]
        labels = np.repeat([1, 0], len(real))
        groups, held = fold_groups(list(real["chosen"]), list(real["rejected"]))
        for name, steps in FEATURES.items():
            classifier = make_pipeline(*steps, LogisticRegression(max_iter=1000))
            accuracy, low, high = _accuracy(classifier, texts, labels, groups, seed)
            scores = {"task": task, "features": name, "accuracy": accuracy, "low": low, "high": high}
            rows.append({**scores, "pairs": len(real), "groups": len(set(groups)), "held_together": held})
    return pd.DataFrame(rows)


def fold_groups(chosen: Sequence[str], rejected: Sequence[str]) -> tuple[np.ndarray, str]:
    """A group number for each chosen, then each rejected text, which a fold keeps together; and what a group is.

    Pairs that share a text, directly or through others (``pair and text``); equal texts alone (``text``) where that
    chains more than half of the pairs, as in a permutation.
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys([*chosen, *rejected]))}
    left = np.array([numbers[text] for text in chosen], dtype=int)
    right = np.array([numbers[text] for text in rejected], dtype=int)
    links = csr_matrix((np.ones(len(left)), (left, right)), shape=(len(numbers), len(numbers)))
    components = csgraph.connected_components(links, directed=False)[1]
    if len(left) and np.bincount(components[left]).max() > len(left) / 2:
        return np.concatenate([left, right]), "text"
    return np.concatenate([components[left], components[right]]), "pair and text"


def _accuracy(
    classifier: Any, texts: list[str], labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[float, float, float]:
    unknown = (float("nan"),) * 3
    if len(set(groups)) < FOLDS:
        return unknown
    folds = list(GroupKFold(FOLDS).split(labels, groups=groups))
    if any(len(set(labels[train])) < 2 for train, _ in folds):  # a negative generator that gives one answer
        return unknown
    guesses = cross_val_predict(classifier, np.array(texts, dtype=object), labels, cv=folds)
    right = (guesses == labels).astype(float)
    _, inverse = np.unique(groups, return_inverse=True)
    drawn = bootstrap(
        (np.bincount(inverse, right), np.bincount(inverse)),
        lambda hits, sizes, axis: hits.sum(axis) / sizes.sum(axis),
        paired=True,
        n_resamples=1000,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return float(right.mean()), float(drawn.low), float(drawn.high)
