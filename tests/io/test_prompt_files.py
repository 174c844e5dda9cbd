"""Prompt files: each form that prompts for many images take, and the messages about bad files."""

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


def entries_of(file: PromptFile, name: str, height: int = 100, width: int = 200) -> list[Any]:
    key = file.find(name)
    assert key is not None
    result = file.read(key, height, width)
    assert not result.problems
    return list(result.entries)


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
    first, second = entries_of(file, "a.jpg")
    assert first.prompt == Prompt(points=(Point(3, 4), Point(5, 6, False)))
    assert (first.label, first.id, first.name) == ("cat", 7, "object 7")
    assert second.prompt == Prompt(points=(Point(1, 1),), box=Box(0, 0, 9, 9))
    assert entries_of(file, "sub/b.png")[0].prompt == Prompt(box=Box(1, 2, 3, 4))
    assert file.categories == {1: "cat", 2: "object"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
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
def test_bad_prompts(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
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
    box, mask = entries_of(file, "a.jpg")
    assert (box.prompt, box.label, box.id, box.score) == (
        Prompt(box=Box(1, 2, 11, 22)),
        "cat",
        11,
        0.5,
    )
    assert mask.prompt == Prompt(box=Box(30, 10, 50, 20))
    assert [each.id for each in entries_of(file, "b.jpg")] == [16]
    assert file.categories == {3: "cat", 8: "8"}
    assert file.image_ids == {"a.jpg": 5, "b.jpg": 6}
    assert [problem.where for problem in file.problems] == [
        "annotation 14", "annotation entry 6", "image 'x'", "annotation 15",
    ]  # fmt: skip


def test_coco_results_state_the_size_of_their_image(tmp_path: Path) -> None:
    """A run-length encoding is of one size, which is not that of the image turned."""
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    results = [{"image_id": 139, "category_id": 1, "segmentation": rle_encode(mask)}]
    file = read_boxes(write(tmp_path / "r.json", results))
    (entry,) = entries_of(file, "000000000139.jpg", 4, 6)
    assert entry.prompt.box == Box(2, 1, 5, 3)
    with pytest.raises(DataError, match="6x4"):
        entries_of(file, "000000000139.jpg", 6, 4)


def test_coco_results(tmp_path: Path) -> None:
    results = [{"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25}]
    file = read_boxes(write(tmp_path / "r.json", results))
    (first,) = entries_of(file, "000000000139.jpg")
    assert (first.label, first.id, first.score) == ("1", None, 0.25)
    assert file.image_ids == {"139": 139}


def test_yolo(tmp_path: Path) -> None:
    write(tmp_path / "y/sub/a.txt", "2 0.5 0.5 0.5 0.5 0.75\n0 0 0 1 0 1 1\n")
    write(tmp_path / "y/classes.txt", "dog\n\nbird\n")
    file = read_boxes(tmp_path / "y")
    bird, dog = entries_of(file, "sub/a.jpg")
    assert (bird.prompt.box, bird.label, bird.score) == (Box(50, 25, 150, 75), "bird", 0.75)
    assert dog.label == "dog"
    assert file.categories == {0: "dog", 2: "bird"}
    assert entries_of(read_boxes(tmp_path / "y/sub/a.txt"), "a.jpg")[0].label == "2"


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
    cup, pen = entries_of(file, "a.jpg")
    assert (cup.prompt, cup.label) == (Prompt(box=Box(1, 2, 9, 8)), "cup")
    assert pen.prompt == Prompt(points=(Point(4, 4),))
    assert file.categories == {1: "cup", 2: "pen"}
    with pytest.raises(DataError, match=r"b\.json"):
        entries_of(file, "b.jpg")
    assert entries_of(read_boxes(tmp_path / "l/a.json"), "a.jpg")[0].label == "cup"


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    from picosam2.results import Segmentation

    mask = np.zeros((100, 200), bool)
    mask[10:20, 30:50] = True
    collected = [Segmentation(mask=mask, score=0.5, prompt=Prompt(points=(Point(40, 15),)))]
    annotation = formats.coco_annotation(collected[0], id=1, image_id=1)
    image = {"id": 1, "file_name": "a.jpg", "height": 100, "width": 200}
    write(tmp_path / "coco.json", formats.coco_document([image], [annotation]))
    write(tmp_path / "yolo/a.txt", formats.yolo(collected))
    write(tmp_path / "labelme/a.json", formats.labelme(collected, "a.jpg", 100, 200))
    for path in ("coco.json", "yolo", "labelme"):
        (first,) = entries_of(read_boxes(tmp_path / path), "a.jpg")
        assert first.prompt.box == Box(30, 10, 50, 20)


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


# --- one bad entry ------------------------------------------------------------------------------


def entries_and_problems(file: PromptFile, name: str) -> tuple[int, list[str]]:
    result = file.read(name, 100, 200)
    return len(result.entries), [str(problem) for problem in [*file.problems, *result.problems]]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"image": "a.jpg", "points": [[float("nan"), 1]]}, "object 2"),
        ({"image": "a.jpg", "points": [[1, 1]], "class": "\ud800"}, "object 2: has a class"),
        ({"image": "a.jpg", "points": [[1, 1]], "object": [1]}, "object 2: its object"),
        ({"image": "a.jpg", "points": 7}, "object 2"),
        ({"image": 3, "points": [[1, 1]]}, "object 2: it names no image"),
        (7, "object 2: it is no JSON object"),
    ],
)
def test_one_bad_object_of_a_json_file(tmp_path: Path, entry: Any, what: str) -> None:
    good = {"image": "a.jpg", "points": [[1, 1]]}
    file = read_prompt_file(write(tmp_path / "p.json", [good, entry, good]))
    count, problems = entries_and_problems(file, "a.jpg")
    assert count == 2
    assert len(problems) == 1
    assert problems[0].startswith(what)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a.jpg,1_0,2,,", "line 3: has no numbers"),
        ("a.jpg,nan,2,,", "line 3: has no numbers"),
        (f"a.jpg,{'9' * 5000},2,,", "line 3: has no numbers"),
        (f"a.jpg,1,2,,{'x' * 140_000}", "line 3: cannot be read"),
        ("a.jpg,1,2,,,7", "line 3: has more cells"),
        ("a.jpg,1,,,", "line 3: has x but not all"),
    ],
)
def test_one_bad_row_of_a_csv_file(tmp_path: Path, row: str, what: str) -> None:
    text = f"image,x,y,object,class\na.jpg,1,2,,\n{row}\na.jpg,3,4,,\n"
    file = read_prompt_file(write(tmp_path / "p.csv", text))
    count, problems = entries_and_problems(file, "a.jpg")
    assert count == 2
    assert [problem.startswith(what) for problem in problems] == [True]


