"""The embedded corpus: valid, skewed like L+M-24, deterministic, with combinations truly withheld."""

from itertools import combinations

import pandas as pd
import pytest
from rdkit import Chem

from lmolt_utils.embedded.corpus import WITHHELD_PAIRS, caption_for, generate
from lmolt_utils.grammar.compose import ComposeError
from lmolt_utils.grammar.rules import EFFECTS, QUALITIES, RULES, vocabulary
from tools.embedded_models.quality import properties_in, property_f1


@pytest.fixture(scope="module")
def corpus() -> pd.DataFrame:
    return generate(3000, 0)


def test_size_families_and_vocabulary(corpus: pd.DataFrame) -> None:
    assert len(corpus) == 3000
    assert corpus["molecule"].is_unique
    assert corpus["molecule"].map(Chem.CanonSmiles).equals(corpus["molecule"])
    families = set(corpus["families"].str.split("|").explode())
    assert families == {rule.family for rule in RULES}, "every rule is used"
    assert set(vocabulary()) > EFFECTS | QUALITIES


def test_skew_is_that_of_lpm24(corpus: pd.DataFrame) -> None:
    # L+M-24: cardiolipins 42 %, triacylglycerols 14 %, largest property set 36.5 %.
    assert 0.38 < corpus["families"].str.contains("cardiolipin").mean() < 0.46
    assert 0.11 < corpus["families"].str.contains("triacylglycerol").mean() < 0.17
    assert 0.33 < corpus["properties"].value_counts(normalize=True).iloc[0] < 0.40


def test_withheld_pairs_never_meet_in_training(corpus: pd.DataFrame) -> None:
    held = corpus["split"] == "withheld"
    assert held.sum() >= 20
    pairs = {frozenset(pair) for pair in WITHHELD_PAIRS}

    def has_pair(text: str) -> bool:
        return any(frozenset(two) in pairs for two in combinations(text.split("|"), 2))

    assert corpus.loc[held, "properties"].map(has_pair).all()
    assert not corpus.loc[~held, "properties"].map(has_pair).any()
    seen = set(corpus.loc[corpus["split"] == "train", "properties"].str.split("|").explode())
    assert {name for pair in WITHHELD_PAIRS for name in pair} <= seen, "each property alone is seen in training"


def test_another_seed_gives_other_molecules_and_a_larger_corpus_extends_a_smaller_one() -> None:
    first = generate(300, 5)
    assert set(first["molecule"]) != set(generate(300, 6)["molecule"])
    assert first.equals(generate(400, 5).head(300))
    with pytest.raises(ValueError, match="at least 100"):
        generate(99, 0)


def test_captions_state_exactly_the_properties(corpus: pd.DataFrame) -> None:
    assert property_f1(corpus["properties"], corpus["caption"]) == 1.0


def test_recaptioning_changes_the_words_and_not_the_facts() -> None:
    names = ["apoptosis", "emulsifier", "aging", "barth syndrome", "smooth"]
    texts = {caption_for("CCO", names, 0, variant) for variant in range(5)}
    assert len(texts) == 5
    assert all(properties_in(text) == set(names) for text in texts)
    with pytest.raises(ComposeError, match="at least one"):
        caption_for("CCO", [], 0)


def test_property_f1_by_hand() -> None:
    # Named: aging (right), nutrient (wrong); true: aging, obesity. F1 = 2 * 1 / (2 + 2).
    assert property_f1(["aging|obesity"], ["The molecule is a nutrient that impacts aging."]) == 0.5
    assert property_f1(["aging"], [""]) == 0.0
    assert properties_in("The molecule is a anti inflammatory.") == {"anti inflammatory"}, "the longest name"
