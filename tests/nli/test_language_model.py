"""Atomic facts of a language model's answers, and what ``lmolt atoms`` prints."""

import json
import math
from pathlib import Path

import pytest

from lmolt_utils.cli import main
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.grammar.vocabulary import Vocabulary
from lmolt_utils.nli.llm import Agreement, LlmAnswerError, LlmDecomposer, agreement, fact_set, facts, prompt


def test_the_atoms_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, names = tmp_path / "captions.txt", tmp_path / "names.txt"
    path.write_text("The molecule is a widget that impacts aging.\n\nCCO\n", "utf-8")
    names.write_text("aging\n", "utf-8")
    assert main(["atoms", str(path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        {
            "caption": "The molecule is a widget that impacts aging.",
            "atoms": [
                {"text": "The molecule is a widget.", "property": "widget"},
                {"text": "The molecule impacts aging.", "property": "aging"},
            ],
        },
        {"caption": "", "atoms": []},
        {"caption": "CCO", "atoms": [{"text": "CCO", "property": None}]},
    ]
    assert main(["atoms", str(path), "--vocabulary", str(names)]) == 0
    output = capsys.readouterr()
    assert [atom["property"] for atom in json.loads(output.out.splitlines()[0])["atoms"]] == [None, "aging"]
    assert "3 captions, 3 atoms, 2 of them without a known property" in output.err
    path.write_bytes(b"fine\n\xff\n")
    assert main(["atoms", str(path)]) == 2
    assert "not UTF-8 text (line 2" in capsys.readouterr().err
    path.write_text('id,prediction\n1,"The molecule is a widget, dye."\n', "utf-8")
    assert main(["atoms", str(path)]) == 0
    assert [atom["property"] for atom in json.loads(capsys.readouterr().out)["atoms"]] == ["widget", "dye"]
    assert main(["atoms", str(tmp_path / "none.txt")]) == 2


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
    decompose = Decomposer(open_vocabulary=True)
    model = LlmDecomposer({caption: example.split("### Assistant:")[1]}, decompose)
    assert len(model(caption)) == 7
    assert model("") == []
    assert model.unanswered([caption, ""]) == []
    assert agreement([fact_set(decompose(caption))], [fact_set(model(caption))]) == Agreement(1, 0, 1, 1, 1)


def test_agreement_by_hand() -> None:
    # One name in common of two each; equal; nothing by the model; nothing by the rules; nothing by either.
    rules = [{"a", "b"}, {"a"}, {"a"}, set[str](), set[str]()]
    model = [{"b", "c"}, {"a"}, set[str](), {"z"}, set[str]()]
    found = agreement(rules, model)
    assert (found.captions, found.unanswered, found.exact) == (5, 2, 2 / 5)
    assert found.precision == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found.recall == pytest.approx((1 / 2 + 1 + 0) / 3)
    silent = agreement([{"a"}], [set()])
    assert math.isnan(silent.precision)
    assert (silent.recall, silent.exact, silent.unanswered) == (0, 0, 1)
    with pytest.raises(ValueError, match="as many sets"):
        agreement([set()], [])


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
