"""Modality, copies and win rates; the per-row quantities they and ALMol's figures rest on."""

import math

import numpy as np
import pandas as pd
import pytest

from lmolt_utils.embedded.corpus import generate
from lmolt_utils.metrics.distributions import (
    caption_curve,
    caption_wins,
    character_ter,
    copied,
    modality,
    molecule_curve,
    molecule_wins,
    right_modality,
    win_rate,
    wrong_modality_rate,
)
from lmolt_utils.metrics.ngrams import chr_f

# ---- edits, Chr-F, copies ----


def test_chr_f_by_hand() -> None:
    assert chr_f(["abcd"], ["abce"])[0] == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert chr_f(["abcd"], ["abc"])[0] == pytest.approx((6 / 7 + 4 / 5 + 2 / 3) / 3)  # precision 1 each
    edges = chr_f(["a b c", "abc", "abc", "", "CC"], ["abc", "", "xyz", "", "CC"])
    assert edges == pytest.approx([1, 0, 0, 0, 2 / 3])


def test_character_ter_by_hand() -> None:
    references, outputs = ["a b", "CCO", "CCO", "", "C", "CCO", ""], ["a  b", "CCN", "", "C", "CCCCCCC", "no CCO", " "]
    assert character_ter(references, outputs) == pytest.approx([0, 1 / 3, 1, 1, 6 / 7, 3 / 6, 0])


def test_copies_ignore_space_only() -> None:
    outputs = ["The  molecule is waxy.\n", "the molecule is waxy.", ""]
    assert copied(outputs, ["The molecule is waxy.", ""]).tolist() == [True, False, False]


# ---- modality ----


LIKE = {
    "caption": ["The molecule is a fatty acid.", "CCO is an alcohol", "It is sweet.", "Das Molekül schmeckt süß."],
    # Modality is not validity; a piece is a molecule too, with a bracket that lacks its end or its beginning.
    "molecule": ["CC(=O)Oc1ccccc1C(=O)O", "C[C@@H](N)C(=O)[O-].[Na+]", "C C ( = O", ")OC(=O)C[C@@H", "nH]c1,CC", "CO"],
    "other": ["Cl insulat=Cl1", "impactscc(COC)c1", "water", "[CC]" * 5000 + "z"],  # the last one in linear time
    "empty": ["", " \n"],
}


@pytest.mark.parametrize("kind", LIKE)
def test_modality(kind: str) -> None:
    assert {text: modality(text) for text in LIKE[kind]} == dict.fromkeys(LIKE[kind], kind)


def test_wrong_modality_rate() -> None:
    outputs = ["CCO", "a fatty acid", "", "aspirin"]
    assert wrong_modality_rate(outputs, "mol2cap") == 0.5  # an empty output is not of the wrong modality, nor right
    assert wrong_modality_rate(outputs, "cap2mol") == 0.5
    assert right_modality(outputs, "mol2cap").tolist() == [False, True, False, False]
    assert right_modality(outputs, "cap2mol").tolist() == [True, False, False, False]


def test_modality_knows_every_molecule_and_caption_of_a_corpus() -> None:
    corpus = generate(300, 0)
    assert {modality(text) for text in corpus["molecule"]} == {"molecule"}
    assert {modality(text) for text in corpus["caption"]} == {"caption"}


# ---- win rates ----


def test_molecules_win_by_strict_thresholds() -> None:
    samples = pd.DataFrame(
        {
            "Chr-F": [0.31, 0.30, 0.9, 0.9, 0.9, 0.0],
            "length_deviation": [4, 0, 5, -4, 0, 0],
            "Validity": [1, 1, 1, 1, 0, 1],
        }
    )
    assert molecule_wins(samples).tolist() == [True, False, False, True, False, False]
    assert molecule_wins(samples, chr_f=0.0, length=math.inf).tolist() == [True, True, True, True, False, False]


def test_captions_win_where_entailment_is_likeliest() -> None:
    frame = pd.DataFrame(
        {"entailment": [0.4, 0.45, 0.34], "neutral": [0.35, 0.5, 0.33], "contradiction": [0.25, 0.05, 0.33]}
    )
    assert caption_wins(frame).tolist() == [True, False, True]
    odd = pd.DataFrame({"contradiction": [0, None], "entailment": [0, None], "neutral": [1, None]})
    assert caption_wins(odd).tolist() == caption_wins(odd, 0.0).tolist() == [False, False], "no caption; no reference"
    assert caption_wins(frame, 0.4).tolist() == [False, True, False]


def test_curves_fall_with_stricter_thresholds_and_pass_through_the_papers() -> None:
    rng = np.random.default_rng(0)
    samples = pd.DataFrame(
        {"Chr-F": rng.random(300), "length_deviation": rng.integers(-30, 30, 300), "Validity": rng.integers(0, 2, 300)}
    )
    curve = molecule_curve(samples)
    here = curve[np.isclose(curve["chr_f"], 0.3) & (curve["length"] == 5)]
    assert here["value"].item() == win_rate(molecule_wins(samples))["value"]
    for _, part in curve.groupby("length"):
        assert (part["value"].diff().dropna() <= 0).all()
    for _, part in curve.groupby("chr_f"):
        assert (part["value"].diff().dropna() >= 0).all()
    assert ((curve["low"] <= curve["value"]) & (curve["value"] <= curve["high"])).all()
    captions = caption_curve(pd.DataFrame({"entailment": rng.random(50), "neutral": 0.5, "contradiction": 0.5}))
    assert (captions["value"].iloc[0], captions["value"].iloc[-1]) == (1, 0)
