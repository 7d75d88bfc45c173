"""From preference pairs to the rows that a method trains on: prompts, answers, lengths, order."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lmolt_utils.config.prompts import answer, prompt
from lmolt_utils.models.chat import chat_answer, chat_prompt
from lmolt_utils.negatives.unpaired import alike, single_class_batches, unpaired
from lmolt_utils.training.losses import TrainingError
from lmolt_utils.training.recipes import Recipe


def _texts(rows: pd.DataFrame, names: list[str], template: Any, chat: bool) -> dict[str, list[str]]:
    """``prompt`` of each row and its answers in the columns ``names``, as they are trained on."""
    asked = [prompt(task, source, template) for task, source in zip(rows["task"], rows["source"], strict=True)]
    found = {"prompt": [chat_prompt(text) for text in asked] if chat else asked}
    for name in names:
        answers = [answer(text, template) for text in rows[name]]
        found[name] = [chat_answer(text) for text in answers] if chat else answers
    return found


def dataset(pairs: pd.DataFrame, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Preference pairs (columns task, source, chosen, rejected) in the form that the method's trainer takes.

    KTO's rows are :func:`~lmolt_utils.negatives.unpaired.unpaired`, sorted by length within each step.
    """
    template, method = recipe.train_prompt, recipe.method
    if method == "kto":
        rows = unpaired(pairs, recipe.seed)
        prompts, answers = _texts(rows, ["answer"], template, recipe.kto_format == "chatml").values()
        texts = pd.DataFrame({"prompt": prompts, "completion": answers, "label": rows["label"]})
        own, others = ([len(ids) for ids in tokenizer(part).input_ids] for part in (prompts, answers))
        return Dataset.from_dict(alike(texts, own, others, recipe.effective_batch).to_dict("list"))
    prompts, chosen, rejected = _texts(pairs, ["chosen", "rejected"], template, chat=False).values()
    if method == "sft" and recipe.sft_eos == "none":
        return Dataset.from_list([_without_eos(*row, recipe, tokenizer) for row in zip(prompts, chosen, strict=True)])
    if method == "sft":
        return Dataset.from_dict({"prompt": prompts, "completion": chosen})
    return Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})


def _without_eos(text: str, target: str, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Token ids of prompt and answer with no EOS behind them (audit D15); TRL would add one to text."""
    before, ids = tokenizer(text).input_ids, tokenizer(text + target).input_ids
    start = next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), len(before))
    hidden = start if recipe.sft_loss_on == "answer" else 0
    return {"input_ids": ids, "labels": [-100] * hidden + ids[hidden:]}


def lengths(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, template: Any = "printed", chat: bool = False
) -> pd.DataFrame:
    """Tokens of each pair's ``prompt`` (BOS included), ``chosen`` and ``rejected`` answer (EOS not included).

    With ``chat``, as KTO's ChatML has them; the tokenizer must know the chat tokens by then.
    """
    counts = {}
    for name, texts in _texts(pairs, ["chosen", "rejected"], template, chat).items():
        counts[name] = [len(ids) for ids in tokenizer(texts, add_special_tokens=name == "prompt").input_ids]
    return pd.DataFrame(counts)


def fitting(pairs: pd.DataFrame, counts: pd.DataFrame, limit: int, say: Callable[[str], None] = print) -> pd.DataFrame:
    """``pairs`` without those whose prompt alone fills ``limit`` tokens; ``counts``: their :func:`lengths`.

    Says how many these are, and how many answers will be cut and so lose their EOS. Raises :class:`TrainingError` when
    fewer than two pairs are left.
    """
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


def arranged(pairs: pd.DataFrame, counts: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """``pairs`` in random order, then sorted by their tokens (``counts``) within the rows of each optimiser step.

    Steps still see random rows, but the rows of a micro-batch are of like length and need little padding.
    """
    answers = ["chosen"] if recipe.method == "sft" else ["chosen", "rejected"]
    tokens = counts["prompt"] + counts[answers].max(axis=1)
    shuffled = pairs.assign(tokens=tokens.to_numpy()).sample(frac=1, random_state=recipe.seed).reset_index(drop=True)
    shuffled["step"] = shuffled.index // recipe.effective_batch
    return shuffled.sort_values(["step", "tokens"], kind="stable")[list(pairs)].reset_index(drop=True)


def check_batches(labels: list[bool], size: int) -> None:
    """Raise :class:`TrainingError` if any micro-batch of KTO's rows, in order, holds a single class or row."""
    if wrong := single_class_batches(labels, size):
        alone = "or a row alone, which z_ref would pair with itself"
        raise TrainingError(
            f"KTO batch {wrong[0]} of {size} rows holds one class only, {alone}: use an even micro_batch"
        )
