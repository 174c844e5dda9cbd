"""evaluation.domains: every set counts the same, and folders that hold no sets are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.color import write_color_onnx
from helpers.tiny import make_store, write_coco

pytest.importorskip("onnx", reason="makes its own weights with onnx")
pytest.importorskip("pycocotools")

from picosam2.data.store import Store
from picosam2.errors import DataError
from picosam2.evaluation import metrics
from picosam2.evaluation.compare import compare_domains
from picosam2.evaluation.domains import MEASURED_BY, evaluate_domains, read_domains
from picosam2.predictor import Predictor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets, of one image and of three."""
    folder = tmp_path / "domains"
    for name, count, start in (("few", 1, 0), ("many", 3, 20)):
        source = write_coco(tmp_path / name, count, start=start)
        (folder / name).mkdir(parents=True)
        shutil.copytree(source.images, folder / name / "images")
        shutil.copy(source.annotations, folder / name / "instances.json")
    return folder


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(write_color_onnx(tmp_path / "color.onnx"), threads=1)


def test_the_mean_is_over_sets(folder: Path, predictor: Predictor) -> None:
    shown: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None = None, **_more: object) -> None:
        shown.append((done, total))

    result = evaluate_domains(
        predictor, read_domains(folder), protocols=("box",), progress=progress
    ).to_json()["protocols"]["box"]
    few, many = (result["sets"][name] for name in ("few", "many"))
    assert (few["n"], many["n"]) == (1, 3)
    assert result["miou"] == pytest.approx((few["miou"] + many["miou"]) / 2)
    for name in ("box", "ellipse", "disc"):
        both = [result["baselines"][name] for result in (few, many)]
        assert result["baselines"][name] == pytest.approx(np.mean(both))
    low, high = result["miou_ci95"]
    assert low <= result["miou"] <= high
    assert shown[-1] == (4, 4)


def test_every_protocol_of_a_user_has_a_row(folder: Path, predictor: Predictor) -> None:
    rows = list(evaluate_domains(predictor, read_domains(folder), limit=1).rows())
    assert len(rows) == 1 + 3 * len(MEASURED_BY)
    assert [row[:2] for row in rows[1:4]] == [
        ("few", "box"), ("many", "box"), ("mean over sets", "box")
    ]  # fmt: skip


def test_a_set_that_was_trained_on_is_named(
    folder: Path, predictor: Predictor, tmp_path: Path
) -> None:
    store: Store = make_store(tmp_path / "store", 1)  # the image of the set `few`
    result = evaluate_domains(predictor, read_domains(folder), protocols=("box",), store=store)
    assert {name: leak["met"] for name, leak in result.leaks.items()} == {"few": 1, "many": 0}


def test_the_interval_of_a_mean_over_sets() -> None:
    """Of one set it is the ordinary one; of sets without any spread it is a point."""
    rng = np.random.default_rng(0)
    ious, image_ids = rng.random(200), np.arange(200) // 4
    low, high = metrics.interval_of_means([(ious, image_ids)])
    assert (low, high) == pytest.approx(metrics.interval(ious, image_ids), abs=0.005)
    flat = (np.full(4, 0.5), np.arange(4))
    assert metrics.interval_of_means([flat, (np.full(9, 0.7), np.arange(9))]) == pytest.approx(
        (0.6, 0.6)
    )


def test_two_results_are_compared_set_by_set(folder: Path, predictor: Predictor) -> None:
    sets = read_domains(folder)
    before = json.loads(json.dumps(evaluate_domains(predictor, sets, protocols=("box",)).to_json()))
    after = json.loads(json.dumps(before))
    for result in after["protocols"]["box"]["sets"].values():
        for item in result["items"]:
            item["iou"] -= 0.1
    (comparison,) = compare_domains(before, after)
    assert (comparison.difference, comparison.low, comparison.high) == pytest.approx(
        (-0.1, -0.1, -0.1)
    )
    assert set(comparison.sets) == {"few", "many"}
    assert "over 2 sets -0.1000" in str(comparison)
    assert comparison.to_json()["sets"]["few"]["verdict"] == "B is worse"
    after["protocols"]["box"]["sets"] = {}
    with pytest.raises(DataError, match="share no set"):
        compare_domains(before, after)


def test_folders_that_hold_no_sets(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_domains(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no sets: each is a sub-folder with images/"):
        read_domains(tmp_path / "empty")
    (folder / "few" / "images").rename(folder / "few" / "photos")
    with pytest.raises(DataError, match="few is no set: it needs a file"):
        read_domains(folder)
    (folder / "few" / "images").mkdir()
    with pytest.raises(DataError, match="few holds no image with an object"):
        read_domains(folder)
