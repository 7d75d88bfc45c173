"""A pair's prompt read once, for both of its answers.

TRL's CPO runs each prompt twice, before the chosen and before the rejected answer. Here the three lie in one sequence:
the rejected answer's positions go on from the prompt's end, and it does not see the chosen one. Every token sees what
it sees in a sequence of its own, so log-probabilities are the same but for rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch

_SIDES = ("chosen", "rejected")


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
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    mask.masked_fill_(~visible, torch.finfo(dtype).min)
    return Joined(both("input_ids", padding), positions, both("labels", -100), part == 1, part == 2, mask[:, None])


def _common(chosen: dict[str, torch.Tensor], rejected: dict[str, torch.Tensor]) -> torch.Tensor:
    """Leading tokens (pairs, 1) that both sequences have and neither is trained on."""
    width = min(chosen["input_ids"].shape[1], rejected["input_ids"].shape[1])
    a, b = ({name: value[:, :width] for name, value in side.items()} for side in (chosen, rejected))
    same = (a["input_ids"] == b["input_ids"]) & (a["labels"] == -100) & (b["labels"] == -100)
    same &= (a["attention_mask"] == 1) & (b["attention_mask"] == 1)
    return same.long().cumprod(dim=1).sum(dim=1, keepdim=True)
