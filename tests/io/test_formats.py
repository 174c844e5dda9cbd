"""formats: what is written comes back; other tools' readers agree; what malformed input does."""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from PIL import Image

from picosam2.errors import DataError, MissingExtraError, PromptError
from picosam2.io import formats
from picosam2.io.formats import LabeledObject
from picosam2.io.formats.png import _encode
from picosam2.masks import Polygon, fill_polygons, rle_decode
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import Segmentation, encode_image

few = settings(max_examples=60, deadline=None)
shapes = stnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
any_mask = shapes.flatmap(lambda shape: stnp.arrays(np.bool_, shape))
some_masks = shapes.flatmap(
    lambda shape: st.lists(stnp.arrays(np.bool_, shape), min_size=1, max_size=4)
)


def made(mask: np.ndarray, score: float = 0.5) -> Segmentation:
    return Segmentation(mask=mask, score=score, prompt=Prompt(points=(Point(0.5, 0.5),)))


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def discs() -> list[np.ndarray]:
    """A ring with an island in it, and a disc apart from it that has a neighbor."""
    rows, columns = np.mgrid[:90, :120]
    distance = np.hypot(columns - 40, rows - 45)
    ring = ((distance < 35) & (distance > 20)) | (distance < 8)
    disc = np.hypot(columns - 95, rows - 30) < 15
    return [ring, disc | (np.hypot(columns - 100, rows - 75) < 6)]


# --- round trips --------------------------------------------------------------------------------


@given(any_mask)
@few
def test_binary_png(mask: np.ndarray) -> None:
    assert np.array_equal(formats.read_mask_png(formats.mask_png(mask)), mask)


@given(any_mask, st.floats(0.01, 9), st.booleans())
@few
def test_cutout_png(mask: np.ndarray, sure: float, soft: bool) -> None:
    image = np.random.default_rng(0).integers(1, 256, (*mask.shape, 3), np.uint8)
    logits = np.where(mask, sure, -sure).astype(np.float32) if soft else None
    first = Segmentation(
        mask=mask, score=0.5, prompt=Prompt(box=Box(0, 0, 1, 1)), image=image, logits=logits
    )
    file = io.BytesIO(encode_image(first.cutout(), "PNG"))
    back = np.asarray(Image.open(file).convert("RGBA"))
    assert np.array_equal(back[..., 3] > 127, mask)
    assert np.array_equal(back[mask][:, :3], image[mask])


@given(any_mask)
@few
def test_json(mask: np.ndarray) -> None:
    value = through_json(made(mask).to_json())
    assert np.array_equal(rle_decode(value["rle"]), mask)
    assert value["area"] == mask.sum()
    assert Prompt.from_json(value["prompt"]) == made(mask).prompt


@pytest.mark.parametrize("write", [formats.indexed_png, formats.ids_png])
@given(objects=some_masks)
@few
def test_numbered_png(write: Any, objects: list[np.ndarray]) -> None:
    back = formats.read_ids_png(write(objects))
    numbers = formats.numbered(objects)
    for number, mask in enumerate(back, 1):
        assert np.array_equal(mask, numbers == number)
    assert np.array_equal(numbers > 0, np.logical_or.reduce(objects))
    if (
        np.sum(objects, axis=0).max(initial=0) <= 1 and objects[-1].any()
    ):  # nothing is behind another
        assert all(np.array_equal(a, b) for a, b in zip(back, objects, strict=True))


def test_smaller_objects_are_in_front() -> None:
    large, small = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    small[1:3, 1:3] = True
    for order in ([large, small], [small, large]):
        numbers = formats.numbered(order)
        assert np.array_equal(numbers == 1 + [each is small for each in order].index(True), small)


@given(any_mask)
@few
def test_outlines(mask: np.ndarray) -> None:
    height, width = mask.shape
    assert np.array_equal(formats.fill_rings(formats.outlines(mask), height, width), mask)
    if mask.any():
        ring = formats.joined_outline(mask)
        assert np.array_equal(formats.fill_rings([ring], height, width), mask)


