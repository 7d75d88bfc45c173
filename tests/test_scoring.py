"""The scorer's contract: what goes in, what comes out, what is refused."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmolt_utils.metrics.captions import CAPTION_METRICS, caption_tokenizer, meteor_matcher
from lmolt_utils.metrics.molecules import MOLECULE_METRICS
from lmolt_utils.scoring import Scores, score

STEM = "exact+stem"


def frame(references: list[Any], predictions: list[Any], **columns: Any) -> pd.DataFrame:
    ids = [f"row-{i}" for i in range(len(references))]
    data = {"id": ids, "source": "-", "reference": references, "prediction": predictions, **columns}
    return pd.DataFrame(data)


CAPTIONS = frame(
    ["The molecule is a fatty acid.", "It impacts aging.", "It is nutty."],
    ["The molecule is a fatty acid.", "It impacts aging and is sweet.", "CCO"],
)
MOLECULES = frame(["CCO", "CC", "CCC", "c1ccccc1"], ["OCC", "CCC", "C1CC", "the ring is aromatic"])


def test_captions() -> None:
    scores = score(CAPTIONS, "mol2cap", tokenizer="regex", meteor=STEM)
    assert (scores.task, scores.n) == ("mol2cap", 3)
    assert tuple(scores.metrics) == CAPTION_METRICS
    assert scores.metrics["ROUGE-1"] == pytest.approx((1 + 2 * 3 / 9 + 0) / 3)
    assert scores.conventions["tokenizer"] == "regex"
    assert scores.conventions["meteor_matcher"] == "exact+stem"
    assert scores.conventions["wrong_modality_rate"] == pytest.approx(1 / 3)
    assert scores.conventions["nltk_version"]
    assert list(scores.samples.columns) == [
        *("id", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR", "length_deviation", "chr_f", "word_count")
    ]
    assert scores.samples["id"].tolist() == ["row-0", "row-1", "row-2"]
    assert scores.samples["length_deviation"].tolist() == [0, 3, -3]  # pieces: 7 - 7, 7 - 4, 1 - 4
    assert scores.samples["word_count"].tolist() == [6, 6, 1]
    assert scores.samples["chr_f"].iloc[0] == pytest.approx(1)


def test_molecules() -> None:
    scores = score(MOLECULES, "cap2mol")
    assert tuple(scores.metrics) == MOLECULE_METRICS
    assert scores.metrics["Exact"] == 0.25
    assert scores.metrics["Validity"] == 0.5
    assert scores.metrics["RDK"] == pytest.approx((1 + 0.5) / 4)
    assert scores.conventions["invalid"] == "lpm24"
    assert scores.conventions["invalid_predictions"] == 2
    assert scores.conventions["wrong_modality_rate"] == 0.25
    assert (scores.conventions["fcd_references"], scores.conventions["fcd_predictions"]) == (4, 2)
    assert "singular" in str(scores.conventions["fcd_note"])
    assert scores.samples["length_deviation"].tolist() == [0, 1, 1, 12]
    assert score(MOLECULES, "cap2mol", invalid="molt5").metrics["RDK"] == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("invalid", ["lpm24", "molt5"])
def test_the_mean_of_the_rows_is_the_corpus_value(invalid: Any) -> None:
    scores = score(MOLECULES, "cap2mol", invalid=invalid)
    for name in ("Exact", "Levenshtein", "MACCS", "RDK", "Morgan", "Validity"):
        assert scores.samples[name].mean() == pytest.approx(scores.metrics[name]), name
    captions = score(CAPTIONS, "mol2cap", tokenizer="regex", meteor=STEM)
    for name in ("ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"):
        assert captions.samples[name].mean() == pytest.approx(captions.metrics[name]), name


def test_tokenizer_and_matcher_objects_are_taken() -> None:
    by_name = score(CAPTIONS, "mol2cap", tokenizer="regex", meteor=STEM)
    by_object = score(CAPTIONS, "mol2cap", tokenizer=caption_tokenizer("regex"), meteor=meteor_matcher(STEM))
    assert by_name.to_dict() == by_object.to_dict()


def test_same_input_same_result_and_input_untouched() -> None:
    before = MOLECULES.copy(deep=True)
    first, second = score(MOLECULES, "cap2mol"), score(MOLECULES, "cap2mol")
    assert first.to_dict() == second.to_dict()
    pd.testing.assert_frame_equal(first.samples, second.samples)
    pd.testing.assert_frame_equal(MOLECULES, before)


def test_row_order_does_not_change_corpus_values() -> None:
    shuffled = MOLECULES.iloc[[2, 0, 3, 1]]
    scores = score(shuffled, "cap2mol")
    assert scores.samples["id"].tolist() == ["row-2", "row-0", "row-3", "row-1"]
    assert scores.metrics == pytest.approx(score(MOLECULES, "cap2mol").metrics, abs=1e-6)


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA])
def test_missing_prediction_is_an_empty_one(gone: Any) -> None:
    scores = score(frame(["CCO", "CC"], ["CCO", gone]), "cap2mol")
    assert scores.conventions["missing_predictions"] == 1
    assert scores.conventions["empty_predictions"] == 1
    assert scores.samples["Levenshtein"].tolist() == [0, 2]
    captions = score(frame(["a b", "a b"], ["a b", gone]), "mol2cap", tokenizer="regex", meteor=STEM)
    assert captions.samples["ROUGE-1"].tolist() == [1, 0]


def test_one_row_and_all_invalid_give_null_not_an_error() -> None:
    one = score(frame(["CCO"], ["CCO"]), "cap2mol")
    assert math.isnan(one.metrics["FCD"])
    none = score(frame(["CCO", "CC"], ["((", "))"]), "cap2mol", invalid="molt5")
    written = json.loads(json.dumps(none.to_dict(), allow_nan=False))
    assert written["metrics"]["FCD"] is written["metrics"]["MACCS"] is None
    assert written["metrics"]["Validity"] == 0
    assert written["n"] == 2
    assert written["conventions"]["fcd_note"]


def test_scores_are_frozen() -> None:
    scores = score(frame(["CCO"], ["CCO"]), "cap2mol")
    assert isinstance(scores, Scores)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.n = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("table", "task", "message"),
    [
        (MOLECULES.drop(columns=["reference"]), "cap2mol", r"lack the column\(s\) reference"),
        (MOLECULES, "caption", "unknown task 'caption'"),
        (MOLECULES.iloc[:0], "cap2mol", "no rows"),
        (frame(["CCO", None, None], ["C", "C", "C"]), "cap2mol", r"2 rows have no reference.*row-1"),
        (MOLECULES.assign(task=["cap2mol", "mol2cap"] * 2), "cap2mol", r"rows of \['mol2cap'\]"),
    ],
)
def test_bad_tables_are_refused(table: pd.DataFrame, task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(table, task)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown convention"):
        score(MOLECULES, "cap2mol", invalid="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown caption tokenizer"):
        score(CAPTIONS, "mol2cap", tokenizer="bert", meteor=STEM)
