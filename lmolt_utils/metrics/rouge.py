"""ROUGE-1, ROUGE-2 and ROUGE-L (F), as rouge_score computes them without a stemmer (Lin 2004).

rouge_score fills a table for the longest common subsequence in Python; rapidfuzz has the same length in
microseconds, and clipped n-gram matches are BLEU's. The F scores are equal to rouge_score's to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import LCSseq

from lmolt_utils.metrics.bleu import bleu_statistics

_WORD = re.compile(r"[a-z0-9]+")


def rouge(references: Sequence[str], predictions: Sequence[str]) -> dict[str, np.ndarray]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of each row, 0..1, shape (n,) each. Raw strings in, lower-cased here."""
    wanted, words = ([_WORD.findall(text.lower()) for text in side] for side in (references, predictions))
    counts = bleu_statistics(wanted, words, orders=2)
    lengths = counts.reference_lengths, counts.prediction_lengths
    values = {
        f"ROUGE-{n}": _f(counts.matches[:, n - 1], *(np.maximum(side - n + 1, 1) for side in lengths)) for n in (1, 2)
    }
    common = np.array([LCSseq.similarity(r, p) for r, p in zip(wanted, words, strict=True)], dtype=np.int64)
    return values | {"ROUGE-L": _f(common, *(np.maximum(side, 1) for side in lengths))}


def _f(matches: np.ndarray, reference_total: np.ndarray, prediction_total: np.ndarray) -> np.ndarray:
    precision, recall = matches / prediction_total, matches / reference_total
    both = precision + recall
    return np.divide(2 * precision * recall, both, out=np.zeros(len(both)), where=both > 0)
