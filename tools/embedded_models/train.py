"""Train the embedded models from nothing: what ``make embedded-models`` runs.

One base language model sees molecules and captions unpaired; two per-task models are fine-tuned from it
(they must share it: merging two fine-tunes needs one origin). The two negative generators, T5 models, see little, so
that their outputs are plausible and wrong in varied ways, as MolT5's are. The cross-encoder learns NLI over
property facts. Weights are stored as float16 and their quality is measured after that rounding.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from lmolt_utils.config.prompts import SIDES, Task, answer, prompt
from tools.embedded_models.nli_data import EMBEDDED as EMBEDDED_NAMES
from tools.embedded_models.nli_data import LABELS, Language, pairs
from tools.embedded_models.tokenizer import framed

IGNORED = -100  # what torch's cross entropy leaves out


@dataclass(frozen=True)
class Size:
    """The shape of a model."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int


@dataclass(frozen=True)
class Schedule:
    """Epochs, peak learning rate and rows per step; ``save_steps``: steps between checkpoints (0: none)."""

    epochs: float
    peak: float
    batch: int = 32
    save_steps: int = 0


EMBEDDED = Size(hidden=128, layers=2, heads=4, feed_forward=344)
EMBEDDED_T5 = Size(hidden=96, layers=2, heads=4, feed_forward=256)
SCHEDULES = {
    "base": Schedule(5, 2.0e-3),
    "mol2cap": Schedule(9, 2.0e-3),
    "cap2mol": Schedule(9, 2.0e-3),
    "negatives-mol2cap": Schedule(3, 2.0e-3),
    "negatives-cap2mol": Schedule(5, 2.0e-3),
    "nli": Schedule(1, 1.0e-3),
}
#: The negative generators see only so many molecules: enough to be plausible, too few to be right.
GENERATOR_ROWS = {"negatives-mol2cap": 1500, "negatives-cap2mol": 2200}
NLI_PAIRS = 300_000

Rows = list[dict[str, Any]]
#: Tokenizer, model before training, rows and collator of one training.
Prepared = tuple[PreTrainedTokenizerFast, PreTrainedModel, Rows, Callable[[Rows], Any]]


# ----------------------------------------------------------------------------------------------- untrained models


def llama(tokenizer: PreTrainedTokenizerFast, size: Size) -> LlamaForCausalLM:
    """An untrained Llama (embeddings untied, as Llama-2's are)."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5(tokenizer: PreTrainedTokenizerFast, size: Size) -> T5ForConditionalGeneration:
    """An untrained T5 with as many layers in its encoder as in its decoder."""
    return T5ForConditionalGeneration(
        T5Config(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            d_model=size.hidden,
            d_kv=size.hidden // size.heads,
            d_ff=size.feed_forward,
            num_layers=size.layers,
            num_decoder_layers=size.layers,
            num_heads=size.heads,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )


def cross_encoder(tokenizer: PreTrainedTokenizerFast) -> BertForSequenceClassification:
    """An untrained BERT cross-encoder with labels named as NLI models name them."""
    model = BertForSequenceClassification(
        BertConfig(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            hidden_size=EMBEDDED.hidden,
            intermediate_size=EMBEDDED.feed_forward,
            num_hidden_layers=EMBEDDED.layers,
            num_attention_heads=EMBEDDED.heads,
            max_position_embeddings=256,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=len(LABELS),
            id2label=dict(enumerate(LABELS)),
            label2id={name: index for index, name in enumerate(LABELS)},
        )
    )
    start_by_matching(model)
    return model


def start_by_matching(model: BertForSequenceClassification) -> None:
    """Random weights under which half of the first layer's heads look for a token's equal in the other text.

    Comparing texts means finding the same word in both. Keys are queries with the direction that tells the two texts
    apart turned round, so a token scores highest with its equal in the other text and next with itself; training
    need not find that by itself. BERT's spread of 0.02 is meant for 768 dimensions; these have 128.
    """
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.Linear):
                part.weight.normal_(0, 0.06)
        embeddings = model.bert.embeddings
        embeddings.word_embeddings.weight.normal_(0, 0.08)
        embeddings.position_embeddings.weight.normal_(0, 0.02)
        side = torch.nn.functional.normalize(torch.randn(EMBEDDED.hidden), dim=0)
        # Half as long as a word: the equal in the other text is then as far ahead of the token as that of others.
        embeddings.token_type_embeddings.weight.copy_(0.45 * torch.stack([side, -side]))
        attention = model.bert.encoder.layer[0].attention.self
        half = EMBEDDED.hidden // 2
        queries = attention.query.weight[:half].normal_(0, 0.14)  # equals score about 11 before the softmax
        attention.key.weight[:half] = queries - 2 * torch.outer(queries @ side, side)


# ------------------------------------------------------------------------------------------------------ the data


def language_rows(tokenizer: PreTrainedTokenizerFast, frame: pd.DataFrame) -> Rows:
    """Molecules and captions as separate texts: the base model learns both languages and no translation."""
    texts = [answer(text) for column in ("molecule", "caption") for text in frame[column]]
    ids = [[*row, tokenizer.eos_token_id] for row in tokenizer(texts).input_ids]
    return [{"input_ids": row, "labels": row} for row in ids]


def instruction_rows(tokenizer: PreTrainedTokenizerFast, frame: pd.DataFrame, task: Task) -> Rows:
    """Prompt and answer; only the answer and its EOS are learned."""
    sources, targets = (frame[side] for side in SIDES[task])
    prompts = tokenizer([prompt(task, source) for source in sources]).input_ids
    answers = tokenizer([answer(target) for target in targets], add_special_tokens=False).input_ids
    rows = []
    for before, after in zip(prompts, answers, strict=True):
        after = [*after, tokenizer.eos_token_id]
        rows.append({"input_ids": before + after, "labels": [IGNORED] * len(before) + after})
    return rows


def translation_rows(tokenizer: PreTrainedTokenizerFast, frame: pd.DataFrame, task: Task) -> Rows:
    """Source and target without any instruction, as MolT5 takes them."""
    sources, targets = (tokenizer(list(frame[side])).input_ids for side in SIDES[task])
    return [{"input_ids": before, "labels": after} for before, after in zip(sources, targets, strict=True)]


def nli_rows(tokenizer: PreTrainedTokenizerFast, triples: Sequence[tuple[str, str, str]]) -> Rows:
    """Pairs of texts with the index of their label."""
    premises, hypotheses, labels = zip(*triples, strict=True)
    encoded = tokenizer(list(premises), list(hypotheses), return_token_type_ids=True)
    return [
        {"input_ids": ids, "token_type_ids": types, "labels": LABELS.index(label)}
        for ids, types, label in zip(encoded.input_ids, encoded.token_type_ids, labels, strict=True)
    ]


def property_sets(frame: pd.DataFrame) -> list[list[str]]:
    """The distinct property sets of a corpus's train split."""
    return [names.split("|") for names in frame.loc[frame["split"] == "train", "properties"].unique()]


