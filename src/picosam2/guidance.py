"""Guidance: what is known of the object beside the window, drawn on the crop's grid.

Three planes, float32 in 0..1, which networks with a guidance branch take as a second input: the
probability of the mask so far, disks at the clicks on the object, disks at the clicks off it. All
zeros means that nothing is known but the window. Training and prediction both draw them here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2.geometry import Window
from picosam2.masks import Region, bbox
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

NEAR = 0.2
"""How far around the newest click the mask so far hardly counts in an answer: the standard
deviation of a Gaussian, as a share of the window's side."""

CERTAIN = 5.0
"""The largest logit that the mask so far counts with."""

Plane = npt.NDArray[np.uint8]


def probability(logits: npt.NDArray[np.float32]) -> Plane:
    """Logits of any shape as probabilities, uint8 0..255: how a mask so far is kept."""
    clipped = np.clip(logits, -16, 16)
    share: Plane = np.rint(255 / (1 + np.exp(-clipped))).astype(np.uint8)
    return share


def whole(region: Region, height: int, width: int) -> Plane:
    """The probabilities of a region's logits on the whole image: (height, width) uint8 0..255."""
    return MaskSoFar.of_region(region, height, width)[:height, :width]


@dataclass(frozen=True, eq=False)
class MaskSoFar:
    """A mask so far, kept on a part of its image; it is zero elsewhere.

    It stands for the plane of the whole image: its `shape` is (H, W), and it can be cut.
    """

    shape: tuple[int, int]
    """(H, W) of the image, in cells."""
    x: int
    y: int
    values: Plane
    """(h, w) uint8, 255 times the probability, from column `x` and row `y` of the image on."""
    step: int = 1
    """Pixels of the image along a cell's side: more than one where nothing finer is known."""

    @classmethod
    def of_region(cls, region: Region, height: int, width: int) -> MaskSoFar:
        """Of a region's logits."""
        return cls((height, width), region.x, region.y, probability(region.logits))

    @classmethod
    def of_mask(cls, mask: npt.NDArray[np.bool_] | npt.NDArray[np.float32]) -> MaskSoFar:
        """Of a given mask (H, W), bool or a probability 0..1."""
        height, width = mask.shape
        x0, y0, x1, y1 = bbox(mask > 0) or (0, 0, 0, 0)
        part = np.rint(mask[y0:y1, x0:x1] * np.float32(255)).astype(np.uint8)
        return cls((height, width), x0, y0, part)

    @property
    def box(self) -> Box | None:
        """The box around the mask, in pixels of the image, tight to a cell; None if it is empty."""
        box = Region(self.x, self.y, self.values > 127).box
        if box is None or self.step == 1:
            return box
        return Box(*(edge * self.step for edge in (box.x0, box.y0, box.x1, box.y1)))

    def __getitem__(self, part: tuple[slice, slice]) -> Plane:
        """The plane (h, w) of some rows and columns of cells, each from a start to a stop."""
        rows, columns = part
        top, left = rows.start or 0, columns.start or 0
        cut = np.zeros((rows.stop - top, columns.stop - left), np.uint8)
        height, width = self.values.shape
        y0, y1 = max(top, self.y), min(rows.stop, self.y + height)
        x0, x1 = max(left, self.x), min(columns.stop, self.x + width)
        if y0 < y1 and x0 < x1:
            cut[y0 - top : y1 - top, x0 - left : x1 - left] = self.values[
                y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x
            ]
        return cut


def planes(
    window: Window,
    size: int,
    mask: Plane | MaskSoFar | None = None,
    points: Iterable[Point] = (),
) -> npt.NDArray[np.float32]:
    """The guidance of one crop: (3, size, size) float32, 0..1.

    Args:
        window: where the crop is.
        size: side of the crop, pixels.
        mask: the mask so far, (H, W) uint8 on the whole image: 255 times its probability.
        points: clicks, in pixels of the image; those outside of the window are not drawn.
    """
    drawn = np.zeros((PLANES, size, size), np.float32)
    if mask is not None:
        cells = window.in_cells(mask.step) if isinstance(mask, MaskSoFar) else window
        drawn[0] = geometry.crop_plane(mask, cells, size)
    centers = np.arange(size) + 0.5
    radius = DISK_RADIUS * size
    for point in points:
        x, y = window.to_crop(np.array([[point.x, point.y]]), size)[0]
        if 0 <= x < size and 0 <= y < size:
            disk = (centers[None, :] - x) ** 2 + (centers[:, None] - y) ** 2 <= radius**2
            drawn[1 if point.positive else 2][disk] = 1
    return drawn


def settled(
    logits: npt.NDArray[np.float32],
    mask: npt.NDArray[np.float32],
    window: Window,
    newest: Point,
) -> npt.NDArray[np.float32]:
    """The mean of an answer and the mask so far, of which the latter counts less near a click.

    A click is about what is near it. So what is far from it only changes where the network is sure.

    Args:
        logits: the answer on the window, (S, S).
        mask: the first of the window's `planes`, (k * S, k * S), 0..1.
        newest: the click that the answer follows.
    """
    side = len(logits)
    step = len(mask) // side
    cells = mask.reshape(side, step, side, step).mean((1, 3))
    least = 1 / (1 + math.exp(CERTAIN))
    cells = np.clip(cells, least, 1 - least)
    before = np.log(cells / (1 - cells))
    ((x, y),) = window.to_crop(np.array([[newest.x, newest.y]]), side)
    centers = np.arange(side) + 0.5
    across, down = (np.exp(-0.5 * ((centers - at) / (NEAR * side)) ** 2) for at in (x, y))
    weight = 1 - down[:, None] * across[None, :]
    mean: npt.NDArray[np.float32] = ((logits + weight * before) / (1 + weight)).astype(np.float32)
    return mean


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
