"""Tokens per second of each method against stock TRL at the released settings, in one run, at equal results.

Stock is TRL's own trainer as its examples use it: one row per micro-batch (two for KTO, which refuses one), 64 rows per
step, the reference's log-probabilities computed at every step with the adapter switched off, Transformers' default
attention, no recomputed activations. Ours is what :func:`lmolt_utils.training.trainers.build_trainer` makes with the
profile's micro-batch. Both begin from the same weights and see the same rows in each step; the first step's loss and
gradient are compared. The time is that of building the trainer (tokenising, our reference) and of training the papers'
three epochs. CPO's SFT term is the released one: TRL's mean over a micro-batch's tokens would depend on the
micro-batch. Tokens are counted as in :mod:`benchmarks.gpu`.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback, set_seed

from benchmarks import gpu
from lmolt_utils.config.params import Params, load
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.models.loading import load_model, load_tokenizer, pretrained
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import arranged, lengths
from lmolt_utils.training.trainers import build_trainer

METHODS = gpu.METHODS
EPOCHS = 3.0


def make_pairs(rows: int, seed: int) -> pd.DataFrame:
    """``rows`` pairs of both tasks from the embedded corpus; the rejected answer is another row's."""
    corpus = generate(max(rows, 200), seed).head(rows // 2).reset_index(drop=True)
    parts = []
    for task, source, target in (("mol2cap", "molecule", "caption"), ("cap2mol", "caption", "molecule")):
        rejected = [*corpus[target].iloc[1:], corpus[target].iloc[0]]
        parts.append(
            pd.DataFrame({"task": task, "source": corpus[source], "chosen": corpus[target], "rejected": rejected})
        )
    return pd.concat(parts, ignore_index=True)


class First(TrainerCallback):
    """The gradient of the first step."""

    gradient: torch.Tensor | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Keep it, once."""
        if self.gradient is None:
            parts = [p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]
            self.gradient = torch.cat(parts)


@dataclass(frozen=True)
class Timed:
    """One training: its seconds, and its first step."""

    seconds: float
    loss: float
    gradient: torch.Tensor


def timed(build: Callable[[Path], Any]) -> Timed:
    """Build and train once, in a folder of its own."""
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        begin = time.perf_counter()
        trainer = build(Path(folder))
        first = First()
        trainer.add_callback(first)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        seconds = time.perf_counter() - begin
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert first.gradient is not None
    return Timed(seconds, float(losses[0]), first.gradient)


def stock(recipe: Recipe, initial: str, pairs: pd.DataFrame, folder: Path) -> Any:
    """TRL's trainer at the released batch size."""
    tokenizer = load_tokenizer(initial)
    model = AutoModelForCausalLM.from_pretrained(**pretrained(initial), dtype=getattr(torch, recipe.dtype))
    if recipe.method != "kto":
        pairs = arranged(pairs, lengths(pairs, tokenizer), recipe)
    return gpu.stock(
        replace(recipe, micro_batch=2 if recipe.method == "kto" else 1),
        model,
        tokenizer,
        pairs,
        str(folder),
        lr_scheduler_type=recipe.scheduler,
        warmup_steps=recipe.warmup_share,
        activation_checkpointing=False,
        train_sampling_strategy="sequential",
        bf16=False,
    )


def ours(recipe: Recipe, initial: str, pairs: pd.DataFrame, folder: Path) -> Any:
    """The companion's trainer."""
    model = load_model(initial, "causal", device=recipe.device, dtype=recipe.dtype)
    return build_trainer(recipe, model, load_tokenizer(initial), pairs, folder)


def recipe_of(params: Params, method: str) -> Recipe:
    """The profile's recipe at the released effective batch of 64, three epochs, no dropout (it draws differently)."""
    names = [name for name in Recipe.__dataclass_fields__ if name != "method"]
    recipe = Recipe(method=method, **{name: getattr(params, name) for name in names})
    return replace(recipe, effective_batch=64, epochs=EPOCHS, cpo_nll="row_mean", lora_dropout=0.0)


def measure(params: Params, methods: Sequence[str], rows: int, repeats: int) -> pd.DataFrame:
    """Per method: tokens per second of stock and ours (medians), their ratio, and how far the first steps differ."""
    pairs, initial = make_pairs(rows, params.seed), params.cap2mol_model
    counts = lengths(pairs, load_tokenizer(initial))
    table = {}
    for method in methods:
        recipe = recipe_of(params, method)
        runs = [
            (
                timed(partial(stock, recipe, initial, pairs)),
                timed(partial(ours, recipe, initial, pairs)),
            )
            for _ in range(repeats)
        ]
        before, after = runs[0]
        tokens = EPOCHS * gpu.row_tokens(counts, method)
        table[method] = {
            "stock tokens/s": tokens / median(run[0].seconds for run in runs),
            "ours tokens/s": tokens / median(run[1].seconds for run in runs),
            "ratio": median(run[0].seconds / run[1].seconds for run in runs),
            "first loss, stock": before.loss,
            "first loss, ours": after.loss,
            "gradient differs by": float((before.gradient - after.gradient).norm() / before.gradient.norm()),
        }
    return pd.DataFrame(table).T.rename_axis("method")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", default="cpu", help="params/PROFILE.yaml (default: cpu)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all four")
    parser.add_argument("--rows", type=int, default=64, help="pairs, a multiple of 64 (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are shown (default: 3)")
    parser.add_argument("--threads", type=int, help="of torch, for both (default: the profile's)")
    arguments = parser.parse_args()
    params = load(arguments.profile)
    threads = arguments.threads or params.threads
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as in every training here; for both
    found = measure(params, arguments.methods, arguments.rows, arguments.repeats)
    print(found.to_string(float_format=lambda value: f"{value:,.4g}"))
    print(f"\n{arguments.rows} pairs, steps of 64 rows, micro-batches of {params.micro_batch}, {threads} thread(s)")


if __name__ == "__main__":
    main()
