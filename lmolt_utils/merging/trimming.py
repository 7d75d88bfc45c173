"""Task vectors trimmed to their largest entries, piece by piece: what the TIES rules spend their time and memory on.

mergekit sorts all entries of a tensor to find the fifth that stays, in copies of the whole tensor. It is enough to know
the size of the smallest entry that stays, and a small sample tells nearly where that lies: one pass counts what is
larger and collects what is near, and only the latter is sorted. All work is done on pieces that fit a processor's
cache, in float32 whatever the type of the weights.

The same entries stay, but for one thing that mergekit leaves to the machine's sorting routine: which of several entries
of equal size at the border (with bfloat16 weights there are many). Here the first of them do, on any machine.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """What trimming resets: magnitudes up to ``below`` before the place ``until``, up to ``after`` from there on."""

    below: float
    after: float
    until: int = 0

    def reset(self, vector: torch.Tensor, start: int) -> None:
        """Apply to the piece of a task vector that begins at ``start``."""
        first = min(max(self.until - start, 0), len(vector))
        for part, size in ((vector[:first], self.below), (vector[first:], self.after)):
            if math.isnan(size):
                part.zero_()
            elif len(part):
                torch.ops.aten.hardshrink.out(part, size, out=part)


def merged_in_pieces(
    base: torch.Tensor,
    tensors: Sequence[torch.Tensor],
    densities: Sequence[float],
    combine: Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """``base`` plus what ``combine`` makes of the trimmed task vectors ``tensor - base``; in the type of ``base``.

    Of each task vector the share ``density`` of largest magnitude stays, at least one entry (none at density 0); the
    rest is 0. An entry that is no number counts as the largest, so that it is not lost silently. ``combine`` gets the
    task vectors of a piece and two rows to work in, all of them flat and in float32, and may overwrite them. Tensors
    are of one shape and in the processor's memory; pieces are shared among as many threads as torch uses.
    """
    flat, others = base.flatten(), [tensor.flatten() for tensor in tensors]
    merged = torch.empty_like(flat)
    threads = torch.get_num_threads()

    def merge(starts: range, cuts: list[Cut]) -> None:
        memory = torch.empty((3 + len(others), min(PIECE, len(flat))))
        for start in starts:
            place = slice(start, min(start + PIECE, len(flat)))
            origin, *vectors = memory[:-2, : place.stop - start]
            origin.copy_(flat[place])
            for vector, tensor, cut in zip(vectors, others, cuts, strict=True):
                cut.reset(vector.copy_(tensor[place]).sub_(origin), start)
            merged[place].copy_(origin.add_(combine(vectors, memory[-2:, : place.stop - start])))

    # A thread per piece, not several at each operation: pieces stay in their processor's cache, and none waits.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        cuts = list(pool.map(_cut, others, [flat] * len(others), densities))
        pieces = range(0, len(flat), PIECE)
        for done in [pool.submit(merge, pieces[worker::threads], cuts) for worker in range(threads)]:
            done.result()
    torch.set_num_threads(threads)  # for threads that begin from now on
    return merged.reshape_as(base)


def _cut(tensor: torch.Tensor, base: torch.Tensor, density: float) -> Cut:
    if density >= 1 or not len(base):
        return Cut(-1.0, -1.0)  # hardshrink's condition then holds for no number
    if density <= 0:
        return Cut(math.inf, math.inf)
    kept = max(1, int(density * len(base)))
    low, high = _guess(tensor, base, kept)
    while True:
        above, counts, near = _count(tensor, base, low, high)
        if kept <= above:
            low, high = high + 1, _LARGEST
        elif kept > above + sum(counts) and low > 1:
            low, high = 1, low - 1
        elif kept > above + sum(counts):  # fewer entries than may stay have moved at all
            return Cut(0.0, 0.0)
        elif low < high:  # again, with the border itself: there may be several entries of that size
            low = high = int(np.partition(near, len(near) - (kept - above))[len(near) - (kept - above)])
        else:
            break
    until = _place(tensor, base, low, counts, kept - above)
    border = np.int32(low).view(np.float32)
    if np.isnan(border):
        return Cut(math.inf, math.nan, until)
    return Cut(float(np.nextafter(border, np.float32(0))), float(border), until)


def _guess(tensor: torch.Tensor, base: torch.Tensor, kept: int) -> tuple[int, int]:
    """Bits between which the ``kept``-th largest entry almost surely lies; zero is never in between."""
    sample = np.sort(_bits(tensor[::_STEP].float() - base[::_STEP].float()))
    share = kept / len(base)
    rank = len(sample) * (1 - share)
    slack = 6 * math.sqrt(len(sample) * share * (1 - share)) + 2  # six standard errors
    low, high = math.floor(rank - slack), math.ceil(rank + slack)
    return max(1, int(sample[low]) if low >= 0 else 1), int(sample[high]) if high < len(sample) else _LARGEST


def _bits(difference: torch.Tensor) -> np.ndarray:
    """Magnitudes as integers, which have the same order and put what is no number last.

    Of numpy, which compares integers six times as fast as torch.
    """
    return difference.abs_().view(torch.int32).numpy()


def _sizes(tensor: torch.Tensor, base: torch.Tensor, starts: Iterable[int]) -> Iterator[np.ndarray]:
    """Bits of the task vector's pieces from ``starts``; the next piece overwrites them."""
    memory = torch.empty((2, min(PIECE, len(base))))
    for start in starts:
        size = min(PIECE, len(base) - start)
        first, second = memory[:, :size]
        yield _bits(first.copy_(tensor[start : start + size]).sub_(second.copy_(base[start : start + size])))


def _count(tensor: torch.Tensor, base: torch.Tensor, low: int, high: int) -> tuple[int, list[int], np.ndarray]:
    """How many entries are larger than ``high``; how many of each piece lie from ``low`` to it, and if apart, which."""
    above, counts, near = 0, [], [np.empty(0, dtype=np.int32)]
    memory = np.empty((2, min(PIECE, len(base))), dtype=bool)
    for bits in _sizes(tensor, base, range(0, len(base), PIECE)):
        larger, reached = memory[:, : len(bits)]
        np.greater(bits, high, out=larger)
        np.greater_equal(bits, low, out=reached)
        more = int(np.count_nonzero(larger))
        above += more
        counts.append(int(np.count_nonzero(reached)) - more)
        if low < high:
            near.append(bits[np.flatnonzero(reached ^ larger)])
    return above, counts, np.concatenate(near)


def _place(tensor: torch.Tensor, base: torch.Tensor, border: int, counts: list[int], stay: int) -> int:
    """The place behind the first ``stay`` entries of size ``border``, of which each piece has so many."""
    before = np.cumsum([0, *counts])
    piece = int(np.searchsorted(before, stay)) - 1
    (bits,) = _sizes(tensor, base, [piece * PIECE])
    return piece * PIECE + int(np.flatnonzero(bits == border)[stay - before[piece] - 1]) + 1
