"""Per-sample quantities whose distributions the papers plot (ALMol, section 4.5; Less for More, figures)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from sacrebleu.metrics.chrf import CHRF


def length_deviation(
    reference_lengths: Sequence[int] | np.ndarray, prediction_lengths: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Prediction minus reference, shape (n,): pieces of the caption tokenizer, or characters of a SMILES
    string.

    Negative where the prediction is too short. Raises ValueError where the two differ in length.
    """
    if len(reference_lengths) != len(prediction_lengths):
        raise ValueError(f"{len(reference_lengths)} reference and {len(prediction_lengths)} prediction lengths")
    return np.asarray(prediction_lengths, dtype=np.int64) - np.asarray(reference_lengths, dtype=np.int64)


@lru_cache
def _chrf(beta: float) -> CHRF:
    # sacrebleu spells beta as an int and computes with any number. Without eps_smoothing it would give the F
    # of averaged precision and recall, not the average of three Fs.
    return CHRF(char_order=3, word_order=0, beta=beta, eps_smoothing=True)  # type: ignore[arg-type]


def chr_f(references: Sequence[str], predictions: Sequence[str], beta: float = 1.0) -> np.ndarray:
    """Chr-F of each row, shape (n,), 0..1: the mean of the F scores of character uni-, bi- and trigrams.

    Whitespace is not counted. An order that a text is too short for scores 0, so "CC" against itself gives
    2/3.
    beta: weight of recall; the papers do not state it, 1 is ours.
    """
    scorer = _chrf(beta)
    scores = [scorer.sentence_score(p, [r]).score / 100 for r, p in zip(references, predictions, strict=True)]
    return np.array(scores, dtype=float)


def word_count(texts: Sequence[str]) -> np.ndarray:
    """Whitespace-separated words of each text, shape (n,)."""
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


Modality = Literal["molecule", "caption", "empty", "other"]

_SMILES_WORD = re.compile(r"(?:\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|[-=#$/\\:~.+@()%*\d])+")
_LETTERS = re.compile(r"[A-Za-z][A-Za-z'-]*[,.;:]?")


def modality(text: str) -> Modality:
    """What a text looks like, by its words alone (it need not be a valid molecule or a good caption).

    "caption": two or more words of letters that are not written in SMILES symbols; "molecule": otherwise,
    every word is written in SMILES symbols; "empty"; "other": neither ("aspirin").
    """
    words = text.split()
    if not words:
        return "empty"
    smiles = [bool(_SMILES_WORD.fullmatch(word)) for word in words]
    if sum(not s and bool(_LETTERS.fullmatch(w)) for s, w in zip(smiles, words, strict=True)) >= 2:
        return "caption"
    return "molecule" if all(smiles) else "other"


def wrong_modality_rate(predictions: Sequence[str], task: str) -> float:
    """Share of outputs (0..1) that look like the other task's: molecules for mol2cap, captions for
    cap2mol."""
    wrong = {"mol2cap": "molecule", "cap2mol": "caption"}[task]
    return float(np.mean([modality(text) == wrong for text in predictions]))
