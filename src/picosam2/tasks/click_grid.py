"""Finding objects by a grid of clicks: SAM's automatic mask generator.

The method is that of "Segment Anything" (2023), appendix B. Three things differ. SAM lays crops
over the image to find small objects; here a click has windows of several sizes anyway. Each size
has a grid of its own, and a crop layer is one more grid of smaller windows. A mask that runs out of
its window is dropped, as SAM drops what runs out of a crop. And every mask is seen again through
the window of its box, which is what the network does best: mask and predicted IoU are those of this
second look, and what one click alone leads to is believed less than what several agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2._progress import Progress
from picosam2.geometry import Window
from picosam2.models.views import thinned
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Predictor
from picosam2.prompts import Box, Point
from picosam2.tasks.answers import Answer, Image, corners, cut_off, image_box, inside

if TYPE_CHECKING:
    from picosam2.tasks.everything import Everything

_USUAL = 0.1  # windows as wide as this share of the image's long side need no crop layer
_THINNING = 0.8  # how fast a grid grows coarser with the size of its windows
_ALIKE = 0.6  # boxes with a higher IoU than this speak for each other
_DOUBT = (
    0.25  # how much of a score goes if one click alone says so; its square if two do, and so on
)

_Floats = npt.NDArray[np.float64]


def answers_by_clicks(
    predictor: Predictor, image: Image, chosen: Everything, progress: Progress | None
) -> list[Answer]:
    """What the clicks of all grids lead to, in no order."""
    height, width = image.shape[:2]
    clicks = click_grids(predictor, chosen, height, width)
    step = chosen.points_per_batch
    seen: list[_Seen] = []
    for start in range(0, len(clicks), step):
        seen += _look(predictor, image, clicks[start : start + step], chosen)
        if progress:
            progress(min(start + step, len(clicks)), len(clicks))
    seen.sort(key=lambda answer: -answer.stability)
    boxes = np.array([corners(answer.box) for answer in seen]).reshape(-1, 4)
    unlike = thinned(boxes, chosen.box_overlap, len(boxes)).tolist()
    answers: list[Answer] = []
    for start in range(0, len(unlike), step):
        some = [seen[i] for i in unlike[start : start + step]]
        answers += _look_again(predictor, image, some, boxes, chosen)
        if progress:
            progress(len(clicks) + min(start + step, len(unlike)), len(clicks) + len(unlike))
    return answers


def grid(points_per_side: int, height: int, width: int) -> list[Point]:
    """`points_per_side` squared clicks, evenly over an image, row by row."""
    shares = (np.arange(points_per_side) + 0.5) / points_per_side
    return [Point(x, y) for y in (shares * height).tolist() for x in (shares * width).tolist()]


def click_grids(
    predictor: Predictor, chosen: Everything, height: int, width: int
) -> list[tuple[Point, Window]]:
    """The clicks for an image and the window of each: a grid for each size, smallest first.

    The smallest windows, and those of crop layers, have `points_per_side` squared clicks. Windows
    k times as wide have fewer by k to the power of 1.6: large objects are few.
    """
    middle = predictor.click_windows(Point(width / 2, height / 2), height, width)
    long_side = max(height, width)
    usual = [i for i, window in enumerate(middle) if window.width >= _USUAL * long_side]
    base = usual[0] if usual else len(middle) - 1
    clicks = []
    for i in range(max(base - chosen.crop_n_layers, 0), len(middle)):
        wider = max(middle[i].width / middle[base].width, 1.0)
        side = max(round(chosen.points_per_side / wider**_THINNING), 1)
        clicks += [
            (point, predictor.click_windows(point, height, width)[i])
            for point in grid(side, height, width)
        ]
    return clicks


@dataclass(frozen=True, eq=False)
class _Seen:
    """The answer to a click: the box around its mask, in pixels of the image."""

    point: Point
    box: Box
    stability: float


def _look(
    predictor: Predictor,
    image: Image,
    clicks: Sequence[tuple[Point, Window]],
    chosen: Everything,
) -> list[_Seen]:
    """The answers to some clicks that may be objects: stable, under the click, seen whole."""
    height, width = image.shape[:2]
    maps = predictor.window_logits(image, [window for _, window in clicks], CLICK_CHANNEL)
    largest = predictor.click_windows(Point(0, 0), height, width)[-1].width
    answers = []
    for (point, window), logits in zip(clicks, maps, strict=True):
        middle = slice(len(logits) // 2 - 1, len(logits) // 2 + 1)
        stability = masks.stability(logits, chosen.stability_score_offset)
        if stability < chosen.stability_score_thresh or not (logits[middle, middle] > 0).any():
            continue
        mask = inside(logits, window, height, width)
        box = image_box(mask, window, height, width)
        # What runs out of its window is seen whole in a larger one, if it is an object.
        cut = window.width < largest and cut_off(mask, window, height, width)
        if box is not None and not cut:
            answers.append(_Seen(point, box, stability))
    return answers


def _look_again(
    predictor: Predictor,
    image: Image,
    seen: Sequence[_Seen],
    boxes: _Floats,
    chosen: Everything,
) -> list[Answer]:
    """What the box windows of some answers show, if it is good enough.

    The predicted IoU is that of boxes that people drew; here most boxes are of no object. So it is
    lowered where few of the first answers, `boxes` (N, 4), are like the mask.
    """
    height, width = image.shape[:2]
    windows = [predictor.box_window(first.box) for first in seen]
    maps = predictor.window_logits(image, windows, BOX_CHANNEL)
    scores = predictor.box_scores(maps, windows, height, width)
    answers = []
    for first, window, logits, score in zip(seen, windows, maps, scores.tolist(), strict=True):
        box = image_box(inside(logits, window, height, width), window, height, width)
        stability = masks.stability(logits, chosen.stability_score_offset)
        if box is None or stability < chosen.stability_score_thresh:
            continue
        alike = int(np.count_nonzero(masks.box_iou(np.array(corners(box)), boxes) > _ALIKE))
        believed = score * (1 - _DOUBT ** max(alike, 1))
        if believed >= chosen.least_iou:
            answers.append(Answer(first.box, window, logits.copy(), believed, first.point))
    return answers
