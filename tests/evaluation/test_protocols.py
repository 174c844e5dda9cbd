"""Protocols: which prompt an object gives, the published border handling, and jitter's bounds."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.fakes import disc

from picosam2 import geometry, masks
from picosam2.errors import ConfigError
from picosam2.evaluation.protocols import PROTOCOLS, make_item, true_box
from picosam2.geometry import Window
from picosam2.prompts import Box, Point, Prompt

HEIGHT, WIDTH = 100, 200


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def ring() -> np.ndarray:
    return disc(HEIGHT, WIDTH, 100, 50, 30) & ~disc(HEIGHT, WIDTH, 100, 50, 15)


def test_the_names_are_fixed() -> None:
    assert PROTOCOLS == ("paper-point", "paper-roi", "click", "click-inside", "box")
    with pytest.raises(ConfigError, match="no protocol 'point': use paper-point"):
        make_item("point", ring())


def test_box_is_the_masks_own_box_and_leaves_the_window_to_the_predictor() -> None:
    item = make_item("box", rectangle(30, 20, 70, 45))
    assert item.prompt == Prompt(box=Box(30, 20, 70, 45))
    assert item.window is None
    assert item.box == Box(30, 20, 70, 45)
    assert item.point == Point(50, 32.5)


def test_click_is_the_center_of_the_box_or_the_nearest_pixel_on_the_object() -> None:
    item = make_item("click", rectangle(30, 20, 70, 45))
    assert item.prompt == Prompt(points=(Point(50, 32.5),))
    assert item.window is None
    assert item.box == Box(30, 20, 70, 45)
    on = make_item("click", ring()).point
    assert ring()[int(on.y), int(on.x)]
    distance = np.hypot(*(np.argwhere(ring())[:, ::-1] + 0.5 - (100, 50)).T)
    assert np.hypot(on.x - 100, on.y - 50) == pytest.approx(distance.min())


@pytest.mark.parametrize(
    ("mask", "window"),
    [
        # 48 whole pixels before the center's, and 96 in all, where that is inside.
        ((90, 40, 110, 60), (51, 1, 147, 97)),
        ((90, 40, 111, 61), (52, 2, 148, 98)),
        # At the left and top it is moved inside: the click is no longer in the middle.
        ((0, 40, 20, 60), (0, 1, 96, 97)),
        ((95, 0, 105, 5), (51, 0, 147, 96)),
        # At the right and bottom it is cut off, and then stretched.
        ((180, 80, 200, 100), (141, 41, 200, 100)),
    ],
)
def test_paper_point_handles_borders_as_published(
    mask: tuple[int, ...], window: tuple[float, ...]
) -> None:
    item = make_item("paper-point", rectangle(*mask))
    assert item.window == Window(*window)
    assert len(item.prompt.points) == 1


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((50, 40, 90, 50), (46, 21, 94, 69)),  # 40 wide, grown to 48, squared
        ((60, 20, 70, 60), (41, 16, 89, 64)),
        ((0, 40, 20, 60), (0, 38, 22, 62)),
        ((100, 0, 200, 100), (90, 0, 200, 100)),
        ((0, 0, 200, 10), (0, 0, 200, 100)),
    ],
)
def test_paper_roi_grows_squares_and_cuts(box: tuple[int, ...], window: tuple[float, ...]) -> None:
    item = make_item("paper-roi", rectangle(*box))
    assert item.window is not None
    edges = item.window.x0, item.window.y0, item.window.x1, item.window.y1
    assert edges == pytest.approx(window)
    assert item.prompt == Prompt(box=Box(*box))


def test_paper_roi_in_whole_pixels() -> None:
    item = make_item("paper-roi", rectangle(50, 40, 63, 50))  # 13 wide, grown to 15.6
    assert item.window == Window(48, 37, 64, 52)
    single = make_item("paper-roi", rectangle(199, 99, 200, 100)).window
    assert single == Window(198, 98, 200, 100)


def test_what_is_cut_off_is_then_stretched() -> None:
    """As published, a window cut to half its width still fills the crop."""
    mask = rectangle(190, 40, 200, 60)
    window = make_item("paper-point", mask).window
    assert window is not None
    assert (window.width, window.height) == (54, 96)
    covered = geometry.crop_mask(mask, window) > 0.5
    assert covered.any(0).sum() == pytest.approx(10 / 54 * 96, abs=1)
    assert covered.any(1).sum() == pytest.approx(20, abs=1)


@pytest.mark.parametrize("mask", [rectangle(60, 30, 100, 60), rectangle(0, 0, 30, 100), ring()])
def test_a_jittered_box_moves_each_edge_by_up_to_its_share_and_stays_inside(
    mask: np.ndarray,
) -> None:
    true = true_box(mask)
    moves = []
    for seed in range(200):
        box = make_item("box", mask, jitter=0.2, seed=seed).box
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= WIDTH
        assert box.y1 <= HEIGHT
        moves.append(
            (
                (box.x0 - true.x0) / true.width, (box.y0 - true.y0) / true.height,
                (box.x1 - true.x1) / true.width, (box.y1 - true.y1) / true.height,
            )
        )  # fmt: skip
    shifts = np.array(moves)
    assert np.abs(shifts).max() <= 0.2 + 1e-9
    assert np.abs(shifts).max() > 0.18
    assert len(np.unique(shifts[:, 0])) > 50


def test_a_jittered_box_of_a_single_pixel_at_the_edge_stays_a_box_inside() -> None:
    for corner in ((0, 0, 1, 1), (199, 99, 200, 100), (199, 0, 200, 100)):
        for seed in range(50):
            box = make_item("box", rectangle(*corner), jitter=0.9, seed=seed).box
            assert 0 <= box.x0 < box.x1 <= WIDTH
            assert 0 <= box.y0 < box.y1 <= HEIGHT


def test_a_jittered_click_is_on_the_object_and_near_its_center_point() -> None:
    mask = ring()
    center, box = masks.center_point(mask), true_box(mask)
    places = set()
    for seed in range(100):
        point = make_item("click", mask, jitter=0.15, seed=seed).point
        assert mask[int(point.y), int(point.x)]
        assert abs(point.x - center.x) <= 0.15 * box.width
        assert abs(point.y - center.y) <= 0.15 * box.height
        places.add((point.x, point.y))
    assert len(places) > 40


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_jitter_is_a_function_of_the_seed(protocol: str) -> None:
    first, same, other = (
        make_item(protocol, ring(), jitter=0.2, seed=seed).prompt for seed in (4, 4, 5)
    )
    assert first == same
    assert first != other
    if protocol != "click-inside":  # the others are as exact as they can be without jitter
        plain = make_item(protocol, ring(), seed=4).prompt
        assert plain == make_item(protocol, ring(), seed=5).prompt


def test_a_click_inside_is_anywhere_on_the_object_but_its_rim() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:60] = True  # 40 wide: a rim of 4
    points = [make_item("click-inside", mask, seed=seed).point for seed in range(300)]
    xs, ys = np.array([(point.x, point.y) for point in points]).T
    assert (xs.min(), xs.max()) == (24.5, 55.5)
    assert (ys.min(), ys.max()) == (14.5, 45.5)
    assert abs(xs.mean() - 40) < 2
    thin = np.zeros((9, 90), bool)
    thin[4] = True  # nothing is left of it without a rim
    assert make_item("click-inside", thin, seed=1).point.y == 4.5
