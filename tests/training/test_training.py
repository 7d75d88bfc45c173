"""One trainer entry for four methods: the rows they see, EOS learned once, adapters that move."""

import json
import weakref
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
    set_seed,
)

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import prompt
from lmolt_utils.files import read_rows
from lmolt_utils.models.loading import ModelError, labels, load_model, load_tokenizer
from lmolt_utils.training import trainers as training
from lmolt_utils.training.adapters import load_trained
from lmolt_utils.training.losses import TrainingError
from lmolt_utils.training.progress import efficiency
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import check_batches, dataset, fitting, lengths
from lmolt_utils.training.trainers import build_trainer, train

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
        "dpo_loss": "sigmoid", "dpo_alpha": 0.0, "cpo_alpha": 1.0, "cpo_nll": "sum", "kto_format": "plain",
        "kto_desirable": 1.0, "kto_undesirable": 1.0, "sft_eos": "append", "sft_loss_on": "answer", "lora_rank": 8,
        "lora_alpha": 16, "lora_dropout": 0.0, "dora": False, "train_prompt": "printed", "max_length": 128,
        "stop_above": 3.0, "quantize": "none",
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
    assert result.precision == "adapter float32, base float32"
    assert said[-1].endswith(result.precision)
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
    with pytest.raises(TrainingError, match="batch 0 of 4 rows holds one class only"):
        check_batches([True] * 8 + [False] * 8, 4)


@pytest.mark.parametrize(("pairs", "micro"), [(5, 3), (7, 13), (4, 7)])
def test_kto_never_leaves_a_row_alone(pairs: int, micro: int, tmp_path: Path) -> None:
    """The last batch would be a single row, whose mismatched answer is its own: z_ref is then its own log-ratio."""
    settings = recipe("kto", micro_batch=micro, effective_batch=micro)
    with pytest.raises(TrainingError, match=f"of {micro} rows holds one class only, or a row alone"):
        build_trainer(settings, load_model(START, "causal"), load_tokenizer(START), PAIRS[:pairs], tmp_path)


def test_the_steps_rows_are_those_asked_for_or_the_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="effective_batch 64 is no multiple of micro_batch 24"):
        trainer_for("dpo", tmp_path, effective_batch=64, micro_batch=24)
    seen: list[int] = []
    said: list[str] = []
    for rows, expected in ((8, [6, 2]), (5, [5])):
        trainer = build_trainer(
            recipe("sft", effective_batch=6, epochs=1.0), load_model(START, "causal"), load_tokenizer(START),
            PAIRS[:rows], tmp_path, say=said.append,
        )  # fmt: skip
        trainer.add_callback(Rows(trainer, seen))
        trainer.train()
        assert seen == expected
        seen.clear()
    assert said == ["5 rows are less than effective_batch 6: one step of 5 rows per epoch"]


class Rows(TrainerCallback):
    """Rows of each step."""

    def __init__(self, trainer: Any, seen: list[int]) -> None:
        self.trainer, self.seen = trainer, seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seen.append(self.trainer.rows_in_step)


def test_no_trained_model_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[weakref.ref[Any]] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        model = load_model(*args, **kwargs)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(training, "load_model", watched)
    for method in ("sft", "cpo", "kto"):
        train(recipe(method, epochs=1.0), START, PAIRS, tmp_path / method, tmp_path / "l.jsonl", title=method)
    assert len(models) == 3
    assert [model() for model in models] == [None, None, None]


