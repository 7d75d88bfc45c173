"""NLI scores against what is known: on L+M-24 both captions' property sets can be read off.

Less for More judges its method by how far it drives two systems apart, which a wrong method can do too. Here the
question is whether coverage follows property recall, and hallucination the share of invented properties, caption by
caption.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lmolt_utils.grammar.decompose import Decomposer

#: Which truth each score ought to follow.
TRUTH_OF = {"coverage": "recall", "hallucination": "hallucinated", "unsupported": "hallucinated"}
COLUMNS = ("method", "quantity", "truth", "n", "spearman", "low", "high", "pearson", "pearson_low", "pearson_high")

#: Resamples whose weights are held at once.
_TOGETHER = 100


def truth(references: Sequence[str], outputs: Sequence[str], decomposer: Decomposer) -> pd.DataFrame:
    """Per row, from the distinct properties of both captions: recall and hallucinated, 0..1, shape (n, 2).

    recall: share of the reference's properties that the output names; NaN if the reference names none.
    hallucinated: share of the output's properties that the reference does not name; NaN if the output names none
    (the row still counts for recall).
    """
    lines = []
    for reference, output in zip(references, outputs, strict=True):
        gold, said = decomposer.properties(reference), decomposer.properties(output)
        recall = len(gold & said) / len(gold) if gold else math.nan
        lines.append((recall, len(said - gold) / len(said) if gold and said else math.nan))
    return pd.DataFrame(lines, columns=["recall", "hallucinated"])


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two columns, shape (n,); NaN where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 1e-12 * len(x) else math.nan


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation with average ranks for ties; NaN where one is constant."""
    return pearson(rankdata(x), rankdata(y))


def correlations(
    rows: pd.DataFrame, known: pd.DataFrame, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Per method and score the correlation with its truth over rows: :data:`COLUMNS`.

    rows: id, method and the scores, as :func:`~lmolt_utils.nli.cross_nli.cross_nli` gives them, of one or several
    systems. known: id, recall and hallucinated, a line per line of each method, in the same order.
    low, high: percentiles over resampled ids (an id's outputs by several systems are drawn together). A correlation
    is NaN where the score or the truth is the same in every row; rows where one is undefined are left out.
    """
    lines = []
    for method, group in rows.groupby("method", sort=False):
        if list(group["id"]) != list(known["id"]):
            raise ValueError(f"the rows of {method} are not those of the property sets, in their order")
        for quantity, wanted in TRUTH_OF.items():
            x, y = group[quantity].to_numpy(dtype=float), known[wanted].to_numpy(dtype=float)
            defined = ~(np.isnan(x) | np.isnan(y))
            found = _intervals(x[defined], y[defined], known["id"].to_numpy()[defined], resamples, seed, level)
            lines.append((method, quantity, wanted, int(defined.sum()), *found))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _intervals(
    x: np.ndarray, y: np.ndarray, ids: np.ndarray, resamples: int, seed: int, level: float
) -> tuple[float, ...]:
    """Spearman, low, high, Pearson, low, high."""
    if len(x) < 3:
        return (math.nan,) * 6
    codes, names = pd.factorize(ids)
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, 2))
    for start in range(0, resamples, _TOGETHER):
        part = range(start, min(start + _TOGETHER, resamples))
        times = [np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)) for _ in part]
        weights = np.array(times, dtype=float)[:, codes]
        drawn[part, 0] = _weighted_pearson(_weighted_ranks(x, weights), _weighted_ranks(y, weights), weights)
        drawn[part, 1] = _weighted_pearson(x, y, weights)
    result: list[float] = []
    for column, value in enumerate((spearman(x, y), pearson(x, y))):
        values = drawn[~np.isnan(drawn[:, column]), column]
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (math.nan, math.nan)
        result += [value, float(ends[0]), float(ends[1])]
    return tuple(result)


def _weighted_ranks(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average ranks of ``x``, shape (n,), among its rows repeated ``weights`` times, shape (resamples, n); as weights.

    Equals ranking each resample by itself, at a fraction of the time: the values are sorted once for all of them.
    """
    distinct, codes = np.unique(x, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(distinct)))
    repeats = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: np.ndarray = (np.cumsum(repeats, axis=1) - repeats + (repeats + 1) / 2)[:, codes]
    return ranks


def _weighted_pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """:func:`pearson` of each resample, shape (resamples,); ``x`` and ``y`` of shape (n,) or that of ``weights``."""
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    size = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    defined = size > 1e-12 * total[:, 0]
    return np.where(defined, (weights * x * y).sum(axis=1) / np.where(defined, size, 1), math.nan)
