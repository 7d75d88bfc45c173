"""The embedded cross-encoder: what it is measured on is kept out of its training, and how good it is there."""

import random
import re
from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED, generate
from lmolt_utils.grammar.compose import compose
from lmolt_utils.grammar.rules import vocabulary
from lmolt_utils.models.loading import EMBEDDED_FOLDER
from lmolt_utils.nli.classifier import Classifier
from tools.embedded_models.nli_data import Literal, drawn, label_of, meetings, pairs, withheld
from tools.embedded_models.nli_quality import HELD_OUT, ITSELF, KINDS, TOLD, HeldOutPair, atoms_quality, held_out_pairs
from tools.embedded_models.nli_quality import nli_quality as quality_of
from tools.embedded_models.train import property_sets

CARD = Path(EMBEDDED_FOLDER / "nli" / "README.md")


@pytest.fixture(scope="module")
def sets() -> list[list[str]]:
    return property_sets(generate(MODEL_ROWS, MODEL_SEED))


@pytest.fixture(scope="module")
def held_out(sets: list[list[str]]) -> list[HeldOutPair]:
    return list(held_out_pairs(sets, 100))


@pytest.fixture(scope="module")
def quality(sets: list[list[str]]) -> pd.DataFrame:
    return quality_of("embedded:nli", sets)


# ------------------------------------------------------------------------------------------ labels

SWEET, NOT_SWEET, SULFUROUS, NUTTY, NOT_NUTTY = (
    ("sweet", True),
    ("sweet", False),
    ("sulfurous", True),
    ("nutty", True),
    ("nutty", False),
)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "label"),
    [
        ([SWEET], [SWEET], "entailment"),
        ([NOT_SWEET], [NOT_SWEET], "entailment"),
        ([SWEET, NUTTY], [NUTTY], "entailment"),
        ([SWEET], [NOT_SWEET], "contradiction"),
        ([NOT_SWEET], [SWEET], "contradiction"),
        ([SWEET, NUTTY], [NUTTY, NOT_SWEET], "contradiction"),
        ([SWEET], [SULFUROUS], "contradiction"),
        ([SWEET], [NUTTY, SULFUROUS], "contradiction"),
        ([SWEET], [NUTTY], "neutral"),
        ([SWEET], [SWEET, NUTTY], "neutral"),
        ([SWEET], [NOT_NUTTY], "neutral"),
        ([NOT_SWEET], [SULFUROUS], "neutral"),
        ([NOT_SWEET], [NUTTY], "neutral"),
    ],
)
def test_labels_follow_from_what_is_stated_and_denied(
    premise: list[Literal], hypothesis: list[Literal], label: str
) -> None:
    assert label_of(premise, hypothesis) == label


# --------------------------------------------------------------------------------------- held out


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


def test_every_held_out_pair_has_one(sets: list[list[str]], held_out: list[HeldOutPair]) -> None:
    kept_out = withheld(sets)
    assert {pair.kind for pair in held_out} == set(KINDS)
    for pair in held_out:
        assert label_of(*pair.literals) == pair.label
        assert pair.kind in (*TOLD, *ITSELF) or meetings(*pair.literals) & kept_out, pair


def test_texts_state_what_their_literals_say(held_out: list[HeldOutPair]) -> None:
    for pair in held_out:
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


def test_training_and_measuring_pairs_are_always_the_same(sets: list[list[str]]) -> None:
    assert list(pairs(sets, 300, 7)) == list(pairs(sets, 300, 7)) != list(pairs(sets, 300, 8))
    assert list(held_out_pairs(sets, 20)) == list(held_out_pairs(sets, 20))


def test_labels_and_kinds_are_balanced(sets: list[list[str]], held_out: list[HeldOutPair]) -> None:
    labels = pd.Series([label for _, _, label in pairs(sets, 3_000, 0)])
    assert set(labels.value_counts()) == {1_000}
    by_kind = pd.DataFrame([(pair.kind, pair.label) for pair in held_out]).groupby(0)[1].agg(["nunique", "size"])
    assert set(by_kind["nunique"]) == {1}
    assert set(by_kind["size"]) == {100}


# ---------------------------------------------------------------------------------------- accuracy


def test_accuracy_on_held_out_combinations_in_unseen_forms(quality: pd.DataFrame) -> None:
    assert quality.loc[HELD_OUT, "pairs"] >= 5_000
    assert quality.loc[HELD_OUT, "accuracy"] >= 0.97
    assert quality.loc[HELD_OUT, "low"] >= 0.965


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_of_every_kind_of_pair(quality: pd.DataFrame, kind: str) -> None:
    assert quality.loc[kind, "pairs"] == 400
    assert quality.loc[kind, "accuracy"] >= 0.9


def test_the_card_states_what_is_measured(quality: pd.DataFrame) -> None:
    card = CARD.read_text()
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


def test_captions_are_entailed_by_themselves_by_other_wordings_and_by_longer_ones() -> None:
    corpus = generate(MODEL_ROWS, MODEL_SEED)
    rows = corpus[corpus["split"] == "test"].drop_duplicates("properties").head(60)
    nli = Classifier("embedded:nli", batch_tokens=8192)
    captions = list(rows["caption"])
    names = [text.split("|") for text in rows["properties"]]
    rng = random.Random(0)
    reworded = [compose(some, rng, style="plain") for some in names]
    shorter = [compose(some[:-1], rng, style="plain") for some in names]
    for hypotheses in (captions, reworded, shorter):
        answers = nli.probabilities(captions, hypotheses, progress=False)
        assert (answers.idxmax(axis=1) == "entailment").mean() >= 0.95
    longer = nli.probabilities(shorter, captions, progress=False)
    assert (longer.idxmax(axis=1) == "neutral").mean() >= 0.95
