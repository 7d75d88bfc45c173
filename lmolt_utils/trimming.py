"""Task vectors trimmed to their largest entries, piece by piece: what the TIES rules spend their time and memory on.

mergekit sorts all entries of a tensor to find the fifth that stays, in copies of the whole tensor. It is enough to know
the size of the smallest entry that stays, and a small sample tells nearly where that lies: one pass counts what is
larger and collects what is near, and only the latter is sorted. All work is done on pieces that fit a processor's
cache, in float32 whatever the type of the weights.

The same entries stay, but for one thing that mergekit leaves to the machine's sorting routine: which of several entries
of equal size at the border (with bfloat16 weights there are many). Here the first of them do, on any machine.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

#: Entries worked on at a time.
PIECE = 1 << 18
_STEP = 61  # between sampled entries: odd, so that it meets every column of a matrix
_LARGEST = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class Cut:
    """What trimming resets: entries of magnitude up to ``below`` and, of those next in size, the ones at ``places``."""

    below: float
    places: np.ndarray


def trimmed(
    base: torch.Tensor, tensors: Sequence[torch.Tensor], densities: Sequence[float]
) -> Iterator[tuple[slice, torch.Tensor, list[torch.Tensor]]]:
    """The task vectors ``tensor - base``, of each of which the share ``density`` of largest magnitude stays.

    At least one entry stays (none at density 0); the rest is 0. An entry that is no number counts as the largest, so
    that it is not lost silently. Tensors are flat, of one shape and in the processor's memory. Yields per piece where
    it lies, the base and the trimmed task vectors in float32; the next piece overwrites them.
    """
    with ThreadPoolExecutor() as pool:
        cuts = list(pool.map(_cut, tensors, [base] * len(tensors), densities))
    memory = torch.empty((1 + len(tensors), min(PIECE, len(base))))
    for start in range(0, len(base), PIECE):
        place = slice(start, min(start + PIECE, len(base)))
        origin, *vectors = (row[: place.stop - start] for row in memory)
        origin.copy_(base[place])
        for vector, tensor, cut in zip(vectors, tensors, cuts, strict=True):
            vector.copy_(tensor[place]).sub_(origin)
            torch.ops.aten.hardshrink.out(vector, cut.below, out=vector)
            first, last = np.searchsorted(cut.places, [place.start, place.stop])
            vector.numpy()[cut.places[first:last] - start] = 0
        yield place, origin, vectors


def _cut(tensor: torch.Tensor, base: torch.Tensor, density: float) -> Cut:
    none = np.empty(0, dtype=np.int64)
    if density >= 1 or not len(base):
        return Cut(-1.0, none)  # hardshrink's condition then holds for no number
    if density <= 0:
        return Cut(math.inf, none)
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
            return Cut(0.0, none)
    border = np.partition(near, len(near) - (kept - above))[len(near) - (kept - above)]
    equal = places[near == border]
    stay = kept - above - np.count_nonzero(near > border)
    size = border.view(np.float32)
    below = math.inf if np.isnan(size) else float(np.nextafter(size, np.float32(0)))
    return Cut(below, equal[stay:])


def _bits(difference: torch.Tensor) -> torch.Tensor:
    """Magnitudes as integers, which have the same order and put what is no number last."""
    return difference.abs_().view(torch.int32)


def _guess(tensor: torch.Tensor, base: torch.Tensor, kept: int) -> tuple[int, int]:
    """Bits between which the ``kept``-th largest entry almost surely lies; zero is never in between."""
    sample = np.sort(_bits(tensor[::_STEP].float() - base[::_STEP].float()).numpy())
    share = kept / len(base)
    rank = len(sample) * (1 - share)
    slack = 6 * math.sqrt(len(sample) * share * (1 - share)) + 2  # six standard errors
    low, high = math.floor(rank - slack), math.ceil(rank + slack)
    return max(1, int(sample[low]) if low >= 0 else 1), int(sample[high]) if high < len(sample) else _LARGEST


def _count(tensor: torch.Tensor, base: torch.Tensor, low: int, high: int) -> tuple[int, np.ndarray, np.ndarray]:
    """How many entries are larger than ``high``; places and bits of those from ``low`` to ``high``."""
    above, places, near = 0, [], []
    memory = torch.empty((2, min(PIECE, len(base))))
    for start in range(0, len(base), PIECE):
        first, second = (
            row[: len(part)].copy_(part)
            for row, part in zip(memory, (tensor[start : start + PIECE], base[start : start + PIECE]), strict=True)
        )
        bits = _bits(first.sub_(second)).numpy()  # numpy compares integers six times as fast as torch
        larger = bits > high
        above += int(np.count_nonzero(larger))
        found = np.flatnonzero((bits >= low) ^ larger)
        places.append(found + start)
        near.append(bits[found])
    return above, np.concatenate(places), np.concatenate(near)
