"""What is done to masks: measure, compare, encode (RLE), outline (polygons) and clean up.

A mask is (H, W) bool: True on the object. Integers are taken as True where they are not 0;
anything else is a `DataError`. No function changes its arguments.

Neighbours: pixels of the object touch through edges and corners (8-connected), pixels of the
background through edges only (4-connected). Only such a pair obeys the Jordan curve theorem: a
closed line of object pixels parts the inside from the outside (Rosenfeld, "Connectivity in
Digital Pictures", JACM 1970). So a thin slanted thing stays one thing, `label`, `remove_small` and
`polygons` agree on what is one piece, and each piece has one outer contour.

Most functions work on runs, the maximal stretches of True along a row, of which a mask has few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picosam2.errors import ConfigError, DataError
from picosam2.images import MAX_PIXELS
from picosam2.prompts import Point

Mask = NDArray[np.bool_]
_Ints = NDArray[np.int64]
_Scalar = TypeVar("_Scalar", bound=np.generic)

# A compressed count has 5 bits a character; 12 characters are far more than any picture needs and
# still fit an int64.
_MAX_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One closed contour. `points` is (N, 2) float64, N >= 3, rows of (x, y) pixels.

    Pixel (column, row) covers column..column + 1, row..row + 1. The last point joins the first.
    Outer contours run clockwise on the screen, holes the other way, so that the object is always
    on the right hand.
    """

    points: NDArray[np.float64]
    hole: bool


# --- measuring and comparing --------------------------------------------------------------------


def area(mask: ArrayLike) -> int:
    """The number of pixels on the object."""
    return int(np.count_nonzero(_as_mask(mask)))


