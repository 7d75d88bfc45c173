"""A prompt read once, for both of its answers.

TRL's CPO runs each prompt twice, before the chosen and before the rejected answer. In :func:`joined` the three lie in
one sequence: the rejected answer's positions go on from the prompt's end, and it does not see the chosen one. TRL's KTO
runs each prompt before its own answer, and again, without a gradient, before the mismatched answer that z_ref is
estimated from. In :func:`matched_and_not` the second answer goes on from the first pass's keys and values. Every token
sees what it sees in a sequence of its own, so log-probabilities are the same but for rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from lmolt_utils.training.head import answers_only

_SIDES = ("chosen", "rejected")
_Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Joined:
    """Pairs as one sequence each: all but ``mask`` of shape (pairs, length).

    ``labels`` is -100 but for the answers' tokens; ``chosen`` and ``rejected`` say whose a place is (neither: prompt
    or padding). ``mask`` (pairs, 1, length, length) is added to attention scores: 0, or its type's smallest number.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    chosen: torch.Tensor
    rejected: torch.Tensor
    mask: torch.Tensor


def padded(rows: Sequence[Mapping[str, Any]], padding: int) -> _Tensors:
    """TRL's CPO batch of tokenised ``rows``, as far as :func:`joined` reads it.

    TRL's collator also pads the prompts and all masks, row by row: a tenth of a small model's training.
    """
    batch = {}
    for side in _SIDES:
        sizes = torch.tensor([len(row[f"{side}_input_ids"]) for row in rows])
        batch[f"{side}_attention_mask"] = (torch.arange(int(sizes.max())) < sizes[:, None]).long()
        for name, fill in (("input_ids", padding), ("labels", -100)):
            values = [torch.tensor(row[f"{side}_{name}"]) for row in rows]
            batch[f"{side}_{name}"] = pad_sequence(values, batch_first=True, padding_value=fill)
    return batch


def joined(batch: dict[str, Any], padding: int, dtype: torch.dtype) -> Joined:
    """TRL's CPO batch of ``chosen_`` and ``rejected_`` ``input_ids``, ``attention_mask``, ``labels`` (right-padded).

    The prompt's last token stays before either answer, whose first token it predicts. Where tokenisation joined it
    to an answer, the tokens before the first difference are the prompt.
    """
    sides = [{name: batch[f"{side}_{name}"] for name in ("input_ids", "attention_mask", "labels")} for side in _SIDES]
    sizes = [side["attention_mask"].sum(dim=1, keepdim=True) for side in sides]
    shared = (_common(*sides) - 1).clamp(min=0)
    length = sizes[0] + sizes[1] - shared
    place = torch.arange(int(length.max()), device=length.device).expand(len(length), -1)
    first = place < sizes[0]
    second = ~first & (place < length)
    positions = torch.where(first, place, (place - sizes[0] + shared).clamp(min=0))

    def both(name: str, fill: int) -> torch.Tensor:
        parts = [side[name].gather(1, positions.clamp(max=side[name].shape[1] - 1)) for side in sides]
        return torch.where(first, parts[0], parts[1].masked_fill(~second, fill))

    # Prompt 0, chosen 1, rejected 2, padding 3: each sees what lies before it of the prompt and of its own part.
    part = torch.full_like(place, 3).masked_fill(second, 2).masked_fill(first, 1).masked_fill(place < shared, 0)
    query, key = part[:, :, None], part[:, None, :]
    visible = ((key == 0) | (key == query)) & (place[:, :, None] >= place[:, None, :])
    mask = _added(visible, dtype)
    return Joined(both("input_ids", padding), positions, both("labels", -100), part == 1, part == 2, mask)


def matched_and_not(model: Any, batch: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """A KTO batch through a model with TRL's head: its output for the answers, log π of the mismatched ones (rows).

    ``batch`` is TRL's, right-padded: ``input_ids``, ``attention_mask`` and ``completion_mask``, and each as ``KL_``.
    Where activations are recomputed, a layer keeps no keys and values: the prompts are then read twice, as in TRL.
    """
    own, other = (
        {
            "input_ids": batch[f"{kind}input_ids"],
            "attention_mask": batch[f"{kind}attention_mask"],
            "labels": batch[f"{kind}input_ids"].masked_fill(batch[f"{kind}completion_mask"] == 0, -100),
        }
        for kind in ("", "KL_")
    )
    cache = None if model.is_activation_checkpointing else DynamicCache()
    found = model(**own, fused_lm_head=True, past_key_values=cache)
    inputs = other if cache is None else {**_continued(own, other, model.dtype), "past_key_values": cache}
    with torch.no_grad(), answers_only(statistics=False):
        mismatched = model(**inputs, fused_lm_head=True)
    return found, mismatched.log_probs.sum(dim=1)


def _continued(own: _Tensors, other: _Tensors, dtype: torch.dtype) -> _Tensors:
    """What a model reads of ``other`` when the keys and values of ``own`` are there, with the same prompts.

    As in :func:`joined`, the prompt's last token is read again: it predicts the answer's first.
    """
    shared = (_common(own, other) - 1).clamp(min=0)
    length = other["attention_mask"].sum(dim=1, keepdim=True) - shared
    place = torch.arange(int(length.max()), device=length.device).expand(len(length), -1)
    positions = (place + shared).clamp(max=other["input_ids"].shape[1] - 1)
    prompt = torch.arange(own["input_ids"].shape[1], device=length.device) < shared
    visible = [prompt[:, None].expand(-1, place.shape[1], -1), place[:, :, None] >= place[:, None, :]]
    return {
        "input_ids": other["input_ids"].gather(1, positions),
        "position_ids": positions,
        "attention_mask": _added(torch.cat(visible, dim=-1), dtype),
        "labels": other["labels"].gather(1, positions).masked_fill(place >= length, -100),
    }


def _added(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, (rows, 1, queries, keys): 0 where ``visible``, else the smallest number."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def _common(chosen: _Tensors, rejected: _Tensors) -> torch.Tensor:
    """Leading tokens (pairs, 1) that both sequences have and neither is trained on."""
    width = min(chosen["input_ids"].shape[1], rejected["input_ids"].shape[1])
    a, b = ({name: value[:, :width] for name, value in side.items()} for side in (chosen, rejected))
    same = (a["input_ids"] == b["input_ids"]) & (a["labels"] == -100) & (b["labels"] == -100)
    same &= (a["attention_mask"] == 1) & (b["attention_mask"] == 1)
    return same.long().cumprod(dim=1).sum(dim=1, keepdim=True)