def test_a_second_box_of_an_object_is_named(tmp_path: Path) -> None:
    text = "image,object,x0,y0,x1,y1\na,1,0,0,1,1\na,1,0,0,2,2\n"
    file = read_prompt_file(write(tmp_path / "p.csv", text))
    count, problems = entries_and_problems(file, "a")
    assert count == 1
    assert "second box" in problems[0]


@pytest.mark.parametrize(
    "line",
    [
        "-1 .5 .5 .2 .2", "+1 .5 .5 .2 .2", "1_0 .5 .5 .2 .2", f"{'9' * 5000} .5 .5 .2 .2",
        "999999999 .5 .5 .2 .2", "cat .5 .5 .2 .2", "0 .5 .5 .2", "0 .5 .5 1_0 .2", "0 .5 .5 0 .2",
        f"0 {'1' * 5000} .5 .2 .2", "0 inf .5 .2 .2", "0 .5 .5 .2 .2 1.5",
    ],
)  # fmt: skip
def test_one_bad_line_of_yolo(tmp_path: Path, line: str) -> None:
    write(tmp_path / "a.txt", f"0 .5 .5 .2 .2\n{line}\n1.0 .5 .5 .4 .4\n")
    file = read_boxes(tmp_path)
    count, problems = entries_and_problems(file, "a")
    assert count == 2
    assert len(problems) == 1
    assert "2" in problems[0].split(":")[0]
    assert set(file.categories) <= {0, 1}


@pytest.mark.parametrize(
    "shape",
    [
        {"points": [[0, 0], [1, 1]], "shape_type": "polygon"},
        {"points": [[5, 5], [5, 5]], "shape_type": "circle"},
        {"points": [[5, 5], [5, 5]], "shape_type": "rectangle"},
        {"points": [[5, 5]], "shape_type": "rectangle"},
        {"points": [[900, 900], [990, 900], [990, 990]]},
        {"points": [[1, 1], [9, 1], [9, 9]], "label": "\ud800"},
        {"points": [[1, 1], [9, float("nan")], [9, 9]]},
        {"points": [[1, 1]], "shape_type": {"a": 1}},
        None,
    ],
)
def test_one_bad_shape_of_labelme(tmp_path: Path, shape: Any) -> None:
    good = {"label": "cup", "shape_type": "rectangle", "points": [[1, 2], [9, 8]]}
    document = {"imageHeight": 100, "imageWidth": 200.0, "shapes": [good, shape, good]}
    write(tmp_path / "a.json", document)
    count, problems = entries_and_problems(read_boxes(tmp_path, "labelme"), "a")
    assert count == 2
    assert len(problems) == 1
    assert problems[0].startswith("shape 2")


