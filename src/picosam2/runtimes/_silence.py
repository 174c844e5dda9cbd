"""Hold back the warnings and progress that large packages write as they load and convert."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from picosam2.images import without_warnings


@contextmanager
def silenced() -> Iterator[None]:
    """Without Python's warnings, log records up to WARNING, and standard output, in every thread.

    What a C++ library writes to the process's standard error itself is not held back.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with without_warnings(), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
