"""Bounds what libraries below Python write on stderr, past Python: one line of it is shown.

A damaged TIFF file can make its decoder write a line for every row, hundreds of megabytes of them.
While a command runs, file descriptor 2 is a pipe. Python's own stderr goes where it went before.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from picosam2.cli._text import one_line

_LONGEST = 200  # characters of the line that is shown


@contextmanager
def native_stderr_bounded() -> Iterator[None]:
    """Within the block, show one line of what native code writes on stderr, and drop the rest.

    Programs that are started within the block inherit the pipe: give them a stderr of their own.
    Without a stderr that is file descriptor 2, nothing is changed.
    """
    before = sys.stderr
    try:
        if before.fileno() != 2:
            raise io.UnsupportedOperation
        before.flush()
        real = os.dup(2)
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something else
        yield
        return
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    own = open(  # noqa: SIM115 PTH123
        real, "w", encoding=before.encoding, errors="backslashreplace", buffering=1
    )
    sys.stderr = own
    reader = threading.Thread(target=_show_first, args=(read, own), name="stderr", daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr = before
        own.flush()
        os.dup2(real, 2)  # the pipe has no other end now, so the reader ends
        reader.join(timeout=1)
        own.close()


def _show_first(pipe: int, stream: io.TextIOWrapper) -> None:
    """Read a pipe to its end, and print its first line that says more than what was done."""
    with open(pipe, "rb") as lines:
        for line in iter(lambda: lines.readline(1 << 16), b""):
            text = " ".join(line.decode("utf-8", "backslashreplace").split())
            if text and not text.startswith("INFO: "):  # LiteRT names its kernels so
                shown = one_line(text[:_LONGEST])
                rest = "what else libraries report is left out"
                print(f"picosam2: a library reports: {shown} ({rest})", file=stream)
                break
        while lines.read(1 << 16):
            pass
