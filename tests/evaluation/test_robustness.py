"""evaluate.robustness, evaluate.clicks: what disturbs, whom it disturbs, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from helpers.color import ColorRuntime
from helpers.progress import Recorded
from helpers.tiny import scene, write_coco

from picosam2 import masks
from picosam2.data.coco import AnnotatedImage, read_coco
from picosam2.errors import ConfigError, DataError
from picosam2.evaluation import robustness
from picosam2.evaluation.clicks import measure_clicks, next_click
from picosam2.evaluation.protocols import make_item
from picosam2.masks import Region
from picosam2.predictor import Predictor
from picosam2.prompts import Prompt

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def images(tmp_path: Path) -> tuple[AnnotatedImage, ...]:
    source = write_coco(tmp_path, 3)
    return read_coco(source.annotations, source.images).images


@pytest.mark.parametrize("name", ["jpeg", "low-light", "blur", "downscale"])
def test_a_curve_begins_undisturbed_and_gets_worse(name: str) -> None:
    image, _ = scene(1)
    curve = robustness.CURVES[name]
    assert curve.image is not None
    np.testing.assert_array_equal(curve.image(image, curve.levels[0], 5), image)
    errors = []
    for level in curve.levels[1:]:
        worse = curve.image(image, level, 5)
        assert worse.shape == image.shape
        assert worse.dtype == np.uint8
        np.testing.assert_array_equal(worse, curve.image(image, level, 5))  # seeded
        errors.append(float(np.abs(worse.astype(float) - image).mean()))
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_low_light_keeps_the_share_of_light() -> None:
    image = np.full((64, 64, 3), 188, np.uint8)  # half of the linear light
    dark = robustness.low_light(image, 0.1, 1) / 255
    linear = np.where(dark <= 0.04045, dark / 12.92, ((dark + 0.055) / 1.055) ** 2.4)
    assert linear.mean() == pytest.approx(0.1 * 0.503, rel=0.05)


def test_click_off_is_that_far_and_on_the_image() -> None:
    _, mask = scene(2)
    item = make_item("click", mask)
    assert robustness.click_off(item, 0.0, 1) is item
    for seed in range(20):
        moved = robustness.click_off(item, 8.0, seed).point
        assert np.hypot(moved.x - item.point.x, moved.y - item.point.y) == pytest.approx(8, abs=0.1)
        far = robustness.click_off(item, 500.0, seed).point
        assert 0 <= far.x < mask.shape[1]
        assert 0 <= far.y < mask.shape[0]


def test_click_inside_is_on_the_object_and_not_at_its_edge() -> None:
    _, mask = scene(3)
    item = make_item("click", mask)
    x0, y0, x1, y1 = masks.bbox(mask) or (0, 0, 0, 0)
    margin = int(robustness.ERODED_SHARE * min(x1 - x0, y1 - y0))
    places = set()
    for seed in range(30):
        point = robustness.click_inside(item, 1.0, seed).point
        x, y = int(point.x), int(point.y)
        assert mask[y - margin : y + margin + 1, x - margin : x + margin + 1].all()
        places.add((x, y))
    assert len(places) > 10
    thin = np.zeros((20, 20), bool)
    thin[4, 3:15] = True
    assert int(robustness.click_inside(make_item("click", thin), 1.0, 1).point.y) == 4


def test_robustness_reports_every_level(images: tuple[AnnotatedImage, ...]) -> None:
    progress = Recorded()
    result = robustness.robustness(
        Predictor(ColorRuntime()), images, curves=("box-jitter", "click-inside", "blur"),
        progress=progress,
    )  # fmt: skip
    written = json.loads(json.dumps(result, allow_nan=False))
    assert written["n"] == 3
    jitter = written["curves"]["box-jitter"]
    assert list(jitter["protocols"]) == ["box"]
    assert len(jitter["protocols"]["box"]["miou"]) == len(jitter["levels"])
    blur = written["curves"]["blur"]["protocols"]
    assert blur["box"]["miou"][0] == jitter["protocols"]["box"]["miou"][0]
    assert blur["box"]["miou"][-1] < blur["box"]["miou"][0]
    assert written["rivals"]["box"]["0"]["n"] == 3
    assert progress.counts[-1] == (18, 18)


def test_unknown_curves_and_protocols_are_named(images: tuple[AnnotatedImage, ...]) -> None:
    predictor = Predictor(ColorRuntime())
    with pytest.raises(ConfigError, match="fog"):
        robustness.robustness(predictor, images, curves=("fog",))
    with pytest.raises(ConfigError, match="paper-roi"):
        robustness.robustness(predictor, images, protocols=("paper-roi",))


def test_the_next_click_is_on_the_larger_error() -> None:
    truth = np.zeros((40, 60), bool)
    truth[5:25, 5:25] = True
    nothing = np.zeros_like(truth)
    point = next_click(truth, nothing)
    assert point is not None
    assert point.positive
    assert (point.x, point.y) == pytest.approx((15, 15), abs=1)
    mask = truth.copy()
    mask[5:9, 5:9] = False  # a small piece is missed
    mask[10:30, 35:55] = True  # a large one is too much
    point = next_click(truth, mask)
    assert point is not None
    assert not point.positive
    assert (point.x, point.y) == pytest.approx((45, 20), abs=1)
    assert next_click(truth, truth) is None


def test_no_pixel_is_clicked_twice(images: tuple[AnnotatedImage, ...]) -> None:
    """Also where the model does not listen: its user clicks on until the limit."""

    class Deaf:
        weights_sha256 = "0" * 64
        requests: ClassVar[list[Prompt]] = []

        def first(self, image: np.ndarray, prompts: list[Prompt]) -> list[Region]:
            return [Region(0, 0, np.full(image.shape[:2], -1, np.float32)) for _ in prompts]

        def next(
            self, image: np.ndarray, prompts: list[Prompt], regions: list[Region]
        ) -> list[Region]:
            self.requests += prompts
            return self.first(image, prompts)

    model = Deaf()
    curve = measure_clicks(model, images, clicks=6, limit=1)
    assert curve.objects[0].corrections == 5
    pixels = [(int(point.x), int(point.y)) for point in model.requests[-1].points]
    assert len(pixels) == len(set(pixels)) == 6


def test_clicks_are_counted(images: tuple[AnnotatedImage, ...]) -> None:
    progress = Recorded()
    curve = measure_clicks(Predictor(ColorRuntime()), images, clicks=3, limit=2, progress=progress)
    result = json.loads(json.dumps(curve.to_json(), allow_nan=False))
    assert progress.counts[-1] == (result["n"], 2) == (2, 2)
    assert len(result["miou"]) == 3
    for target, level in (("85", 0.85), ("90", 0.9)):
        counts = [clicked.clicks_to(level) for clicked in curve.objects]
        assert result["noc"][target]["failed"] == np.mean([count is None for count in counts])
        assert result["noc"][target]["clicks"] == np.mean([count or 3 for count in counts])


def test_clicks_need_a_click_and_an_object(images: tuple[AnnotatedImage, ...]) -> None:
    predictor = Predictor(ColorRuntime())
    with pytest.raises(ConfigError, match="at least 1"):
        measure_clicks(predictor, images, clicks=0)
    with pytest.raises(DataError, match="nothing to measure"):
        measure_clicks(predictor, [])
