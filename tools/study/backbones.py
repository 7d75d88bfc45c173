"""The study's models, trained from nothing on L+M-24's training molecules: ``python -m tools.study.backbones``.

Each model is saved once below ``runs/study-models`` with a record of its cost and held-out loss; a training that was
killed goes on at its last checkpoint. The order is fixed, and every model starts from its own seed, so any one can be
made again alone: ``python -m tools.study.backbones mol2cap``.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedModel, set_seed

from lmolt_utils.config.params import load
from lmolt_utils.config.prompts import TASKS
from lmolt_utils.data.captioner import kept_tree
from lmolt_utils.data.prepare import make_corpus
from lmolt_utils.data.sample import held_out
from lmolt_utils.files import atomic_folder, fingerprint, write_json, write_text
from lmolt_utils.grammar.vocabulary import Vocabulary, canonical
from lmolt_utils.paths import root, run_folder
from lmolt_utils.run.notebook import Run
from tools.embedded_models.build import forms
from tools.embedded_models.nli_data import Language, pairs
from tools.embedded_models.tokenizer import train_bpe
from tools.embedded_models.train import Rows, Schedule, Size, fit, nli_rows, prepared, prepared_classifier

FOLDER = "runs/study-models"
SEED = 0
#: Learned from so many training molecules and their captions; 18 tokens per SMILES instead of 61 at 1,024 entries
#: that stop at punctuation.
VOCABULARY, TOKENIZER_ROWS = 1536, 40_000
#: Of a Llama and of a negative generator.
SIZES = Size(hidden=160, layers=4, heads=5, feed_forward=432), Size(128, 2, 4, 344)
SCHEDULES = {
    "base": Schedule(epochs=1, peak=3.0e-3, batch=128, save_steps=100),
    "mol2cap": Schedule(epochs=3, peak=3.0e-3, batch=64, save_steps=100),
    "cap2mol": Schedule(epochs=3, peak=3.0e-3, batch=64, save_steps=100),
    "negatives-mol2cap": Schedule(epochs=1, peak=3.0e-3, batch=64, save_steps=100),
    "negatives-cap2mol": Schedule(epochs=1, peak=3.0e-3, batch=64, save_steps=100),
    "nli": Schedule(epochs=1, peak=1.0e-3, batch=32, save_steps=500),
}
#: The learning curve: so much of the training molecules, for so many epochs; each has as many steps.
CURVE = tuple(f"{task}@{part}" for task in ("mol2cap", "cap2mol") for part in ("0.1x10", "0.333x3", "1x1"))
NLI_HELD_OUT = 3_000
#: The negative generators see so many training molecules: MolT5 is weaker than the models that it makes negatives for.
GENERATOR_ROWS = 30_000
HELD_OUT_ROWS = 1_000


def corpus() -> pd.DataFrame:
    """The corpus as notebook 01 makes it at profile ``study``."""
    return make_corpus(Run("01_data", run_folder("study", {}), load("study")))


def build(names: Sequence[str] = tuple(SCHEDULES)) -> None:
    """Train what of ``names`` is not there yet; ``mol2cap@0.1x10``: on a tenth of the molecules, for ten epochs."""
    torch.use_deterministic_algorithms(True)
    folder = root() / FOLDER
    missing = [name for name in names if not (folder / name / "record.json").exists()]
    if not missing:
        return
    frame = corpus()
    train = frame[frame["split"] == "train"].reset_index(drop=True)
    held = held_out(frame, "validation", HELD_OUT_ROWS, SEED)
    bpe = _tokenizer(folder / "tokenizer.json", train)
    for name in missing:
        set_seed(SEED)
        own, _, cut = name.partition("@")
        schedule, told = SCHEDULES[own], train
        if cut:
            share, epochs = cut.split("x")
            schedule, told = replace(schedule, epochs=int(epochs)), train.sample(frac=float(share), random_state=SEED)
        if own == "nli":
            spoken = language(told)
            sets = stated_sets(told, spoken)
            tokenizer, model, rows, collator = prepared_classifier(bpe, sets, SEED, spoken)
            unseen = nli_rows(tokenizer, list(pairs(sets, NLI_HELD_OUT, SEED + 1, spoken)))
        else:
            base = LlamaForCausalLM.from_pretrained(folder / "base") if own in TASKS else None
            few = told.head(GENERATOR_ROWS) if own.startswith("negatives") else told
            tokenizer, model, rows, collator = prepared(own, bpe, few, base, SIZES)
            unseen = prepared(own, bpe, held, base, SIZES)[2]
        tokens = sum(_tokens(row, model) for row in rows)
        print(f"{name}: {model.num_parameters():,} parameters, {len(rows):,} rows, {tokens:,} tokens", flush=True)
        start, checkpoints = time.perf_counter(), folder / "checkpoints" / name
        loss = fit(model, rows, collator, schedule, SEED, checkpoints)
        seconds = time.perf_counter() - start
        record = {
            "parameters": model.num_parameters(),
            "rows": len(rows),
            "tokens": tokens,
            "loss": loss,
            "held_out_loss": held_out_loss(model, unseen, collator),
            "seconds": seconds,  # of the last process only, where one was killed
            "tokens_per_s": tokens * schedule.epochs / seconds,
            "threads": torch.get_num_threads(),
            "schedule": vars(schedule),
        }
        with atomic_folder(folder / name) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            write_json(part / "record.json", record | {"weights": fingerprint(part / "model.safetensors")})
        shutil.rmtree(checkpoints, ignore_errors=True)
        print(f"{name}: {record}", flush=True)


def _tokenizer(path: Path, train: pd.DataFrame) -> Tokenizer:
    if not path.exists():
        rows = train.sample(min(TOKENIZER_ROWS, len(train)), random_state=SEED)
        pairs = rows[["molecule", "caption"]].itertuples(index=False)
        write_text(path, train_bpe((text for row in pairs for text in forms(*row)), VOCABULARY).to_str())
    return Tokenizer.from_file(str(path))


def _tokens(row: dict[str, Any], model: PreTrainedModel) -> int:
    """Tokens that pass through the model: of source and target in an encoder-decoder."""
    return len(row["input_ids"]) + (len(row["labels"]) if model.config.is_encoder_decoder else 0)


def language(train: pd.DataFrame) -> Language:
    """The property names of the training molecules as the NLI pairs use them; free text is not among them."""
    vocabulary = Vocabulary.from_tree(kept_tree(run_folder("study", {}) / "data"))
    names = {canonical(name) for text in train["properties"].unique() for name in text.split("|")}
    return Language.of(sorted(name for name in names if vocabulary.kind(name) != "free text"), vocabulary)


def stated_sets(train: pd.DataFrame, spoken: Language) -> list[list[str]]:
    """The distinct property sets of the training molecules in the names of :func:`language`."""
    known = set(spoken.names)
    found = ([name for text in row.split("|") if (name := canonical(text)) in known] for row in train["properties"])
    return [list(names) for names in dict.fromkeys(map(tuple, found)) if names]


def held_out_loss(model: PreTrainedModel, rows: Rows, collator: Callable[[Rows], Any]) -> float:
    """Mean cross entropy per learned token on rows that no training saw, in nats."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), 64):
            batch = collator(rows[start : start + 64])
            learned = int((batch["labels"] != -100).sum())
            total, count = total + float(model(**batch).loss) * learned, count + learned
    return total / count


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    build(sys.argv[1:] or tuple(SCHEDULES))
