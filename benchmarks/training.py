"""Tokens per second of each method against stock TRL at the released settings, in one run, at equal results.

Stock is TRL's own trainer as its examples use it: one row per micro-batch (two for KTO, which refuses one), the
reference's log-probabilities computed at every step with the adapter switched off, no recomputed activations. Ours is
what :func:`lmolt_utils.training.trainers.build_trainer` makes with the profile's micro-batch. Both begin from the same
weights, and a step has all pairs (64, as released), so both see the same rows in it: the first step's loss and gradient
are compared. The time is that of building the trainer (tokenising, our reference) and of training the papers' three
epochs. CPO's SFT term is the released one: TRL's mean over a micro-batch's tokens would depend on the micro-batch.
Tokens are counted as in :mod:`benchmarks.gpu`.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from benchmarks import gpu
from benchmarks.timing import compare, show
from lmolt_utils.config.params import Params, load
from lmolt_utils.embedded.corpus import generate
from lmolt_utils.models.loading import load_model, load_tokenizer
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import lengths
from lmolt_utils.training.trainers import build_trainer

EPOCHS = 3


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
            self.gradient = torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def trained(build: Callable[[str], Any]) -> tuple[float, torch.Tensor]:
    """Build a trainer in a folder of its own and train; the first step's loss and gradient."""
    gc.collect()
    set_seed(0)
    first = First()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(folder)
        trainer.add_callback(first)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    assert first.gradient is not None
    return next(row["loss"] for row in trainer.state.log_history if "loss" in row), first.gradient


def measure(params: Params, method: str, rows: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of stock and ours (medians), their ratio, and how far the first steps differ."""
    pairs, initial = make_pairs(rows, params.seed), params.cap2mol_model
    recipe = replace(Recipe.of(method, params), effective_batch=rows, epochs=float(EPOCHS), cpo_nll="row_mean")
    recipe = replace(recipe, lora_dropout=0.0)  # it draws differently in other micro-batches

    def stock(folder: str) -> Any:
        alone = replace(recipe, micro_batch=2 if method == "kto" else 1)
        model, tokenizer = load_model(initial, "causal", dtype=recipe.dtype), load_tokenizer(initial)
        scheduled = {"lr_scheduler_type": recipe.scheduler, "warmup_steps": recipe.warmup_share}
        plain = {"activation_checkpointing": False, "bf16": False, "train_sampling_strategy": "sequential"}
        return gpu.stock(alone, model, tokenizer, pairs, folder, **scheduled, **plain)

    def ours(folder: str) -> Any:
        model, tokenizer = load_model(initial, "causal", dtype=recipe.dtype), load_tokenizer(initial)
        return build_trainer(recipe, model, tokenizer, pairs, Path(folder))

    tokens = EPOCHS * gpu.row_tokens(lengths(pairs, load_tokenizer(initial)), method)
    ways = {"stock": (tokens, lambda: trained(stock)), "ours": (tokens, lambda: trained(ours))}
    row, found = compare(ways, repeats, each="token")
    (loss, gradient), (own_loss, own_gradient) = found["stock"], found["ours"]
    return {
        "method": method,
        "stock, tokens/s": 1e3 / row["stock, ms/token"],
        "ours, tokens/s": 1e3 / row["ours, ms/token"],
        "ratio": row["ratio"],
        "first loss, stock": loss,
        "first loss, ours": own_loss,
        "gradient differs by": float((gradient - own_gradient).norm() / gradient.norm()),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", default="cpu", help="params/PROFILE.yaml (default: cpu)")
    parser.add_argument("--methods", nargs="+", choices=gpu.METHODS, default=gpu.METHODS, help="default: all four")
    parser.add_argument("--rows", type=int, default=64, help="pairs, all in each step (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are shown (default: 3)")
    given = parser.parse_args()
    params = load(given.profile)
    torch.set_num_threads(params.threads)
    torch.set_flush_denormal(True)  # as in every training here; for both
    show([measure(params, method, given.rows, given.repeats) for method in given.methods])


if __name__ == "__main__":
    main()
