"""The evaluation protocols: which prompt an object gives, and on which pixels IoU is measured.

`click`, `click-inside` and `box` are what a user gets: the predictor chooses its windows, IoU is
measured on the whole image. `click` is at the object's center point, `click-inside` anywhere in it.
`paper-point` and `paper-roi` repeat the published measurements (PicoSAM2, arXiv 2506.18807, and
PicoSAM3): a given window, cut off at the image's border and then stretched as their code does, with
IoU measured on the crop. That border handling is wrong for use (the click leaves the center), and
here only so that numbers compare.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2.data.coco import AnnotatedImage
from picosam2.errors import ConfigError, DataError
from picosam2.evaluation.boundary import erode
from picosam2.geometry import CROP_SIZE, Window, box_window
from picosam2.prompts import Box, Point, Prompt

PROTOCOLS = ("paper-point", "paper-roi", "click", "click-inside", "box")
ROI_GROWTH = 1.2  # 10 % a side


@dataclass(frozen=True, eq=False)
class Item:
    """One object to measure on: its true mask (H, W) bool and the prompt made from it."""

    mask: npt.NDArray[np.bool_]
    prompt: Prompt
    window: Window | None
    """The window that the protocol prescribes, or None where the predictor chooses."""
    rivals: int = 0
    """How many other measured objects share its window; see `count_rivals`."""

    @property
    def box(self) -> Box:
        """The prompt's box, or the true one."""
        return self.prompt.box or true_box(self.mask)

    @property
    def point(self) -> Point:
        """The prompt's point, or the true center."""
        return self.prompt.points[0] if self.prompt.points else masks.center_point(self.mask)


def true_box(mask: npt.NDArray[np.bool_]) -> Box:
    """The tight box of a mask that is not empty."""
    bounds = masks.bbox(mask)
    assert bounds is not None, "empty masks are skipped before"
    return Box(*bounds)


def make_item(
    protocol: str, mask: npt.NDArray[np.bool_], *, jitter: float = 0.0, seed: int = 0
) -> Item:
    """The item of an object under a protocol.

    Args:
        protocol: one of `PROTOCOLS`.
        mask: the true mask (H, W) bool, not empty.
        jitter: each edge of the box moves by up to this share of its side; a click moves to a
            random place on the object within this share of its box of the center point.
        seed: of the jitter; give the annotation's id.
    """
    rng = np.random.default_rng((seed, 7))
    height, width = mask.shape
    if protocol in ("box", "paper-roi"):
        box = _jittered_box(true_box(mask), jitter, rng, height, width)
        window = _published_roi(box, height, width) if protocol == "paper-roi" else None
        return Item(mask, Prompt(box=box), window)
    if protocol in ("click", "paper-point"):
        point = _jittered_point(mask, jitter, rng)
        window = _published_crop(point, height, width) if protocol == "paper-point" else None
        return Item(mask, Prompt(points=(point,)), window)
    if protocol == "click-inside":
        return Item(mask, Prompt(points=(inside_point(mask, seed=seed),)), None)
    raise ConfigError(f"there is no protocol {protocol!r}: use {', '.join(PROTOCOLS)}")


