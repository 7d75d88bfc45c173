"""Metrics of n-grams: corpus BLEU as nltk defines it, Chr-F as sacrebleu does.

Counts are kept per row: added up they give the BLEU of any resample of the rows, which is what a bootstrap needs.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nltk.translate.bleu_score import modified_precision
from sacrebleu.metrics import CHRF

ORDER = 4  # longest n-grams counted
BLEU_ORDERS = {"BLEU-2": 2, "BLEU-4": 4, "BLEU": 4}  # longest n-gram of each metric by name

Texts = Sequence[Sequence[str]]  # lists of tokens, or strings for characters


@dataclass(frozen=True, eq=False)
class BleuStatistics:
    """What BLEU needs to know of each of n rows.

    matches: n-grams of the prediction that the reference has too, each at most as often as there, shape (n, 4). totals:
    all n-grams of the prediction, at least 1 (nltk's rule), shape (n, 4). The lengths are in tokens, shape (n,).
    """

    matches: np.ndarray
    totals: np.ndarray
    prediction_lengths: np.ndarray
    reference_lengths: np.ndarray

    def rows(self) -> np.ndarray:
        """The counts as floats, shape (n, 10): what :func:`bleu` takes sums of."""
        lengths = self.prediction_lengths[:, None], self.reference_lengths[:, None]
        return np.concatenate([self.matches, self.totals, *lengths], axis=1, dtype=float)

    def score(self, order: int) -> float:
        """BLEU (0..1) of all rows up to `order`, with uniform weights."""
        return float(bleu(self.rows().sum(axis=0), order))


def bleu(sums: np.ndarray, order: int) -> np.ndarray:
    """Corpus BLEU (0..1) of summed counts, shape (..., 10) to (...), equal to nltk's `corpus_bleu` to the last bit.

    Where some order has no match the score is 0 or a number of no size (about 1e-80), as there.
    """
    values = [_bleu(line, order) for line in sums.reshape(-1, 2 * ORDER + 2).tolist()]
    return np.array(values).reshape(sums.shape[:-1])


def _bleu(sums: list[float], order: int) -> float:
    prediction, reference = sums[-2:]
    if sums[0] == 0:
        return 0.0
    # nltk's method 0 puts the smallest normal float where an order has no match.
    precisions = [sums[n] / sums[ORDER + n] if sums[n] else sys.float_info.min for n in range(order)]
    brevity = 1.0 if prediction > reference else math.exp(1 - reference / prediction)
    return brevity * math.exp(math.fsum([1 / order * math.log(p) for p in precisions]))


def bleu_statistics(references: Texts, predictions: Texts) -> BleuStatistics:
    """The counts of n pairs of texts."""
    counts = np.zeros((2, len(references), ORDER), dtype=np.int64)
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        for order in range(ORDER):
            precision = modified_precision([reference], prediction, order + 1)
            counts[:, row, order] = precision.numerator, precision.denominator
    lengths = [np.array([len(text) for text in side], dtype=np.int64) for side in (predictions, references)]
    return BleuStatistics(*counts, *lengths)


def chr_f(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Chr-F of each row, shape (n,), 0..1, by sacrebleu: F1 of character uni-, bi- and trigrams, spaces left out.

    The papers do not state beta: 1. An order that a text is too short for scores 0, so "CC" against itself gives 2/3.
    """
    metric = CHRF(char_order=3, word_order=0, beta=1, eps_smoothing=True)
    pairs = zip(predictions, references, strict=True)
    return np.array([metric.sentence_score(output, [reference]).score / 100 for output, reference in pairs])
