"""Measuring and drawing during a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import make_store, tiny_recipe
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("pycocotools")

import torch

from picosam2.data.coco import AnnotatedImage
from picosam2.data.split import spread
from picosam2.data.store import StoreConfig
from picosam2.evaluation.run import evaluate
from picosam2.models.network import PicoSAM2
from picosam2.predictor import Predictor
from picosam2.runtimes.torch import TorchRuntime
from picosam2.training.figures import draw_curves
from picosam2.training.validation import Validation

HALF = StoreConfig(context=64, validation=0.5, photos_per_shard=4)


def images(count):
    return [
        AnnotatedImage(id=n, path=Path(f"{n}.jpg"), height=1, width=1, source="x", instances=())
        for n in range(count)
    ]


def test_images_are_spread_over_all_sources():
    assert [image.id for image in spread(images(10), 4)] == [0, 3, 6, 9]
    assert [image.id for image in spread(images(10), 1)] == [0]
    assert len(spread(images(3), 5)) == len(spread(images(3), 0)) == 3
    assert spread([], 4) == ()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return PicoSAM2(tiny_recipe().model).eval()


def test_it_measures_what_the_evaluation_does(tmp_path, model):
    store = make_store(tmp_path, 8, HALF)
    validation = Validation(store, tiny_recipe(validation_photos=3), tmp_path / "v.png")
    actual = validation(model.train())
    assert model.training
    model.eval()
    assert actual["photos"] == actual["objects"] == len(validation.images) == 3
    predictor = Predictor(TorchRuntime(model))
    for protocol in ("box", "click"):
        expected = evaluate(predictor, validation.images, protocol=protocol)
        assert actual[f"{protocol}_miou"] == expected.to_json()["miou"]
    assert actual["click_best"] == expected.to_json()["best_candidate"]
    with Image.open(tmp_path / "v.png") as drawn:
        assert drawn.size == (6 * 196 + 4, 2 * 196 + 4)


def test_the_same_image_for_the_same_weights(tmp_path, model):
    store = make_store(tmp_path, 8, HALF)
    images_shown = []
    for name in ("a.png", "b.png"):
        Validation(store, tiny_recipe(validation_photos=2), tmp_path / name)(model)
        images_shown.append((tmp_path / name).read_bytes())
    assert images_shown[0] == images_shown[1]


def test_weights_trained_on_native_pixels_are_asked_for_them(tmp_path, model):
    store = make_store(tmp_path, 8, replace(HALF, views=("box", "native")))
    native = tiny_recipe(validation_photos=1, views={"native": 1.0, "box": 0.0})
    both = tiny_recipe(validation_photos=1)
    collected = [Validation(store, recipe)(model) for recipe in (native, both)]
    # One window has one candidate, so the best by truth is the one that was chosen.
    assert collected[0]["click_best"] == collected[0]["click_miou"]
    assert collected[0]["click_best"] != collected[1]["click_best"]


def test_a_store_without_validation_images(tmp_path):
    store = make_store(tmp_path, 4, replace(HALF, validation=0.0))
    assert Validation(store, tiny_recipe()).images == ()


def test_curves_pass_over_half_a_line(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "samples": 8, "loss": 1.5},
        {"step": 2, "samples": 16, "loss": 1.0},
        {"step": 2, "samples": 16, "validation": {"box_miou": 0.5, "click_miou": 0.2}},
    ]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "sam')
    draw_curves(metrics, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (1000, 400)
        assert np.asarray(curves).std() > 5


def test_curves_before_the_first_validation(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("")
    draw_curves(metrics, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
