"""Atomic cross-NLI: Eqs. 6 and 7 against hand computation, the rules for odd captions, truth, and the command."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmolt_utils.cli import main
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.nli.baselines import FULL_TEXT, SENTENCE, SUMMAC_ZS, convolution
from lmolt_utils.nli.classifier import Answer
from lmolt_utils.nli.command import means
from lmolt_utils.nli.cross_nli import (
    EMPTY_OUTPUT,
    EMPTY_REFERENCE,
    WRONG_MODALITY,
    Method,
    canonical_atoms,
    cross_nli,
    texts_and_rules,
)
from lmolt_utils.nli.truth import correlations, truth
from tests.nli.conftest import Answers

NAMES = Vocabulary.of(
    {"nutrient": "role", "emulsifier": "role", "toxin": "role", "surfactant": "role", "pancreatitis": "effect"}
)
DECOMPOSER = Decomposer(NAMES)
ATOMIC = Method("atomic", canonical_atoms(DECOMPOSER))
FACT = "The molecule is a nutrient."


def by_rule(premise: str, hypothesis: str) -> Answer:
    """Equal texts entail, a toxin contradicts a nutrient and the other way round, else neutral."""
    if premise == hypothesis:
        return 0.01, 0.95, 0.04
    if {premise, hypothesis} == {"The molecule is a toxin.", "The molecule is a nutrient."}:
        return 0.9, 0.02, 0.08
    return 0.1, 0.05, 0.85


def judge(*captions: tuple[str | None, str | None]) -> Any:
    """The rows; Any, because pandas' types allow a cell to be anything."""
    frame = pd.DataFrame(captions, columns=["reference", "prediction"], dtype=object).assign(id=range(len(captions)))
    return cross_nli({"s": frame}, [ATOMIC], Answers(by_rule))[0]["s"]


@pytest.mark.parametrize(
    ("reference", "output", "expected"),
    [
        (
            "The molecule is a nutrient and a emulsifier.",
            "The molecule is a nutrient, a toxin that impacts pancreatitis.",
            # Hallucination: min(.01, .1); toxin: min(.9, .1), by the emulsifier; .1. What Eq. 6 calls nearly faultless
            # is unsupported: toxin, max(.02, .05), and pancreatitis, .05.
            ((0.01 + 0.1 + 0.1) / 3, (0.95 + 0.05) / 2, (0.05 + 0.95 + 0.95) / 3),
        ),
        (FACT, "The molecule is a toxin.", (0.9, 0.02, 0.98)),
        # A repeated fact counts as often as it is stated.
        (
            FACT,
            "The molecule is a nutrient, a nutrient, a emulsifier.",
            ((0.01 + 0.01 + 0.1) / 3, 0.95, (0.05 + 0.05 + 0.95) / 3),
        ),
    ],
)
def test_equations_by_hand(reference: str, output: str, expected: tuple[float, ...]) -> None:
    (row,) = judge((reference, output)).itertuples()
    assert (row.hallucination, row.coverage, row.unsupported) == pytest.approx(expected)
    units = len(DECOMPOSER(reference)), len(DECOMPOSER(output))
    assert (row.reference_units, row.output_units, row.rule) == (*units, "")


def test_empty_captions_by_rule() -> None:
    rows = judge((FACT, ""), (FACT, None), (FACT, " \n"), ("", FACT), ("", ""), (FACT, FACT))
    assert list(rows["rule"]) == [EMPTY_OUTPUT] * 3 + [EMPTY_REFERENCE] * 2 + [""]
    assert list(rows["coverage"][:3]) == [0.0, 0.0, 0.0]
    assert rows[["hallucination", "unsupported"]][:5].isna().all(axis=None)
    assert rows["coverage"][3:5].isna().all()
    table = means(rows).set_index("quantity")
    assert list(table["n"]) == [1, 4, 1]
    assert table["mean"]["coverage"] == pytest.approx(0.95 / 4)
    assert table["mean"]["hallucination"] == pytest.approx(0.01)


def test_odd_references_are_judged_as_they_stand() -> None:
    odd = pd.DataFrame([("CCO", FACT), ("bad \ud800", FACT)], columns=["reference", "prediction"], dtype=object)
    # Never tested for their modality; no tokenizer takes a lone surrogate.
    assert texts_and_rules(odd) == ([("CCO", FACT), ("bad ?", FACT)], ["", ""])


