"""Quantities of single outputs: modality, copies, edits, length, and the papers' win rates with their curves."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein

from lmolt_utils.metrics.intervals import wilson


def character_ter(references: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """CharacTER of each row, shape (n,), 0..1, lower is better (Wang et al. 2016; ALMol, section 4.5), of SMILES.

    Character edits over the length of the prediction, cut at 1; an empty prediction of a non-empty reference scores 1.
    The metric also moves phrases; with a reference of one word, as a SMILES string is, it never does.
    """
    sides = ([" ".join(text.split()) for text in side] for side in (references, predictions))
    rows = [
        float(r != p) if not p else min(1.0, Levenshtein.distance(r, p) / len(p)) for r, p in zip(*sides, strict=True)
    ]
    return np.array(rows, dtype=float)


def copied(predictions: Sequence[str], training: Iterable[str]) -> np.ndarray:
    """Which outputs are a training target word for word (spaces aside), shape (n,), bool; empty ones are not."""
    seen = {" ".join(text.split()) for text in training} - {""}
    return np.array([" ".join(text.split()) in seen for text in predictions], dtype=bool)


# ---- modality ----

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
    is written in SMILES symbols, whole or broken; "other": neither ("aspirin", "Cl insulat=Cl").
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


# ---- win rates (Feedback-aligned Mixed LLMs, section 3.4): the share of outputs that pass every criterion ----
#
# The paper says only that its thresholds were found experimentally (audit D35), on what is not said; hence the curves.

CHR_F = 0.3  # the paper's: Chr-F must be greater
LENGTH = 5  # the paper's: |length deviation| in characters must be less


def molecule_wins(samples: pd.DataFrame, chr_f: float = CHR_F, length: float = LENGTH) -> np.ndarray:
    """Which molecules win, shape (n,), bool: Chr-F (0..1) and length (characters) pass their strict thresholds, and
    RDKit reads them. An empty output is valid by RDKit but no molecule: its Chr-F is 0, so it loses."""
    near = samples["length_deviation"].abs() < length
    return np.asarray((samples["Chr-F"] > chr_f) & near & (samples["Validity"] == 1))


def caption_wins(probabilities: pd.DataFrame, threshold: float | None = None) -> np.ndarray:
    """Which captions win, shape (n,), bool: those that the NLI model calls entailed by their reference.

    threshold None: entailment is the likeliest of the three, the paper's "classified as entailment"; else its
    probability must be greater. An undefined one (empty reference) does not win, nor does one of 0 (no caption).
    """
    others = probabilities[["neutral", "contradiction"]].astype(float).max(axis=1)
    return np.asarray(probabilities["entailment"].astype(float) > (others if threshold is None else threshold))


def win_rate(wins: np.ndarray) -> dict[str, float | int]:
    """Share of wins with Wilson's 95 % interval: value, low, high, n. Raises ValueError without rows."""
    if not len(wins):
        raise ValueError("no rows, no win rate")
    low, high = wilson(float(np.mean(wins)), len(wins))
    return {"value": float(np.mean(wins)), "low": low, "high": high, "n": len(wins)}


def molecule_curve(samples: pd.DataFrame) -> pd.DataFrame:
    """Win rate over a grid of both thresholds: columns chr_f, length, value, low, high, n."""
    grid = [(c, d) for d in (1, 2, 5, 10, 20, 50, np.inf) for c in np.linspace(0, 1, 21)]
    return pd.DataFrame([{"chr_f": c, "length": d, **win_rate(molecule_wins(samples, c, d))} for c, d in grid])


def caption_curve(probabilities: pd.DataFrame) -> pd.DataFrame:
    """Win rate over the entailment threshold: columns threshold, value, low, high, n."""
    thresholds = np.linspace(0, 1, 21)
    return pd.DataFrame([{"threshold": t, **win_rate(caption_wins(probabilities, t))} for t in thresholds])