def inside_point(mask: npt.NDArray[np.bool_], *, seed: int) -> Point:
    """The center of a pixel drawn uniformly from a mask without its rim.

    The rim is a tenth of the mask's width; where nothing is left, half of that, and so on.
    """
    radius = round(true_box(mask).width / 10)
    left = erode(mask, radius)
    while not left.any():
        radius //= 2
        left = erode(mask, radius)
    place = int(np.random.default_rng((seed, 11)).choice(np.flatnonzero(left)))
    return Point(place % mask.shape[1] + 0.5, place // mask.shape[1] + 0.5)


def first_annotations(
    annotations: Path, images: Sequence[AnnotatedImage], count: int
) -> list[AnnotatedImage]:
    """The images with only the objects that are among the first `count` annotations of the file.

    The published subset of `paper-point` (1,000 annotations) goes by the file's order, in which a
    image's annotations need not stand together. Crowds are no objects and are not counted.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        entries = json.loads(annotations.read_text())["annotations"]
        order = [entry["id"] for entry in entries if not entry.get("iscrowd")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{annotations} is no annotation file in COCO's format") from error
    usable = {instance.id for image in images for instance in image.instances}
    chosen = set([number for number in order if number in usable][:count])
    kept = [
        replace(
            image,
            instances=tuple(instance for instance in image.instances if instance.id in chosen),
        )
        for image in images
    ]
    return [image for image in kept if image.instances]


RIVAL_SHARE = 0.01
"""An object is a rival where it covers at least this share of another's window."""


def count_rivals(truths: Sequence[npt.NDArray[np.bool_]]) -> list[int]:
    """For each of an image's objects, how many others cover `RIVAL_SHARE` of its box window.

    `truths` are masks (H, W) bool, none empty. The window is the predictor's for the true box,
    whatever the prompt, so that the classes are the same objects under every protocol.
    """
    boxes = [true_box(mask) for mask in truths]
    counts = []
    for index, box in enumerate(boxes):
        window = box_window(box)
        least = RIVAL_SHARE * window.width * window.height
        y, x = (max(round(low), 0) for low in (window.y0, window.x0))
        rows, columns = slice(y, max(round(window.y1), y)), slice(x, max(round(window.x1), x))
        counts.append(
            sum(
                int(np.count_nonzero(truths[other][rows, columns])) >= least
                for other, theirs in enumerate(boxes)
                if other != index
                and theirs.x0 < window.x1
                and theirs.x1 > window.x0
                and theirs.y0 < window.y1
                and theirs.y1 > window.y0
            )
        )
    return counts


def _published_crop(point: Point, height: int, width: int) -> Window:
    """PicoSAM2's window: 96 pixels from whole ones, as its data set cuts them.

    The low edges are kept inside the image before the high ones are counted from them, so at the
    left and top the window is moved, and at the right and bottom it is cut off.
    """
    left = max(math.floor(point.x - 0.5) - CROP_SIZE // 2, 0)
    top = max(math.floor(point.y - 0.5) - CROP_SIZE // 2, 0)
    return Window(left, top, min(left + CROP_SIZE, width), min(top + CROP_SIZE, height))


def _published_roi(box: Box, height: int, width: int) -> Window:
    """PicoSAM3's window: the grown, squared box cut off on every side, in whole pixels."""
    window = box_window(box, growth=ROI_GROWTH, max_aspect=1.0)
    x0, y0 = int(max(window.x0, 0.0)), int(max(window.y0, 0.0))
    x1, y1 = int(min(window.x1, width)), int(min(window.y1, height))
    return Window(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


def _jittered_box(
    box: Box, jitter: float, rng: np.random.Generator, height: int, width: int
) -> Box:
    if not jitter:
        return box
    shift = rng.uniform(-jitter, jitter, 4) * np.tile((box.width, box.height), 2)
    x0, y0, x1, y1 = np.array((box.x0, box.y0, box.x1, box.y1)) + shift
    x0, y0 = np.clip(x0, 0, width - 1), np.clip(y0, 0, height - 1)
    x1, y1 = np.clip(x1, x0 + 1, width), np.clip(y1, y0 + 1, height)
    return Box(float(x0), float(y0), float(x1), float(y1))


def _jittered_point(mask: npt.NDArray[np.bool_], jitter: float, rng: np.random.Generator) -> Point:
    point = masks.center_point(mask)
    if not jitter:
        return point
    box = true_box(mask)
    rows, columns = np.nonzero(mask)
    near = (np.abs(columns + 0.5 - point.x) <= jitter * box.width) & (
        np.abs(rows + 0.5 - point.y) <= jitter * box.height
    )
    if not near.any():
        return point
    chosen = int(rng.choice(np.flatnonzero(near)))
    return Point(float(columns[chosen]) + 0.5, float(rows[chosen]) + 0.5)
