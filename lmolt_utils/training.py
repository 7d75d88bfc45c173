"""One trainer entry for SFT, DPO, CPO and KTO: TRL trains, PEFT adapts, the methods differ by their data.

Both directions go into one adapter, as in the papers (25.4k triples at full scale: audit D3). Every
hyper-parameter is set here explicitly: TRL's defaults differ from the papers' by up to fifty times.
"""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # CPO lives in trl.experimental

import pandas as pd
import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, set_seed
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from lmolt_utils.files import atomic_folder, write_rows
from lmolt_utils.models import load_model, load_tokenizer
from lmolt_utils.prompts import answer, prompt

disable_progress_bars()  # our own bar shows the training; the others only flood a notebook


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides its data and its initial weights (units: see ``Params``)."""

    method: str
    epochs: float
    effective_batch: int
    micro_batch: int
    learning_rate: float
    scheduler: str
    warmup_share: float
    max_grad_norm: float
    beta: float
    cpo_alpha: float
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    max_length: int
    quantize: str
    dtype: str
    device: str
    seed: int

    def relevant(self) -> dict[str, Any]:
        """The values that can change this method's result: what its record is keyed by."""
        unused = {"sft": {"beta", "cpo_alpha"}, "dpo": {"cpo_alpha"}, "kto": {"cpo_alpha"}}.get(self.method, set())
        # TRL switches dropout off in the three preference trainers.
        unused |= {"lora_dropout"} if self.method != "sft" else set()
        return {name: value for name, value in asdict(self).items() if name not in unused}


def dataset(pairs: pd.DataFrame, method: str, seed: int) -> Dataset:
    """Preference pairs (columns task, source, chosen, rejected) in the form ``method`` trains on.

    KTO's rows are unpaired. TRL walks through them in order, and a batch of one class has no gradient (its loss
    stays at 0.5), so chosen and rejected answers are shuffled apart and alternate.
    """
    prompts = [prompt(task, source) for task, source in zip(pairs["task"], pairs["source"], strict=True)]
    chosen = [answer(text) for text in pairs["chosen"]]
    rejected = [answer(text) for text in pairs["rejected"]]
    if method == "sft":
        return Dataset.from_dict({"prompt": prompts, "completion": chosen})
    if method in ("dpo", "cpo"):
        return Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})
    if method == "kto":
        orders = [random.Random(f"kto:{seed}:{label}").sample(range(len(prompts)), len(prompts)) for label in (0, 1)]
        rows = [
            {"prompt": prompts[index], "completion": answers[index], "label": label}
            for good, bad in zip(*orders, strict=True)
            for index, answers, label in ((good, chosen, True), (bad, rejected, False))
        ]
        return Dataset.from_list(rows)
    raise ValueError(f"no training method {method!r}: sft, dpo, cpo or kto")


