"""NLI scores against what is known: on L+M-24 both captions' property sets can be read off.

Less for More judges its method by how far it drives two systems apart, which a wrong method can do too. Here coverage
should follow property recall, and hallucination the share of invented properties, caption by caption.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.intervals import bootstrap
from lmolt_utils.nli.classifier import Pair
from lmolt_utils.nli.cross_nli import UNJUDGED

#: Which truth each score ought to follow.
TRUTH_OF = {"coverage": "recall", "hallucination": "hallucinated", "unsupported": "hallucinated"}
COLUMNS = ("method", "quantity", "truth", "n", "spearman", "low", "high")


def truth(texts: Sequence[Pair], decomposer: Decomposer) -> pd.DataFrame:
    """Per reference and output, 0..1: recall, the share of the reference's properties that the output names (NaN if it
    has none), and hallucinated, that of the output's which the reference lacks (NaN if either has none)."""
    lines = []
    for reference, output in texts:
        gold, said = decomposer.properties(reference), decomposer.properties(output)
        recall = len(gold & said) / len(gold) if gold else math.nan
        lines.append((recall, len(said - gold) / len(said) if gold and said else math.nan))
    return pd.DataFrame(lines, columns=["recall", "hallucinated"])


def correlations(rows: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Per method and score the rank correlation with its truth over rows: :data:`COLUMNS`.

    rows: of cross-NLI, one or several systems, with the columns of :func:`truth`. Rows that a rule decides are left
    out: they say nothing of a method, and 0 for SMILES on both sides would flatter every one. low, high: 95 % of
    resampled ids, an id's outputs drawn together. NaN where the score or the truth is the same in every row.
    """
    judged = rows[~rows["rule"].isin(UNJUDGED)]
    lines = []
    for method, group in judged.groupby("method", sort=False):
        for quantity, wanted in TRUTH_OF.items():
            defined = group.dropna(subset=[quantity, wanted])
            x, y = (defined[name].to_numpy(dtype=float) for name in (quantity, wanted))
            found = _with_intervals(x, y, defined["id"].to_numpy(), resamples, seed)
            lines.append((method, quantity, wanted, len(defined), *found))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _with_intervals(x: np.ndarray, y: np.ndarray, ids: np.ndarray, resamples: int, seed: int) -> list[float]:
    """Spearman, low, high."""
    codes, names = pd.factorize(ids)
    if len(x) < 3 or len(names) < 2:
        return [math.nan] * 3
    rows_of = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])

    def spearman(drawn: np.ndarray) -> float:  # NaN where a column is constant
        rows = np.concatenate([rows_of[code] for code in drawn])
        a, b = (rankdata(side[rows]) - (len(rows) + 1) / 2 for side in (x, y))
        size = math.sqrt(float(a @ a) * float(b @ b))
        return float(a @ b) / size if size > 1e-12 * len(rows) else math.nan

    n = len(names)
    return [spearman(np.arange(n)), *bootstrap(spearman, n, resamples=resamples, seed=seed)]
