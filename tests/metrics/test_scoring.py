"""The scorer's contract: what goes in, what comes out, what is refused."""

import json
import math
from typing import Any

import pandas as pd
import pytest

from lmolt_utils.metrics.captions import CAPTION_METRICS
from lmolt_utils.metrics.intervals import Scored
from lmolt_utils.metrics.molecules import MOLECULE_METRICS
from lmolt_utils.metrics.scoring import Scorer
from lmolt_utils.models.postprocess import Rule, postprocess

KEPT = Scorer("regex", meteor="exact+stem")
MOLT5 = Scorer(invalid="molt5")


def score(table: pd.DataFrame, task: str | None = None, rule: Rule | None = None) -> Scored:
    return KEPT.score(table, task, rule=rule)


def frame(references: list[Any], predictions: list[Any], **columns: Any) -> pd.DataFrame:
    ids = [f"row-{i}" for i in range(len(references))]
    data = {"id": ids, "source": "-", "reference": references, "prediction": predictions, **columns}
    return pd.DataFrame(data, dtype=object)  # pandas's own text type holds no lone surrogates


CAPTIONS = frame(
    ["The molecule is a fatty acid.", "It impacts aging.", "It is nutty."],
    ["The molecule is a fatty acid.", "It impacts aging and is sweet.", "CCO"],
)
MOLECULES = frame(["CCO", "CC", "CCC", "c1ccccc1"], ["OCC", "CCC", "C1CC", "the ring is aromatic"])


