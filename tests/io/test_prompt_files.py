"""promptfiles: every form that prompts for many photos come in, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picosam2.errors import DataError
from picosam2.io import formats
from picosam2.io.prompt_files import PromptFile, read_boxes, read_prompt_file
from picosam2.masks import rle_encode
from picosam2.prompts import Box, Point, Prompt


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def asked(file: PromptFile, name: str, height: int = 100, width: int = 200) -> list[Any]:
    key = file.find(name)
    assert key is not None
    found = file.read(key, height, width)
    assert not found.problems
    return list(found.entries)


# --- prompts ------------------------------------------------------------------------------------

JSON = [
    {"image": "a.jpg", "points": [[3, 4], [5, 6, 0]], "class": "cat", "object": 7},
    {"image": "sub/b.png", "box": [1, 2, 3, 4]},
    {"image": "a.jpg", "points": [[1, 1]], "box": [0, 0, 9, 9]},
]
CSV = """image,object,class,x,y,label,x0,y0,x1,y1
a.jpg,7,cat,3,4,,,,,
a.jpg,7,,5,6,0,,,,
sub/b.png,,,,,,1,2,3,4

a.jpg,x,,1,1,1,0,0,9,9
"""


@pytest.mark.parametrize("name", ["p.json", "p.csv"])
def test_prompts(tmp_path: Path, name: str) -> None:
    file = read_prompt_file(write(tmp_path / name, JSON if name.endswith("json") else CSV))
    first, second = asked(file, "a.jpg")
    assert first.prompt == Prompt(points=(Point(3, 4), Point(5, 6, False)))
    assert (first.label, first.id, first.name) == ("cat", 7, "object 7")
    assert second.prompt == Prompt(points=(Point(1, 1),), box=Box(0, 0, 9, 9))
    assert asked(file, "sub/b.png")[0].prompt == Prompt(box=Box(1, 2, 3, 4))
    assert file.categories == {1: "cat", 2: "object"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.txt", "", "must end in"),
        ("p.json", {}, "a list"),
        ("p.json", "[", "cut short"),
        ("p.json", [{"image": "a", "point": [1, 2]}], "object 1: there is no key 'point'"),
        ("p.json", [{"image": "a"}], "object 1"),
        ("p.json", [{"points": [[1, 2]]}], "names no image"),
        ("p.json", [{"image": "a", "box": [3, 1, 2, 2]}], "swapped"),
        ("p.csv", "photo,x,y\n", "unknown column 'photo'"),
        ("p.csv", "x,y\n1,2\n", "no column 'image'"),
        ("p.csv", "image,x,y\na,1,\n", "line 2: has x but not all"),
        ("p.csv", "image,x,y\na,1,2,3\n", "more cells"),
        ("p.csv", "image,x,y\na,1,two\n", "no numbers"),
    ],
)
def test_bad_prompts(tmp_path: Path, name: str, content: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_prompt_file(write(tmp_path / name, content))


def test_a_missing_file(tmp_path: Path) -> None:
    for read in (read_prompt_file, read_boxes):
        with pytest.raises(DataError, match="does not exist"):
            read(tmp_path / "no.json")


# --- names --------------------------------------------------------------------------------------


def test_names() -> None:
    file = PromptFile(images=dict.fromkeys(["x/a.jpg", "b", "139", "p/c.jpg", "q/c.jpg"]))  # type: ignore[arg-type]
    assert file.find("x/a.jpg") == "x/a.jpg"
    assert file.find("other/a.jpg") == "x/a.jpg"
    assert file.find("sub/b.png") == "b"
    assert file.find("000000000139.jpg") == "139"
    assert file.find("c.jpg") is None  # two could be meant
    assert file.find("d.jpg") is None


# --- boxes --------------------------------------------------------------------------------------


def instances() -> dict[str, Any]:
    mask = np.zeros((100, 200), bool)
    mask[10:20, 30:50] = True
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}, {"id": "x"}]
    annotations: list[Any] = [
        {"id": 11, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.5},
        {"id": 12, "image_id": 5, "category_id": 3, "segmentation": rle_encode(mask)},
        {"id": 13, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        {"id": 14, "image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"id": 15, "image_id": 6, "category_id": 3, "bbox": [1, 2, 0, 4]},
        {"id": 16, "image_id": 6, "category_id": 8, "bbox": [1, 2, 3, 4]},
        7,
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}],
    }


def test_coco_instances(tmp_path: Path) -> None:
    file = read_boxes(write(tmp_path / "c.json", instances()))
    box, mask = asked(file, "a.jpg")
    assert (box.prompt, box.label, box.id, box.score) == (
        Prompt(box=Box(1, 2, 11, 22)),
        "cat",
        11,
        0.5,
    )
    assert mask.prompt == Prompt(box=Box(30, 10, 50, 20))
    assert [one.id for one in asked(file, "b.jpg")] == [16]
    assert file.categories == {3: "cat", 8: "8"}
    assert file.image_ids == {"a.jpg": 5, "b.jpg": 6}
    assert [problem.where for problem in file.problems] == [
        "annotation 14", "annotation entry 6", "image 'x'", "annotation 15",
    ]  # fmt: skip


def test_coco_results(tmp_path: Path) -> None:
    results = [{"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25}]
    file = read_boxes(write(tmp_path / "r.json", results))
    (one,) = asked(file, "000000000139.jpg")
    assert (one.label, one.id, one.score) == ("1", None, 0.25)
    assert file.image_ids == {"139": 139}


def test_yolo(tmp_path: Path) -> None:
    write(tmp_path / "y/sub/a.txt", "2 0.5 0.5 0.5 0.5 0.75\n0 0 0 1 0 1 1\n")
    write(tmp_path / "y/classes.txt", "dog\n\nbird\n")
    file = read_boxes(tmp_path / "y")
    bird, dog = asked(file, "sub/a.jpg")
    assert (bird.prompt.box, bird.label, bird.score) == (Box(50, 25, 150, 75), "bird", 0.75)
    assert dog.label == "dog"
    assert file.categories == {0: "dog", 2: "bird"}
    assert asked(read_boxes(tmp_path / "y/sub/a.txt"), "a.jpg")[0].label == "2"


def test_labelme(tmp_path: Path) -> None:
    document = {
        "imageHeight": 100,
        "imageWidth": 200,
        "shapes": [
            {"label": "cup", "shape_type": "rectangle", "points": [[1, 2], [9, 8]]},
            {"label": "pen", "shape_type": "point", "points": [[4, 4]]},
        ],
    }
    write(tmp_path / "l/a.json", document)
    write(tmp_path / "l/b.json", "broken")
    file = read_boxes(tmp_path / "l")
    cup, pen = asked(file, "a.jpg")
    assert (cup.prompt, cup.label) == (Prompt(box=Box(1, 2, 9, 8)), "cup")
    assert pen.prompt == Prompt(points=(Point(4, 4),))
    assert file.categories == {1: "cup", 2: "pen"}
    with pytest.raises(DataError, match=r"b\.json"):
        asked(file, "b.jpg")
    assert asked(read_boxes(tmp_path / "l/a.json"), "a.jpg")[0].label == "cup"


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    from picosam2.results import Segmentation

    mask = np.zeros((100, 200), bool)
    mask[10:20, 30:50] = True
    found = [Segmentation(mask=mask, score=0.5, prompt=Prompt(points=(Point(40, 15),)))]
    annotation = formats.coco_annotation(found[0], id=1, image_id=1)
    image = {"id": 1, "file_name": "a.jpg", "height": 100, "width": 200}
    write(tmp_path / "coco.json", formats.coco_document([image], [annotation]))
    write(tmp_path / "yolo/a.txt", formats.yolo(found))
    write(tmp_path / "labelme/a.json", formats.labelme(found, "a.jpg", 100, 200))
    for path in ("coco.json", "yolo", "labelme"):
        (one,) = asked(read_boxes(tmp_path / path), "a.jpg")
        assert one.prompt.box == Box(30, 10, 50, 20)


@pytest.mark.parametrize("content", [{"images": []}, 3, {"images": 1, "annotations": 2}])
def test_no_boxes(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match="no COCO file"):
        read_boxes(write(tmp_path / "a.json", content))


def test_folders_that_tell_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither"):
        read_boxes(tmp_path)
    write(tmp_path / "a.txt", "")
    write(tmp_path / "a.json", "{}")
    with pytest.raises(DataError, match="both"):
        read_boxes(tmp_path)
    assert read_boxes(tmp_path, "yolo").images