def test_all_methods_train_in_the_same_precision(tmp_path: Path) -> None:
    """QLoRA on a GPU, as far as a processor can do it: NF4, bfloat16 compute (bf16 switches TRL's own casts on)."""
    folder = hub_like(tmp_path)
    found, first = {}, []
    for method in ("sft", "dpo", "cpo", "kto"):
        model = load_model(str(folder), "causal", quantize="nf4", dtype="bfloat16")
        settings = recipe(method, quantize="nf4", dtype="bfloat16", device="cuda", epochs=1.0)
        with pytest.MonkeyPatch.context() as patch:
            own = training._arguments
            patch.setattr(training, "_arguments", lambda *args, own=own: own(*args) | {"use_cpu": True})
            set_seed(0)
            trainer = build_trainer(settings, model, load_tokenizer(START), PAIRS, tmp_path / method)
        assert trainer.args.bf16
        found[method] = trainer.precision
        first.append(torch.cat([p.flatten() for p in trainer.model.parameters() if p.requires_grad]).detach().clone())
        kinds = {n: p.dtype for n, p in trainer.model.named_parameters() if type(p).__name__ != "Params4bit"}
        assert set(kinds.values()) == {torch.float32}, method
        trainer.train()
        assert all(torch.isfinite(torch.tensor([row["loss"] for row in trainer.state.log_history if "loss" in row])))
        packed = [getattr(p.quant_state, "packing_format_for_cpu", False) for n, p in trainer.model.named_parameters()
                  if type(p).__name__ == "Params4bit"]  # fmt: skip
        assert packed
        assert not any(packed), "for a kernel that has no gradient"
    assert set(found.values()) == {"adapter float32, base nf4, float32"}
    for other in first[1:]:
        torch.testing.assert_close(first[0], other, rtol=0, atol=0)


def test_chatml_rows_are_measured_as_they_are_trained_on(tmp_path: Path) -> None:
    """The chat tokens and the words around the answer count: a row that they push over the limit is announced."""
    plain = lengths(PAIRS, load_tokenizer(START))
    limit = int((plain["prompt"] + plain[["chosen", "rejected"]].max(axis=1)).max()) + 1
    said: list[str] = []
    for form in ("plain", "chatml"):
        settings = recipe("kto", kto_format=form, max_length=limit)
        trainer = build_trainer(
            settings, load_model(START, "causal"), load_tokenizer(START), PAIRS, tmp_path, say=said.append
        )
        if form == "plain":
            assert not said
    assert "have an answer that is cut" in said[0]
    assert len(trainer.train_dataset) <= 2 * len(PAIRS)


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
    """NF4, double quantisation, bfloat16 compute, rank 64, alpha 16 (L4M Figs. 13 to 15), on a CPU."""
    folder, paper = hub_like(tmp_path), load("paper")
    values = {name: getattr(paper, name) for name in ("quantize", "dtype", "lora_rank", "lora_alpha", "lora_dropout")}
    assert values == {
        "quantize": "nf4", "dtype": "bfloat16", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.1,
    }  # fmt: skip
    model = load_model(str(folder), "causal", quantize="nf4", dtype="bfloat16")
    layer = model.model.layers[0].mlp.up_proj
    state = layer.weight.quant_state
    assert (type(layer).__name__, state.quant_type, state.nested) == ("Linear4bit", "nf4", True)
    assert layer.compute_dtype == torch.bfloat16
    assert not isinstance(model.lm_head, type(layer)), "the output layer stays as it is"
    for method in ("cpo", "sft"):
        settings = recipe(method, **values, epochs=1.0)
        result = train(
            settings, str(folder), PAIRS, tmp_path / method, tmp_path / "l.jsonl", title=method, say=lambda _: None
        )
        assert result.moved > 0
        trained, _ = load_trained(str(folder), tmp_path / method, device="cpu", dtype="bfloat16", quantize="nf4")
        assert trained.peft_config["default"].r == 64
        config = json.loads((tmp_path / method / "adapter_config.json").read_text())
        targets = {name.rsplit(".", 1)[-1] for name in config["target_modules"]}
        assert targets == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_translators_and_the_classifiers_classes_load_in_hub_layout_too(tmp_path: Path) -> None:
    """MolT5 is a T5, the NLI model a DeBERTa-v2: tiny ones, sharded, also in 4 bits."""
    small = {"vocab_size": 1024, "num_layers": 1, "num_heads": 2, "d_ff": 64}
    t5 = T5ForConditionalGeneration(T5Config(d_model=64, d_kv=32, decoder_start_token_id=0, **small))
    deberta = DebertaV2ForSequenceClassification(
        DebertaV2Config(
            vocab_size=1024, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            relative_attention=True, pos_att_type=["p2c", "c2p"], num_labels=3,
            id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        )
    )  # fmt: skip
    ids = torch.arange(3, 12)[None]
    for kind, model in (("translator", t5), ("classifier", deberta)):
        model.save_pretrained(tmp_path / kind, max_shard_size="100KB")
        assert (tmp_path / kind / "model.safetensors.index.json").exists()
        with torch.no_grad():
            more = {"decoder_input_ids": ids[:, :1]} if kind == "translator" else {}
            plain = load_model(str(tmp_path / kind), kind)(input_ids=ids, **more).logits
            small_one = load_model(str(tmp_path / kind), kind, quantize="nf4", dtype="bfloat16")
            four_bit = small_one(input_ids=ids, **more).logits
        assert plain.shape == four_bit.shape
        assert torch.isfinite(four_bit).all()
        assert any(type(m).__name__ == "Linear4bit" for m in small_one.modules())
    assert labels(str(tmp_path / "classifier"))[0] == "entailment"


