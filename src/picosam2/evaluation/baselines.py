"""Baselines: masks made without a network. Filling the box is already a good guess.

The geometric ones look at no pixel of the image. `flood` and `grabcut_*` do; they take time, and
GrabCut needs OpenCV (extra `baselines`), so they are measured on request only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry, masks
from picosam2.errors import require
from picosam2.geometry import Window
from picosam2.masks import Region
from picosam2.prompts import Box, Point

DISC_RADIUS = 0.03
"""Radius of the best fixed disc around a click, as a share of the image's long side.

Chosen on COCO train2017 images by `python benchmarks/baseline_settings.py`.
"""

FLOOD_TOLERANCE = 48
"""How far each of R, G, B (0..255) may be from the clicked pixel's for `flood`; chosen likewise."""

GRABCUT_SIDES = {"box": 320, "click": 192}
"""GrabCut works on the prompt's surroundings at no more than this many pixels a side."""

GRABCUT_ROUNDS = 5
GRABCUT_GROWTH = 4.0
"""GrabCut from a box sees this many times the box: it needs background to learn from.

On train2017 images a smaller window finds too little, a larger one is no better and takes longer.
"""

GRABCUT_RADIUS = 0.1
"""GrabCut from a click begins with a disc of this share of the long side: it grows and shrinks."""

Mask = npt.NDArray[np.bool_]
RgbImage = npt.NDArray[np.uint8]


def filled_box(box: Box, height: int, width: int) -> Mask:
    """Every pixel whose center lies in the box, (height, width) bool."""
    return box_region(box, height, width).on_image(height, width)


def inscribed_ellipse(box: Box, height: int, width: int) -> Mask:
    """The ellipse that touches the middle of each of the box's sides, (height, width) bool."""
    return ellipse_region(box, height, width).on_image(height, width)


def disc(point: Point, height: int, width: int, radius: float = DISC_RADIUS) -> Mask:
    """The disc around a click, its radius a share of the long side, (height, width) bool."""
    return disc_region(point, height, width, radius).on_image(height, width)


def box_region(box: Box, height: int, width: int) -> Region:
    """`filled_box` as a `Region`, without the empty pixels around it."""
    y, x = _centers(box, height, width)
    inside = (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)
    return _region(y, x, inside)


def ellipse_region(box: Box, height: int, width: int) -> Region:
    """`inscribed_ellipse` as a `Region`, without the empty pixels around it."""
    y, x = _centers(box, height, width)
    center = box.center
    across = ((x - center.x) / (box.width / 2)) ** 2
    return _region(y, x, across + ((y - center.y) / (box.height / 2)) ** 2 <= 1)


def disc_region(point: Point, height: int, width: int, radius: float = DISC_RADIUS) -> Region:
    """`disc` as a `Region`, without the empty pixels around it."""
    reach = radius * max(height, width)
    around = Box(point.x - reach, point.y - reach, point.x + reach, point.y + reach)
    y, x = _centers(around, height, width)
    return _region(y, x, (x - point.x) ** 2 + (y - point.y) ** 2 <= reach**2)


def _centers(
    box: Box, height: int, width: int
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """The centers of the image's pixels that the box touches: y (h, 1) and x (1, w)."""
    y0, y1 = max(int(np.floor(box.y0)), 0), min(int(np.ceil(box.y1)), height)
    x0, x1 = max(int(np.floor(box.x0)), 0), min(int(np.ceil(box.x1)), width)
    return np.arange(y0, max(y1, y0))[:, None] + 0.5, np.arange(x0, max(x1, x0))[None, :] + 0.5


def _region(y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], mask: Mask) -> Region:
    if not mask.size:
        return Region(0, 0, np.zeros((0, 0), np.bool_))
    return Region(int(x[0, 0]), int(y[0, 0]), mask)


# --- baselines that look at the image -----------------------------------------------------------


