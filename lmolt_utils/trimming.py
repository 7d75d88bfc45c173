"""The largest entries of a task vector, selected instead of sorted: what the TIES rules spend their time on.

mergekit sorts all entries of a tensor to find the fifth that stays. It is enough to know where the k-th largest lies,
which numpy finds twenty times faster. The same entries stay, but for one thing that mergekit leaves to the machine's
sorting routine: which of several equal entries at the border (with bfloat16 weights there are many). Here the first of
them do, on any machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mergekit import sparsify
from mergekit.sparsify import RescaleNorm, rescaled_masked_tensor

_sorted = sparsify.magnitude


def magnitude(tensor: torch.Tensor, density: float, rescale_norm: RescaleNorm | None = None) -> torch.Tensor:
    """``tensor`` with all but its share ``density`` of entries of largest magnitude set to 0 (at least one stays).

    mergekit's function of the same name and arguments; that one is called where the tensor is not in a CPU's memory.
    An entry that is no number counts as the largest, so that it is not lost silently.
    """
    if tensor.device.type != "cpu" or not 0 < density < 1 or not tensor.numel():
        return _sorted(tensor, density, rescale_norm)
    kept = max(1, int(density * tensor.numel()))
    border = _kth_largest(_sizes(tensor), kept)
    sizes = _sizes(tensor)  # again: one copy less at the same time, and the largest tensors decide a merge's memory
    keep = ~(sizes <= border)
    keep[np.flatnonzero(sizes == border)[: kept - np.count_nonzero(keep)]] = True
    return rescaled_masked_tensor(tensor, torch.from_numpy(keep).reshape_as(tensor), rescale_norm)


def _sizes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().abs().flatten().float().numpy()


def _kth_largest(sizes: np.ndarray, k: int) -> np.float32:
    """The k-th largest of ``sizes``, whose order is lost."""
    sizes.partition(len(sizes) - k)
    found: np.float32 = sizes[len(sizes) - k]
    return found


@contextmanager
def quick_trimming() -> Iterator[None]:
    """mergekit's TIES trims with :func:`magnitude` of this module while the block runs."""
    sparsify.magnitude = magnitude
    try:
        yield
    finally:
        sparsify.magnitude = _sorted
