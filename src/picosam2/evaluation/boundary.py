"""Masks compared along their outlines: boundary IoU (Cheng et al. 2021, arXiv 2103.16562).

Plain IoU hardly falls when a large object's outline is wrong. Boundary IoU compares only the pixels
of each mask that lie within a given distance of its own outline. The morphology that this takes
(erode, open, close, all with squares) is here, too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from picosam2.masks import Mask, bbox, iou

DILATION = 0.02
"""Width of the boundary as a share of the image's diagonal, as in the paper and in LVIS."""


def boundary_width(height: int, width: int) -> int:
    """The boundary's width in pixels on an image of that size, at least 1."""
    return max(1, round(DILATION * float(np.hypot(height, width))))


def erode(mask: Mask, radius: int) -> Mask:
    """The pixels of `mask` (H, W) bool whose square of side 2 `radius` + 1 lies wholly in it.

    What is outside the array is not in the mask, so a mask that reaches the border is eroded there
    too. The same as `radius` erosions by a 3x3 square, but its cost does not depend on `radius`.
    """
    if radius <= 0:
        return mask.copy()
    return _all_around(_all_around(mask, radius).T, radius).T


def _all_around(mask: Mask, radius: int) -> Mask:
    """Whether each pixel and its `radius` neighbors above and below are all set."""
    height = len(mask)
    # Rows since the last pixel that is not set, or since the border.
    rows = np.arange(1, height + 1, dtype=np.int32)[:, None]
    last = np.maximum.accumulate(np.where(mask, np.int32(0), rows), axis=0)
    run = rows - last
    eroded = np.zeros_like(mask)
    if height > 2 * radius:
        eroded[radius : height - radius] = run[2 * radius :] > 2 * radius
    return eroded


def opened(mask: Mask, radius: int) -> Mask:
    """The pixels of `mask` (H, W) bool that some square of side 2 `radius` + 1 within it covers.

    What is narrower than the square is gone.
    """
    outside = np.pad(~erode(mask, radius), radius, constant_values=True)
    height, width = mask.shape
    return ~erode(outside, radius)[radius : radius + height, radius : radius + width]


def closed(mask: Mask, radius: int) -> Mask:
    """`mask` (H, W) bool and the gaps in it that are narrower than 2 `radius` + 1 pixels.

    What is outside the array is background.
    """
    height, width = mask.shape
    edge = 2 * radius + 1
    background = opened(np.pad(~mask, edge, constant_values=True), radius)
    return ~background[edge : edge + height, edge : edge + width]


def boundary_iou(a: Mask, b: Mask, *, width: int | None = None) -> float:
    """IoU of the boundary pixels of two masks (H, W) bool, 0..1; 1 if both are empty.

    `width` is the boundary's, in pixels; by default `boundary_width` of the masks' size. The
    distance is the chessboard's, as in the authors' code.
    """
    if width is None:
        width = boundary_width(*a.shape)
    bounds = bbox(a | b)
    if bounds is None:
        return 1.0
    x0, y0, x1, y1 = bounds
    first, second = a[y0:y1, x0:x1], b[y0:y1, x0:x1]
    rim_a, rim_b = first & ~erode(first, width), second & ~erode(second, width)
    return iou(rim_a, rim_b)


def deepest(mask: Mask, without: Iterable[tuple[int, int]] = ()) -> tuple[int, int, int] | None:
    """The pixel of `mask` deepest inside it: (x, y, radius), or None for an empty mask.

    `radius` is the largest for which `erode` leaves something; of the pixels that are left, the one
    nearest to their mean is taken. The pixels `without`, each x and y, are passed over; None if
    there are no others.
    """
    bounds = bbox(mask)
    if bounds is None:
        return None
    x0, y0, x1, y1 = bounds
    patch = mask[y0:y1, x0:x1]
    allowed = np.ones_like(patch)
    for x, y in without:
        if x0 <= x < x1 and y0 <= y < y1:
            allowed[y - y0, x - x0] = False
    low, high = 0, (min(patch.shape) + 1) // 2
    left = patch & allowed
    if not left.any():
        return None
    while high - low > 1:
        middle = (low + high) // 2
        smaller = erode(patch, middle) & allowed
        if smaller.any():
            low, left = middle, smaller
        else:
            high = middle
    rows, columns = np.nonzero(left)
    distance = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    nearest = int(np.argmin(distance))
    return int(columns[nearest]) + x0, int(rows[nearest]) + y0, low
