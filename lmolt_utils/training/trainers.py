"""One trainer entry for SFT, DPO, CPO and KTO: TRL trains, PEFT adapts, the methods differ by their data and loss.

Both directions go into one adapter, as in the papers (audit D3). A step has ``effective_batch`` rows; the last of an
epoch has what is left. The order of the rows is drawn once for all epochs: rows of like length share a micro-batch, and
KTO's mismatched answers are neighbours.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import PartialState
from datasets import disable_progress_bars
from peft import prepare_model_for_kbit_training
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from trl import DPOConfig, KTOConfig, SFTConfig

from lmolt_utils.files import atomic_folder, write_rows
from lmolt_utils.models.chat import chat_tokens
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.run.resume import Checkpoints
from lmolt_utils.training.adapters import check_vocabulary, save_adapter
from lmolt_utils.training.losses import Kto, PairTrainer, Sft, TrainingError, kto_pair, sigmoid_and_nll
from lmolt_utils.training.progress import Clock, Progress, StopOnDivergence, timing_path
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import arranged, check_batches, dataset, fitting, lengths

disable_progress_bars()  # our own bar shows the training; the others only flood a notebook


def _arguments(
    recipe: Recipe, folder: Path, rows: int, save_steps: int | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Trainer arguments that all four methods share; TRL's defaults differ from the papers' by up to fifty times."""
    step, micro, on_cpu = recipe.effective_batch, recipe.micro_batch, recipe.device == "cpu"
    at_once = micro * PartialState(cpu=on_cpu).num_processes
    if step % at_once:
        raise TrainingError(f"effective_batch {step} is no multiple of micro_batch {micro} times processes, {at_once}")
    if at_once > micro and (recipe.method == "kto" or rows % at_once):
        told = "KTO's z_ref would be of all processes' rows" if recipe.method == "kto" else f"{rows} rows: some twice"
        say(f"{at_once // micro} processes: {told}; the numbers are not those of one process")
    if rows < step:
        say(f"{rows} rows are less than effective_batch {step}: one step of {rows} rows per epoch")
    return {
        "output_dir": str(folder),
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": step // at_once,
        "ddp_find_unused_parameters": False,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup_share,  # a fraction is a share of all steps
        "max_grad_norm": recipe.max_grad_norm,
        "weight_decay": recipe.weight_decay,
        "optim": "adamw_torch",
        "use_cpu": on_cpu,
        "bf16": recipe.dtype == "bfloat16" and not on_cpu,
        "activation_checkpointing": not on_cpu,  # memory where it is short, for time
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite is an error here, not the last average
        "train_sampling_strategy": "sequential",  # the order is made in rows.py
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": save_steps or 500,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        "seed": recipe.seed,
    }


