"""Diversity and synthesizability with both denominators, and captions of rewritten SMILES, against counts by hand."""

import math
from pathlib import Path

import pytest

from lmolt_utils.config.params import load
from lmolt_utils.files import write_json
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.metrics.further import ALL, REFERENCES, VALID, molecule_sets, rewritten_captions, sa_score
from lmolt_utils.run.notebook import Run
from tests.metrics.test_analysis import write_answers


@pytest.fixture
def run(runs: Path) -> Run:
    return Run("08_figures", runs / "smoke", load("smoke"))


def test_shares_of_all_and_of_valid_outputs(run: Run) -> None:
    outputs = ["CCc1ccccc1", "c1ccccc1CC", "OCC", "no molecule", "CC1CCCCC1", ""]
    write_answers(run, "cpo", "cap2mol", ["CCO"] * 6, outputs)
    copied = {"mol2cap": {}, "cap2mol": {"copied": 1 / 6}}
    write_json(run.path("scores", "cpo.behaviour.json"), copied)
    lines = molecule_sets(run, run.table)
    assert set(lines["system"]) == {"CPO", REFERENCES}, "a system without molecules has no line"
    shares = lines[lines["system"] == "CPO"].set_index(["quantity", "denominator"])[["value", "n"]]
    assert tuple(shares.loc[("valid", ALL)]) == (pytest.approx(4 / 6), 6), "the empty text is no molecule"
    for quantity, count in {"distinct molecules": 3, "new molecules": 3, "distinct scaffolds": 2}.items():
        assert tuple(shares.loc[(quantity, ALL)]) == (pytest.approx(count / 6), 6)
        assert tuple(shares.loc[(quantity, VALID)]) == (pytest.approx(count / 4), 4)
    assert shares.loc[("SA score at most 6", VALID), "value"] == 1
    reference = lines[lines["system"] == REFERENCES].set_index(["quantity", "denominator"])["value"]
    assert reference["distinct molecules", ALL] == pytest.approx(1 / 6)
    assert reference["distinct scaffolds", ALL] == 0, "ethanol has no ring"


def test_no_valid_output_has_no_share_of_valid_ones(run: Run) -> None:
    write_answers(run, "cpo", "cap2mol", ["CCO", "CC"], ["?", ""])
    lines = molecule_sets(run, run.table).query("system == 'CPO'").set_index(["quantity", "denominator"])["value"]
    assert lines["valid", ALL] == 0
    assert lines["distinct scaffolds", ALL] == 0
    assert math.isnan(lines["distinct scaffolds", VALID])
    assert math.isnan(lines["mean SA score", VALID])
    assert math.isnan(lines["new molecules", ALL]), "07 has not counted copies"


def test_the_score_of_aspirin_is_the_published_one() -> None:
    assert sa_score("CC(=O)Oc1ccccc1C(=O)O") == pytest.approx(1.58, abs=0.005)


def test_captions_of_rewritten_molecules(run: Run) -> None:
    references = ["The molecule is a nutrient."] * 4
    sources, others = ["CCO", "CCN", "CCC", "C"], ["OCC", "NCC", "C(C)C", "C"]
    before = ["The molecule is a nutrient.", "The molecule is a nutrient.", "CCO", "The molecule is a toxin."]
    after = ["The molecule is a nutrient.", "It is a nutrient.", "CCN", "The molecule is a nutrient."]
    write_answers(run, "cpo", "mol2cap", references, before, sources)
    assert rewritten_captions(run, run.table, Decomposer()).empty
    write_answers(run, "cpo.rewritten", "mol2cap", references, after, others)
    lines = rewritten_captions(run, run.table, Decomposer()).set_index("measure")
    assert lines.loc["equal captions", "n"] == 3, "methane has one SMILES"
    assert lines.loc["equal captions", "after"] == pytest.approx(1 / 3)
    assert lines.loc["equal property sets", ["n", "after"]].tolist() == [2, 1], "two texts without any are not equal"
    score = lines.loc["Chr-F"]
    assert score["difference"] == pytest.approx(score["after"] - score["before"])
    assert score["low"] <= score["difference"] < 0
    write_answers(run, "cpo.rewritten", "mol2cap", references[:3], after[:3], others[:3])
    with pytest.raises(ValueError, match="other test rows"):
        rewritten_captions(run, run.table, Decomposer())
