"""Corpus BLEU from counts per row, as nltk defines it: any tokens, one reference per row, no smoothing.

The counts of all rows are taken in one pass over integer n-gram numbers, several times faster than counting
tuples, with the same integers. Kept per row, they also give the BLEU of any resample of the rows by addition
(Papineni et al. 2002 define it over sums), which is what a bootstrap needs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ORDER = 4  # longest n-grams counted
BLEU_ORDERS = {"BLEU-2": 2, "BLEU-4": 4, "BLEU": 4}  # longest n-gram of each metric by name


@dataclass(frozen=True, eq=False)
class BleuStatistics:
    """What BLEU needs to know of each of n rows.

    matches: n-grams of the prediction that the reference has too, each at most as often as there, orders 1 to
    4, shape (n, 4). totals: all n-grams of the prediction, at least 1 (nltk's rule), shape (n, 4).
    prediction_lengths, reference_lengths: tokens, shape (n,).
    """

    matches: np.ndarray
    totals: np.ndarray
    prediction_lengths: np.ndarray
    reference_lengths: np.ndarray

    def score(self, order: int, weights: np.ndarray | None = None) -> np.ndarray:
        """BLEU (0..1) up to `order` with uniform weights, over all rows, or over resamples of them.

        weights: how often each row counts, shape (n,), or (b, n) for b resamples; None: once each.
        Returns shape () or (b,). Equal to nltk's `corpus_bleu` to the last bit. Where some order has no match
        the score is 0 or a number of no size (about 1e-80), as there.
        """
        if weights is None:
            weights = np.ones(len(self.totals), dtype=np.int64)
        rows = np.atleast_2d(weights)
        # Sums of counts stay below 2^53, so a product of floats (BLAS) has the same values as one of integers.
        columns = np.column_stack(
            [self.matches, self.totals, self.prediction_lengths[:, None], self.reference_lengths[:, None]]
        )
        sums = rows.astype(float) @ columns.astype(float)
        values = np.array([_bleu(line, order) for line in sums.tolist()])
        return values if np.ndim(weights) == 2 else values[0]


def _bleu(sums: list[float], order: int) -> float:
    matches, totals, (prediction, reference) = sums[:ORDER], sums[ORDER : 2 * ORDER], sums[2 * ORDER :]
    if matches[0] == 0:
        return 0.0
    # nltk's method 0 puts the smallest normal float where an order has no match.
    precisions = [m / t if m else sys.float_info.min for m, t in zip(matches, totals, strict=True)][:order]
    brevity = 1.0 if prediction > reference else math.exp(1 - reference / prediction)
    return brevity * math.exp(math.fsum(1 / order * math.log(p) for p in precisions))


def bleu_statistics(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], orders: int = ORDER
) -> BleuStatistics:
    """The counts of n pairs of token sequences (lists of words, or strings for characters).

    orders: longest n-grams counted; matches of longer ones stay 0.

    Raises ValueError where the two differ in number.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions")
    n = len(references)
    lengths = np.array([len(tokens) for side in (references, predictions) for tokens in side], dtype=np.int64)
    tokens = _numbers(references, predictions)
    vocabulary = int(tokens.max(initial=0)) + 1
    row = np.repeat(np.tile(np.arange(n), 2), lengths)
    left = np.repeat(lengths, lengths) - _places(lengths)  # tokens from here to the end of the text
    is_prediction = np.arange(len(tokens)) >= lengths[:n].sum()

    matches = np.zeros((n, ORDER), dtype=np.int64)
    # `gram`: the n-gram that begins at a token, numbered so that equal grams of one row share a number.
    gram, _ = pd.factorize(row * vocabulary + tokens)
    kept = np.arange(len(tokens))
    for order in range(1, orders + 1):
        if order > 1:
            long_enough = left[kept] >= order
            kept = kept[long_enough]
            gram, _ = pd.factorize(gram[long_enough] * vocabulary + tokens[kept + order - 1])
        if not len(kept):
            break
        size = int(gram.max()) + 1
        ours = is_prediction[kept]
        common = np.minimum(np.bincount(gram[~ours], minlength=size), np.bincount(gram[ours], minlength=size))
        row_of = np.empty(size, dtype=np.int64)
        row_of[gram] = row[kept]
        matches[:, order - 1] = np.bincount(row_of, weights=common, minlength=n)
    totals = np.maximum(lengths[n:, None] - np.arange(ORDER), 1)
    return BleuStatistics(matches, totals, lengths[n:], lengths[:n])


def _numbers(*sides: Sequence[Sequence[str]]) -> np.ndarray:
    """All tokens of all texts in a row, each distinct one a number."""
    if all(isinstance(text, str) for side in sides for text in side):
        joined = "".join(text for side in sides for text in side)  # type: ignore[misc]
        return np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    table: dict[str, int] = {}
    numbers = [table.setdefault(token, len(table)) for side in sides for text in side for token in text]
    return np.array(numbers, dtype=np.int64)


def _places(lengths: np.ndarray) -> np.ndarray:
    """0, 1, 2 ... within each text."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