def test_labelme_shapes_that_newer_releases_write(tmp_path: Path) -> None:
    corners = [[10, 20], [20, 10], [30, 20], [20, 30]]
    shapes = [
        {"label": "a", "shape_type": "oriented_rectangle", "points": corners},
        {"label": None, "shape_type": "rectangle", "points": [[1, 2], [9, 8]]},
    ]
    write(tmp_path / "a.json", {"imageHeight": 100, "imageWidth": 200, "shapes": shapes})
    file = read_boxes(tmp_path, "labelme")
    oriented, unlabeled = entries_of(file, "a.jpg")
    assert oriented.prompt.box == Box(10, 10, 29, 30)  # no pixel's center is in the last corner
    assert (unlabeled.label, file.categories[unlabeled.category]) == ("object", "object")


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"bbox": None, "segmentation": [[1, 1, 9, 1, 9, 9]]}, 2),
        ({"bbox": [1, 2, 3, 4], "segmentation": [[5, 5]]}, 2),
        ({"iscrowd": None}, 2),
        ({"image_id": "5"}, 2),
        ({"score": float("nan")}, 1),
        ({"score": 10**400}, 1),
        ({"bbox": [1, 2, 3]}, 1),
        ({"bbox": None}, 1),
        ({"category_id": None}, 1),
    ],
)
def test_one_odd_entry_of_coco(tmp_path: Path, changes: dict[str, Any], count: int) -> None:
    good = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20]}
    image = {"id": 5, "file_name": "a.jpg", "width": 200.0, "height": "100"}
    document = {"images": [image], "annotations": [good, {**good, "id": 2, **changes}]}
    entries, problems = entries_and_problems(
        read_boxes(write(tmp_path / "c.json", document)), "a.jpg"
    )
    assert entries == count
    assert len(problems) == 2 - count


@pytest.mark.parametrize("categories", [7, {"cat": 1}, [7], [{"id": 3, "name": "\ud800"}]])
def test_odd_categories_of_coco(tmp_path: Path, categories: Any) -> None:
    entry = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20]}
    images = [{"id": 5, "file_name": "a.jpg"}]
    document = {"images": images, "annotations": [entry], "categories": categories}
    file = read_boxes(write(tmp_path / "c.json", document))
    assert entries_of(file, "a.jpg")[0].label == "3"
    assert len(file.problems) == 1


# --- keys that are not unique -------------------------------------------------------------------


def test_two_categories_of_one_name_stay_two(tmp_path: Path) -> None:
    entry = {"image_id": 5, "bbox": [1, 2, 10, 20]}
    document = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "annotations": [{**entry, "id": n, "category_id": n} for n in (1, 2, 3)],
        "categories": [
            {"id": 1, "name": "cars"},
            {"id": 2, "name": "cars"},
            {"id": 7, "name": "3"},
        ],
    }
    file = read_boxes(write(tmp_path / "c.json", document))
    assert [(each.category, each.label) for each in entries_of(file, "a.jpg")] == [
        (1, "cars"), (2, "cars"), (3, "3"),
    ]  # fmt: skip
    assert file.categories == {1: "cars", 2: "cars", 7: "3", 3: "3"}


def test_two_yolo_classes_of_one_name_stay_two(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n")
    write(tmp_path / "classes.txt", "cars\ncars\nunused\n")
    file = read_boxes(tmp_path)
    assert [each.category for each in entries_of(file, "a.jpg")] == [0, 1]
    assert file.categories == {0: "cars", 1: "cars", 2: "unused"}


def test_two_images_of_one_file_name_are_read_as_one(tmp_path: Path) -> None:
    entry = {"category_id": 1, "bbox": [1, 2, 10, 20]}
    document = {
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "a.jpg"}],
        "annotations": [{**entry, "id": n, "image_id": n} for n in (5, 6)],
    }
    file = read_boxes(write(tmp_path / "c.json", document))
    assert [each.id for each in entries_of(file, "a.jpg")] == [5, 6]
    assert "same file_name" in file.problems[0].what


