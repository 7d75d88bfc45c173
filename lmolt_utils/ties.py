"""mergekit's TIES of two task vectors, computed piece by piece (:mod:`lmolt_utils.trimming`).

Same arithmetic, same order, same bits; but mergekit makes some twenty copies of each tensor, and most of its time goes
into fetching memory for them and sorting.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from lmolt_utils.trimming import PIECE, TaskVector, task_vectors

_whole = GeneralizedTaskArithmeticMerge.merge_group


def ties(
    base: torch.Tensor, vectors: tuple[TaskVector, TaskVector], weights: tuple[float, float], scale: float
) -> torch.Tensor:
    """``base`` plus ``scale`` times, per entry, the weighted mean of the entries whose sign has the larger sum.

    Weights must be above 0. In the type of ``base``.
    """
    merged = torch.empty_like(base).flatten()
    starts, outs = base.flatten().split(PIECE), merged.split(PIECE)
    ones = torch.ones(PIECE, device=base.device)
    for start, out, first, second in zip(starts, outs, *(vector.pieces() for vector in vectors), strict=True):
        weighted = [part.mul_(weight) for part, weight in zip((first, second), weights, strict=True)]
        total = weighted[0] + weighted[1]
        sign = torch.copysign(ones[: len(total)], total)
        agreeing = [part.mul_(sign).relu_() for part in weighted]
        mixed = torch.add(*agreeing, out=total).mul_(sign)
        # Where no entry is left, the sum is 0 over any divisor.
        divisor = agreeing[0].sign_().mul_(weights[0]).add_(agreeing[1].sign_().mul_(weights[1]))
        mixed.div_(divisor.clamp_(min=min(weights)))
        if scale != 1:
            mixed.mul_(scale)
        out.copy_(mixed.add_(start))
    return merged.reshape_as(base)


def _merge_group(self: GeneralizedTaskArithmeticMerge, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
    """mergekit's method: two task vectors, normalised, by the function above; anything else as it is."""
    weights = [parameters["weight"][entry.id] for entry in group.non_base]
    usual = parameters["normalize"] and not parameters.get("rescale") and not parameters.get("int8_mask")
    if self.spec.name != "ties" or len(weights) != 2 or min(weights) <= 0 or not usual:
        return _whole(self, group, **parameters)
    first, second = task_vectors(group, parameters["density"])
    return ties(group.base.tensor, (first, second), (weights[0], weights[1]), parameters["lambda"])


@contextmanager
def ties_in_pieces() -> Iterator[None]:
    """mergekit's TIES is computed by :func:`ties` while the block runs."""
    GeneralizedTaskArithmeticMerge.merge_group = _merge_group
    try:
        yield
    finally:
        GeneralizedTaskArithmeticMerge.merge_group = _whole
