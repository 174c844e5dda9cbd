"""The geometric baselines, pixel by pixel; and what they score on the real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2 import masks
from picosam2.data.datasets import read_annotations
from picosam2.evaluation import baselines
from picosam2.evaluation.protocols import make_item
from picosam2.prompts import Box, Point

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real images are not beside this checkout"
)
edge = st.floats(-5, 30)


@settings(max_examples=60, deadline=None)
@given(edge, edge, st.floats(0.1, 25), st.floats(0.1, 25))
def test_shapes_pixel_by_pixel(x0: float, y0: float, width: float, height: float) -> None:
    box = Box(x0, y0, x0 + width, y0 + height)
    point, radius = Point(x0 + 1, y0 + 2), 0.2
    shapes = {
        "box": baselines.filled_box(box, 20, 24),
        "ellipse": baselines.inscribed_ellipse(box, 20, 24),
        "disc": baselines.disc(point, 20, 24, radius),
    }
    for row in range(20):
        for column in range(24):
            x, y = column + 0.5, row + 0.5
            inside = x0 <= x < x0 + width and y0 <= y < y0 + height
            across, down = (x - x0) / width * 2 - 1, (y - y0) / height * 2 - 1
            near = (x - point.x) ** 2 + (y - point.y) ** 2 - (radius * 24) ** 2
            assert shapes["box"][row, column] == inside
            if abs(across**2 + down**2 - 1) > 1e-9:
                assert shapes["ellipse"][row, column] == (across**2 + down**2 < 1)
            if abs(near) > 1e-9:
                assert shapes["disc"][row, column] == (near < 0)


@settings(max_examples=40, deadline=None)
@given(edge, edge, st.floats(0.1, 25), st.floats(0.1, 25))
def test_a_patch_is_the_shape_where_it_can_be_set(
    x0: float, y0: float, width: float, height: float
) -> None:
    box = Box(x0, y0, x0 + width, y0 + height)
    for patch, whole in (
        (baselines.box_region(box, 20, 24), baselines.filled_box(box, 20, 24)),
        (baselines.ellipse_region(box, 20, 24), baselines.inscribed_ellipse(box, 20, 24)),
    ):
        assert patch.mask.sum() == whole.sum()
        np.testing.assert_array_equal(patch.on_image(20, 24), whole)


def test_areas() -> None:
    box = Box(20, 30, 120, 90)
    assert baselines.filled_box(box, 200, 200).sum() == 6000
    ellipse = baselines.inscribed_ellipse(box, 200, 200)
    assert ellipse.sum() == pytest.approx(np.pi / 4 * 6000, rel=0.01)
    assert masks.bbox(ellipse) == (20, 30, 120, 90)
    assert baselines.disc(Point(100, 100), 150, 200, 0.2).sum() == pytest.approx(
        np.pi * 40**2, rel=0.01
    )


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "file", "count", "box", "ellipse"),
    [
        ("coco", "instances_val2017.json", 961, 0.614, 0.646),
        ("lvis", "lvis_val.json", 349, 0.571, 0.599),
    ],
)
def test_the_known_scores_on_real_images(
    dataset: str, file: str, count: int, box: float, ellipse: float
) -> None:
    """The box protocol is about the objects that others counted, and about the same boxes."""
    folder = SHARED / "coco"
    annotations = read_annotations(dataset, folder / "annotations" / file, folder / "val2017")
    assert not annotations.problems
    scores = []
    for image in annotations.images:
        for instance in image.instances:
            mask = instance.mask()
            item = make_item("box", mask)
            assert item.prompt.box is not None
            scores.append(
                [
                    masks.iou(mask, shape(item.prompt.box, *mask.shape))
                    for shape in (baselines.filled_box, baselines.inscribed_ellipse)
                ]
            )
    assert len(scores) == count
    assert np.mean(scores, axis=0) == pytest.approx([box, ellipse], abs=0.0015)