def flood(image: RgbImage, point: Point, tolerance: int = FLOOD_TOLERANCE) -> Mask:
    """The connected pixels whose color is close to the clicked pixel's, (H, W) bool.

    Close is at most `tolerance` in each channel from that one pixel (the "magic wand").
    """
    clicked = image[int(point.y), int(point.x)].astype(np.int16)
    near = (np.abs(image.astype(np.int16) - clicked) <= tolerance).all(axis=2)
    return masks.keep_at(near, [point])


def grabcut_box(image: RgbImage, box: Box) -> Mask:
    """GrabCut (Rother et al. 2004) from a box, (H, W) bool: outside the box is background.

    Raises `MissingExtraError` without OpenCV.
    """
    cv2 = require("cv2", "baselines")

    def seeds(window: Window, side_y: int, side_x: int) -> RgbImage:
        y = window.y0 + (np.arange(side_y)[:, None] + 0.5) * window.height / side_y
        x = window.x0 + (np.arange(side_x)[None, :] + 0.5) * window.width / side_x
        inside = (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)
        labels: RgbImage = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        return labels

    window = geometry.box_window(box, growth=GRABCUT_GROWTH)
    return _grabcut(cv2, image, window, GRABCUT_SIDES["box"], seeds)


def grabcut_disc(image: RgbImage, point: Point, radius: float = GRABCUT_RADIUS) -> Mask:
    """GrabCut from a click, (H, W) bool: a disc around it is probably the object.

    A tenth of its radius is surely the object, three times its radius surely not. Raises
    `MissingExtraError` without OpenCV.
    """
    cv2 = require("cv2", "baselines")
    reach = radius * max(image.shape[:2])

    def seeds(window: Window, side_y: int, side_x: int) -> RgbImage:
        y = window.y0 + (np.arange(side_y)[:, None] + 0.5) * window.height / side_y
        x = window.x0 + (np.arange(side_x)[None, :] + 0.5) * window.width / side_x
        distance = np.hypot(x - point.x, y - point.y) / reach
        labels: RgbImage = np.where(distance <= 1, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        labels[distance > 3] = cv2.GC_BGD
        labels[distance <= max(0.1, float(distance.min()))] = cv2.GC_FGD
        return labels

    window = geometry.point_window(point, 3.5 * reach)
    return _grabcut(cv2, image, window, GRABCUT_SIDES["click"], seeds)


def _grabcut(
    cv2: Any,
    image: RgbImage,
    window: Window,
    side: int,
    seeds: Callable[[Window, int, int], RgbImage],
) -> Mask:
    """Run GrabCut on the pixels of `window`, made smaller to at most `side` if need be."""
    height, width = image.shape[:2]
    full = np.zeros((height, width), np.bool_)
    x0, y0 = max(int(window.x0), 0), max(int(window.y0), 0)
    x1, y1 = min(int(np.ceil(window.x1)), width), min(int(np.ceil(window.y1)), height)
    seen = Window(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
    patch = Image.fromarray(image[y0:y1, x0:x1])
    shrink = min(1.0, side / max(patch.size))
    small = patch.resize(
        (max(1, round(patch.width * shrink)), max(1, round(patch.height * shrink))),
        Image.Resampling.BILINEAR,
    )
    pixels = np.ascontiguousarray(np.asarray(small)[..., ::-1])
    labels = seeds(seen, *pixels.shape[:2])
    probable = np.isin(labels, (cv2.GC_PR_FGD, cv2.GC_FGD))
    if probable.any() and not probable.all():  # else there is nothing to tell apart
        cv2.setRNGSeed(0)
        models = np.zeros((2, 1, 65))
        with suppress(cv2.error):  # too few pixels for its color models: the seeds stay
            cv2.grabCut(
                pixels, labels, None, models[0], models[1], GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK
            )
    result = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not result.any():  # it often gives up on small objects; the first guess is a better answer
        result = probable
    large = Image.fromarray(result).resize(patch.size, Image.Resampling.NEAREST)
    full[y0:y1, x0:x1] = np.asarray(large)
    return full