@given(some_masks)
@few
def test_svg(objects: list[np.ndarray]) -> None:
    height, width = objects[0].shape
    names = [f'a<b & "{index}"' for index in range(len(objects))]
    text = formats.svg([made(m) for m in objects], height, width, tolerance=0, labels=names)
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") == f"0 0 {width} {height}"
    paths = sorted(root, key=lambda path: int(path.attrib["data-object"]))
    for mask, name, path in zip(objects, names, paths, strict=True):
        assert path.get("data-label") == name
        rings = [
            np.array([pair.split(",") for pair in part.rstrip("Z ").split()], float)
            for part in path.attrib["d"].split("M")[1:]
        ]
        drawn = fill_polygons([Polygon(ring, False) for ring in rings], height, width)
        assert np.array_equal(drawn, mask)


@given(some_masks, st.booleans())
@few
def test_coco(objects: list[np.ndarray], polygons: bool) -> None:
    height, width = objects[0].shape
    for number, mask in enumerate(objects):
        entry = through_json(
            formats.coco_annotation(
                made(mask), id=number, image_id=7, polygons=polygons, tolerance=0
            )
        )
        assert entry["area"] == mask.sum()
        if mask.any():
            assert np.array_equal(formats.coco_mask(entry, height, width), mask)
            assert formats.coco_box(entry) == made(mask).box


@given(some_masks)
@few
def test_yolo(objects: list[np.ndarray]) -> None:
    height, width = objects[0].shape
    text = formats.yolo([made(m) for m in objects], class_ids=range(len(objects)), tolerance=0)
    back = formats.read_yolo(text, height, width, names={0: "first"})
    kept = [(i, mask) for i, mask in enumerate(objects) if mask.any()]
    for (index, mask), each in zip(kept, back, strict=True):
        assert each.mask is not None
        assert np.array_equal(each.mask, mask)
        assert each.label == ("first" if index == 0 else str(index))


