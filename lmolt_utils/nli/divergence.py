"""Relative entropy between the scores of two systems, with the choices that the paper leaves open (Figs. 6, 7, 10).

Less for More prints 0.54 for all captions and 2.53 for long ones and names no estimator. Here: D(P || Q) in nats, P the
scores of the preferred system, Q those of the dispreferred one on the same rows; 20 bins of equal width over 0..1, the
last closed; Jeffreys smoothing, half a count in every bin of both. Fewer rows or finer bins give larger values for the
same systems, so beside each value stand its bootstrap interval, what swapping the systems' labels gives (permutation
null), and, for a cut of the rows, what random rows of the same number give. Relative entropy has no sign: whether the
preferred system is preferred is the mean difference.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from lmolt_utils.errors import CompanionError

BINS = 20
JEFFREYS = 0.5
#: Rows below which a histogram of 20 bins says nothing.
FEWEST = 30
#: Words of the reference from which the paper calls a caption long and extreme (Figs. 7 and 10).
CUTS = (50, 70)

Scores = Sequence[float] | np.ndarray


class DivergenceError(CompanionError):
    """Scores that cannot be compared."""


@dataclass(frozen=True)
class Divergence:
    """What two systems' scores of the same ``n`` rows differ by.

    kl: D(preferred || dispreferred), nats; low, high: its 95 % interval over resampled rows (paired). null: mean when
    the labels of each row are swapped at random; p: share of swaps with at least this kl, itself included.
    reverse: D(dispreferred || preferred). js: Jensen-Shannon, nats, at most ln 2. wasserstein: distance of the
    scores themselves, in their unit. difference: mean of preferred minus dispreferred, with its interval.
    dropped: rows left out because a score is undefined. reason: why the numbers are NaN, empty where they are not.
    """

    n: int
    dropped: int
    kl: float = math.nan
    low: float = math.nan
    high: float = math.nan
    null: float = math.nan
    p: float = math.nan
    reverse: float = math.nan
    js: float = math.nan
    wasserstein: float = math.nan
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    reason: str = ""


def bin_of(scores: Scores, bins: int = BINS) -> np.ndarray:
    """The bin, 0..bins-1, of each score in 0..1, shape (n,). Raises :class:`DivergenceError` for others."""
    values = np.asarray(scores, dtype=float)
    if not ((values >= -1e-9) & (values <= 1 + 1e-9)).all():
        raise DivergenceError("scores must lie in 0..1: bring SummaC-ZS there by (s + 1) / 2 and leave out NaN")
    # Rounded first: 0.15 * 20 is 3.0000000000000004 in one order of operations and 2.9999999999999996 in another.
    return np.clip(np.floor(np.round(values * bins, 9)).astype(int), 0, bins - 1)


def entropy(p_counts: np.ndarray, q_counts: np.ndarray, smoothing: float = JEFFREYS) -> np.ndarray:
    """Relative entropy in nats of counts, shapes (..., bins) to (...); inf where unsmoothed supports differ."""
    p, q = (np.asarray(counts) + smoothing for counts in (p_counts, q_counts))
    terms = rel_entr(p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True))
    return np.asarray(terms.sum(axis=-1))


def relative_entropy(
    preferred: Scores, dispreferred: Scores, *, bins: int = BINS, smoothing: float = JEFFREYS
) -> float:
    """D(preferred || dispreferred), nats, of scores in 0..1 (the two may differ in number)."""
    p_counts, q_counts = (_counts(bin_of(side, bins), bins) for side in (preferred, dispreferred))
    return float(entropy(p_counts, q_counts, smoothing))


def _counts(places: np.ndarray, bins: int) -> np.ndarray:
    return np.bincount(places, minlength=bins)


def divergence(
    preferred: Scores,
    dispreferred: Scores,
    *,
    bins: int = BINS,
    smoothing: float = JEFFREYS,
    resamples: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
) -> Divergence:
    """Compare two systems' scores of the same rows, in the same order.

    Rows with a NaN on either side are left out and counted. Fewer than 30 rows give NaN and the reason.
    Raises :class:`DivergenceError` where the lists differ in length or a score is outside 0..1.
    """
    p_all, q_all = np.asarray(preferred, dtype=float), np.asarray(dispreferred, dtype=float)
    if len(p_all) != len(q_all):
        raise DivergenceError(f"{len(p_all)} and {len(q_all)} scores: both systems need the same rows")
    defined = ~(np.isnan(p_all) | np.isnan(q_all))
    p, q = p_all[defined], q_all[defined]
    n, dropped = len(p), int((~defined).sum())
    if n < FEWEST:
        return Divergence(n, dropped, reason=f"{n} rows, and a histogram of {bins} bins needs {FEWEST}")
    p_places, q_places = bin_of(p, bins), bin_of(q, bins)
    p_counts, q_counts = _counts(p_places, bins), _counts(q_places, bins)
    kl = float(entropy(p_counts, q_counts, smoothing))
    rng = np.random.default_rng(seed)

    def resampled(rows: np.ndarray) -> tuple[float, float]:
        counts = (_counts(places[rows], bins) for places in (p_places, q_places))
        return float(entropy(*counts, smoothing)), float((p[rows] - q[rows]).mean())

    options = {"n_resamples": resamples, "vectorized": False, "method": "percentile", "rng": rng}
    drawn = stats.bootstrap((np.arange(n),), resampled, **options)
    (low, high), (difference_low, difference_high) = np.quantile(drawn.bootstrap_distribution, [0.025, 0.975], axis=1).T
    swaps = (np.where(rng.random(n) < 0.5, q_places, p_places) for _ in range(permutations))
    ones = np.array([_counts(places, bins) for places in swaps])
    swapped = entropy(ones, p_counts + q_counts - ones, smoothing)
    return Divergence(
        n,
        dropped,
        kl=kl,
        low=float(low),
        high=float(high),
        null=float(swapped.mean()),
        # A swap of every row gives the reverse divergence: the tolerance is for equal ones, added in another order.
        p=float((1 + (swapped >= kl - 1e-12).sum()) / (1 + permutations)),
        reverse=float(entropy(q_counts, p_counts, smoothing)),
        js=float(jensenshannon(p_counts + smoothing, q_counts + smoothing) ** 2),
        wasserstein=float(stats.wasserstein_distance(p, q)),
        difference=float((p - q).mean()),
        difference_low=float(difference_low),
        difference_high=float(difference_high),
    )


def by_length(
    preferred: Scores,
    dispreferred: Scores,
    words: Sequence[int] | np.ndarray,
    *,
    cuts: Sequence[int] = CUTS,
    subsets: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """All rows, and those whose reference has at least so many words: one line each.

    Columns: words, those of :class:`Divergence`, and for a cut what random subsets of as many rows give: random (mean),
    random_low, random_high (95 % of them), random_p (share with at least the cut's kl, itself included). A cut
    discriminates better than the rows at large only if its kl is above random_high.
    """
    p, q, length = (np.asarray(side, dtype=float) for side in (preferred, dispreferred, words))
    if not len(p) == len(q) == len(length):
        raise DivergenceError(f"{len(p)} and {len(q)} scores, {len(length)} lengths: give one of each per row")
    usable = ~(np.isnan(p) | np.isnan(q))
    p_places, q_places = bin_of(p[usable]), bin_of(q[usable])
    lines = []
    for cut in (0, *cuts):
        rows = length >= cut
        found = divergence(p[rows], q[rows], seed=seed)
        line = {"words": cut, **asdict(found)}
        if cut and not found.reason:
            rng = np.random.default_rng(seed)
            drawn = np.empty(subsets)
            for index in range(subsets):
                some = rng.choice(len(p_places), found.n, replace=False)
                drawn[index] = entropy(_counts(p_places[some], BINS), _counts(q_places[some], BINS))
            low, high = np.quantile(drawn, [0.025, 0.975])
            share = (1 + (drawn >= found.kl - 1e-12).sum()) / (1 + subsets)
            line |= {"random": drawn.mean(), "random_low": low, "random_high": high, "random_p": share}
        lines.append(line)
    columns = ["words", *asdict(Divergence(0, 0)), "random", "random_low", "random_high", "random_p"]
    return pd.DataFrame(lines).reindex(columns=columns)


def divergences(
    rows: pd.DataFrame, preferred: str, dispreferred: str, *, cuts: Sequence[int] = CUTS, seed: int = 0
) -> pd.DataFrame:
    """Relative entropy in coverage between two systems for each NLI method and cut (Figs. 6, 7 and 10).

    rows: system, id, method, coverage and words (of the reference). Columns: method and those of :func:`by_length`.
    Raises :class:`DivergenceError` for a system without rows, or two with different ones.
    """
    sides = {name: rows[rows["system"] == name] for name in (preferred, dispreferred)}
    for system, side in sides.items():
        if side.empty:
            raise DivergenceError(f"{system} has no NLI scores: run its notebook first")
    tables = []
    for method, better in sides[preferred].groupby("method", sort=False):
        worse = sides[dispreferred][sides[dispreferred]["method"] == method]
        if list(better["id"]) != list(worse["id"]):
            raise DivergenceError(f"{preferred} and {dispreferred} were not run on the same rows")
        scores = (better["coverage"].to_numpy(), worse["coverage"].to_numpy())
        table = by_length(*scores, better["words"].to_numpy(), cuts=cuts, seed=seed)
        table.insert(0, "method", method)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def sensitivity(
    preferred: Scores,
    dispreferred: Scores,
    *,
    bins: Sequence[int] = (5, 10, 20, 50, 100),
    smoothing: Sequence[float] = (1e-10, 0.1, JEFFREYS, 1.0),
) -> pd.DataFrame:
    """Relative entropy of the same scores under other choices: bins, smoothing (counts per bin), kl; nats.

    Rows with a NaN on either side are left out.
    """
    p, q = np.asarray(preferred, dtype=float), np.asarray(dispreferred, dtype=float)
    defined = ~(np.isnan(p) | np.isnan(q))
    lines = [
        {"bins": b, "smoothing": s, "kl": relative_entropy(p[defined], q[defined], bins=b, smoothing=s)}
        for s in smoothing
        for b in bins
    ]
    return pd.DataFrame(lines)
