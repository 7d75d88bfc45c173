"""The switch ``nli: as_released``: cross-nli 0.1.0's prompt, parser, labels, equations, corpus mean (audit D31 f.)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lmolt_utils.cli import main
from lmolt_utils.config.params import Params, load
from lmolt_utils.files import write_json
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.models.loading import load_tokenizer
from lmolt_utils.nli.classifier import Answer, Classifier, Pair
from lmolt_utils.nli.cross_nli import Method, cross_nli
from lmolt_utils.nli.evaluation import cross_nli_systems
from lmolt_utils.nli.llm import LlmAnswerError, LlmDecomposer, answers_path, captions, numbered, released_prompt
from lmolt_utils.nli.results import cross_nli_report, cross_nli_rows, mean_table
from lmolt_utils.run.notebook import Run
from lmolt_utils.run.notebooks import with_data_switches
from tests.nli.conftest import Answers
from tests.nli.test_classifier import with_labels
from tests.nli.test_llm import BETTER, WORSE, predict

GOLDEN = ["It is good for bones.", "It is bad for bones."]
GENERATED = ["It is made for bones.", "It is sold for bones."]
#: What the language model says of each caption: two facts against three, then three against one.
SAID = ["Here:\n1. a\n2. b", "- x\n1. x\n2. x\n3. c"], ["1. a\n2. b\n10. c d", "1. a"]
#: Contradiction and entailment of premise and hypothesis; others: .1 and .2.
TOLD: dict[Pair, tuple[float, float]] = {
    ("a", "x"): (0.6, 0.1), ("b", "x"): (0.4, 0.3), ("a", "c"): (0.3, 0.5), ("b", "c"): (0.7, 0.2),
    ("x", "a"): (0.5, 0.4), ("x", "b"): (0.2, 0.1), ("c", "b"): (0.1, 0.9), ("a", "a"): (0.0, 1.0),
}  # fmt: skip


def told(premise: str, hypothesis: str) -> Answer:
    wrong, right = TOLD.get((premise, hypothesis), (0.1, 0.2))
    return wrong, right, 1 - wrong - right


def test_rows_and_corpus_by_hand() -> None:
    """The same captions, answers and probabilities through the published wheel gave the same four numbers."""
    answers = dict(zip((GOLDEN[0], GENERATED[0], GOLDEN[1], GENERATED[1]), (*SAID[0], *SAID[1]), strict=True))
    method = Method("atomic", LlmDecomposer(answers, Decomposer(), as_released=True).units)
    frame = pd.DataFrame({"id": [0, 1], "reference": GOLDEN, "prediction": GENERATED})
    rows: Any = cross_nli({"s": frame}, [method], Answers(told))[0]["s"]
    # Row 1, facts x, x, c against a, b: min(.6, .4) twice and min(.3, .7); a: max(.4, .4, .2), b: max(.1, .1, .9).
    # Row 2, fact a against a, b, "c d": min(0, .1, .1); coverage 1, .2, .2.
    assert rows["hallucination"].tolist() == pytest.approx([(0.4 + 0.4 + 0.3) / 3, 0.0])
    assert rows["coverage"].tolist() == pytest.approx([(0.4 + 0.9) / 2, (1 + 0.2 + 0.2) / 3])
    turned = rows[::-1].assign(system="s", recall=0.0, hallucinated=0.0)
    for order, last in ((rows.assign(**turned[["system", "recall", "hallucinated"]]), 0.0), (turned, 1.1 / 3)):
        table: Any = mean_table(order, as_released=True).loc["s"]
        assert table["hallucination, as released"] == pytest.approx(last / 2), "the last row's alone"
        assert table["hallucination"] == pytest.approx(1.1 / 3 / 2), "the right mean, beside it"
    assert "hallucination, as released" not in mean_table(turned)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("- The molecule is a nutrient.\n- It impacts aging.", []),  # Fig. 11's own form
        ("Sure:\n1. a\n2) b\n 3. c 4. d", ["a", "c 4. d"]),
        ("5.\ne\nin 2018. It", ["e", "It"]),
    ],
)
def test_the_numbered_list_alone_is_read(answer: str, expected: list[str]) -> None:
    assert numbered(answer) == expected
    silent = LlmDecomposer({"It is good. It is sold.": answer}, Decomposer(), as_released=True)
    assert silent.units("It is good. It is sold.") == (expected or ["It is good.", "It is sold."])


class Chat:
    """A chat model's tokenizer: its template begins with the token that it adds to every text."""

    chat_template, bos_token, bos_token_id = "t", "<s>", 7

    def __init__(self, adds: bool) -> None:
        self.adds = adds

    def __call__(self, text: str) -> Any:
        return type("Encoded", (), {"input_ids": [7] * self.adds})

    def apply_chat_template(self, turns: list[dict[str, str]], tokenize: bool) -> str:
        return "<s>" + "".join(f"[{turn['role']}]{turn['content']}[end]" for turn in turns)


