"""Task vectors trimmed to their largest entries, piece by piece: what the TIES rules spend their time and memory on.

mergekit sorts all entries of a tensor to find the fifth that stays, in copies of the whole tensor. It is enough to know
the size of the smallest entry that stays, and a small sample tells nearly where that lies: one pass counts what is
larger and collects what is near, and only the latter is sorted. All work is done on pieces that fit a processor's
cache, in float32 whatever the type of the weights.

The same entries stay, but for one thing that mergekit leaves to the machine's sorting routine: which of several entries
of equal size at the border (with bfloat16 weights there are many). Here the first of them do, on any machine.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from mergekit.merge_methods.base import TensorGroup

#: Entries worked on at a time.
PIECE = 1 << 18
_STEP = 61  # between sampled entries: odd, so that it meets every column of a matrix
_LARGEST = int(np.iinfo(np.int32).max)


class TaskVector:
    """``tensor - base`` of which the share ``density`` of largest magnitude stays (at least one entry), the rest is 0.

    An entry that is no number counts as the largest, so that it is not lost silently. Nothing is copied before
    :meth:`pieces`.
    """

    def __init__(self, tensor: torch.Tensor, base: torch.Tensor, density: float) -> None:
        self._tensor, self._base = tensor.flatten(), base.flatten()
        #: Entries up to this size are reset, and of those next in size the ones at these places.
        self._below, self._reset = _border(self._tensor, self._base, density)

    def pieces(self) -> Iterator[torch.Tensor]:
        """The trimmed task vector in float32, ``PIECE`` entries at a time, each in the same memory as the last."""
        for start, vector in _differences(self._tensor, self._base):
            torch.ops.aten.hardshrink.out(vector, self._below, out=vector)
            first, last = np.searchsorted(self._reset, [start, start + len(vector)])
            vector[torch.from_numpy(self._reset[first:last] - start)] = 0
            yield vector


def task_vectors(group: TensorGroup, density: Mapping[Hashable, float]) -> tuple[TaskVector, ...]:
    """The trimmed task vectors of all tensors of a group but the base, sought side by side."""
    base = group.base.tensor
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(lambda e: TaskVector(e.tensor, base, density[e.id]), group.non_base))


def _differences(tensor: torch.Tensor, base: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Where each piece starts, and its difference in float32."""
    memory = torch.empty((2, min(PIECE, len(base))), dtype=torch.float32, device=base.device)
    for number, pair in enumerate(zip(tensor.split(PIECE), base.split(PIECE), strict=True)):
        first, second = (row[: len(part)].copy_(part) for row, part in zip(memory, pair, strict=True))
        yield number * PIECE, first.sub_(second)


def _border(tensor: torch.Tensor, base: torch.Tensor, density: float) -> tuple[float, np.ndarray]:
    """The size up to which all entries are reset, and the places of the next larger ones that are reset too."""
    none = np.empty(0, dtype=np.int64)
    if density >= 1 or not len(base):
        return -1.0, none
    if density <= 0:
        return math.inf, none
    kept = max(1, int(density * len(base)))
    low, high = _guess(tensor, base, kept)
    while True:
        above, places, near = _count(tensor, base, low, high)
        if kept <= above:
            low, high = high + 1, _LARGEST
        elif kept <= above + len(near):
            break
        elif low > 1:
            low, high = 1, low - 1
        else:  # fewer entries than may stay have moved at all
            return 0.0, none
    border = np.partition(near, len(near) - (kept - above))[len(near) - (kept - above)]
    equal = places[near == border]
    stay = kept - above - np.count_nonzero(near > border)
    size = border.view(np.float32)
    below = math.inf if np.isnan(size) else float(np.nextafter(size, np.float32(0)))
    return below, equal[stay:]


def _bits(difference: torch.Tensor) -> torch.Tensor:
    """Magnitudes as integers, which have the same order and put what is no number last."""
    return difference.abs_().view(torch.int32)


def _guess(tensor: torch.Tensor, base: torch.Tensor, kept: int) -> tuple[int, int]:
    """Bits between which the ``kept``-th largest entry almost surely lies; zero is never in between."""
    sample = np.sort(_bits(tensor[::_STEP].float() - base[::_STEP].float()).cpu().numpy())
    share = kept / len(base)
    rank = len(sample) * (1 - share)
    slack = 6 * math.sqrt(len(sample) * share * (1 - share)) + 2  # six standard errors
    low, high = math.floor(rank - slack), math.ceil(rank + slack)
    return max(1, int(sample[low]) if low >= 0 else 1), int(sample[high]) if high < len(sample) else _LARGEST


def _count(tensor: torch.Tensor, base: torch.Tensor, low: int, high: int) -> tuple[int, np.ndarray, np.ndarray]:
    """How many entries are larger than ``high``; places and bits of those from ``low`` to ``high``."""
    above, places, near = 0, [], []
    for start, difference in _differences(tensor, base):
        bits = _bits(difference).cpu().numpy()  # numpy compares integers six times as fast as torch
        larger = bits > high
        above += int(np.count_nonzero(larger))
        found = np.flatnonzero((bits >= low) ^ larger)
        places.append(found + start)
        near.append(bits[found])
    return above, np.concatenate(places), np.concatenate(near)
