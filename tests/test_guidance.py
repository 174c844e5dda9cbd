"""Guidance planes, and the window that follows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from picosam2 import geometry, guidance
from picosam2.geometry import Window
from picosam2.masks import Region, bbox
from picosam2.prompts import Box, Point


def test_nothing_known_is_all_zeros() -> None:
    drawn = guidance.planes(Window(0, 0, 64, 64), 96)
    assert drawn.shape == (3, 96, 96)
    assert drawn.dtype == np.float32
    assert not drawn.any()


@pytest.mark.parametrize("size", [96, 192])
@pytest.mark.parametrize("window", [Window(0, 0, 192, 192), Window(-40, 10, 560, 110)])
def test_disks_lie_on_their_clicks_and_are_round_on_the_crop(window: Window, size: int) -> None:
    on, off = Point(120.25, 61.5), Point(30, 40, False)
    drawn = guidance.planes(window, size, points=[on, off])
    assert not drawn[0].any()
    for plane, point in zip(drawn[1:], (on, off), strict=True):
        rows, columns = np.nonzero(plane)
        expected = window.to_crop(np.array([[point.x, point.y]]), size)[0]
        assert np.allclose([columns.mean() + 0.5, rows.mean() + 0.5], expected, atol=0.5)
        area = np.pi * (5 * size / 192) ** 2
        assert plane.sum() == pytest.approx(area, rel=0.2)
        assert set(np.unique(plane)) == {0.0, 1.0}


def test_clicks_outside_of_the_window_are_not_drawn() -> None:
    window = Window(100, 100, 200, 200)
    outside = [Point(99.9, 150), Point(150, 200), Point(250, 150, False)]
    assert not guidance.planes(window, 96, points=outside).any()


def test_the_mask_plane_is_the_mask_through_the_window() -> None:
    mask = np.zeros((100, 140), np.uint8)
    mask[20:60, 30:90] = 255
    window = Window(10, -20, 130, 80)
    drawn = guidance.planes(window, 96, mask)
    assert np.array_equal(drawn[0], geometry.crop_mask(mask > 0, window, 96))
    assert 0 < drawn[0].mean() < 1
    assert not drawn[1:].any()


def test_probabilities_of_logits() -> None:
    logits = np.array([-400, -2, 0, 2, 400], np.float32)
    assert guidance.probability(logits).tolist() == [0, 30, 128, 225, 255]
    placed = guidance.whole(Region(2, 1, np.full((2, 3), 9, np.float32)), 6, 8)
    assert placed.shape == (6, 8)
    assert placed.sum() == 6 * 255
    assert (placed[1:3, 2:5] == 255).all()


@pytest.mark.parametrize(
    "window",
    [Window(10, -20, 130, 80), Window(25.5, 20.25, 60, 70), Window(-500, -400, 900, 800),
     Window(100, 90, 139, 99), Window(300, 300, 400, 400)],
)  # fmt: skip
def test_a_mask_so_far_stands_for_the_plane_of_the_whole_image(window: Window) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (31, 47)).astype(np.float32)
    region = Region(30, 20, logits)
    kept = guidance.MaskSoFar.of_region(region, 100, 140)
    full = guidance.whole(region, 100, 140)
    assert full.shape == kept.shape == (100, 140)
    np.testing.assert_array_equal(full[20:51, 30:77], guidance.probability(logits))
    assert not full[:20].any()
    assert not full[:, 77:].any()
    points = [Point(40, 30), Point(60, 25, False)]
    np.testing.assert_array_equal(
        guidance.planes(window, 96, kept, points), guidance.planes(window, 96, full, points)
    )
    assert kept.box == Box(*(bbox(full > 127) or ()))


def test_a_given_mask_keeps_what_is_not_zero() -> None:
    mask = np.zeros((100, 140), np.float32)
    mask[20:60, 30:90] = 0.7
    mask[20, 30] = 0.003
    kept = guidance.MaskSoFar.of_mask(mask)
    assert kept.values.shape == (40, 60)
    np.testing.assert_array_equal(kept[:100, :140], np.rint(mask * np.float32(255)))
    assert kept.box == Box(30, 20, 90, 60)
    same = guidance.MaskSoFar.of_mask(mask > 0.5)
    np.testing.assert_array_equal(same[:100, :140], 255 * (mask > 0.5))
    assert guidance.MaskSoFar.of_mask(np.zeros((5, 6), bool)).box is None


def test_the_next_box_is_the_mask_where_all_clicks_are_in_it() -> None:
    box = Box(10, 20, 50, 80)
    points = [Point(30, 40), Point(200, 200, False)]
    assert guidance.following_box(box, points, 300, 300) == box


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (Point(90, 40), (10, 20, 130, 80)),  # as far past it as it is outside
        (Point(0, 0), (-10, -20, 50, 80)),
        (Point(30, 100), (10, 20, 50, 120)),
        (Point(54, 40), (10, 20, 60.6, 80)),  # at least 15 % of the 44 pixels
    ],
)
def test_the_next_box_goes_past_a_positive_click_outside(
    point: Point, expected: tuple[float, ...]
) -> None:
    box = guidance.following_box(Box(10, 20, 50, 80), [point], 300, 300)
    assert box is not None
    assert np.allclose((box.x0, box.y0, box.x1, box.y1), expected)


def test_clicks_alone_get_a_box_of_some_size() -> None:
    assert guidance.following_box(None, [], 400, 300) is None
    assert guidance.following_box(None, [Point(5, 5, False)], 400, 300) is None
    box = guidance.following_box(None, [Point(100, 100)], 400, 300)
    assert box is not None
    assert (box.width, box.height) == (60, 60)
    assert (box.center.x, box.center.y) == (100, 100)
    box = guidance.following_box(None, [Point(100, 100), Point(300, 100)], 400, 300)
    assert box is not None
    assert (box.x0, box.x1, box.height) == (70, 330, 60)


WINDOW = Window(0, 0, 96, 96)


def settled(logits: np.ndarray, mask: np.ndarray, newest: Point) -> np.ndarray:
    """`guidance.settled` with a mask so far on each logit's cell."""
    plane = mask.astype(np.float32).repeat(2, 0).repeat(2, 1)
    return guidance.settled(logits.astype(np.float32), plane, WINDOW, newest)