def test_ids_that_are_text(tmp_path: Path) -> None:
    entry = {"category_id": "cat", "bbox": [1, 2, 10, 20]}
    document = {
        "images": [{"id": "x1", "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
        "annotations": [
            {**entry, "id": "n-1", "image_id": "x1"}, {**entry, "id": "n-2", "image_id": 1},
        ],
        "categories": [{"id": "cat", "name": "cat"}],
    }  # fmt: skip
    file = read_boxes(write(tmp_path / "c.json", document))
    assert not file.problems
    assert entries_of(file, "a.jpg")[0].label == entries_of(file, "b.jpg")[0].label == "cat"
    assert file.image_ids == {"a.jpg": 2, "b.jpg": 1}


def test_an_image_path_settles_which_image_labelme_means(tmp_path: Path) -> None:
    shape = {"label": "cup", "shape_type": "rectangle", "points": [[1, 2], [9, 8]]}
    document = {"imageHeight": 9, "imageWidth": 9, "shapes": [shape]}
    write(tmp_path / "a.json", {**document, "imagePath": "..\\images\\a.png"})
    write(tmp_path / "b.json", {**document, "imagePath": "images\\other.jpg"})
    file = read_boxes(tmp_path, "labelme")
    matched = file.match(["a.jpg", "a.png", "other.jpg"])
    assert matched.names == {"a.png": "a", "other.jpg": "b"}
    assert not matched.unclear


# --- sizes --------------------------------------------------------------------------------------


def test_annotations_of_another_size_are_refused(tmp_path: Path) -> None:
    shape = {"label": "cup", "shape_type": "rectangle", "points": [[1, 2], [9, 8]]}
    write(tmp_path / "l/a.json", {"imageHeight": 480, "imageWidth": 640, "shapes": [shape]})
    entry = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20]}
    images = [{"id": 5, "file_name": "a.jpg", "height": 480, "width": 640}]
    write(tmp_path / "c.json", {"images": images, "annotations": [entry]})
    for path, name in ((tmp_path / "l", "a"), (tmp_path / "c.json", "a.jpg")):
        file = read_boxes(path)
        assert len(file.read(name, 480, 640).entries) == 1
        with pytest.raises(DataError, match="320x240 pixels, and the annotations are for 640x480:"):
            file.read(name, 240, 320)
        with pytest.raises(DataError, match="EXIF"):
            file.read(name, 640, 480)


# --- YOLO's forms -------------------------------------------------------------------------------


def boxes_and_scores(path: Path, form: Any = None) -> list[tuple[Box | None, float | None]]:
    return [(each.prompt.box, each.score) for each in entries_of(read_boxes(path, form), "a.jpg")]


BOX = Box(80, 40, 120, 60)


def corners(box: Box | None) -> tuple[float, ...]:
    return () if box is None else (box.x0, box.y0, box.x1, box.y1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 .5 .5 .2 .2", [(BOX, None)]),
        ("0.0 .5 .5 .2 .2", [(BOX, None)]),
        ("0 .5 .5 .2 .2 .9", [(BOX, 0.9)]),
        ("0 .5 .5 .2 .2 7", [(BOX, None)]),  # a track
        ("0 .5 .5 .2 .2 .9 7", [(BOX, 0.9)]),  # a score and a track
        ("0 .5 .5 .2 .2 .9 1\n0 .5 .5 .2 .2 .8 2", [(BOX, 0.9), (BOX, 0.8)]),
        ("0 .4 .4 .6 .4 .6 .6 .4 .6", [(BOX, None)]),
        ("0 .4 .4 .6 .4 .6 .6 .4 .6 .75", [(BOX, 0.75)]),
        ("0 .4 .4 .6 .4 .6 .6 .4 .6 .75 12", [(BOX, 0.75)]),
        ("0 .4 .4 .6 .4 .6 .6 .5", [(BOX, 0.5)]),  # a triangle and a score
    ],
)
def test_forms_of_yolo(tmp_path: Path, text: str, expected: list[Any]) -> None:
    path = write(tmp_path / "a.txt", text)
    actual = boxes_and_scores(path)
    assert [score for _, score in actual] == [score for _, score in expected]
    for (box, _), (wanted, _) in zip(actual, expected, strict=True):
        assert corners(box) == pytest.approx(corners(wanted), abs=1)


def test_a_form_that_stays_open_is_refused_until_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "0 .5 .5 .2 .2 .9 1")
    read_back = read_boxes(path).read("a", 100, 200)
    assert not read_back.entries
    assert "yolo-boxes or yolo-polygons" in str(read_back.problems[0])
    ((box, score),) = boxes_and_scores(path, "yolo-boxes")
    assert corners(box) == pytest.approx(corners(BOX))
    assert score == 0.9
    ((box, score),) = boxes_and_scores(path, "yolo-polygons")
    assert (corners(box)[2:], score) == ((178, 99), None)


@pytest.mark.parametrize(
    "text",
    [
        "path: .\nnames: ['dog', \"big cat\", bird]\nnc: 3\n",
        "names: [dog, big cat,\n  bird]\n",
        "names:\n- dog\n- big cat\n- 'bird'  # last\ntrain: x\n",
        "names:\n  0: dog\n  1: big cat\n  2: bird\nval: y\n",
        "names: {0: dog, 1: big cat, 2: bird}\n",
    ],
)
def test_names_of_classes_in_data_yaml(tmp_path: Path, text: str) -> None:
    write(tmp_path / "data.yaml", text)
    write(tmp_path / "labels/train/a.txt", "2 .5 .5 .2 .2\n")
    for folder in ("labels/train", "labels", "."):
        file = read_boxes(tmp_path / folder, "yolo")
        assert file.categories == {0: "dog", 1: "big cat", 2: "bird"}
