"""Images that clients have sent once and click on many times. In memory only, and bounded."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from cachetools import TTLCache

from picosam2.apps.http.limits import Limits
from picosam2.errors import ImageError


class Sessions:
    """Images (H, W, 3) uint8 by an id that cannot be guessed. Not for several threads."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep no more than `limits` allow; `clock` gives seconds."""
        self._limits = limits
        self._images: TTLCache[str, npt.NDArray[np.uint8]] = TTLCache(
            maxsize=limits.session_pixels,
            ttl=limits.session_seconds,
            timer=clock,
            getsizeof=_pixels,
        )

    def __len__(self) -> int:
        self._images.expire()
        return len(self._images)

    @property
    def pixels(self) -> int:
        """Pixels kept, over all sessions."""
        self._images.expire()
        return round(self._images.currsize)

    def add(self, image: npt.NDArray[np.uint8]) -> str:
        """Keep an image; those used longest ago make room for it. Its id.

        Raises:
            ImageError: the image alone has more pixels than all sessions may have.
        """
        if _pixels(image) > self._limits.session_pixels:
            raise ImageError(
                f"an image of {_pixels(image):,} pixels is too large to keep: sessions have room "
                f"for {self._limits.session_pixels:,}"
            )
        self._images.expire()
        while len(self._images) >= self._limits.sessions:
            self._images.popitem()
        session = secrets.token_urlsafe(16)
        self._images[session] = image
        return session

    def get(self, session: str) -> npt.NDArray[np.uint8] | None:
        """The image of an id, which counts as used now; None if there is none (any more)."""
        image = self._images.pop(session, None)
        if image is not None:
            self._images[session] = image  # its time begins again
        return image

    def drop(self, session: str) -> bool:
        """Forget an image; whether there was one."""
        return self._images.pop(session, None) is not None


def _pixels(image: npt.NDArray[np.uint8]) -> int:
    return int(image.shape[0] * image.shape[1])
