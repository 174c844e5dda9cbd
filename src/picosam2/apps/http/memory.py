"""What the server and its decoders ask of the C library's memory."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_PIECE = 1 << 22  # bytes


def give_memory_back() -> None:
    """Tell glibc to give back large arrays as soon as they are freed, and to keep few heaps.

    By default it learns from each array that is freed to keep the next one of that size, in a heap
    of the thread: a few large images, each worked on by another thread, then stay in memory for
    good.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_threshold, arena_max = -3, -8
        mallopt(mmap_threshold, _PIECE)
        mallopt(arena_max, 4)
