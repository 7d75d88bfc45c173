"""What the papers' training costs on this GPU: tokens per second, memory and hours, ours beside stock TRL.

It needs torch, transformers, peft, trl and bitsandbytes, and nothing else: no RDKit, no network, no corpus, no weights.
The model has Meditron-7B's shape and random weights, made layer by layer in NF4 on the device; the pairs have L+M-24's
lengths and random words. Each trainer gets a model of its own and trains for some seconds in steps of 64 rows; ever
larger micro-batches are tried while they are faster. Stock is TRL's trainer with its own defaults: rows in random
order, the reference computed at every step.

Tokens are counted by one rule for all: a row's prompt once, and its answers with EOS. A row is a pair for SFT (which
reads the chosen answer alone), DPO and CPO, a single answer for KTO. What a trainer reads twice, pads, or reads for
its reference or for KTO's z_ref does not count: that is its cost, not its work.
"""

import argparse
import gc
import math
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import pandas as pd
import torch
from peft import prepare_model_for_kbit_training
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.quantizers import AutoHfQuantizer
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from lmolt_utils.config.prompts import TASKS, prompt
from lmolt_utils.models.loading import same_on_every_processor
from lmolt_utils.training.recipes import Recipe
from lmolt_utils.training.rows import dataset
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
#: params/paper.yaml's recipe.
RECIPE = Recipe(
    method="sft", epochs=3.0, effective_batch=64, micro_batch=4, learning_rate=5.0e-5, scheduler="cosine",
    warmup_share=0.1, max_grad_norm=0.3, weight_decay=0.0, beta=0.1, dpo_loss="sigmoid", dpo_alpha=0.0, cpo_alpha=1.0,
    cpo_nll="sum", kto_format="plain", sft_eos="append", sft_loss_on="answer",
    lora_rank=64, lora_alpha=16, lora_dropout=0.1, dora=False, train_prompt="card", max_length=1024, stop_above=3.0,
    quantize="nf4", dtype="bfloat16", device="cuda", seed=0,
)  # fmt: skip
PAIRS, EPOCHS = 25_372, 3
#: Trainings of the papers' tables (with TIES, SLERP, mol2cap, no NLL) and of L4M Figs. 4 and 8 (CPO from other merges).
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


def lengths(rows: int, seed: int) -> pd.DataFrame:
    """Tokens of ``rows`` pairs, half of each task: task, prompt, chosen, rejected.

    Levels are spread evenly and then shuffled, so that few rows have the mean of many.
    """
    generator = random.Random(seed)

    def drawn(values: Sequence[int], count: int) -> list[int]:
        levels = [(index + generator.random()) / count for index in range(count)]
        generator.shuffle(levels)
        return [round(float(tokens)) for tokens in np.interp(levels, LEVELS, values)]

    parts = []
    sides = {"mol2cap": (MOLECULE, CAPTION, REJECTED_CAPTION), "cap2mol": (CAPTION, MOLECULE, REJECTED_MOLECULE)}
    for task in TASKS:
        count = (rows + (task == TASKS[0])) // 2
        source, chosen, rejected = (drawn(values, count) for values in sides[task])
        whole = [TEMPLATE[task] + tokens for tokens in source]
        parts.append(pd.DataFrame({"task": task, "prompt": whole, "chosen": chosen, "rejected": rejected}))
    return pd.concat(parts).sample(frac=1, random_state=seed).reset_index(drop=True)


def row_tokens(sizes: pd.DataFrame, method: str) -> int:
    """Tokens of ``sizes``' pairs by the module's rule."""
    prompts, chosen, rejected = sizes[["prompt", "chosen", "rejected"]].sum()
    if method == "sft":
        return int(prompts + chosen + len(sizes))  # EOS
    return int((2 if method == "kto" else 1) * prompts + chosen + rejected + 2 * len(sizes))


def made_up(sizes: pd.DataFrame, vocabulary: int, seed: int) -> pd.DataFrame:
    """Pairs of random words with ``sizes`` tokens: task, source, chosen, rejected."""
    generator = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(f"w{generator.randrange(4, vocabulary)}" for _ in range(max(1, count)))

    fixed = {task: len(prompt(task, "", "card").split()) + 1 for task in TASKS}  # BOS
    return pd.DataFrame(
        {
            "task": sizes["task"],
            "source": [words(n - fixed[task]) for task, n in zip(sizes["task"], sizes["prompt"], strict=True)],
            "chosen": [words(n) for n in sizes["chosen"]],
            "rejected": [words(n) for n in sizes["rejected"]],
        }
    )


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


def random_model(shape: dict[str, int], device: str) -> Any:
    """A Llama with random weights in NF4 (embeddings, norms and head in bfloat16), as Transformers loads one.

    One layer's weights exist in 16 bits at a time, on the device.
    """
    four_bit: dict[str, Any] = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, **four_bit)
    config = LlamaConfig(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=3)  # type: ignore[arg-type]
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    quantizer.preprocess_model(model=model, dtype=torch.bfloat16, device_map={"": device})
    config.quantization_config = settings
    model.hf_quantizer, model.is_loaded_in_4bit = quantizer, True
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module._parameters[name] = _random(module, parameter, device)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    same_on_every_processor(model)
    return model.eval()


