"""A runtime of sessions that take one crop at a time: each thread uses one of its own.

A batch gains nothing where one crop keeps the cores busy, and a model of fixed shape is what the
accelerators of phones and microcontrollers can run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from picosam2.runtimes.protocol import RuntimeInfo, check_inputs, check_logits
from picosam2.runtimes.reopen import PerProcess

Session: TypeAlias = Callable[
    [npt.NDArray[np.uint8], npt.NDArray[np.float32] | None], npt.NDArray[np.float32]
]
"""One crop (1, S, S, 3) RGB uint8, and its guidance (1, 3, S, S) float32 or None, to its logits
(K, S', S') float32, an array of its own.

Used by one thread at a time.
"""

_Open = TypeVar("_Open")


class SessionPool(Generic[_Open]):
    """Sessions that one thread may use at a time: each of several threads has one of its own."""

    def __init__(self, start: Callable[[], _Open]) -> None:
        """`start` opens a session; one is opened now, so that what is wrong shows at once."""
        self._start = start
        self._idle = PerProcess(lambda: [start()])

    @contextmanager
    def session(self) -> Iterator[_Open]:
        """A session for this thread alone, while it needs it."""
        idle = self._idle()
        try:
            session = idle.pop()
        except IndexError:  # all are at work, in other threads
            session = self._start()
        try:
            yield session
        finally:
            idle.append(session)


class SessionPoolRuntime:
    """Runs crops one by one. Each of several threads has a session while it needs one."""

    def __init__(self, info: RuntimeInfo, start: Callable[[], Session]) -> None:
        """`start` opens a session; one is opened now, so that what is wrong shows at once."""
        self._info = info
        self._pool = SessionPool(start)

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""
        return self._info

    def __call__(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Like `Runtime.__call__`."""
        check_inputs(self._info, crops, guidance)
        with self._pool.session() as session:
            logits = np.stack(
                [
                    session(crops[i : i + 1], None if guidance is None else guidance[i : i + 1])
                    for i in range(len(crops))
                ]
            )
        check_logits(self._info, logits, len(crops))
        return logits
