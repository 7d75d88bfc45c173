"""The dataset card: every number by hand on a small corpus (L+M-24's own skew: test_sources.py)."""

import pandas as pd
import pytest

from lmolt_utils.data.card import card
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.figures.data import card_figure

CORPUS = pd.DataFrame(
    [
        ("train", "CCO", "It is p.", "p|q"),
        ("train", "OCC", "It is p  and q.", "q|p"),  # the first molecule again
        ("train", "CCN", "It is p.", "P"),  # the first caption again
        ("test", "CCCC", "It is  p.", ""),  # the first caption but for a space; no properties
    ],
    columns=["split", "molecule", "caption", "properties"],
)


def test_card_by_hand() -> None:
    found = card(CORPUS)
    facts = found.facts.droplevel("about")
    none = float("nan")
    expected = {
        "rows": (4, 3, 1),
        "molecule seen in an earlier row": (1, 1, 0),
        "caption seen in an earlier row": (2, 1, 0),
        "rows without properties": (1, 0, 1),
        "distinct property sets": (2, 2, 0),
        "share of the largest set": (2 / 3, 2 / 3, none),
        "properties per row that has some": (5 / 3, 5 / 3, none),
        "distinct properties": (3, 3, 0),
    }
    for quantity, values in expected.items():
        assert facts.loc[quantity, ["all", "train", "test"]].tolist() == pytest.approx(values, nan_ok=True), quantity
    assert found.facts.loc[("caption, words", "mean"), "all"] == (3 + 5 + 3 + 3) / 4
    assert found.facts.loc[("caption, words", "longest"), "train"] == 5
    assert found.sets.to_dict() == {"p|q": 2, "P": 1}
    assert list(found.facts) == ["all", "train", "test"]


def test_a_corpus_of_molecules_and_captions_only() -> None:
    figure, data = card_figure(card(CORPUS.assign(properties="")))
    assert "no property sets" in [text.get_text() for text in figure.axes[0].texts]
    assert set(data["panel"]) == {"property sets", "caption, words", "caption, characters", "SMILES, characters"}


def test_figure_draws_what_the_card_says() -> None:
    corpus = generate(300, 0)
    made = card(corpus)
    figure, data = card_figure(made)
    skew = data[data["panel"] == "property sets"]
    facts = made.facts.droplevel("about")["all"]
    assert skew["share"].iloc[0] == pytest.approx(facts["share of the largest set"])
    assert skew["share"].iloc[9] == pytest.approx(facts["share of the ten largest sets"])
    assert skew["share"].iloc[-1] == pytest.approx(1)
    bars = data[data["panel"] != "property sets"].groupby(["panel", "split"])["share"].sum()
    assert bars.to_numpy() == pytest.approx(1), "no row falls outside the bins"
    assert len(figure.axes) == 4
