"""The embedded cross-encoder: what it is measured on is kept out of its training, and how good it is there."""

import hashlib
import re
from collections import Counter

import pytest

from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED, generate
from lmolt_utils.grammar.rules import vocabulary
from lmolt_utils.models.loading import EMBEDDED_FOLDER
from tools.embedded_models.nli_data import drawn, label_of, meetings, pairs, withheld
from tools.embedded_models.nli_quality import (
    HELD_OUT,
    ITSELF,
    KINDS,
    TOLD,
    HeldOutPair,
    atoms_quality,
    held_out_pairs,
    nli_quality,
)
from tools.embedded_models.train import property_sets


@pytest.fixture(scope="module")
def sets() -> list[list[str]]:
    return property_sets(generate(MODEL_ROWS, MODEL_SEED))


@pytest.fixture(scope="module")
def held_out(sets: list[list[str]]) -> list[HeldOutPair]:
    return list(held_out_pairs(sets, 100))


@pytest.mark.parametrize(
    ("label", "pairs"),
    [
        ("entailment", ["sweet > sweet", "-sweet > -sweet", "sweet nutty > nutty"]),
        (
            "contradiction",
            ["sweet > -sweet", "-sweet > sweet", "sweet nutty > nutty -sweet", "sweet > nutty sulfurous"],
        ),
        ("neutral", ["sweet > nutty", "sweet > sweet nutty", "sweet > -nutty", "-sweet > sulfurous"]),
    ],
)
def test_labels_follow_from_what_is_stated_and_denied(label: str, pairs: list[str]) -> None:
    for pair in pairs:
        sides = [[(word.lstrip("-"), word[0] != "-") for word in side.split()] for side in pair.split(" > ")]
        assert label_of(*sides) == label, pair


def _forms(text: str) -> set[str]:
    """The sentences of a text with its names and its subject blanked, lists of any length alike."""
    for name in sorted(vocabulary(), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "X", text)
    text = re.sub(r"X(?:, X)+(?=,? (?:and )?X)", "X", text)
    return {
        re.sub(r"^(?:The molecule|This molecule|The compound|It) ", "", part) for part in text.rstrip(".").split(". ")
    }


def test_no_training_pair_has_a_withheld_combination(sets: list[list[str]]) -> None:
    kept_out = withheld(sets)
    assert {len(combination) for combination in kept_out} == {2}
    assert len(kept_out) > 400
    met = set()
    for _, _, label, premise, hypothesis in drawn(sets, 10_000, 0):
        assert label_of(premise, hypothesis) == label
        met |= meetings(premise, hypothesis)
    assert not met & kept_out
    assert len(met) > 3_500, "the other combinations are trained"


def test_every_held_out_pair_has_one_and_states_its_literals(
    sets: list[list[str]], held_out: list[HeldOutPair]
) -> None:
    kept_out = withheld(sets)
    assert Counter(pair.kind for pair in held_out) == dict.fromkeys(KINDS, 100)
    for pair in held_out:
        assert pair.kind in (*TOLD, *ITSELF) or meetings(*pair.literals) & kept_out, pair
        for text, literals in zip((pair.premise, pair.hypothesis), pair.literals, strict=True):
            for name, _ in literals:
                assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text), pair
            denied = len(re.findall(r"\b(?:not|no|never|cannot)\b", text))
            assert denied == sum(not stated for _, stated in literals), pair


def test_no_training_text_is_in_a_held_out_form(sets: list[list[str]], held_out: list[HeldOutPair]) -> None:
    trained = {form for premise, hypothesis, _ in pairs(sets, 10_000, 0) for form in _forms(f"{premise} {hypothesis}")}
    measured = {form for pair in held_out for form in _forms(f"{pair.premise} {pair.hypothesis}")}
    assert len(measured) > 60
    assert not trained & measured


def test_training_pairs_are_those_of_the_shipped_model(sets: list[list[str]]) -> None:
    """The shipped weights are trained on these texts: a changed draw would build another model."""
    text = repr([*pairs(sets, 3_000, MODEL_SEED)])
    assert hashlib.sha256(text.encode()).hexdigest().startswith("8d2340a0d4209354")


def test_accuracy_in_unseen_forms_is_high_and_what_the_card_states(sets: list[list[str]]) -> None:
    quality = nli_quality("embedded:nli", sets)
    assert quality.loc[HELD_OUT, "low"] >= 0.965
    assert (quality["accuracy"] >= 0.9).all(), "of every kind"
    card = (EMBEDDED_FOLDER / "nli" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (\d+ \| [\d.]+) \|", card, flags=re.MULTILINE))
    for kind, row in quality.iterrows():
        pairs_stated, accuracy = rows[str(kind)].split(" | ")
        assert int(pairs_stated) == row["pairs"]
        assert float(accuracy) == pytest.approx(row["accuracy"], abs=0.003), "half a pair in a hundred by rounding"
    assert f"| nli_accuracy | {quality.loc[HELD_OUT, 'accuracy']:.2f}" in card


def test_canonical_atoms_are_told_apart() -> None:
    found = atoms_quality("embedded:nli")
    assert found["pairs"].sum() == len(vocabulary()) ** 2
    assert found.loc["same atom", "accuracy"] == 1
    assert (found["accuracy"] >= 0.99).all()
