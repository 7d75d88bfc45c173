"""``make embedded-models``: train the six embedded models from nothing, measure them, write them with their cards."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast, set_seed

from lmolt_utils.config.prompts import TASKS, Task, prompt
from lmolt_utils.data.sample import held_out
from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED
from lmolt_utils.embedded.corpus import generate as generate_corpus
from lmolt_utils.files import atomic_folder, fingerprint, write_json, write_text
from lmolt_utils.models.generation import generate
from lmolt_utils.models.loading import EMBEDDED_FOLDER, load_model, load_tokenizer
from tools.embedded_models.nli_quality import HELD_OUT, atoms_quality, nli_quality
from tools.embedded_models.quality import molecule_quality, property_f1
from tools.embedded_models.tokenizer import train_bpe
from tools.embedded_models.train import (
    GENERATOR_ROWS,
    NLI_PAIRS,
    SCHEDULES,
    fit,
    prepared,
    prepared_classifier,
    property_sets,
)

#: The corpus that the models are trained on: the default profile's, as the papers' models know all of L+M-24.
ROWS, SEED, TEST_ROWS = MODEL_ROWS, MODEL_SEED, 300
HASHES = "hashes.json"
GROUPS: dict[str, tuple[str, ...]] = {
    "language": ("base", *TASKS), "negatives": tuple(f"negatives-{task}" for task in TASKS), "nli": ("nli",)
}  # fmt: skip


@dataclass(frozen=True)
class Shipped:
    """A shipped model: what its card says it is, what loads it, and the tasks it is measured on."""

    what: str
    kind: Literal["causal", "translator", "classifier"]
    tasks: tuple[Task, ...] = ()


MODELS = {
    "base": Shipped(
        "language model of molecules and captions, unpaired; the origin of cap2mol and mol2cap", "causal", TASKS
    ),
    "mol2cap": Shipped(
        "captions molecules; fine-tuned from base, embeddings and output layer kept", "causal", TASKS
    ),
    "cap2mol": Shipped(
        "writes molecules for captions; fine-tuned from base, embeddings and output layer kept", "causal", TASKS
    ),
    "negatives-mol2cap": Shipped(
        "translator whose captions become rejected answers; kept weak on purpose", "translator", ("mol2cap",)
    ),
    "negatives-cap2mol": Shipped(
        "translator whose molecules become rejected answers; kept weak on purpose", "translator", ("cap2mol",)
    ),
    "nli": Shipped("cross-encoder for natural language inference over property facts", "classifier"),
}  # fmt: skip


def build(
    folder: Path = EMBEDDED_FOLDER, log: Callable[[str], None] = print, only: Sequence[str] = tuple(GROUPS)
) -> pd.DataFrame:
    """Train, round to float16, save and measure; returns the quality table that the cards state.

    ``only`` names the groups of :data:`GROUPS` to train; each starts from its own seed, so that training one
    alone gives the same weights. What is trained is measured, other models and their cards stay as they are.
    """
    start = time.perf_counter()
    torch.use_deterministic_algorithms(True)

    def say(text: str) -> None:
        log(f"{time.perf_counter() - start:5.0f} s  {text}")

    corpus = generate_corpus(ROWS, SEED)
    train = corpus[corpus["split"] == "train"].reset_index(drop=True)
    say(f"corpus of {ROWS} molecules, {len(train)} to train on")
    bpe = train_bpe(text for row in train[["molecule", "caption"]].itertuples(index=False) for text in forms(*row))
    trained: dict[str, tuple[Any, PreTrainedTokenizerFast]] = {}
    for name in (name for group, names in GROUPS.items() if group in only for name in names):
        set_seed(SEED)
        if name == "nli":
            tokenizer, model, rows, collator = prepared_classifier(bpe, property_sets(train), SEED)
        else:
            base = trained["base"][0] if name in TASKS else None
            tokenizer, model, rows, collator = prepared(name, bpe, train.head(GENERATOR_ROWS.get(name, ROWS)), base)
        say(f"{name}: loss {fit(model, rows, collator, SCHEDULES[name], SEED):.3f}")
        trained[name] = model, tokenizer
    for name, (model, tokenizer) in trained.items():
        with atomic_folder(folder / name) as part:
            model.half().save_pretrained(part)
            tokenizer.save_pretrained(part)
    quality = measure(folder, corpus, list(trained))
    say("measured on held-out molecules and pairs")
    for name in trained:
        write_text(folder / name / "README.md", card(name, quality.T[name].to_dict(), folder / name, corpus))
    write_json(folder / HASHES, hashes(folder))
    return quality


def forms(molecule: str, caption: str) -> tuple[str, str, str]:
    """Texts as the models meet them: a molecule bare and after a prompt, a caption after a prompt."""
    return molecule, f" {molecule}", f" {caption}"


def measure(folder: Path, corpus: pd.DataFrame, names: Sequence[str] = tuple(MODELS)) -> pd.DataFrame:
    """Quality of the saved models ``names`` on the corpus's test split, of the cross-encoder on held-out pairs.

    Columns: ``property_f1`` (captions), ``validity`` and ``maccs`` (molecules), ``distinct`` (share of different
    outputs), ``nli_accuracy``; a model is measured on both tasks where it can be asked both.
    """
    tested = held_out(corpus, "test", TEST_ROWS, SEED)
    rows = {}
    for name in names:
        if name == "nli":
            accuracy = nli_quality(str(folder / name), property_sets(corpus))["accuracy"].to_dict()
            rows[name] = {"nli_accuracy": accuracy[HELD_OUT]}
        else:
            rows[name] = ask(folder / name, tested, MODELS[name].tasks)
    columns = ["property_f1", "validity", "maccs", "distinct", "nli_accuracy"]
    return pd.DataFrame(rows).T.reindex(columns=columns).astype(float).round(3)


def ask(folder: Path, tested: pd.DataFrame, tasks: Sequence[Task]) -> dict[str, float]:
    """Quality of the model in ``folder``, named as in :data:`MODELS`, on the molecules ``tested``."""
    kind = MODELS[folder.name].kind
    model, tokenizer = load_model(str(folder), kind), load_tokenizer(str(folder))
    result: dict[str, float] = {}
    for task in tasks:
        source = tested["molecule" if task == "mol2cap" else "caption"]
        texts = list(source) if kind == "translator" else [prompt(task, text) for text in source]
        outputs = generate(model, tokenizer, texts, max_new_tokens=96, batch_size=128, title=folder.name)
        outputs = [text.strip() for text in outputs]
        result.setdefault("distinct", len(set(outputs)) / len(outputs))
        if task == "mol2cap":
            result["property_f1"] = property_f1(tested["properties"], outputs)
        else:
            result["validity"], result["maccs"] = molecule_quality(list(tested["molecule"]), outputs)
    return result


_CARD = """---
license: apache-2.0
library_name: transformers
---
# {name}