def _random(module: Any, parameter: torch.nn.Parameter, device: str) -> torch.nn.Parameter:
    if isinstance(module, bnb.nn.Linear4bit):
        shape = (module.out_features, module.in_features)
        weight = torch.randn(shape, dtype=torch.bfloat16, device=device) * 0.02
        four_bit: Any = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=module
        )
        return four_bit.to(device)
    kind: Any = {"dtype": torch.bfloat16, "device": device}
    norm = parameter.dim() == 1
    weight = torch.ones(parameter.shape, **kind) if norm else torch.randn(parameter.shape, **kind) * 0.02
    return torch.nn.Parameter(weight, requires_grad=False)


def ours(recipe: Recipe, model: Any, tokenizer: Any, pairs: pd.DataFrame, folder: str) -> Any:
    """The companion's trainer."""
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.device != "cpu")
    return build_trainer(recipe, model, tokenizer, pairs, Path(folder), say=lambda _: None)


def stock(recipe: Recipe, model: Any, tokenizer: Any, pairs: pd.DataFrame, folder: str, **more: Any) -> Any:
    """TRL's trainer with the papers' batch, rate and adapter, and else its defaults or what ``more`` says."""
    on_cpu = recipe.device == "cpu"
    common: dict[str, Any] = {
        "output_dir": folder, "num_train_epochs": recipe.epochs, "max_length": recipe.max_length,
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.effective_batch // recipe.micro_batch,
        "learning_rate": recipe.learning_rate, "max_grad_norm": recipe.max_grad_norm, "seed": recipe.seed,
        "use_cpu": on_cpu, "bf16": not on_cpu, "dataloader_pin_memory": not on_cpu,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        **more,
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


def counted(inputs: dict[str, Any], method: str) -> int:
    """Tokens of a micro-batch by the module's rule, from the trainer's own tensors."""
    if "chosen_attention_mask" in inputs:
        both = sum(int(inputs[f"{side}_attention_mask"].sum()) for side in ("chosen", "rejected"))
        prompts = int((inputs["rejected_attention_mask"].bool() & (inputs["rejected_labels"] == -100)).sum())
        return both - prompts
    tokens = int(inputs["attention_mask"].sum())
    if method in ("dpo", "cpo"):  # chosen, then rejected
        half = len(inputs["attention_mask"]) // 2
        tokens -= int((inputs["attention_mask"][half:] - inputs["completion_mask"][half:]).clamp(min=0).sum())
    return tokens


class _TimeIsUpError(Exception):
    """The seconds of one measurement are over."""


@dataclass
class Measured:
    """One trainer at one micro-batch; ``hours``: of one training of the whole experiment."""

    method: str
    trainer: str
    micro: int
    tokens: int = 0
    tokens_per_s: float = math.nan
    reference_s: float = 0.0
    peak_gib: float = math.nan
    loss: float = math.nan
    hours: float = math.nan
    note: str = ""


def measure(
    build: Callable[..., Any], recipe: Recipe, shape: dict[str, int], sizes: pd.DataFrame, seconds: float
) -> Measured:
    """Build a model and a trainer, train on pairs of ``sizes`` for at most ``seconds``; what failed is noted."""
    found = Measured(recipe.method, build.__name__, recipe.micro_batch)
    if recipe.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        _train(found, build, recipe, shape, sizes, seconds)
    except torch.OutOfMemoryError:
        found.note = "out of memory"
    except Exception as error:  # one trainer that fails on a machine must not cost the others' figures
        found.note = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:120]
    found.peak_gib = torch.cuda.max_memory_allocated() / 2**30  # 0 on a CPU
    gc.collect()
    torch.cuda.empty_cache()
    return found


