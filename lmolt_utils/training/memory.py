"""Memory: what a training or a merge on a processor frees is kept for its next step, and given back at its end.

glibc gives blocks of more than some hundred kilobytes back to the system, and the next step fetches them again, page by
page and zeroed: a third of a training's time.
"""

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30  # bytes that may lie free at the end of the heap
_OWN = 32 << 20  # larger blocks are always the system's own

P = ParamSpec("P")
R = TypeVar("R")


def releasing(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, after which no model of its own is left in memory.

    A trainer and its model refer to each other, so that they stay until Python looks for such circles: at 7B the next
    model would be loaded beside the last one.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        finally:
            release()

    return call


def release() -> None:
    """Collect garbage, and give free memory back: to the GPU's other users, and to the system (on Linux)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Tell glibc's allocator, for the rest of the process; nothing elsewhere than on Linux."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
