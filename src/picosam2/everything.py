"""Every object of a photo, without being pointed at: a grid of clicks, thinned out to masks.

The method is SAM's automatic mask generator ("Segment Anything", 2023, appendix B), and so are the
names of its settings. Two things differ. SAM lays crops over the photo to find small objects; here
every click is already asked at several scales, so there are no crop layers. And what survives is
seen once more through the box of its mask, which sharpens it as it does for a user's click.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2.errors import ConfigError
from picosam2.geometry import Region, Window
from picosam2.images import ImageSource, load_image
from picosam2.masks import Mask
from picosam2.predictor import CLICK_CHANNEL, MULTIMASKS, Candidate, Predictor
from picosam2.prompts import Point, Prompt
from picosam2.results import Segmentation

_PASTE = 32  # masks that are pasted at a time: each takes four bytes a pixel of its window

Picture = npt.NDArray[np.uint8]
_Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Everything:
    """Settings, named as in SAM's automatic mask generator. `ConfigError` if one is impossible."""

    points_per_side: int = 16
    """Clicks along each side of the photo; the grid has its square."""
    points_per_batch: int = 64
    """Clicks whose windows go through the network together."""
    pred_iou_thresh: float = 0.5
    """Masks with a lower predicted IoU are dropped, 0..1."""
    stability_score_thresh: float = 0.2
    """Masks that are less stable than this are dropped, 0..1 (`masks.stability`)."""
    stability_score_offset: float = 1.0
    """How far that score moves the threshold, in logits."""
    box_nms_thresh: float = 0.7
    """Of answers whose boxes have a higher IoU than this, only the best is looked at again."""
    mask_nms_thresh: float = 0.7
    """Of masks with a higher IoU than this, only the best is kept."""
    min_mask_region_area: int = 32
    """Pieces and holes of fewer pixels than this are removed, and so are smaller masks."""
    max_masks: int = 1000
    """So many masks are kept at most, the best ones."""

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "max_masks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie within 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.mask_nms_thresh <= 1:
            raise ConfigError(
                f"mask_nms_thresh must lie within 0 and 1, not {self.mask_nms_thresh}"
            )
        if not 0 <= self.stability_score_offset < 32:
            raise ConfigError("stability_score_offset must lie within 0 and 32 logits")
        if self.min_mask_region_area < 0:
            raise ConfigError("min_mask_region_area must be 0 or more pixels")


def everything(
    image: ImageSource,
    predictor: Predictor,
    settings: Everything | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Segmentation]:
    """Masks of all objects that a grid of clicks finds in a photo, the largest first.

    Args:
        image: a path, bytes, a PIL image or an array; see `load_image`.
        predictor: with weights that answer clicks.
        settings: how many clicks, and what is kept.
        progress: is told how many clicks of how many are done.

    Each result's prompt is the click that found it. Masks may lie in one another, as a wheel in a
    car; none equals another by more than the settings allow. They take a byte a pixel each.

    Raises `ImageError` if the photo cannot be read.

    >>> from picosam2 import Predictor, sample
    >>> found = everything(sample(), Predictor(), Everything(points_per_side=2))
    >>> all(one.mask.shape == (480, 640) for one in found)
    True
    """
    chosen = settings or Everything()
    picture = load_image(image)
    height, width = picture.shape[:2]
    points = grid(chosen.points_per_side, height, width)
    seen: list[_Seen] = []
    for start in range(0, len(points), chosen.points_per_batch):
        seen += _look(predictor, picture, points[start : start + chosen.points_per_batch], chosen)
        if progress:
            progress(min(start + chosen.points_per_batch, len(points)), len(points))
    seen.sort(key=lambda one: -one.score)
    kept = box_nms(np.array([one.box for one in seen]).reshape(-1, 4), chosen.box_nms_thresh)
    patches: list[_Patch] = []
    for start in range(0, len(kept), _PASTE):
        some = [seen[i] for i in kept[start : start + _PASTE]]
        patches += _sharpen(predictor, picture, some, chosen)
    best = _mask_nms(patches, chosen.mask_nms_thresh, chosen.max_masks)
    found = [_segmentation(picture, one) for one in best]
    return sorted(found, key=lambda one: -one.area)


def grid(points_per_side: int, height: int, width: int) -> list[Point]:
    """`points_per_side` squared clicks, evenly over a photo, row by row."""
    shares = (np.arange(points_per_side) + 0.5) / points_per_side
    return [Point(x, y) for y in (shares * height).tolist() for x in (shares * width).tolist()]


