"""Masks that need no network. A score means nothing without them: filling a box is a good guess."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from picosam2.prompts import Box, Point

DISC_RADIUS = 0.1
"""Radius of the best fixed disc around a click, as a share of the photo's long side.

Chosen on COCO train2017 photos by `python benchmarks/disc_radius.py`.
"""

Mask = npt.NDArray[np.bool_]


def filled_box(box: Box, height: int, width: int) -> Mask:
    """Every pixel whose centre lies in the box, (height, width) bool."""
    y, x = _centres(height, width)
    return (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)


def inscribed_ellipse(box: Box, height: int, width: int) -> Mask:
    """The ellipse that touches the middle of each of the box's sides, (height, width) bool."""
    y, x = _centres(height, width)
    centre = box.centre
    across = ((x - centre.x) / (box.width / 2)) ** 2
    return across + ((y - centre.y) / (box.height / 2)) ** 2 <= 1


def disc(point: Point, height: int, width: int, radius: float = DISC_RADIUS) -> Mask:
    """The disc around a click, its radius a share of the long side, (height, width) bool."""
    y, x = _centres(height, width)
    return (x - point.x) ** 2 + (y - point.y) ** 2 <= (radius * max(height, width)) ** 2


def _centres(height: int, width: int) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    return np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
