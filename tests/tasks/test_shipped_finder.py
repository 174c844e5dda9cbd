"""The finder that ships: it is small, it opens, and it finds what is in the bundled image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picosam2 import Predictor, masks, sample
from picosam2.cli.main import run
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


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.full((480, 640, 3), (90, 120, 60), np.uint8), id="one color"),
        pytest.param(np.full((1, 1, 3), 200, np.uint8), id="one pixel"),
        pytest.param(
            np.random.default_rng(0).integers(118, 122, (480, 640, 3)).astype(np.uint8),
            id="a wall",
        ),
    ],
)
def test_nothing_is_an_answer(
    image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(image).save(tmp_path / "empty.png")
    assert run(["everything", str(tmp_path / "empty.png"), "--out", str(tmp_path)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_a_panorama_is_looked_at_in_parts() -> None:
    scene = Image.fromarray(sample())
    panorama = Image.new("RGB", (12000, 800), (90, 120, 60))
    for left in (0, 5000, 10000):
        panorama.paste(scene.resize((1066, 800)), (left, 0))
    results = everything(
        np.asarray(panorama), Predictor("default-int8", threads=1), finder=opened_finder(threads=1)
    )
    lefts = [result.box.x0 for result in results if result.box is not None]
    for start in (0, 5000, 10000):
        assert any(start <= left < start + 1066 for left in lefts), start
    assert all(result.mask.shape == (800, 12000) for result in results)


@pytest.mark.slow
def test_100_megapixels() -> None:
    large = np.asarray(Image.fromarray(sample()).resize((12500, 8000)))
    results = everything(
        large, Predictor("default-int8", threads=1), finder=opened_finder(threads=1)
    )
    assert results
    assert all(result.mask.shape == (8000, 12500) for result in results)
