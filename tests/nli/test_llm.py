"""Facts by a language model in a run: really asked, kept, resumed, held against the rules, and fed to cross-NLI."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmolt_utils.cli import main
from lmolt_utils.config.params import ParameterError, load
from lmolt_utils.config.systems import System, load_systems
from lmolt_utils.files import read_json, read_rows, write_json, write_rows
from lmolt_utils.metrics.distributions import caption_wins
from lmolt_utils.models.predictions import prediction_path
from lmolt_utils.nli import llm
from lmolt_utils.nli.classifier import LABELS, Classifier
from lmolt_utils.nli.evaluation import cross_nli_systems, divergence_systems, entail_systems
from lmolt_utils.nli.llm import (
    LlmAnswerError,
    agreement_table,
    answers_path,
    ask_language_model,
    captions,
    differences,
    prompt,
)
from lmolt_utils.nli.results import cross_nli_report, cross_nli_rows, divergence_report, mean_table
from lmolt_utils.run.notebook import Run

BY_NAME = {system.name: system for system in load_systems()}
BETTER, WORSE, OTHER = (BY_NAME[name] for name in ("slerp+cpo", "meditron", "cpo"))
FACTS = ("a nutrient", "a emulsifier", "a membrane stabilizer", "a energy source", "a surfactant", "a energy storage")


SILENT = "embedded:base"  # whatever it is asked, it ends at once


def run_with(runs: Path, **values: Any) -> Run:
    params = load("smoke", {"decomposer_new_tokens": 6, **values})
    return Run("07_nli_evaluation", runs / "smoke", params)


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
    texts = {text for group in captions(run, [BETTER, WORSE]).values() for text in group}
    assert set(kept["answers"]) == texts
    assert kept["asked"] == len(texts) == 7 + 2  # six captions, the long one, Meditron's two: each once
    table = agreement_table(run, [BETTER, WORSE])
    assert table is not None
    everything = table.loc["all, each once"]
    assert everything["no answer"] + everything["no fact"] == everything["captions"] == 9
    assert (everything["exact"], everything["recall"]) == (0, 0)
    assert np.isnan(everything["precision"])
    assert list(table["captions"]) == [7, 7, 2, 9]
    with pytest.raises(LlmAnswerError, match=r"no fact of any of 9 captions.*decomposer: rules"):
        cross_nli_systems(run_with(runs, decomposer_model=SILENT, decomposer="llm"), [BETTER, WORSE])


def test_answers_are_kept_through_a_kill_and_a_new_system_costs_its_own(
    runs: Path, references: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    patience = [4]

    def asker(*_: Any, **__: Any) -> Any:
        def ask(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
            for index, text in enumerate(texts):
                if not patience[0]:
                    raise KeyboardInterrupt
                patience[0] -= 1
                asked.append(text)
                yield [(index, f"- {text}")]

        return ask

    monkeypatch.setattr(llm, "asker", asker)
    run = run_with(runs, decomposer_model="someone/somewhere", generation_batch=1)
    with pytest.raises(KeyboardInterrupt):
        ask_language_model(run, [BETTER, WORSE])
    patience[0] = 1000
    ask_language_model(run, [BETTER, WORSE])
    assert len(asked) == len(set(asked)) == 9
    predict(run, OTHER, ["It impacts aging.", "x " * 2500, *references[2:]], references)
    ask_language_model(run, [BETTER, WORSE, OTHER])
    assert asked[9:] == ["It impacts aging."]  # the overlong one is not asked
    table = agreement_table(run, [BETTER, WORSE, OTHER])
    assert table is not None
    assert table.loc["cpo", "no answer"] == 1
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
    assert table is not None
    whole = table.loc["all, each once"]
    assert (whole["captions"], whole["no answer"], whole["no fact"]) == (9, 1, 6)
    assert whole["exact"] == pytest.approx(1 / 9)
    assert whole["precision"] == pytest.approx((1 / 3 + 1) / 2)  # one fact of three; one of one
    assert whole["recall"] == pytest.approx((1 / 2 + 1) / 9)
    assert table.loc["meditron", "exact"] == 1 / 2
    first = differences(run, 1)
    assert first is not None
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
    assert agreement_table(run, [BETTER]) is None
    assert differences(run) is None
    entail_systems(run, [BETTER, WORSE])
    for system in (BETTER, WORSE):
        frame = read_rows(prediction_path(run, system.name, "mol2cap"), ("reference", "raw"))
        kept = read_rows(run.path("scores", f"{system.name}.nli.jsonl"), ("id", "entailment"))
        plain = Classifier(run.params.nli_model).probabilities(
            list(frame["reference"]), list(frame["raw"]), progress=False
        )
        asked = frame["raw"] != ""
        assert np.allclose(kept["entailment"], plain["entailment"].where(asked, 0), atol=1e-5)
        assert list(kept["id"]) == list(frame["id"])
    cross_nli_systems(run, [BETTER, WORSE])
    report = cross_nli_report(run)
    assert report["decomposer"] == "rules"
    assert report["pairs"]["cached"] >= 7 + 6 + 1  # the full-text method asks what entailment had asked

    divergence_systems(run, [BETTER, WORSE])
    table, moved, reason = divergence_report(run)
    assert reason == ""
    assert len(moved)
    everyone = table[table["words"] == 0].set_index("method")
    assert everyone.loc["atomic", "difference"] > 0.3
    assert (table[table["words"] == 30]["reason"].str.startswith("1 rows")).all()
    divergence_systems(run, [WORSE])
    assert divergence_report(run)[2] == "slerp+cpo not run"
    assert divergence_report(run)[0].empty


def test_pieces_of_smiles_are_not_entailed(runs: Path) -> None:
    run = run_with(runs)
    reference = "The molecule is a apoptosis, a cholesterol translocation that impacts aging."
    outputs = [" CCC(C)C", " CC1", ")COC(=O)CCCC", ")OC(=O)CCC[C@@H", "", reference, reference]
    references = [reference] * 6 + [""]
    plain = Classifier(run.params.nli_model).probabilities(references, outputs, progress=False)
    assert caption_wins(plain)[:4].any(), "the model itself calls some of them entailed"
    predict(run, WORSE, outputs, references)
    entail_systems(run, [WORSE])
    kept = read_rows(run.path("scores", f"{WORSE.name}.nli.jsonl"), ("id", "rule", *LABELS))
    assert list(kept["rule"]) == [*["wrong modality"] * 4, "empty output", "", "empty reference"]
    assert kept["entailment"].tolist()[:5] == [0.0] * 5
    assert kept[list(LABELS)].iloc[6].isna().all()
    assert caption_wins(kept).tolist() == [*[False] * 5, True, False]
    cross_nli_systems(run, [WORSE])
    judged = cross_nli_rows(run, [WORSE])
    for method, rows in judged.groupby("method"):
        assert list(rows["rule"]) == list(kept["rule"]), method
        assert rows["coverage"].tolist()[:5] == rows["recall"].tolist()[:5] == [0.0] * 5, method
        assert rows["hallucinated"].iloc[:5].isna().all(), method
    assert mean_table(judged).loc[WORSE.name, ["empty_outputs", "wrong_modality"]].tolist() == [1, 4]
    counts = {line["n"] for line in cross_nli_report(run)["correlations"] if line["quantity"] == "coverage"}
    assert counts == {1}, "what the rule decides says nothing of a method"


def test_a_property_tree_is_known_by_its_content(
    runs: Path, references: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with(runs)
    tree = run.path("data", "property_tree.json")  # as 01 keeps it
    tree.parent.mkdir(parents=True, exist_ok=True)
    tree.write_text(json.dumps({"Biomedical": ["nutrient", "surfactant", "aging"]}))
    cross_nli_systems(run, [WORSE])
    cross_nli_systems(run, [WORSE])
    assert "cross-NLI: up to date" in capsys.readouterr().out
    tree.write_text(json.dumps({"Biomedical": ["nutrient", "surfactant", "aging", "cancer"]}))
    cross_nli_systems(run, [WORSE])
    assert "cross-NLI: changed inputs: property tree" in capsys.readouterr().out


def test_a_run_by_a_language_model_needs_one() -> None:
    with pytest.raises(ParameterError, match="decomposer: llm needs a model"):
        load("cpu", {"decomposer": "llm"})
    paper = load("paper")
    assert (paper.decomposer, paper.word_cuts) == ("llm", [50, 70])
    assert str(paper.decomposer_model).endswith("Meta-Llama-3-8B-Instruct")
    with pytest.raises(ParameterError, match="word_cuts"):
        load("cpu", {"word_cuts": [50]})


TOLD = {  # the model's own mistakes: it misses the toxin, and has a fact of its own
    "The molecule is a nutrient and a toxin.": "- The molecule is a nutrient.\n",
    "It impacts pancreatitis.": "- The molecule impacts pancreatitis.\n- The molecule is a nutrient.\n",
}


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that answers two captions as told, in place of training one."""

    def generate(model: Any, tokenizer: Any, prompts: Sequence[str], **_: Any) -> list[str]:
        answer_to = {prompt(caption): answer for caption, answer in TOLD.items()}
        return [answer_to[text] for text in prompts]

    monkeypatch.setattr(llm, "generate", generate)
    return SILENT


