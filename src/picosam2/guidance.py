"""Guidance: what is known of the object beside the window, drawn on the crop's grid.

Three planes, float32 in 0..1, which networks with a guidance branch take as a second input: the
probability of the mask so far, disks at the clicks on the object, disks at the clicks off it. All
zeros means that nothing is known but the window. Training and prediction both draw them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2.geometry import Window
from picosam2.masks import Region
from picosam2.prompts import Box, Point

PLANES = 3
"""The mask so far, positive clicks, negative clicks."""

DISK_RADIUS = 5 / 192
"""Radius of a click's disk, as a share of the crop's side."""

REACH = 0.15
"""How far a window's box goes at least past a positive click outside the mask, as a share of its
side; it goes as far past the click as the click is outside, since people click in the middle of
what is missing."""

SMALLEST = 0.15
"""The shortest side of a box around clicks alone, as a share of the image's long side."""

Plane = npt.NDArray[np.uint8]


def probability(logits: npt.NDArray[np.float32]) -> Plane:
    """Logits of any shape as probabilities, uint8 0..255: how a mask so far is kept."""
    clipped = np.clip(logits, -16, 16)
    share: Plane = np.rint(255 / (1 + np.exp(-clipped))).astype(np.uint8)
    return share


def whole(region: Region, height: int, width: int) -> Plane:
    """The probabilities of a region's logits on the whole image: (height, width) uint8 0..255."""
    full = np.zeros((height, width), np.uint8)
    full[region.rows, region.columns] = probability(region.logits)
    return full


def planes(
    window: Window, size: int, mask: Plane | None = None, points: Iterable[Point] = ()
) -> npt.NDArray[np.float32]:
    """The guidance of one crop: (3, size, size) float32, 0..1.

    Args:
        window: where the crop is.
        size: side of the crop, pixels.
        mask: (H, W) uint8, the mask so far on the whole image: 255 times its probability.
        points: clicks, in pixels of the image; those outside of the window are not drawn.
    """
    drawn = np.zeros((PLANES, size, size), np.float32)
    if mask is not None:
        drawn[0] = geometry.crop_plane(mask, window, size)
    centers = np.arange(size) + 0.5
    radius = DISK_RADIUS * size
    for point in points:
        x, y = window.to_crop(np.array([[point.x, point.y]]), size)[0]
        if 0 <= x < size and 0 <= y < size:
            disk = (centers[None, :] - x) ** 2 + (centers[:, None] - y) ** 2 <= radius**2
            drawn[1 if point.positive else 2][disk] = 1
    return drawn


def following_box(mask: Box | None, points: Sequence[Point], height: int, width: int) -> Box | None:
    """The box that the next window is laid around, so that a correction sees all that it must.

    The union of the mask so far (its bounds, or the box that was given) and the positive clicks;
    where a click lies outside of the mask, the box goes a little past it. None if there is neither
    a mask nor a positive click.
    """
    xs = [point.x for point in points if point.positive]
    ys = [point.y for point in points if point.positive]
    if mask is None and not xs:
        return None
    x0, x1 = _reach(None if mask is None else (mask.x0, mask.x1), xs)
    y0, y1 = _reach(None if mask is None else (mask.y0, mask.y1), ys)
    least = SMALLEST * max(height, width) if mask is None else 1.0
    grow_x, grow_y = max(least - (x1 - x0), 0) / 2, max(least - (y1 - y0), 0) / 2
    return Box(x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y)


def _reach(span: tuple[float, float] | None, places: Sequence[float]) -> tuple[float, float]:
    """One axis of the union: from the lowest to the highest, past a click outside of the mask."""
    low, high = span or (min(places), max(places))
    first, last = min([low, *places]), max([high, *places])
    past = REACH * (last - first)
    if span is None:  # clicks lie inside the object, not on its outline
        return first - past, last + past
    below = max(past, low - first) if first < low else 0.0
    above = max(past, last - high) if last > high else 0.0
    return first - below, last + above