def box_nms(boxes: _Boxes, threshold: float) -> list[int]:
    """Which of boxes (N, 4) x0, y0, x1, y1, best first, overlap no better one by more than an IoU.

    Greedy non-maximum suppression.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.arange(len(boxes))
    kept: list[int] = []
    while len(waiting):
        first, waiting = int(waiting[0]), waiting[1:]
        kept.append(first)
        low = np.maximum(boxes[waiting, :2], boxes[first, :2])
        high = np.minimum(boxes[waiting, 2:], boxes[first, 2:])
        both = np.clip(high - low, 0, None).prod(1)
        union = areas[waiting] + areas[first] - both
        waiting = waiting[both <= threshold * union]
    return kept


@dataclass(frozen=True, eq=False)
class _Seen:
    """An answer to a click as the network gave it: logits (S, S) of a window."""

    point: Point
    window: Window
    logits: npt.NDArray[np.float32]
    score: float
    box: tuple[float, float, float, float]
    """Around the mask, in pixels of the photo."""


@dataclass(frozen=True, eq=False)
class _Patch:
    """A mask (h, w) from column x and row y of the photo, without empty rows or columns."""

    x: int
    y: int
    mask: Mask
    score: float
    point: Point
    window: Window

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))


def _look(
    predictor: Predictor, picture: Picture, points: Sequence[Point], chosen: Everything
) -> list[_Seen]:
    """The answers to some clicks that pass the filters; up to three for each click."""
    height, width = picture.shape[:2]
    ladders = [predictor.click_windows(point, height, width) for point in points]
    windows = [window for ladder in ladders for window in ladder]
    maps = predictor.window_logits(picture, windows, CLICK_CHANNEL)
    found = []
    for number, (point, ladder) in enumerate(zip(points, ladders, strict=True)):
        logits = maps[number * len(ladder) : (number + 1) * len(ladder)]
        scores = predictor.click_scores(logits, ladder, height, width)
        for i in np.argsort(-scores, kind="stable")[:MULTIMASKS]:
            one, score = logits[i], float(scores[i])
            middle = one.shape[0] // 2
            if score < chosen.pred_iou_thresh or not (one[middle - 1 : middle + 1] > 0).any():
                continue
            if masks.stability(one, chosen.stability_score_offset) < chosen.stability_score_thresh:
                continue
            box = _image_box(one, ladder[i], height, width)
            if box is not None:
                found.append(_Seen(point, ladder[i], one.copy(), score, box))
    return found


def _image_box(
    logits: npt.NDArray[np.float32], window: Window, height: int, width: int
) -> tuple[float, float, float, float] | None:
    """The box of a window's mask in pixels of the photo, None if nothing of it is inside."""
    bounds = masks.bbox(logits > 0)
    if bounds is None:
        return None
    corners = window.to_image(np.array(bounds, float).reshape(2, 2), logits.shape[0])
    (x0, y0), (x1, y1) = np.clip(corners, 0, (width, height)).tolist()
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _sharpen(
    predictor: Predictor, picture: Picture, some: Iterable[_Seen], chosen: Everything
) -> list[_Patch]:
    """The second look of the predictor, and the clean-up of small regions."""
    height, width = picture.shape[:2]
    seen = list(some)
    first = [
        Candidate(
            one.window, geometry.paste_region(one.logits, one.window, height, width), one.score
        )
        for one in seen
    ]
    found = []
    for one, before, better in zip(seen, first, predictor.second_pass(picture, first), strict=True):
        # A second look that lost the click looked at something else inside the same box.
        final = better if _covers(better.region, one.point) else before
        mask = final.region.logits > 0
        if chosen.min_mask_region_area > 1:
            mask = masks.fill_holes(mask, chosen.min_mask_region_area - 1)
            mask = masks.remove_small(mask, chosen.min_mask_region_area)
        box = masks.bbox(mask)
        if box is not None:
            x0, y0, x1, y1 = box
            found.append(
                _Patch(
                    x=final.region.x + x0,
                    y=final.region.y + y0,
                    mask=mask[y0:y1, x0:x1].copy(),
                    score=one.score,
                    point=one.point,
                    window=final.window,
                )
            )
    return found


def _covers(region: Region, point: Point) -> bool:
    """Whether the pixel of a click is in the mask of a region."""
    x, y = int(point.x) - region.x, int(point.y) - region.y
    rows, columns = region.logits.shape
    return 0 <= x < columns and 0 <= y < rows and bool(region.logits[y, x] > 0)


def _mask_nms(patches: Sequence[_Patch], threshold: float, limit: int) -> list[_Patch]:
    """The patches, best first, that overlap no better one by more than an IoU; `limit` of them."""
    kept: list[_Patch] = []
    for one in sorted(patches, key=lambda patch: -patch.score):
        if len(kept) == limit:
            break
        if all(_iou(one, other) <= threshold for other in kept):
            kept.append(one)
    return kept


def _iou(a: _Patch, b: _Patch) -> float:
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    y1 = min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    if x0 >= x1 or y0 >= y1:
        return 0.0
    seen_a = a.mask[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]
    seen_b = b.mask[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]
    both = int(np.count_nonzero(seen_a & seen_b))
    return both / (a.area + b.area - both)


def _segmentation(picture: Picture, patch: _Patch) -> Segmentation:
    mask = np.zeros(picture.shape[:2], np.bool_)
    rows, columns = patch.mask.shape
    mask[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.mask
    return Segmentation(
        mask=mask,
        score=patch.score,
        prompt=Prompt(points=(patch.point,)),
        window=patch.window,
        image=picture,
    )
