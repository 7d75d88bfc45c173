"""What the papers' training costs on this GPU: tokens per second, memory and hours, ours beside stock TRL.

It needs torch, transformers, peft, trl and bitsandbytes, and nothing else: no RDKit, no network, no corpus, no weights.
The model has Meditron-7B's shape and random weights in NF4; the pairs have L+M-24's lengths and random words. Each
trainer gets a model of its own and passes twice over the same pairs; the second pass is measured. Ever larger
micro-batches are tried while they are faster. Stock is TRL's trainer with its own defaults: rows in random order, the
reference computed at every step. The first step has the same rows and weights for both, so its loss and gradient must
be the same: CPO's at micro-batch 1, where TRL's mean over a micro-batch's tokens is ours over a row's, SFT's gradient
but for the adapter's dropout.

Tokens are counted by one rule for all: a row's prompt once, and its answers with EOS. A row is a pair for SFT (which
reads the chosen answer alone), DPO and CPO, a single answer for KTO. What a trainer reads twice, pads, or reads for
its reference or for KTO's z_ref does not count: that is its cost, not its work.
"""

import argparse
import gc
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from peft import prepare_model_for_kbit_training
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from lmolt_utils.config.prompts import TASKS, prompt
from lmolt_utils.models.loading import same_on_every_processor
from lmolt_utils.paths import root
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import dataset, lengths
from lmolt_utils.training.trainers import build_trainer

METHODS = ("sft", "dpo", "cpo", "kto")
#: Meditron-7B's config.json.
MEDITRON = {
    "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32,
    "intermediate_size": 11008, "vocab_size": 32_017, "max_position_embeddings": 2048,
}  # fmt: skip
TINY = dict.fromkeys(MEDITRON, 2) | {
    "hidden_size": 64, "intermediate_size": 128, "vocab_size": 1024, "max_position_embeddings": 1024
}  # fmt: skip
_PAPER: Any = SimpleNamespace(**yaml.safe_load((root() / "params" / "paper.yaml").read_text(encoding="utf-8")))
#: The papers' recipe, but for two passes and CPO's SFT term, which is TRL's.
RECIPE = replace(Recipe.of("sft", _PAPER), epochs=2.0, cpo_nll="row_mean")
PAIRS, EPOCHS = 25_372, 3
#: Trainings of the papers' tables and of L4M Figs. 4 and 8 (CPO from other merges), and the two NLL controls.
TRAININGS = {"sft": 1, "dpo": 4, "cpo": 10, "kto": 1}

#: Tokens at LEVELS of the distribution: 6,000 molecules of L+M-24's released training and validation splits and their
#: captions as composed by lmolt_utils.grammar; MolT5-Large's outputs in the shared task for the rejected answers.
#: Counted with a 32,000-piece SentencePiece model of Llama's kind, Mistral's first (3.8 characters per token of a
#: caption, 1.3 per token of a SMILES), because Llama's is not freely at hand.
LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
MOLECULE = (2, 23, 33, 51, 91, 105, 141, 156, 177, 372)
CAPTION = (7, 9, 11, 18, 75, 82, 85, 118, 127, 133)
REJECTED_CAPTION = (7, 9, 9, 22, 57, 80, 83, 87, 135, 137)
REJECTED_MOLECULE = (13, 36, 48, 65, 90, 154, 154, 154, 154, 494)
#: Tokens of the card's prompt without a source, BOS included.
TEMPLATE = {"mol2cap": 105, "cap2mol": 111}


