"""A mask on part of an image is the same mask as on the whole image, in every measure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picosam2 import geometry, masks
from picosam2.errors import DataError
from picosam2.evaluation.boundary import boundary_iou
from picosam2.masks import OUTSIDE_LOGIT, Region
from picosam2.prompts import Box, Point

HEIGHT, WIDTH = 30, 40
seeds = st.integers(0, 2**32 - 1)
regions = st.builds(
    lambda seed, x, y, h, w, as_logits: _region(seed, x, y, h, w, as_logits),
    seeds, st.integers(0, 25), st.integers(0, 20), st.integers(0, 10), st.integers(0, 15),
    st.booleans(),
)  # fmt: skip


def _region(seed: int, x: int, y: int, height: int, width: int, as_logits: bool) -> Region:
    logits = np.random.default_rng(seed).normal(-0.5, 1, (height, width)).astype(np.float32)
    return Region(x, y, logits if as_logits else logits > 0)


@given(regions, seeds)
def test_a_region_measures_as_the_whole_mask(region: Region, seed: int) -> None:
    whole = region.on_image(HEIGHT, WIDTH)
    truth = np.random.default_rng(seed).random(whole.shape) < 0.4
    assert whole[region.rows, region.columns].shape == region.mask.shape
    assert region.area == masks.area(whole)
    bounds = masks.bbox(whole)
    assert region.box == (None if bounds is None else Box(*bounds))
    assert region.iou(truth) == pytest.approx(masks.iou(whole, truth))
    assert region.iou(truth, int(truth.sum())) == region.iou(truth)
    for x, y in ((0, 0), (12, 9), (39, 29)):
        assert region.covers(Point(x + 0.5, y + 0.5)) == whole[y, x]


@given(regions, regions)
def test_overlap_is_that_of_the_whole_masks(a: Region, b: Region) -> None:
    both = a.on_image(HEIGHT, WIDTH) & b.on_image(HEIGHT, WIDTH)
    assert a.overlap(b) == b.overlap(a) == np.count_nonzero(both)


@given(regions)
def test_a_tight_region_is_the_same_mask_without_its_margins(region: Region) -> None:
    tight = region.tight()
    np.testing.assert_array_equal(tight.on_image(HEIGHT, WIDTH), region.on_image(HEIGHT, WIDTH))
    assert masks.bbox(tight.mask) in (None, (0, 0, tight.mask.shape[1], tight.mask.shape[0]))
    assert (region.box is None) == (tight.mask.size == 0)


def test_logits_elsewhere_are_the_outside_logit() -> None:
    logits = np.full((2, 3), 1.5, np.float32)
    whole = Region(4, 5, logits).logits_on_image(HEIGHT, WIDTH)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole[5:7, 4:7], logits)
    assert np.count_nonzero(whole == OUTSIDE_LOGIT) == whole.size - 6
    with pytest.raises(DataError, match="without logits"):
        _ = Region(4, 5, logits > 0).logits


def test_two_empty_masks_agree_in_every_iou() -> None:
    empty = np.zeros((9, 9), bool)
    assert masks.iou(empty, empty) == 1
    assert masks.iou_matrix([empty], [empty]) == [[1]]
    assert Region(2, 2, np.full((3, 3), -1, np.float32)).iou(empty) == 1
    assert Region(2, 2, np.zeros((0, 0), bool)).iou(empty) == 1
    assert boundary_iou(empty, empty) == 1


def test_an_empty_mask_and_another_do_not_agree() -> None:
    empty, full = np.zeros((9, 9), bool), np.ones((9, 9), bool)
    assert masks.iou(empty, full) == masks.iou(full, empty) == 0
    assert masks.iou_matrix([empty, full], [full]).tolist() == [[0], [1]]
    assert Region(2, 2, np.zeros((3, 3), bool)).iou(full) == 0
    assert boundary_iou(empty, full) == 0


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=6))
def test_box_iou_is_that_of_filled_boxes(rows: list[tuple[int, int, int, int]]) -> None:
    boxes = [Box(x, y, x + w + 1, y + h + 1) for x, y, w, h in rows]
    corners = np.array([(b.x0, b.y0, b.x1, b.y1) for b in boxes])
    filled = []
    for box in boxes:
        mask = np.zeros((26, 26), bool)
        mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
        filled.append(mask)
    for i, box in enumerate(boxes):
        expected = masks.iou_matrix([filled[i]], filled)[0]
        np.testing.assert_allclose(masks.box_iou(corners[i], corners), expected, rtol=1e-12)
        np.testing.assert_allclose([box.iou(other) for other in boxes], expected, rtol=1e-12)


def test_geometry_pastes_regions() -> None:
    region = geometry.paste_region(
        np.ones((8, 8), np.float32), geometry.Window(3, 4, 11, 12), HEIGHT, WIDTH
    )
    assert region.box == Box(3, 4, 11, 12)
