"""Corrections: a mask so far and clicks in, the next mask out, by one window of a guided network.

The window is laid around the mask and the clicks, the guidance is drawn in it, and the answer takes
the mask's place. Away from the newest click the mask so far counts in it as much as what the
network says. Clicks are obeyed: where the network's answer still contradicts one, a small disk
around it is given the click's word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, guidance
from picosam2.errors import PromptError
from picosam2.geometry import ImageOrPyramid, Window, pixels_of
from picosam2.guidance import MaskSoFar
from picosam2.masks import Region
from picosam2.prompts import Box, Point
from picosam2.runtimes.protocol import Runtime

BOX_CHANNEL = 0
"""The logit channel that answers with guidance: the one that knows where the object ends."""

_GIVEN = 1.0  # the logit of a disk that takes a click's word


@dataclass(frozen=True, eq=False)
class Correction:
    """What one window answered."""

    window: Window
    answer: npt.NDArray[np.float32]
    """(S, S) float32 on the window, as the network gave them: what the score is measured of."""
    logits: npt.NDArray[np.float32]
    """The same with the mask so far counted in."""
    region: Region
    """Those on the image's pixels, with all clicks obeyed."""


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of an object before a window answers."""

    mask: npt.NDArray[np.uint8] | MaskSoFar | None
    """The mask so far; None if there is none. An array is (H, W) uint8: 255 times the
    probability."""
    points: Sequence[Point]
    """All clicks so far, in the order they were given."""
    box: Box | None = None
    """The box that the object was given with, if it was."""
    settled: bool = True
    """Whether the mask counts in the answer away from the newest click. That of a click alone does
    not: its scale is a guess."""


def correct(
    runtime: Runtime,
    image: ImageOrPyramid,
    known: Sequence[Known],
    *,
    growth: float = geometry.BOX_GROWTH,
    max_aspect: float = math.inf,
) -> list[Correction]:
    """The next masks of some objects, each by one window of a network that takes guidance.

    The windows share one batch.

    Args:
        runtime: weights with `info.guidance`.
        image: (H, W, 3) RGB uint8, or its pyramid.
        known: what is known of each object.
        growth, max_aspect: the weights' own rules for the window of a box.

    Raises:
        PromptError: of an object there is no mask, box or positive click to lay a window around.
    """
    if not known:
        return []
    height, width = pixels_of(image).shape[:2]
    size = runtime.info.input_size
    windows = []
    bounds = [_bounds(each.mask) for each in known]
    for each, bound in zip(known, bounds, strict=True):
        around = guidance.following_box(union(bound, each.box), each.points, height, width)
        if around is None:
            raise PromptError("a correction needs a mask, a box or a click on the object")
        windows.append(geometry.box_window(around, growth=growth, max_aspect=max_aspect))
    crops = np.stack([geometry.crop(image, window, size) for window in windows])
    planes = [
        guidance.planes(window, size, each.mask, each.points)
        for window, each in zip(windows, known, strict=True)
    ]
    corrections = []
    answers = runtime(crops, np.stack(planes))[:, BOX_CHANNEL]
    for answer, drawn, window, each, bound in zip(
        answers, planes, windows, known, bounds, strict=True
    ):
        logits = answer
        if each.settled and each.points and bound is not None:
            logits = guidance.settled(answer, drawn[0], window, each.points[-1])
        region = geometry.paste_region(logits, window, height, width)
        corrections.append(Correction(window, answer, logits, obeyed(region, window, each.points)))
    return corrections


def obeyed(region: Region, window: Window, points: Sequence[Point]) -> Region:
    """`region` with every click inside the window obeyed; the newest has the last word.

    Around a click that the mask contradicts, a disk as large as the one in the guidance changes
    sides. Where no click is contradicted, the region itself is returned.
    """
    logits = region.logits
    radius_x = max(guidance.DISK_RADIUS * window.width, 0.75)
    radius_y = max(guidance.DISK_RADIUS * window.height, 0.75)
    for point in points:
        x, y = int(point.x) - region.x, int(point.y) - region.y
        inside = 0 <= y < logits.shape[0] and 0 <= x < logits.shape[1]
        if not inside or (logits[y, x] > 0) == point.positive:
            continue
        if logits is region.logits:
            logits = logits.copy()
        # Only the pixels that the disk can reach are looked at.
        left, right = (int(point.x + way * radius_x) - region.x for way in (-1, 1))
        top, bottom = (int(point.y + way * radius_y) - region.y for way in (-1, 1))
        near = np.s_[max(top - 1, 0) : bottom + 2, max(left - 1, 0) : right + 2]
        rows, columns = np.ogrid[near[0].start : near[0].stop, near[1].start : near[1].stop]
        part = logits[near]
        rows, columns = rows[: part.shape[0]], columns[:, : part.shape[1]]
        disk = ((columns + region.x + 0.5 - point.x) / radius_x) ** 2 + (
            (rows + region.y + 0.5 - point.y) / radius_y
        ) ** 2 <= 1
        disk[y - near[0].start, x - near[1].start] = True
        changed = np.maximum(part, _GIVEN) if point.positive else np.minimum(part, -_GIVEN)
        part[disk] = changed[disk]
    return region if logits is region.logits else Region(region.x, region.y, logits)


def is_settled(points: Sequence[Point], box: Box | None) -> bool:
    """Whether the mask before the newest of the clicks tells the object's scale.

    One after a box or after several clicks does, that of a click alone does not.
    """
    return box is not None or len(points) > 2


def _bounds(mask: npt.NDArray[np.uint8] | MaskSoFar | None) -> Box | None:
    """The box around the mask so far; None if there is none, or it is empty."""
    if isinstance(mask, np.ndarray):
        mask = MaskSoFar((mask.shape[0], mask.shape[1]), 0, 0, mask)
    return None if mask is None else mask.box


def union(a: Box | None, b: Box | None) -> Box | None:
    """The box around two boxes, or the one that there is."""
    if a is None or b is None:
        return a or b
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))
