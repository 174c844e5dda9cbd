"""Measures of masks, and comparisons of masks and of boxes.

Two empty masks agree: their IoU is 1. They hold the same pixels, namely none. The rule holds for
every IoU of this project: of masks, of regions, of boundaries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picosam2.errors import DataError
from picosam2.masks.runs import Ints, Mask, as_mask, check_same_shape, find_runs
from picosam2.prompts import Point

Floats = NDArray[np.float64]


def area(mask: ArrayLike) -> int:
    """The number of pixels on the object."""
    return int(np.count_nonzero(as_mask(mask)))


def bbox(mask: ArrayLike) -> tuple[int, int, int, int] | None:
    """The tight box (x0, y0, x1, y1) in pixels, its end exclusive; None for an empty mask."""
    checked = as_mask(mask)
    rows = np.flatnonzero(checked.any(axis=1))
    if not rows.size:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(checked[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def iou(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union of two masks of the same shape, 0..1; 1 if both are empty."""
    first, second = as_mask(a), as_mask(b)
    check_same_shape(first, second)
    both = int(np.count_nonzero(first & second))
    return iou_of_areas(both, int(np.count_nonzero(first)), int(np.count_nonzero(second)))


def iou_of_areas(both: int, area_a: int, area_b: int) -> float:
    """The IoU of two masks of `area_a` and `area_b` pixels that share `both`; 1 if both are empty.

    Every IoU of masks is this one.
    """
    union = area_a + area_b - both
    return both / union if union else 1.0


def box_iou(box: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> Floats:
    """IoU (N,) of a box (4,) with other boxes (N, 4), each x0, y0, x1, y1 with an area above 0."""
    low = np.maximum(others[:, :2], box[:2])
    high = np.minimum(others[:, 2:], box[2:])
    both: Floats = np.clip(high - low, 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    ious: Floats = both / (areas - both)
    return ious


def iou_matrix(a: Sequence[ArrayLike], b: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """`iou` of each mask of `a` with each of `b`: (len(a), len(b)) float64.

    Only the part that two bounding boxes share is looked at, so masks that lie apart cost nothing.
    """
    first = [as_mask(mask) for mask in a]
    second = [as_mask(mask) for mask in b]
    for mask in (*first, *second):
        check_same_shape((*first, *second)[0], mask)
    boxes_a, areas_a = _boxes_and_areas(first)
    boxes_b, areas_b = _boxes_and_areas(second)
    out: Floats = ((areas_a == 0)[:, None] & (areas_b == 0)[None, :]).astype(np.float64)
    shared = np.empty((len(first), len(second), 4), np.int64)
    shared[:, :, :2] = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    shared[:, :, 2:] = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    meet = (shared[:, :, 0] < shared[:, :, 2]) & (shared[:, :, 1] < shared[:, :, 3])
    for i, j in np.argwhere(meet):
        x0, y0, x1, y1 = shared[i, j]
        overlap = np.count_nonzero(first[i][y0:y1, x0:x1] & second[j][y0:y1, x0:x1])
        out[i, j] = iou_of_areas(int(overlap), int(areas_a[i]), int(areas_b[j]))
    return out


def stability(logits: NDArray[np.floating[Any]], offset: float = 1.0) -> float:
    """How little a mask depends on its threshold, 0..1: SAM's stability score.

    The IoU of `logits` > `offset` and `logits` > -`offset` ("Segment Anything", 2023, section
    B of the appendix); 0 if even the larger of the two is empty. `logits` is (H, W).
    """
    larger = np.count_nonzero(logits > -offset)
    return float(np.count_nonzero(logits > offset) / larger) if larger else 0.0


def center_point(mask: ArrayLike) -> Point:
    """The click that stands for a mask: the center of its box, or the mask pixel nearest to it.

    The center is taken if the pixel it falls in is on the object; otherwise the answer is the
    center of a pixel (the first in reading order if several are equally near). Raises `DataError`
    for an empty mask.
    """
    checked = as_mask(mask)
    box = bbox(checked)
    if box is None:
        raise DataError("an empty mask has no center: leave it out")
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if checked[int(y), int(x)]:
        return Point(x, y)
    runs = find_runs(checked)
    rows, first, last = runs.rows_and_columns()
    # Of the pixels of a run the nearest is the one x falls in, or the end on that side.
    columns = np.clip(math.ceil(x) - 1, first, last)
    nearest = int(np.argmin((rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2))
    return Point(int(columns[nearest]) + 0.5, int(rows[nearest]) + 0.5)


def _boxes_and_areas(masks: Sequence[Mask]) -> tuple[Ints, Ints]:
    boxes = np.array([bbox(mask) or (0, 0, 0, 0) for mask in masks], np.int64).reshape(-1, 4)
    return boxes, np.array([np.count_nonzero(mask) for mask in masks], np.int64)