def made_up(count: int, vocabulary: int, seed: int) -> pd.DataFrame:
    """``count`` pairs of random words, half of each task: task, source, chosen, rejected.

    Levels are spread evenly and then shuffled, so that few rows have the mean of many.
    """
    rng = np.random.default_rng(seed)

    def texts(tokens: Sequence[int], more: int = 0) -> list[str]:
        levels = (rng.permutation(count // 2) + rng.random(count // 2)) / (count // 2)
        sizes = np.interp(levels, LEVELS, tokens).round().astype(int) + more
        return [" ".join(f"w{word}" for word in rng.integers(4, vocabulary, size)) for size in sizes]

    sides = {"mol2cap": (MOLECULE, CAPTION, REJECTED_CAPTION), "cap2mol": (CAPTION, MOLECULE, REJECTED_MOLECULE)}
    parts = []
    for task in TASKS:
        source, chosen, rejected = sides[task]
        own = len(prompt(task, "", "card").split()) + 1  # the template in words, and BOS
        columns = {"source": texts(source, TEMPLATE[task] - own), "chosen": texts(chosen), "rejected": texts(rejected)}
        parts.append(pd.DataFrame({"task": task, **columns}))
    return pd.concat(parts).sample(frac=1, random_state=seed).reset_index(drop=True)


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word between blanks; the prompt's own words are all the unknown one."""
    special = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
    known = special | {f"w{index}": index for index in range(4, vocabulary)}
    inner = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def row_tokens(counts: pd.DataFrame, method: str) -> int:
    """Tokens of the pairs whose :func:`~lmolt_utils.training.rows.lengths` are ``counts``, by the module's rule."""
    prompts, chosen, rejected = counts[["prompt", "chosen", "rejected"]].sum()
    if method == "sft":
        return int(prompts + chosen + len(counts))  # EOS
    return int((2 if method == "kto" else 1) * prompts + chosen + rejected + 2 * len(counts))


def random_model(shape: dict[str, int], device: str) -> Any:
    """A Llama with random weights, loaded in NF4 (embeddings, norms and head in bfloat16) as any other."""
    config = LlamaConfig(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=3)  # type: ignore[arg-type]
    with torch.device("meta"):
        parameters = dict(LlamaForCausalLM(config).named_parameters())
    kind: Any = {"dtype": torch.bfloat16, "device": device}
    weights = {
        name: torch.ones(each.shape, **kind) if each.dim() == 1 else torch.randn(each.shape, **kind) * 0.02
        for name, each in parameters.items()
    }
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    model = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, quantization_config=four_bit, device_map={"": device}, dtype="bfloat16"
    )
    same_on_every_processor(model)
    return model


def ours(recipe: Recipe, model: Any, tokenizer: Any, pairs: pd.DataFrame, folder: str) -> Any:
    """The companion's trainer."""
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.device != "cpu")
    return build_trainer(recipe, model, tokenizer, pairs, Path(folder), say=lambda _: None)


