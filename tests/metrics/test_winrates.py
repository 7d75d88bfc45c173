"""Win rates, and the per-row quantities they and ALMol's figures rest on."""

import math
import random

import numpy as np
import pandas as pd
import pytest
from lmolt_utils.metrics.winrates import (
    caption_curve,
    caption_wins,
    head_to_head,
    molecule_curve,
    molecule_wins,
    win_rate,
)
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.chrf import CHRF

from lmolt_utils.metrics.distributions import character_edits, character_ter, chr_f, copied

SAMPLES = pd.DataFrame(
    {
        "chr_f": [0.31, 0.30, 0.9, 0.9, 0.9, 0.0],
        "length_deviation": [4, 0, 5, -4, 0, 0],
        "Validity": [1, 1, 1, 1, 0, 1],
    }
)


def test_molecules_win_by_strict_thresholds() -> None:
    assert molecule_wins(SAMPLES).tolist() == [True, False, False, True, False, False]
    assert molecule_wins(SAMPLES, chr_f=0.0, length=math.inf).tolist() == [True, True, True, True, False, False]
    with pytest.raises(ValueError, match="Validity"):
        molecule_wins(SAMPLES.drop(columns="Validity"))


def test_captions_win_where_entailment_is_likeliest() -> None:
    frame = pd.DataFrame(
        {"entailment": [0.4, 0.45, 0.34], "neutral": [0.35, 0.5, 0.33], "contradiction": [0.25, 0.05, 0.33]}
    )
    assert caption_wins(frame).tolist() == [True, False, True]
    odd = pd.DataFrame({"contradiction": [0, None], "entailment": [0, None], "neutral": [1, None]})
    assert caption_wins(odd).tolist() == caption_wins(odd, 0.0).tolist() == [False, False], "no caption; no reference"
    assert caption_wins(frame, 0.4).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="neutral"):
        caption_wins(frame[["entailment"]])


def test_curves_fall_with_stricter_thresholds_and_pass_through_the_papers() -> None:
    rng = np.random.default_rng(0)
    samples = pd.DataFrame(
        {"chr_f": rng.random(300), "length_deviation": rng.integers(-30, 30, 300), "Validity": rng.integers(0, 2, 300)}
    )
    curve = molecule_curve(samples)
    here = curve[np.isclose(curve["chr_f"], 0.3) & (curve["length"] == 5)]
    assert here["value"].item() == win_rate(molecule_wins(samples))["value"]
    for _, part in curve.groupby("length"):
        assert (part["value"].diff().dropna() <= 0).all()
    for _, part in curve.groupby("chr_f"):
        assert (part["value"].diff().dropna() >= 0).all()
    assert ((curve["low"] <= curve["value"]) & (curve["value"] <= curve["high"])).all()
    captions = caption_curve(pd.DataFrame({"entailment": rng.random(50)}))
    assert (captions["value"].iloc[0], captions["value"].iloc[-1]) == (1, 0)
    with pytest.raises(ValueError, match="no rows"):
        win_rate(np.array([]))


def test_head_to_head_by_hand() -> None:
    table = head_to_head(pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [0.0, 2, 5, 1]}))
    assert table.loc["a", "b"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert table.loc["b", "a"] == pytest.approx(1 - 2.5 / 4)
    assert math.isnan(table.loc["a", "a"])  # type: ignore[arg-type]


# ---- the quantities ----


def test_chr_f_is_sacrebleus() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("CNO()= c1", k=rng.randrange(15))) for _ in range(400)]
    references, outputs = texts[:200], texts[200:]
    for beta in (1, 2):
        theirs = CHRF(char_order=3, word_order=0, beta=beta, eps_smoothing=True)
        wanted = [theirs.sentence_score(o, [r]).score / 100 for r, o in zip(references, outputs, strict=True)]
        assert chr_f(references, outputs, beta) == pytest.approx(wanted, abs=1e-12)


def test_character_ter_is_the_authors_tools() -> None:
    """The two examples of the tool's own tests (BramVanroy/CharacTER, a port of rwth-i6/CharacTER)."""
    references = [
        "saudi arabia denied this week information published in the american new york times",
        "this is actually an estimate",
    ]
    outputs = ["this week the saudis denied information published in the new york times", "this is in fact an estimate"]
    assert character_ter(references, outputs) == pytest.approx([0.36619718309859156, 0.25925925925925924])


def test_character_ter_by_hand() -> None:
    assert character_ter(
        ["a b", "ab cd", "CCO", "CCO", "", "C"], ["a b", "cd ab", "CCN", "", "C", "CCCCCCC"]
    ) == pytest.approx(
        [0, 2 / 5, 1 / 3, 1, 1, 6 / 7]  # "cd ab": one move of a word of two letters
    )
    rng = random.Random(1)
    smiles = ["".join(rng.choices("CNOc1()=", k=rng.randrange(1, 40))) for _ in range(200)]
    for reference, output in zip(smiles[:100], smiles[100:], strict=True):
        wanted = min(1, Levenshtein.distance(reference, output) / len(output))
        assert character_ter([reference], [output])[0] == pytest.approx(wanted)


def test_character_error_rate_by_hand() -> None:
    counts = character_edits(["abcd", "", "kitten"], ["abed", "xy", "sitting"])
    assert counts.tolist() == [[1, 4], [2, 0], [3, 6]]
    assert counts[:, 0].sum() / counts[:, 1].sum() == pytest.approx(0.6)
    assert character_edits([], []).shape == (0, 2)


def test_copies_ignore_space_only() -> None:
    assert copied(
        ["The  molecule is waxy.\n", "the molecule is waxy.", ""], ["The molecule is waxy.", ""]
    ).tolist() == [
        True,
        False,
        False,
    ]
