"""The napari plug-in: its manifest, and what it makes of napari's own layers, without a window."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picosam2 import Predictor, sample

PLUGIN = Path(__file__).parents[2] / "integrations" / "napari"
CLICK, BOX = (353.0, 349.0), (310.0, 303.0, 396.0, 394.0)

pytestmark = pytest.mark.filterwarnings("ignore")  # of napari and what it stands on

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    components = pytest.importorskip("napari.components", reason="napari is not installed")
sys.path.insert(0, str(PLUGIN))

import picosam2_napari  # noqa: E402

ViewerModel = components.ViewerModel


def at(x: float, y: float) -> list[float]:
    """A place in napari's order, where pixel centers are whole numbers."""
    return [y - 0.5, x - 0.5]


@pytest.fixture
def viewer() -> Any:
    viewer = ViewerModel()
    viewer.add_image(sample(), name="apples", rgb=True)
    return viewer


def rectangle(box: tuple[float, ...]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([at(x0, y0), at(x0, y1), at(x1, y1), at(x1, y0)])


def test_the_manifest_names_what_is_there() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(PLUGIN / "picosam2_napari" / "napari.yaml")
    manifest.validate_imports()
    (widget,) = manifest.contributions.widgets
    (command,) = manifest.contributions.commands
    assert widget.command == command.id
    assert widget.autogenerate


def test_clicks_and_boxes_become_labels(viewer: Any) -> None:
    clicks = viewer.add_points([at(*CLICK)])
    off = viewer.add_points([at(200, 100)])
    boxes = viewer.add_shapes([rectangle(BOX)], shape_type="rectangle")
    data = picosam2_napari.segment(viewer.layers["apples"], clicks, off, boxes)
    (layer,) = viewer._add_layer_from_data(*data)
    predictor = Predictor()
    (clicked,) = predictor(sample(), prompts=[_prompt()])
    (boxed,) = predictor(sample(), boxes=[BOX])
    expected = np.where(boxed.mask, 2, np.where(clicked.mask, 1, 0))
    assert layer in viewer.layers
    np.testing.assert_array_equal(layer.data, expected)


def _prompt() -> Any:
    from picosam2 import Point, Prompt

    return Prompt((Point(*CLICK), Point(200, 100, positive=False)))


def test_each_click_is_an_object(viewer: Any) -> None:
    places = [CLICK, (200.0, 100.0)]
    clicks = viewer.add_points([at(*place) for place in places])
    labels, _, kind = picosam2_napari.segment(
        viewer.layers["apples"], clicks, each_click_is_an_object=True
    )
    assert kind == "labels"
    first, second = Predictor()(sample(), points=places)
    expected = np.where(second.mask, 2, np.where(first.mask, 1, 0))
    np.testing.assert_array_equal(labels, expected)


def test_scaled_layers_keep_their_places(viewer: Any) -> None:
    image = viewer.layers["apples"]
    image.scale, image.translate = (0.5, 0.5), (10, 20)
    places = [(y / 2 + 10, x / 2 + 20) for y, x in [at(*CLICK)]]
    clicks = viewer.add_points(places)
    labels, layer, _ = picosam2_napari.segment(image, clicks)
    (expected,) = Predictor()(sample(), points=[CLICK])
    np.testing.assert_array_equal(labels > 0, expected.mask)
    np.testing.assert_array_equal(layer["scale"], (0.5, 0.5))


def test_gray_images_by_their_contrast_limits() -> None:
    viewer = ViewerModel()
    gray = sample()[..., 1].astype(np.uint16) * 16 + 100
    image = viewer.add_image(gray, contrast_limits=(100, 100 + 255 * 16))
    expected = np.repeat(sample()[..., 1, None], 3, axis=2)
    np.testing.assert_array_equal(picosam2_napari.as_rgb(image), expected)


def test_mistakes_are_sentences(viewer: Any) -> None:
    image = viewer.layers["apples"]
    with pytest.raises(ValueError, match="add a points layer"):
        picosam2_napari.segment(image)
    with pytest.raises(ValueError, match="add a points layer"):
        picosam2_napari.segment(image, viewer.add_points())
    stack = viewer.add_image(np.zeros((4, 20, 30), np.uint8))
    with pytest.raises(ValueError, match="two dimensions"):
        picosam2_napari.segment(stack, viewer.add_points([[3, 3]]))
    clicks = viewer.add_points([at(*CLICK)])
    with pytest.raises(ValueError, match="untick"):
        picosam2_napari.segment(image, clicks, clicks, each_click_is_an_object=True)
