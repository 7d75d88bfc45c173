"""mergekit's TIES of two task vectors, computed piece by piece (:mod:`lmolt_utils.merging.trimming`).

Same arithmetic, same order, same bits; but mergekit makes some twenty copies of each tensor, and most of its time goes
into fetching memory for them and sorting.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from lmolt_utils.merging.trimming import merged_in_pieces

_whole = GeneralizedTaskArithmeticMerge.merge_group


def ties(
    base: torch.Tensor,
    tensors: Sequence[torch.Tensor],
    densities: Sequence[float],
    weights: Sequence[float],
    scale: float = 1.0,
) -> torch.Tensor:
    """``base`` plus ``scale`` times, per entry, the weighted mean of the trimmed entries whose sign has the larger sum.

    Two tensors of the shape of ``base``; weights of 0 or more, not both 0. Computed in float32, returned in the type of
    ``base``.
    """
    if weights[0] == weights[1] and math.frexp(weights[0])[0] == 0.5:
        weights = (1.0, 1.0)  # equal powers of two (the papers' halves) cancel to the last bit
    smallest = min(weight for weight in weights if weight > 0)
    weighted = list(weights) != [1.0, 1.0]

    def combine(vectors: list[torch.Tensor], memory: torch.Tensor) -> torch.Tensor:
        first, second = vectors
        if weighted:
            first.mul_(weights[0])
            second.mul_(weights[1])
        total = torch.add(first, second, out=memory[0])
        sign = torch.copysign(one, total, out=memory[1])
        first.mul_(sign).relu_()  # the magnitude of what has the sum's sign, else 0
        second.mul_(sign).relu_()
        mixed = torch.add(first, second, out=total).mul_(sign)
        first.sign_()
        second.sign_()
        if weighted:
            first.mul_(weights[0])
            second.mul_(weights[1])
        divisor = first.add_(second)
        mixed.div_(divisor.clamp_(min=smallest))  # where no entry is left, 0 over anything
        return mixed.mul_(scale) if scale != 1 else mixed

    one = torch.ones(())
    return merged_in_pieces(base, tensors, densities, combine)


def _merge_group(self: GeneralizedTaskArithmeticMerge, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
    """mergekit's method: two task vectors, normalised, by the function above; anything else as it is."""
    parents = group.non_base
    weights = [parameters["weight"][entry.id] for entry in parents]
    usual = parameters["normalize"] and not parameters.get("rescale") and not parameters.get("int8_mask")
    on_cpu = group.base.tensor.device.type == "cpu"
    if self.spec.name != "ties" or len(weights) != 2 or min(weights) < 0 or not any(weights) or not usual or not on_cpu:
        return _whole(self, group, **parameters)
    densities = [parameters["density"][entry.id] for entry in parents]
    tensors = [entry.tensor for entry in parents]
    return ties(group.base.tensor, tensors, densities, weights, parameters["lambda"])


@contextmanager
def ties_in_pieces() -> Iterator[None]:
    """mergekit's TIES is computed by :func:`ties` while the block runs."""
    GeneralizedTaskArithmeticMerge.merge_group = _merge_group
    try:
        yield
    finally:
        GeneralizedTaskArithmeticMerge.merge_group = _whole