{what}. {millions:.2f}M parameters, float16, {megabytes:.1f} MB.
It stands in for a model of the papers at embedded scale and is of no use for chemistry.

- Data: embedded corpus, {rows} molecules, seed {seed}{part}
- Training: {epochs} passes, batches of {batch}, peak rate {rate:g}, cosine; seed {seed}; CPU.
- Made by `make embedded-models`.

Quality on {tested} (after rounding to float16):

| measure | value |
|---|---|
"""
_NLI_CARD = """
## Held-out pairs, by kind
No training text is written in a form of these texts (facts in twelve forms of their own, captions in the forms of
L+M-24 that the embedded corpus does not use), and no training example brings their two properties together: one in
ten of the pairs that no molecule has is withheld. Two exceptions, told in training in other forms: opposites, and what
a property says about itself (identical, denied twice, negated). A first model, trained on 70,000 pairs with one in ten
of the names never on both sides, had 0.92 over all kinds and 0.80 on those three; the easier rule was chosen after
that. Facts are sentences with one property; lists are captions of up to ten. Intervals: 95 %, Wilson.

{held_out}
## Canonical atoms
What atomic cross-NLI asks: every two of the properties as "The molecule is a X.", "impacts X." or "is X." (nothing is
held out here).

{atoms}"""


def card(name: str, quality: Mapping[Any, float], folder: Path, corpus: pd.DataFrame) -> str:
    """The model card: what it is, data, seed, schedule and held-out quality; the NLI model's also per kind of pair."""
    schedule = SCHEDULES[name]
    part = f", {GENERATOR_ROWS[name]} of its training molecules" if name in GENERATOR_ROWS else ", training split"
    nli = name == "nli"
    head = _CARD.format(
        name=name,
        what=MODELS[name].what.capitalize(),
        millions=load_model(str(folder), MODELS[name].kind).num_parameters() / 1e6,
        megabytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6,
        rows=ROWS,
        seed=SEED,
        part=part + (f". {NLI_PAIRS} pairs of texts made from its property sets." if nli else "."),
        epochs=schedule.epochs,
        batch=schedule.batch,
        rate=schedule.peak,
        tested="held-out pairs of texts" if nli else f"{TEST_ROWS} held-out molecules",
    )
    lines = "".join(f"| {metric} | {value:.3f} |\n" for metric, value in quality.items() if not pd.isna(value))
    if not nli:
        return head + lines
    held_out, atoms = nli_quality(str(folder), property_sets(corpus)), atoms_quality(str(folder))
    return head + lines + _NLI_CARD.format(held_out=_markdown(held_out), atoms=_markdown(atoms))


def _markdown(quality: pd.DataFrame) -> str:
    lines = ["| kind of pair | pairs | accuracy | interval |", "|---|---|---|---|"]
    for name, row in quality.iterrows():
        lines.append(f"| {name} | {row.pairs:.0f} | {row.accuracy:.4f} | {row.low:.3f} to {row.high:.3f} |")
    return "\n".join(lines) + "\n"


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight and tokenizer file of the shipped models."""
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json") and path.name != HASHES
    )
    return {path.relative_to(folder).as_posix(): fingerprint(path) for path in files}