# -------------------------------------------------------------------------------------------------- the training


def fit(
    model: PreTrainedModel,
    rows: Rows,
    collator: Callable[[Rows], Any],
    schedule: Schedule,
    seed: int,
    checkpoints: Path | None = None,
) -> float:
    """Train in place with the Transformers trainer; returns the mean loss of the last epoch (or of the last log).

    ``checkpoints``: where they go and from where a killed training goes on.
    """
    saves = schedule.save_steps > 0
    arguments = TrainingArguments(
        output_dir=str(checkpoints or tempfile.gettempdir()),  # without checkpoints nothing is written there
        num_train_epochs=schedule.epochs,
        per_device_train_batch_size=schedule.batch,
        learning_rate=schedule.peak,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        logging_strategy="steps" if saves else "epoch",
        logging_steps=schedule.save_steps or 500,
        save_strategy="steps" if saves else "no",
        save_steps=schedule.save_steps or 500,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=seed,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    begun = bool(saves and checkpoints and list(checkpoints.glob("checkpoint-*")))
    whole = trainer.train(resume_from_checkpoint=begun).training_loss
    return float(next((entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry), whole))


def prepared(
    name: str,
    bpe: Tokenizer,
    frame: pd.DataFrame,
    base: LlamaForCausalLM | None = None,
    sizes: tuple[Size, Size] = (EMBEDDED, EMBEDDED_T5),
) -> Prepared:
    """What a language model or a negative generator is trained with, by its name.

    A per-task model starts from ``base``. ``sizes``: of a Llama and of a T5.
    """
    task: Task = "cap2mol" if name.endswith("cap2mol") else "mol2cap"
    if name.startswith("negatives"):
        tokenizer = framed(bpe, "t5")
        generator = t5(tokenizer, sizes[1])
        rows = translation_rows(tokenizer, frame, task)
        return tokenizer, generator, rows, DataCollatorForSeq2Seq(tokenizer, model=generator)
    tokenizer = framed(bpe, "llama")
    model = llama(tokenizer, sizes[0])
    if base:
        model.load_state_dict(base.state_dict())
        # Both languages keep one input and output space, so that an adapter on the inner layers (the papers' LoRA
        # leaves embeddings and head alone) can still reach the words of the other one.
        model.get_input_embeddings().requires_grad_(False)
        model.get_output_embeddings().requires_grad_(False)
    rows = instruction_rows(tokenizer, frame, task) if base else language_rows(tokenizer, frame)
    return tokenizer, model, rows, DataCollatorForSeq2Seq(tokenizer)


def prepared_classifier(
    bpe: Tokenizer, sets: Sequence[Sequence[str]], seed: int, language: Language = EMBEDDED_NAMES
) -> Prepared:
    """What the cross-encoder is trained with: pairs made from property sets."""
    tokenizer = framed(bpe, "cross-encoder", language.names)
    rows = nli_rows(tokenizer, list(pairs(sets, NLI_PAIRS, seed, language)))
    return tokenizer, cross_encoder(tokenizer), rows, DataCollatorWithPadding(tokenizer)
