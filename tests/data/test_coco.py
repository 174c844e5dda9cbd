"""Reading COCO files: right masks, broken entries left out, hostile files never fatal."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2.data.coco import Annotations, EntryProblem, Instance, read_coco
from picosam2.errors import DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real images are not beside this checkout"
)
HEIGHT, WIDTH = 30, 40
SQUARE = [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]


def a_document(**changes: Any) -> dict[str, Any]:
    """Two images; one object of each of the three encodings, and a crowd."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[3:9, 20:31] = 1
    compressed = reference.encode(np.asfortranarray(mask))
    runs = [20 * HEIGHT + 3] + [6, HEIGHT - 6] * 10 + [6]
    runs.append(HEIGHT * WIDTH - sum(runs))
    size = [HEIGHT, WIDTH]
    common = {"image_id": 1, "category_id": 7, "iscrowd": 0, "area": 100.5, "bbox": [5, 5, 10, 10]}
    document = {
        "images": [
            {"id": 1, "file_name": "one.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "two.jpg", "height": 9, "width": 8, "source": "elsewhere"},
        ],
        "annotations": [
            {**common, "id": 10, "segmentation": [SQUARE, [20, 20, 30, 20, 30, 28]]},
            {
                **common,
                "id": 11,
                "segmentation": {"size": size, "counts": compressed["counts"].decode()},
            },
            {**common, "id": 12, "segmentation": {"size": size, "counts": runs}},
            {**common, "id": 13, "segmentation": {"size": size, "counts": runs}, "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "thing"}],
    }
    return {**document, **changes}


def read(folder: Path, document: Any, **arguments: Any) -> Annotations:
    for name in ("one.jpg", "two.jpg"):
        (folder / name).touch()
    path = folder / "some_train.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_coco(path, folder, **arguments)


def with_annotation(**changes: Any) -> dict[str, Any]:
    """The document with its first annotation changed; a value of `...` takes the field out."""
    document = a_document()
    entry = {**document["annotations"][0], **changes}
    document["annotations"][0] = {k: v for k, v in entry.items() if v is not ...}
    return document


def with_image(**changes: Any) -> dict[str, Any]:
    document = a_document()
    entry = {**document["images"][0], **changes}
    document["images"][0] = {k: v for k, v in entry.items() if v is not ...}
    return document


def decoded(encoding: dict[str, Any]) -> np.ndarray:
    """The reference's decoder, which NumPy 2 warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return reference.decode(encoding).astype(bool)


def an_instance(segmentation: Any, height: int = HEIGHT, width: int = WIDTH) -> Instance:
    return Instance(
        id=5,
        image_id=1,
        category_id=1,
        segmentation=segmentation,
        height=height,
        width=width,
        area=1.0,
    )


def test_three_encodings_and_a_crowd(tmp_path: Path) -> None:
    result = read(tmp_path, a_document())
    assert result.problems == ()
    assert result.crowds == 1
    first, second = result.images
    assert (first.id, first.path, first.height, first.width) == (
        1,
        tmp_path / "one.jpg",
        HEIGHT,
        WIDTH,
    )
    assert [x.id for x in first.instances] == [10, 11, 12]
    assert second.instances == ()
    polygon, compressed, runs = first.instances
    assert (polygon.image_id, polygon.category_id, polygon.area) == (1, 7, 100.5)
    mask = polygon.mask()
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.dtype == np.bool_
    assert mask.flags.c_contiguous
    assert mask[10, 10]
    assert mask[22, 27]
    assert not mask[25, 10]
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[3:9, 20:31] = True
    np.testing.assert_array_equal(compressed.mask(), expected)
    np.testing.assert_array_equal(runs.mask(), expected)


def test_source_is_the_images_own_then_the_given_then_the_stem(tmp_path: Path) -> None:
    assert [p.source for p in read(tmp_path, a_document()).images] == ["some_train", "elsewhere"]
    given_name = read(tmp_path, a_document(), source="mine")
    assert [p.source for p in given_name.images] == ["mine", "elsewhere"]


def test_area_comes_from_the_outline_when_the_file_has_none(tmp_path: Path) -> None:
    document = a_document()
    for entry in document["annotations"]:
        del entry["area"]
    areas = [x.area for x in read(tmp_path, document).images[0].instances]
    assert areas == [100 + 40, 66, 66]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"segmentation": ...}, "no segmentation"),
        ({"segmentation": None}, "no segmentation"),
        ({"segmentation": []}, "no segmentation"),
        ({"segmentation": "x"}, "no segmentation"),
        ({"segmentation": [[]]}, "fewer than three points"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
        ({"segmentation": [SQUARE, [1, 2, 3, 4, 5, 6, 7]]}, "odd count"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "finite"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("inf")]]}, "finite"),
        ({"segmentation": [["1", "2", "3", "4", "5", "6"]]}, "finite"),
        ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "finite"),
        ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "finite"),
        ({"segmentation": [[1, [2], 3, 4, 5, 6]]}, "finite"),
        ({"segmentation": SQUARE}, "finite"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e300]]}, "far outside"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "without run lengths"),
        ({"segmentation": {"counts": "abc"}}, "another size"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": "abc"}}, "another size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}}, "without run lengths"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": []}}, "without run lengths"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0.5, 1199.5]}}, "without run"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1201, -1]}}, "negative"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1e308, 1e308]}}, "too long"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1200, 1]}}, "add up"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "é"}}, "foreign"),
        ({"area": ..., "segmentation": {"size": [HEIGHT, WIDTH], "counts": "PP"}}, "cut off"),
        ({"image_id": 3}, "image 3, which is not in the file"),
        ({"image_id": ...}, "no image_id"),
        ({"image_id": True}, "no image_id"),
        ({"category_id": "seven"}, "no category_id"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"bbox": [1, 2, -3, 4]}, "bbox"),
        ({"bbox": "1,2,3,4"}, "bbox"),
        ({"area": -1}, "area"),
        ({"area": "big"}, "area"),
        ({"area": float("nan")}, "area"),
        ({"iscrowd": "no"}, "iscrowd"),
    ],
)
def test_a_broken_annotation_is_left_out(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    result = read(tmp_path, with_annotation(**changes))
    (problem,) = result.problems
    assert problem.where == "annotation 10"
    assert what in problem.what
    assert [x.id for x in result.images[0].instances] == [11, 12]


@pytest.mark.parametrize("bad", [..., None, -1, 1.5, "", 2**63, True])
def test_an_annotation_without_a_usable_id_is_named_by_its_place(tmp_path: Path, bad: Any) -> None:
    (problem,) = read(tmp_path, with_annotation(id=bad)).problems
    assert problem.where == "annotation entry 0"
    assert "whole number" in problem.what


def test_bbox_may_be_missing_or_without_area(tmp_path: Path) -> None:
    assert read(tmp_path, with_annotation(bbox=...)).problems == ()
    assert read(tmp_path, with_annotation(bbox=[5, 5, 0, 10])).problems == ()


def test_duplicate_ids_keep_the_first(tmp_path: Path) -> None:
    document = a_document()
    document["annotations"].append({**document["annotations"][0], "category_id": 9})
    document["images"].append({**document["images"][0], "file_name": "two.jpg"})
    result = read(tmp_path, document)
    assert result.problems == (
        EntryProblem(where="image 1", what="has the same id as an earlier image"),
        EntryProblem(where="annotation 10", what="has the same id as an earlier annotation"),
    )
    assert result.images[0].path.name == "one.jpg"
    assert result.images[0].instances[0].category_id == 7


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"file_name": ...}, "no file_name"),
        ({"file_name": ""}, "no file_name"),
        ({"file_name": 4}, "no file_name"),
        ({"file_name": "../one.jpg"}, "leaves the image folder"),
        ({"file_name": "a/../../one.jpg"}, "leaves the image folder"),
        ({"file_name": "/etc/passwd"}, "leaves the image folder"),
        ({"file_name": "..\\one.jpg"}, "leaves the image folder"),
        ({"file_name": "C:one.jpg"}, "leaves the image folder"),
        ({"file_name": "one.jpg\0"}, "leaves the image folder"),
        ({"file_name": "three.jpg"}, "'three.jpg' is missing"),
        ({"file_name": "."}, "leaves the image folder"),
        ({"file_name": "\ud800.jpg"}, "is missing"),
        ({"file_name": "x" * 5000}, "is missing"),
        ({"height": ...}, "no height"),
        ({"width": 2.5}, "no width"),
        ({"height": -4}, "no height"),
        ({"height": 0}, "no pixels"),
        ({"height": 10**6, "width": 10**6}, "larger than"),
    ],
)
def test_a_broken_image_is_left_out_with_its_annotations(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    result = read(tmp_path, with_image(**changes))
    (problem,) = result.problems
    assert problem.where == "image 1"
    assert what in problem.what
    assert "3 annotations are left out" in problem.what
    assert len(problem.what) < 250
    assert [image.id for image in result.images] == [2]
    assert result.crowds == 1


def test_entries_that_are_no_objects(tmp_path: Path) -> None:
    result = read(tmp_path, {"images": [1, {"file_name": "one.jpg"}], "annotations": ["x", None]})
    assert [p.where for p in result.problems] == [
        "image entry 0",
        "image entry 1",
        "annotation entry 0",
        "annotation entry 1",
    ]
    assert result.images == ()


def test_an_image_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "one.jpg").touch()
    result = read(tmp_path, with_image(file_name="deep/er/one.jpg"))
    assert result.images[0].path == tmp_path / "deep" / "er" / "one.jpg"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not a JSON file"),
        ('{"images": [', "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("[]", "no JSON object"),
        ("4", "no JSON object"),
        ('{"annotations": []}', "'images'"),
        ('{"images": {}, "annotations": []}', "'images'"),
        ('{"images": []}', "'annotations'"),
        ('{"images": [], "annotations": null}', "'annotations'"),
    ],
)
def test_a_file_that_is_no_annotation_file(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(tmp_path, text)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "no.json", tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path, tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(DataError, match="not a JSON file"):
        read_coco(tmp_path / "bytes.json", tmp_path)
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match="image folder"):
        read_coco(tmp_path / "empty.json", tmp_path / "nowhere")
    empty = read_coco(tmp_path / "empty.json", tmp_path)
    assert (empty.images, empty.problems, empty.crowds) == ((), (), 0)


@pytest.mark.parametrize(
    ("segmentation", "what"),
    [
        (b"P", "cut off"),
        (b"P" * 10_000 + b"0", "too large"),
        (b"0 0", "characters"),
        (b"~", "characters"),
        (b"0", "add up"),
        (b"@", "within 0"),
        (b"oooo5", "larger than its image"),
        (b"00@", "within 0"),
        (np.array([HEIGHT * WIDTH], dtype=np.uint32), "no pixel"),
        ((np.array([5.1, 5.1, 5.2, 5.1, 5.2, 5.2]),), "no pixel"),
        ((np.array([500.0, 500, 600, 500, 600, 600]),), "no pixel"),
        ((np.tile([-1e6, -1e6, 1e6, 1e6], 10),), "two million pixels"),
    ],
)
def test_what_only_decoding_shows(segmentation: Any, what: str) -> None:
    with pytest.raises(DataError, match=rf"annotation 5 cannot be used: .*{what}"):
        an_instance(segmentation).mask()


@given(
    st.lists(
        st.lists(st.floats(-30, 70, width=32), min_size=6, max_size=20).filter(
            lambda numbers: len(numbers) % 2 == 0
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=50, deadline=None)
def test_polygons_give_the_references_mask(polygons: list[list[float]]) -> None:
    parts = reference.frPyObjects(polygons, HEIGHT, WIDTH)
    expected = decoded(reference.merge(parts))
    with tempfile.TemporaryDirectory() as folder:
        result = read(Path(folder), with_annotation(segmentation=polygons))
        assert result.problems == ()
        instance = result.images[0].instances[0]
    if expected.any():
        np.testing.assert_array_equal(instance.mask(), expected)
    else:
        with pytest.raises(DataError, match="no pixel"):
            instance.mask()


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_run_lengths_give_the_references_mask(
    seed: int, height: int, width: int, fill: float
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < fill
    mask[0, 0] = True
    flat = mask.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]))
    runs = [0, *np.diff(starts).tolist()]  # the mask begins with the object
    encoded = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    size = [height, width]
    document = with_annotation(
        segmentation={"size": size, "counts": encoded["counts"].decode()}, area=...
    )
    document["images"][0].update(height=height, width=width)
    document["annotations"][1:] = [
        {"id": 20, "image_id": 1, "category_id": 1, "segmentation": {"size": size, "counts": runs}}
    ]
    with tempfile.TemporaryDirectory() as folder:
        result = read(Path(folder), document)
    assert result.problems == ()
    np.testing.assert_array_equal(decoded(encoded), mask)
    for instance in result.images[0].instances:
        np.testing.assert_array_equal(instance.mask(), mask)
        assert instance.area == mask.sum()


@given(st.binary(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_random_compressed_bytes_decode_or_are_refused(counts: bytes) -> None:
    try:
        mask = an_instance(counts).mask()
    except DataError:
        return
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.any()


def every_path(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each node of a JSON value, the root first."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [path, *(p for key, child in items for p in every_path(child, (*path, key)))]


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 10, 11, 1e308, -1e308, 10**400, "../x", "\0", "PPPP0", ""])
    | st.floats()
    | st.text(max_size=6),
    lambda children: (
        st.lists(children, max_size=8)
        | st.dictionaries(
            st.sampled_from(["id", "size", "counts", "segmentation", "x"]), children, max_size=4
        )
    ),
    max_leaves=10,
)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_mutated_documents_raise_nothing_but_our_error(data: st.DataObject) -> None:
    document: Any = copy.deepcopy(a_document())
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(every_path(document)))
        value = copy.deepcopy(data.draw(ANY_JSON))
        if not path:
            document = value
            continue
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[path[-1]] = value
        else:
            del parent[path[-1]]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = read(Path(folder), json.dumps(document))
        except DataError:
            return
    for image in result.images:
        for instance in image.instances:
            try:
                mask = instance.mask()
            except DataError:
                continue
            assert mask.shape == (image.height, image.width)


@needs_shared
@pytest.mark.parametrize(
    ("annotations", "images", "annotated", "instances", "crowds"),
    [
        ("coco/annotations/instances_val2017.json", "coco/val2017", 124, 961, 10),
        ("coco/annotations/instances_train2017.json", "coco/train2017", 489, 5433, 77),
        ("objects/annotations/instances_train.json", "objects/images", 7207, 28817, 0),
    ],
)
def test_counts_of_the_real_files(
    annotations: str, images: str, annotated: int, instances: int, crowds: int
) -> None:
    result = read_coco(SHARED / annotations, SHARED / images)
    assert result.problems == ()
    assert len(result.images) == annotated
    assert sum(len(image.instances) for image in result.images) == instances
    assert result.crowds == crowds
    if annotations.startswith("objects"):
        sources = Counter(image.source for image in result.images)
        assert (sources["minto"], sources["CCP"], sources["camvid"]) == (949, 1003, 350)


@needs_shared
def test_real_masks_have_the_stated_area_and_box() -> None:
    path = SHARED / "coco/annotations/instances_val2017.json"
    boxes = {a["id"]: a["bbox"] for a in json.loads(path.read_text())["annotations"]}
    for image in read_coco(path, SHARED / "coco/val2017").images[:30]:
        for instance in image.instances:
            mask = instance.mask()
            assert mask.sum() == pytest.approx(instance.area, rel=0.2, abs=12)
            rows, columns = np.nonzero(mask)
            x, y, width, height = boxes[instance.id]
            # The box is the polygon's, which may have a spur too thin to own a pixel.
            assert x - 1 <= columns.min() <= columns.max() <= x + width
            assert y - 1 <= rows.min() <= rows.max() <= y + height


# --- what can be read is read -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"id": "10"}, {"id": 10.0}, {"iscrowd": None}, {"bbox": None}, {"area": None},
     {"image_id": "1"}, {"category_id": "7"}],
)  # fmt: skip
def test_an_odd_annotation_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = read(tmp_path, with_annotation(**changes))
    assert result.problems == ()
    assert [x.id for x in result.images[0].instances] == [10, 11, 12]


def test_ids_that_are_text(tmp_path: Path) -> None:
    document = with_image(id="first")
    document["annotations"][0].update(id="the square", image_id="first")
    for entry in document["annotations"][1:]:
        entry["image_id"] = "first"
    result = read(tmp_path, document)
    assert result.problems == ()
    first, _ = result.images
    assert [x.id for x in first.instances] == [14, 11, 12]
    assert first.id == 3


@pytest.mark.parametrize("changes", [{"width": float(WIDTH)}, {"height": str(HEIGHT)}])
def test_a_size_in_other_spellings(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = read(tmp_path, with_image(**changes))
    assert result.problems == ()
    assert (result.images[0].height, result.images[0].width) == (HEIGHT, WIDTH)


def test_a_stray_polygon_is_left_out_and_named(tmp_path: Path) -> None:
    for stray in ([3, 3], [1, 2, 3, 4], []):
        result = read(tmp_path, with_annotation(segmentation=[SQUARE, stray]))
        (problem,) = result.problems
        assert problem.where == "annotation 10"
        assert "fewer than three points" in problem.what
        np.testing.assert_array_equal(
            result.images[0].instances[0].mask(), an_instance((np.array(SQUARE),)).mask()
        )


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("sub\\one.jpg", "sub/one.jpg"),
        ("/data/set/sub/one.jpg", "sub/one.jpg"),
        ("images/one.jpg", "one.jpg"),
        ("C:\\one.jpg", "one.jpg"),
        ("my%20one.jpg", "my one.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
    ],
)
def test_a_file_name_in_another_spelling(tmp_path: Path, name: str, there: str) -> None:
    images = tmp_path / "elsewhere"
    (images / there).parent.mkdir(parents=True)
    (images / there).touch()
    (images / "two.jpg").touch()
    path = tmp_path / "a.json"
    path.write_text(json.dumps(with_image(file_name=name)))
    result = read_coco(path, images)
    assert result.problems == ()
    assert result.images[0].path == images / there


def test_nothing_to_measure_says_why(tmp_path: Path) -> None:
    document = a_document()
    assert len(read(tmp_path, document).images_to_measure()) == 2
    for entry in document["images"]:
        entry["file_name"] = "lost-" + entry["file_name"]
    for entry in document["annotations"]:
        entry["bbox"] = "none"
    with pytest.raises(DataError, match=r"not x, y, width, height \(and 2 like it\).*is missing"):
        read(tmp_path, document).images_to_measure()
    with pytest.raises(DataError, match="no image with an object: check"):
        read(tmp_path, {"images": [], "annotations": []}).images_to_measure()


def test_two_names_never_mean_one_file(tmp_path: Path) -> None:
    document = a_document()
    for image, name in zip(document["images"], ("x/one.jpg", "y/one.jpg"), strict=True):
        image["file_name"] = name
    result = read(tmp_path, document)
    assert result.images == ()
    assert all("taken by another image" in problem.what for problem in result.problems)
    document = a_document()
    document["images"][1]["file_name"] = "y/one.jpg"
    result = read(tmp_path, document)
    assert [image.id for image in result.images] == [1]  # by its own name
