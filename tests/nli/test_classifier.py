"""Pairs asked once, batched by tokens, equal to the naive loop; labels by name; answers kept in a file."""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmolt_utils.embedded.corpus import generate
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.models.loading import EMBEDDED_FOLDER, ModelError
from lmolt_utils.nli.classifier import LABELS, Classifier, Pair, PairScorer

FACT = "The molecule is a nutrient."


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier("embedded:nli", batch_tokens=512)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    captions = list(generate(100, 1)["caption"])
    decompose = Decomposer()
    atoms = [[decompose.canonical(atom) for atom in decompose(caption)] for caption in captions]
    facts = [(one, other) for left, right in itertools.pairwise(atoms) for one in left for other in right]
    return facts[:400] + list(itertools.pairwise(captions))[:20] + facts[:100]


def naive(classifier: Classifier, batch: list[Pair]) -> np.ndarray:
    """The plainest loop body: tokenizer, model, softmax, labels by name."""
    options: Any = {"padding": True, "truncation": True, "max_length": 256, "return_token_type_ids": True}
    encoded = classifier.tokenizer([p for p, _ in batch], [h for _, h in batch], **options, return_tensors="pt")
    with torch.no_grad():
        shares = torch.softmax(classifier.model(**encoded).logits, dim=-1)
    named = {name: index for index, name in classifier.model.config.id2label.items()}
    return shares[:, [int(named[name]) for name in LABELS]].numpy().astype(float)


def test_equal_to_the_naive_loop(classifier: Classifier, pairs: list[Pair]) -> None:
    """Bit for bit on the same batches, to 1e-6 on any others."""
    answers = PairScorer(classifier)(pairs)
    batches = list(classifier.batches(pairs))
    assert len(batches) > 3
    for batch in batches:
        assert np.array_equal(naive(classifier, batch), np.array([answers[pair] for pair in batch]))
    for start in range(0, len(pairs), 50):
        batch = pairs[start : start + 50]
        assert np.abs(naive(classifier, batch) - np.array([answers[pair] for pair in batch])).max() < 1e-6


def test_batches_hold_each_pair_once_in_the_budget_whatever_the_order(
    classifier: Classifier, pairs: list[Pair]
) -> None:
    batches = list(classifier.batches(pairs))
    assert sorted(pair for batch in batches for pair in batch) == sorted(set(pairs))
    lengths = [[len(classifier.tokenizer(*pair)["input_ids"]) for pair in batch] for batch in batches]
    assert all(len(batch) * max(batch) <= 512 or len(batch) == 1 for batch in lengths)
    assert [max(batch) for batch in lengths] == sorted(max(batch) for batch in lengths)
    assert batches == list(classifier.batches(reversed(pairs)))
    assert list(classifier.batches([])) == []


def test_pairs_longer_than_the_model_are_truncated_and_counted(tmp_path: Path) -> None:
    long = f"{FACT} " * 2000
    for _ in ("asked", "answered from the file"):
        nli = Classifier("embedded:nli")
        answers = PairScorer(nli, tmp_path / "nli.jsonl")([(long, FACT), ("a", "b")])
        assert nli.truncated == 1
        assert sum(answers[long, FACT]) == pytest.approx(1, abs=1e-6)


# ---- labels ----


def with_labels(folder: Path, names: Sequence[str]) -> Path:
    shutil.copytree(EMBEDDED_FOLDER / "nli", folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    config["label2id"] = {name: index for index, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["entailment", "not_entailment"], "0: entailment, 1: not_entailment: an NLI model must name its three"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "must name its three labels"),
        (["entailment", "contradiction", "neutral", "neutral_too"], "must name its three labels"),
        (["neutral", "entailment", "contradiction"], "labels swapped"),
    ],
)
def test_labels_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Classifier(str(with_labels(tmp_path / "nli", names)))


# ---- the file of answers ----


class Stub:
    """One answer to everything, a pair per batch; ``asked``: the pairs that went through it."""

    def __init__(self, **identity: str) -> None:
        self.identity = {"model": "m", "revision": "1", "precision": "float32 cpu", "max_length": "256"} | identity
        self.asked: list[Pair] = []

    def lengths(self, pairs: Iterable[Pair]) -> dict[Pair, int]:
        return dict.fromkeys(pairs, 1)

    def batches(self, pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
        return ([pair] for pair in pairs)

    def forward(self, pairs: Sequence[Pair]) -> np.ndarray:
        self.asked += pairs
        return np.array([[0.25, 0.5, 0.25]] * len(pairs))


def asked(path: Path, pairs: Iterable[Pair], **identity: str) -> list[Pair]:
    """Those of ``pairs`` that the file at ``path`` does not answer; it does from then on."""
    model: Any = Stub(**identity)
    PairScorer(model, path)(pairs)
    return list(model.asked)


def test_a_second_run_asks_nothing_and_reads_the_same_bits(
    tmp_path: Path, classifier: Classifier, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(PairScorer(classifier, tmp_path / "c.jsonl")(pairs))
    monkeypatch.setattr(classifier, "forward", lambda _: pytest.fail("asked again"))
    second = PairScorer(classifier, tmp_path / "c.jsonl")
    assert dict(second(pairs)) == dict(second(pairs)) == before


def test_answers_are_kept_apart_by_model_revision_precision_and_text(tmp_path: Path) -> None:
    path, first = tmp_path / "c.jsonl", ("a", "b")
    others = [("b", "a"), ("a b", ""), ("", "ab"), ("a", "b "), ("a", "\ud800")]
    assert asked(path, [first]) == [first]
    assert asked(path, [first, *others]) == others
    for key in Stub().identity:
        assert asked(path, [first], **{key: "other"}) == [first], key


def test_identity_changes_with_the_weights(tmp_path: Path, classifier: Classifier) -> None:
    shutil.copytree(EMBEDDED_FOLDER / "nli", tmp_path / "nli")
    nli = Classifier(str(tmp_path / "nli"))
    assert nli.identity["revision"] == classifier.identity["revision"]
    with open(tmp_path / "nli" / "model.safetensors", "ab") as handle:
        handle.write(b" ")
    assert nli.identity["revision"] != classifier.identity["revision"]


def test_damaged_and_foreign_lines_cost_their_pairs(tmp_path: Path) -> None:
    """A foreign line, one with a turned digit, and a kill in the middle of a write, which joins the next line to it."""
    path, pairs = tmp_path / "c.jsonl", [(str(number), "h") for number in range(100)]
    asked(path, pairs)
    first, second, *lines = path.read_text().splitlines(keepends=True)
    foreign, turned = first.replace('"nli"', '"nlj"'), second.replace('"answer": [0', '"answer": [1')
    path.write_text("".join([foreign, turned, "5\n", '{"nli": 1}\n', *lines])[:-9])
    asked(path, [("joined to it", "h"), ("new", "h")])
    lost = [*pairs[:2], pairs[-1], ("joined to it", "h")]
    assert asked(path, [*pairs, ("joined to it", "h"), ("new", "h")]) == lost