def test_what_is_no_caption_states_nothing_in_every_method() -> None:
    """Even if the model calls everything entailed, as NLI models do with many pieces of SMILES: it is not asked."""
    outputs = [FACT, "", "CC(=O)O", ")OC(=O)CCC[C@@H", "nutrient"]
    frame = pd.DataFrame({"id": range(5), "reference": FACT, "prediction": outputs})
    methods = [ATOMIC, FULL_TEXT, SENTENCE, SUMMAC_ZS, convolution(np.linspace(0, 1, 50), 0.0)]
    table = Answers(lambda *_: (0.01, 0.98, 0.01))
    found = cross_nli({"s": frame}, methods, table)[0]["s"]
    assert {text for pair in table.seen for text in pair} == {FACT}
    assert (found.loc[found["id"] == 0, "coverage"] > 0.5).all()
    others = found[found["id"] > 0]
    assert list(others["rule"]) == [EMPTY_OUTPUT, WRONG_MODALITY, WRONG_MODALITY, WRONG_MODALITY] * len(methods)
    assert (others[["coverage", "output_units"]] == 0).all(axis=None)
    assert others[["hallucination", "unsupported"]].isna().all(axis=None)


def test_pairs_are_counted_and_asked_once_over_rows_methods_and_systems() -> None:
    outputs = ["The molecule is a nutrient.", "The molecule is a emulsifier."]
    both = "The molecule is a nutrient and a toxin."
    a = pd.DataFrame({"id": [0, 1], "reference": both, "prediction": outputs})
    table = Answers(by_rule)
    rows, counts = cross_nli({"a": a, "b": a[::-1]}, [ATOMIC], table)
    assert counts["naive"] == 2 * (2 * 2 + 2 * 2)
    # (nutrient, nutrient) is one pair in both directions; toxin-nutrient and two with the emulsifier are two each.
    assert counts["distinct"] == len(table.seen) == len(set(table.seen)) == 1 + 2 + 4
    assert rows["a"]["coverage"].tolist() == rows["b"]["coverage"].tolist()[::-1]
    assert list(rows["b"]["id"]) == [1, 0]


# ---- ground truth ----


def test_truth_by_hand() -> None:
    texts = [
        ("The molecule is a nutrient and a emulsifier.", "The molecule is a nutrient, a toxin, a surfactant."),
        (FACT, ""),
        ("CCO", "The molecule is a toxin."),
    ]
    known = truth(texts, DECOMPOSER)
    assert known["recall"].tolist() == pytest.approx([0.5, 0.0, math.nan], nan_ok=True)
    assert known["hallucinated"].tolist() == pytest.approx([2 / 3, math.nan, math.nan], nan_ok=True)


def test_correlations_equal_scipys() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 200).astype(float)
    y = x + rng.normal(0, 2, 200)
    invented = np.where(np.arange(200) < 10, np.nan, y)
    scores = {"hallucination": 0.1, "coverage": x, "unsupported": -y, "recall": y, "hallucinated": invented}
    rows = pd.DataFrame({"id": range(200), "method": "atomic", "rule": "", **scores})
    decided = rows.head(50).assign(rule=[EMPTY_OUTPUT, WRONG_MODALITY] * 25, coverage=0.0, recall=0.0)
    table: Any = correlations(pd.concat([rows, decided]), resamples=200).set_index("quantity")
    found = table.loc["coverage"]
    assert found["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    fisher = np.tanh(np.arctanh(found["spearman"]) + np.array([-1.96, 1.96]) / np.sqrt(197))
    assert [found["low"], found["high"]] == pytest.approx(fisher, abs=0.05)
    assert table.loc["unsupported", "spearman"] == pytest.approx(-1)
    assert table.loc["unsupported", "n"] == 190
    assert math.isnan(table.loc["hallucination", "spearman"]), "the score is the same in every row"


# ---- the command ----


def test_command_scores_a_file_and_counts_its_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = [FACT, "CCO", "", "The molecule is not a nutrient."]
    lines = [{"id": f"m{i}", "reference": FACT, "prediction": text} for i, text in enumerate(captions)]
    file, out = tmp_path / "p.jsonl", tmp_path / "out.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["nli", str(file), "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "empty output: 1" in shown
    assert "wrong modality: 1" in shown
    assert "SummaC-Conv: not run" in shown
    report = json.loads(out.read_text())
    assert report["pairs"]["naive"] > report["pairs"]["distinct"] > 0
    atomic = {row["id"]: row for row in report["rows"] if row["method"] == "atomic"}
    assert atomic["m0"]["coverage"] > 0.9 > 0.1 > atomic["m0"]["hallucination"]
    assert atomic["m3"]["hallucination"] > 0.9
    scores = {"hallucination": None, "coverage": 0.0, "unsupported": None}
    units = {"reference_units": 1, "output_units": 0}
    assert atomic["m2"] == {"id": "m2", "method": "atomic", **scores, **units, "rule": EMPTY_OUTPUT}


def test_command_refuses_molecules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": 1, "task": "cap2mol", "reference": "CCO", "prediction": "CCO"}\n')
    assert main(["nli", str(file)]) == 2
    assert "NLI judges captions" in capsys.readouterr().err
