"""Rejected answers: asked of the negative generator, resumed after a kill, drawn; the pairs that they make."""

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sentencepiece
import torch
from transformers import T5Config, T5ForConditionalGeneration

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import SIDES, TASKS, Task
from lmolt_utils.data.sample import for_task
from lmolt_utils.embedded.corpus import generate as generate_corpus
from lmolt_utils.errors import DataError
from lmolt_utils.files import read_json, read_rows, write_json, write_rows
from lmolt_utils.models.generation import batches
from lmolt_utils.models.loading import load_tokenizer
from lmolt_utils.negatives.pairs import (
    LONGEST_SOURCE,
    draw,
    make_negatives,
    make_pairs,
    preference_pairs,
    same_properties,
    triple_counts,
    usable,
)
from lmolt_utils.negatives.unpaired import alike, single_class_batches, unpaired
from lmolt_utils.run.notebook import Run


@pytest.fixture(scope="module")
def corpus() -> pd.DataFrame:
    return generate_corpus(400, 0)


@pytest.fixture(scope="module")
def sampled(corpus: pd.DataFrame) -> pd.DataFrame:
    return corpus[corpus["split"] == "train"].iloc[::5].reset_index(drop=True)


def test_pairs_hold_both_directions_and_drop_what_prefers_nothing() -> None:
    columns = {"id": ["a", "b", "c"], "molecule": ["CCO", "CCN", "C"], "caption": ["one", "two", "three"]}
    sampled = pd.DataFrame({**columns, "tasks": ["mol2cap", "mol2cap|cap2mol", "cap2mol"]})
    pairs = preference_pairs(sampled, {"mol2cap": ["one", "uno"], "cap2mol": ["", "CCC"]})
    assert list(pairs["id"] + " " + pairs["task"]) == ["a mol2cap", "b mol2cap", "b cap2mol", "c cap2mol"]
    assert pairs.iloc[1].tolist() == ["b", "mol2cap", "CCN", "two", "uno"]
    assert usable(pairs)["rejected"].tolist() == ["uno", "CCC"]
    assert usable(pairs, drop_equal=False)["rejected"].tolist() == ["one", "uno", "CCC"], "as released"
    counts = triple_counts(pairs, usable(pairs))
    assert counts["both"] == {"molecules": 3, "triples": 4, "equal": 1, "empty": 1, "kept": 2}
    assert counts["cap2mol"]["kept"] == 1


def test_unpaired_answers_alternate_and_no_batch_is_of_one_class() -> None:
    columns = {name: [f"{name[0]}{n}" for n in range(51)] for name in ("source", "chosen", "rejected")}
    pairs = pd.DataFrame({"task": "mol2cap", **columns})
    rows = unpaired(pairs, 3)
    assert rows["label"].tolist() == [True, False] * 51
    assert sorted(rows["answer"]) == sorted([*pairs["chosen"], *pairs["rejected"]])
    assert all(source[1:] == answer[1:] for source, answer in zip(rows["source"], rows["answer"], strict=True))
    for label, letter in ((0, "c"), (1, "r")):  # the orders that trainings have used from the start
        order = random.Random(f"kto:3:{label}").sample(range(51), 51)
        assert rows["answer"].tolist()[label::2] == [f"{letter}{n}" for n in order]
    assert single_class_batches(list(rows["label"]), 2) == []
    assert single_class_batches([True] * 5 + [False] * 5, 2) == [0, 1, 3, 4]


def test_a_step_of_kto_keeps_its_rows_with_like_lengths_together() -> None:
    rows = pd.DataFrame({"answer": [*"abcdefghij"], "label": [True, False] * 5})
    prompts, answers = [2, 9, 9, 3, 4, 1, 5, 5, 5, 8], [5, 2, 3, 9, 4, 7, 1, 6, 6, 2]
    found = alike(rows, prompts, answers, step_rows=6)
    # Long prompts from the longest, then long answers to the longest; steps abcdef and ghij:
    # chosen c 9+3, e 4+4, a 2+5 | g 5+1, i 5+6; rejected b 9+2, f 1+7, d 3+9 | j 8+2, h 5+6
    assert "".join(found["answer"]) == "cbefad" + "gjih"
    assert found["label"].tolist() == [True, False] * 5
    assert list(found) == ["answer", "label"]


