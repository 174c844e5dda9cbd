"""One's own masks in the formats that people have, and what is said of what cannot be used."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import HEIGHT, WIDTH, scene, write_coco
from PIL import Image

from picosam2.data.labeled_images import read_labeled_images
from picosam2.errors import DataError
from picosam2.io.formats.outlines import outlines

COUNT = 4


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, Path]:
    source = write_coco(tmp_path, COUNT)
    return source.annotations, source.images


def ring(mask: np.ndarray) -> np.ndarray:
    return outlines(mask)[0]


def labelme(folder: Path, **changes: object) -> Path:
    """A labelme file for each image of `write_coco`."""
    folder.mkdir()
    for number in range(COUNT):
        mask = scene(number)[1]
        document = {
            "imagePath": f"{number:03d}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH,
            "shapes": [{"label": "disc", "shape_type": "polygon", "points": ring(mask).tolist()}],
            **changes,
        }  # fmt: skip
        (folder / f"{number:03d}.json").write_text(json.dumps(document))
    return folder


def yolo(folder: Path) -> Path:
    folder.mkdir()
    for number in range(COUNT):
        shares = (ring(scene(number)[1]) / (WIDTH, HEIGHT)).ravel()
        line = " ".join(["0", *(f"{share:.6f}" for share in shares)])
        (folder / f"{number:03d}.txt").write_text(line + "\n")
    return folder


def check(read) -> None:
    assert [image.path.name for image in read.images] == [f"{n:03d}.png" for n in range(COUNT)]
    assert [image.id for image in read.images] == [1, 2, 3, 4]
    assert not read.problems
    for number, image in enumerate(read.images):
        (instance,) = image.instances
        mask, truth = instance.mask(), scene(number)[1]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.97


def test_coco(coco):
    check(read_labeled_images(*coco))


def test_labelme(coco, tmp_path):
    check(read_labeled_images(labelme(tmp_path / "labels"), coco[1]))


def test_labelme_beside_its_images(coco, tmp_path):
    for file in labelme(tmp_path / "labels").iterdir():
        file.rename(coco[1] / file.name)
    check(read_labeled_images(coco[1], coco[1]))


def test_labelme_files_of_another_name(coco, tmp_path):
    folder = labelme(tmp_path / "labels")
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"task-{number}-{'abcd'[number]}.json")
    check(read_labeled_images(folder, coco[1]))


def test_labelme_masks(coco, tmp_path):
    folder = labelme(tmp_path / "labels")
    for number, file in enumerate(sorted(folder.iterdir())):
        mask = scene(number)[1]
        rows, columns = np.nonzero(mask)
        y, x = int(rows.min()), int(columns.min())
        patch = mask[y : rows.max() + 1, x : columns.max() + 1]
        stream = io.BytesIO()
        Image.fromarray(patch).save(stream, "PNG")
        document = json.loads(file.read_text())
        document["shapes"] = [
            {
                "label": "disc", "shape_type": "mask",
                "points": [[x, y], [int(columns.max()), int(rows.max())]],
                "mask": base64.b64encode(stream.getvalue()).decode(),
            }
        ]  # fmt: skip
        file.write_text(json.dumps(document))
    check(read_labeled_images(folder, coco[1]))


def test_yolo(coco, tmp_path):
    check(read_labeled_images(yolo(tmp_path / "labels"), coco[1]))


def test_boxes_are_no_masks(coco, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="is a box or a point, and no outline"):
        read_labeled_images(folder, coco[1])


def test_coco_boxes_are_no_masks(coco):
    document = json.loads(coco[0].read_text())
    for entry in document["annotations"]:
        del entry["segmentation"]
    coco[0].write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"no mask in .* can be used .*has no segmentation"):
        read_labeled_images(*coco)


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
def test_masks_without_images(coco, tmp_path, kind):
    annotations = {
        "coco": coco[0],
        "labelme": labelme(tmp_path / "labelme"),
        "yolo": yolo(tmp_path / "yolo"),
    }[kind]
    for path in coco[1].iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(DataError, match=r"no such image|no image in the image folder"):
        read_labeled_images(annotations, coco[1])


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_images_of_another_size(coco, tmp_path, kind):
    annotations = coco[0] if kind == "coco" else labelme(tmp_path / "labels")
    for path in coco[1].iterdir():
        Image.open(path).resize((48, 36)).save(path)
    with pytest.raises(DataError, match="is 48x36 pixels, and the annotations are for 96x72"):
        read_labeled_images(annotations, coco[1])


def test_one_image_of_another_size_is_left_out(coco):
    Image.new("RGB", (10, 10)).save(coco[1] / "002.png")
    read = read_labeled_images(*coco)
    assert [image.path.name for image in read.images] == ["000.png", "001.png", "003.png"]
    assert [problem.where for problem in read.problems] == ["002.png"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.xml", "b.xml"], "holds .xml files, and no labels that are known"),
        ([], "is empty, and no labels that are known"),
        (["a.json", "a.txt"], "holds both .json and .txt files"),
    ],
)
def test_folders_with_something_else(coco, tmp_path, files, message):
    folder = tmp_path / "labels"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("{}")
    with pytest.raises(DataError, match=message):
        read_labeled_images(folder, coco[1])


def test_a_coco_file_in_a_folder_is_no_labelme(coco, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    coco[0].rename(folder / "000.json")
    with pytest.raises(DataError, match="this is no labelme file"):
        read_labeled_images(folder, coco[1])


def test_what_is_not_there(coco, tmp_path):
    with pytest.raises(DataError, match="do not exist"):
        read_labeled_images(tmp_path / "none.json", coco[1])
    with pytest.raises(DataError, match=r"image folder .* does not exist"):
        read_labeled_images(coco[0], tmp_path / "none")
    table = tmp_path / "table.csv"
    table.write_text("a,b")
    with pytest.raises(DataError, match="is no file of labels that is known"):
        read_labeled_images(table, coco[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no image in"):
        read_labeled_images(yolo(tmp_path / "labels"), tmp_path / "empty")
