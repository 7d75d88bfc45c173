"""Facts by a language model: read off its answers; in a run really asked, kept, resumed, held against the rules."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmolt_utils.cli import main
from lmolt_utils.config.params import load
from lmolt_utils.config.systems import System, load_systems
from lmolt_utils.files import read_json, read_rows, write_json, write_rows
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.metrics.distributions import caption_wins
from lmolt_utils.models.predictions import prediction_path
from lmolt_utils.nli import llm
from lmolt_utils.nli.classifier import LABELS, Classifier
from lmolt_utils.nli.evaluation import cross_nli_systems, divergence_systems, entail_systems
from lmolt_utils.nli.llm import (
    LlmAnswerError,
    LlmDecomposer,
    agreement,
    agreement_table,
    answers_path,
    ask_language_model,
    captions,
    differences,
    fact_set,
    facts,
    prompt,
)
from lmolt_utils.nli.results import cross_nli_report, cross_nli_rows, divergence_report, mean_table, report_path
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.steps import record_path

BY_NAME = {system.name: system for system in load_systems()}
BETTER, WORSE, OTHER = (BY_NAME[name] for name in ("slerp+cpo", "meditron", "cpo"))
FACTS = ("a nutrient", "a emulsifier", "a membrane stabilizer", "a energy source", "a surfactant", "a energy storage")
SILENT = "embedded:base"  # whatever it is asked, it ends at once


# ---- answers ----


def test_the_atoms_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, names = tmp_path / "captions.txt", tmp_path / "names.txt"
    path.write_text("The molecule is a widget that impacts aging.\n\nCCO\n", "utf-8")
    names.write_text("aging\n", "utf-8")
    assert main(["atoms", str(path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    widget = {"text": "The molecule is a widget.", "property": "widget"}
    aging = {"text": "The molecule impacts aging.", "property": "aging"}
    assert rows == [
        {"caption": "The molecule is a widget that impacts aging.", "atoms": [widget, aging]},
        {"caption": "", "atoms": []},
        {"caption": "CCO", "atoms": [{"text": "CCO", "property": None}]},
    ]
    assert main(["atoms", str(path), "--vocabulary", str(names)]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert [atom["property"] for atom in first["atoms"]] == [None, "aging"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("- The molecule is a nutrient.\n- It impacts aging.", ["The molecule is a nutrient.", "It impacts aging."]),
        ("- The molecule is a nutrient. - The molecule impacts aging.", None),
        ("Sure, the facts:\n\n1. The molecule is a nutrient.\n2) The molecule impacts aging.\n\nHope it helps", None),
        ("  * **The molecule is a nutrient.**\n  • The molecule impacts aging.\n### User:\n- It is smooth.", None),
        ("The molecule is a nutrient. The molecule impacts aging. I hope this helps.", None),
        (
            "- The molecule impacts non-alcoholic fatty liver\n  disease.",
            ["The molecule impacts non-alcoholic fatty liver disease."],
        ),
        ("- None.", []),
        ("I cannot answer that.", []),
        ("", []),
        ("### User:\n- The molecule is smooth.", []),
    ],
)
def test_facts_of_a_language_models_answer(answer: str, expected: list[str] | None) -> None:
    usual = ["The molecule is a nutrient.", "The molecule impacts aging."]
    assert facts(answer) == (usual if expected is None else expected)


def test_the_papers_own_answer_is_read_and_compared() -> None:
    """Fig. 11's example answer, read back: seven facts, and the same that the rules find."""
    example, request = prompt("CAPTION").split("\n### User:", 1)
    assert "{CAPTION}" in request
    assert request.rstrip().endswith("### Assistant:")
    caption = example.split("{")[1].split("}")[0]
    model = LlmDecomposer({caption: example.split("### Assistant:")[1]}, Decomposer(open_vocabulary=True))
    assert len(model(caption)) == 7
    assert model.unanswered([caption, ""]) == []
    assert agreement(model, [caption]) == {"exact": 1, "precision": 1, "recall": 1}


def test_names_survive_a_language_models_spelling_and_silence_is_no_empty_caption() -> None:
    answers = {"x": "- The molecule is an anti-viral.", "It impacts aging. It is odd.": "?", "y": "- It glows."}
    model = LlmDecomposer(answers, Decomposer(Vocabulary.from_names(["anti viral", "aging"])))
    assert [(atom.text, atom.property) for atom in model("x")] == [("The molecule is an anti-viral.", "anti viral")]
    assert fact_set(model("y")) == {"it glows"}  # what the rules do not know counts as a fact of its own
    assert model.unanswered(answers) == ["It impacts aging. It is odd."]
    assert model.units("It impacts aging. It is odd.") == ["It impacts aging.", "It is odd."]
    assert model.units("x") == ["The molecule is a anti viral."]
    with pytest.raises(LlmAnswerError, match="no answer about 'z'"):
        model("z")