def refused(pairs: pd.DataFrame, tmp_path: Path, error: type[Exception], message: str, model: str = START) -> None:
    with pytest.raises(error, match=message):
        train(recipe("cpo"), model, pairs, tmp_path / "a", tmp_path / "l.jsonl", title="cpo", say=lambda _: None)
    assert not (tmp_path / "a").exists()


def test_an_empty_or_one_row_training_set_stops_before_the_model_is_read(tmp_path: Path) -> None:
    for rows in (0, 1):
        nowhere = str(tmp_path / "no such model")
        refused(PAIRS[:rows], tmp_path, TrainingError, f"the training set has {rows} pairs", nowhere)


def test_long_sequences_are_counted_and_said(tmp_path: Path) -> None:
    pairs = pd.concat([PAIRS, PAIRS[:3]], ignore_index=True)
    pairs.loc[8, "chosen"] = "The molecule is a toxin. " * 40  # cut: its EOS is lost
    pairs.loc[9, "source"] = "The molecule is a toxin. " * 40  # the prompt alone is too long
    said: list[str] = []
    folder = tmp_path / "t"
    trainer = build_trainer(
        recipe("dpo"), load_model(START, "causal"), load_tokenizer(START), pairs, folder, say=said.append
    )
    assert said == [
        "longer than 128 tokens: 1 of 11 pairs have an answer that is cut, 1 are left out because their prompt alone "
        "is as long (raise max_length to keep them)"
    ]
    assert len(trainer.train_dataset) == 10
    counts = lengths(pairs, load_tokenizer(START))
    with pytest.raises(TrainingError, match=r"0 of 11 pairs fit into 3 tokens: raise max_length"):
        fitting(pairs, counts, 3, said.append)


def test_no_sequence_is_longer_than_the_model_whatever_max_length_says(tmp_path: Path) -> None:
    pairs = PAIRS.copy()
    pairs.loc[0, "chosen"] = "The molecule is a toxin. " * 400
    said: list[str] = []
    model = load_model(START, "causal")
    settings = recipe("sft", max_length=100000)
    trainer = build_trainer(settings, model, load_tokenizer(START), pairs, tmp_path, say=said.append)
    assert said[0].startswith(f"longer than {model.config.max_position_embeddings} tokens: 1 of 8 pairs")
    assert max(len(ids) for ids in trainer.train_dataset["input_ids"]) == model.config.max_position_embeddings


