"""Atomic facts of a language model's answers, and of ``lmolt atoms``."""

import json
from pathlib import Path

import pytest

from lmolt_utils.cli import main
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.nli.llm import LlmAnswerError, LlmDecomposer, agreement, fact_set, facts, prompt


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
    assert model("") == []
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
