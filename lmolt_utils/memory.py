"""Memory that a training or a merge on a processor frees is kept for its next step.

glibc gives blocks of more than some hundred kilobytes back to the system, and the next step fetches them again, page by
page and zeroed: a third of a training's time.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30  # bytes that may lie free at the end of the heap
_OWN = 32 << 20  # larger blocks are always the system's own


def keep_freed_memory() -> None:
    """Tell glibc's allocator, for the rest of the process; nothing elsewhere than on Linux."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