def _train(
    found: Measured,
    build: Callable[..., Any],
    recipe: Recipe,
    shape: dict[str, int],
    sizes: pd.DataFrame,
    seconds: float,
) -> None:
    """Fill in what :func:`measure` measures while training; everything on the device is this function's."""
    losses, stamps, tokens = [], [], []

    def now() -> float:
        if recipe.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    torch.manual_seed(recipe.seed)
    model, tokenizer = random_model(shape, recipe.device), word_tokenizer(shape["vocab_size"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(recipe, model, tokenizer, made_up(sizes, shape["vocab_size"], recipe.seed), folder)
        usual = trainer.training_step

        def watched(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            tokens.append(counted(inputs, recipe.method))
            loss = usual(model, inputs, *args, **kwargs)
            losses.append(float(loss))
            stamps.append(now())
            if stamps[-1] - stamps[0] > seconds:
                raise _TimeIsUpError
            return loss

        trainer.training_step = watched
        trainer.remove_callback(PrinterCallback)
        with suppress(_TimeIsUpError):
            trainer.train()
            stamps[-1] = now()  # with the last optimiser step
    found.tokens = sum(tokens)
    found.tokens_per_s = sum(tokens[1:]) / (stamps[-1] - stamps[0]) if len(stamps) > 1 else math.nan
    found.reference_s = getattr(trainer, "reference_s", 0.0)
    micro_batches = trainer.current_gradient_accumulation_steps
    step = losses[:micro_batches]  # a step's loss is the sum over its micro-batches
    found.loss = sum(step) / len(step) * micro_batches
    per_pair = mean_tokens(recipe.method) * EPOCHS / found.tokens_per_s + found.reference_s / len(sizes)
    found.hours = per_pair * PAIRS / 3600
    found.note = "" if all(math.isfinite(loss) for loss in losses) else "a loss is not finite"


@cache
def mean_tokens(method: str) -> float:
    """Tokens per pair of the whole experiment."""
    sizes = lengths(20_000, 0)
    return row_tokens(sizes, method) / len(sizes)


def run(asked: argparse.Namespace, shape: dict[str, int], recipe: Recipe) -> list[Measured]:
    """Measure size by size, so that a budget that ends cuts the largest ones; a slower or failed size is the last."""
    end, longest = time.monotonic() + asked.budget, 0.0
    rows: list[Measured] = []
    best: dict[tuple[str, str], float] = {}
    over: set[tuple[str, str]] = set()
    for micro in asked.micro:
        for method in asked.methods:
            for build in (ours, stock):
                key = (method, build.__name__)
                size = max(2, micro) if method == "kto" or build is ours else micro  # KTO needs two rows
                tried = {(row.method, row.trainer, row.micro) for row in rows}
                if key in over or (*key, size) in tried or time.monotonic() + longest > end:
                    continue
                begin = time.monotonic()
                settings = replace(recipe, method=method, micro_batch=size, epochs=1.0)
                sizes = lengths(max(asked.pairs, 4 * size), seed=len(rows))  # others each time: TRL keeps references
                found = measure(build, settings, shape, sizes, asked.seconds)
                longest = max(longest, time.monotonic() - begin)
                rows.append(found)
                print("  ".join(f"{_shown(value):>12}" for value in asdict(found).values()), flush=True)
                if found.tokens_per_s > 1.03 * best.get(key, 0.0):
                    best[key] = found.tokens_per_s
                else:  # slower, or not a number
                    over.add(key)
    return rows


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def summary(rows: Sequence[Measured]) -> str:
    """Per method ours against stock at micro-batch 1 and at its best, and the hours of the whole experiment."""
    lines = []
    kinds: dict[str, Callable[[Measured], bool]] = {
        "ours": lambda row: row.trainer == "ours",
        "stock at micro-batch 1 (KTO: 2)": lambda row: row.trainer == "stock" and row.micro <= 2,
        "stock at its best": lambda row: row.trainer == "stock",
    }
    for kind, belongs in kinds.items():
        hours = {}
        for method in dict.fromkeys(row.method for row in rows):
            found = [row for row in rows if row.method == method and belongs(row) and row.tokens_per_s > 0]
            if found:
                top = max(found, key=lambda row: row.tokens_per_s)
                hours[method] = top.hours
                lines.append(f"{method}, {kind}: {top.tokens_per_s:,.0f} tokens/s at {top.micro}, {top.hours:.1f} h")
        if set(TRAININGS) <= set(hours):
            whole = sum(count * hours[method] for method, count in TRAININGS.items())
            lines.append(
                f"all {sum(TRAININGS.values())} trainings of the papers' tables and figures, {kind}: {whole:.0f} h"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print each measurement, then the summary; 1 when a trainer failed for any reason but memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all four")
    parser.add_argument("--micro", nargs="+", type=int, default=[1, 4, 16, 32], help="sizes tried (%(default)s)")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of a measurement (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of training per measurement (%(default)s)")
    parser.add_argument("--budget", type=float, default=450.0, help="seconds in all (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU: only shows that everything runs")
    arguments = parser.parse_args(argv)
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny shows on a CPU that everything runs")
    warnings.filterwarnings("ignore")  # of Transformers' own renamings, hundreds of them
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    recipe = replace(RECIPE, device="cpu" if arguments.tiny else "cuda")
    if arguments.tiny:
        card = "CPU, tiny model: the figures say nothing"
    else:
        card = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
    print(f"{card}; torch {torch.__version__}; NF4, bfloat16, LoRA rank {recipe.lora_rank}, steps of 64 rows")
    print(f"tokens per pair: {', '.join(f'{method} {mean_tokens(method):.0f}' for method in METHODS)}\n", flush=True)
    print("  ".join(f"{name:>12}" for name in asdict(Measured("", "", 0))))
    rows = run(arguments, TINY if arguments.tiny else MEDITRON, recipe)
    print(f"\n{summary(rows)}\nGeneration and scoring are not in these hours.")
    return int(any(row.note not in ("", "out of memory") for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
