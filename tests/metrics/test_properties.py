"""Properties in captions by hand, by the rules of the official text_property_metrics.py."""

import math
from pathlib import Path

import pytest

from lmolt_utils.data.captioner import knowledge
from lmolt_utils.data.rows import DataError
from lmolt_utils.data.sources import Source
from lmolt_utils.metrics.captions import caption_tokenizer
from lmolt_utils.metrics.properties import PropertyScores, by_frequency, paths, presence, property_scores

REGEX = caption_tokenizer("regex")
TREE = {
    "Biomedical": ["nutrient", {"inhibitors": ["kinase inhibitor", "tyrosine kinase inhibitor"]}],
    "Odor": ["waxy", {"x": ["y z"]}],
}


def scores(references: list[str], predictions: list[str], **settings: object) -> PropertyScores:
    return property_scores(references, predictions, TREE, REGEX, **settings)  # type: ignore[arg-type]


def test_every_contained_name_counts() -> None:
    names = ["kinase inhibitor", "tyrosine kinase inhibitor", "waxy", "kinase"]
    text = ["A Tyrosine kinase inhibitor, waxyish"]
    assert presence(names, text, REGEX).toarray().tolist() == [[1, 1, 0, 1]]


def test_counts_and_averages_by_hand() -> None:
    references = ["a tyrosine kinase inhibitor", "a nutrient", "a nutrient and waxy"]
    predictions = ["a kinase inhibitor", "a nutrient", "a kinase inhibitor"]
    found = scores(references, predictions)
    lines = found.properties
    assert lines.loc["Biomedical__nutrient", ["tp", "fp", "fn", "tn"]].tolist() == [1, 0, 1, 1]
    kinase = lines.loc["Biomedical__inhibitors__kinase inhibitor"]
    assert (kinase["precision"], kinase["recall"], kinase["f1"]) == (0.5, 1, pytest.approx(2 / 3))
    tyrosine = lines.loc["Biomedical__inhibitors__tyrosine kinase inhibitor"]
    assert math.isnan(tyrosine["precision"])  # never said
    assert (tyrosine["recall"], tyrosine["f1"]) == (0, 0)
    f1 = found.categories["f1"]
    assert f1["Biomedical__inhibitors"] == pytest.approx((2 / 3 + 0) / 2)
    assert f1["Biomedical"] == pytest.approx((2 / 3 + 1 / 3) / 2)  # nutrient 2/3
    assert f1["Odor__x"] == 1.0  # nothing defined
    assert f1["Odor"] == pytest.approx((0 + 1) / 2)
    assert f1["Overall"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found.categories["precision"]["Biomedical__inhibitors"] == 0.5  # the undefined one is left out
    biomedical = {"nutrient": 9, "inhibitors": {"kinase inhibitor": 2, "tyrosine kinase inhibitor": 0}}
    counted = {"Biomedical": biomedical, "Odor": {"waxy": 1, "x": {"y z": 3}}}  # as L+M-24's prop_counts.json
    assert property_scores(references, predictions, counted, REGEX).categories.equals(found.categories)
    assert found.rows["omitted"].tolist() == [0.5, 0, 1]
    assert found.rows["hallucinated"].tolist() == [0, 0, 1]


def test_combinations_by_hand() -> None:
    found = scores(
        ["nutrient, waxy", "nutrient", "waxy"],
        ["nutrient, waxy", "waxy nutrient", "-"],
        combinations=[("nutrient", "waxy")],
    )
    assert found.combinations == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "accuracy": pytest.approx(2 / 3),
    }
    assert scores(["a"], ["b"]).combinations == {}


def test_empty_captions_omit_everything_and_invent_nothing() -> None:
    found = scores(["a nutrient", "nothing of note"], ["", ""])
    assert found.rows["omitted"].tolist()[0] == 1
    assert found.rows["omitted"].isna().tolist() == [False, True]
    assert found.rows["hallucinated"].isna().all()


def test_frequency_bands_by_hand() -> None:
    found = scores(["nutrient waxy", "nutrient"], ["nutrient", "kinase inhibitor"])
    bands = by_frequency(found, {"nutrient": 12, "waxy": 5}).set_index("trained")
    assert list(bands.index) == ["0", "1 to 9", "10 to 99", "100 to 999", "1,000 or more"]
    shown = ["properties", "named", "omitted", "said", "hallucinated"]
    assert bands.loc["10 to 99", shown].tolist() == [1, 2, 0.5, 1, 0]
    assert bands.loc["1 to 9", ["named", "omitted", "said"]].tolist() == [1, 1, 0]
    assert bands.loc["0", ["named", "said", "hallucinated"]].tolist() == [0, 1, 1]
    assert math.isnan(bands.loc["0", "omitted"])  # type: ignore[arg-type]


def test_unreadable_trees_and_pairs_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    for text in ("[1", '["a"]', '{"a": [1]}', "{}"):
        file.write_text(text)
        with pytest.raises(DataError, match=r"tree\.json is no tree"):
            knowledge(Source("embedded"), str(file), None)
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        knowledge(Source("embedded"), str(tmp_path / "none.json"), None)
    file.write_text("('a', 'b')\t1\n__import__('os')\t1\n")
    with pytest.raises(DataError, match=r"tree\.json line 2: lines like"):
        knowledge(Source("embedded"), None, str(file))
    assert paths(TREE)[1] == "Biomedical__inhibitors__kinase inhibitor"