# ---- in a run ----


def run_with(runs: Path, **values: Any) -> Run:
    return Run("07_nli_evaluation", runs / "smoke", load("smoke", {"decomposer_new_tokens": 6, **values}))


def predict(run: Run, system: System, outputs: Sequence[str], references: Sequence[str]) -> None:
    ids = [f"e{number}" for number in range(len(outputs))]
    frame = pd.DataFrame({"id": ids, "task": "mol2cap", "source": "C", "reference": references, "raw": outputs})
    write_rows(prediction_path(run, system.name, "mol2cap"), frame.assign(prediction=frame["raw"]))


@pytest.fixture
def references(runs: Path) -> list[str]:
    """36 captions of two facts each, most of them several times, answered well and badly."""
    run = run_with(runs)
    texts = [f"The molecule is {FACTS[i % 6]}. It impacts {('aging', 'cancer')[i % 2]}." for i in range(36)]
    texts[0] += " It impacts obesity." * 20  # 64 words more
    predict(run, BETTER, texts, texts)
    predict(run, WORSE, ["The molecule is a nutrient.", "", *["The molecule is a surfactant."] * 34], texts)
    return texts


def test_a_real_model_without_facts_is_counted_and_refused(runs: Path, references: list[str]) -> None:
    run = run_with(runs, decomposer_model=SILENT)
    ask_language_model(run, [BETTER, WORSE])
    kept = read_json(answers_path(run))
    assert kept["asked"] == len(kept["answers"]) == 7 + 2  # six captions, the long one, Meditron's two: each once
    table = agreement_table(run, [BETTER, WORSE])
    assert list(table["captions"]) == [7, 7, 2, 9]
    assert (table["no answer"] + table["no fact"]).equals(table["captions"])
    shares = table.loc["all, each once", ["exact", "precision", "recall"]]
    assert shares.tolist() == pytest.approx([0, np.nan, 0], nan_ok=True)
    with pytest.raises(LlmAnswerError, match=r"no fact of any of 9 captions.*decomposer: rules"):
        cross_nli_systems(run_with(runs, decomposer_model=SILENT, decomposer="llm"), [BETTER, WORSE])


