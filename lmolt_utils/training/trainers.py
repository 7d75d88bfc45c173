"""One trainer entry for SFT, DPO, CPO and KTO: TRL trains, PEFT adapts, the methods differ by their data.

Both directions go into one adapter, as in the papers (25.4k triples at full scale: audit D3). Every
hyper-parameter is set here explicitly: TRL's defaults differ from the papers' by up to fifty times.

A step has ``effective_batch`` rows; the last one of an epoch has what is left. The order of the rows is drawn once:
each epoch goes through the same steps, as rows of like length share a micro-batch and KTO's mismatched answers are
neighbours. Transformers would shuffle at each epoch.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # CPO lives in trl.experimental

import pandas as pd
import torch
from datasets import Dataset, disable_progress_bars
from peft import prepare_model_for_kbit_training
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, set_seed
from trl import DPOConfig, KTOConfig, SFTConfig
from trl.experimental.cpo import CPOConfig

from lmolt_utils.config.prompts import answer, prompt
from lmolt_utils.files import atomic_folder, write_rows
from lmolt_utils.models.chat import chat_answer, chat_prompt, chat_tokens
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.negatives.pairs import alike, single_class_batches, unpaired
from lmolt_utils.run.resume import Checkpoints
from lmolt_utils.training.adapters import check_vocabulary, save_adapter
from lmolt_utils.training.losses import Cpo, Dpo, DpoNll, Kto, KtoPair, Sft, TrainingError
from lmolt_utils.training.memory import keep_freed_memory, releasing
from lmolt_utils.training.progress import Clock, Progress, timing_path
from lmolt_utils.training.recipes import Recipe

disable_progress_bars()  # our own bar shows the training; the others only flood a notebook


def _texts(rows: pd.DataFrame, names: list[str], layout: Any, chat: bool) -> dict[str, list[str]]:
    """``prompt`` of each row and its answers in the columns ``names``, as they are trained on."""
    asked = [prompt(task, source, layout) for task, source in zip(rows["task"], rows["source"], strict=True)]
    found = {"prompt": [chat_prompt(text) for text in asked] if chat else asked}
    for name in names:
        answers = [answer(text, layout) for text in rows[name]]
        found[name] = [chat_answer(text) for text in answers] if chat else answers
    return found


def dataset(pairs: pd.DataFrame, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Preference pairs (columns task, source, chosen, rejected) in the form the method trains on.

    KTO's rows are :func:`~lmolt_utils.negatives.pairs.unpaired`, by their length within each step.
    """
    layout, method = recipe.train_prompt, recipe.method
    if method == "kto":
        rows = unpaired(pairs, recipe.seed)
        prompts, answers = _texts(rows, ["answer"], layout, recipe.kto_format == "chatml").values()
        texts = pd.DataFrame({"prompt": prompts, "completion": answers, "label": rows["label"]})
        own, others = ([len(ids) for ids in tokenizer(part).input_ids] for part in (prompts, answers))
        return Dataset.from_dict(alike(texts, own, others, recipe.effective_batch).to_dict("list"))
    prompts, chosen, rejected = _texts(pairs, ["chosen", "rejected"], layout, chat=False).values()
    if method == "sft" and recipe.sft_eos == "none":
        return Dataset.from_list([_without_eos(*row, recipe, tokenizer) for row in zip(prompts, chosen, strict=True)])
    if method == "sft":
        return Dataset.from_dict({"prompt": prompts, "completion": chosen})
    if method in ("dpo", "cpo"):
        return Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})
    raise ValueError(f"no training method {method!r}: sft, dpo, cpo or kto")


