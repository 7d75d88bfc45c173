"""Relative entropy between the scores of two systems, with the choices that the paper leaves open (Figs. 6, 7, 10).

Less for More names no estimator. Here: D(P || Q) in nats, P the scores of the preferred system, Q those of the
dispreferred one on the same rows; 20 bins of equal width over 0..1, the last closed; half a count (Jeffreys) in every
bin of both. Few rows alone give large values, and relative entropy has no sign: so beside each value stand what chance
gives, and the mean difference.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from lmolt_utils.errors import CompanionError
from lmolt_utils.metrics.intervals import bootstrap, percentiles

BINS = 20
JEFFREYS = 0.5
#: Rows below which a histogram of 20 bins says nothing.
FEWEST = 30
#: Words of the reference from which the paper calls a caption long and extreme (Figs. 7 and 10).
CUTS = (50, 70)
#: What :func:`by_length` tells of the rows whose reference has at least so many ``words``.
COLUMNS = (
    *("words", "n"),  # n: rows with a score on both sides
    *("kl", "low", "high"),  # D(preferred || dispreferred), nats; 95 % over resampled rows
    *("null", "p"),  # mean when each row's labels are swapped at random; share of swaps with at least this kl
    *("difference", "difference_low", "difference_high"),  # mean of preferred minus dispreferred, and its interval
    "reason",  # why the numbers are NaN, empty where they are not
    *("random", "random_low", "random_high"),  # what random subsets of as many rows give: mean, and 95 % of them
)

Scores = Sequence[float] | np.ndarray


def bin_of(scores: Scores, bins: int = BINS) -> np.ndarray:
    """The bin, 0..bins-1, of each score in 0..1, shape (n,)."""
    # Rounded first: 0.15 * 20 is 3.0000000000000004 in one order of operations and 2.9999999999999996 in another.
    places = np.floor(np.round(np.asarray(scores, dtype=float) * bins, 9)).astype(int)
    return np.clip(places, 0, bins - 1)


def entropy(p_counts: np.ndarray, q_counts: np.ndarray, smoothing: float = JEFFREYS) -> np.ndarray:
    """Relative entropy in nats of counts, shapes (..., bins) to (...); inf where unsmoothed supports differ."""
    p, q = (np.asarray(counts) + smoothing for counts in (p_counts, q_counts))
    terms = rel_entr(p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True))
    return np.asarray(terms.sum(axis=-1))


def relative_entropy(preferred: Scores, dispreferred: Scores, bins: int = BINS, smoothing: float = JEFFREYS) -> float:
    """D(preferred || dispreferred), nats, of scores in 0..1 (the two may differ in number)."""
    p_counts, q_counts = (_counts(bin_of(side, bins), bins) for side in (preferred, dispreferred))
    return float(entropy(p_counts, q_counts, smoothing))


def _counts(places: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Rows per bin, shapes (..., n) to (..., bins)."""
    return np.asarray(np.apply_along_axis(np.bincount, -1, places, minlength=bins))


def divergence(preferred: Scores, dispreferred: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Compare two systems' scores, 0..1, of the same rows in the same order: :data:`COLUMNS` from n to reason.

    Rows with a NaN on either side are left out. Fewer than 30 rows have no numbers, but a reason.
    """
    p, q = _defined(preferred, dispreferred)
    n = len(p)
    told: dict[str, Any] = {"n": n, "reason": ""}
    if n < FEWEST:
        return told | {"reason": f"{n} rows, and a histogram of {BINS} bins needs {FEWEST}"}
    p_places, q_places = bin_of(p), bin_of(q)
    p_counts, q_counts = _counts(p_places), _counts(q_places)
    kl = float(entropy(p_counts, q_counts))
    rng = np.random.default_rng(seed)
    low, high = bootstrap(
        lambda rows: entropy(_counts(p_places[rows]), _counts(q_places[rows])), n, resamples=resamples, seed=rng
    )
    difference_low, difference_high = bootstrap(lambda rows: (p - q)[rows].mean(), n, resamples=resamples, seed=seed)
    ones = _counts(np.where(rng.random((resamples, n)) < 0.5, q_places, p_places))
    swapped = entropy(ones, p_counts + q_counts - ones)
    return told | {
        "kl": kl,
        "low": low,
        "high": high,
        "null": float(swapped.mean()),
        # Sums in another order may differ in the last digit and are equal.
        "p": float((1 + (swapped >= kl - 1e-12).sum()) / (1 + resamples)),
        "difference": float((p - q).mean()),
        "difference_low": difference_low,
        "difference_high": difference_high,
    }


def _defined(preferred: Scores, dispreferred: Scores) -> tuple[np.ndarray, np.ndarray]:
    """The rows that both sides have a score of."""
    p, q = np.asarray(preferred, dtype=float), np.asarray(dispreferred, dtype=float)
    defined = ~(np.isnan(p) | np.isnan(q))
    return p[defined], q[defined]


def by_length(
    preferred: Scores,
    dispreferred: Scores,
    words: Sequence[int] | np.ndarray,
    *,
    cuts: Sequence[int] = CUTS,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """All rows, and those whose reference has at least so many words: a line each, :data:`COLUMNS`."""
    p, q, length = (np.asarray(side, dtype=float) for side in (preferred, dispreferred, words))
    p_places, q_places = (bin_of(side) for side in _defined(p, q))
    lines = []
    for cut in (0, *cuts):
        rows = length >= cut
        line = {"words": cut, **divergence(p[rows], q[rows], resamples=resamples, seed=seed)}
        if cut and not line["reason"]:
            rng = np.random.default_rng(seed)
            some = np.stack([rng.choice(len(p_places), line["n"], replace=False) for _ in range(resamples)])
            drawn = entropy(_counts(p_places[some]), _counts(q_places[some]))
            low, high = percentiles(drawn)
            line |= {"random": drawn.mean(), "random_low": low, "random_high": high}
        lines.append(line)
    return pd.DataFrame(lines).reindex(columns=list(COLUMNS))


def divergences(
    rows: pd.DataFrame, preferred: str, dispreferred: str, *, cuts: Sequence[int] = CUTS, seed: int = 0
) -> pd.DataFrame:
    """Relative entropy in coverage of two systems by method and cut (Figs. 6, 7 and 10): method and :data:`COLUMNS`.

    rows: system, id, method, coverage and words (of the reference).
    Raises :class:`CompanionError` for a system without rows, or two with different ones.
    """
    better, worse = (rows[rows["system"] == name].set_index(["method", "id"]) for name in (preferred, dispreferred))
    if better.empty or not better.index.equals(worse.index):
        raise CompanionError(f"{preferred} and {dispreferred} have no NLI scores of the same rows: run both anew")
    both = better.assign(worse=worse["coverage"].to_numpy()).groupby("method", sort=False)
    tables = {
        method: by_length(*(side[name].to_numpy() for name in ("coverage", "worse", "words")), cuts=cuts, seed=seed)
        for method, side in both
    }
    return pd.concat(tables, names=["method"]).reset_index("method").reset_index(drop=True)


def sensitivity(preferred: Scores, dispreferred: Scores) -> pd.DataFrame:
    """Relative entropy of the same scores under other choices: bins, smoothing (counts per bin), kl; nats."""
    choices = [(bins, smoothing) for smoothing in (1e-10, 0.1, JEFFREYS, 1.0) for bins in (5, 10, 20, 50, 100)]
    lines = [(*choice, relative_entropy(*_defined(preferred, dispreferred), *choice)) for choice in choices]
    return pd.DataFrame(lines, columns=["bins", "smoothing", "kl"])