def arranged(pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, step_rows: int, seed: int) -> pd.DataFrame:
    """``pairs`` in random order, then by length within each optimiser step's ``step_rows`` rows.

    A step still sees random rows, but each of its micro-batches holds rows of like length, so that little of
    a forward pass is padding.
    """
    columns = ("task", "source", "chosen", "rejected")
    shuffled = pairs.sample(frac=1, random_state=seed).reset_index(drop=True)
    lengths = [
        len(tokenizer(prompt(task, source)).input_ids)
        + max(len(ids) for ids in tokenizer([chosen, rejected], add_special_tokens=False).input_ids)
        for task, source, chosen, rejected in zip(*(shuffled[name] for name in columns), strict=True)
    ]
    order = sorted(range(len(shuffled)), key=lambda index: (index // step_rows, lengths[index], index))
    return shuffled.iloc[order].reset_index(drop=True)


def check_batches(labels: list[bool], size: int) -> None:
    """Raise ``ValueError`` if any micro-batch of KTO's rows, in order, holds a single class."""
    for start in range(0, len(labels) - size + 1, size):
        if len(set(labels[start : start + size])) == 1:
            raise ValueError(
                f"KTO batch {start // size} holds one class only: use a larger micro_batch or another seed"
            )


def lora(recipe: Recipe) -> LoraConfig:
    """LoRA on every linear layer but the output (L4M Fig. 15)."""
    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )


def _arguments(recipe: Recipe, folder: Path, rows: int) -> dict[str, Any]:
    """Trainer arguments that all four methods share."""
    micro = min(recipe.micro_batch, recipe.effective_batch, max(2, rows))
    accumulation = max(1, round(recipe.effective_batch / micro))
    on_cpu = recipe.device == "cpu"
    return {
        "output_dir": str(folder),
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup_share,  # a fraction is a share of all steps
        "max_grad_norm": recipe.max_grad_norm,
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "use_cpu": on_cpu,
        "bf16": recipe.dtype == "bfloat16" and not on_cpu,
        # Recomputing activations saves memory where it is short, and only costs time on a tiny model.
        "activation_checkpointing": not on_cpu,
        "max_length": recipe.max_length,
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",  # the order is made above
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        "seed": recipe.seed,
    }


def build_trainer(
    recipe: Recipe, model: Any, tokenizer: PreTrainedTokenizerBase, pairs: pd.DataFrame, folder: Path
) -> Any:
    """TRL's trainer for ``recipe.method``, with a fresh adapter on ``model``."""
    if recipe.method != "kto":
        pairs = arranged(pairs, tokenizer, recipe.effective_batch, recipe.seed)
    data = dataset(pairs, recipe.method, recipe.seed)
    common = _arguments(recipe, folder, len(data))
    parts: dict[str, Any] = {
        "model": model,
        "train_dataset": data,
        "processing_class": tokenizer,
        "peft_config": lora(recipe),
    }
    # The reference's log-probabilities are computed once, in batches of training size, not at every step.
    reference: dict[str, Any] = {
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": common["per_device_train_batch_size"],
    }
    if recipe.method == "sft":  # Eq. 2: negative log-likelihood of the answer and its EOS
        return SFTTrainer(args=SFTConfig(**common, completion_only_loss=True), **parts)
    if recipe.method == "dpo":  # Eq. 3; the reference is the model with its adapter switched off
        dpo = DPOConfig(**common, beta=recipe.beta, loss_type=["sigmoid"], **reference)
        return DPOTrainer(args=dpo, **parts)
    if recipe.method == "cpo":  # Eq. 4: preference against a uniform reference, plus the SFT term
        cpo = CPOConfig(**common, beta=recipe.beta, cpo_alpha=recipe.cpo_alpha, remove_unused_columns=False)
        return CPOTrainer(args=cpo, **parts)
    check_batches(list(data["label"]), common["per_device_train_batch_size"])
    kto = KTOConfig(**common, beta=recipe.beta, **reference)  # Eq. 5
    return KTOTrainer(args=kto, **parts)


class _Progress(TrainerCallback):
    """A progress bar with loss and time left; plain lines where there is no notebook."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, desc=self.title, unit="step", mininterval=5)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class _Clock(TrainerCallback):
    """Seconds since training began, per logged step."""

    def __init__(self) -> None:
        self.start = 0.0
        self.seconds: dict[int, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds[state.global_step] = time.perf_counter() - self.start


@dataclass(frozen=True)
class Trained:
    """What a training did: the evidence that it did something."""

    steps: int
    rows: int
    trainable: int
    moved: float
    first_loss: float
    last_loss: float
    seconds: float


def train(
    recipe: Recipe,
    initial: str,
    pairs: pd.DataFrame,
    adapter: Path,
    log: Path,
    *,
    title: str,
    say: Callable[[str], None] = print,
) -> Trained:
    """Train one adapter from the model ``initial`` on ``pairs`` and save it; its log goes to ``log``.

    The log has one row per optimiser step (step, loss, learning rate, gradient norm, the trainer's own measures);
    seconds per step lie beside it (:func:`timing_path`). Raises ``RuntimeError`` when the adapter did not move: a
    training that does nothing is an error.
    """
    set_seed(recipe.seed)
    # A preference loss near its end has gradients so small that a CPU computes them in slow motion.
    torch.set_flush_denormal(True)
    tokenizer = load_tokenizer(initial)
    model = load_model(initial, "causal", device=recipe.device, dtype=recipe.dtype, quantize=recipe.quantize)
    if recipe.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.device != "cpu")
    with atomic_folder(adapter) as folder:
        trainer = build_trainer(recipe, model, tokenizer, pairs, folder)
        clock = _Clock()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.add_callback(_Progress(title))
        trainer.train()
        moved = _moved(trainer.model)
        if not moved > 0:
            raise RuntimeError(f"{title}: the adapter's weights did not move; check learning_rate and the pairs")
        trainer.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _settle(folder / "adapter_config.json", initial)
    history = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    history["loss"] = history["loss"].astype(float)
    write_rows(log, history)
    # Times lie apart: the log of two equal runs is equal byte for byte, their times are not.
    write_rows(timing_path(log), pd.DataFrame({"step": list(clock.seconds), "seconds": list(clock.seconds.values())}))
    result = Trained(
        steps=int(trainer.state.global_step),
        rows=len(trainer.train_dataset),
        trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        moved=moved,
        first_loss=float(history["loss"].iloc[0]),
        last_loss=float(history["loss"].iloc[-1]),
        seconds=max(clock.seconds.values()),
    )
    say(
        f"{title}: {result.steps} steps over {result.rows} rows in {result.seconds:.0f} s, loss "
        f"{result.first_loss:.3f} -> {result.last_loss:.3f}, {result.trainable:,} weights trained, mean |B| {moved:.2e}"
    )
    return result


def _settle(config: Path, initial: str) -> None:
    """Equal trainings leave equal files: PEFT writes a set in any order, and this machine's path to the model."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values["target_modules"] = sorted(values["target_modules"])
    values["base_model_name_or_path"] = Path(initial).name if Path(initial).is_absolute() else initial
    config.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (config.parent / "README.md").unlink(missing_ok=True)  # PEFT's empty card, with the same path


def timing_path(log: Path) -> Path:
    """Where the seconds of a training lie: beside its log."""
    return log.with_name(log.name.replace(".jsonl", ".seconds.jsonl"))


def _moved(model: Any) -> float:
    """Mean absolute value of LoRA's B matrices, which start at zero: 0 means that nothing was learned."""
    sizes = [p.detach().abs().mean().item() for name, p in model.named_parameters() if "lora_B" in name]
    return float(sum(sizes) / len(sizes)) if sizes else 0.0


def load_trained(
    initial: str, adapter: Path | None, *, device: str, dtype: str, quantize: str
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The initial model with its adapter (or without, for systems that are not trained) and its tokenizer."""
    model = load_model(initial, "causal", device=device, dtype=dtype, quantize=quantize)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
        if quantize == "none":
            with torch.no_grad():
                model = model.merge_and_unload()  # the same function, without two small products per layer
    return model, load_tokenizer(initial)
