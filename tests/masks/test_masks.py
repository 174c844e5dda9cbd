"""masks: parity with pycocotools and scipy, round trips, and what malformed input does."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from picosam2 import masks
from picosam2.errors import ConfigError, DataError
from picosam2.masks import Polygon, fill_polygons, polygons, rle_decode, rle_encode
from picosam2.prompts import Point

shapes = stnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
any_mask = shapes.flatmap(lambda shape: stnp.arrays(np.bool_, shape))


def mask_of(text: str) -> np.ndarray:
    """A mask from lines of # and dots."""
    return np.array([[c == "#" for c in line] for line in text.split()])


def blobs(seed: int, height: int = 120, width: int = 160, count: int = 25) -> np.ndarray:
    """Discs laid over one another, each turning inside to outside: pieces, holes, corners."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    depth = np.zeros((height, width), int)
    for _ in range(count):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1, height / 4)
        depth += (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    return depth % 2 == 1


RING = mask_of("""
    .......
    .#####.
    .#...#.
    .#.#.#.
    .#...#.
    .#####.
    .......
""")
CHECKERS = mask_of("""
    #.#
    .#.
    #.#
""")
SPECIAL = [
    RING,
    CHECKERS,
    np.zeros((3, 4), bool),
    np.ones((3, 4), bool),
    np.ones((1, 1), bool),
    np.zeros((1, 1), bool),
    np.eye(9, dtype=bool),
    ~np.eye(9, dtype=bool),
    np.indices((7, 8)).sum(axis=0) % 2 == 0,
    blobs(0),
    np.random.default_rng(0).random((40, 50)) < 0.5,
    np.random.default_rng(1).random((40, 50)) < 0.05,
]


# --- run-length encoding


# pycocotools 2.0 predates NumPy 2's `copy` argument.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("mask", [*SPECIAL, blobs(1, 480, 640), np.zeros((700, 1300), bool)])
def test_rle_is_pycocotools_both_ways(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = rle_encode(mask)
    assert ours["counts"].encode() == theirs["counts"]
    assert ours["size"] == list(theirs["size"])
    np.testing.assert_array_equal(rle_decode(theirs), mask)
    np.testing.assert_array_equal(coco.decode(ours), mask)
    assert masks.area(mask) == coco.area(theirs)
    x, y, width, height = coco.toBbox(theirs)
    if mask.any():
        assert masks.bbox(mask) == (x, y, x + width, y + height)
    else:
        assert masks.bbox(mask) is None


@settings(max_examples=60)
@given(any_mask)
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = json.loads(json.dumps(rle_encode(mask)))
    decoded = rle_decode(rle)
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


def test_rle_of_masks_without_pixels() -> None:
    for shape in [(0, 0), (0, 5), (5, 0)]:
        assert rle_decode(rle_encode(np.zeros(shape, bool))).shape == shape


def test_plain_counts() -> None:
    expected = mask_of("#.. #.. ##.")
    for counts in ([0, 3, 2, 1, 3], np.array([0, 3, 2, 1, 3]), (0, 3, 0, 0, 2, 1, 3)):
        rle = {"size": [3, 3], "counts": counts}
        np.testing.assert_array_equal(rle_decode(rle), expected)


GOOD = rle_encode(blobs(3, 30, 40))


@pytest.mark.parametrize(
    "rle",
    [
        None,
        "abc",
        [1, 2],
        {},
        {"size": [3, 3]},
        {"counts": [9]},
        {"size": None, "counts": [9]},
        {"size": [9], "counts": [9]},
        {"size": [3, 3, 1], "counts": [9]},
        {"size": ["3", "3"], "counts": [9]},
        {"size": "33", "counts": [9]},
        {"size": [3.0, 3.0], "counts": [9]},
        {"size": [True, True], "counts": [1]},
        {"size": [-3, -3], "counts": [9]},
        {"size": [3, 3], "counts": None},
        {"size": [3, 3], "counts": {"0": 9}},
        {"size": [3, 3], "counts": [9.0]},
        {"size": [3, 3], "counts": [True] * 9},
        {"size": [3, 3], "counts": ["9"]},
        {"size": [3, 3], "counts": [[9]]},
        {"size": [3, 3], "counts": [[9], [1, 2]]},
        {"size": [3, 3], "counts": [8]},
        {"size": [3, 3], "counts": [5, 5]},
        {"size": [3, 3], "counts": [10, -1]},
        {"size": [3, 3], "counts": []},
        {"size": [3, 3], "counts": ""},
        {"size": [3, 3], "counts": [2**63, 9]},
        {"size": [3, 3], "counts": [2**64 - 1, 10]},
        {"size": [3, 3], "counts": [2**70]},
        {"size": [3, 3], "counts": "9é"},
        {"size": [3, 3], "counts": "\x00\x01"},
        {"size": [3, 3], "counts": b"\xff"},
        {"size": [3, 3], "counts": "9q"},
        {"size": [3, 3], "counts": "9Q"},
        {"size": [3, 3], "counts": "o" * 100_000},
        {"size": [3, 3], "counts": "o" * 11 + "0"},
        {"size": [3, 3], "counts": "o" * 13 + "0"},
        {"size": GOOD["size"], "counts": GOOD["counts"][:-3]},
        {"size": [31, 40], "counts": GOOD["counts"]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [10**30, 1], "counts": [10**30]},
        {"size": [10**5, 10**4], "counts": "0"},
    ],
)
def test_malformed_rle(rle: Any) -> None:
    with pytest.raises(DataError, match="RLE") as caught:
        rle_decode(rle)
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(st.binary(max_size=20), st.integers(0, 10), st.integers(0, 10))
def test_random_bytes_are_never_a_crash(counts: bytes, height: int, width: int) -> None:
    counts = bytes(48 + code % 64 for code in counts)
    try:
        mask = rle_decode({"size": [height, width], "counts": counts})
    except DataError:
        return
    assert mask.shape == (height, width)


def test_the_size_limit_is_the_callers() -> None:
    assert rle_decode({"size": [4, 5], "counts": [20]}, max_pixels=20).shape == (4, 5)
    with pytest.raises(DataError, match="million"):
        rle_decode({"size": [4, 5], "counts": [20]}, max_pixels=19)


# --- measuring and comparing


def test_iou() -> None:
    a, b = mask_of("##.. ##.."), mask_of(".##. .##.")
    assert masks.iou(a, b) == pytest.approx(1 / 3)
    assert masks.iou(a, a) == 1
    assert masks.iou(a, ~a) == 0
    assert masks.iou(a & ~a, b & ~b) == 1  # two empty masks agree
    with pytest.raises(DataError, match="one shape"):
        masks.iou(a, a.T)


def test_iou_matrix_is_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    first = [blobs(seed, count=2) for seed in range(6)] + [np.zeros((120, 160), bool)]
    second = [blobs(seed, count=3) for seed in range(20, 24)]
    encoded = [
        [coco.encode(np.asfortranarray(m.astype(np.uint8))) for m in g] for g in (first, second)
    ]
    expected = coco.iou(*encoded, [0] * len(second))
    actual = masks.iou_matrix(first, second)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert actual[2, 1] == masks.iou(first[2], second[1])


def test_iou_matrix_of_nothing() -> None:
    assert masks.iou_matrix([], []).shape == (0, 0)
    assert masks.iou_matrix([RING], []).shape == (1, 0)
    with pytest.raises(DataError, match="one shape"):
        masks.iou_matrix([RING], [CHECKERS])


def test_stability() -> None:
    logits = np.array([[-3.0, -0.5, 0.5, 3.0]])
    assert masks.stability(logits) == pytest.approx(1 / 3)
    assert masks.stability(logits, offset=0.1) == 1
    assert masks.stability(np.full((2, 2), -9.0)) == 0


@settings(max_examples=60)
@given(any_mask)
def test_center_point(mask: np.ndarray) -> None:
    if not mask.any():
        with pytest.raises(DataError, match="empty"):
            masks.center_point(mask)
        return
    point = masks.center_point(mask)
    assert mask[int(point.y), int(point.x)]
    x0, y0, x1, y1 = masks.bbox(mask)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if mask[int(y), int(x)]:
        assert point == Point(x, y)
    else:
        pixels = np.argwhere(mask) + 0.5
        distances = ((pixels - (y, x)) ** 2).sum(axis=1)
        assert [point.y, point.x] == pixels[np.argmin(distances)].tolist()


# --- connected pieces


@pytest.mark.parametrize("mask", SPECIAL)
def test_label_is_scipys(mask: np.ndarray) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    expected, expected_count = ndimage.label(mask, np.ones((3, 3)))
    labels, count = masks.label(mask)
    assert labels.dtype == np.int32
    assert count == expected_count
    np.testing.assert_array_equal(labels, expected)


@settings(max_examples=60)
@given(any_mask)
def test_label_by_flood_fill(mask: np.ndarray) -> None:
    labels, count = masks.label(mask)
    expected = np.zeros(mask.shape, int)
    number = 0
    for start in np.argwhere(mask):
        if expected[tuple(start)]:
            continue
        number += 1
        pending = [tuple(start)]
        while pending:
            row, column = pending.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and mask[row, column] and not expected[row, column]:
                expected[row, column] = number
                pending += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert count == number
    np.testing.assert_array_equal(labels, expected)


def test_label_of_a_long_snake() -> None:
    snake = np.zeros((401, 300), bool)
    snake[::2] = True
    snake[1::4, -1] = True
    snake[3::4, 0] = True
    assert masks.label(snake)[1] == 1
    assert masks.label(snake.T)[1] == 1
    assert masks.label(np.zeros((0, 4), bool))[1] == 0


def test_remove_small() -> None:
    mask = mask_of("""
        ##...#
        ##....
        ....#.
        .#...#
    """)
    expected = mask_of("""
        ##....
        ##....
        ....#.
        .....#
    """)
    np.testing.assert_array_equal(masks.remove_small(mask, 2), expected)
    np.testing.assert_array_equal(masks.remove_small(mask, 0), mask)
    assert not masks.remove_small(mask, 5).any()
    assert not masks.remove_small(mask & False, 1).any()


def test_fill_holes() -> None:
    filled = RING.copy()
    filled[2:5, 2:5] = True
    np.testing.assert_array_equal(masks.fill_holes(RING), filled)
    np.testing.assert_array_equal(masks.fill_holes(RING, 8), filled)
    np.testing.assert_array_equal(masks.fill_holes(RING, 7), RING)
    # Background reaches the border through an edge, not through a corner.
    open_at_the_side = mask_of("### #.. ###")
    np.testing.assert_array_equal(masks.fill_holes(open_at_the_side), open_at_the_side)
    at_a_corner = mask_of("###. #.#. ##.#")
    np.testing.assert_array_equal(masks.fill_holes(at_a_corner), mask_of("###. ###. ##.#"))


@pytest.mark.parametrize("mask", SPECIAL)
def test_fill_holes_is_scipys(mask: np.ndarray) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    np.testing.assert_array_equal(masks.fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_keep_at() -> None:
    mask = mask_of("""
        ##..#
        ##...
        ....#
        ...##
    """)
    left, right = mask.copy(), mask.copy()
    left[:, 2:] = False
    right[:2] = False
    for point, expected in [
        (Point(0.5, 1.5), left),
        (Point(1.999, 0), left),
        (Point(2.4, 1.5), left),  # missed by less than a pixel
        (Point(3.2, 3.9), right),
        (Point(4.5, 1.6), right),
    ]:
        np.testing.assert_array_equal(masks.keep_at(mask, [point]), expected)
    np.testing.assert_array_equal(masks.keep_at(mask, [Point(0, 0), Point(4, 3)]), left | right)
    negative = Point(0, 0, positive=False)
    np.testing.assert_array_equal(masks.keep_at(mask, [negative, Point(4, 3)]), right)
    np.testing.assert_array_equal(masks.keep_at(mask, [negative]), mask)
    assert masks.keep_at(mask, []) is not mask
    assert not masks.keep_at(mask & False, [Point(1, 1)]).any()


@settings(max_examples=60)
@given(any_mask, st.data())
def test_keep_at_keeps_the_piece_of_a_pixel(mask: np.ndarray, data: st.DataObject) -> None:
    if not mask.any():
        return
    row, column = data.draw(st.sampled_from(np.argwhere(mask).tolist()))
    x = column + data.draw(st.floats(0.001, 0.999))
    y = row + data.draw(st.floats(0.001, 0.999))
    labels, _ = masks.label(mask)
    kept = masks.keep_at(mask, [Point(x, y)])
    np.testing.assert_array_equal(kept, labels == labels[row, column])


# --- polygons


def ring_area(points: np.ndarray) -> float:
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def check_exact(mask: np.ndarray) -> None:
    outlines = polygons(mask)
    for polygon in outlines:
        points = polygon.points
        assert points.dtype == np.float64
        assert (points == np.rint(points)).all()
        steps = np.roll(points, -1, axis=0) - points
        assert ((steps == 0).sum(axis=1) == 1).all(), "each side runs along one axis"
        horizontal = steps[:, 1] == 0
        assert (horizontal != np.roll(horizontal, -1)).all(), "each corner is a turn"
        assert (ring_area(points) < 0) == polygon.hole
    assert sum(ring_area(polygon.points) for polygon in outlines) == mask.sum()
    np.testing.assert_array_equal(fill_polygons(outlines, *mask.shape), mask)


@pytest.mark.parametrize("mask", SPECIAL)
def test_exact_polygons(mask: np.ndarray) -> None:
    check_exact(mask)


@settings(max_examples=60)
@given(any_mask)
def test_polygon_round_trip(mask: np.ndarray) -> None:
    check_exact(mask)


@pytest.mark.parametrize("mask", SPECIAL)
def test_one_outer_contour_a_piece_and_one_contour_a_hole(mask: np.ndarray) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    outlines = polygons(mask)
    assert sum(not polygon.hole for polygon in outlines) == masks.label(mask)[1]
    background = ndimage.label(~np.pad(mask, 1))[1]
    assert sum(polygon.hole for polygon in outlines) == background - 1


def test_known_polygons() -> None:
    (square,) = polygons(np.pad(np.ones((2, 3), bool), ((1, 0), (4, 0))))
    assert square.points.tolist() == [[4, 1], [7, 1], [7, 3], [4, 3]]  # clockwise on the screen
    assert not square.hole
    outer, hole, inner = polygons(RING)
    assert (outer.hole, hole.hole, inner.hole) == (False, True, False)
    assert hole.points.tolist() == [[5, 2], [2, 2], [2, 5], [5, 5]]
    assert inner.points.tolist() == [[3, 3], [4, 3], [4, 4], [3, 4]]
    (diagonal,) = polygons(mask_of("#. .#"))
    assert diagonal.points.tolist().count([1, 1]) == 2  # one contour that touches itself
    assert polygons(np.zeros((3, 3), bool)) == []


def distance_to_ring(point: np.ndarray, ring: np.ndarray) -> float:
    chord = np.roll(ring, -1, axis=0) - ring
    offset = point - ring
    share = np.clip((offset * chord).sum(1) / (chord**2).sum(1), 0, 1)
    return float(np.sqrt(((offset - share[:, None] * chord) ** 2).sum(1)).min())


def check_simplified(mask: np.ndarray, tolerance: float) -> None:
    exact, simple = polygons(mask), polygons(mask, tolerance)
    assert len(simple) == len(exact)
    for before, after in zip(exact, simple, strict=True):
        assert after.hole == before.hole
        assert len(after.points) >= 3
        assert (ring_area(after.points) < 0) == after.hole
        assert {tuple(p) for p in after.points} <= {tuple(p) for p in before.points}
        for point in before.points:
            assert distance_to_ring(point, after.points) <= tolerance + 1e-9


@settings(max_examples=60)
@given(any_mask, st.sampled_from([0.2, 0.45, 0.75, 1.0, 1.5, 3.0, 20.0]))
def test_simplified_polygons(mask: np.ndarray, tolerance: float) -> None:
    check_simplified(mask, tolerance)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 4.0, 1000.0])
@pytest.mark.parametrize("mask", SPECIAL[:-2])
def test_simplified_polygons_of_larger_masks(mask: np.ndarray, tolerance: float) -> None:
    check_simplified(mask, tolerance)


def test_simplifying_makes_slants_straight() -> None:
    triangle = np.tri(60, dtype=bool)
    (exact,), (simple,) = polygons(triangle), polygons(triangle, 1.0)
    assert len(exact.points) > 100
    assert len(simple.points) <= 5
    assert masks.iou(fill_polygons([simple], 60, 60), triangle) > 0.95
    assert polygons(triangle, 0.2)[0].points.tolist() == exact.points.tolist()


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_impossible_tolerance(tolerance: float) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        polygons(RING, tolerance)


def test_filling_slanted_polygons_and_past_the_image() -> None:
    diamond = Polygon(np.array([[5, -2.2], [12.2, 5], [5, 12.2], [-2.2, 5]]), hole=False)
    rows, columns = np.mgrid[:10, :10] + 0.5
    expected = np.abs(columns - 5) + np.abs(rows - 5) < 7.2
    np.testing.assert_array_equal(fill_polygons([diamond], 10, 10), expected)
    far = Polygon(diamond.points + 1e12, hole=False)
    assert not fill_polygons([far], 10, 10).any()
    everything = Polygon(np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]), hole=False)
    assert fill_polygons([everything], 10, 10).all()
    assert fill_polygons([diamond], 0, 10).shape == (0, 10)


def test_pillow_fills_the_same_diamond() -> None:
    from PIL import Image, ImageDraw

    ring = np.array([[3.2, 1.1], [40.7, 9.3], [30.1, 35.8], [10.4, 28.9]])
    scale = 16  # Pillow draws outlines half a pixel thick: compare at a much finer grid
    canvas = Image.new("1", (48 * scale, 40 * scale))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in ring * scale], fill=1)
    coverage = np.asarray(canvas).reshape(40, scale, 48, scale).mean(axis=(1, 3))
    mask = fill_polygons([Polygon(ring, hole=False)], 40, 48)
    assert coverage[mask].min() > 0.2
    assert coverage[~mask].max() < 0.8
    assert mask.sum() == pytest.approx(coverage.sum(), rel=0.02)


@pytest.mark.parametrize(
    "points", [np.zeros((2, 2)), np.zeros((4, 3)), np.zeros(4), np.full((3, 2), np.nan)]
)
def test_polygons_that_cannot_be_filled(points: np.ndarray) -> None:
    with pytest.raises(DataError, match="polygon's points"):
        fill_polygons([Polygon(points, hole=False)], 5, 5)


# --- for all


def test_what_counts_as_a_mask() -> None:
    assert masks.area([[0, 1], [2, 0]]) == 2
    np.testing.assert_array_equal(masks.remove_small(np.uint8([[0, 255]]), 1), [[False, True]])
    for bad in (np.zeros((2, 2)), np.zeros((1, 2, 2), bool), np.zeros(3, bool), [["a"]]):
        with pytest.raises(DataError, match="a mask"):
            masks.area(bad)


def test_arguments_stay_as_they_were() -> None:
    mask = blobs(5)
    before = mask.copy()
    mask.setflags(write=False)
    for result in (
        masks.remove_small(mask, 9),
        masks.fill_holes(mask, 9),
        masks.keep_at(mask, [Point(3, 3)]),
    ):
        assert result.dtype == np.bool_
        assert result.flags.writeable
        assert result.flags.c_contiguous
    polygons(mask, 1.0)
    np.testing.assert_array_equal(mask, before)


def test_speed() -> None:
    """Far from the limits on any machine: this catches loops over pixels, not slow days."""
    mask = blobs(7, 480, 640)
    rle = rle_encode(mask)
    for work, limit in [
        (lambda: rle_encode(mask), 0.02),
        (lambda: rle_decode(rle), 0.02),
        (lambda: masks.label(mask), 0.05),
        (lambda: polygons(mask, 1.0), 0.3),
    ]:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        assert min(times) < limit