def test_answers_are_kept_through_a_kill_and_a_new_system_costs_its_own(
    runs: Path, references: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    patience = [4]

    def stream(model: Any, tokenizer: Any, prompts: Sequence[str], **_: Any) -> Iterator[list[tuple[int, str]]]:
        for index, text in enumerate(prompts):
            if not patience[0]:
                raise KeyboardInterrupt
            patience[0] -= 1
            asked.append(text)
            yield [(index, "- It impacts aging.")]

    monkeypatch.setattr(llm, "stream", stream)
    for name in ("load_model", "load_tokenizer"):
        monkeypatch.setattr(llm, name, lambda *_, **__: None)
    run = run_with(runs, decomposer_model="someone/somewhere", generation_batch=1)
    with pytest.raises(KeyboardInterrupt):
        ask_language_model(run, [BETTER, WORSE])
    patience[0] = 1000
    ask_language_model(run, [BETTER, WORSE])
    assert len(asked) == len(set(asked)) == 9
    predict(run, OTHER, ["It impacts aging.", "x " * 2500, *references[2:]], references)
    ask_language_model(run, [BETTER, WORSE, OTHER])
    assert asked[9:] == [prompt("It impacts aging.")]  # the overlong one is not asked
    ask_language_model(run, [BETTER, WORSE, OTHER])
    assert len(asked) == 10
    other = run_with(runs, decomposer_model="someone/somewhere", generation_batch=1, decomposer_new_tokens=7)
    ask_language_model(other, [BETTER, WORSE, OTHER])
    assert len(asked) == 20  # other settings, other answers


def test_agreement_differences_and_cross_nli_by_handmade_answers(runs: Path, references: list[str]) -> None:
    run = run_with(runs, decomposer_model="someone/somewhere", decomposer="llm")
    good = "The molecule is a nutrient. It impacts aging."
    found = captions(run, [BETTER, WORSE])
    answers = dict.fromkeys((text for group in found.values() for text in group), "I cannot say.")
    answers[good] = "- The molecule is a nutrient.\n- It impacts cancer.\n- It impacts obesity."
    answers["The molecule is a nutrient."] = "Sure:\n1. The molecule is a nutrient."
    answers["The molecule is a surfactant."] = ""
    write_json(answers_path(run), {"made_from": {}, "asked": 0, "answers": answers})
    table = agreement_table(run, [BETTER, WORSE])
    # Captions, no answer, no fact, exact; precision: one fact of three, and one of one; recall.
    expected = 9, 1, 6, 1 / 9, (1 / 3 + 1) / 2, (1 / 2 + 1) / 9
    assert table.loc["all, each once"].tolist() == pytest.approx(expected)
    assert table.loc["meditron", "exact"] == 1 / 2
    first = differences(run)
    assert first.iloc[0].tolist() == [good, "aging", "cancer; obesity"]

    cross_nli_systems(run, [BETTER, WORSE])
    report = cross_nli_report(run)
    assert (report["decomposer"], report["captions_without_facts"]) == ("llm", 7)
    rows = cross_nli_rows(run, [BETTER, WORSE])
    atomic = rows[rows["method"] == "atomic"].set_index(["system", "id"])
    told = atomic.loc[("slerp+cpo", "e6")]  # the good caption: three facts by the model on either side
    assert (told["reference_units"], told["output_units"]) == (3, 3)
    silent = atomic.loc[("slerp+cpo", "e1")]  # no fact: its two sentences, and no zero
    assert (silent["reference_units"], silent["rule"]) == (2, "")
    assert silent["coverage"] > 0.5
    assert atomic.loc[("meditron", "e1")]["rule"] == "empty output"
    assert silent["recall"] == 1  # what is known still comes from the rules


def test_without_a_model_the_rules_decide_and_entailment_shares_its_answers(
    runs: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with(runs)
    ask_language_model(run, [BETTER, WORSE])
    assert "not run: no model" in capsys.readouterr().out
    entail_systems(run, [BETTER, WORSE])
    frame = read_rows(prediction_path(run, WORSE.name, "mol2cap"), ("reference", "raw"))
    kept = read_rows(run.path("scores", f"{WORSE.name}.nli.jsonl"), ("id", "entailment"))
    asked = Classifier(run.params.nli_model).probabilities(frame["reference"], frame["raw"], progress=False)
    assert np.allclose(kept["entailment"], asked["entailment"].where(frame["raw"] != "", 0), atol=1e-5)
    write_json(run.path("data", "property_tree.json"), {"Biomedical": ["nutrient", "surfactant", "aging"]})
    cross_nli_systems(run, [BETTER, WORSE])
    report = cross_nli_report(run)
    assert report["decomposer"] == "rules"
    assert "property tree" in read_json(record_path(report_path(run)))["key"]["inputs"], "another tree, other scores"

    divergence_systems(run, [BETTER, WORSE])
    table, moved, reason = divergence_report(run)
    assert reason == ""
    assert len(moved)
    everyone = table[table["words"] == 0].set_index("method")
    assert everyone.loc["atomic", "difference"] > 0.3
    assert (table[table["words"] == 30]["reason"].str.startswith("1 rows")).all()
    divergence_systems(run, [WORSE])
    table, _, reason = divergence_report(run)
    assert (reason, len(table)) == ("slerp+cpo not run", 0)


def test_pieces_of_smiles_are_not_entailed(runs: Path) -> None:
    run = run_with(runs)
    reference = "The molecule is a apoptosis, a cholesterol translocation that impacts aging."
    outputs = [" CCC(C)C", " CC1", ")COC(=O)CCCC", ")OC(=O)CCC[C@@H", "", reference, reference]
    references = [reference] * 6 + [""]
    asked = Classifier(run.params.nli_model).probabilities(references, outputs, progress=False)
    assert caption_wins(asked)[:4].any(), "the model itself calls some of them entailed"
    predict(run, WORSE, outputs, references)
    entail_systems(run, [WORSE])
    kept = read_rows(run.path("scores", f"{WORSE.name}.nli.jsonl"), ("id", "rule", *LABELS))
    assert list(kept["rule"]) == [*["wrong modality"] * 4, "empty output", "", "empty reference"]
    assert kept["entailment"].tolist()[:5] == [0.0] * 5
    assert kept[list(LABELS)].iloc[6].isna().all()
    assert caption_wins(kept).tolist() == [*[False] * 5, True, False]
    cross_nli_systems(run, [WORSE])
    judged = cross_nli_rows(run, [WORSE])
    assert mean_table(judged).loc[WORSE.name, ["empty_outputs", "wrong_modality"]].tolist() == [1, 4]