def bbox(mask: ArrayLike) -> tuple[int, int, int, int] | None:
    """The tight box (x0, y0, x1, y1) in pixels, its end exclusive; None for an empty mask."""
    checked = _as_mask(mask)
    rows = np.flatnonzero(checked.any(axis=1))
    if not rows.size:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(checked[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def iou(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union of two masks of the same shape, 0..1; 0 if both are empty."""
    first, second = _as_mask(a), _as_mask(b)
    _check_same_shape(first, second)
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 0.0


def iou_matrix(a: Sequence[ArrayLike], b: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """`iou` of each mask of `a` with each of `b`: (len(a), len(b)) float64.

    Only the part that two bounding boxes share is looked at, so masks that lie apart cost nothing.
    """
    first = [_as_mask(mask) for mask in a]
    second = [_as_mask(mask) for mask in b]
    for mask in (*first, *second):
        _check_same_shape((*first, *second)[0], mask)
    out = np.zeros((len(first), len(second)))
    boxes_a, areas_a = _boxes_and_areas(first)
    boxes_b, areas_b = _boxes_and_areas(second)
    shared = np.empty((len(first), len(second), 4), np.int64)
    shared[:, :, :2] = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    shared[:, :, 2:] = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    meet = (shared[:, :, 0] < shared[:, :, 2]) & (shared[:, :, 1] < shared[:, :, 3])
    for i, j in np.argwhere(meet):
        x0, y0, x1, y1 = shared[i, j]
        overlap = np.count_nonzero(first[i][y0:y1, x0:x1] & second[j][y0:y1, x0:x1])
        out[i, j] = overlap / (areas_a[i] + areas_b[j] - overlap)
    return out


def stability(logits: NDArray[np.floating[Any]], offset: float = 1.0) -> float:
    """How little a mask depends on its threshold, 0..1: SAM's stability score.

    The IoU of `logits` > `offset` and `logits` > -`offset` ("Segment Anything", 2023, section
    B of the appendix); 0 if even the larger of the two is empty. `logits` is (H, W).
    """
    larger = np.count_nonzero(logits > -offset)
    return float(np.count_nonzero(logits > offset) / larger) if larger else 0.0


def centre_point(mask: ArrayLike) -> Point:
    """The click that stands for a mask: the centre of its box, or the mask pixel nearest to it.

    The centre is taken if the pixel it falls in is on the object; otherwise the answer is the
    centre of a pixel (the first in reading order if several are equally near). Raises `DataError`
    for an empty mask.
    """
    checked = _as_mask(mask)
    box = bbox(checked)
    if box is None:
        raise DataError("an empty mask has no centre: leave it out")
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if checked[int(y), int(x)]:
        return Point(x, y)
    runs = _find_runs(checked)
    rows, first, last = runs.rows_and_columns()
    # Of the pixels of a run the nearest is the one x falls in, or the end on that side.
    columns = np.clip(math.ceil(x) - 1, first, last)
    nearest = int(np.argmin((rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2))
    return Point(int(columns[nearest]) + 0.5, int(rows[nearest]) + 0.5)


# --- run-length encoding ------------------------------------------------------------------------


def rle_encode(mask: ArrayLike) -> dict[str, Any]:
    """Encode as COCO's compressed RLE: {"size": [H, W], "counts": str}.

    Column by column, the lengths of the runs of False and True in turn, starting with False, are
    written as differences in a variable-length ASCII code, byte for byte as pycocotools does
    (`rleToString` in cocoapi's maskApi.c).
    """
    checked = _as_mask(mask)
    height, width = checked.shape
    pixels = checked.T.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    bounds = [0, 0] if pixels.size and pixels[0] else [0]
    edges = np.concatenate((bounds, changes, [pixels.size]))
    counts = np.diff(edges) if pixels.size else np.zeros(0, np.int64)
    return {"size": [height, width], "counts": _compress(counts)}


def rle_decode(rle: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Decode COCO's RLE to a mask (H, W) bool.

    `rle` has "size" [H, W] and "counts": a compressed str or bytes, or the plain list of counts.
    Raises `DataError` if it is malformed or has more than `max_pixels` pixels; nothing of that
    size is allocated before the counts are found to fill it exactly.
    """
    if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
        raise DataError("a mask's RLE must be an object with 'size' and 'counts'")
    size = rle["size"]
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in size)
    ):
        raise DataError("an RLE's size must be two whole numbers [height, width]")
    height, width = int(size[0]), int(size[1])
    if height < 0 or width < 0 or height * width > max_pixels:
        raise DataError(
            f"an RLE's size is {height} x {width}, which must lie within 0 and "
            f"{max_pixels / 1e6:g} million pixels"
        )
    total = height * width
    counts = _read_counts(rle["counts"], total)
    if counts.size and (counts.min() < 0 or counts.max() > total):
        raise DataError("an RLE's counts must lie within 0 and its number of pixels")
    if int(counts.sum()) != total:
        raise DataError(
            f"an RLE's counts add up to {int(counts.sum())}, but its size {height} x {width} "
            f"has {total} pixels: the mask is damaged, or of another picture"
        )
    pixels: Mask = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    return np.ascontiguousarray(pixels.reshape(width, height).T)


def _compress(counts: _Ints) -> str:
    deltas = counts.copy()
    deltas[3:] -= counts[1:-2]  # from the third on, the difference to the last of the same kind
    # The number of 5-bit groups that hold the value in two's complement.
    groups = np.ones(deltas.size, np.int64)
    limit = 16
    while True:
        more = (deltas < -limit) | (deltas >= limit)
        if not more.any():
            break
        groups += more
        limit *= 32
    column = np.arange(groups.max(initial=0))
    bits = (deltas[:, None] >> (5 * column)) & 31
    bits += np.where(column < groups[:, None] - 1, 32 + 48, 48)  # 32 says that more follow
    return bytes(bits[column < groups[:, None]].astype(np.uint8)).decode("ascii")


def _read_counts(counts: Any, total: int) -> _Ints:
    if isinstance(counts, str | bytes):
        return _decompress(counts, total)
    try:
        values = np.asarray(counts)
    except (ValueError, OverflowError) as error:  # rows of unequal length
        raise DataError("an RLE's counts must be a list of whole numbers") from error
    if values.size == 0 and values.ndim == 1:
        return np.zeros(0, np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError("an RLE's counts must be a string or a list of whole numbers")
    # Unsigned numbers too large for int64 would come out negative, which the caller refuses.
    return values.astype(np.int64)


def _decompress(text: str | bytes, total: int) -> _Ints:
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise DataError("an RLE's counts hold characters that no RLE has") from error
    if not data:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(data, np.uint8)
    if codes.min() < 48 or codes.max() > 48 + 63:
        raise DataError("an RLE's counts hold characters that no RLE has")
    values = codes.astype(np.int64) - 48
    last = values < 32
    if not last[-1]:
        raise DataError("an RLE's counts are cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise DataError("an RLE's counts hold a number that is too large")
    shifts = 5 * (np.arange(values.size) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((values & 31) << shifts, starts)
    numbers -= np.where(values[ends] & 16, np.int64(1) << (5 * lengths), 0)  # two's complement
    if np.abs(numbers).max() > total:  # also keeps the sums below from overflowing
        raise DataError("an RLE's counts hold a number that is larger than its picture")
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


# --- connected pieces ---------------------------------------------------------------------------


def label(mask: ArrayLike) -> tuple[NDArray[np.int32], int]:
    """Number the connected pieces (8-connected) of a mask.

    Returns labels (H, W) int32, 0 off the object and 1..n on its pieces in reading order of their
    first pixels, and n.
    """
    runs = _find_runs(_as_mask(mask))
    numbers, count = _connect(runs, corners=True)
    return _paint(runs, (numbers + 1).astype(np.int32)), count


def remove_small(mask: ArrayLike, min_area: float) -> Mask:
    """The mask without its pieces (8-connected) of fewer than `min_area` pixels. May be empty."""
    runs = _find_runs(_as_mask(mask))
    numbers, count = _connect(runs, corners=True)
    areas = np.bincount(numbers, weights=runs.ends - runs.starts, minlength=count)
    return _paint(runs, areas[numbers] >= min_area)


def fill_holes(mask: ArrayLike, max_area: float = math.inf) -> Mask:
    """The mask with its holes of at most `max_area` pixels filled.

    A hole is a piece of background (4-connected) that does not reach the picture's border.
    """
    checked = _as_mask(mask)
    runs = _find_runs(~checked)
    numbers, count = _connect(runs, corners=False)
    areas = np.bincount(numbers, weights=runs.ends - runs.starts, minlength=count)
    rows, first, last = runs.rows_and_columns()
    at_border = (rows == 0) | (rows == runs.height - 1) | (first == 0) | (last == runs.width - 1)
    is_hole = np.ones(count, np.bool_)
    is_hole[numbers[at_border]] = False
    return checked | _paint(runs, (is_hole & (areas <= max_area))[numbers])


def keep_at(mask: ArrayLike, points: Sequence[Point]) -> Mask:
    """The pieces (8-connected) of a mask that the points mean, without the others.

    A positive point means the piece it lies on, or else the nearest one, so that a click which
    narrowly misses does not lose the object; negative points mean nothing here. Without a
    positive point the mask is returned whole.
    """
    checked = _as_mask(mask)
    positive = [point for point in points if point.positive]
    runs = _find_runs(checked)
    if not positive or not runs.starts.size:
        return checked.copy()
    numbers, count = _connect(runs, corners=True)
    rows, first, last = runs.rows_and_columns()
    kept = np.zeros(count, np.bool_)
    for point in positive:
        # Distances are to pixel centres: the centre of the pixel it lies in is the nearest one.
        x, y = point.x - 0.5, point.y - 0.5
        across = np.maximum(np.maximum(first - x, x - last), 0)
        kept[numbers[np.argmin(across**2 + (rows - y) ** 2)]] = True
    return _paint(runs, kept[numbers])


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The runs of a mask in reading order: positions row * stride + column, ends exclusive.

    The stride is the width plus 1: the gap keeps a run at the right border apart from one at the
    left border of the next row.
    """

    starts: _Ints
    ends: _Ints
    height: int
    width: int

    @property
    def stride(self) -> int:
        return self.width + 1

    def rows_and_columns(self) -> tuple[_Ints, _Ints, _Ints]:
        """The row, the first column and the last column (inclusive) of each run."""
        rows, first = np.divmod(self.starts, self.stride)
        return rows, first, self.ends - rows * self.stride - 1


def _find_runs(mask: Mask) -> _Runs:
    height, width = mask.shape
    flat = np.zeros(1 + height * (width + 1), np.bool_)
    flat[1:].reshape(height, width + 1)[:, :width] = mask
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return _Runs(changes[0::2], changes[1::2], height, width)


def _paint(runs: _Runs, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """An array (H, W) with `values[i]` on run i and zero elsewhere."""
    size = runs.height * runs.stride
    bounds = np.empty(2 * runs.starts.size + 2, np.int64)
    bounds[0], bounds[-1] = 0, size
    bounds[1:-1:2], bounds[2:-1:2] = runs.starts, runs.ends
    alternating = np.zeros(bounds.size - 1, values.dtype)
    alternating[1::2] = values
    flat = np.repeat(alternating, np.diff(bounds))
    return np.ascontiguousarray(flat.reshape(runs.height, runs.stride)[:, : runs.width])


def _connect(runs: _Runs, *, corners: bool) -> tuple[_Ints, int]:
    """The piece (0..n-1, in reading order) of each run, and n.

    Union-find, all pairs of touching runs at once: in each round every root that touches a
    smaller root is hung below one, then all paths are halved until they are flat. A root that is
    not hung has neighbours that are, so each round at least halves the roots that are left
    (Shiloach and Vishkin, "An O(log n) Parallel Connectivity Algorithm", 1982).
    """
    starts, ends, stride = runs.starts, runs.ends, runs.stride
    # The runs of the row above that touch run i are those from low[i] to high[i].
    low = np.searchsorted(ends, starts - stride, "left" if corners else "right")
    high = np.searchsorted(starts, ends - stride, "right" if corners else "left")
    below, nth = _expand(np.maximum(high - low, 0))
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


def _expand(lengths: _Ints) -> tuple[_Ints, _Ints]:
    """For groups of these lengths laid end to end: each item's group, and its place in it."""
    group = np.repeat(np.arange(lengths.size), lengths)
    return group, np.arange(group.size) - (np.cumsum(lengths) - lengths)[group]


# --- polygons -----------------------------------------------------------------------------------


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
    checked = _as_mask(mask)
    box = bbox(checked)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    rings, holes = _trace(checked[y0:y1, x0:x1])
    rings = _simplify([ring + np.array([x0, y0], np.float64) for ring in rings], tolerance)
    return [Polygon(ring, hole) for ring, hole in zip(rings, holes, strict=True)]


def fill_polygons(polygons: Sequence[Polygon], height: int, width: int) -> Mask:
    """Fill polygons to a mask (`height`, `width`): the inverse of `polygons` at tolerance 0.

    A pixel is set if its centre is inside an odd number of contours (even-odd rule), so holes need
    no special care. A centre exactly on a contour counts as inside if the inside lies to its
    right, or beneath it where the contour is level. Contours may reach past the picture.

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

    # An edge crosses the rows whose centre y has upper.y <= y < lower.y.
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    edge, nth = _expand(stop - first)
    rows = first[edge] + nth
    run, rise = (lower - upper)[edge].T
    crossing = upper[edge, 0] + run * ((rows + 0.5 - upper[edge, 1]) / rise)
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)

    # A row has an even number of crossings; between the first and the second is inside, and so on.
    positions = np.sort(rows * (width + 1) + columns)
    runs = _Runs(positions[0::2], positions[1::2], height, width)
    return _paint(runs, np.ones(positions.size // 2, np.bool_))


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


def _segments(mask: Mask) -> tuple[_Ints, _Ints, NDArray[np.int8]]:
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
        chord_of, nth = _expand(last - first - 1)
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


# --- checks -------------------------------------------------------------------------------------


def _as_mask(mask: ArrayLike) -> Mask:
    values = np.asarray(mask)
    if values.ndim != 2:
        raise DataError(f"a mask has shape (H, W), not {values.shape}")
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.bool_)
    raise DataError(f"a mask is bool, not {values.dtype}: compare logits with > 0")


def _check_same_shape(a: Mask, b: Mask) -> None:
    if a.shape != b.shape:
        raise DataError(f"masks of one picture have one shape, not {a.shape} and {b.shape}")


def _boxes_and_areas(masks: Sequence[Mask]) -> tuple[_Ints, _Ints]:
    boxes = np.array([bbox(mask) or (0, 0, 0, 0) for mask in masks], np.int64).reshape(-1, 4)
    return boxes, np.array([np.count_nonzero(mask) for mask in masks], np.int64)
