"""Pairs asked once, batched by tokens, equal to the naive loop; answers that outlive kills and share their file."""

import itertools
import json
import shutil
import signal
import sqlite3
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from lmolt_utils.embedded.corpus import generate
from lmolt_utils.files import BadFileError
from lmolt_utils.grammar.decompose import Decomposer
from lmolt_utils.models.loading import EMBEDDED_FOLDER, ModelError
from lmolt_utils.nli.answers import Answer, AnswerFile, PairScorer
from lmolt_utils.nli.classifier import CONTRADICTION, ENTAILMENT, LABELS, NEUTRAL, Classifier, Pair

IDENTITY = {"model": "m", "revision": "1", "precision": "float32 cpu", "max_length": "256"}
ANSWER: Answer = (0.1, 0.7, 1 - 0.1 - 0.7)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier("embedded:nli", batch_tokens=512)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    captions = list(generate(100, 1)["caption"])
    decompose = Decomposer()
    atoms = [[decompose.canonical(atom) for atom in decompose(caption)] for caption in captions]
    facts = [(one, other) for left, right in itertools.pairwise(atoms) for one in left for other in right]
    return facts[:400] + [(one, other) for one, other in itertools.pairwise(captions)][:20] + facts[:100]


def naive(classifier: Classifier, batch: list[Pair]) -> np.ndarray:
    """The plainest loop body: tokenizer, model, softmax, labels by name."""
    encoded = classifier.tokenizer(
        [p for p, _ in batch],
        [h for _, h in batch],
        padding=True,
        truncation=True,
        max_length=256,
        return_token_type_ids=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        shares = torch.softmax(classifier.model(**encoded).logits, dim=-1)
    named = {name: index for index, name in classifier.model.config.id2label.items()}
    return shares[:, [int(named[name]) for name in LABELS]].numpy().astype(float)


def test_bit_equal_to_the_naive_loop_on_the_same_batches(classifier: Classifier, pairs: list[Pair]) -> None:
    answers = PairScorer(classifier)(pairs)
    batches = list(classifier.batches(pairs))
    assert len(batches) > 3
    for batch in batches:
        assert np.array_equal(naive(classifier, batch), np.array([answers[pair] for pair in batch]))


def test_within_tolerance_of_the_naive_loop_in_any_batches(classifier: Classifier, pairs: list[Pair]) -> None:
    answers = PairScorer(classifier)(pairs)
    for start in range(0, len(pairs), 50):
        batch = pairs[start : start + 50]
        assert np.abs(naive(classifier, batch) - np.array([answers[pair] for pair in batch])).max() < 1e-6


def test_batches_hold_each_pair_once_in_the_budget_whatever_the_order(
    classifier: Classifier, pairs: list[Pair]
) -> None:
    batches = list(classifier.batches(pairs))
    assert sorted(pair for batch in batches for pair in batch) == sorted(set(pairs))
    lengths = [classifier.lengths(batch) for batch in batches]
    assert all(len(batch) * max(batch) <= 512 or len(batch) == 1 for batch in lengths)
    assert [max(batch) for batch in lengths] == sorted(max(batch) for batch in lengths)
    assert batches == list(classifier.batches(reversed(pairs)))
    encoded = classifier.tokenizer(*pairs[0])["input_ids"]
    assert classifier.lengths(pairs[:1]) == [len(encoded)]
    assert list(classifier.batches([])) == []


def test_pairs_longer_than_the_model_are_cut_and_counted() -> None:
    nli = Classifier("embedded:nli")
    long = "The molecule is a nutrient. " * 2000
    answers = PairScorer(nli)([(long, "The molecule is a nutrient."), ("a", "b")])
    assert nli.truncated == 1
    assert sum(answers[long, "The molecule is a nutrient."]) == pytest.approx(1, abs=1e-6)


def test_one_pass_serves_both_metrics(classifier: Classifier) -> None:
    scorer = PairScorer(classifier)
    pair = ("The molecule is a nutrient.", "The molecule is not a nutrient.")
    first = scorer([pair, pair])[pair]
    assert first[CONTRADICTION] > 0.9 > 0.1 > first[ENTAILMENT] + first[NEUTRAL]
    scorer([pair])
    assert scorer.asked == 1


# ---- labels ----


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "entailment", "1": "not_entailment"}, "has 2 labels"),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "must name its three labels"),
        ({"0": "entailment", "1": "entailment_too", "2": "neutral"}, "name no 'contradiction'"),
        ({"0": "neutral", "1": "entailment", "2": "contradiction"}, "labels swapped"),
    ],
)
def test_labels_are_refused(tmp_path: Path, names: dict[str, str], message: str) -> None:
    folder = tmp_path / "nli"
    shutil.copytree(EMBEDDED_FOLDER / "nli", folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"], config["label2id"] = names, {name: int(index) for index, name in names.items()}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        Classifier(str(folder))


def test_labels_in_another_order_give_the_same_answers(tmp_path: Path, classifier: Classifier) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "nli"
    shutil.copytree(EMBEDDED_FOLDER / "nli", folder)
    order = [1, 2, 0]  # as in MoritzLaurer's: entailment, neutral, contradiction
    weights = load_file(folder / "model.safetensors")
    weights |= {name: weights[name][order].contiguous() for name in weights if name.startswith("classifier.")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "Entailment", "1": "NEUTRAL", "2": "contradiction"}
    (folder / "config.json").write_text(json.dumps(config))
    pairs = [("The molecule is a nutrient.", "The molecule impacts aging."), ("It is sweet.", "It is sweet.")]
    assert np.abs(Classifier(str(folder)).forward(pairs) - classifier.forward(pairs)).max() < 1e-6


# ---- the file ----


def test_a_second_run_asks_nothing_and_reads_the_same_bits(
    tmp_path: Path, classifier: Classifier, pairs: list[Pair]
) -> None:
    first = PairScorer(classifier, tmp_path / "c.sqlite")
    before = dict(first(pairs))
    second = PairScorer(classifier, tmp_path / "c.sqlite")
    assert dict(second(pairs)) == before
    assert (first.asked, second.asked, second.cached) == (len(set(pairs)), 0, len(set(pairs)))


def test_answers_are_kept_apart_by_model_revision_precision_and_text(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "c.sqlite", IDENTITY)
    file.write({("a", "b"): ANSWER})
    assert file.read([("a", "b")]) == {("a", "b"): ANSWER}
    assert not file.read([("b", "a"), ("a b", ""), ("", "ab"), ("a", "b ")])
    for key in IDENTITY:
        assert not AnswerFile(tmp_path / "c.sqlite", IDENTITY | {key: "other"}).read([("a", "b")])
    assert AnswerFile(tmp_path / "c.sqlite", IDENTITY).read([("a", "b")])


def test_identity_changes_with_the_weights(tmp_path: Path, classifier: Classifier) -> None:
    folder = tmp_path / "nli"
    shutil.copytree(EMBEDDED_FOLDER / "nli", folder)
    nli = Classifier(str(folder))
    before = nli.identity
    assert before["revision"] == classifier.identity["revision"]
    assert before["precision"] == "float32 cpu"
    with open(folder / "model.safetensors", "ab") as handle:
        handle.write(b" ")
    assert nli.identity["revision"] != before["revision"]


def test_damaged_answers_are_asked_again_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    file = AnswerFile(path, IDENTITY)
    good = {(str(i), "h"): ANSWER for i in range(4)}
    file.write(good)
    with sqlite3.connect(path) as connection:
        keys = [row[0] for row in connection.execute("SELECT pair FROM answers")]
        for key, blob in zip(keys, (b"", np.array([np.nan] * 3).tobytes(), "text"), strict=False):
            connection.execute("UPDATE answers SET probabilities = ? WHERE pair = ?", (blob, key))
    assert len(file.read(good)) == 1
    file.write(good)
    assert file.read(good) == good


def test_a_file_that_is_no_cache_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("not a database " * 100)
    with pytest.raises(BadFileError, match=r"c\.sqlite .*delete it"):
        AnswerFile(path, IDENTITY)


def _write(path: Path, blocks: int) -> None:
    file = AnswerFile(path, {"model": "m"})
    for block in range(blocks):
        file.write({(str(block * 50 + i), "h"): (0.25, 0.5, 0.25) for i in range(50)})


def test_two_writers_and_a_kill_leave_whole_answers(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    file = AnswerFile(path, {"model": "m"})
    fork = get_context("fork")  # a fresh interpreter would spend seconds on importing torch
    killed, other = (fork.Process(target=_write, args=(path, blocks)) for blocks in (100_000, 60))
    killed.start()
    other.start()
    deadline = time.monotonic() + 60
    while not file.read([("0", "h")]) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    killed.kill()
    killed.join()
    other.join(timeout=60)
    assert (killed.exitcode, other.exitcode) == (-signal.SIGKILL, 0)
    found = file.read((str(i), "h") for i in range(3000))
    assert set(found.values()) == {(0.25, 0.5, 0.25)}
    assert len(found) == 3000
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM answers").fetchone()
    assert count % 50 == 0


def test_a_database_that_was_cut_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    answers = {(f"premise {n}", "hypothesis"): (0.25, 0.5, 0.25) for n in range(500)}
    AnswerFile(path, {"model": "m"}).write(answers)
    assert len(AnswerFile(path, {"model": "m"}).read(answers)) == 500
    path.write_bytes(path.read_bytes()[:9000])
    again = AnswerFile(path, {"model": "m"})
    assert again.read(answers) == {}
    again.write(answers)
    assert len(again.read(answers)) == 500
