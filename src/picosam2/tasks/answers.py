"""Answers of everything mode: what a window shows of one object, and which answers are kept.

Masks are compared on a smaller image, and made at full size only for those that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2.geometry import Window
from picosam2.masks import Mask, Region
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import Segmentation

_COMPARED = 1024  # long side of the image on which masks are compared, pixels
_WHOLE = 0.95  # a mask of a larger share of the image is the image itself

Image = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the window of a box shows: logits (S, S), and the predicted IoU of the mask."""

    prompt: Box
    window: Window
    logits: Logits
    score: float
    point: Point | None = None
    """The click that led to the box, if one did."""


def inside(logits: Logits, window: Window, height: int, width: int) -> Mask:
    """A window's mask (S, S) without what lies in the padding around the image."""
    seen: Mask = np.zeros(logits.shape, np.bool_)
    part = geometry.inside(window, height, width, len(logits))
    np.greater(logits[part], 0, out=seen[part])
    return seen


def image_box(mask: Mask, window: Window, height: int, width: int) -> Box | None:
    """The box of a window's mask in pixels of the image, None if the mask is empty."""
    bounds = masks.bbox(mask)
    if bounds is None:
        return None
    ends = window.to_image(np.array(bounds, float).reshape(2, 2), len(mask))
    (x0, y0), (x1, y1) = np.clip(ends, 0, (width, height)).tolist()
    return Box(x0, y0, x1, y1)


def covers_image(mask: Mask, window: Window, height: int, width: int) -> bool:
    """Whether a window's mask, as `inside` gives it, is nearly all of the image."""
    share = float(mask.mean()) * (window.width * window.height) / (width * height)
    return share > _WHOLE


def cut_off(mask: Mask, window: Window, height: int, width: int) -> bool:
    """Whether a window's mask reaches an edge of it beyond which the image goes on."""
    return bool(
        (window.x0 > 0 and mask[:, 0].any())
        or (window.y0 > 0 and mask[0].any())
        or (window.x1 < width and mask[:, -1].any())
        or (window.y1 < height and mask[-1].any())
    )


def corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


@dataclass(frozen=True, eq=False)
class Kept:
    """An answer that no better one is like, and its mask on the image on which it was compared."""

    answer: Answer
    region: Region
    shrink: float
    """Side of that image over the side of the whole one, at most 1."""


def different(
    ranked: Sequence[Answer], height: int, width: int, *, threshold: float, least: int, most: int
) -> list[Kept]:
    """The answers, best first, whose masks overlap no better one by more than an IoU.

    Args:
        ranked: the answers, best first.
        height, width: of the image. Masks are compared on a smaller one, if it is large.
        threshold: the largest IoU of two masks that are both kept.
        least: pieces and holes of fewer pixels of the image are cleaned away before masks are
            compared, and smaller masks are left out.
        most: so many are kept at most.
    """
    shrink = min(_COMPARED / max(height, width), 1.0)
    kept: list[Kept] = []
    areas: list[int] = []
    for answer in ranked:
        if len(kept) == most:
            break
        region = _cleaned(_mask_region(answer, shrink, height, width), round(least * shrink**2))
        area = region.area
        if area < max(least * shrink**2, 1):
            continue
        if not any(
            _iou_exceeds(region, area, other.region, other_area, threshold)
            for other, other_area in zip(kept, areas, strict=True)
        ):
            kept.append(Kept(answer, region, shrink))
            areas.append(area)
    return kept


def _mask_region(answer: Answer, shrink: float, height: int, width: int) -> Region:
    """An answer's mask on the image made smaller by `shrink`."""
    window = answer.window
    region = geometry.paste_region(
        answer.logits,
        Window(*(shrink * side for side in (window.x0, window.y0, window.x1, window.y1))),
        round(shrink * height),
        round(shrink * width),
    )
    return Region(region.x, region.y, region.mask).tight()


def _cleaned(region: Region, least: int) -> Region:
    """A region's mask without pieces and holes of fewer than `least` pixels."""
    if least <= 1:
        return region
    mask = masks.remove_small(masks.fill_holes(region.mask, least - 1), least)
    return Region(region.x, region.y, mask)


def _iou_exceeds(a: Region, area_a: int, b: Region, area_b: int, threshold: float) -> bool:
    """Whether the IoU of two masks, which are not empty, is above a threshold."""
    if min(area_a, area_b) <= threshold * max(area_a, area_b):  # as much as it can be
        return False
    both = a.overlap(b)
    return both > threshold * (area_a + area_b - both)


def segmentation(image: Image, kept: Kept, least: int) -> Segmentation | None:
    """An answer's mask at full size, without pieces and holes of fewer than `least` pixels.

    None if nothing is left of it.
    """
    answer = kept.answer
    height, width = image.shape[:2]
    region = kept.region
    if kept.shrink < 1:
        region = _cleaned(_mask_region(answer, 1.0, height, width), least)
    if not region.mask.any():
        return None
    return Segmentation.of_region(
        region,
        (height, width),
        score=answer.score,
        prompt=Prompt(() if answer.point is None else (answer.point,), answer.prompt),
        window=answer.window,
        image=image,
    )
