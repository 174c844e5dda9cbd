"""Which window an answer of the sensor belongs to.

A sensor that is told to look elsewhere does so some frames later, and nothing that comes with an
answer says where it looked: picamera2 writes the ROI into four registers (`imx500_set_inference_
window` in the kernel's imx500.c) and libcamera hands on the tensors alone. A mask that is placed by
the wrong window is simply wrong, so there are two rules:

- While something is followed, the ROI is moved again only after it has answered, so that there are
  two windows that an answer may belong to, no more: the one before and the one now.
- The image that the network saw comes with its answer ("valid input and output tensors are in
  lock-step", libcamera's cam_helper_imx500.cpp). It is compared with what either window shows of
  the frame. If that cannot tell them apart, answers are thrown away until so many frames have
  passed that only the new window is possible; unless the two are nearly the same place.

The same comparison says which frame the network's image is of: that too is nowhere written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry
from picosam2.geometry import Window

SETTLE = 8
"""Frames after which an answer must be of the new window, if the images do not say."""

FRAMES = 4
"""Frames that an answer may be of: the one it comes with, and those before."""

_SIDE = 48  # pixels a side of the images that are compared
_ALIKE = 0.6  # correlation below which an image is like neither
_APART = 0.04  # and the difference of two correlations that says which one it is like
_NEAR = 0.7  # IoU of two windows above which to take one for the other does little harm
_FLAT = 2.0  # standard deviation, of 255, below which an image shows nothing
_STUCK = 5  # times SETTLE


class RoiWatch:
    """Keeps the window now and what was before it, and tells whose an answer is."""

    def __init__(self, window: Window, settle: int = SETTLE) -> None:
        """Begin with a window that the sensor looks through already."""
        self._now = window
        self._before = [window]  # more than one if it was moved before it had answered
        self._settle = settle
        self._frames = 0
        self._fit = np.zeros(FRAMES)
        self.settled = True
        """Whether the sensor is known to look through `window`."""
        self.delay = settle
        """Frames that a move takes, as far as it is known."""
        self.lag = 0
        """How many frames before the one it comes with an answer's image was taken."""

    @property
    def window(self) -> Window:
        """Where the sensor was told to look."""
        return self._now

    @property
    def stuck(self) -> bool:
        """Whether the sensor still looks through the old window after a long time."""
        return not self.settled and self._frames > _STUCK * self._settle

    def move(self, window: Window) -> None:
        """The sensor has just been told to look through another window."""
        self._before = [self._now] if self.settled else [*self._before, self._now]
        self._now, self._frames, self.settled = window, 0, False

    def tick(self) -> None:
        """A frame has come, with an answer or without."""
        self._frames += 1

    def window_of(
        self, frames: Sequence[npt.NDArray[np.uint8]], seen: npt.NDArray[np.uint8] | None
    ) -> Window | None:
        """The window that the answer which came with a frame belongs to; None if unknown.

        Args:
            frames: the frame (H, W, 3) uint8 RGB, and those before it, newest first.
            seen: the image (S, S, 3) uint8 that the network saw, in any colors, or None.

        Afterwards `lag` says which of the frames that image is of.
        """
        window = self._window_of(frames[min(self.lag, len(frames) - 1)], seen)
        if window is not None and seen is not None:
            fits = [likeness(frame, window, seen) for frame in frames[:FRAMES]]
            if len(fits) == FRAMES:
                self._fit += 0.2 * (np.array(fits) - self._fit)
                self.lag = int(np.argmax(self._fit))
        return window

    def _window_of(
        self, frame: npt.NDArray[np.uint8], seen: npt.NDArray[np.uint8] | None
    ) -> Window | None:
        if self.settled:
            return self._now
        new, old, before = 0.0, 0.0, self._before[-1]
        if seen is not None:
            new = likeness(frame, self._now, seen)
            old, before = max(
                ((likeness(frame, window, seen), window) for window in self._before),
                key=lambda pair: pair[0],
            )
        alike = max(new, old) >= _ALIKE
        if alike and abs(new - old) >= _APART:
            if old > new:
                return before
            self.delay = self._frames
        elif alike and overlap(self._now, before) >= _NEAR:
            if self._frames < self.delay:
                return before
        elif self._frames < self._settle:
            return None
        self.settled = True
        return self._now


def overlap(a: Window, b: Window) -> float:
    """IoU of two windows."""
    across = max(min(a.x1, b.x1) - max(a.x0, b.x0), 0)
    down = max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)
    both = across * down
    return both / (a.width * a.height + b.width * b.height - both)


def likeness(frame: npt.NDArray[np.uint8], window: Window, seen: npt.NDArray[np.uint8]) -> float:
    """The correlation of the brightness of a window of a frame with an image, -1..1.

    The sensor makes the network's image itself, with other colors and contrast than the frame:
    a correlation does not mind. 0 if either shows nothing but one shade.
    """
    here = _shade(geometry.crop(frame, window, _SIDE))
    there = _shade(np.asarray(Image.fromarray(seen).resize((_SIDE, _SIDE), Image.Resampling.BOX)))
    spread = float(here.std()), float(there.std())
    if min(spread) < _FLAT:
        return 0.0
    both = (here - here.mean()) * (there - there.mean())
    return float(both.mean()) / (spread[0] * spread[1])


def _shade(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    shade: npt.NDArray[np.float32] = image.mean(2, dtype=np.float32)
    return shade
