"""evaluate.baselines: flood fill and GrabCut on flat colors, where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.color import flat_scene

from picosam2 import masks
from picosam2.errors import MissingExtraError
from picosam2.evaluation import baselines
from picosam2.evaluation.protocols import true_box
from picosam2.prompts import Box, Point


def test_flood_is_the_clicked_color_where_it_is_connected() -> None:
    image, objects = flat_scene()
    for mask in objects.values():
        mask = baselines.flood(image, masks.center_point(mask))
        np.testing.assert_array_equal(mask, mask)


def test_flood_does_not_jump_to_the_same_color_elsewhere() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[5:10, 5:10] = image[5:10, 25:30] = 200
    mask = baselines.flood(image, Point(7, 7))
    assert mask.sum() == 25
    assert mask[5:10, 5:10].all()


@pytest.mark.parametrize("name", ["disc", "square"])
def test_grabcut_finds_a_flat_object(name: str) -> None:
    pytest.importorskip("cv2", reason="GrabCut is OpenCV's")
    image, objects = flat_scene()
    truth = objects[name]
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    box = true_box(truth)
    wide = Box(box.x0 - 8, box.y0 - 8, box.x1 + 8, box.y1 + 8)
    assert masks.iou(baselines.grabcut_box(noisy, wide), truth) > 0.85
    assert masks.iou(baselines.grabcut_disc(noisy, masks.center_point(truth)), truth) > 0.85


def test_grabcut_on_almost_nothing_is_the_box() -> None:
    pytest.importorskip("cv2", reason="GrabCut is OpenCV's")
    image = np.full((30, 30, 3), 90, np.uint8)
    mask = baselines.grabcut_box(image, Box(3, 4, 5, 6))
    assert mask.shape == (30, 30)
    assert mask[4:6, 3:5].any()


def test_without_opencv_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="baselines"):
        baselines.grabcut_box(np.zeros((9, 9, 3), np.uint8), Box(1, 1, 5, 5))
