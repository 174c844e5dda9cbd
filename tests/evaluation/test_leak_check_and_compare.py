"""evaluate.leaks and evaluate.compare: images met again are named, differences have intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import make_store, write_coco
from PIL import Image

from picosam2.data.coco import read_coco
from picosam2.errors import DataError
from picosam2.evaluation.compare import compare, compare_clicks, read_result
from picosam2.evaluation.leak_check import check_leaks, training_images
from picosam2.evaluation.protocols import first_annotations

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_other_images_do_not_leak(tmp_path: Path) -> None:
    store = make_store(tmp_path / "train", 5)
    other = write_coco(tmp_path, 3, start=50, name="other")
    checked = check_leaks(read_coco(other.annotations, other.images).images, store)
    assert checked.checked == 3
    assert checked.stored == 5
    assert checked.warning is None
    assert checked.to_json()["met"] == 0


def test_the_same_images_leak_by_id(tmp_path: Path) -> None:
    store = make_store(tmp_path, 5)
    same = write_coco(tmp_path, 5)
    checked = check_leaks(read_coco(same.annotations, same.images).images, store)
    assert len(checked.leaks) == 5
    assert {leak.why for leak in checked.leaks} == {"id"}
    assert "5 of the 5 images" in (checked.warning or "")


def test_a_renamed_resized_resaved_image_leaks_by_its_hash(tmp_path: Path) -> None:
    store = make_store(tmp_path, 5)
    other = write_coco(tmp_path, 2, start=50, name="other")
    with Image.open(tmp_path / "shapes-images" / "003.png") as image:
        smaller = image.resize((96, 72)).convert("RGB")
    smaller.save(other.images / "050.png", "JPEG", quality=70)
    checked = check_leaks(read_coco(other.annotations, other.images).images, store)
    assert [(leak.image, leak.stored, leak.why) for leak in checked.leaks] == [
        ("050.png", "shapes/003.png", "image")
    ]


def test_a_folder_of_training_images_is_checked_as_a_store_is(tmp_path: Path) -> None:
    trained = write_coco(tmp_path / "a", 3)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "more").symlink_to(trained.images, target_is_directory=True)
    (tmp_path / "links" / "notes.txt").write_text("no image")
    other = write_coco(tmp_path / "b", 2, start=50, name="other")
    with Image.open(trained.images / "001.png") as image:
        image.resize((96, 72)).convert("RGB").save(other.images / "050.png", "JPEG", quality=70)
    images = read_coco(other.annotations, other.images).images
    checked = check_leaks(images, training_images(tmp_path / "links"))
    assert (checked.checked, checked.stored) == (2, 3)
    assert [(leak.image, leak.stored) for leak in checked.leaks] == [("050.png", "more/001.png")]
    assert len(checked.fingerprint) == 64
    with pytest.raises(DataError, match="holds no images"):
        training_images(tmp_path / "nowhere")


def test_first_annotations_go_by_the_file(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 4)
    document = json.loads(source.annotations.read_text())
    document["annotations"].reverse()
    document["annotations"].insert(0, {**document["annotations"][0], "id": 900, "iscrowd": 1})
    source.annotations.write_text(json.dumps(document))
    images = read_coco(source.annotations, source.images).images
    chosen = first_annotations(source.annotations, images, 2)
    assert [instance.id for image in chosen for instance in image.instances] == [103, 104]
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(DataError, match="no annotation file"):
        first_annotations(tmp_path / "broken.json", images, 2)


def result(ious: list[float], **changes: Any) -> dict[str, Any]:
    items = [
        {"annotation": index, "photo": index // 3, "area": 500.0 * (index + 1), "iou": iou}
        for index, iou in enumerate(ious)
    ]
    document = {"kind": "evaluation", "protocol": "box", "dataset": "coco", "items": items}
    return {**document, **changes}


def test_compare_pairs_objects() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.2, 0.8, 60)
    comparison = compare(result(list(before)), result([*(before + 0.05), 0.9]))
    assert comparison.n == 60
    assert (comparison.only_a, comparison.only_b) == (0, 1)
    assert comparison.difference == pytest.approx(0.05)
    # The objects differ a lot, the difference does not: its interval is narrow.
    assert comparison.low == pytest.approx(0.05)
    assert comparison.better == 1
    assert comparison.verdict == "B is better"
    assert "+0.0500" in str(comparison)
    assert json.loads(json.dumps(comparison.to_json()))["n"] == 60


def test_compare_admits_that_nothing_can_be_shown() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.2, 0.8, 60)
    comparison = compare(result(list(before)), result(list(before + rng.normal(0, 0.1, 60))))
    assert comparison.low < 0 < comparison.high
    assert comparison.verdict == "no difference can be shown"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"protocol": "click"}, "cannot be compared"),
        ({"dataset": "lvis"}, "cannot be compared"),
        ({"kind": "clicks"}, "the second file is of clicks: pass two results of `eval`"),
        ({"items": []}, "share no object"),
        ({"items": [{"annotation": 0}]}, "broken items"),
    ],
)
def test_what_cannot_be_compared_is_said(other: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        compare(result([0.5, 0.6]), result([0.5, 0.6], **other))


def test_result_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match="no result file"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(DataError, match="no JSON"):
        read_result(path)
    path.write_text('{"kind": "holiday"}')
    with pytest.raises(DataError, match="no result file"):
        read_result(path)


def clicked(ious: np.ndarray, **changes: Any) -> dict[str, Any]:
    objects = [
        {"annotation": index, "photo": index // 3, "ious": list(row)}
        for index, row in enumerate(ious)
    ]
    noc: dict[str, Any] = {"85": {}, "90": {}}
    document = {"kind": "clicks", "start": "click", "dataset": "coco", "clicks": ious.shape[1]}
    return {**document, "noc": noc, "objects": objects, **changes}


def test_clicks_are_paired_after_each_click() -> None:
    rng = np.random.default_rng(0)
    before = np.sort(rng.uniform(0.2, 0.8, (60, 4)), axis=1)
    after = before + np.array([0.0, 0.05, 0.1, 0.15])
    comparison = compare_clicks(clicked(before), clicked(np.vstack([after, after[:1]])))
    assert comparison.n == 60
    assert [each.difference for each in comparison.miou] == pytest.approx([0, 0.05, 0.1, 0.15])
    assert comparison.miou[2].low == pytest.approx(0.1)
    assert comparison.better == (0, 1, 1, 1)
    # Nothing of A gets to 0.85, which counts as the limit of 4 clicks.
    assert comparison.noc["85"].a == 4
    expected = [next((i + 1 for i, iou in enumerate(row) if iou >= 0.85), 4) for row in after]
    assert comparison.noc["85"].b == pytest.approx(np.mean(expected))
    assert comparison.noc["85"].difference < 0
    assert "NoC@85" in str(comparison)
    assert json.loads(json.dumps(comparison.to_json()))["start"] == "click"


def test_clicks_that_cannot_be_compared() -> None:
    ious = np.full((3, 2), 0.5)
    with pytest.raises(DataError, match="the same --start"):
        compare_clicks(clicked(ious), clicked(ious, start="box"))
    with pytest.raises(DataError, match="share no object"):
        compare_clicks(clicked(ious), clicked(ious, objects=[]))