def _without_eos(text: str, target: str, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Token ids of prompt and answer with no EOS behind them (audit D15); TRL would add one to text."""
    before, ids = tokenizer(text).input_ids, tokenizer(text + target).input_ids
    start = next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), len(before))
    hidden = start if recipe.sft_loss_on == "answer" else 0
    return {"input_ids": ids, "labels": [-100] * hidden + ids[hidden:]}


def lengths(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, layout: Any = "printed", chat: bool = False
) -> pd.DataFrame:
    """Tokens of each pair's ``prompt`` (BOS included), ``chosen`` and ``rejected`` answer (EOS not included).

    With ``chat`` as KTO's ChatML has them: the tokenizer needs the chat tokens by then.
    """
    texts = _texts(pairs, ["chosen", "rejected"], layout, chat)
    return pd.DataFrame(
        {
            name: [len(ids) for ids in (tokenizer(rows, add_special_tokens=name == "prompt").input_ids if rows else [])]
            for name, rows in texts.items()
        }
    )


def fitting(pairs: pd.DataFrame, counts: pd.DataFrame, limit: int, say: Callable[[str], None] = print) -> pd.DataFrame:
    """``pairs`` without those whose prompt alone fills ``limit`` tokens; says how many, and how many will be cut.

    A cut answer has lost its EOS. Raises :class:`TrainingError` when fewer than two pairs are left.
    """
    if len(pairs) < 2:
        raise TrainingError(
            f"the training set has {len(pairs)} pairs: a training needs at least 2; see data/pairs.jsonl"
        )
    lost = counts["prompt"] >= limit
    answers = counts[["chosen", "rejected"]].max(axis=1)
    cut = ~lost & (counts["prompt"] + answers + 1 > limit)  # EOS
    if lost.any() or cut.any():
        say(
            f"longer than {limit} tokens: {int(cut.sum())} of {len(pairs)} pairs have an answer that is cut, "
            f"{int(lost.sum())} are left out because their prompt alone is as long (raise max_length to keep them)"
        )
    if (~lost).sum() < 2:
        raise TrainingError(f"{int((~lost).sum())} of {len(pairs)} pairs fit into {limit} tokens: raise max_length")
    return pairs[~lost.to_numpy()]


def arranged(pairs: pd.DataFrame, tokens: pd.Series, step_rows: int, seed: int) -> pd.DataFrame:
    """``pairs`` in random order, then by their ``tokens`` within each optimiser step's ``step_rows`` rows.

    A step still sees random rows, but each of its micro-batches holds rows of like length, so that little of
    a forward pass is padding.
    """
    shuffled = pairs.reset_index(drop=True).assign(tokens=tokens.to_numpy()).sample(frac=1, random_state=seed)
    sizes = list(shuffled["tokens"])
    order = sorted(range(len(shuffled)), key=lambda index: (index // step_rows, sizes[index], index))
    return shuffled.iloc[order].drop(columns="tokens").reset_index(drop=True)


def sequence_tokens(counts: pd.DataFrame, method: str) -> pd.Series:
    """How long a pair's sequence is in a training by ``method``, from its :func:`lengths`."""
    answers = counts[["chosen", "rejected"]]
    if method == "dpo":  # two sequences, padded to the longer one
        return counts["prompt"] + answers.max(axis=1)
    if method == "cpo":  # one sequence with both answers
        return counts["prompt"] + answers.sum(axis=1)
    return counts["prompt"] + counts["chosen"]


def check_batches(labels: list[bool], size: int) -> None:
    """Raise :class:`TrainingError` if any micro-batch of KTO's rows, in order, holds a single class or row."""
    if wrong := single_class_batches(labels, size):
        alone = "or a row alone, which z_ref would pair with itself"
        raise TrainingError(
            f"KTO batch {wrong[0]} of {size} rows holds one class only, {alone}: use an even micro_batch"
        )


def _arguments(
    recipe: Recipe, folder: Path, rows: int, save_steps: int | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Trainer arguments that all four methods share."""
    step, micro, on_cpu = recipe.effective_batch, recipe.micro_batch, recipe.device == "cpu"
    if step % micro:
        raise TrainingError(f"effective_batch {step} is no multiple of micro_batch {micro}")
    if rows < step:
        say(f"{rows} rows are less than effective_batch {step}: one step of {rows} rows per epoch")
    return {
        "output_dir": str(folder),
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": step // micro,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup_share,  # a fraction is a share of all steps
        "max_grad_norm": recipe.max_grad_norm,
        "weight_decay": recipe.weight_decay,
        "optim": "adamw_torch",
        "use_cpu": on_cpu,
        "bf16": recipe.dtype == "bfloat16" and not on_cpu,
        # Recomputing activations saves memory where it is short, and only costs time on a tiny model.
        "activation_checkpointing": not on_cpu,
        "max_length": recipe.max_length,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is no number is an error here, not the last average
        "train_sampling_strategy": "sequential",  # the order is made above
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": save_steps or 500,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        "seed": recipe.seed,
    }


def build_trainer(
    recipe: Recipe,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    folder: Path,
    *,
    save_steps: int | None = None,
    say: Callable[[str], None] = print,
) -> Any:
    """TRL's trainer for ``recipe.method``, with a fresh adapter on ``model``; ``folder`` is for checkpoints.

    Raises :class:`TrainingError` for pairs that cannot be trained on.
    """
    if recipe.device == "cpu":
        keep_freed_memory()
    limit = min(recipe.max_length, getattr(model.config, "max_position_embeddings", recipe.max_length))
    chat = recipe.method == "kto" and recipe.kto_format == "chatml"
    if chat:
        chat_tokens(model, tokenizer, recipe.seed)
    counts = lengths(pairs, tokenizer, recipe.train_prompt, chat)
    pairs = fitting(pairs, counts, limit, say)
    counts = counts.loc[(counts["prompt"] < limit).to_numpy()]
    if recipe.method != "kto":
        pairs = arranged(pairs, sequence_tokens(counts, recipe.method), recipe.effective_batch, recipe.seed)
    data = dataset(pairs, recipe, tokenizer)
    common = _arguments(recipe, folder, len(data), save_steps, say) | {"max_length": limit}
    parts: dict[str, Any] = {
        "model": model,
        "train_dataset": data,
        "processing_class": tokenizer,
        "peft_config": recipe.lora(),
    }
    # The reference's log-probabilities are computed once, in batches of training size, not at every step. The
    # reference is the model with its adapter switched off.
    reference: dict[str, Any] = {
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": common["per_device_train_batch_size"],
    }
    if recipe.method == "sft":
        sft = SFTConfig(**common, completion_only_loss=recipe.sft_loss_on == "answer")
        return Sft(args=sft, **parts)
    if recipe.method == "dpo":
        dpo = DPOConfig(**common, beta=recipe.beta, loss_type=["sigmoid"], **reference)
        if recipe.dpo_loss == "kto_pair":
            if recipe.dpo_alpha:
                raise TrainingError("dpo_alpha goes with dpo_loss sigmoid: the released kto_pair has no NLL term")
            return KtoPair(args=dpo, **parts)
        if not recipe.dpo_alpha:
            return Dpo(args=dpo, **parts)
        with_nll = DpoNll(args=dpo, **parts)
        with_nll.alpha, with_nll.nll = recipe.dpo_alpha, recipe.cpo_nll
        return with_nll
    if recipe.method == "cpo":
        cpo = CPOConfig(**common, beta=recipe.beta, cpo_alpha=recipe.cpo_alpha, remove_unused_columns=False)
        trainer = Cpo(args=cpo, **parts)
        trainer.nll = recipe.cpo_nll
        return trainer
    check_batches(list(data["label"]), common["per_device_train_batch_size"])
    # Chosen and rejected answers weigh alike, as in the released code: there is one of each per pair.
    weights: dict[str, Any] = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    return Kto(args=KTOConfig(**common, beta=recipe.beta, **weights, **reference), **parts)


class _Sane(TrainerCallback):
    """Stops a training whose gradient is no number or whose loss runs away, before that is saved anywhere."""

    def __init__(self, stop_above: float) -> None:
        self.stop_above = stop_above
        self.losses: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.losses = [float(row["loss"]) for row in state.log_history if "loss" in row]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise TrainingError(f"the gradient of {name} is not finite at step {state.global_step + 1}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        # Single steps say little: in small batches a sum over tokens follows the answers' lengths, and a preference
        # loss, which begins at ln 2, has steps far above it. So a tenth of the steps is held against the first tenth.
        window = min(max(3, state.max_steps // 10), 20)
        recent, first = sum(self.losses[-window:]) / window, max(map(abs, self.losses[:window]))
        if len(self.losses) > window and recent > self.stop_above * first:
            raise TrainingError(
                f"the loss diverges: {recent:.3g} on average of {window} steps at step {state.global_step}, more than "
                f"{self.stop_above:g} times the {first:.3g} of the worst of the first {window} (stop_above)"
            )


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
    tokens: int
    peak_mb: float
    resumed_at: int
    precision: str


@releasing
def train(
    recipe: Recipe,
    initial: str,
    pairs: pd.DataFrame,
    adapter: Path,
    log: Path,
    work: Path,
    *,
    title: str,
    say: Callable[[str], None] = print,
    save_steps: int | None = None,
) -> Trained:
    """Train one adapter from the model ``initial`` on ``pairs`` and save it; its log goes to ``log``.

    The log has one row per optimiser step (step, loss, learning rate, gradient norm, the trainer's own measures);
    seconds, tokens and peak memory per step lie beside it (:func:`~lmolt_utils.training.progress.timing_path`).

    With ``save_steps`` a checkpoint is kept every so many steps in ``work``, the step's work folder, and a training
    that was killed goes on from its last whole one.

    Raises :class:`TrainingError` for pairs that cannot be trained on, for a loss that is no number or runs away (the
    last good checkpoint stays), and when the adapter did not move: a training that does nothing is an error.
    """
    if len(pairs) < 2:
        raise TrainingError(f"{title}: the training set has {len(pairs)} pairs, a training needs at least 2")
    set_seed(recipe.seed)
    # A preference loss near its end has gradients so small that a CPU computes them in slow motion.
    torch.set_flush_denormal(True)
    tokenizer = load_tokenizer(initial)
    model = load_model(initial, "causal", device=recipe.device, dtype=recipe.dtype, quantize=recipe.quantize)
    check_vocabulary(model, tokenizer, initial)
    if recipe.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.device != "cpu")
    kept = Checkpoints(work)
    found = kept.last() if save_steps else None
    trainer = build_trainer(recipe, model, tokenizer, pairs, work, save_steps=save_steps, say=say)
    clock = Clock(trainer, found[1] if found else ())
    kept.notes = lambda: clock.rows
    trainer.remove_callback(PrinterCallback)
    for callback in (clock, Progress(title), _Sane(recipe.stop_above), *([kept] if save_steps else [])):
        trainer.add_callback(callback)
    if found:
        say(f"{title}: goes on after step {found[1][-1]['step']}, from {found[0].name}")
    try:
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    except TrainingError as error:
        raise TrainingError(f"{title}: {error}; {kept.left()} Try a smaller learning_rate.") from error
    moved = _moved(trainer.model)
    if not moved > 0:
        raise TrainingError(f"{title}: the adapter's weights did not move; check learning_rate and the pairs")
    with atomic_folder(adapter) as part:
        save_adapter(trainer.model, tokenizer, part, initial)
    history = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    history["loss"] = history["loss"].astype(float)
    # TRL counts tokens anew after a kill; the count beside the seconds does not. A restored log has its own order.
    names = ["step", "loss", *sorted({str(name) for name in history} - {"step", "loss", "num_tokens"})]
    write_rows(log, history[names])
    # Times lie apart: the log of two equal runs is equal byte for byte, their times are not.
    times = clock.frame()
    write_rows(timing_path(log), times)
    result = Trained(
        steps=int(trainer.state.global_step),
        rows=len(trainer.train_dataset),
        trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        moved=moved,
        first_loss=float(history["loss"].iloc[0]),
        last_loss=float(history["loss"].iloc[-1]),
        seconds=float(times["seconds"].max()),
        tokens=int(times["tokens"].max()),
        peak_mb=float(times["peak_mb"].max()),
        resumed_at=int(found[1][-1]["step"]) if found else 0,
        precision=trainer.precision,
    )
    say(
        f"{title}: {result.steps} steps over {result.rows} rows in {result.seconds:.0f} s "
        f"({result.tokens / result.seconds:,.0f} tokens/s), loss {result.first_loss:.3f} -> {result.last_loss:.3f}, "
        f"{result.trainable:,} weights trained, mean |B| {moved:.2e}, {result.precision}"
    )
    return result


def _moved(model: Any) -> float:
    """Mean absolute value of LoRA's B matrices, which start at zero: 0 means that nothing was learned."""
    sizes = [p.detach().abs().mean().item() for name, p in model.named_parameters() if "lora_B" in name]
    value = float(sum(sizes) / len(sizes)) if sizes else 0.0
    return value if math.isfinite(value) else 0.0
