"""Win rates (Feedback-aligned Mixed LLMs, section 3.4): the share of outputs that pass every criterion.

A molecule wins if its Chr-F is above a threshold, its length is less than so many characters off and RDKit reads it; a
caption wins if the NLI model calls it entailed by its reference; an output that is empty or no caption is not asked
about and loses (the rules of :mod:`~lmolt_utils.nli.cross_nli`). The paper says only that its thresholds were found
experimentally (audit D35), on what is not said; hence the curves.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lmolt_utils.metrics.intervals import wilson

CHR_F = 0.3  # the paper's: Chr-F must be greater
LENGTH = 5  # the paper's: |length deviation| in characters must be less

NLI_LABELS = ("entailment", "neutral", "contradiction")


def molecule_wins(samples: pd.DataFrame, chr_f: float = CHR_F, length: float = LENGTH) -> np.ndarray:
    """Which molecules win, shape (n,), bool; strict inequalities, as printed.

    samples: columns chr_f (0..1), length_deviation (characters) and Validity (1 where RDKit reads the output). An
    empty output is valid by RDKit but no molecule: its Chr-F is 0, so it loses at any threshold >= 0. Raises
    ValueError naming a missing column.
    """
    similar, off, readable = _criteria(samples)
    return (similar > chr_f) & (off < length) & readable


def _criteria(samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a molecule wins by: Chr-F, how many characters it is off, whether it can be read; each of shape (n,)."""
    _need(samples, ("chr_f", "length_deviation", "Validity"))
    columns = (samples[name].to_numpy(dtype=float) for name in ("chr_f", "length_deviation", "Validity"))
    similar, deviation, valid = columns
    return similar, np.abs(deviation), valid == 1


def caption_wins(probabilities: pd.DataFrame, threshold: float | None = None) -> np.ndarray:
    """Which captions win, shape (n,), bool.

    probabilities: columns entailment, neutral, contradiction (0..1). threshold None: entailment is the likeliest of
    the three, which is the paper's "classified as entailment"; else its probability must be greater. An undefined
    one (empty reference) does not win.
    """
    if threshold is not None:
        _need(probabilities, NLI_LABELS[:1])
        return np.asarray(probabilities["entailment"].astype(float) > threshold)
    _need(probabilities, NLI_LABELS)
    values = probabilities[list(NLI_LABELS)].astype(float)
    return np.asarray(values["entailment"] > values[list(NLI_LABELS[1:])].max(axis=1))


def win_rate(wins: np.ndarray) -> dict[str, float | int]:
    """Share of wins with Wilson's 95 % interval: value, low, high, n. Raises ValueError without rows."""
    if not len(wins):
        raise ValueError("no rows, no win rate")
    low, high = wilson(float(np.mean(wins)), len(wins))
    return {"value": float(np.mean(wins)), "low": low, "high": high, "n": len(wins)}


def molecule_curve(
    samples: pd.DataFrame,
    chr_f: Sequence[float] = tuple(np.linspace(0, 1, 21)),
    length: Sequence[float] = (1, 2, 5, 10, 20, 50, np.inf),
) -> pd.DataFrame:
    """Win rate over the grid of both thresholds: columns chr_f, length, value, low, high, n."""
    similar, off, readable = _criteria(samples)
    grid = [(c, d) for d in length for c in chr_f]
    lines = [{"chr_f": c, "length": d, **win_rate((similar > c) & (off < d) & readable)} for c, d in grid]
    return pd.DataFrame(lines)


def caption_curve(
    probabilities: pd.DataFrame, threshold: Sequence[float] = tuple(np.linspace(0, 1, 21))
) -> pd.DataFrame:
    """Win rate over the entailment threshold: columns threshold, value, low, high, n."""
    return pd.DataFrame([{"threshold": t, **win_rate(caption_wins(probabilities, t))} for t in threshold])


def head_to_head(scores: pd.DataFrame) -> pd.DataFrame:
    """How often the row's system scores higher than the column's, ties as half; square, NaN on the diagonal.

    scores: one column per system, one row per test molecule (higher is better): the cross win rate of Fig. 2.
    """
    values = scores.to_numpy(dtype=float)
    higher = (values[:, :, None] > values[:, None, :]).mean(axis=0)
    equal = (values[:, :, None] == values[:, None, :]).mean(axis=0)
    result = higher + equal / 2
    np.fill_diagonal(result, np.nan)
    return pd.DataFrame(result, index=scores.columns, columns=scores.columns)


def _need(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"win rates need the column(s) {', '.join(missing)}; given are {', '.join(frame.columns)}")
