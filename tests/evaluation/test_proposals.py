"""evaluate.proposals: recall by COCOeval on cases that can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.box_finder import PatchFinder
from helpers.color import ColorRuntime, flat_scene
from helpers.progress import Recorded
from PIL import Image

from picosam2.data.coco import read_coco
from picosam2.errors import DataError
from picosam2.io.formats import coco_document
from picosam2.masks import rle_encode
from picosam2.predictor import Predictor
from picosam2.tasks.everything import Everything

pytest.importorskip("pycocotools")
proposals = pytest.importorskip("picosam2.evaluation.proposals")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def truth(mask: np.ndarray) -> dict[str, Any]:
    return {"rle": rle_encode(mask), "area": float(mask.sum())}


def test_recall_by_hand() -> None:
    first, second = square(0, 0, 40), square(50, 50, 20)
    half = square(0, 0, 40)
    half[:, 30:] = False  # IoU 0.75 with the first: met at .50, .55, ..., .75
    recall = proposals.average_recall(
        [[truth(first), truth(second)]],
        [[(rle_encode(half), 0.9), (rle_encode(second), 0.8)]],
    )
    assert recall.at[100] == pytest.approx((6 / 10 + 1) / 2)
    assert recall.at[1] == pytest.approx(6 / 10 / 2)
    assert recall.by_size["medium"] == pytest.approx(6 / 10)
    assert recall.by_size["small"] == pytest.approx(1)
    assert recall.by_size["large"] is None
    assert recall.masks_per_image == 2


def test_nothing_found() -> None:
    assert proposals.average_recall([[truth(square(0, 0, 9))]], [[]]).at[100] == 0


def test_grid_of_boxes() -> None:
    boxes = proposals.grid_of_boxes(100, 200)
    assert len(boxes) == 91
    assert (boxes[0].width, boxes[0].height) == (200, 100)
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= 200
        assert 0 <= box.y0 < box.y1 <= 100


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    image, objects = flat_scene()
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    images = [
        {"id": number, "file_name": name, "height": 240, "width": 320}
        for number, name in enumerate(("a.png", "b.png"), 1)
    ]
    annotations = [
        {
            "id": 10 * image + number,
            "image_id": image,
            "category_id": 1,
            "segmentation": rle_encode(mask),
            "area": int(mask.sum()),
        }
        for image in (1, 2)
        for number, mask in enumerate(objects.values())
    ]
    (tmp_path / "truth.json").write_text(json.dumps(coco_document(images, annotations)))
    return tmp_path


def test_everything_beats_a_grid_of_boxes(annotated: Path) -> None:
    read = read_coco(annotated / "truth.json", annotated)
    progress = Recorded()
    result = proposals.measure(
        Predictor(ColorRuntime()),
        read.images,
        Everything(method="grid", points_per_side=6, pred_iou_thresh=0.2),
        finder=PatchFinder(),
        beside=Everything(method="finder", pred_iou_thresh=0.1),
        progress=progress,
    )
    assert (result.images, result.objects, progress.counts) == (1, 3, [(1, 2)])
    assert [problem.where for problem in result.problems] == ["image b.png"]
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    methods = written["methods"]
    assert methods["everything"]["ar@100"] > 0.6
    assert methods["grid of boxes"]["ar@100"] < methods["everything"]["ar@100"]
    assert methods["everything by finder"]["ar@100"] > 0.6
    assert methods["everything by finder"]["near_duplicates"] == 0


def test_near_duplicates_are_counted_once_each() -> None:
    square = np.zeros((20, 20), bool)
    square[2:12, 2:12] = True
    wider, other = square.copy(), np.zeros((20, 20), bool)
    wider[2:12, 12] = True  # IoU 100 / 110
    other[15:, 15:] = True
    ranked = [[(rle_encode(mask), score) for mask, score in
               ((square, 0.9), (wider, 0.8), (square, 0.7), (other, 0.6))]]  # fmt: skip
    assert proposals.near_duplicates(ranked) == 0.5
    assert proposals.near_duplicates([[]]) == 0


def test_nothing_to_measure(annotated: Path) -> None:
    read = read_coco(annotated / "truth.json", annotated)
    with pytest.raises(DataError, match="nothing to measure"):
        proposals.measure(Predictor(ColorRuntime()), read.images[1:])
