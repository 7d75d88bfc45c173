"""One trainer entry for four methods: the rows they see, adapters that move."""

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, set_seed

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import prompt
from lmolt_utils.files import read_rows
from lmolt_utils.models.loading import ModelError, load_model, load_tokenizer
from lmolt_utils.training import trainers
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.experiment import short_pairs
from lmolt_utils.training.losses import TrainingError
from lmolt_utils.training.progress import StopOnDivergence, efficiency
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import check_batches, dataset, fitting, lengths
from lmolt_utils.training.trainers import build_trainer, load_initial, train

PAIRS = pd.DataFrame(
    {
        "task": ["mol2cap", "cap2mol"] * 4,
        "source": ["CCO", "The molecule is a toxin.", "CCCO", "It impacts aging."] * 2,
        "chosen": ["The molecule is a toxin.", "CCO", "It impacts aging.", "CCCO"] * 2,
        "rejected": ["The molecule is a nutrient.", "CCN", "It impacts obesity.", "CCCN"] * 2,
    }
)
START = "embedded:cap2mol"
METHODS = ("sft", "dpo", "cpo", "kto")
MACHINE = {"device": "cpu", "dtype": "float32", "quantize": "none"}


def recipe(method: str, **changes: object) -> Recipe:
    values: dict[str, object] = {
        "method": method, "epochs": 2.0, "effective_batch": 4, "micro_batch": 2, "learning_rate": 5.0e-3,
        "scheduler": "constant", "warmup_share": 0.0, "max_grad_norm": 1.0, "weight_decay": 0.0, "beta": 0.1,
        "dpo_loss": "sigmoid", "dpo_alpha": 0.0, "cpo_alpha": 1.0, "cpo_nll": "sum", "kto_format": "plain",
        "sft_eos": "append", "sft_loss_on": "answer", "lora_rank": 8,
        "lora_alpha": 16, "lora_dropout": 0.0, "dora": False, "train_prompt": "printed", "max_length": 128,
        "stop_above": 3.0, "quantize": "none",
        "dtype": "float32", "device": "cpu", "seed": 0,
    }  # fmt: skip
    return Recipe(**{**values, **changes})  # type: ignore[arg-type]


def trainer_for(
    settings: Recipe, folder: Path, pairs: pd.DataFrame = PAIRS, say: Any = print, start: str = START
) -> Any:
    return build_trainer(settings, *load_initial(settings, start), pairs, folder, say=say)


def trained(settings: Recipe, folder: Path, pairs: pd.DataFrame = PAIRS, start: str = START, **more: Any) -> list[str]:
    """A training into ``folder``: adapter a, log l.jsonl, work folder w; what it said."""
    said: list[str] = []
    places = folder / "a", folder / "l.jsonl", folder / "w"
    train(settings, start, pairs, *places, **{"title": settings.method, "say": said.append, **more})
    return said