def test_batches_keep_to_rows_and_tokens_longest_first() -> None:
    assert batches([3, 9, 5, 5, 1], rows=2, tokens=100) == [[1, 2], [3, 0], [4]]
    assert batches([3, 9, 5, 5, 1], rows=9, tokens=10) == [[1], [2, 3], [0, 4]]
    assert batches([500], rows=9, tokens=10) == [[0]], "a row longer than the budget goes alone"
    assert batches([], rows=9, tokens=10) == []


SMALL = {"negatives_shard_rows": 8, "generation_batch": 4, "max_new_tokens": 30}


def _run(folder: Path, sampled: pd.DataFrame, **changed: Any) -> Run:
    run = Run("02_negatives", folder, load("smoke", {**SMALL, **changed}))
    tasks = sampled.get("tasks", "|".join(TASKS))
    write_rows(run.path("data", "sample.jsonl"), sampled.assign(tasks=tasks))
    return run


@pytest.fixture(scope="module")
def molt5(tmp_path_factory: pytest.TempPathFactory, corpus: pd.DataFrame) -> Path:
    """A tiny T5 laid out as MolT5 is on the hub: SentencePiece model, T5's extra ids, padded vocabulary."""
    folder = tmp_path_factory.mktemp("molt5")
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    texts = iter([*corpus["molecule"].str.replace("\\", "/"), *corpus["caption"]])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_prefix=str(folder / "spiece"), vocab_size=300, minloglevel=2, **ids
    )
    (folder / "spiece.vocab").unlink()
    torch.manual_seed(0)
    sizes = {"vocab_size": 416, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    config = T5Config(**sizes, decoder_start_token_id=0, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokens = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_molt5s_layout_is_read_and_answers(molt5: Path, tmp_path: Path, sampled: pd.DataFrame) -> None:
    tokenizer = load_tokenizer(str(molt5))
    ids = tokenizer("CCO").input_ids
    assert ids[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.pad_token_id == 0
    written = tokenizer.decode(tokenizer("C\\C").input_ids, skip_special_tokens=True)
    assert written == "CC", "a letter it cannot write is lost"
    asked, found = sampled.head(12).copy(), []
    asked.loc[3, "molecule"] = "C" * (LONGEST_SOURCE + 1)
    for batch in (1, 8):
        run = _run(tmp_path / str(batch), asked, generation_batch=batch)
        make_negatives(run, "mol2cap", str(molt5))
        found.append(read_rows(run.path("data", "negatives.mol2cap.jsonl"), ("id", "rejected")))
    assert [len(rows) for rows in found] == [12, 12]
    assert found[0]["rejected"][3] == "", "too long for memory: not asked"
    assert found[0].equals(found[1]), "batched as one at a time"


@pytest.mark.parametrize("kind", ["shuffled", "nearest"])
@pytest.mark.parametrize("task", TASKS)
def test_drawn_answers_are_the_same_twice_and_never_the_rows_own(
    kind: Any, task: Task, sampled: pd.DataFrame, corpus: pd.DataFrame
) -> None:
    drawn = draw(kind, sampled, corpus, task, 0)
    assert drawn.equals(draw(kind, sampled, corpus, task, 0))
    own = list(sampled[SIDES[task][1]])
    assert all(text and text != mine for text, mine in zip(drawn["rejected"], own, strict=True))
    train = corpus[corpus["split"] == "train"].set_index("id")
    assert train.loc[drawn["origin"], SIDES[task][1]].tolist() == list(drawn["rejected"])
    if kind == "nearest":
        assert same_properties(drawn, sampled, corpus) == 0
    else:
        assert sorted(drawn["rejected"]) == sorted(own)
        assert not drawn["rejected"].equals(draw(kind, sampled, corpus, task, 1)["rejected"])
        assert same_properties(drawn, sampled, corpus) > 0, "a third of the corpus has one property set"


def test_a_permutation_that_equal_texts_forbid_leaves_rows_without_an_answer() -> None:
    frame = pd.DataFrame({"id": list("abcd"), "molecule": list("CNOF"), "caption": ["x", "x", "x", "y"]})
    frame["properties"], frame["split"] = "", "train"
    drawn = draw("shuffled", frame, frame, "mol2cap", 0)
    assert sorted(drawn["rejected"]) == ["", "", "x", "y"]
    assert drawn["rejected"].iloc[3] == "x"
    same = frame.assign(molecule=["C", "C", "O", "O"], caption=list("wxyz"))
    for seed in range(5):  # another caption of the same molecule is a right answer
        drawn = draw("shuffled", same, same, "mol2cap", seed)["rejected"]
        assert set(drawn[:2]) == {"y", "z"}
        assert set(drawn[2:]) == {"w", "x"}


def test_the_nearest_molecule_by_hand() -> None:
    rows = [
        ("a", "CCCCCCO", "1", "p"),
        ("b", "CCCCCCCO", "2", "p"),  # nearest, but with the same property set
        ("c", "OCCCCC", "3", "q"),
        ("d", "c1ccccc1", "4", "r"),
        ("e", "OCCCCCC", "5", "s"),  # the same molecule, spelled otherwise
    ]
    corpus = pd.DataFrame(rows, columns=["id", "molecule", "caption", "properties"]).assign(split="train")
    for task in TASKS:
        assert draw("nearest", corpus, corpus, task, 0)["origin"].iloc[0] == "c"
    alike = corpus.assign(caption=["1", "1", "1", "4", "1"], properties="")  # one question has one answer at least
    assert draw("nearest", alike, alike, "cap2mol", 0)["origin"].iloc[0] == "d"
    tested = corpus.assign(split=["train", "train", "test", "train", "train"])
    assert draw("nearest", tested.iloc[:1], tested, "mol2cap", 0)["origin"].iloc[0] != "c", "no test molecule"


def test_drawn_answers_make_pairs_of_both_tasks(tmp_path: Path, sampled: pd.DataFrame, corpus: pd.DataFrame) -> None:
    marked = sampled.assign(tasks="mol2cap|cap2mol")
    marked.loc[::3, "tasks"] = "mol2cap"
    run = _run(tmp_path, marked, negatives="shuffled", drop_equal=False)
    write_rows(run.path("data", "corpus.jsonl"), corpus)
    write_json(run.path("data", "corpus.manifest.json"), {"source": "embedded", "properties": "stated"})
    for task in TASKS:
        make_negatives(run, task, "not used")
    pairs, counts = make_pairs(run)
    assert read_json(run.path("data", "pairs.counts.json"))["both"]["kept"] == len(pairs) == counts.loc["both", "kept"]
    for task in TASKS:
        assert set(pairs[pairs["task"] == task]["id"]) == set(for_task(marked, task)["id"])
    assert counts.loc["both", "molecules"] == len(marked) < counts.loc["both", "triples"]


def test_rejected_answers_that_are_all_useless_are_said_to_be(tmp_path: Path, sampled: pd.DataFrame) -> None:
    run = _run(tmp_path, sampled.assign(tasks="mol2cap|cap2mol"))
    for task in TASKS:
        rows = for_task(read_rows(run.path("data", "sample.jsonl"), ("id",)), task)
        write_rows(run.path("data", f"negatives.{task}.jsonl"), pd.DataFrame({"id": rows["id"], "rejected": ""}))
    with pytest.raises(DataError, match="each is empty or equals its reference"):
        make_pairs(run)