TWO_AND_ONE: dict[str, Any] = {
    "array": np.array([2, 1]), "unsigned": np.array([2, 1], np.uint8),
    "floats": [2.0, 1.0], "big-endian": np.array([2, 1], ">f4"), "generator": (n for n in (2, 1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(TWO_AND_ONE))
def test_class_numbers_of_any_kind(kind: str) -> None:
    two = [made(np.ones((4, 6), bool))] * 2
    text = formats.yolo(two, class_ids=TWO_AND_ONE[kind])
    assert [line.split()[0] for line in text.splitlines()] == ["2", "1"]


@pytest.mark.parametrize("bad", [[2.5, 1], [-1, 1], ["2", 1], [float("nan"), 1], [2]])
def test_class_numbers_that_are_none(bad: list[Any]) -> None:
    with pytest.raises(DataError, match="class number"):
        formats.yolo([made(np.ones((4, 6), bool))] * 2, class_ids=bad)


def test_numbers_and_names_of_numpy_in_documents() -> None:
    answer = Segmentation(
        mask=np.ones((4, 6), bool),
        score=np.float32(0.5),  # type: ignore[arg-type]
        prompt=Prompt(box=Box(0, 0, 1, 1)),
    )
    assert type(answer.score) is float
    for number in (np.int64(2), np.float32(2), 2.0):
        entry = formats.coco_annotation(answer, id=number, image_id=number, category_id=number)  # type: ignore[arg-type]
        assert json.dumps([entry["id"], entry["image_id"], entry["category_id"]]) == "[2, 2, 2]"
    with pytest.raises(DataError, match="category_id is a whole number"):
        formats.coco_annotation(answer, id=1, image_id=1, category_id=1.5)  # type: ignore[arg-type]
    names, height = np.array(["cat"]), np.int64(4)
    document = formats.labelme([answer], "a.jpg", height, 6, labels=names)  # type: ignore[arg-type]
    back = json.loads(json.dumps(document))
    assert (back["imageHeight"], back["shapes"][0]["label"]) == (4, "cat")


@given(some_masks)
@few
def test_labelme(objects: list[np.ndarray]) -> None:
    height, width = objects[0].shape
    names = [f"thing {index}" for index in range(len(objects))]
    written = formats.labelme(
        [made(m) for m in objects], "a.jpg", height, width, tolerance=0, labels=names
    )
    back = formats.read_labelme(through_json(written))
    kept = [(name, mask) for name, mask in zip(names, objects, strict=True) if mask.any()]
    for (name, mask), each in zip(kept, back, strict=True):
        assert each.mask is not None
        assert np.array_equal(each.mask, mask)
        assert each.label == name


@given(some_masks)
@few
def test_supervision(objects: list[np.ndarray]) -> None:
    pytest.importorskip("supervision")
    made_ = formats.detections([made(m, 0.25) for m in objects])
    assert np.array_equal(made_.mask, np.stack(objects))
    assert np.allclose(made_.confidence, 0.25)
    for each, box in zip(objects, made_.xyxy, strict=True):
        expected = made(each).box
        assert expected is None or Box(*box.tolist()) == expected


def test_supervision_of_nothing() -> None:
    pytest.importorskip("supervision")
    assert len(formats.detections([])) == 0


def test_supervision_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"\.\[supervision\]"):
        formats.detections([])


# --- with tolerance, and with other tools -------------------------------------------------------


def test_tolerance_keeps_the_shape_with_fewer_points() -> None:
    for mask in discs():
        exact, simple = formats.outlines(mask), formats.outlines(mask, 1.0)
        assert sum(map(len, simple)) < sum(map(len, exact)) / 2
        filled = formats.fill_rings(simple, *mask.shape)
        assert (filled & mask).sum() / (filled | mask).sum() > 0.9


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_both_forms() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    for mask in discs():
        height, width = mask.shape
        rle = formats.coco_annotation(made(mask), id=1, image_id=1)["segmentation"]
        assert np.array_equal(tools.decode(rle).astype(bool), mask)
        rings = formats.coco_annotation(made(mask), id=1, image_id=1, polygons=True, tolerance=0)
        merged = tools.merge(tools.frPyObjects(rings["segmentation"], height, width))
        drawn = tools.decode(merged).astype(bool)
        assert np.array_equal(drawn, mask)


def test_an_empty_mask_has_no_outline_in_any_format() -> None:
    """pycocotools crashes on a segmentation without rings, others on rings without points."""
    empty = made(np.zeros((4, 6), bool))
    for polygons in (False, True):
        entry = through_json(formats.coco_annotation(empty, id=1, image_id=1, polygons=polygons))
        assert (entry["area"], entry["bbox"]) == (0, [0, 0, 0, 0])
        assert entry["segmentation"]["size"] == [4, 6]
        assert not formats.coco_mask(entry, 4, 6).any()
    assert formats.yolo([empty]) == ""
    assert formats.labelme([empty], "a.jpg", 4, 6)["shapes"] == []
    assert "points=" not in formats.svg([empty], 4, 6)
    assert not formats.numbered([empty.mask]).any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_empty_masks() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    empty = made(np.zeros((4, 6), bool))
    for polygons in (False, True):
        entry = formats.coco_annotation(empty, id=1, image_id=1, polygons=polygons)
        assert not tools.decode(entry["segmentation"]).any()
    full = made(np.ones((4, 6), bool))
    entries = [
        formats.coco_annotation(each, id=1, image_id=1, polygons=True, tolerance=0)["segmentation"]
        for each in (full, empty)
    ]
    assert tools.area(tools.merge(tools.frPyObjects(entries[0], 4, 6))) == 24


def test_indexed_png_has_colors() -> None:
    image = Image.open(io.BytesIO(formats.indexed_png(discs())))
    assert image.mode == "P"
    assert image.convert("RGB").getpixel((40, 45)) == formats.colors(2)[0]
    assert len(set(formats.colors(120))) == 120


def test_counts_are_limited() -> None:
    many = [np.ones((1, 1), bool)] * 256
    with pytest.raises(DataError, match="255 objects"):
        formats.indexed_png(many)
    with pytest.raises(DataError, match="no mask"):
        formats.ids_png([])
    with pytest.raises(DataError, match="1 object with 2 labels"):
        formats.svg([made(many[0])], 1, 1, labels=["a", "b"])


# --- inputs -------------------------------------------------------------------------------------


def test_an_object_as_prompt() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:4, 3:8] = True
    assert LabeledObject(mask=mask).prompt() == Prompt(box=Box(3, 2, 8, 4))
    assert LabeledObject(mask=mask, box=Box(0, 0, 9, 9)).prompt().box == Box(0, 0, 9, 9)
    with pytest.raises(PromptError):
        LabeledObject(mask=np.zeros((2, 2), bool)).prompt()