def test_the_pairs_to_look_at_are_short_and_one_of_each_task() -> None:
    rows = [("mol2cap", "C" * size, "a", "b") for size in range(1, 11)] + [("cap2mol", "only", "C", "O")]
    found = short_pairs(pd.DataFrame(rows, columns=["task", "source", "chosen", "rejected"]))
    assert sorted(found["source"]) == ["CC", "only"]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_and_saves_an_adapter_that_moved(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        model = load_model(*args, **kwargs)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(trainers, "load_model", watched)
    (said,) = trained(recipe(method), tmp_path)
    assert [model() for model in models] == [None], "no trained model stays in memory"
    rows = 16 if method == "kto" else 8
    assert said.startswith(f"{method}: {rows // 2} steps over {rows} rows in ")
    assert said.endswith("adapter float32, base float32")
    assert len(read_rows(tmp_path / "l.jsonl", ["step", "loss"])) == rows // 2
    times = read_rows(tmp_path / "l.seconds.jsonl", ["step", "seconds", "tokens", "peak_mb"])
    assert times["seconds"].is_monotonic_increasing
    assert times["peak_mb"].iloc[-1] > 100
    tokenizer = load_tokenizer(START)
    sides = ("chosen",) if method == "sft" else ("chosen", "rejected")
    asked = [prompt(row.task, row.source) + f" {getattr(row, side)}" for row in PAIRS.itertuples() for side in sides]
    once = sum(len(ids) + 1 for ids in tokenizer(asked).input_ids)  # EOS
    assert times["tokens"].iloc[-1] == 2 * once, "what the model read, in two epochs"
    before, _ = load_trained(START, None, **MACHINE)
    after, _ = load_trained(START, tmp_path / "a", **MACHINE)
    ids = tokenizer(prompt("mol2cap", "CCO"), return_tensors="pt").input_ids
    assert (before(ids).logits - after(ids).logits).abs().max() > 1e-3


def test_kto_rows_hold_both_classes_in_every_batch() -> None:
    data = dataset(PAIRS, recipe("kto"), load_tokenizer(START))
    assert sorted(data["label"]) == [False] * 8 + [True] * 8
    check_batches(list(data["label"]), 8)
    with pytest.raises(TrainingError, match="batch 0 of 4 rows holds one class only"):
        check_batches([True] * 8 + [False] * 8, 4)
    with pytest.raises(TrainingError, match="of 7 rows holds one class only, or a row alone"):
        check_batches(list(dataset(PAIRS[:4], recipe("kto"), load_tokenizer(START))["label"]), 7)


@pytest.mark.parametrize(("pairs", "rows"), [(8, [6, 2]), (5, [5])])
def test_the_steps_rows_are_those_asked_for(pairs: int, rows: list[int], tmp_path: Path) -> None:
    said: list[str] = []
    trainer = trainer_for(recipe("cpo", effective_batch=6, epochs=1.0), tmp_path, PAIRS[:pairs], said.append)
    seen: list[int] = []
    count = TrainerCallback()
    count.on_step_end = lambda *_, **__: seen.append(trainer.rows_in_step // 2)  # a pair is two sequences
    trainer.add_callback(count)
    trainer.train()
    assert seen == rows
    few = ["5 rows are less than effective_batch 6: one step of 5 rows per epoch"]
    assert said == (few if pairs == 5 else [])


def hub_like(folder: Path, **changes: int) -> Path:
    """A tiny Llama as the hub's cache holds one: a snapshot of links to blobs, weights in shards with an index."""
    repository = folder / "models--org--Meditron7b-caption2smiles"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123abcd"
    values = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2} | changes
    torch.manual_seed(0)
    config = LlamaConfig(num_attention_heads=4, max_position_embeddings=256, pad_token_id=0, **values)
    LlamaForCausalLM(config).save_pretrained(blobs, max_shard_size="200KB")
    load_tokenizer(START).save_pretrained(blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert len(list(snapshot.glob("model-*-of-*.safetensors"))) > 1
    return snapshot


def test_qlora_as_the_paper_profile_has_it(tmp_path: Path) -> None:
    """NF4 and LoRA as L4M Figs. 13 to 15 have them, on a CPU; all methods start from one adapter, in equal types."""
    start, paper = str(hub_like(tmp_path)), load("paper")
    values = {"quantize": "nf4", "dtype": "bfloat16", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.1}
    assert values == {name: getattr(paper, name) for name in values}
    first = []
    for method in METHODS:
        set_seed(0)
        trainer = trainer_for(recipe(method, **values), tmp_path / method, start=start)
        assert trainer.precision == "adapter float32, base nf4, float32"
        first.append(torch.cat([p.flatten() for p in trainer.model.parameters() if p.requires_grad]).detach())
    for other in first[1:]:
        torch.testing.assert_close(first[0], other, rtol=0, atol=0)
    layer, config = trainer.model.get_base_model().model.layers[0].mlp.up_proj.base_layer, trainer.model.peft_config
    state = layer.weight.quant_state
    assert (type(layer).__name__, state.quant_type, state.nested) == ("Linear4bit", "nf4", True)
    assert layer.compute_dtype == torch.bfloat16
    assert not isinstance(trainer.model.get_output_embeddings(), type(layer)), "the output layer stays as it is"
    assert config["default"].r == 64
    targets = {name.rsplit(".", 1)[-1] for name in config["default"].target_modules}
    assert targets == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    trained(recipe("dpo", **values, epochs=1.0), tmp_path / "dpo", start=start)
    load_trained(start, tmp_path / "dpo" / "a", device="cpu", dtype="bfloat16", quantize="nf4")


def test_a_training_that_does_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="did not move"):
        trained(recipe("sft", learning_rate=0.0), tmp_path)
    assert not (tmp_path / "a").exists()


def test_record_ignores_what_a_method_does_not_use() -> None:
    assert recipe("dpo").relevant() == recipe("dpo", lora_dropout=0.5).relevant(), "TRL has none (test_losses)"
    assert recipe("sft").relevant() == recipe("sft", beta=0.5).relevant()
    assert recipe("dpo").relevant() != recipe("dpo", beta=0.5).relevant()
    assert recipe("dpo").relevant() == recipe("dpo", cpo_alpha=0.0).relevant()
    assert recipe("cpo").relevant() != recipe("cpo", cpo_alpha=0.0).relevant()


def test_long_sequences_are_counted_and_said(tmp_path: Path) -> None:
    pairs = pd.concat([PAIRS, PAIRS[:3]], ignore_index=True)
    pairs.loc[8, "chosen"] = "The molecule is a toxin. " * 40  # cut: its EOS is lost
    pairs.loc[9, "source"] = "The molecule is a toxin. " * 40  # the prompt alone is too long
    said: list[str] = []
    trainer = trainer_for(recipe("dpo"), tmp_path, pairs, said.append)
    assert said == [
        "longer than 128 tokens: 1 of 11 pairs have an answer that is cut, 1 are left out because their prompt alone "
        "is as long (raise max_length to keep them)"
    ]
    assert len(trainer.train_dataset) == 10
    with pytest.raises(TrainingError, match=r"0 of 11 pairs fit into 3 tokens: raise max_length"):
        fitting(pairs, lengths(pairs, load_tokenizer(START)), 3, said.append)
    pairs = PAIRS.copy()  # the model's own limit holds whatever max_length says
    pairs.loc[0, "chosen"] = "The molecule is a toxin. " * 400
    said.clear()
    trainer = trainer_for(recipe("sft", max_length=100000), tmp_path, pairs, said.append)
    limit = trainer.model.config.max_position_embeddings
    assert said[0].startswith(f"longer than {limit} tokens: 1 of 8 pairs")
    assert max(len(ids) for ids in trainer.train_dataset["input_ids"]) == limit


def test_chatml_rows_are_measured_as_they_are_trained_on(tmp_path: Path) -> None:
    """The chat tokens and the words around the answer count."""
    plain = lengths(PAIRS, load_tokenizer(START))
    limit = int((plain["prompt"] + plain[["chosen", "rejected"]].max(axis=1)).max()) + 1
    said: dict[str, list[str]] = {"plain": [], "chatml": []}
    for form, lines in said.items():
        trainer_for(recipe("kto", kto_format=form, max_length=limit), tmp_path, say=lines.append)
    assert said["plain"] == []
    assert "have an answer that is cut" in said["chatml"][0]


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_or_one_row_training_set_stops_before_the_model_is_read(rows: int, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"the training set has {rows} pairs"):
        trained(recipe("cpo"), tmp_path, PAIRS[:rows], str(tmp_path / "no model"))


def test_models_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    """Batches that do not divide a step, and a tokenizer of another vocabulary."""
    with pytest.raises(TrainingError, match="effective_batch 64 is no multiple of micro_batch 24"):
        trainer_for(recipe("dpo", effective_batch=64, micro_batch=24), tmp_path)
    folder = hub_like(tmp_path, vocab_size=512)
    with pytest.raises(ModelError, match="ids go up to 1023, the model has 512 embeddings"):
        load_initial(recipe("cpo"), str(folder))


def test_adapters_of_another_base_are_refused(tmp_path: Path) -> None:
    trained(recipe("sft", epochs=1.0), tmp_path)
    adapter = tmp_path / "a"
    with pytest.raises(ModelError, match="trained on another model than embedded:mol2cap"):
        load_trained("embedded:mol2cap", adapter, **MACHINE)
    (adapter / "base.json").unlink()  # an adapter from elsewhere says nothing of its base, its shapes do
    with pytest.raises(ModelError, match="does not fit"):
        load_trained(str(hub_like(tmp_path)), adapter, **MACHINE)
    load_trained(START, adapter, **MACHINE)


def test_the_efficiency_table_by_hand() -> None:
    rows = [("CPO", 1, 4.0, 1.0, 100, 10), ("CPO", 2, 3.0, 4.0, 400, 12), ("SFT", 1, 2.0, 2.0, 50, 8)]
    table = efficiency(pd.DataFrame(rows, columns=["system", "step", "loss", "seconds", "tokens", "peak_mb"]))
    assert list(table) == ["steps", "seconds", "tokens", "tokens/s", "peak MB", "first loss", "last loss"]
    assert table.loc["CPO"].tolist() == [2, 4.0, 400, 100.0, 12, 4.0, 3.0]
    assert table.loc["SFT", "tokens/s"] == 25.0
    assert efficiency(pd.DataFrame(columns=["system", "step", "loss", "seconds"])).empty


def test_one_bad_batch_is_no_divergence_but_a_tenth_of_the_steps_is() -> None:
    """Single steps far above ln 2, where a preference loss begins, and a first step of short answers, are no news."""

    def watch(steps: int, losses: list[float]) -> StopOnDivergence:
        state = SimpleNamespace(max_steps=steps, global_step=0, log_history=[])
        stop = StopOnDivergence(3.0)
        stop.on_train_begin(None, state, None)
        for loss in losses:
            stop.on_log(None, state, None, logs={"loss": loss})
        return stop

    calm = [0.69] + [0.05] * 80 + [6.0, 0.05, 0.05] + [0.05] * 20
    watch(120, [*calm, 6.0, 6.0, 6.0])
    watch(5, [28.6, 110.0, 70.0, 95.0, 100.0])
    with pytest.raises(TrainingError, match="on average of 12 steps"):
        watch(120, [*calm, 6.0, 6.0, 6.0, 20.0])