def test_the_prompt_is_the_wheels_and_needs_a_chat_model() -> None:
    asked = [released_prompt("CAPTION", Chat(adds)) for adds in (True, False)]  # type: ignore[arg-type]
    assert asked[1] == "<s>" + asked[0]
    turn = asked[0].removeprefix("[user]").removesuffix("[end]")
    # Of what cross_nli-0.1.0-py3-none-any.whl sends for this caption.
    wheels = "78ceef55335d7439e9e436c2ebd0253d56a80416364687927fc463ab6e2d8248"
    assert hashlib.sha256(turn.encode()).hexdigest() == wheels
    with pytest.raises(LlmAnswerError, match=r"no chat template.*nli_code: ours"):
        released_prompt("CAPTION", load_tokenizer("embedded:base"))


def test_labels_are_read_by_index_and_segments_are_not_told(tmp_path: Path) -> None:
    names = ["entailment", "neutral", "contradiction"]  # L4M's model; the weights are not turned with them
    nli = Classifier(str(with_labels(tmp_path / "nli", names)), as_released=True)
    pairs = [("The molecule is a nutrient.", "The molecule is a toxin."), ("It is sweet.", "It is sweet.")]
    for pair, row in zip(pairs, nli.forward(pairs), strict=True):
        ids = nli.tokenizer(*pair, truncation=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = torch.softmax(nli.model(ids)["logits"][0], -1)  # the released lines
        assert row == pytest.approx(expected.double().numpy(), abs=1e-5)
    assert nli.columns == {"contradiction": 0, "entailment": 1, "neutral": 2}
    assert nli.identity["labels"] == "as released", "its answers are kept apart"


def released(**values: Any) -> Params:
    return with_data_switches(load("smoke", {"switches": {"nli": "as_released"}, **values}))


def test_the_switch_reaches_a_run(runs: Path) -> None:
    for params in (released(), with_data_switches(load("smoke", {"semantics": "as_released"}))):
        assert (params.nli_code, params.decomposer_new_tokens) == ("as_released", 600)
    for semantics in ("as_printed", "corrected"):
        assert with_data_switches(load("smoke", {"semantics": semantics})).nli_code == "ours"
    run = Run("07_nli_evaluation", runs / "smoke", released(decomposer="llm", decomposer_model="someone/somewhere"))
    texts = ["The molecule is a nutrient.", "The molecule is a toxin."]
    predict(run, BETTER, texts, texts)
    predict(run, WORSE, texts[::-1], texts)
    answers = {text: f"1. {text}\n2. It impacts aging." for text in captions(run, [BETTER, WORSE])["references"]}
    write_json(answers_path(run), {"made_from": {}, "asked": 0, "answers": answers})
    cross_nli_systems(run, [BETTER, WORSE])
    assert cross_nli_report(run)["nli_code"] == "as_released"
    rows = cross_nli_rows(run, [BETTER, WORSE]).query("method == 'atomic'")
    assert set(rows["output_units"]) == {2}
    nli, facts = Classifier(run.params.nli_model, as_released=True), [texts[0], "It impacts aging."]
    said = [texts[1], facts[1]]  # WORSE's first row
    asked = [[nli.forward([(premise, fact)])[0][0] for premise in facts] for fact in said]
    expected = np.mean([min(row) for row in asked])
    assert rows.query("system == @WORSE.name")["hallucination"].iloc[0] == pytest.approx(expected, abs=1e-5)


def test_the_command_reads_their_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the package's page shows it: JSON lines in ``data.json``, an empty line between them."""
    fact = "The molecule is a nutrient."
    pairs = [(fact, fact), (fact, "The molecule is a toxin."), (fact, "The molecule is not a nutrient.")]
    file, out = tmp_path / "data.json", tmp_path / "out.json"
    file.write_text("\n\n".join(json.dumps({"golden": g, "generated": o}) for g, o in pairs) + "\n")
    assert main(["nli", str(file), "--json", str(out), "--as-released"]) == 0
    told, report = capsys.readouterr().out, json.loads(out.read_text())
    rows = [row["hallucination"] for row in report["rows"] if row["method"] == "atomic"]
    assert len(rows) == 3
    assert report["as_released"]["last row / rows"] == pytest.approx(rows[-1] / 3)
    assert report["as_released"]["mean"] == pytest.approx(sum(rows) / 3)
    assert f"last row / rows {rows[-1] / 3:.6f}, mean {sum(rows) / 3:.6f}" in told
    assert report["model"]["labels"] == "as released"
