"""everything: grid, filters, suppression and clean-up, with a network whose answers are known."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from helpers.color import ColorRuntime, flat_scene
from helpers.progress import Recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2 import masks
from picosam2.errors import ConfigError
from picosam2.models.views import thinned
from picosam2.predictor import Predictor
from picosam2.results import Segmentation
from picosam2.tasks.click_grid import click_grids, grid
from picosam2.tasks.everything import Everything, everything

IMAGE, TRUTH = flat_scene()
SMALL = Everything(method="grid", points_per_side=12, pred_iou_thresh=0.2)
TINY = Everything(method="grid", points_per_side=2)


@pytest.fixture(scope="module")
def runtime() -> ColorRuntime:
    return ColorRuntime()


@pytest.fixture(scope="module")
def segmentations(runtime: ColorRuntime) -> list[Segmentation]:
    return everything(IMAGE, Predictor(runtime), SMALL)


def test_finds_every_object(segmentations: list[Segmentation]) -> None:
    for name, truth in TRUTH.items():
        assert max(masks.iou(each.mask, truth) for each in segmentations) > 0.85, name


def test_sorted_by_area_with_the_click_inside(segmentations: list[Segmentation]) -> None:
    areas = [each.area for each in segmentations]
    assert areas == sorted(areas, reverse=True)
    for each in segmentations:
        assert each.image is not None
        (point,) = each.prompt.points
        color = IMAGE[int(point.y), int(point.x)]
        assert (IMAGE[each.mask] == color).all(axis=1).mean() > 0.5


def test_no_two_masks_are_alike(segmentations: list[Segmentation]) -> None:
    overlap = masks.iou_matrix(
        [each.mask for each in segmentations], [each.mask for each in segmentations]
    )
    np.fill_diagonal(overlap, 0)
    assert overlap.max() <= SMALL.mask_overlap


def test_small_regions_are_removed() -> None:
    speckled = IMAGE.copy()
    rng = np.random.default_rng(0)
    speckled[rng.integers(0, 240, 400), rng.integers(0, 320, 400)] = 255
    segmentations = everything(
        speckled, Predictor(ColorRuntime()), dataclasses.replace(SMALL, min_mask_region_area=40)
    )
    assert segmentations
    for each in segmentations:
        labels, count = masks.label(each.mask)
        assert min(np.bincount(labels.ravel())[1:]) >= 40
        holes = masks.fill_holes(each.mask, 39)
        assert np.array_equal(holes, each.mask)
        assert count >= 1


def test_thresholds_only_remove(segmentations: list[Segmentation], runtime: ColorRuntime) -> None:
    for changes in ({"pred_iou_thresh": 0.6}, {"stability_score_thresh": 0.95}):
        fewer = everything(IMAGE, Predictor(runtime), dataclasses.replace(SMALL, **changes))
        assert len(fewer) <= len(segmentations)
        assert all(each.score >= changes.get("pred_iou_thresh", 0) for each in fewer)
    assert len(everything(IMAGE, Predictor(runtime), dataclasses.replace(SMALL, max_masks=2))) == 2


def test_batches_do_not_matter(segmentations: list[Segmentation]) -> None:
    runtime, progress = ColorRuntime(), Recorded()
    again = everything(
        IMAGE,
        Predictor(runtime),
        dataclasses.replace(SMALL, points_per_batch=10),
        progress=progress,
    )
    clicks = len(click_grids(Predictor(runtime), SMALL, 240, 320))
    assert progress.counts[0] == (10, clicks)
    assert progress.counts[-1][0] == progress.counts[-1][1] > clicks  # with the second look
    assert runtime.batches[0] == 10
    assert len(again) == len(segmentations)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(again, segmentations, strict=True))


def test_native_windows_and_tiny_images() -> None:
    predictor = Predictor(ColorRuntime(click_windows="native"))
    assert everything(IMAGE, predictor, SMALL)
    for height, width in ((1, 1), (3, 200)):
        image = np.zeros((height, width, 3), np.uint8)
        for each in everything(image, Predictor(ColorRuntime()), TINY):
            assert each.mask.shape == (height, width)


def test_a_grid_for_each_size_of_window() -> None:
    predictor = Predictor(ColorRuntime())

    def sides(**changes: int) -> list[tuple[float, int]]:
        """The widths of the windows, as shares of the long side, and the clicks along a side."""
        clicks = click_grids(
            predictor, Everything(method="grid", points_per_side=20, **changes), 240, 320
        )
        for point, window in clicks:
            assert window.center == pytest.approx((point.x, point.y))
            assert 0 < point.x < 320
            assert 0 < point.y < 240
        count = Counter(round(window.width / 320, 3) for _, window in clicks)
        return [(width, math.isqrt(number)) for width, number in sorted(count.items())]

    usual = [(0.15, 20), (0.3, 11), (0.6, 7), (1.125, 4)]
    assert sides() == usual
    assert sides(crop_n_layers=1) == [(0.075, 20), *usual]
    assert sides(crop_n_layers=9) == [(0.04, 20), (0.075, 20), *usual]


def test_what_runs_out_of_its_window_is_left_to_a_larger_one() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[100:300, 100:300] = 250
    image[250:, :60] = (200, 30, 30)
    segmentations = everything(
        image, Predictor(ColorRuntime()), Everything(method="grid", pred_iou_thresh=0)
    )
    square = np.zeros((400, 400), bool)
    square[100:300, 100:300] = True
    corner = np.zeros((400, 400), bool)
    corner[250:, :60] = True  # it ends where the image ends
    for truth in (square, corner):
        assert max(masks.iou(each.mask, truth) for each in segmentations) > 0.85
    inside = [each for each in segmentations if not (each.mask & ~square).any()]
    assert all(masks.iou(each.mask, square) > 0.8 for each in inside)  # no piece of it


def test_large_images_are_compared_small_and_answered_full() -> None:
    image = IMAGE.repeat(5, 0).repeat(5, 1)  # 1600 pixels, more than masks are compared on
    segmentations = everything(image, Predictor(ColorRuntime()), SMALL)
    assert segmentations
    for name, truth in TRUTH.items():
        large = truth.repeat(5, 0).repeat(5, 1)
        assert max(masks.iou(each.mask, large) for each in segmentations) > 0.85, name


def test_grid() -> None:
    points = grid(2, 100, 200)
    assert [(p.x, p.y) for p in points] == [(50, 25), (150, 25), (50, 75), (150, 75)]


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2), max_size=12))
@settings(max_examples=60, deadline=None)
def test_thinning_is_greedy(rows: list[tuple[int, int, int, int]]) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in rows], float).reshape(-1, 4)
    full = [np.zeros((40, 40), bool) for _ in rows]
    for mask, (x0, y0, x1, y1) in zip(full, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    kept: list[int] = []
    for index, mask in enumerate(full):
        if all(masks.iou(mask, full[other]) <= 0.5 for other in kept):
            kept.append(index)
    assert thinned(boxes, 0.5, len(boxes)).tolist() == kept
    assert thinned(boxes, 0.5, 2).tolist() == kept[:2]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "guess"},
        {"max_boxes": 0},
        {"second_looks": -1},
        {"points_per_side": 0},
        {"points_per_batch": 0},
        {"max_masks": 0},
        {"pred_iou_thresh": 1.5},
        {"stability_score_thresh": float("nan")},
        {"mask_nms_thresh": -1},
        {"stability_score_offset": 40},
        {"min_mask_region_area": -1},
        {"crop_n_layers": -1},
    ],
)
def test_impossible_settings(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Everything(**changes)
