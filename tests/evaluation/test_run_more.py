"""evaluate.run: what came with the full evaluation - outline, rivals, subjects, disturbances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.color import ColorRuntime, flat_scene
from helpers.tiny import annotation
from PIL import Image

from picosam2 import masks
from picosam2.data.coco import AnnotatedImage, read_coco
from picosam2.evaluation import metrics
from picosam2.evaluation.boundary import boundary_iou
from picosam2.evaluation.protocols import count_rivals
from picosam2.evaluation.run import evaluate
from picosam2.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def images(tmp_path: Path) -> tuple[AnnotatedImage, ...]:
    image, objects = flat_scene()
    Image.fromarray(image).save(tmp_path / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 240, "width": 320}],
        "annotations": [annotation(10 + n, 1, m) for n, m in enumerate(objects.values())],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return read_coco(tmp_path / "truth.json", tmp_path).images


def test_the_result_agrees_with_the_masks_themselves(images: tuple[AnnotatedImage, ...]) -> None:
    predictor = Predictor(ColorRuntime())
    evaluation = evaluate(predictor, images, protocol="box")
    image, objects = flat_scene()
    for measured, truth in zip(evaluation.measured, objects.values(), strict=True):
        box = masks.bbox(truth)
        assert box is not None
        mask = predictor(image, boxes=[box])[0].mask
        assert measured.iou == pytest.approx(masks.iou(mask, truth))
        assert measured.boundary == pytest.approx(boundary_iou(mask, truth))


def test_iou_is_pycocotools(images: tuple[AnnotatedImage, ...]) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    predictor = Predictor(ColorRuntime())
    evaluation = evaluate(predictor, images, protocol="click")
    image, objects = flat_scene()
    for measured, truth in zip(evaluation.measured, objects.values(), strict=True):
        mask = predictor(image, points=[(masks.center_point(truth))])[0].mask
        codes = [tools.encode(np.asfortranarray(m.astype(np.uint8))) for m in (mask, truth)]
        assert measured.iou == pytest.approx(float(tools.iou(codes[:1], codes[1:], [0])[0, 0]))


@pytest.mark.parametrize("protocol", ["box", "click", "paper-point", "paper-roi"])
def test_the_result_file_is_json_with_every_number(
    images: tuple[AnnotatedImage, ...], protocol: str
) -> None:
    result = evaluate(
        Predictor(ColorRuntime()), images, protocol=protocol, weights={"name": "color"}
    )
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert written["kind"] == "evaluation"
    assert written["weights"] == {"name": "color"}
    assert 0 <= written["boundary_iou"] <= 1
    assert sum(row["n"] for row in written["by_rivals"].values()) == written["n"] == 3
    assert set(written["items"][0]) == {
        "annotation", "photo", "area", "rivals", "iou", "score", "boundary", "box", "ellipse",
        "disc",
    }  # fmt: skip
    if protocol.startswith("paper"):
        assert written["score"] == {"spearman": None, "calibration_error": None, "reliability": []}


def test_pixel_baselines_are_of_the_prompt(images: tuple[AnnotatedImage, ...]) -> None:
    pytest.importorskip("cv2")
    predictor = Predictor(ColorRuntime())
    box = evaluate(predictor, images, protocol="box", pixel_baselines=True).to_json()
    assert set(box["baselines"]) == {"box", "ellipse", "disc", "grabcut"}
    click = evaluate(predictor, images, protocol="click", pixel_baselines=True).to_json()
    assert set(click["baselines"]) == {"box", "ellipse", "disc", "flood", "grabcut"}
    assert click["baselines"]["flood"] == pytest.approx(1)


def test_disturbances_reach_image_and_prompt(images: tuple[AnnotatedImage, ...]) -> None:
    seen: list[Any] = []

    def gray(image: np.ndarray, image_id: int) -> np.ndarray:
        seen.append(image_id)
        return np.full_like(image, 90)

    def same(item: Any, annotation: int) -> Any:
        seen.append(annotation)
        return item

    plain = evaluate(Predictor(ColorRuntime()), images, protocol="box").to_json()
    flat = evaluate(
        Predictor(ColorRuntime()), images, protocol="box", disturb_image=gray, disturb_item=same
    ).to_json()
    assert seen == [1, 10, 11, 12]
    assert flat["miou"] < plain["miou"]
    assert flat["baselines"] == plain["baselines"]


def test_rivals_are_others_in_the_window() -> None:
    def square(x: int, y: int, side: int) -> np.ndarray:
        mask = np.zeros((100, 200), bool)
        mask[y : y + side, x : x + side] = True
        return mask

    truths = [square(10, 10, 40), square(20, 20, 10), square(48, 10, 20), square(150, 50, 30)]
    # The first holds the second, and the third reaches into its window (10 % wider a side).
    assert count_rivals(truths) == [2, 1, 1, 0]
    speck = [square(10, 10, 40), square(20, 20, 2)]  # too small to count, but sees the other
    assert count_rivals(speck) == [0, 1]


def test_reliability_holds_every_object() -> None:
    rng = np.random.default_rng(0)
    scores, ious = rng.uniform(size=200), rng.uniform(size=200)
    bins = metrics.reliability(scores, ious)
    assert sum(bin.count for bin in bins) == 200
    gaps = sum(bin.count / 200 * abs(bin.score - bin.iou) for bin in bins)
    assert gaps == pytest.approx(metrics.calibration_error(scores, ious))
    assert metrics.reliability(np.array([1.0]), np.array([0.5]))[0].count == 1
