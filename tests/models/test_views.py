"""views: where the finder looks, and boxes from cells."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers.box_finder import cells_of
from hypothesis import given
from hypothesis import strategies as st

from picosam2.geometry import Window
from picosam2.models.views import (
    STRIDES,
    cell_centers,
    cell_count,
    decode,
    part_windows,
    thinned,
    whole_window,
)

SIZE = 128
SIDES = st.integers(1, 5000)


@given(SIDES, SIDES)
def test_the_whole_window_is_the_smallest_square_around_the_image(height: int, width: int) -> None:
    window = whole_window(height, width)
    assert window.width == window.height == max(height, width)
    assert window.center == (width / 2, height / 2)


@given(SIDES, SIDES)
def test_the_parts_cover_the_image_and_overlap(height: int, width: int) -> None:
    parts = part_windows(height, width)
    assert len(parts) <= 32
    if not parts:
        return
    assert all(part.width == pytest.approx(part.height) for part in parts)
    for axis, limit in (("x", width), ("y", height)):
        spans = sorted({(getattr(p, f"{axis}0"), getattr(p, f"{axis}1")) for p in parts})
        assert spans[0][0] <= 1e-6
        assert spans[-1][1] >= limit - 1e-6
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= 0.2 * parts[0].width


def test_a_few_parts_of_an_ordinary_image_and_more_of_a_panorama() -> None:
    assert len(part_windows(480, 640)) == 6
    assert len(part_windows(640, 640)) == 9
    assert len(part_windows(480, 640, 0.6)) == 4
    assert len(part_windows(800, 12000)) == 20
    assert part_windows(1, 1)
    assert len(part_windows(10, 100_000)) <= 32


def test_cells_lie_on_their_grids() -> None:
    centers, strides = cell_centers(SIZE)
    assert len(centers) == len(strides) == cell_count(SIZE)
    assert centers[0].tolist() == [4, 4]
    assert centers[1].tolist() == [12, 4]  # row by row
    for stride in STRIDES:
        assert (strides == stride).sum() == (SIZE // stride) ** 2
        assert np.allclose(centers[strides == stride].mean(0), SIZE / 2)


@given(
    st.integers(200, 3000),
    st.integers(200, 3000),
    st.tuples(*[st.floats(0.15, 0.85)] * 2, *[st.floats(0.2, 0.9)] * 2),
)
def test_a_box_survives_the_way_into_a_view_and_back(
    height: int, width: int, shares: tuple[float, float, float, float]
) -> None:
    window = whole_window(height, width)
    x, y, w, h = shares
    half_w, half_h = w * min(x, 1 - x) * width, h * min(y, 1 - y) * height
    corners = np.array([[x * width - half_w, y * height - half_h],
                        [x * width + half_w, y * height + half_h]])  # fmt: skip
    in_view = window.to_crop(corners, SIZE).ravel()
    cells = cells_of([tuple(in_view.tolist())], SIZE)
    boxes, scores = decode(cells[None], [window], height, width, SIZE, 0.5)
    if not len(boxes):  # no cell lies in it
        assert min(in_view[2:] - in_view[:2]) < 2 * STRIDES[0] + 1
        return
    assert scores[0] > 0.9
    assert boxes[0] == pytest.approx(corners.ravel(), rel=1e-3, abs=0.02 * max(height, width))


def test_boxes_that_a_part_cuts_off_are_left_to_a_larger_view() -> None:
    at_edge = cells_of([(64, 40, 128, 90)], SIZE)
    left, right = Window(0, 0, 100, 100), Window(100, 0, 200, 100)
    for window, expected in ((left, 0), (right, 1)):  # the image ends where the second one does
        boxes, _ = decode(at_edge[None], [window], 100, 200, SIZE, 0.5)
        assert len(boxes) == expected


def test_boxes_of_all_views_are_sorted_and_inside_the_image() -> None:
    rng = np.random.default_rng(0)
    windows = [whole_window(300, 500), *part_windows(300, 500)]
    cells = rng.normal(0, 3, (len(windows), 5, cell_count(SIZE))).astype(np.float32)
    boxes, scores = decode(cells, windows, 300, 500, SIZE)
    assert (np.diff(scores) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (500, 300)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1 - 1e-3).all()


def test_nothing_comes_of_nothing() -> None:
    cells = np.full((1, 5, cell_count(SIZE)), -20, np.float32)
    boxes, scores = decode(cells, [whole_window(9, 9)], 9, 9, SIZE, 0.02)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)
    assert thinned(boxes, 0.5, 10).tolist() == []


def test_numbers_without_bounds_give_boxes_with_some() -> None:
    cells = np.full((1, 5, cell_count(SIZE)), np.float32(1e30))
    cells[0, 0] = 1e30
    boxes, scores = decode(cells, [whole_window(50, 50)], 50, 50, SIZE)
    assert np.isfinite(boxes).all()
    assert (scores <= 1).all()


@pytest.mark.parametrize(
    ("share", "height", "width", "kept"),
    [
        (0.6, 600, 600, 1),
        (0.9, 600, 600, 0),  # most often a piece of a background
        (0.9, 300, 3000, 1),  # the part is as high as the image
    ],
)
def test_what_fills_a_part_is_left_to_the_whole_view(
    share: float, height: int, width: int, kept: int
) -> None:
    part = part_windows(height, width)[0]
    edge = (1 - share) / 2 * SIZE
    cells = cells_of([(edge, edge, SIZE - edge, SIZE - edge)], SIZE)[None]
    assert len(decode(cells, [part], height, width, SIZE, 0.5)[0]) == kept
    whole = whole_window(600, 600)
    assert len(decode(cells, [whole], 600, 600, SIZE, 0.5)[0]) == 1