def test_at_the_newest_click_the_answer_is_the_networks() -> None:
    mask = np.zeros((48, 48))
    mask[:, :24] = 1
    mean = settled(np.full((48, 48), 3.0), mask, Point(24.0, 48.0))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean[24, 11:13], 3, atol=0.05)


def test_far_from_the_newest_click_only_a_sure_answer_changes_the_mask() -> None:
    mask = np.zeros((48, 48))
    newest = Point(4.0, 4.0)
    for answer, changes in ((3.0, False), (7.0, True)):
        mean = settled(np.full((48, 48), answer), mask, newest)
        assert (mean[40:, 40:] > 0).all() == changes
        assert mean[1:4, 1:4].min() > 0.8 * answer


@given(
    hnp.arrays(np.float32, (8, 8), elements=st.floats(-20, 20, width=32)),
    hnp.arrays(np.uint8, (8, 8)),
    st.tuples(st.floats(-50, 150), st.floats(-50, 150)),
)
def test_a_settled_answer_lies_between_the_network_and_the_mask(
    logits: np.ndarray, plane: np.ndarray, place: tuple[float, float]
) -> None:
    share = (plane / np.float32(255)).repeat(3, 0).repeat(3, 1)
    before = logits.copy()
    mean = guidance.settled(logits, share, WINDOW, Point(*place))
    np.testing.assert_array_equal(logits, before)  # the given array is not touched
    least = 1 / (1 + np.exp(guidance.CERTAIN))
    known = np.clip(plane / 255, least, 1 - least)
    mask = np.log(known / (1 - known))
    assert (mean >= np.minimum(logits, mask) - 1e-3).all()
    assert (mean <= np.maximum(logits, mask) + 1e-3).all()
