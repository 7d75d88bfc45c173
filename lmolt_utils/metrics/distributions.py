"""Per-sample quantities whose distributions the papers plot (ALMol, section 4.5; Less for More, figures)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from rapidfuzz.distance import Levenshtein

from lmolt_utils.metrics.bleu import bleu_statistics


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


CHR_F_ORDER = 3


def chr_f(references: Sequence[str], predictions: Sequence[str], beta: float = 1.0) -> np.ndarray:
    """Chr-F of each row, shape (n,), 0..1: the mean of the F scores of character uni-, bi- and trigrams.

    Equal to sacrebleu's sentence CHRF with char_order 3, word_order 0 and eps_smoothing (without that it gives the F
    of averaged precision and recall, not the average of three Fs), from one pass over all rows. Whitespace is not
    counted. An order that a text is too short for scores 0, so "CC" against itself gives 2/3.
    beta: weight of recall; the papers do not state it, 1 is ours. Raises ValueError where the two differ in number.
    """
    wanted, given = (["".join(text.split()) for text in side] for side in (references, predictions))
    counts = bleu_statistics(wanted, given)
    grams = [
        np.maximum(lengths[:, None] - np.arange(CHR_F_ORDER), 0)
        for lengths in (counts.prediction_lengths, counts.reference_lengths)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = (counts.matches[:, :CHR_F_ORDER] / side for side in grams)
        f = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    return np.asarray(np.nan_to_num(f, nan=0.0).mean(axis=1))


def character_edits(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Character edits (Levenshtein) and characters of the reference, shape (n, 2).

    The character error rate of a corpus is the sum of the first over the sum of the second: jiwer's and
    torchmetrics' definition, without a cap, so a long wrong output costs more than 1.
    """
    pairs = zip(references, predictions, strict=True)
    return np.array([(Levenshtein.distance(r, p), len(r)) for r, p in pairs], dtype=np.int64).reshape(-1, 2)


SHIFT_WORDS = 200  # texts with more words than this are compared as they stand, without moves


def character_ter(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """CharacTER of each row, shape (n,), 0..1, lower is better (Wang et al. 2016; ALMol, section 4.5).

    Phrases of the prediction are moved to where the reference has them, each time the move that leaves the fewest
    word edits, while that helps; a moved phrase costs the average length of its words. To this come the character
    edits that are left; the sum is divided by the length of the prediction and cut at 1. An empty prediction of a
    non-empty reference scores 1. Counted as the authors' tool counts. A SMILES string is one word and cannot be
    moved: min(1, edits / length of the prediction).
    """
    return np.array([_character_ter(r, p) for r, p in zip(references, predictions, strict=True)], dtype=float)


def _character_ter(reference: str, prediction: str) -> float:
    wanted, words = reference.split(), prediction.split()
    if words == wanted:
        return 0.0
    cost = 0.0
    if wanted and 1 < len(words) <= SHIFT_WORDS and len(wanted) <= SHIFT_WORDS:
        # One character per word, in the words' order: edits are counted on plain strings.
        alphabet = sorted({*wanted, *words})
        letter = {word: chr(0x4E00 + index) for index, word in enumerate(alphabet)}
        before, goal = ("".join(map(letter.__getitem__, side)) for side in (words, wanted))
        after = _moved(goal, before)
        words = [alphabet[ord(sign) - 0x4E00] for sign in after]
        cost = _move_cost(before, after, {letter[word]: len(word) for word in alphabet})
    text = " ".join(words)
    if not text:
        return 1.0
    return min(1.0, (Levenshtein.distance(text, " ".join(wanted)) + cost) / len(text))


def _moved(wanted: str, words: str) -> str:
    """``words`` (one character each) after all moves that bring them closer to ``wanted``."""
    distance = Levenshtein.distance(words, wanted)
    while True:
        found = {(Levenshtein.distance(moved, wanted), moved) for moved in _moves(wanted, words)}
        fewest = min((left for left, _ in found), default=distance)
        if fewest >= distance:
            return words
        distance, words = fewest, max(moved for left, moved in found if left == fewest)


def _moves(wanted: str, words: str) -> Iterator[str]:
    """``words`` with one phrase that both have at different places put where ``wanted`` has it."""
    for start, place in ((i, j) for i, word in enumerate(words) for j, other in enumerate(wanted) if word == other):
        if start == place:
            continue
        length = 1
        while words[start + length : start + length + 1] == wanted[place + length : place + length + 1] != "":
            length += 1
        rest = words[:start] + words[start + length :]
        yield rest[:place] + words[start : start + length] + rest[place:]


def _move_cost(before: str, after: str, length_of: dict[str, int]) -> float:
    """Average word length of each phrase that stands later than it stood, summed."""
    cost, here = 0.0, 0
    while here < len(before):
        there = after.find(before[here], here + 1) if before[here] != after[here] else -1
        length = 1
        if there >= 0:
            while before[here + length : here + length + 1] == after[there + length : there + length + 1] != "":
                length += 1
            cost += sum(length_of[word] for word in before[here : here + length]) / length
        here += length
    return cost


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

#: What an output of each task ought to be.
RIGHT: dict[str, Modality] = {"mol2cap": "caption", "cap2mol": "molecule"}

# Whole SMILES and pieces of it: a bracket may lack its beginning or its end. Possessive, so that time is linear.
_SMILES_WORD = re.compile(r"(?:\[[^\[\]\s]*+|\]|H(?=[-+\d]*\])|Br|Cl|[BCNOPSFIbcnops]|[-=#$/\\:~.,+@()%*\d])++")
_LETTERS = re.compile(r"[^\W\d_](?:[^\W\d_]|['-])*[,.;:]?")


@lru_cache(65_536)
def modality(text: str) -> Modality:
    """What a text looks like, by its words alone (it need not be a valid molecule or a good caption).

    "caption": two or more words of letters that are not written in SMILES symbols; "molecule": otherwise, every word
    is written in SMILES symbols, whole or broken; "empty"; "other": neither ("aspirin", "Cl insulat=Cl"). Nothing else
    in the package decides what language an output is in.
    """
    words = text.split()
    if not words:
        return "empty"
    smiles = [bool(_SMILES_WORD.fullmatch(word)) for word in words]
    if sum(not s and bool(_LETTERS.fullmatch(w)) for s, w in zip(smiles, words, strict=True)) >= 2:
        return "caption"
    return "molecule" if all(smiles) else "other"


def right_modality(predictions: Sequence[str], task: str) -> np.ndarray:
    """Which outputs look like what the task asks for, shape (n,), bool."""
    return np.array([modality(text) == RIGHT[task] for text in predictions], dtype=bool)


def wrong_modality_rate(predictions: Sequence[str], task: str) -> float:
    """Share of outputs (0..1) that look like something else; empty ones are counted apart, not here."""
    return float(np.mean([modality(text) not in (RIGHT[task], "empty") for text in predictions]))
