"""evaluate.boundary: against repeated 3x3 erosions and against OpenCV, as the authors do it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2.evaluation.boundary import boundary_iou, boundary_width, deepest, erode


def slowly_eroded(mask: np.ndarray, radius: int) -> np.ndarray:
    for _ in range(radius):
        padded = np.pad(mask, 1)
        mask = np.all(
            [padded[dy : dy + len(mask), dx : dx + mask.shape[1]]
             for dy in range(3) for dx in range(3)], axis=0,
        )  # fmt: skip
    return mask


def blobs(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 5)):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 16)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    return mask


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 9))
def test_erode_is_repeated_erosion(seed: int, radius: int) -> None:
    mask = blobs(seed)
    np.testing.assert_array_equal(erode(mask, radius), slowly_eroded(mask, radius))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_boundary_iou_is_the_authors(first: int, second: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="compared with OpenCV's erosion")
    a, b = blobs(first, 90, 120), blobs(second, 90, 120)
    width = max(1, round(0.02 * np.hypot(90, 120)))

    def rim(mask: np.ndarray) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        return mask & ~eroded.astype(bool)

    union = (rim(a) | rim(b)).sum()
    expected = (rim(a) & rim(b)).sum() / union if union else 0.0
    assert boundary_iou(a, b) == pytest.approx(expected, abs=1e-12)


def test_boundary_width_is_two_percent_of_the_diagonal() -> None:
    assert boundary_width(480, 640) == 16
    assert boundary_width(4, 4) == 1


def test_boundary_iou_of_the_same_and_of_nothing() -> None:
    mask = blobs(3)
    assert boundary_iou(mask, mask) == 1
    assert boundary_iou(mask, np.zeros_like(mask)) == 0
    assert boundary_iou(np.zeros_like(mask), np.zeros_like(mask)) == 1  # two empty masks agree


def test_boundary_iou_sees_what_iou_forgives() -> None:
    large = np.zeros((400, 400), bool)
    large[20:380, 20:380] = True
    smaller = np.zeros_like(large)
    smaller[26:374, 26:374] = True
    iou = (large & smaller).sum() / (large | smaller).sum()
    assert iou > 0.93
    assert boundary_iou(large, smaller) < 0.4


def test_deepest_is_the_middle_of_the_largest_square() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:16, 10:21] = True  # 11 x 11: radius 5
    mask[25:28, 5:55] = True  # long and thin: radius 1
    assert deepest(mask) == (15, 10, 5)
    assert deepest(np.zeros((4, 4), bool)) is None
    assert deepest(mask, [(15, 10)]) not in (None, (15, 10, 5))
    square = np.ones((3, 3), bool)
    assert deepest(square, [(7, 7)]) == (1, 1, 1)
    passed_over = deepest(square, [(1, 1)])
    assert passed_over is not None
    assert passed_over[2] == 0
    assert deepest(square, [(x, y) for x in range(3) for y in range(3)]) is None
    lone = np.zeros((4, 4), bool)
    lone[1, 2] = True
    assert deepest(lone) == (2, 1, 0)