def stock(recipe: Recipe, model: Any, tokenizer: Any, pairs: pd.DataFrame, folder: str) -> Any:
    """TRL's trainer with the papers' batch, rate and adapter, and else its defaults."""
    on_cpu = recipe.device == "cpu"
    common: dict[str, Any] = {
        "output_dir": folder, "num_train_epochs": recipe.epochs, "max_length": recipe.max_length,
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.effective_batch // recipe.micro_batch,
        "learning_rate": recipe.learning_rate, "max_grad_norm": recipe.max_grad_norm, "seed": recipe.seed,
        "use_cpu": on_cpu, "bf16": not on_cpu, "dataloader_pin_memory": not on_cpu,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    data = dataset(pairs, recipe, tokenizer)
    parts: dict[str, Any] = {"train_dataset": data, "processing_class": tokenizer, "peft_config": recipe.lora()}
    if recipe.method == "sft":
        return SFTTrainer(model, SFTConfig(**common, completion_only_loss=True), **parts)
    if recipe.method == "dpo":
        return DPOTrainer(model, args=DPOConfig(**common, beta=recipe.beta), **parts)
    if recipe.method == "cpo":
        return CPOTrainer(model, args=CPOConfig(**common, beta=recipe.beta, cpo_alpha=recipe.cpo_alpha), **parts)
    return KTOTrainer(model, args=KTOConfig(**common, beta=recipe.beta), **parts)


class StepEnds(TrainerCallback):
    """When each optimiser step ended; the peak of memory is that of training, without that of loading."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


#: Of one trainer at one micro-batch; ``hours``: of one training of the whole experiment.
COLUMNS = (
    "method", "trainer", "micro", "tokens_per_s", "reference_s", "loss", "grad_norm", "hours", "peak_gib", "note",
)  # fmt: skip


def measure(build: Callable[..., Any], recipe: Recipe, shape: dict[str, int], pairs: pd.DataFrame) -> dict[str, float]:
    """Build a model and a trainer, and train on ``pairs``: of :data:`COLUMNS`, tokens_per_s to hours.

    What it holds on the device goes when it returns. Raises ValueError for a loss that is not finite.
    """
    torch.manual_seed(recipe.seed)
    tokenizer, ends = word_tokenizer(shape["vocab_size"]), StepEnds()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(recipe, random_model(shape, recipe.device), tokenizer, pairs, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(ends)
        trainer.train()
    seconds = ends.times[-1] - ends.times[len(ends.times) // 2 - 1]  # the second pass
    logged = [row for row in trainer.state.log_history if "loss" in row]
    if not all(math.isfinite(float(row["loss"])) for row in logged):
        raise ValueError("a loss is not finite")
    tokens = row_tokens(lengths(pairs, tokenizer, recipe.train_prompt), recipe.method)
    reference_s = getattr(trainer, "reference_s", 0.0)
    return {
        "tokens_per_s": tokens / seconds,
        "reference_s": reference_s,
        "loss": float(logged[0]["loss"]),
        "grad_norm": float(logged[0]["grad_norm"]),
        "hours": (EPOCHS * seconds + reference_s) * PAIRS / len(pairs) / 3600,
    }


def run(asked: argparse.Namespace, shape: dict[str, int], recipe: Recipe) -> list[dict[str, Any]]:
    """Measure size by size, so that a budget that ends cuts the largest ones; a slower or failed size is the last."""
    end, longest = time.monotonic() + asked.budget, 0.0
    rows: list[dict[str, Any]] = []
    best = {(method, build): 0.0 for method in asked.methods for build in (ours, stock)}
    for micro in asked.micro:
        pairs = made_up(asked.pairs, shape["vocab_size"], seed=micro)  # others for each: TRL keeps references
        for method, build in list(best):
            begin = time.monotonic()
            if begin + longest > end:
                return rows
            size = max(2, micro) if method == "kto" or build is ours else micro  # KTO needs two rows
            row = dict.fromkeys(COLUMNS, math.nan) | {"method": method, "trainer": build.__name__, "micro": size}
            row["note"] = ""
            try:
                row |= measure(build, replace(recipe, method=method, micro_batch=size), shape, pairs)
            except Exception as error:  # one trainer that fails on a machine must not cost the others' figures
                row["note"] = "out of memory" if isinstance(error, torch.OutOfMemoryError) else repr(error)[:120]
            row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30  # 0 on a CPU
            gc.collect()
            torch.cuda.empty_cache()
            longest = max(longest, time.monotonic() - begin)
            rows.append(row)
            cells = [f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row.values()]
            print("  ".join(f"{cell:>12}" for cell in cells), flush=True)
            if row["tokens_per_s"] > 1.03 * best[method, build]:
                best[method, build] = row["tokens_per_s"]
            else:  # slower, or not a number
                del best[method, build]
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Each trainer at its fastest, and the hours of the whole experiment where all methods were measured."""
    if not rows:
        return "Nothing was measured: raise --budget."
    table = pd.DataFrame(rows).dropna(subset="tokens_per_s")
    best = table.loc[table.groupby(["method", "trainer"])["tokens_per_s"].idxmax()]
    lines = [best[["method", "trainer", "micro", "tokens_per_s", "hours"]].to_string(index=False)]
    for trainer, fastest in best.groupby("trainer"):
        hours = fastest.set_index("method")["hours"]
        if set(TRAININGS) == set(hours.index):
            whole = sum(count * hours[method] for method, count in TRAININGS.items())
            lines.append(f"{trainer}, all {sum(TRAININGS.values())} trainings: {whole:.0f} h")
    return "\n".join([*lines, "Generation and scoring are not in these hours."])


def main(argv: Sequence[str] | None = None) -> int:
    """Print each measurement, then the summary; 1 when a trainer failed for any reason but memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all four")
    parser.add_argument("--micro", nargs="+", type=int, default=[1, 4, 16, 32], help="sizes tried (%(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="pairs of a pass (%(default)s, one step)")
    parser.add_argument("--budget", type=float, default=450.0, help="seconds in all (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU: only shows that everything runs")
    asked = parser.parse_args(argv)
    if not asked.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny shows on a CPU that everything runs")
    warnings.filterwarnings("ignore")  # of Transformers' own renamings, hundreds of them
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if asked.tiny:
        card, shape, recipe = "CPU, tiny model: the figures say nothing", TINY, replace(RECIPE, device="cpu")
    else:
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        card, shape, recipe = f"{torch.cuda.get_device_name()}, {memory:.0f} GiB", MEDITRON, RECIPE
    print(f"{card}; torch {torch.__version__}; NF4, bfloat16, LoRA rank {recipe.lora_rank}, steps of 64 rows")
    counts = lengths(made_up(asked.pairs, 1024, 0), word_tokenizer(1024), recipe.train_prompt)
    each = (f"{method} {row_tokens(counts, method) / asked.pairs:.0f}" for method in METHODS)
    print(f"tokens per pair: {', '.join(each)}\n\n" + "  ".join(f"{name:>12}" for name in COLUMNS))
    rows = run(asked, shape, recipe)
    print(f"\n{summary(rows)}")
    return int(any(row["note"] not in ("", "out of memory") for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