def test_a_language_model_decomposes_anyones_file(
    taught: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("\n".join([*TOLD, "", next(iter(TOLD))]) + "\n")
    assert main(["atoms", str(file), "--decomposer", taught]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [[atom["property"] for atom in row["atoms"]] for row in rows] == [
        *(["nutrient"], ["pancreatitis", "nutrient"], [], ["nutrient"])
    ]
    # By hand: no set is equal; precision 1 and 1/2, recall 1/2 and 1.
    line = "agreement with the rules over 2 captions (0 without a fact): exact 0.000, precision 0.750, recall 0.750"
    assert line in err


def test_cross_nli_of_anyones_file_by_a_language_models_facts(
    taught: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = TOLD
    file = tmp_path / "predictions.jsonl"
    pairs = [{"id": 1, "reference": first, "prediction": second}, {"id": 2, "reference": second, "prediction": second}]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert main(["nli", str(file), "--decomposer", taught, "--json", str(tmp_path / "out.json")]) == 0
    report = read_json(tmp_path / "out.json")
    atomic = [row for row in report["rows"] if row["method"] == "atomic"]
    assert [(row["reference_units"], row["output_units"]) for row in atomic] == [(1, 2), (2, 2)]
    assert report["decomposer"] == taught
    assert report["agreement_with_rules"]["recall"] == 0.75
    assert "recall 0.750" in capsys.readouterr().out


def test_a_silent_language_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("It impacts aging.\n")
    assert main(["atoms", str(file), "--decomposer", SILENT]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "named no fact of any of 1 captions" in err
