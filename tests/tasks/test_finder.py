"""Everything mode by a finder, with a finder and a segmenter whose answers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.box_finder import PatchFinder, cells_of
from helpers.color import ColorRuntime, flat_scene
from helpers.progress import Recorded

from picosam2 import masks
from picosam2.errors import WeightsError
from picosam2.predictor import Predictor
from picosam2.results import Segmentation
from picosam2.tasks.everything import Everything, everything
from picosam2.tasks.finder import FoundBoxes, find_boxes

IMAGE, TRUTH = flat_scene()
SETTINGS = Everything(method="finder", pred_iou_thresh=0.1, stability_score_thresh=0.1)


def results_of(image: np.ndarray, settings: Everything = SETTINGS) -> list[Segmentation]:
    return everything(image, Predictor(ColorRuntime()), settings, finder=PatchFinder())


def test_finds_every_object_once() -> None:
    results = results_of(IMAGE)
    for name, truth in TRUTH.items():
        ious = [masks.iou(result.mask, truth) for result in results]
        assert max(ious) > 0.85, name
        assert sum(iou > 0.8 for iou in ious) == 1, name
    areas = [result.area for result in results]
    assert areas == sorted(areas, reverse=True)
    for result in results:
        assert not result.prompt.points
        assert result.prompt.box is not None
        assert 0 <= result.score <= 1


def test_an_object_too_small_for_the_whole_view_is_seen_in_a_part() -> None:
    image = np.full((600, 800, 3), 40, np.uint8)
    image[91:119, 91:119] = (200, 60, 60)  # 4 pixels of the whole view, 7 of a part
    finder = PatchFinder()
    assert not len(find_boxes(image, finder, parts=False))
    boxes = find_boxes(image, finder).boxes
    assert len(boxes) == 1
    assert boxes[0] == pytest.approx((91, 91, 119, 119), abs=6)


def test_a_further_layer_of_parts_sees_still_smaller_objects() -> None:
    image = np.full((600, 800, 3), 40, np.uint8)
    image[40:52, 40:52] = (200, 60, 60)
    finder = PatchFinder()
    assert not len(find_boxes(image, finder))
    before = sum(finder.batches)
    proposed = find_boxes(image, finder, layers=1)
    assert len(proposed) == 1
    assert proposed.boxes[0] == pytest.approx((40, 40, 52, 52), abs=4)
    assert sum(finder.batches) > 2 * before + 6
    # It is surer of what it sees with more around it.
    image[300:500, 300:500] = (60, 200, 60)
    far, near = find_boxes(image, finder), find_boxes(image, finder, layers=1)
    assert near.objectness.max() == far.objectness.max()
    assert not len(find_boxes(image[:300], finder, parts=False, layers=1))
    results = results_of(image, dataclasses.replace(SETTINGS, crop_n_layers=1))
    assert len(results) == len(results_of(image)) + 1


def test_the_views_of_a_panorama_go_through_the_finder_in_batches() -> None:
    image = np.full((100, 1500, 3), 40, np.uint8)
    image[20:80, 300:360] = (200, 60, 60)
    image[30:80, 1200:1260] = (60, 200, 60)
    finder = PatchFinder()
    boxes = find_boxes(image, finder).boxes
    assert len(boxes) == 2
    assert len(finder.batches) > 1
    assert max(finder.batches) <= 8


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (64, 64), (40, 600)])
def test_an_image_of_one_color_has_no_objects(size: tuple[int, int]) -> None:
    for level in (0, 128, 255):
        assert results_of(np.full((*size, 3), level, np.uint8)) == []


def test_beyond_the_best_fifty_only_likely_boxes_are_looked_at() -> None:
    objectness = np.linspace(0.9, 0.02, 120, dtype=np.float32)
    boxes = FoundBoxes(np.arange(480, dtype=np.float32).reshape(120, 4), objectness)
    likely = boxes.likely(0.3)
    assert len(likely) == (objectness >= 0.3).sum() > 50
    assert (likely.boxes == boxes.boxes[: len(likely)]).all()
    assert len(boxes.likely(0.99)) == 50
    assert len(boxes.likely(0)) == 120

    runtime = ColorRuntime()
    finder = PatchFinder()
    image = np.full((330, 330, 3), 40, np.uint8)
    for place in range(64):  # as many objects, each of its own color
        x, y = 41 * (place % 8), 41 * (place // 8)
        image[y : y + 32, x : x + 32] = (60 + 3 * place, 250 - 3 * place, 60)
    count = len(find_boxes(image, finder))
    assert count > 50
    few = dataclasses.replace(SETTINGS, second_looks=0, objectness_thresh=1.0)
    everything(image, Predictor(runtime), few, finder=finder)
    assert sum(runtime.batches) == 50


def test_settings_limit_what_is_looked_at_and_kept() -> None:
    runtime, progress = ColorRuntime(), Recorded()
    settings = dataclasses.replace(SETTINGS, max_boxes=2, points_per_batch=1, second_looks=0)
    everything(IMAGE, Predictor(runtime), settings, finder=PatchFinder(), progress=progress)
    assert runtime.batches == [1, 1]
    assert progress.counts == [(1, 2), (2, 2)]
    assert len(results_of(IMAGE, dataclasses.replace(SETTINGS, max_masks=1))) == 1
    assert results_of(IMAGE, dataclasses.replace(SETTINGS, pred_iou_thresh=1.0)) == []


def test_the_best_masks_are_looked_at_again_by_their_own_boxes() -> None:
    def closeness(looks: int) -> tuple[float, list[tuple[int, int]]]:
        """How near the results' boxes are to the objects', and the progress."""
        progress = Recorded()
        results = everything(
            IMAGE,
            Predictor(ColorRuntime()),
            dataclasses.replace(SETTINGS, second_looks=looks),
            finder=PatchFinder(loose=0.15),
            progress=progress,
        )
        truths = [masks.bbox(truth) for truth in TRUTH.values()]
        prompts = [r.prompt.box for r in results if r.prompt.box is not None]
        boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for b in prompts])
        best = [masks.box_iou(np.array(truth, float), boxes).max() for truth in truths]
        return float(np.mean(best)), progress.counts

    loose, counts = closeness(0)
    close, more_counts = closeness(15)
    assert close > loose + 0.1
    done, total = more_counts[-1]
    assert done == total > counts[-1][1]


def test_a_second_look_that_is_worse_does_not_count() -> None:
    class Forgetful(ColorRuntime):
        """Answers nothing once it has seen a batch."""

        def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
            logits = super().__call__(crops, guidance)
            return logits if len(self.batches) == 1 else np.full_like(logits, -8)

    results = everything(IMAGE, Predictor(Forgetful()), SETTINGS, finder=PatchFinder())
    assert len(results) == len(results_of(IMAGE))


def test_a_mask_of_the_whole_image_is_no_object() -> None:
    class Everywhere(ColorRuntime):
        def __call__(self, *inputs: Any, **named: Any) -> np.ndarray:
            return np.full_like(super().__call__(*inputs, **named), 4.0)

    def answers(runtime: ColorRuntime) -> list[Segmentation]:
        return everything(IMAGE, Predictor(runtime), SETTINGS, finder=WholeFinder())

    class WholeFinder(PatchFinder):
        def __call__(self, views: np.ndarray) -> np.ndarray:
            side = views.shape[1]
            return np.stack([cells_of([(0, 0, side, side)], side) for _ in views])

    assert answers(ColorRuntime()), "the finder's box leads to a mask where the network is choosy"
    assert answers(Everywhere()) == []


def test_large_images_are_answered_at_full_size() -> None:
    image = IMAGE.repeat(5, 0).repeat(5, 1)
    results = results_of(image)
    for name, truth in TRUTH.items():
        large = truth.repeat(5, 0).repeat(5, 1)
        assert max(masks.iou(result.mask, large) for result in results) > 0.85, name


def test_a_finder_that_is_not_there(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, finder=str(tmp_path / "missing.onnx"))
    with pytest.raises(WeightsError, match="no weights at"):
        everything(IMAGE, Predictor(ColorRuntime()), settings)
    settings = dataclasses.replace(SETTINGS, finder="nobody")
    with pytest.raises(WeightsError, match="no finder named nobody"):
        everything(IMAGE, Predictor(ColorRuntime()), settings)
