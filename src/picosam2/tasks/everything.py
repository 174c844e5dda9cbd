"""Every object of an image, without being pointed at: a grid of clicks, thinned out to masks.

The method is SAM's automatic mask generator ("Segment Anything", 2023, appendix B), and so are the
names of its settings. Three things differ. SAM lays crops over the image to find small objects;
here a click has windows of several sizes anyway. Each size has a grid of its own, and a crop layer
is one more grid of smaller windows. A mask that runs out of its window is dropped, as SAM drops
what runs out of a crop. And every mask is seen again through the window of its box, which is what
the network does best: mask and predicted IoU are those of this second look, and what one click
alone leads to is believed less than what several agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2._progress import Progress
from picosam2.errors import ConfigError
from picosam2.geometry import Window
from picosam2.images import ImageSource, load_image
from picosam2.masks import Mask, Region
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import Segmentation

_USUAL = 0.1  # windows as wide as this share of the image's long side need no crop layer
_THINNING = 0.8  # how fast a grid grows coarser with the size of its windows
_ALIKE = 0.6  # boxes with a higher IoU than this speak for each other
_DOUBT = (
    0.25  # how much of a score goes if one click alone says so; its square if two do, and so on
)
_COMPARED = 1024  # long side of the image on which masks are compared, pixels

Image = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]
_Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Everything:
    """Settings, named as in SAM's automatic mask generator. `ConfigError` if one is impossible."""

    points_per_side: int = 24
    """Clicks along each side of the image; windows of more than the smallest size have fewer."""
    points_per_batch: int = 64
    """Clicks whose windows are cut out and looked at together."""
    pred_iou_thresh: float = 0.7
    """Masks with a lower predicted IoU are dropped, 0..1; see `everything`."""
    stability_score_thresh: float = 0.4
    """Masks that are less stable than this are dropped, 0..1 (`masks.stability`)."""
    stability_score_offset: float = 1.0
    """How far that score moves the threshold, in logits."""
    box_nms_thresh: float = 0.9
    """Of first answers whose boxes have a higher IoU than this, one is looked at again."""
    mask_nms_thresh: float = 0.7
    """Of masks with a higher IoU than this, only the best is kept."""
    crop_n_layers: int = 0
    """Further grids of windows that are half as wide each time, for small objects."""
    min_mask_region_area: int = 32
    """Pieces and holes of fewer pixels than this are removed, and so are smaller masks."""
    max_masks: int = 300
    """So many masks are kept at most, the best ones."""

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "max_masks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in (
            "pred_iou_thresh",
            "stability_score_thresh",
            "box_nms_thresh",
            "mask_nms_thresh",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie within 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.stability_score_offset < 32:
            raise ConfigError("stability_score_offset must lie within 0 and 32 logits")
        for name in ("crop_n_layers", "min_mask_region_area"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")


def everything(
    image: ImageSource,
    predictor: Predictor,
    settings: Everything | None = None,
    *,
    progress: Progress | None = None,
) -> list[Segmentation]:
    """Masks of all objects that a grid of clicks finds in an image, the largest first.

    Args:
        image: a path, bytes, a PIL image or an array; see `load_image`.
        predictor: with weights that answer clicks.
        settings: how many clicks, and what is kept.
        progress: receives the number of finished windows; the second look adds to the total, too.

    Each result's prompt is the click that found it and the box through which it was seen; its score
    is the predicted IoU, a quarter less if no other click led to that mask. Masks may lie in one
    another, as a wheel in a car; none equals another by more than the settings allow. They take a
    byte a pixel each.

    Raises `ImageError` if the image cannot be read.

    >>> from picosam2 import Predictor, sample
    >>> found = everything(sample(), Predictor(), Everything(points_per_side=4))
    >>> all(one.mask.shape == (480, 640) for one in found)
    True
    """
    chosen = settings or Everything()
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    clicks = click_grids(predictor, chosen, height, width)
    step = chosen.points_per_batch
    seen: list[_Seen] = []
    for start in range(0, len(clicks), step):
        seen += _look(predictor, pixels, clicks[start : start + step], chosen)
        if progress:
            progress(min(start + step, len(clicks)), len(clicks))
    seen.sort(key=lambda answer: -answer.stability)
    boxes = np.array([_corners(answer.box) for answer in seen]).reshape(-1, 4)
    unlike = box_nms(boxes, chosen.box_nms_thresh)
    answers: list[_Answer] = []
    for start in range(0, len(unlike), step):
        some = [seen[i] for i in unlike[start : start + step]]
        answers += _look_again(predictor, pixels, some, boxes, chosen)
        if progress:
            progress(len(clicks) + min(start + step, len(unlike)), len(clicks) + len(unlike))
    shrink = min(_COMPARED / max(height, width), 1.0)
    answers.sort(key=lambda answer: -answer.score)
    kept = _different(answers, chosen, shrink, height, width)
    results = []
    for answer in kept:
        region = _clean_region(answer, chosen.min_mask_region_area, 1.0, height, width)
        if region is not None:
            results.append(_segmentation(pixels, answer, region))
    return sorted(results, key=lambda answer: -answer.area)


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


def box_nms(boxes: _Floats, threshold: float) -> list[int]:
    """Which of boxes (N, 4) x0, y0, x1, y1, best first, overlap no better one by more than an IoU.

    Greedy non-maximum suppression.
    """
    waiting = np.arange(len(boxes))
    kept: list[int] = []
    while len(waiting):
        first, waiting = int(waiting[0]), waiting[1:]
        kept.append(first)
        waiting = waiting[masks.box_iou(boxes[first], boxes[waiting]) <= threshold]
    return kept


@dataclass(frozen=True, eq=False)
class _Seen:
    """The answer to a click: the box around its mask, in pixels of the image."""

    point: Point
    box: Box
    stability: float


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the box window of such an answer shows: logits (S, S)."""

    point: Point
    prompt: Box
    window: Window
    logits: _Logits
    score: float


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
        mask = _inside(logits, window, height, width)
        box = _image_box(mask, window, height, width)
        # What runs out of its window is seen whole in a larger one, if it is an object.
        cut = window.width < largest and _cut_off(mask, window, height, width)
        if box is not None and not cut:
            answers.append(_Seen(point, box, stability))
    return answers


def _inside(logits: _Logits, window: Window, height: int, width: int) -> Mask:
    """A window's mask (S, S) without what lies in the padding around the image."""
    side = len(logits)
    centres = window.to_image(np.arange(side)[:, None] + np.full((1, 2), 0.5), side)
    columns, rows = ((centres > 0) & (centres < (width, height))).T
    inside: Mask = (logits > 0) & rows[:, None] & columns
    return inside


def _image_box(mask: Mask, window: Window, height: int, width: int) -> Box | None:
    """The box of a window's mask in pixels of the image, None if the mask is empty."""
    bounds = masks.bbox(mask)
    if bounds is None:
        return None
    corners = window.to_image(np.array(bounds, float).reshape(2, 2), len(mask))
    (x0, y0), (x1, y1) = np.clip(corners, 0, (width, height)).tolist()
    return Box(x0, y0, x1, y1)


def _cut_off(mask: Mask, window: Window, height: int, width: int) -> bool:
    """Whether a window's mask reaches an edge of it beyond which the image goes on."""
    return bool(
        (window.x0 > 0 and mask[:, 0].any())
        or (window.y0 > 0 and mask[0].any())
        or (window.x1 < width and mask[:, -1].any())
        or (window.y1 < height and mask[-1].any())
    )


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


def _look_again(
    predictor: Predictor,
    image: Image,
    seen: Sequence[_Seen],
    boxes: _Floats,
    chosen: Everything,
) -> list[_Answer]:
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
        box = _image_box(_inside(logits, window, height, width), window, height, width)
        stability = masks.stability(logits, chosen.stability_score_offset)
        if box is None or stability < chosen.stability_score_thresh:
            continue
        alike = int(np.count_nonzero(masks.box_iou(np.array(_corners(box)), boxes) > _ALIKE))
        believed = score * (1 - _DOUBT ** max(alike, 1))
        if believed >= chosen.pred_iou_thresh:
            answers.append(_Answer(first.point, first.box, window, logits.copy(), believed))
    return answers


def _different(
    ranked: Sequence[_Answer], chosen: Everything, shrink: float, height: int, width: int
) -> list[_Answer]:
    """The answers, best first, whose masks overlap no better one too much; `max_masks` of them.

    Masks are compared on the image made smaller by `shrink`, so that a large one costs no more.
    """
    kept: list[_Answer] = []
    regions: list[tuple[Region, int]] = []
    for answer in ranked:
        if len(kept) == chosen.max_masks:
            break
        region = _clean_region(answer, chosen.min_mask_region_area, shrink, height, width)
        if region is None:
            continue
        area = region.area
        if not any(_iou_exceeds(region, area, *other, chosen.mask_nms_thresh) for other in regions):
            kept.append(answer)
            regions.append((region, area))
    return kept


def _clean_region(
    answer: _Answer, min_area: int, shrink: float, height: int, width: int
) -> Region | None:
    """An answer's mask on the image made smaller by `shrink`, its small pieces cleaned up.

    None if nothing is left of it.
    """
    window = answer.window
    region = geometry.paste_region(
        answer.logits,
        Window(*(shrink * side for side in (window.x0, window.y0, window.x1, window.y1))),
        round(shrink * height),
        round(shrink * width),
    )
    mask = region.mask
    least = min_area * shrink**2
    if least > 1:
        mask = masks.remove_small(masks.fill_holes(mask, least - 1), least)
    return Region(region.x, region.y, mask).tight() if mask.any() else None


def _iou_exceeds(a: Region, area_a: int, b: Region, area_b: int, threshold: float) -> bool:
    """Whether the IoU of two masks, which are not empty, is above a threshold."""
    if min(area_a, area_b) <= threshold * max(area_a, area_b):  # as much as it can be
        return False
    both = a.overlap(b)
    return both > threshold * (area_a + area_b - both)


def _segmentation(image: Image, answer: _Answer, region: Region) -> Segmentation:
    height, width = image.shape[:2]
    return Segmentation.of_region(
        region,
        (height, width),
        score=answer.score,
        prompt=Prompt((answer.point,), answer.prompt),
        window=answer.window,
        image=image,
    )