def test_captions() -> None:
    scores = score(CAPTIONS, "mol2cap")
    assert tuple(scores.metrics) == (*CAPTION_METRICS, "Chr-F")
    assert scores.metrics["ROUGE-1"] == pytest.approx((1 + 2 * 3 / 9 + 0) / 3)
    assert scores.conventions["wrong_modality_rate"] == pytest.approx(1 / 3)
    columns = ["id", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR", "length_deviation", "Chr-F"]
    assert list(scores.samples.columns) == columns
    assert scores.samples["id"].tolist() == ["row-0", "row-1", "row-2"]
    assert scores.samples["length_deviation"].tolist() == [0, 3, -3]  # pieces: 7 - 7, 7 - 4, 1 - 4
    assert scores.samples["Chr-F"].iloc[0] == pytest.approx(1)


def test_molecules() -> None:
    scores = score(MOLECULES, "cap2mol")
    assert tuple(scores.metrics) == (*MOLECULE_METRICS, "Chr-F", "CharacTER")
    assert (scores.metrics["Exact"], scores.metrics["Validity"]) == (0.25, 0.5)
    told = scores.conventions
    assert (told["invalid"], told["invalid_predictions"], told["wrong_modality_rate"]) == ("lpm24", 2, 0.25)
    assert scores.samples["length_deviation"].tolist() == [0, 1, 1, 12]


def test_one_row_and_all_invalid_give_null_not_an_error() -> None:
    one = score(pd.DataFrame({"task": "cap2mol", "reference": ["CCO"], "prediction": ["OCC"]}))
    assert (one.task, one.samples["id"].tolist(), one.metrics["Exact"]) == ("cap2mol", [0], 1)
    assert math.isnan(one.metrics["FCD"])
    none = MOLT5.score(frame(["CCO", "CC"], ["((", "))"]), "cap2mol")
    written = json.loads(json.dumps(none.to_dict(), allow_nan=False))
    assert written["metrics"]["FCD"] is written["metrics"]["MACCS"] is None
    assert written["metrics"]["Validity"] == 0
    assert written["n"] == 2
    assert written["conventions"]["fcd_note"]


@pytest.mark.parametrize(
    ("table", "task", "message"),
    [
        (MOLECULES.drop(columns=["reference"]), "cap2mol", r"lack the column\(s\) reference"),
        (MOLECULES, "caption", "unknown task 'caption'"),
        (MOLECULES.iloc[:0], "cap2mol", "no rows"),
        (frame(["CCO", None, None], ["C", "C", "C"]), "cap2mol", r"2 rows have no reference.*row-1"),
        (MOLECULES.assign(task=["cap2mol", "mol2cap"] * 2), "cap2mol", r"rows of \['mol2cap'\]"),
        (MOLECULES, None, "do not say which task"),
        (MOLECULES.assign(task="caption"), None, "unknown task 'caption'"),
        (MOLECULES.assign(id=["a", "b", "a", "b"]), "cap2mol", "id 'a' comes twice, the second time in row 3"),
        (frame(["CCO", "C"], ["CCO", ["C"]]), "cap2mol", r"prediction in row 2 is list \(\['C'\]\): text is needed"),
        (frame(["CCO", 7], ["CCO", "C"]), "cap2mol", "reference in row 2 is int"),
    ],
)
def test_bad_tables_are_refused(table: pd.DataFrame, task: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(table, task)


BAD = [
    *(None, pd.NA, "", "   ", "['CCO']", "CCO\\n", "CC\\\\C=C", "CCO is ethanol", "(x" * 5000, "C\u4e2d\U0001f600"),
    *("\ud800", "C\0C", "C" * 5_000, "[" * 10_000, "C" * 10_000, "nan"),
]


@pytest.mark.parametrize("task", ["mol2cap", "cap2mol"])
def test_bad_outputs_are_scored_and_counted(task: str) -> None:
    scores = score(frame(["CCO"] * len(BAD), BAD), task)
    assert len(scores.samples) == len(BAD)
    assert (scores.conventions["missing_predictions"], scores.conventions["empty_predictions"]) == (2, 4)
    json.dumps(scores.to_dict(), allow_nan=False)
    if task == "cap2mol":
        # An empty one parses (spaces do not), as do two backslashes, what precedes a space or a last character that is
        # not ASCII, and a long chain, but not one that RDKit is not asked about.
        assert scores.samples["Validity"].tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0]
        assert scores.conventions["invalid_predictions"] == 9
        assert scores.conventions["fcd_dropped_empty"] == 3
        assert scores.conventions["fcd_over_349_characters"] == 1
        assert scores.conventions["rdkit_gave_up"] == 3
        assert scores.samples["Levenshtein"].tolist()[:4] == [3, 3, 3, 3]


# ----------------------------------------------------------------------------------------- post-processing


@pytest.mark.parametrize(
    ("raw", "clean", "as_released"),
    [
        (" CCO\n", "CCO", " CCO"),
        ("['CCO']", "CCO", "CCO"),
        ('["Alzheimer\'s disease"]', "Alzheimer's disease", '["Alzheimer\'s disease"]'),
        ("it impacts Alzheimer's.", "it impacts Alzheimer's.", '["it impacts Alzheimer\'s."]'),
        ("CC#N", "CC#N", "CCN"),
        ("C/C=C\\C", "C/C=C\\C", "C/C=C\\\\C"),
        ("C/C=C\\\\C", "C/C=C\\C", "C/C=C" + "\\" * 4 + "C"),
        ("CCO\\n\\n", "CCO", "CCO\\\\"),
        ("CCO\\\\n", "CCO", "CCO\\\\\\"),  # a line break quoted twice
        ("C/C=C\\n1ccnc1", "C/C=C\\n1ccnc1", "C/C=C\\1ccnc1"),  # a bond and a nitrogen, not a line break
        ("[Na+]", "[Na+]", "[Na+]"),
        ("['CCO', 'CC']", "['CCO', 'CC']", "CCO', 'CC"),
        ("['CC'O']", "['CC'O']", "CC'O"),
        ("", "", ""),
    ],
)
def test_postprocessing(raw: str, clean: str, as_released: str) -> None:
    assert postprocess([raw], "clean")[0] == [clean]
    assert postprocess([clean], "clean")[0] == [clean]  # nothing is left to do
    assert postprocess([raw], "as_released")[0] == [as_released]
    assert postprocess([raw], "none") == ([raw], {"outputs changed": 0})


def test_postprocessing_counts_what_it_changed() -> None:
    _, counts = postprocess(["CC#N", "C#C ", "CC", "['C']"], "as_released")
    assert (counts["# removed"], counts["stored as list repr"], counts["outputs changed"]) == (2, 3, 3)
    _, counts = postprocess(["CC#N", "C#C ", "CC", "['C']", "C/C=C\\\\C\\n", "F\\C=C\\\\F", "CC\\n"], "clean")
    assert counts == {
        "list repr unwrapped": 1,
        "literal \\n at the end removed": 2,
        "doubled backslash made one": 2,
        "surrounding space removed": 1,
        "outputs changed": 5,
    }


def test_clean_is_applied_to_references_too_and_released_cleaning_is_not() -> None:
    doubled, triple = "CCCC/C=C\\\\CCCC", "CCCCCC#N"
    table = frame([doubled, triple], [doubled, triple])
    cleaned, kept = score(table, "cap2mol", rule="clean"), score(table, "cap2mol")
    assert cleaned.metrics["Levenshtein"] == kept.metrics["Levenshtein"] == 0
    assert cleaned.metrics["BLEU"] == kept.metrics["BLEU"] == 1
    assert cleaned.conventions["postprocess: references changed"] == 1
    one_side = frame([doubled, triple], ["CCCC/C=C\\CCCC", triple])
    assert score(one_side, "cap2mol").conventions["doubled_backslashes_on_one_side"] == 1
    assert "doubled_backslashes_on_one_side" not in cleaned.conventions | kept.conventions
    assert score(one_side, "cap2mol", rule="clean").metrics["BLEU"] == 1
    assert score(table, "cap2mol", rule="as_released").samples["Levenshtein"].tolist() == [2, 1]


def test_rule_is_applied_to_raw_outputs_when_scored() -> None:
    table = frame(["CC#N", "CC#N"], ["CC#N", "CC#N"], raw=[" CC#N", "CC#N"])
    exact = {rule: score(table, "cap2mol", rule=rule).metrics["Exact"] for rule in (None, "clean", "as_released")}
    assert exact == {None: 1, "clean": 1, "as_released": 0}
    assert score(table, "cap2mol", rule="clean").conventions["postprocess: surrounding space removed"] == 1
