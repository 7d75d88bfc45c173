"""Atomic facts of a language model's answers, alone and in ``lmolt atoms`` and ``lmolt nli``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lmolt_utils.cli import main
from lmolt_utils.files import read_json
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.nli import llm
from lmolt_utils.nli.llm import Agreement, LlmAnswerError, LlmDecomposer, agreement, fact_set, facts, prompt


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
    output = capsys.readouterr()
    assert [atom["property"] for atom in json.loads(output.out.splitlines()[0])["atoms"]] == [None, "aging"]
    assert "3 captions, 3 atoms, 2 of them without a known property" in output.err


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
    assert model("") == []
    assert model.unanswered([caption, ""]) == []
    assert agreement(model) == Agreement(captions=1, unanswered=0, exact=1, precision=1, recall=1)


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


TOLD = {  # the model's own mistakes: it misses the toxin, and has a fact of its own
    "The molecule is a nutrient and a toxin.": "- The molecule is a nutrient.\n",
    "It impacts pancreatitis.": "- The molecule impacts pancreatitis.\n- The molecule is a nutrient.\n",
}


def test_the_commands_by_a_language_models_facts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def generate(model: Any, tokenizer: Any, prompts: Sequence[str], **_: Any) -> list[str]:
        answer_to = {prompt(caption): answer for caption, answer in TOLD.items()}
        return [answer_to[text] for text in prompts]

    monkeypatch.setattr(llm, "generate", generate)  # in place of training a model
    taught = "embedded:base"
    first, second = TOLD
    file = tmp_path / "captions.txt"
    file.write_text("\n".join([first, second, "", first]) + "\n")
    assert main(["atoms", str(file), "--decomposer", taught]) == 0
    out, err = capsys.readouterr()
    found = [[atom["property"] for atom in json.loads(line)["atoms"]] for line in out.splitlines()]
    assert found == [["nutrient"], ["pancreatitis", "nutrient"], [], ["nutrient"]]
    # By hand: no set is equal; precision 1 and 1/2, recall 1/2 and 1.
    shares = "exact 0.000, precision 0.750, recall 0.750"
    assert f"agreement with the rules over 2 captions (0 without a fact): {shares}" in err

    file, report = tmp_path / "predictions.jsonl", tmp_path / "out.json"
    pairs = [{"id": i, "reference": text, "prediction": second} for i, text in enumerate(TOLD)]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert main(["nli", str(file), "--decomposer", taught, "--json", str(report)]) == 0
    told = read_json(report)
    atomic = [row for row in told["rows"] if row["method"] == "atomic"]
    assert [(row["reference_units"], row["output_units"]) for row in atomic] == [(1, 2), (2, 2)]
    assert (told["decomposer"], told["agreement_with_rules"]["recall"]) == (taught, 0.75)
    assert shares in capsys.readouterr().out
