"""Per-sample quantities whose distributions the papers plot (ALMol, section 4.5; Less for More, figures)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
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


def character_edits(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Character edits (Levenshtein) and characters of the reference, shape (n, 2).

    The character error rate of a corpus is the sum of the first over the sum of the second: jiwer's and
    torchmetrics' definition, without a cap, so a long wrong output costs more than 1.
    """
    pairs = zip(references, predictions, strict=True)
    return np.array([(Levenshtein.distance(r, p), len(r)) for r, p in pairs], dtype=np.int64).reshape(-1, 2)


SHIFT_WORDS = 100  # texts with more words than this are compared as they stand, without shifts


def character_ter(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """CharacTER of each row, shape (n,), 0..1, lower is better (Wang et al. 2016; ALMol, section 4.5).

    Phrases of the prediction are moved, each time the move that brings it closest to the reference in word edits,
    while that helps; each costs the average length of its words. To this come the character edits that are left;
    the sum is divided by the length of the prediction and cut at 1. An empty prediction of a non-empty reference
    scores 1. A SMILES string is one word and cannot be moved: min(1, edits / length of the prediction).
    """
    return np.array([_character_ter(r, p) for r, p in zip(references, predictions, strict=True)], dtype=float)


def _character_ter(reference: str, prediction: str) -> float:
    wanted, words = reference.split(), prediction.split()
    if words == wanted:
        return 0.0
    cost = 0.0
    if 1 < len(words) <= SHIFT_WORDS and len(wanted) <= SHIFT_WORDS:
        words, cost = _shifted(wanted, words)
    text = " ".join(words)
    if not text:
        return 1.0
    return min(1.0, (Levenshtein.distance(text, " ".join(wanted)) + cost) / len(text))


def _shifted(wanted: list[str], words: list[str]) -> tuple[list[str], float]:
    """``words`` after all moves that bring them closer to ``wanted``, and what the moves cost."""
    cost, distance = 0.0, Levenshtein.distance(words, wanted)
    while True:
        best = min(_moves(wanted, words), default=None)
        if best is None or best[0] >= distance:
            return words, cost
        distance, _, words, moved = best
        cost += sum(map(len, moved)) / len(moved)


def _moves(wanted: list[str], words: list[str]) -> Iterator[tuple[int, int, list[str], list[str]]]:
    """Every phrase that both texts have at different places, put where ``wanted`` has it.

    Yields the word edits left, minus the phrase's length (of equal moves the longest wins), the words after the
    move, the phrase.
    """
    places: dict[str, list[int]] = {}
    for place, word in enumerate(wanted):
        places.setdefault(word, []).append(place)
    for start, word in enumerate(words):
        for place in places.get(word, ()):
            if place == start:
                continue
            length = 1
            while (
                start + length < len(words)
                and place + length < len(wanted)
                and words[start + length] == wanted[place + length]
            ):
                length += 1
            phrase, rest = words[start : start + length], words[:start] + words[start + length :]
            moved = rest[:place] + phrase + rest[place:]
            yield Levenshtein.distance(moved, wanted), -length, moved, phrase


def copied(predictions: Sequence[str], training: Iterable[str]) -> np.ndarray:
    """Which outputs are a training target word for word (spaces aside), shape (n,), bool; empty ones are not.

    Molecules: give canonical SMILES on both sides, or another spelling of a training molecule goes unseen.
    """
    seen = {" ".join(text.split()) for text in training} - {""}
    return np.array([" ".join(text.split()) in seen for text in predictions], dtype=bool)


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
