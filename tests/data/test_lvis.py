"""Reading LVIS files of both versions, and choosing a reader by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from picosam2.data.coco import Annotations
from picosam2.data.datasets import read_annotations
from picosam2.data.lvis import read_lvis
from picosam2.errors import ConfigError, DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real images are not beside this checkout"
)
URL = "http://images.cocodataset.org"


def write(folder: Path, *images: dict[str, Any]) -> Path:
    """An LVIS file in which each image has one object and, as in version 1, no iscrowd."""
    document = {
        "images": [{"height": 30, "width": 40, **image} for image in images],
        "annotations": [
            {
                "id": 100 + image["id"],
                "image_id": image["id"],
                "category_id": 3,
                "area": 50.0,
                "bbox": [5, 5, 10, 10],
                "segmentation": [[5, 5, 15, 5, 15, 15]],
            }
            for image in images
        ],
    }
    path = folder / "lvis_v1_val.json"
    path.write_text(json.dumps(document))
    return path


def image_at(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def names(result: Annotations, folder: Path) -> list[str]:
    assert result.problems == ()
    return [image.path.relative_to(folder).as_posix() for image in result.images]


def test_version_1_mixes_train_and_val_images(tmp_path: Path) -> None:
    image_at(tmp_path / "train2017" / "000000000001.jpg")
    image_at(tmp_path / "val2017" / "000000000002.jpg")
    path = write(
        tmp_path,
        {"id": 1, "coco_url": f"{URL}/train2017/000000000001.jpg"},
        {"id": 2, "coco_url": f"{URL}/val2017/000000000002.jpg"},
    )
    result = read_lvis(path, tmp_path)
    assert names(result, tmp_path) == ["train2017/000000000001.jpg", "val2017/000000000002.jpg"]
    assert [image.source for image in result.images] == ["lvis_v1_val"] * 2
    assert [len(image.instances) for image in result.images] == [1, 1]
    assert result.images[0].instances[0].mask().any()
    assert result.crowds == 0


def test_images_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    image_at(tmp_path / "000000000001.jpg")
    path = write(tmp_path, {"id": 1, "coco_url": f"{URL}/train2017/000000000001.jpg"})
    assert names(read_lvis(path, tmp_path), tmp_path) == ["000000000001.jpg"]


@pytest.mark.parametrize("name", ["000000000001.jpg", "COCO_val2014_000000000001.jpg"])
def test_version_05_names_files_in_either_fashion(tmp_path: Path, name: str) -> None:
    image_at(tmp_path / "train2017" / "000000000001.jpg")
    path = write(tmp_path, {"id": 1, "file_name": name})
    assert names(read_lvis(path, tmp_path), tmp_path) == ["train2017/000000000001.jpg"]


def test_the_url_decides_between_two_images_of_one_name(tmp_path: Path) -> None:
    for part in ("train2017", "val2017"):
        image_at(tmp_path / part / "1.jpg")
    path = write(tmp_path, {"id": 1, "coco_url": f"{URL}/val2017/1.jpg"})
    assert names(read_lvis(path, tmp_path), tmp_path) == ["val2017/1.jpg"]


@pytest.mark.parametrize(
    ("image", "what"),
    [
        ({}, "neither file_name nor coco_url"),
        ({"coco_url": 5}, "neither file_name nor coco_url"),
        ({"coco_url": f"{URL}/val2017/"}, "neither file_name nor coco_url"),
        ({"coco_url": f"{URL}/val2017/9.jpg"}, "'9.jpg' is missing"),
        ({"coco_url": f"{URL}/val2017/.."}, "leaves the image folder"),
        ({"file_name": "../1.jpg"}, "leaves the image folder"),
    ],
)
def test_a_broken_image_is_left_out(tmp_path: Path, image: dict[str, Any], what: str) -> None:
    path = write(tmp_path, {"id": 1, **image})
    (problem,) = read_lvis(path, tmp_path).problems
    assert problem.where == "image 1"
    assert what in problem.what


def test_readers_by_name(tmp_path: Path) -> None:
    image_at(tmp_path / "train2017" / "1.jpg")
    path = write(tmp_path, {"id": 1, "file_name": "1.jpg"})
    assert read_annotations("lvis", path, tmp_path, "mine").images[0].source == "mine"
    assert len(read_annotations("coco", path, tmp_path).problems) == 1
    with pytest.raises(ConfigError, match=r"'voc'.*coco, lvis"):
        read_annotations("voc", path, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_annotations("lvis", tmp_path / "none.json", tmp_path)


@needs_shared
def test_counts_of_the_real_file() -> None:
    path = SHARED / "coco/annotations/lvis_val.json"
    for images in (SHARED / "coco/val2017", SHARED / "coco"):
        result = read_lvis(path, images)
        assert result.problems == ()
        assert len(result.images) == 30
        assert sum(len(image.instances) for image in result.images) == 349
        assert result.crowds == 0
