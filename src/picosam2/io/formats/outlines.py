"""Outlines of masks as closed rings of points, and rings filled to masks again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picosam2 import masks
from picosam2.errors import DataError
from picosam2.masks import Mask, Polygon

_MAX_CROSSINGS: Final = 50_000_000  # rows crossed by a read polygon's edges: some 2 GB to fill


def outlines(mask: Mask, tolerance: float = 0.0) -> list[NDArray[np.float64]]:
    """One closed ring (N, 2) of x, y pixels for each piece of a mask, its holes joined by keyholes.

    The even-odd areas of the rings together are the mask: exactly so at `tolerance` 0, in pixels.

    >>> outlines(np.ones((1, 2), np.bool_))[0].tolist()
    [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]
    """
    pieces, count = masks.label(mask)
    rings = []
    for number in range(1, count + 1):
        outer, *holes = _contours(pieces == number if count > 1 else mask, tolerance)
        rings.append(_join([outer, *holes]))
    return rings


def joined_outline(mask: Mask, tolerance: float = 0.0) -> NDArray[np.float64]:
    """One closed ring (N, 2) of x, y pixels around all of a mask, its pieces joined like holes."""
    contours = _contours(mask, tolerance)
    return _join(contours) if contours else np.zeros((0, 2))


def _contours(mask: Mask, tolerance: float) -> list[NDArray[np.float64]]:
    """The contours, the outer ones first."""
    polygons = masks.polygons(mask, tolerance)
    return [polygon.points for polygon in sorted(polygons, key=lambda polygon: polygon.hole)]


def _join(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One ring that walks along all, over a bridge to each and back.

    A bridge is crossed twice, so it changes no even-odd area, wherever it lies.
    """
    whole = rings[0]
    for ring in rings[1:]:
        near = int(np.argmin(((whole - ring[0]) ** 2).sum(1)))
        whole = np.concatenate((whole[: near + 1], ring, ring[:1], whole[near:]))
    return whole


def fill_rings(rings: Iterable[NDArray[np.float64]], height: int, width: int) -> Mask:
    """The union of rings (N, 2) of x, y, each filled by the even-odd rule: (height, width) bool.

    Raises:
        DataError: one is no ring, or would take gigabytes to fill.
    """
    filled = np.zeros((height, width), np.bool_)
    for ring in rings:
        if ring.ndim == 2 and ring.shape[1] == 2 and len(ring):
            rows = np.clip(ring[:, 1], 0, height)
            if np.abs(np.diff(rows, append=rows[:1])).sum() > _MAX_CROSSINGS:
                raise DataError("a polygon has too many long sides to be filled: simplify it")
        filled |= masks.fill_polygons([Polygon(ring, False)], height, width)
    return filled
