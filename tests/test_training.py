"""One trainer entry for four methods: the rows they see, EOS learned once, adapters that move."""

from pathlib import Path

import pandas as pd
import pytest

from lmolt_utils.adapters import load_trained
from lmolt_utils.files import read_rows
from lmolt_utils.losses import TrainingError
from lmolt_utils.models import load_model, load_tokenizer
from lmolt_utils.prompts import prompt
from lmolt_utils.recipes import Recipe
from lmolt_utils.training import build_trainer, check_batches, dataset, train

PAIRS = pd.DataFrame(
    {
        "task": ["mol2cap", "cap2mol"] * 4,
        "source": ["CCO", "The molecule is a toxin.", "CCCO", "It impacts aging."] * 2,
        "chosen": ["The molecule is a toxin.", "CCO", "It impacts aging.", "CCCO"] * 2,
        "rejected": ["The molecule is a nutrient.", "CCN", "It impacts obesity.", "CCCN"] * 2,
    }
)
START = "embedded:cap2mol"


def recipe(method: str, **changes: object) -> Recipe:
    values: dict[str, object] = {
        "method": method, "epochs": 2.0, "effective_batch": 4, "micro_batch": 2, "learning_rate": 5.0e-3,
        "scheduler": "constant", "warmup_share": 0.0, "max_grad_norm": 1.0, "weight_decay": 0.0, "beta": 0.1,
        "dpo_loss": "sigmoid", "dpo_alpha": 0.0, "cpo_alpha": 1.0, "cpo_nll": "token_mean", "kto_format": "plain",
        "kto_desirable": 1.0, "kto_undesirable": 1.0, "sft_eos": "append", "sft_loss_on": "answer", "lora_rank": 8,
        "lora_alpha": 16, "lora_dropout": 0.0, "dora": False, "train_prompt": "printed", "max_length": 128,
        "stop_above": 20.0, "quantize": "none",
        "dtype": "float32", "device": "cpu", "seed": 0,
    }  # fmt: skip
    return Recipe(**{**values, **changes})  # type: ignore[arg-type]


def trainer_for(method: str, folder: Path, **changes: object) -> object:
    return build_trainer(recipe(method, **changes), load_model(START, "causal"), load_tokenizer(START), PAIRS, folder)


@pytest.mark.parametrize("method", ["sft", "dpo", "cpo", "kto"])
def test_each_method_trains_and_saves_an_adapter_that_moved(method: str, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(
        recipe(method), START, PAIRS, tmp_path / "adapter", tmp_path / "log.jsonl", title=method, say=said.append
    )
    rows = 16 if method == "kto" else 8
    assert (result.rows, result.steps) == (rows, rows // 4 * 2)
    assert result.moved > 0
    assert len(read_rows(tmp_path / "log.jsonl", ["step", "loss"])) == result.steps
    assert read_rows(tmp_path / "log.seconds.jsonl", ["step", "seconds"])["seconds"].is_monotonic_increasing
    assert f"{result.trainable:,} weights trained" in said[-1]
    machine = {"device": "cpu", "dtype": "float32", "quantize": "none"}
    before, tokenizer = load_trained(START, None, **machine)
    after, _ = load_trained(START, tmp_path / "adapter", **machine)
    ids = tokenizer(prompt("mol2cap", "CCO"), return_tensors="pt").input_ids
    assert (before(ids).logits - after(ids).logits).abs().max() > 1e-3


def _rows_as_trained(method: str, folder: Path) -> list[tuple[list[int], list[int]]]:
    """Token ids and the ids that carry loss, per row, from the trainer's own collator."""
    trainer = trainer_for(method, folder)
    batch = next(iter(trainer.get_train_dataloader()))  # type: ignore[attr-defined]
    ids = batch["input_ids"] if "input_ids" in batch else batch["chosen_input_ids"]
    labels = batch["labels"] if "labels" in batch else batch.get("chosen_labels")
    if labels is None:
        mask = batch["completion_mask"]
        return [(i.tolist(), i[m.bool()].tolist()) for i, m in zip(ids, mask, strict=True)]
    return [(i.tolist(), i[label != -100].tolist()) for i, label in zip(ids, labels, strict=True)]


@pytest.mark.parametrize("method", ["sft", "dpo", "cpo"])
def test_eos_is_the_last_label_and_comes_once(method: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(START)
    for ids, learned in _rows_as_trained(method, tmp_path):
        assert learned[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        text = tokenizer.decode(learned[:-1])
        assert text in {f" {answer}" for answer in [*PAIRS["chosen"], *PAIRS["rejected"]]}, "only the answer is learned"


def test_kto_rows_hold_both_classes_in_every_batch() -> None:
    data = dataset(PAIRS, recipe("kto"), load_tokenizer(START))
    assert sorted(data["label"]) == [False] * 8 + [True] * 8
    check_batches(list(data["label"]), 8)
    with pytest.raises(TrainingError, match="batch 0 holds one class only"):
        check_batches([True] * 8 + [False] * 8, 4)


def test_same_seed_same_adapter(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        train(recipe("cpo"), START, PAIRS, tmp_path / name, tmp_path / f"{name}.jsonl", title=name, say=lambda _: None)
        logs.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert logs[0] == logs[1]


def test_a_training_that_does_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="did not move"):
        train(recipe("sft", learning_rate=0.0), START, PAIRS, tmp_path / "a", tmp_path / "l.jsonl", title="still")
    assert not (tmp_path / "a").exists()


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="no training method 'ppo'"):
        dataset(PAIRS, recipe("ppo"), load_tokenizer(START))


def test_record_ignores_what_a_method_does_not_use() -> None:
    assert recipe("sft").relevant() == recipe("sft", beta=0.5).relevant()
    assert recipe("dpo").relevant() != recipe("dpo", beta=0.5).relevant()
    assert recipe("dpo").relevant() == recipe("dpo", cpo_alpha=0.0).relevant()
    assert recipe("cpo").relevant() != recipe("cpo", cpo_alpha=0.0).relevant()


def test_qlora_path_runs_on_a_cpu(tmp_path: Path) -> None:
    result = train(
        recipe("cpo", quantize="nf4"),
        START,
        PAIRS,
        tmp_path / "a",
        tmp_path / "log.jsonl",
        title="nf4",
        say=lambda _: None,
    )
    assert result.moved > 0