def load_initial(recipe: Recipe, initial: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model that a training starts from, and its tokenizer; ``ModelError`` if they do not fit each other."""
    tokenizer = load_tokenizer(initial)
    model = load_model(initial, "causal", device=recipe.device, dtype=recipe.dtype, quantize=recipe.quantize)
    check_vocabulary(model, tokenizer, initial)
    if recipe.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.device != "cpu")
    return model, tokenizer


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
    limit = min(recipe.max_length, getattr(model.config, "max_position_embeddings", recipe.max_length))
    chat = recipe.method == "kto" and recipe.kto_format == "chatml"
    if chat:
        chat_tokens(model, tokenizer, recipe.seed)
    counts = lengths(pairs, tokenizer, recipe.train_prompt, chat)
    pairs = fitting(pairs, counts, limit, say)
    if recipe.method != "kto":
        pairs = arranged(pairs, counts[(counts["prompt"] < limit).to_numpy()], recipe)
    data = dataset(pairs, recipe, tokenizer)
    common = _arguments(recipe, folder, len(data), save_steps, say) | {"max_length": limit}
    parts = {"model": model, "train_dataset": data, "processing_class": tokenizer, "peft_config": recipe.lora()}
    if recipe.method == "sft":
        return Sft(args=SFTConfig(**common, completion_only_loss=recipe.sft_loss_on == "answer"), **parts)
    common["beta"] = recipe.beta
    if recipe.method != "cpo":
        # The reference is the model with its adapter switched off; its log-probabilities are computed once, in batches
        # of training size, not at every step.
        common |= {"precompute_ref_log_probs": True, "precompute_ref_batch_size": recipe.micro_batch}
    if recipe.method == "kto":
        check_batches(list(data["label"]), recipe.micro_batch)
        # TRL weighs chosen and rejected answers alike, as the released code does: there is one of each per pair.
        return Kto(args=KTOConfig(**common), **parts)
    trainer = PairTrainer(args=DPOConfig(**common), **parts)
    if recipe.method == "dpo" and recipe.dpo_loss == "kto_pair":
        if recipe.dpo_alpha:
            raise TrainingError("dpo_alpha goes with dpo_loss sigmoid: the released kto_pair has no NLL term")
        trainer.objective = lambda chosen, rejected, *_: kto_pair(chosen, rejected, recipe.beta)
    else:
        alpha = recipe.cpo_alpha if recipe.method == "cpo" else recipe.dpo_alpha
        trainer.objective = sigmoid_and_nll(recipe.beta, alpha, recipe.cpo_nll)
    return trainer


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
) -> None:
    """Train one adapter from the model ``initial`` on ``pairs`` and save it; its log goes to ``log``, a row per step.

    With ``save_steps`` a checkpoint is kept every so many steps in ``work``; a killed training goes on from the last.
    Raises :class:`TrainingError` for pairs that cannot be trained on, for a loss that is not finite or runs away, and
    when the adapter did not move.
    """
    if len(pairs) < 2:
        raise TrainingError(f"{title}: the training set has {len(pairs)} pairs, a training needs at least 2")
    set_seed(recipe.seed)
    torch.set_flush_denormal(True)  # gradients so small that a CPU computes them in slow motion
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        model, tokenizer = load_initial(recipe, initial)
        trainer = build_trainer(recipe, model, tokenizer, pairs, work, save_steps=save_steps, say=say)
        times = _run(trainer, recipe, work, title, say)
        moved = _moved(trainer.model)
        if not moved > 0:
            raise TrainingError(f"{title}: the adapter's weights did not move; check learning_rate and the pairs")
        history = _history(trainer)
        if trainer.is_world_process_zero():
            with atomic_folder(adapter) as part:
                save_adapter(trainer.accelerator.unwrap_model(trainer.model), tokenizer, part, initial)
            write_rows(log, history)
            write_rows(timing_path(log), times)  # apart: the logs of equal trainings are equal byte for byte
        seconds, losses = times["seconds"].iloc[-1], history["loss"]
        weights = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        say(
            f"{title}: {trainer.state.global_step} steps over {len(trainer.train_dataset)} rows in {seconds:.0f} s "
            f"({trainer.tokens / seconds:,.0f} tokens/s), loss {losses.iloc[0]:.3f} -> {losses.iloc[-1]:.3f}, "
            f"{weights:,} weights trained, mean |B| {moved:.2e}, {trainer.precision}"
        )
    finally:
        # A trainer and its model refer to each other: without this, the next 7B model would be loaded beside this one.
        model = trainer = None
        gc.collect()
        torch.cuda.empty_cache()


def _run(trainer: Any, recipe: Recipe, work: Path, title: str, say: Callable[[str], None]) -> pd.DataFrame:
    """Train, from the last checkpoint in ``work`` if they are kept; costs per step."""
    checkpoints = Checkpoints(work)
    keeps = trainer.args.save_strategy == "steps"
    with trainer.accelerator.main_process_first():  # it deletes broken ones
        found = checkpoints.last() if keeps else None
    clock = Clock(trainer, found[1] if found else ())
    checkpoints.notes = lambda: clock.rows
    trainer.remove_callback(PrinterCallback)
    for callback in (clock, Progress(title), StopOnDivergence(recipe.stop_above), *([checkpoints] if keeps else [])):
        trainer.add_callback(callback)
    if found:
        say(f"{title}: goes on after step {found[1][-1]['step']}, from {found[0].name}")
    try:
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    except TrainingError as error:
        raise TrainingError(f"{title}: {error}; {checkpoints.left()} Try a smaller learning_rate.") from error
    finally:
        checkpoints.over()
    if checkpoints.told:
        raise KeyboardInterrupt(f"{title} was told to end: {checkpoints.left()}")
    return pd.DataFrame(clock.rows)


def _history(trainer: Any) -> pd.DataFrame:
    """The log, one row per step; TRL's own count of tokens, which begins anew after a kill, is left out."""
    history = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    history["loss"] = history["loss"].astype(float)
    names = sorted({str(name) for name in history} - {"step", "loss", "num_tokens"})  # a restored log has its own order
    return history[["step", "loss", *names]]


def _moved(model: Any) -> float:
    """Mean absolute value of LoRA's B matrices, which start at zero: 0 means that nothing was learned."""
    sizes = [p.detach().abs().mean().item() for name, p in model.named_parameters() if "lora_B" in name]
    return float(sum(sizes) / len(sizes))
