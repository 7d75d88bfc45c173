"""Trivial baselines: answers by hand, from the sample alone, always the same; rows of the systems table."""

from pathlib import Path

import pandas as pd

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.config.systems import BASELINES, load_systems
from lmolt_utils.data.baselines import (
    ANSWERS,
    Sample,
    constant,
    make_baseline,
    nearest_neighbour,
    rule,
    tree_text,
    words_of,
)
from lmolt_utils.data.sample import held_out, sample
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.files import read_rows, write_rows
from lmolt_utils.metrics.scoring import predicted
from lmolt_utils.models.predictions import PREDICTION_COLUMNS, prediction_path
from lmolt_utils.run.notebook import Run

ROWS = pd.DataFrame(
    [
        ("CCCCO", "It is a solvent and a fuel.", "fuel|solvent"),
        ("CCCCCO", "It is a fuel and a solvent.", "solvent|fuel"),
        ("CCCCCCCO", "It is a fuel.  It is a solvent.", "fuel|solvent"),
        ("Oc1ccccc1", "It is an anti bacterial.", "anti bacterial"),
        ("Cc1ccccc1O", "It is an anti bacterial.", "anti bacterial"),
        ("NCC(=O)O", "It is a nutrient.", "nutrient"),
    ],
    columns=["molecule", "caption", "properties"],
)


FEW = Sample(ROWS)


def test_constant_speaks_for_the_most_frequent_property_set() -> None:
    assert FEW.by_frequency == ["fuel|solvent", "anti bacterial", "nutrient"]
    # Of three captions used once each, the two longest share all their words: the first of them is the medoid.
    assert constant(FEW, "mol2cap", ["C", "CC"]) == ["It is a solvent and a fuel."] * 2
    # Pentanol lies between butanol and heptanol, with the bits of both.
    assert constant(FEW, "cap2mol", ["any", "text"]) == ["CCCCCO"] * 2
    rows = pd.concat([ROWS, ROWS.iloc[[2]].assign(molecule="CCCCCCCCO")])
    assert constant(Sample(rows), "mol2cap", ["C"]) == ["It is a fuel.  It is a solvent."], "a frequent one goes first"
    bare = Sample(ROWS.assign(properties=""))
    assert constant(bare, "mol2cap", ["C"]) == ["It is an anti bacterial."], "without sets the sample is one set"


def test_nearest_neighbour_repeats_the_most_similar_row() -> None:
    answers = nearest_neighbour(FEW, "mol2cap", ["CCc1ccccc1O", "CCCCCCO", "NCC(=O)OC"])
    assert answers[0] == "It is an anti bacterial."
    assert "fuel" in answers[1]
    assert answers[2] == "It is a nutrient."
    asked = ["This is a nutrient!", "it is an ANTI BACTERIAL", "fuel and solvent", ""]
    assert nearest_neighbour(FEW, "cap2mol", asked) == ["NCC(=O)O", "Oc1ccccc1", "CCCCO", "CCCCO"]


def test_rule_goes_from_functional_groups_to_a_property_set() -> None:
    first, *others = rule(FEW, "mol2cap", ["CCCCCCCCCCO", "Oc1ccc(Cl)cc1", "CC(N)C(=O)O"])
    assert "fuel" in first
    assert others == ["It is an anti bacterial.", "It is a nutrient."]
    assert "class: anti bacterial" in tree_text(FEW.tree)


def test_rule_goes_from_property_names_to_a_molecule() -> None:
    asked = [
        "The molecule is a nutrient.",
        "The molecule is a anti bacterial, fuel, and solvent.",  # two of three names are fuel and solvent's
        "Nothing known.",  # the most frequent set
        "It is a Fuel.",  # half of a set
        "It is an anti bacterial.",
    ]
    assert rule(FEW, "cap2mol", asked) == ["NCC(=O)O", "CCCCCO", "CCCCCO", "CCCCCO", "Oc1ccccc1"]
    assert words_of("It is: (a) Fuel, a fuel.") == {"it", "is", "a", "fuel"}


# ---- as systems ----


def a_run(folder: Path, *, properties: bool = True) -> Run:
    corpus = generate(250, 1)
    if not properties:
        corpus["properties"] = ""
    run = Run("01_data", folder, load("smoke"))
    write_rows(run.path("data", "corpus.jsonl"), corpus)
    write_rows(run.path("data", "sample.jsonl"), sample(corpus, 0.2, 0))
    write_rows(run.path("data", "test.jsonl"), held_out(corpus, "test", 15, 0))
    return run


def test_rows_of_the_systems_table_are_predicted_from_the_sample_alone(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    said: list[str] = []
    assert [system.name for system in run.systems] == list(BASELINES) == list(ANSWERS)
    for system in run.systems:
        assert make_baseline(run, system, said.append)
    assert predicted(run, load_systems()) == run.systems
    sampled = read_rows(run.path("data", "sample.jsonl"), ["molecule"])
    other = a_run(tmp_path / "two")
    tested = read_rows(other.path("data", "test.jsonl"), ["id"])
    for system in run.systems:
        for task in TASKS:
            frame = read_rows(prediction_path(run, system.name, task), PREDICTION_COLUMNS)
            assert list(frame.columns) == list(PREDICTION_COLUMNS)
            assert frame["raw"].equals(frame["prediction"])
            allowed = sampled["caption" if task == "mol2cap" else "molecule"]
            assert set(frame["prediction"]) <= set(allowed), "only the sample's own texts"
            # Nothing of a test row but its source decides: other references and property sets, same answers.
            hidden = "caption" if task == "mol2cap" else "molecule"
            write_rows(other.path("data", "test.jsonl"), tested.assign(**{hidden: "C", "properties": "x"}))
            make_baseline(other, system, said.append)
            again = read_rows(prediction_path(other, system.name, task), PREDICTION_COLUMNS)
            assert again["prediction"].equals(frame["prediction"]), "the same answers in another run"
    assert "class:" in run.path("models", "rule.txt").read_text()


def test_rule_is_not_run_where_no_property_sets_are_stated(tmp_path: Path) -> None:
    run = a_run(tmp_path, properties=False)
    said: list[str] = []
    (system,) = [row for row in run.systems if row.name == "rule"]
    stale = prediction_path(run, "rule", "mol2cap")
    stale.parent.mkdir()
    stale.write_text("{}\n")
    assert not make_baseline(run, system, said.append)
    assert said == ["rule: not run: the corpus states no property sets"]
    assert not stale.exists(), "predictions of another corpus would be scored"
    assert all(make_baseline(run, row, said.append) for row in run.systems if row.name != "rule")
