"""Where the finder looks, and how its cells become boxes: the geometry of finding objects.

A *view* is a square window of an image: all of it, letterboxed, or one of the parts that overlap
each other, for small objects. The finder answers with *cells* on a few grids over the view; each
cell gives one box and its objectness, the IoU that the box is expected to have with an object.

Shape suffixes: B views, N cells of a view, S the view's side, K boxes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError
from picosam2.geometry import Window

FINDER = "finder"
"""The name of the finder that ships, and the `kind` that the metadata of a finder states."""

STRIDES = (8, 16, 32, 64)
"""Pixels of a view between the cells of each level."""

REACH = 2.5
"""Log-distances of 0 mean so many strides to each edge."""

OUTPUTS = 5
"""Numbers of a cell: objectness as a logit, then log-distances to left, top, right and bottom."""

PART = 0.45
"""Side of a part as a share of the image's long side, where the image is no panorama."""

_OVERLAP = 0.25  # of neighboring parts, at least, as a share of their side
_MAX_PARTS = 32
_FULL = 0.75  # of a part's side: what fills more of a part is left to a larger view
_ALL = 0.999  # a part as high as this share of an image is not filled by a background alone
_FARTHEST = 4.0  # a log-distance is cut off here: 136 strides

_Floats = npt.NDArray[np.float32]


def gives_no_masks(path: str | os.PathLike[str]) -> WeightsError:
    """The error where a finder's file is given and a segmenter's is needed."""
    return WeightsError(
        f"{path} is a finder, which gives boxes and no masks: use it with `picosam2 everything "
        "--finder`"
    )


def whole_window(height: int, width: int) -> Window:
    """The square around a whole image, which lies in its middle."""
    long_side = max(height, width)
    x, y = (width - long_side) / 2, (height - long_side) / 2
    return Window(x, y, x + long_side, y + long_side)


def part_windows(height: int, width: int, share: float = PART) -> list[Window]:
    """Squares that cover an image and overlap: six of most images, more of a panorama.

    None if one of them would be the whole image.
    """
    side = min(share * max(height, width), min(height, width))
    columns, rows = _starts(width, side), _starts(height, side)
    while len(columns) * len(rows) > _MAX_PARTS:
        side *= 1.25
        columns, rows = _starts(width, side), _starts(height, side)
    if len(columns) * len(rows) == 1:
        return []
    return [Window(x, y, x + side, y + side) for y in rows for x in columns]


def _starts(length: int, side: float) -> list[float]:
    """Where windows of one side begin so that they cover `length` evenly."""
    if side >= length:
        return [(length - side) / 2]
    count = math.ceil((length - _OVERLAP * side) / ((1 - _OVERLAP) * side) - 1e-9)
    starts: list[float] = np.linspace(0, length - side, max(count, 2)).tolist()
    return starts


def cell_centers(size: int) -> tuple[_Floats, _Floats]:
    """The centers (N, 2) x, y of all cells in pixels of a view of `size`, and their strides (N,).

    The cells of the finest level come first, row by row.
    """
    centers, strides = [], []
    for stride in STRIDES:
        places = (np.arange(size // stride, dtype=np.float32) + np.float32(0.5)) * stride
        rows, columns = np.meshgrid(places, places, indexing="ij")
        centers.append(np.stack([columns.ravel(), rows.ravel()], 1))
        strides.append(np.full(rows.size, stride, np.float32))
    return np.concatenate(centers), np.concatenate(strides)


def cell_count(size: int) -> int:
    """How many cells a view of `size` has."""
    return sum((size // stride) ** 2 for stride in STRIDES)


def decode(
    cells_B5N: npt.NDArray[np.floating[Any]],
    windows: Sequence[Window],
    height: int,
    width: int,
    size: int,
    least: float = 0.0,
) -> tuple[_Floats, _Floats]:
    """The boxes of several views of an image, best first.

    Args:
        cells_B5N: what the finder answered for each view.
        windows: the views on the image.
        height, width: of the image.
        size: side of the views, pixels.
        least: boxes of a lower objectness are left out.

    Returns:
        boxes (K, 4) x0, y0, x1, y1 in pixels of the image and inside it, and their objectness (K,),
        0..1. Boxes that are cut off by their view where the image goes on are left out, and so are
        those that fill nearly all of a part, which are pieces of a background more often than
        objects, and those of less than a pixel.
    """
    centers_N2, stride_N = cell_centers(size)
    boxes, scores = [], []
    for cells_5N, window in zip(cells_B5N, windows, strict=True):
        score_N = 1 / (1 + np.exp(-np.clip(cells_5N[0], -30, 30)))
        good_N = score_N >= least
        reach_4N = np.exp(np.clip(cells_5N[1:, good_N], -_FARTHEST, _FARTHEST)) * REACH
        reach_4N *= stride_N[good_N]
        x_N, y_N = centers_N2[good_N].T
        view_4N = np.stack(
            [x_N - reach_4N[0], y_N - reach_4N[1], x_N + reach_4N[2], y_N + reach_4N[3]]
        )
        origin = np.array([window.x0, window.y0, window.x0, window.y0])[:, None]
        boxes_4N = view_4N * (window.width / size) + origin
        limits = np.array([width, height, width, height])[:, None]
        inside_4N = np.clip(boxes_4N, 0, limits)
        whole_N = ~_cut_off(boxes_4N, window, height, width)
        sides_2N = inside_4N[2:] - inside_4N[:2]
        whole_N &= (sides_2N >= 1).all(0)
        if window.width < _ALL * min(height, width):
            whole_N &= np.sqrt(sides_2N.prod(0)) <= _FULL * window.width
        boxes.append(inside_4N.T[whole_N])
        scores.append(score_N[good_N][whole_N])
    boxes_K4, score_K = np.concatenate(boxes), np.concatenate(scores)
    order = np.argsort(-score_K, kind="stable")
    return boxes_K4[order].astype(np.float32), score_K[order].astype(np.float32)


def _cut_off(
    boxes_4N: npt.NDArray[np.floating[Any]], window: Window, height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Which boxes (4, N) reach an edge of the window beyond which the image goes on."""
    margin = 0.01 * window.width
    x0_N, y0_N, x1_N, y1_N = boxes_4N
    cut_N = np.zeros(x0_N.shape, np.bool_)
    if window.x0 > margin:
        cut_N |= x0_N < window.x0 + margin
    if window.y0 > margin:
        cut_N |= y0_N < window.y0 + margin
    if window.x1 < width - margin:
        cut_N |= x1_N > window.x1 - margin
    if window.y1 < height - margin:
        cut_N |= y1_N > window.y1 - margin
    return cut_N


def thinned(
    boxes_K4: npt.NDArray[np.floating[Any]], threshold: float, most: int
) -> npt.NDArray[np.int64]:
    """Which of boxes, best first, overlap no better one by more than an IoU; `most` of them.

    Greedy non-maximum suppression.
    """
    area_K = (boxes_K4[:, 2:] - boxes_K4[:, :2]).prod(1)
    waiting = np.arange(len(boxes_K4))
    kept: list[int] = []
    while len(waiting) and len(kept) < most:
        first, waiting = waiting[0], waiting[1:]
        kept.append(int(first))
        low = np.maximum(boxes_K4[waiting, :2], boxes_K4[first, :2])
        high = np.minimum(boxes_K4[waiting, 2:], boxes_K4[first, 2:])
        both = np.clip(high - low, 0, None).prod(1)
        waiting = waiting[both <= threshold * (area_K[waiting] + area_K[first] - both)]
    return np.array(kept, np.int64)
