"""Pictures that clients have sent once and click on many times. In memory only, and bounded."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2.apps.http.limits import Limits


@dataclass(slots=True)
class _Session:
    picture: npt.NDArray[np.uint8]
    used: float


class Sessions:
    """Pictures (H, W, 3) uint8 by an id that cannot be guessed. Not for several threads."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._kept: OrderedDict[str, _Session] = OrderedDict()  # used longest ago first

    def __len__(self) -> int:
        self._expire()
        return len(self._kept)

    @property
    def pixels(self) -> int:
        """Pixels kept, over all sessions."""
        return sum(_pixels(one.picture) for one in self._kept.values())

    def add(self, picture: npt.NDArray[np.uint8]) -> str:
        """Keep a picture; older ones make room for it. Its id."""
        self._expire()
        limits = self._limits
        while self._kept and (
            len(self._kept) >= limits.sessions
            or self.pixels + _pixels(picture) > limits.session_pixels
        ):
            self._kept.popitem(last=False)
        name = secrets.token_urlsafe(16)
        self._kept[name] = _Session(picture, self._clock())
        return name

    def get(self, name: str) -> npt.NDArray[np.uint8] | None:
        """The picture of an id, which counts as used now; None if there is none (any more)."""
        self._expire()
        one = self._kept.get(name)
        if one is None:
            return None
        one.used = self._clock()
        self._kept.move_to_end(name)
        return one.picture

    def drop(self, name: str) -> bool:
        """Forget a picture; whether there was one."""
        self._expire()
        return self._kept.pop(name, None) is not None

    def _expire(self) -> None:
        oldest = self._clock() - self._limits.session_seconds
        while self._kept and next(iter(self._kept.values())).used < oldest:
            self._kept.popitem(last=False)


def _pixels(picture: npt.NDArray[np.uint8]) -> int:
    return int(picture.shape[0] * picture.shape[1])