def test_tokenizer_and_model_of_different_vocabularies_are_refused(tmp_path: Path) -> None:
    folder = str(hub_like(tmp_path, vocab_size=512))
    refused(PAIRS, tmp_path, ModelError, "ids go up to 1023, the model has 512 embeddings", folder)


def test_adapters_of_another_base_and_pickled_ones_are_refused(tmp_path: Path) -> None:
    machine = {"device": "cpu", "dtype": "float32", "quantize": "none"}
    adapter = tmp_path / "a"
    train(recipe("sft", epochs=1.0), START, PAIRS, adapter, tmp_path / "l.jsonl", title="t", say=lambda _: None)
    with pytest.raises(ModelError, match="trained on another model than embedded:mol2cap"):
        load_trained("embedded:mol2cap", adapter, **machine)
    (adapter / "base.json").unlink()  # an adapter from elsewhere says nothing of its base, its shapes do
    with pytest.raises(ModelError, match="does not fit"):
        load_trained(str(hub_like(tmp_path)), adapter, **machine)
    load_trained(START, adapter, **machine)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(adapter_model.bin\), which are never opened"):
        load_trained(START, adapter, **machine)


def test_pickled_model_weights_are_refused_before_any_training(tmp_path: Path) -> None:
    folder = hub_like(tmp_path).parents[1] / "blobs"
    for shard in folder.glob("*.safetensors"):
        shard.rename(shard.with_suffix(".bin"))
    refused(PAIRS, tmp_path, ModelError, "no safetensors weights", str(folder))


def test_the_efficiency_table_by_hand() -> None:
    logs = pd.DataFrame(
        {
            "system": ["CPO"] * 2 + ["SFT"],
            "step": [1, 2, 1],
            "loss": [4.0, 3.0, 2.0],
            "seconds": [1.0, 4.0, 2.0],
            "tokens": [100, 400, 50],
            "peak_mb": [10, 12, 8],
        }
    )
    table = efficiency(logs)
    assert table.loc["CPO"].tolist() == [2, 4.0, 400, 100.0, 12, 4.0, 3.0]
    assert table.loc["SFT", "tokens/s"] == 25.0
    assert list(efficiency(logs[:0]).columns) == []


def test_logged_tokens_are_what_the_model_read(tmp_path: Path) -> None:
    train(recipe("sft", epochs=1.0), START, PAIRS, tmp_path / "a", tmp_path / "l.jsonl", title="t", say=lambda _: None)
    tokenizer = load_tokenizer(START)
    counts = [
        len(tokenizer(prompt(row.task, row.source) + f" {row.chosen}").input_ids) + 1 for row in PAIRS.itertuples()
    ]
    times = read_rows(tmp_path / "l.seconds.jsonl", ("tokens", "peak_mb"))
    assert times["tokens"].iloc[-1] == sum(counts)
    assert times["peak_mb"].iloc[-1] > 100


def test_one_bad_batch_is_no_divergence_but_a_tenth_of_the_steps_is() -> None:
    """Single steps far above ln 2, where a preference loss begins, and a first step of short answers, are no news."""
    from types import SimpleNamespace

    watch, state = training._Sane(3.0), SimpleNamespace(max_steps=120, global_step=0, log_history=[])
    watch.on_train_begin(None, state, None)
    calm = [0.69] + [0.05] * 80 + [6.0, 0.05, 0.05] + [0.05] * 20
    for loss in calm:
        watch.on_log(None, state, None, logs={"loss": loss})
    summed, few = training._Sane(3.0), SimpleNamespace(max_steps=5, global_step=0, log_history=[])
    summed.on_train_begin(None, few, None)
    for loss in (28.6, 110.0, 70.0, 95.0, 100.0):
        summed.on_log(None, few, None, logs={"loss": loss})
    for _ in range(3):
        watch.on_log(None, state, None, logs={"loss": 6.0})
    with pytest.raises(TrainingError, match="on average of 12 steps"):
        watch.on_log(None, state, None, logs={"loss": 20.0})
