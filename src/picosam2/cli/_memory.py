"""What a long-running command asks of the C library's memory."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def keep_memory() -> None:
    """Tell glibc to keep freed memory: a step's arrays are as large as the last one's.

    By default every large array is mapped anew and faulted in page by page, which took half of a
    step's time where it was measured (docs/training.md).
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_max, trim_threshold, top_pad = -4, -1, -2
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)
