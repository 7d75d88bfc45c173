"""``make embedded-models``: train the six embedded models from nothing, measure them, write them with their cards."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast

from lmolt_utils.data import held_out
from lmolt_utils.embedded.corpus import MODEL_ROWS, MODEL_SEED
from lmolt_utils.embedded.corpus import generate as generate_corpus
from lmolt_utils.embedded.nli_data import LABELS, fact, kind, label_of, unseen_fact
from lmolt_utils.embedded.quality import molecule_quality, property_f1
from lmolt_utils.embedded.tokenizer import Framing, framed, train_bpe
from lmolt_utils.embedded.train import (
    SCHEDULES,
    TRANSLATOR_ROWS,
    rounded,
    train_cross_encoder,
    train_language_models,
    train_translators,
)
from lmolt_utils.files import atomic_folder, fingerprint, write_json, write_text
from lmolt_utils.generation import generate
from lmolt_utils.models import EMBEDDED_FOLDER, load_model, load_tokenizer
from lmolt_utils.nli import Classifier
from lmolt_utils.prompts import Task, prompt

#: The corpus that the models are trained on: the default profile's, as the papers' models know all of L+M-24.
ROWS, SEED, TEST_ROWS = MODEL_ROWS, MODEL_SEED, 300
HASHES = "hashes.json"
GROUPS = ("language", "translators", "nli")
_WHAT = {
    "base": "language model of molecules and captions, unpaired; the origin of cap2mol and mol2cap",
    "mol2cap": "captions molecules; fine-tuned from base, embeddings and output layer kept",
    "cap2mol": "writes molecules for captions; fine-tuned from base, embeddings and output layer kept",
    "negatives-mol2cap": "translator whose captions become rejected answers; kept weak on purpose",
    "negatives-cap2mol": "translator whose molecules become rejected answers; kept weak on purpose",
    "nli": "cross-encoder for natural language inference over property facts",
}


def build(
    folder: Path = EMBEDDED_FOLDER, log: Callable[[str], None] = print, only: Sequence[str] = GROUPS
) -> pd.DataFrame:
    """Train, round to float16, save and measure; returns the quality table that the cards state.

    ``only`` names the groups of :data:`GROUPS` to train; each starts from its own seed, so that training one
    alone gives the same weights. All six models are measured.
    """
    start = time.perf_counter()
    torch.use_deterministic_algorithms(True)

    def say(text: str) -> None:
        log(f"{time.perf_counter() - start:5.0f} s  {text}")

    corpus = generate_corpus(ROWS, SEED)
    train = corpus[corpus["split"] == "train"].reset_index(drop=True)
    say(f"corpus of {ROWS} molecules, {len(train)} to train on")
    bpe = train_bpe(text for row in train[["molecule", "caption"]].itertuples(index=False) for text in _forms(*row))
    trained: dict[str, tuple[Any, Framing]] = {}
    if "language" in only:
        for name, model in train_language_models(bpe, train, SEED, say).items():
            trained[name] = (model, "llama")
    if "translators" in only:
        for name, translator in train_translators(bpe, train, SEED, say).items():
            trained[name] = (translator, "t5")
    if "nli" in only:
        trained["nli"] = (train_cross_encoder(bpe, train, SEED, say), "cross-encoder")
    for name, (model, framing) in trained.items():
        _save(folder / name, rounded(model), framed(bpe, framing))
    quality = measure(folder, corpus)
    say("measured on held-out molecules")
    for name in _WHAT:
        write_text(
            folder / name / "README.md",
            card(name, quality.T[name].to_dict(), folder / name),
        )
    write_json(folder / HASHES, hashes(folder))
    return quality


def _forms(molecule: str, caption: str) -> tuple[str, str, str]:
    """Texts as the models meet them: a molecule bare and after a prompt, a caption after a prompt."""
    return molecule, f" {molecule}", f" {caption}"


def _save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    with atomic_folder(folder) as part:
        model.half().save_pretrained(part)
        model.float()
        tokenizer.save_pretrained(part)


def measure(folder: Path, corpus: pd.DataFrame) -> pd.DataFrame:
    """Quality of the saved models on the corpus's test split (and the cross-encoder on unseen sentence forms).

    Columns: ``property_f1`` (captions), ``validity`` and ``maccs`` (molecules), ``distinct`` (share of different
    outputs), ``nli_accuracy``; a model is measured on both tasks where it can be asked both.
    """
    tested = held_out(corpus, "test", TEST_ROWS, SEED)
    rows = {}
    for name in ("base", "mol2cap", "cap2mol"):
        rows[name] = _ask(folder / name, "causal", tested, ("mol2cap", "cap2mol"))
    rows["negatives-mol2cap"] = _ask(folder / "negatives-mol2cap", "translator", tested, ("mol2cap",))
    rows["negatives-cap2mol"] = _ask(folder / "negatives-cap2mol", "translator", tested, ("cap2mol",))
    rows["nli"] = {"nli_accuracy": nli_accuracy(str(folder / "nli"), corpus)}
    columns = ["property_f1", "validity", "maccs", "distinct", "nli_accuracy"]
    return pd.DataFrame(rows).T.reindex(columns=columns).astype(float).round(3)


def _ask(folder: Path, kind_of_model: Any, tested: pd.DataFrame, tasks: tuple[Task, ...]) -> dict[str, float]:
    model, tokenizer = load_model(str(folder), kind_of_model), load_tokenizer(str(folder))
    result: dict[str, float] = {}
    for task in tasks:
        source = tested["molecule" if task == "mol2cap" else "caption"]
        texts = list(source) if kind_of_model == "translator" else [prompt(task, text) for text in source]
        outputs = generate(model, tokenizer, texts, max_new_tokens=96, batch_size=128, title=folder.name)
        outputs = [text.strip() for text in outputs]
        result.setdefault("distinct", len(set(outputs)) / len(outputs))
        if task == "mol2cap":
            result["property_f1"] = property_f1(tested["properties"], outputs)
        else:
            result["validity"], result["maccs"] = molecule_quality(list(tested["molecule"]), outputs)
    return result


def nli_accuracy(reference: str, corpus: pd.DataFrame, pairs: int = 3000) -> float:
    """Accuracy on pairs of facts in sentence forms the training never used, labels about equally frequent."""
    import random

    rng = random.Random("nli held out")
    names = sorted({name for text in corpus["properties"] for name in text.split("|")})
    premises, hypotheses, expected = [], [], []
    for index in range(pairs):
        wanted = LABELS[index % 3]
        name = rng.choice(names)
        other = rng.choice([n for n in names if label_of([name], [n]) == "neutral"])
        unseen = unseen_fact(other if wanted == "neutral" else name)
        if wanted == "contradiction":
            verb = {
                "effect": "does not affect",
                "quality": "is not characterized as",
                "role": "is not a member of the",
            }
            tail = " class." if kind(name) == "role" else "."
            unseen = f"The molecule {verb[kind(name)]} {name}{tail}"
        premises.append(fact(name, rng))
        hypotheses.append(unseen)
        expected.append(wanted)
    given = Classifier(reference, batch_tokens=8192).probabilities(premises, hypotheses, progress=False)
    return float((given.idxmax(axis=1) == pd.Series(expected)).mean())


def card(name: str, quality: Mapping[Any, float], folder: Path) -> str:
    """The model card: what it is, data, seed, schedule and held-out quality."""
    schedule = SCHEDULES[name]
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    size = sum(parameter.numel() for parameter in _parameters(name, folder))
    lines = [f"| {metric} | {value:.3f} |" for metric, value in quality.items() if value == value]
    rows = f", {TRANSLATOR_ROWS[name]} of its training molecules" if name in TRANSLATOR_ROWS else ", training split"
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            "library_name: transformers",
            "---",
            f"# {name}",
            "",
            f"{_WHAT[name].capitalize()}. {size / 1e6:.2f}M parameters, float16, {weights / 1e6:.1f} MB.",
            "It stands in for a model of the papers at embedded scale and is of no use for chemistry.",
            "",
            f"- Data: embedded corpus, {ROWS} molecules, seed {SEED}{rows}.",
            f"- Training: {schedule.epochs:g} passes, batches of {schedule.batch}, peak rate "
            f"{schedule.learning_rate:g}, cosine; seed {SEED}; CPU.",
            "- Made by `make embedded-models`.",
            "",
            f"Quality on {TEST_ROWS} held-out molecules (after rounding to float16):",
            "",
            "| measure | value |",
            "|---|---|",
            *lines,
            "",
        ]
    )


def _parameters(name: str, folder: Path) -> Any:
    kinds: dict[str, Any] = {
        "nli": "classifier",
        "negatives-mol2cap": "translator",
        "negatives-cap2mol": "translator",
    }
    return load_model(str(folder), kinds.get(name, "causal")).parameters()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight and tokenizer file of the shipped models."""
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json") and path.name != HASHES
    )
    return {path.relative_to(folder).as_posix(): fingerprint(path) for path in files}
