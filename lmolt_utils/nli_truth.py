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

    rows: id, method and the scores, as :func:`~lmolt_utils.crossnli.cross_nli` gives them, of one or several systems.
    known: id, recall and hallucinated, a line per line of each method, in the same order.
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
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, 2))
    for index in range(resamples):
        some = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        drawn[index] = spearman(x[some], y[some]), pearson(x[some], y[some])
    result: list[float] = []
    for column, value in enumerate((spearman(x, y), pearson(x, y))):
        values = drawn[~np.isnan(drawn[:, column]), column]
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (math.nan, math.nan)
        result += [value, float(ends[0]), float(ends[1])]
    return tuple(result)
