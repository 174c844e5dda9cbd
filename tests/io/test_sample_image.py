"""The bundled sample: what sample.json says is true of sample.jpg and of its own masks."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picosam2.masks import bbox, rle_decode

ASSETS = files("picosam2") / "assets"
SAMPLE: dict[str, Any] = json.loads((ASSETS / "sample.json").read_text(encoding="utf-8"))
OBJECTS: list[dict[str, Any]] = SAMPLE["objects"]

each_object = pytest.mark.parametrize("item", OBJECTS, ids=[item["name"] for item in OBJECTS])


def image() -> np.ndarray:
    with (ASSETS / SAMPLE["image"]).open("rb") as stream, Image.open(stream) as opened:
        assert opened.format == "JPEG"
        return np.asarray(opened)


def test_the_image_is_small_rgb_and_free():
    assert image().shape == (480, 640, 3)
    assert len((ASSETS / SAMPLE["image"]).read_bytes()) < 120_000
    assert SAMPLE["license"].startswith("Apache-2.0")


def test_the_names_are_distinct():
    names = [item["name"] for item in OBJECTS]
    assert len(set(names)) == len(names) >= 5


@each_object
def test_the_mask_fits_the_image_and_is_worth_a_click(item):
    mask = rle_decode(item["rle"])
    assert mask.shape == image().shape[:2]
    assert mask.sum() >= 500


@each_object
def test_the_point_is_a_pixel_center_inside_the_mask(item):
    x, y = item["point"]
    assert (x % 1, y % 1) == (0.5, 0.5)
    mask = rle_decode(item["rle"])
    # Not at the very edge: the pixels around it are on the object too.
    assert mask[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].all()


@each_object
def test_the_box_is_tight(item):
    assert tuple(item["box"]) == bbox(rle_decode(item["rle"]))


def test_no_pixel_belongs_to_two_objects():
    assert sum(rle_decode(item["rle"]).astype(int) for item in OBJECTS).max() == 1


# pycocotools 2.0 lags behind NumPy 2 here; the result is right.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@each_object
def test_pycocotools_reads_the_same_mask(item):
    coco_mask = pytest.importorskip("pycocotools.mask")
    np.testing.assert_array_equal(coco_mask.decode(item["rle"]) > 0, rle_decode(item["rle"]))


@each_object
def test_the_masks_lie_on_the_image(item):
    """A mask shifted off its object would straddle it: colors differ across its true edge."""
    mask = rle_decode(item["rle"])
    colors = image().astype(float)

    def step_across_the_edge(shift: int) -> float:
        moved = np.roll(mask, shift, axis=1)
        inside, outside = moved[:, :-3] & ~moved[:, 3:], colors[:, 3:] - colors[:, :-3]
        return float(np.abs(outside[inside]).mean())

    assert step_across_the_edge(0) > 1.2 * step_across_the_edge(12)
