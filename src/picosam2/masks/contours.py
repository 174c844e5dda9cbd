"""The contours of a mask as polygons, and polygons filled to a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picosam2.errors import ConfigError, DataError
from picosam2.masks.ops import bbox
from picosam2.masks.runs import Ints, Mask, Runs, as_mask, expand, paint


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One closed contour. `points` is (N, 2) float64, N >= 3, rows of (x, y) pixels.

    Pixel (column, row) covers column..column + 1, row..row + 1. The last point joins the first.
    Outer contours run clockwise on the screen, holes the other way, so that the object is always
    on the right hand.
    """

    points: NDArray[np.float64]
    hole: bool


def polygons(mask: ArrayLike, tolerance: float = 0.0) -> list[Polygon]:
    """The contours of a mask, in reading order of their first corners.

    With `tolerance` 0 they follow the pixels' edges exactly: corners are whole numbers and each is
    a turn. A piece (8-connected) has one outer contour, which touches itself where two of its
    pixels meet at a corner only, and one more for each hole (4-connected).

    A `tolerance` above 0, in pixels, simplifies each contour so that no corner of the exact one
    is farther from it than that (Douglas and Peucker, 1973). A contour that would collapse to less
    than a triangle, or turn inside out, is simplified less.
    """
    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"a polygon's tolerance must be 0 or more pixels, not {tolerance}")
    checked = as_mask(mask)
    box = bbox(checked)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    rings, holes = _trace(checked[y0:y1, x0:x1])
    rings = _simplify([ring + np.array([x0, y0], np.float64) for ring in rings], tolerance)
    return [Polygon(ring, hole) for ring, hole in zip(rings, holes, strict=True)]


