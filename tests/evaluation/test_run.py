"""evaluate: a perfect subject scores 1, and every object is counted once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import FakeRuntime, reddish
from helpers.progress import Recorded
from helpers.tiny import HEIGHT, WIDTH, annotation, scene, write_coco

from picosam2 import geometry, masks
from picosam2.data.coco import AnnotatedImage, read_coco
from picosam2.errors import DataError
from picosam2.evaluation.protocols import PROTOCOLS, Item
from picosam2.evaluation.run import evaluate
from picosam2.geometry import Window
from picosam2.masks import Region
from picosam2.predictor import Candidate, Predictor
from picosam2.prompts import Box, Point


class Perfect:
    """Knows the images' one object each, and answers with it; `spoil` makes it worse."""

    weights_sha256 = "1" * 64

    def __init__(self, *, second_best: bool = False) -> None:
        self.second_best = second_best

    def _answer(self, truth: np.ndarray, score: float) -> Candidate:
        logits = np.where(truth, 5, -5).astype(np.float32)
        return Candidate(Window(0, 0, WIDTH, HEIGHT), Region(0, 0, logits), score)

    def boxes(self, image: np.ndarray, boxes: Sequence[Box]) -> list[Candidate]:
        return [self._answer(truth_of(image), 0.9) for _ in boxes]

    def clicks(self, image: np.ndarray, points: Sequence[Point]) -> list[list[Candidate]]:
        truth = truth_of(image)
        right, wrong = self._answer(truth, 0.9), self._answer(~truth, 0.95)
        return [[wrong, right] if self.second_best else [right, wrong] for _ in points]

    def windows(self, image: np.ndarray, items: Sequence[Item]) -> np.ndarray:
        crops = []
        for item in items:
            assert item.window is not None
            covered = geometry.crop_mask(truth_of(image), item.window)
            crops.append(np.where(covered > 0.5, 5, -5))
        return np.stack(crops).astype(np.float32)


def truth_of(image: np.ndarray) -> np.ndarray:
    for number in range(12):
        known, mask = scene(number)
        if np.array_equal(known, image):
            return mask
    raise AssertionError("this image was changed on the way")


@pytest.fixture
def images(tmp_path: Path) -> tuple[AnnotatedImage, ...]:
    source = write_coco(tmp_path, 6)
    return read_coco(source.annotations, source.images).images


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_a_perfect_subject_scores_one(
    protocol: str, jitter: float, images: tuple[AnnotatedImage, ...]
) -> None:
    evaluation = evaluate(Perfect(), images, protocol=protocol, jitter=jitter)
    result = evaluation.to_json()
    assert result["n"] == result["photos"] == 6
    assert result["miou"] == 1
    assert result["miou_ci95"] == [1, 1]
    assert result["hit_rate"] == 1
    assert result["best_candidate"] == 1
    assert result["boundary_iou"] == 1
    assert result["jitter"] == jitter
    assert result["weights_sha256"] == "1" * 64
    assert result["ms_per_prompt"] > 0


def test_the_first_answer_counts_and_the_best_is_told_beside_it(
    images: tuple[AnnotatedImage, ...],
) -> None:
    result = evaluate(Perfect(second_best=True), images, protocol="click").to_json()
    assert result["miou"] == 0
    assert result["best_candidate"] == 1


def test_the_result_has_the_promised_keys_and_is_json(images: tuple[AnnotatedImage, ...]) -> None:
    result = evaluate(Perfect(), images, protocol="box", dataset="mine").to_json()
    promised = {"protocol", "dataset", "n", "miou", "miou_ci95", "hit_rate", "by_size",
                "baselines", "ms_per_prompt", "weights_sha256"}  # fmt: skip
    assert promised <= set(result)
    assert set(result["by_size"]) == {"small", "medium", "large"}
    assert {"box", "ellipse", "disc"} <= set(result["baselines"])
    assert result["protocol"] == "box"
    assert result["dataset"] == "mine"
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    # The objects are discs: the ellipse in their box is right, the box a quarter too large.
    assert result["baselines"]["ellipse"] > 0.95
    assert result["baselines"]["box"] == pytest.approx(np.pi / 4, abs=0.02)


def test_a_predictor_is_measured_as_a_user_gets_it(images: tuple[AnnotatedImage, ...]) -> None:
    predictor = Predictor(FakeRuntime(reddish))
    for protocol in ("box", "click"):
        evaluation = evaluate(predictor, images, protocol=protocol)
        for image, measured in zip(images, evaluation.measured, strict=True):
            _, truth = scene(image.id - 1)
            prompt = (
                {"boxes": [masks.bbox(truth)]}
                if protocol == "box"
                else {"points": [masks.center_point(truth)]}
            )
            (alone,) = predictor(image.path, **prompt)
            assert measured.iou == pytest.approx(masks.iou(alone.mask, truth) if truth.any() else 1)
            assert measured.score == pytest.approx(alone.score)


def test_a_limit_takes_the_first_objects(images: tuple[AnnotatedImage, ...]) -> None:
    progress = Recorded()
    evaluation = evaluate(Perfect(), images, protocol="box", limit=4, progress=progress)
    assert [measured.annotation for measured in evaluation.measured] == [101, 102, 103, 104]
    assert progress.counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(evaluate(Perfect(), images, protocol="box", limit=99).measured) == 6


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 5)
    document = json.loads(source.annotations.read_text())
    empty: dict[str, Any] = annotation(900, 2, np.zeros((HEIGHT, WIDTH), bool))
    crowd = {**annotation(901, 3, scene(2)[1]), "iscrowd": 1}
    document["annotations"] += [empty, crowd]
    source.annotations.write_text(json.dumps(document))
    (source.images / "000.png").write_bytes(b"no image")
    small = document["images"][3]  # another size than the image has
    small["height"], small["width"] = HEIGHT // 2, WIDTH
    for entry in document["annotations"]:
        if entry["image_id"] == small["id"]:
            entry.update(annotation(entry["id"], small["id"], scene(3)[1][: HEIGHT // 2]))
    source.annotations.write_text(json.dumps(document))
    images = read_coco(source.annotations, source.images).images
    evaluation = evaluate(Perfect(), images, protocol="box")
    assert [measured.annotation for measured in evaluation.measured] == [102, 103, 105]
    assert [problem.where for problem in evaluation.problems] == [
        "image 000.png", "annotation 900", "annotation 104",
    ]  # fmt: skip
    assert evaluation.to_json()["skipped"] == 3
    assert evaluation.to_json()["miou"] == 1


def test_nothing_to_measure(images: tuple[AnnotatedImage, ...]) -> None:
    with pytest.raises(DataError, match="nothing to measure"):
        evaluate(Perfect(), (), protocol="box")
    with pytest.raises(DataError, match="nothing to measure"):
        evaluate(Perfect(), images, protocol="box", limit=0)
