"""What gives rejected answers away without any chemistry: lengths, characters, repeated texts.

A preference loss can be lowered by telling a translator's habits from a reference's. MolT5-Large's official outputs
on L+M-24 have no ``#`` and no ``\\`` and 473 distinct captions in 21,942 (audit D24).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csgraph, csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler

FOLDS = 5
#: Pairs that the classifiers see: enough for an interval of one or two percent.
MOST_PAIRS = 2000
_RESAMPLES = 1000


def surface(texts: Sequence[str]) -> dict[str, Any]:
    """Facts of a set of answers: texts, distinct, share of distinct ones, mean characters, characters used."""
    return {
        "texts": len(texts),
        "distinct": len(set(texts)),
        "distinct share": len(set(texts)) / len(texts) if len(texts) else float("nan"),
        "mean length": float(np.mean([len(text) for text in texts])) if len(texts) else float("nan"),
        "characters": "".join(sorted({character for text in texts for character in text})),
    }


def audit(pairs: pd.DataFrame) -> pd.DataFrame:
    """:func:`surface` of chosen and rejected answers per task, and how many pairs have equal or empty ones."""
    rows = {}
    for task, group in pairs.groupby("task", sort=False):
        for side in ("chosen", "rejected"):
            equal = int((group["rejected"] == group["chosen"]).sum())
            empty = int((group[side] == "").sum())
            rows[task, side] = {**surface(list(group[side])), "equal to the other": equal, "empty": empty}
    return pd.DataFrame(rows).T.rename_axis(["task", "side"])


def absent_characters(present: Sequence[str], absent: Sequence[str]) -> pd.DataFrame:
    """Characters of ``present`` that occur in none of ``absent``, with the share of ``present`` texts that have them.

    Each of them marks a text as one of ``present``; the commonest comes first.
    """
    missing = {c for text in present for c in text} - {c for text in absent for c in text}
    counts = Counter(character for text in present for character in set(text) & missing)
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    return pd.DataFrame(
        {
            "character": ordered,
            "texts": [counts[character] for character in ordered],
            "share": [counts[character] / len(present) for character in ordered],
        }
    )


def most_frequent(texts: Sequence[str], top: int = 5) -> pd.DataFrame:
    """The ``top`` most frequent texts: text, rows, share; equally frequent ones in alphabetical order."""
    counts = Counter(texts)
    ordered = sorted(counts, key=lambda text: (-counts[text], text))[:top]
    rows = [counts[text] for text in ordered]
    return pd.DataFrame({"text": ordered, "rows": rows, "share": [count / len(texts) for count in rows]})


def _lengths(texts: Sequence[str]) -> np.ndarray:
    sizes = np.array([[len(text)] for text in texts], dtype=float)
    return np.hstack([sizes, sizes**2])  # the square: rejected answers may be both shorter and longer


def _classifiers() -> dict[str, Any]:
    """One linear classifier per group of surface features."""

    def linear(*steps: Any) -> Any:
        return make_pipeline(*steps, LogisticRegression(max_iter=1000))

    def letters(**kept: Any) -> Any:
        return CountVectorizer(analyzer="char", lowercase=False, **kept)

    return {
        "length": linear(FunctionTransformer(_lengths), StandardScaler()),
        "character set": linear(letters(binary=True)),
        "character pairs": linear(letters(ngram_range=(1, 2)), MaxAbsScaler()),
    }


def separability(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How often surface features alone tell chosen from rejected: 0.5 is fair, 1.0 gives every pair away.

    Cross-validated accuracy of a linear classifier per task and feature group, on at most :data:`MOST_PAIRS` pairs
    with two different, non-empty answers: columns task, features, accuracy, low, high (95 %, bootstrap over groups),
    pairs, groups, held_together. No text is in two folds, and neither are the two answers of a pair (``pair and
    text``), unless shared texts chain more than half of the pairs together, as in a permutation: then texts alone
    are kept together (``text``). NaN where there are fewer than five groups, or too few
    texts of one kind for them.
    """
    rows = []
    for task, group in pairs.groupby("task", sort=False):
        real = group[(group["rejected"] != group["chosen"]) & (group["rejected"] != "") & (group["chosen"] != "")]
        real = real.sample(min(MOST_PAIRS, len(real)), random_state=seed).sort_index()
        texts = [*real["chosen"], *real["rejected"]]
        labels = np.repeat([1, 0], len(real))
        groups, held = fold_groups(list(real["chosen"]), list(real["rejected"]))
        for name, classifier in _classifiers().items():
            accuracy, low, high = _accuracy(classifier, texts, labels, groups, seed)
            rows.append(
                {
                    "task": task,
                    "features": name,
                    "accuracy": accuracy,
                    "low": low,
                    "high": high,
                    "pairs": len(real),
                    "groups": len(set(groups)),
                    "held_together": held,
                }
            )
    return pd.DataFrame(rows)


def fold_groups(chosen: Sequence[str], rejected: Sequence[str]) -> tuple[np.ndarray, str]:
    """A group number for each chosen, then each rejected text, and what a group holds together.

    Pairs that share a text, directly or through others, form a group; if the largest holds more than half of the
    pairs, equal texts alone do.
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
    if len(set(groups)) < FOLDS:
        return float("nan"), float("nan"), float("nan")
    folds = list(GroupKFold(FOLDS).split(labels, groups=groups))
    if any(len(set(labels[train])) < 2 for train, _ in folds):  # a translator that gives one answer
        return float("nan"), float("nan"), float("nan")
    guesses = cross_val_predict(classifier, np.array(texts, dtype=object), labels, cv=folds)
    right = (guesses == labels).astype(float)
    names, inverse = np.unique(groups, return_inverse=True)
    hits, sizes = np.bincount(inverse, right), np.bincount(inverse)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, len(names), len(names)) for _ in range(_RESAMPLES))
    low, high = np.percentile([hits[rows].sum() / sizes[rows].sum() for rows in drawn], [2.5, 97.5])
    return float(right.mean()), float(low), float(high)
