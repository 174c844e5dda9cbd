"""The finder that ships: it is small, it opens, and it finds what is in the bundled image."""

from __future__ import annotations

import numpy as np
import pytest

from picosam2 import Predictor, masks, sample
from picosam2.errors import WeightsError
from picosam2.io.sample_image import sample_objects
from picosam2.runtimes.finder import opened_finder
from picosam2.runtimes.weights import find_weights, finder_file, shipped
from picosam2.tasks.everything import Everything, everything

pytestmark = pytest.mark.skipif(
    "default-int8" not in shipped(), reason="the trained weights do not come with this build"
)
LIMIT = 2_500_000


def test_it_is_small_and_no_segmenter() -> None:
    assert finder_file().stat().st_size <= LIMIT
    assert "finder" not in shipped()
    with pytest.raises(WeightsError, match="no weights named finder"):
        find_weights("finder")


def test_it_finds_what_is_in_the_bundled_image() -> None:
    predictor, settings = Predictor("default-int8", threads=1), Everything(method="finder")
    results = everything(sample(), predictor, settings, finder=opened_finder(threads=1))
    boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for r in results if (b := r.box) is not None])
    best = []
    for each in sample_objects():
        box = np.array([each.box.x0, each.box.y0, each.box.x1, each.box.y1])
        best.append(masks.box_iou(box, boxes).max())
    assert np.mean(np.array(best) > 0.5) >= 0.6
    overlap = masks.iou_matrix([r.mask for r in results], [r.mask for r in results])
    np.fill_diagonal(overlap, 0)
    assert overlap.max() <= 0.8