def test_yolo_boxes() -> None:
    first, two = formats.read_yolo("3 0.5 0.5 0.5 0.25 0.875\n\n0 .25 .5 .5 1\n", 40, 80)
    assert first.box == Box(20, 15, 60, 25)
    assert (first.label, first.score) == ("3", 0.875)
    assert two.box == Box(0, 0, 40, 40)


@pytest.mark.parametrize(
    "line", ["cat 0 0 1 1", "0 1 2", "0 .1 .1 .2 .2 .3 .3 4", "0 nan 0 1 1", "0 99 99 1 1"]
)
def test_yolo_refuses(line: str) -> None:
    with pytest.raises(DataError, match="line 1"):
        formats.read_yolo(line, 10, 10)


def labelme_file(*shapes: dict[str, Any]) -> dict[str, Any]:
    return {"shapes": list(shapes), "imageHeight": 20, "imageWidth": 30}


def test_labelme_shapes() -> None:
    patch = np.array([[1, 0], [1, 1]], bool)
    read_back = formats.read_labelme(
        labelme_file(
            {"label": "a", "shape_type": "rectangle", "points": [[9, 8], [2, 3]], "group_id": 4},
            {"label": "a", "shape_type": "point", "points": [[5, 5]], "group_id": 4},
            {"label": "b", "shape_type": "circle", "points": [[10, 10], [14, 10]]},
            {"label": "c", "shape_type": "line", "points": [[0, 0], [1, 1]]},
            {
                "label": "d",
                "shape_type": "mask",
                "points": [[28, 18], [29, 19]],
                "mask": base64.b64encode(formats.mask_png(patch)).decode(),
            },
            {"label": "e", "shape_type": "points", "points": [[1, 2], [3, 4]]},
        )
    )
    assert [each.label for each in read_back] == ["a", "b", "d", "e"]
    assert read_back[0].prompt() == Prompt(points=(Point(5, 5),), box=Box(2, 3, 9, 8))
    assert read_back[1].prompt().box == Box(6, 6, 14, 14)
    assert read_back[2].mask is not None
    assert np.array_equal(read_back[2].mask[18:, 28:], patch)
    assert read_back[2].mask.sum() == 3
    assert read_back[3].points == (Point(1, 2), Point(3, 4))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"shapes": {}},
        {"shapes": []},
        {"shapes": [], "imageHeight": 10**6, "imageWidth": 10**6},
        labelme_file({"points": [[1, 2, 3]]}),
        labelme_file({"points": [[1, "2"], [3, 4], [5, 6]]}),
        labelme_file({"points": [[1, 2]], "shape_type": "star"}),
        labelme_file({"points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "no"}),
        labelme_file({"points": [[0, 0], [1, 1]]}),
    ],
)
def test_labelme_refuses(document: Any) -> None:
    with pytest.raises(DataError):
        formats.read_labelme(document)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[1, 2, 3, 4, 5, "6"]]},
        {"segmentation": {"size": [3, 3], "counts": [9]}},
        {"segmentation": [[0, 0, 1, 1e12, 2, 2]]},
        {"segmentation": [[0, 0, 0, 10_000] * 20_000]},
    ],
)
def test_coco_refuses(entry: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        formats.coco_mask(entry, 10_000, 10)
    with pytest.raises(DataError):
        formats.coco_box(entry)


@given(st.binary(max_size=200))
@few
def test_png_from_a_stranger(data: bytes) -> None:
    with pytest.raises(DataError):
        formats.read_mask_png(data)


def test_a_color_image_is_no_mask() -> None:
    with pytest.raises(DataError, match="one channel"):
        formats.read_mask_png(_encode(Image.new("RGB", (3, 3))))
