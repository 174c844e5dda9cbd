"""The connected pieces of a mask: number them, and clean a mask up by them.

Pixels of the object touch through edges and corners (8-connected), pixels of the background
through edges only (4-connected). Only such a pair obeys the Jordan curve theorem: a closed line of
object pixels parts the inside from the outside (Rosenfeld, "Connectivity in Digital Pictures",
JACM 1970).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picosam2.masks.runs import Ints, Mask, Runs, as_mask, expand, find_runs, paint
from picosam2.prompts import Point


def label(mask: ArrayLike) -> tuple[NDArray[np.int32], int]:
    """Number the connected pieces (8-connected) of a mask.

    Returns labels (H, W) int32, 0 off the object and 1..n on its pieces in reading order of their
    first pixels, and n.
    """
    runs = find_runs(as_mask(mask))
    numbers, count = _connect(runs, corners=True)
    return paint(runs, (numbers + 1).astype(np.int32)), count


def remove_small(mask: ArrayLike, min_area: float) -> Mask:
    """The mask without its pieces (8-connected) of fewer than `min_area` pixels. May be empty."""
    runs = find_runs(as_mask(mask))
    numbers, count = _connect(runs, corners=True)
    areas = np.bincount(numbers, weights=runs.ends - runs.starts, minlength=count)
    return paint(runs, areas[numbers] >= min_area)


def fill_holes(mask: ArrayLike, max_area: float = math.inf) -> Mask:
    """The mask with its holes of at most `max_area` pixels filled.

    A hole is a piece of background (4-connected) that does not reach the image's border.
    """
    checked = as_mask(mask)
    runs = find_runs(~checked)
    numbers, count = _connect(runs, corners=False)
    areas = np.bincount(numbers, weights=runs.ends - runs.starts, minlength=count)
    rows, first, last = runs.rows_and_columns()
    at_border = (rows == 0) | (rows == runs.height - 1) | (first == 0) | (last == runs.width - 1)
    is_hole = np.ones(count, np.bool_)
    is_hole[numbers[at_border]] = False
    return checked | paint(runs, (is_hole & (areas <= max_area))[numbers])


def keep_at(mask: ArrayLike, points: Sequence[Point]) -> Mask:
    """The pieces (8-connected) of a mask that the points mean, without the others.

    A positive point means the piece it lies on, or else the nearest one, so that a click which
    narrowly misses does not lose the object; negative points mean nothing here. Without a
    positive point the mask is returned whole.
    """
    checked = as_mask(mask)
    positive = [point for point in points if point.positive]
    runs = find_runs(checked)
    if not positive or not runs.starts.size:
        return checked.copy()
    numbers, count = _connect(runs, corners=True)
    rows, first, last = runs.rows_and_columns()
    kept = np.zeros(count, np.bool_)
    for point in positive:
        # Distances are to pixel centers: the center of the pixel it lies in is the nearest one.
        x, y = point.x - 0.5, point.y - 0.5
        across = np.maximum(np.maximum(first - x, x - last), 0)
        kept[numbers[np.argmin(across**2 + (rows - y) ** 2)]] = True
    return paint(runs, kept[numbers])


def _connect(runs: Runs, *, corners: bool) -> tuple[Ints, int]:
    """The piece (0..n-1, in reading order) of each run, and n.

    Union-find, all pairs of touching runs at once: in each round every root that touches a
    smaller root is hung below one, then all paths are halved until they are flat. A root that is
    not hung has neighbors that are, so each round at least halves the roots that are left
    (Shiloach and Vishkin, "An O(log n) Parallel Connectivity Algorithm", 1982).
    """
    starts, ends, stride = runs.starts, runs.ends, runs.stride
    # The runs of the row above that touch run i are those from low[i] to high[i].
    low = np.searchsorted(ends, starts - stride, "left" if corners else "right")
    high = np.searchsorted(starts, ends - stride, "right" if corners else "left")
    below, nth = expand(np.maximum(high - low, 0))
    above = low[below] + nth

    parents = np.arange(starts.size)
    while True:
        roots_above, roots_below = parents[above], parents[below]
        differ = roots_above != roots_below
        if not differ.any():
            break
        above, below = above[differ], below[differ]
        roots_above, roots_below = roots_above[differ], roots_below[differ]
        parents[np.maximum(roots_above, roots_below)] = np.minimum(roots_above, roots_below)
        while True:
            grandparents = parents[parents]
            if np.array_equal(grandparents, parents):
                break
            parents = grandparents

    # A root is the smallest of its piece, so counting the roots numbers them in reading order.
    is_root = parents == np.arange(starts.size)
    return (np.cumsum(is_root) - 1)[parents], int(np.count_nonzero(is_root))