def fill_polygons(polygons: Sequence[Polygon], height: int, width: int) -> Mask:
    """Fill polygons to a mask (`height`, `width`): the inverse of `polygons` at tolerance 0.

    A pixel is set if its center is inside an odd number of contours (even-odd rule), so holes need
    no special care. A center exactly on a contour counts as inside if the inside lies to its
    right, or beneath it where the contour is level. Contours may reach past the image.

    Raises `DataError` for points that are not (N, 2) finite numbers with N >= 3.
    """
    for polygon in polygons:
        shape = polygon.points.shape
        if len(shape) != 2 or shape[0] < 3 or shape[1] != 2:
            raise DataError(f"a polygon's points are an array (N, 2) with N >= 3, not {shape}")
    if not polygons:
        return np.zeros((height, width), np.bool_)
    begin = np.concatenate([polygon.points for polygon in polygons])
    if not np.isfinite(begin).all():
        raise DataError("a polygon's points must be finite numbers")
    sizes = np.array([len(polygon.points) for polygon in polygons])
    following = np.arange(1, len(begin) + 1)
    following[np.cumsum(sizes) - 1] = np.cumsum(sizes) - sizes
    end = begin[following]
    upper = np.where((begin[:, 1] <= end[:, 1])[:, None], begin, end)
    lower = np.where((begin[:, 1] <= end[:, 1])[:, None], end, begin)

    # An edge crosses the rows whose center y has upper.y <= y < lower.y.
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    edge, nth = expand(stop - first)
    rows = first[edge] + nth
    run, rise = (lower - upper)[edge].T
    crossing = upper[edge, 0] + run * ((rows + 0.5 - upper[edge, 1]) / rise)
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)

    # A row has an even number of crossings; between the first and the second is inside, and so on.
    positions = np.sort(rows * (width + 1) + columns)
    runs = Runs(positions[0::2], positions[1::2], height, width)
    return paint(runs, np.ones(positions.size // 2, np.bool_))


def _trace(mask: Mask) -> tuple[list[NDArray[np.float64]], list[bool]]:
    """The exact contours of a mask, each (N, 2) of x, y, and which of them are holes.

    Edges between object and background are joined to straight segments with the object on the
    right hand. At most corners one horizontal and one vertical segment meet; where two object
    pixels meet at a corner only, two of each do, and the pairs are chosen such that the contour
    passes from one pixel to the other, which makes the object 8-connected.
    """
    height, width = mask.shape
    stride = width + 1  # corners are numbered y * stride + x
    start, stop, sign = _segments(mask)
    right = sign > 0  # below an edge with the object beneath it, one walks to the right
    across_from, across_to = np.where(right, start, stop), np.where(right, stop, start)
    start, stop, sign = _segments(mask.T)
    start = start % (height + 1) * stride + start // (height + 1)
    stop = stop % (height + 1) * stride + stop // (height + 1)
    up = sign > 0
    along_from, along_to = np.where(up, stop, start), np.where(up, start, stop)

    # Both sides of a joint list the same corners, so sorting matches them. At a corner with two
    # joints, rightward is followed by up and leftward by down; down by right and up by left.
    turn = np.empty(right.size, np.int64)
    turn[np.argsort(2 * across_to + ~right)] = np.argsort(2 * along_from + ~up)
    back = np.empty(right.size, np.int64)
    back[np.argsort(2 * along_to + up)] = np.argsort(2 * across_from + ~right)
    following = back[turn].tolist()

    order: list[int] = []
    begins = []
    seen = bytearray(len(following))
    for first in range(len(following)):
        if not seen[first]:
            begins.append(len(order))
            here = first
            while not seen[here]:
                seen[here] = 1
                order.append(here)
                here = following[here]
    corners = np.column_stack((across_from[order], across_to[order])).ravel()
    points = np.column_stack((corners % stride, corners // stride)).astype(np.float64)
    rings = np.split(points, 2 * np.array(begins[1:], np.int64))
    # A contour's first segment is its topmost: beneath it is the object, or a hole.
    holes = ~right[np.array(order)[begins]]
    return rings, holes.tolist()


def _segments(mask: Mask) -> tuple[Ints, Ints, NDArray[np.int8]]:
    """The horizontal contour segments: first and last corner, left to right, and a sign.

    The sign is 1 where the object is below and -1 where it is above.
    """
    height, width = mask.shape
    steps = np.zeros((height + 1, width + 1), np.int8)
    steps[:-1, :-1] = mask
    steps[1:, :-1] -= mask
    flat = steps.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=np.int8(0)))
    sign = flat[changes]
    inside = np.flatnonzero(sign)
    return changes[inside], changes[inside + 1], sign[inside]


def _simplify(rings: list[NDArray[np.float64]], tolerance: float) -> list[NDArray[np.float64]]:
    """Douglas-Peucker on each ring, with less tolerance for one that would not survive it."""
    result = list(rings)
    waiting = list(range(len(rings)))
    # Two successive sides are 1 or longer and at right angles, so below 1 / sqrt(5) no line comes
    # near enough to their ends to let a corner go: the exact ring is all there is.
    while waiting and tolerance > 0.4:
        failed = []
        simple = _douglas_peucker([rings[i] for i in waiting], tolerance)
        for i, ring in zip(waiting, simple, strict=True):
            if len(ring) >= 3 and _signed_area(ring) * _signed_area(rings[i]) > 0:
                result[i] = ring
            else:
                failed.append(i)
        waiting = failed
        tolerance /= 2
    return result


def _signed_area(points: NDArray[np.float64]) -> float:
    """The area of a ring by the shoelace formula, above 0 if it runs clockwise on the screen."""
    x, y = (points - points[0]).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2  # the last side ends at the origin: no term


def _douglas_peucker(
    rings: list[NDArray[np.float64]], tolerance: float
) -> list[NDArray[np.float64]]:
    """The rings without the points that the tolerance spares; all of them side by side.

    Each ring is cut at its first point and the one farthest from it, and then, round by round, at
    the point farthest from each chord while that is farther than `tolerance`.
    """
    closed = np.concatenate([part for ring in rings for part in (ring, ring[:1])])
    sizes = np.array([len(ring) + 1 for ring in rings])
    last = np.cumsum(sizes) - 1
    first = last - sizes + 1
    keep = np.zeros(len(closed), np.bool_)
    keep[first] = True
    limit = -1.0  # the first cut is made in any case
    while first.size:
        chord_of, nth = expand(last - first - 1)
        index = first[chord_of] + 1 + nth
        chord = (closed[last] - closed[first])[chord_of]
        offset = closed[index] - closed[first[chord_of]]
        # The distance to the chord itself, not to the line through it: a ring may run back.
        along = (offset * chord).sum(axis=1) / np.maximum((chord**2).sum(axis=1), 1e-12)
        offset -= np.clip(along, 0, 1)[:, None] * chord
        distance = (offset**2).sum(axis=1)
        worst = np.maximum.reduceat(distance, np.flatnonzero(nth == 0))
        at_worst = np.flatnonzero(distance == worst[chord_of])
        _, earliest = np.unique(chord_of[at_worst], return_index=True)
        middle = index[at_worst[earliest]]
        cut = worst > limit
        limit = tolerance**2
        keep[middle[cut]] = True
        first, last = (
            np.concatenate((first[cut], middle[cut])),
            np.concatenate((middle[cut], last[cut])),
        )
        long = last - first > 1
        first, last = first[long], last[long]
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    return [closed[a:b][keep[a:b]] for a, b in pairwise(bounds.tolist())]
