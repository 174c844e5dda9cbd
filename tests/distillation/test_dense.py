"""distillation.dense: which masks are kept, what is written, resuming, and what must be refused."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.box_finder import PatchFinder
from helpers.dense_tiny import (
    COLORS,
    HEIGHT,
    SMALL_PARTS,
    WIDTH,
    ColorTeacher,
    patches,
    random_boxes,
    with_logits,
    write_images,
    write_source,
)
from helpers.tiny import make_store
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from picosam2 import masks
from picosam2._files import write_json
from picosam2.data.coco import read_coco
from picosam2.data.contact_sheet import ONLY_MASK
from picosam2.data.detections import read_detections
from picosam2.data.image_store import ImageStoreConfig, prepare_images
from picosam2.data.split import NEAR, dhash, in_validation
from picosam2.data.store import SourceFiles, Store, StoreConfig, prepare
from picosam2.distillation.dense import confidence_curve, image_files, source_names, teach_dense
from picosam2.distillation.dense_masks import DenseConfig, DenseMask, dense_masks, propose
from picosam2.distillation.dense_report import write_dense_report
from picosam2.distillation.protocol import TeacherAnswer
from picosam2.errors import ConfigError, DataError, StoreError
from picosam2.evaluation.leak_check import check_leaks, training_images
from picosam2.geometry import Window
from picosam2.masks import Region

SCRIPT = Path(__file__).parents[1] / "helpers" / "dense_tiny.py"
COUNT = 8  # annotated images; three images a part
LOOSE = 2  # images without annotations
BOXES = ((10, 12, 40, 50), (60, 8, 90, 30), (70, 50, 120, 90))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `COUNT` annotated images and `LOOSE` others. Not to be changed."""
    folder = tmp_path_factory.mktemp("place")
    write_source(folder, COUNT)
    write_images(folder / "loose", LOOSE, start=COUNT)
    hashes = [dhash(patches(random_boxes(number))) for number in range(COUNT + LOOSE)]
    apart = [(a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2)]
    assert min(apart) > NEAR  # or else one could stand for another
    return folder


@pytest.fixture(scope="module")
def source(place: Path) -> SourceFiles:
    return source_in(place)


def source_in(folder: Path) -> SourceFiles:
    return SourceFiles(
        annotations=folder / "patches.json", images=folder / "patches-images", name="patches"
    )


@pytest.fixture(scope="module")
def taught(place: Path, source: SourceFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ColorTeacher` says of all images. Not to be changed."""
    out = tmp_path_factory.mktemp("taught") / "dense"
    teach([source], [place / "loose"], out)
    return out


@pytest.fixture
def copied(taught: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(taught, tmp_path / "dense"))


def teach(sources: Any, folders: Any, out: Path, **more: Any) -> Any:
    teacher = more.pop("teacher", None) or ColorTeacher()
    config = more.pop("config", SMALL_PARTS)
    return teach_dense(teacher, PatchFinder(), sources, folders, out, config, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def boxes_of(kept: list[DenseMask]) -> list[tuple[int, int, int, int]]:
    return sorted(
        (mask.region.x, mask.region.y, mask.region.columns.stop, mask.region.rows.stop)
        for mask in kept
    )


def look(image: np.ndarray, teacher: Any = None, known: Any = (), **config: Any) -> list[DenseMask]:
    teacher = teacher or ColorTeacher()
    chosen = DenseConfig(**config)
    proposed = propose(image, PatchFinder(), ("", 0), chosen)
    return dense_masks(image, teacher, proposed, chosen, known)


def test_another_detectors_boxes_are_looked_at_instead_of_the_finders(
    place: Path, source: SourceFiles, tmp_path: Path
) -> None:
    file = tmp_path / "boxes.jsonl"
    lines = [
        {
            "source": "patches",
            "image_id": number + 1,
            "boxes": [[*random_boxes(number)[1], 0.9], [*random_boxes(number)[2], 0.1]],
        }
        for number in range(2)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    teacher = ColorTeacher()
    result = teach_dense(
        teacher, read_detections(file), [source], [], tmp_path / "out", DenseConfig(confidence=0.4),
        finder_sha256=read_detections(file).fingerprint,
    )  # fmt: skip
    # Of the second box the score is too low for any mask of it, and the other images have no line.
    assert sorted(set(teacher.prompts)) == [0, 1]
    assert (result.images, result.masks) == (2, 2)
    document = json.loads(result.files[0].annotations.read_text())
    x0, y0, x1, y1 = random_boxes(0)[1]
    first = document["annotations"][0]
    assert first["bbox"] == [x0, y0, x1 - x0, y1 - y0]
    assert first["score"] == pytest.approx(0.9 * 0.9**0.5, abs=1e-3)


# --- the masks of an image ----------------------------------------------------------------------


def test_every_object_is_a_mask_and_the_image_is_shown_once_and_mirrored_once() -> None:
    teacher = ColorTeacher()
    kept = look(patches(BOXES), teacher)
    assert boxes_of(kept) == sorted(BOXES)
    assert teacher.prompts == [3, 3]
    for mask in kept:
        assert mask.region.mask.all()
        assert (mask.agreement, mask.known) == (1, 0)
        # The teacher predicts 0.9, and the finder gives every patch a logit of 4.
        assert mask.confidence == pytest.approx(0.9 * (1 / (1 + math.exp(-4))) ** 0.5, abs=1e-6)


def test_an_image_without_objects_has_no_mask() -> None:
    assert look(patches(())) == []


@given(
    st.integers(0, 90), st.integers(0, 60), st.integers(12, 38), st.integers(12, 36),
    st.integers(1, 2000),
)  # fmt: skip
@settings(max_examples=25)
def test_any_patch_is_exact_and_kept_by_its_area(
    x: int, y: int, w: int, h: int, least: int
) -> None:
    box = (x, y, min(x + w, WIDTH), min(y + h, HEIGHT))
    image = patches([box])
    expected = [box] if (box[2] - box[0]) * (box[3] - box[1]) >= least else []
    assert boxes_of(look(image, least_area=least)) == expected
    turned = [(WIDTH - x1, y0, WIDTH - x0, y1) for x0, y0, x1, y1 in expected]
    assert boxes_of(look(np.ascontiguousarray(image[:, ::-1]), least_area=least)) == turned


def test_a_mask_that_the_mirror_image_does_not_have_is_left_out() -> None:
    image = patches(BOXES[:1])

    def cut(columns: int) -> ColorTeacher:
        def shorter(logits: np.ndarray) -> np.ndarray:
            logits[:, WIDTH - BOXES[0][2] : WIDTH - BOXES[0][2] + columns] = -8
            return logits

        return ColorTeacher(change_mirror=with_logits(shorter))

    (mask,) = look(image, cut(3))  # of 30 columns
    assert mask.agreement == pytest.approx(0.9)
    assert look(image, cut(15)) == []
    (mask,) = look(image, cut(15), agreement=0.5)
    assert mask.agreement == pytest.approx(0.5)


def test_the_mask_is_that_of_the_mean_logits() -> None:
    def unsure(logits: np.ndarray) -> np.ndarray:
        logits[12:20, 10:40] = 6  # more than the mirror's -5
        logits[40:50, 10:40] = 4  # less
        return logits

    def mirrored(logits: np.ndarray) -> np.ndarray:
        logits[:, WIDTH - 40 : WIDTH - 10][:10] = -5
        logits[12:20, WIDTH - 40 : WIDTH - 10] = -5
        logits[40:50, WIDTH - 40 : WIDTH - 10] = -5
        return logits

    teacher = ColorTeacher(change=with_logits(unsure), change_mirror=with_logits(mirrored))
    (mask,) = look(patches(BOXES[:1]), teacher, agreement=0)
    assert boxes_of([mask]) == [(10, 12, 40, 40)]


def test_the_mirror_of_a_window_that_is_not_mirrored_with_its_image() -> None:
    """SAM's square starts at the left edge of the image and of its mirror image alike."""
    height, width = 128, 96
    box = (8, 20, 44, 90)

    def square(answer: TeacherAnswer) -> TeacherAnswer:
        logits = np.full((height, height), -8, np.float32)
        logits[:, :width] = answer.logits
        return replace(answer, logits=logits, window=Window(0, 0, height, height))

    (mask,) = look(patches([box], height, width), ColorTeacher(change=square))
    assert boxes_of([mask]) == [box]
    assert mask.agreement == 1


def test_less_confident_masks_are_left_out() -> None:
    image = patches(BOXES)
    (highest, *_) = look(image)
    assert look(image, confidence=highest.confidence + 1e-6) == []
    assert len(look(image, confidence=highest.confidence)) == 3
    assert look(image, ColorTeacher(predicted=0.4)) == []
    (mask, *_) = look(image, ColorTeacher(predicted=7.0))  # no more than 1 is believed
    assert mask.confidence == pytest.approx((1 / (1 + math.exp(-4))) ** 0.5, abs=1e-6)


def nowhere(logits: np.ndarray) -> np.ndarray:
    return np.full_like(logits, math.nan)


def somewhere(logits: np.ndarray) -> np.ndarray:
    logits[0, 0] = math.inf
    return logits


@pytest.mark.parametrize(
    "change",
    [
        with_logits(nowhere),
        with_logits(somewhere),
        lambda answer: replace(answer, predicted_iou=math.nan),
    ],
)
def test_answers_that_are_not_finite_are_left_out(change: Any) -> None:
    image = patches(BOXES)
    assert look(image, ColorTeacher(change=change)) == []
    only_mirror = ColorTeacher(change_mirror=change)
    assert look(image, only_mirror, agreement=0) == []


def test_a_teacher_that_answers_with_the_whole_image_or_nothing() -> None:
    image = patches(BOXES)
    everything = ColorTeacher(change=with_logits(lambda logits: np.full_like(logits, 8)))
    assert look(image, everything) == []
    (mask,) = look(image, everything, largest_share=1)
    assert mask.region.area == HEIGHT * WIDTH
    nothing = ColorTeacher(change=with_logits(lambda logits: np.full_like(logits, -8)))
    assert look(image, nothing) == []


def test_of_overlapping_masks_the_most_confident_is_kept() -> None:
    sure = iter([0.7, 0.9, 0.8] * 2)

    def all_three(answer: TeacherAnswer) -> TeacherAnswer:
        """The same mask for every box, with another confidence."""
        logits = np.full_like(answer.logits, -8)
        logits[10:60, 20:80] = 8
        return replace(answer, logits=logits, predicted_iou=next(sure))

    mirrored = with_logits(lambda logits: np.ascontiguousarray(logits[:, ::-1]))
    teacher = ColorTeacher(
        change=all_three, change_mirror=lambda answer: mirrored(all_three(answer))
    )
    (mask,) = look(patches(BOXES), teacher)
    assert mask.confidence == pytest.approx(0.9 * (1 / (1 + math.exp(-4))) ** 0.5, abs=1e-6)
    sure = iter([0.7, 0.9, 0.8] * 2)
    kept = look(patches(BOXES), teacher, overlap=1)
    assert [round(mask.confidence, 2) for mask in kept] == [0.89, 0.79, 0.69]


def test_annotated_masks_are_compared() -> None:
    def rectangle(x0: int, y0: int, x1: int, y1: int) -> Region:
        return Region(x0, y0, np.ones((y1 - y0, x1 - x0), np.bool_))

    known = [rectangle(*BOXES[0]), rectangle(10, 12, 25, 50), rectangle(60, 8, 75, 30)]
    kept = {box[0]: mask for mask in look(patches(BOXES), None, known) for box in boxes_of([mask])}
    assert {x: mask.known for x, mask in kept.items()} == {10: 1.0, 60: 0.5, 70: 0.0}


def test_parts_of_a_large_image_are_looked_at() -> None:
    small = (20, 32, 44, 56)
    image = patches([small], 96 * 4, 128 * 4)  # six pixels of the whole view
    assert look(image, least_area=1, parts_from=5) == []
    assert boxes_of(look(image, least_area=1)) == [small]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"confidence": 1.1}, "`confidence` must be from 0 to 1, not 1.1"),
        ({"agreement": -0.1}, "`agreement` must be"),
        ({"overlap": math.nan}, "`overlap` must be"),
        ({"known": 2}, "`known` must be"),
        ({"largest_share": 2}, "`largest_share` must be"),
        ({"parts_from": 0}, "`parts_from` must be above 0"),
        ({"boxes": 0}, "`boxes` must be at least 1"),
        ({"least_area": 0}, "`least_area` must be at least 1"),
        ({"images_per_part": 0}, "`images_per_part` must be at least 1"),
    ],
)
def test_settings_that_are_impossible(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DenseConfig(**values)


# --- what is written ----------------------------------------------------------------------------


def test_what_nobody_annotated_is_written(place: Path, source: SourceFiles, taught: Path) -> None:
    assert [path.name for path in sorted(taught.iterdir())] == [
        "annotations", "dense.json", *(f"part-{number:05d}.json" for number in range(4)),
    ]  # fmt: skip
    for name, folder, numbers, first in (
        ("patches", source.images, range(COUNT), 1),
        ("loose", place / "loose", range(COUNT, COUNT + LOOSE), 0),
    ):
        file = taught / "annotations" / f"{name}.json"
        read = read_coco(file, folder)
        assert read.problems == ()
        assert [image.path.name for image in read.images] == [f"{n:03d}.png" for n in numbers]
        for image, number in zip(read.images, numbers, strict=True):
            assert image.source == f"dense-{name}"
            new = sorted(random_boxes(number)[first:])
            bounds = [masks.bbox(instance.mask()) for instance in image.instances]
            assert sorted(bounds) == new
            assert sorted(instance.area for instance in image.instances) == sorted(
                (x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in new
            )
        document = json.loads(file.read_text())
        scores = {entry["score"] for entry in document["annotations"]}
        assert scores == {0.8919}
        ids = [entry["id"] for entry in document["annotations"]]
        assert ids == list(range(1, len(ids) + 1))


def test_the_result_counts(place: Path, source: SourceFiles, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None = None, *, what: Any = None, note: str = "") -> None:
        seen.append((done, total))

    result = teach([source], [place / "loose"], tmp_path / "d", progress=progress)
    assert (result.images, result.masks) == (COUNT + LOOSE, 2 * COUNT + 3 * LOOSE)
    assert (result.written, result.kept, result.finished) == (4, 0, True)
    assert result.problems == ()
    assert [files.annotations.name for files in result.files] == ["loose.json", "patches.json"]
    assert seen == [(number, COUNT + LOOSE) for number in range(1, COUNT + LOOSE + 1)]


def test_an_image_of_several_sources_is_labeled_once(place: Path, tmp_path: Path) -> None:
    """With what any of them has annotated; and what a folder has beside them is new."""
    source = write_source(tmp_path, 2)
    document = json.loads(source.annotations.read_text())
    for entry, number in zip(document["annotations"], range(2), strict=True):
        x0, y0, x1, y1 = random_boxes(number)[1]
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[y0:y1, x0:x1] = True
        entry["segmentation"] = masks.rle_encode(mask)
    write_json(tmp_path / "second.json", document)
    second = replace(source, annotations=tmp_path / "second.json", name="second")
    write_images(source.images, 1, start=7)
    result = teach([source, second], [source.images], tmp_path / "d")
    assert [files.annotations.name for files in result.files] == [
        "patches.json",
        "patches-images.json",
    ]
    (first, folder) = (read_coco(files.annotations, files.images) for files in result.files)
    bounds = [masks.bbox(image.instances[0].mask()) for image in first.images]
    assert bounds == [random_boxes(number)[2] for number in range(2)]
    assert all(len(image.instances) == 1 for image in first.images)
    assert [(image.path.name, len(image.instances)) for image in folder.images] == [("007.png", 3)]


def test_parts_of_objects_go_to_a_file_of_their_own(tmp_path: Path) -> None:
    """A patch on a patch; and a patch on an annotated one."""
    source = write_source(tmp_path, 2)
    image = patches(BOXES[:1])
    image[14:26, 12:24] = (250, 250, 250)
    Image.fromarray(image).save(source.images / "000.png")
    document = json.loads(source.annotations.read_text())
    x0, y0, *_ = random_boxes(1)[0]
    with Image.open(source.images / "001.png") as image_file:
        image = np.array(image_file)
    image[y0 + 2 : y0 + 14, x0 + 2 : x0 + 14] = (250, 250, 250)
    Image.fromarray(image).save(source.images / "001.png")
    document["annotations"].pop(0)
    write_json(source.annotations, document)

    def filled(answer: TeacherAnswer) -> TeacherAnswer:
        """The hole that the upper patch leaves in the lower one is filled."""
        x0, y0, x1, y1 = masks.bbox(answer.logits > 0) or (0, 0, 0, 0)
        logits = np.full_like(answer.logits, -8)
        logits[y0:y1, x0:x1] = 8
        return replace(answer, logits=logits)

    result = teach([source], [], tmp_path / "d", teacher=ColorTeacher(change=filled))
    assert [files.annotations.name for files in result.files] == [
        "patches.json",
        "patches-parts.json",
    ]
    (whole, parts) = (read_coco(files.annotations, files.images) for files in result.files)
    assert [image.source for image in parts.images] == ["dense-parts-patches"] * 2
    assert [masks.bbox(image.instances[0].mask()) for image in parts.images] == [
        (12, 14, 24, 26), (x0 + 2, y0 + 2, x0 + 14, y0 + 14),
    ]  # fmt: skip
    assert [len(image.instances) for image in parts.images] == [1, 1]
    assert [len(image.instances) for image in whole.images] == [1, 2]
    assert {image.source for image in whole.images} == {"dense-patches"}
    config = replace(SMALL_PARTS, inside=0.0)  # decided when the files are written, from the parts
    teacher = ColorTeacher()
    again = teach([source], [], tmp_path / "d", teacher=teacher, config=config)
    assert (again.written, again.masks, teacher.prompts) == (0, result.masks, [])


def test_only_some_sources_of_a_file_are_looked_at(tmp_path: Path) -> None:
    source = write_source(tmp_path, 3)
    document = json.loads(source.annotations.read_text())
    document["images"][1]["source"] = "zoo"
    write_json(source.annotations, document)
    loose = write_images(tmp_path / "loose", 1, start=3)
    result = teach([source], [loose], tmp_path / "d", only=["zoo", "loose"])
    names = [entry["file_name"] for files in result.files
             for entry in json.loads(files.annotations.read_text())["images"]]  # fmt: skip
    assert names == ["003.png", "001.png"]
    with pytest.raises(ConfigError, match="source 'sea'; there are loose, patches, zoo"):
        teach([source], [loose], tmp_path / "e", only=["zoo", "sea"])


def test_images_below_folders_keep_their_names(tmp_path: Path) -> None:
    write_images(tmp_path / "all" / "a", 1)
    write_images(tmp_path / "all" / "b", 1, start=1)
    (tmp_path / "all" / "notes.txt").write_text("no image")
    (files,) = teach([], [tmp_path / "all"], tmp_path / "d").files
    names = [entry["file_name"] for entry in json.loads(files.annotations.read_text())["images"]]
    assert names == ["a/000.png", "b/001.png"]


def test_nothing_new_is_no_file(tmp_path: Path) -> None:
    images = tmp_path / "empty"
    images.mkdir()
    Image.fromarray(patches(())).save(images / "a.png")
    result = teach([], [images], tmp_path / "d")
    assert (result.finished, result.files, result.masks) == (True, (), 0)
    write_dense_report(result, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*.png"))


def test_the_result_is_drawn(
    place: Path, source: SourceFiles, taught: Path, copied: Path, tmp_path: Path
) -> None:
    """Every mask on its image, as often as there are masks; the same bytes every time."""
    result = teach([source], [place / "loose"], copied)
    assert [files.name for files in result.files] == ["dense-loose", "dense-patches"]
    assert [files.images for files in result.files] == [place / "loose", source.images]
    write_dense_report(result, copied)
    drawn = {name: data for name, data in contents(copied).items() if name.endswith(".png")}
    assert set(drawn) == {"confidence.png", "masks.png"}
    write_dense_report(result, copied)
    assert {name: contents(copied)[name] for name in drawn} == drawn
    with Image.open(copied / "masks.png") as sheet:
        pixels = np.array(sheet)
    assert pixels.shape == (4 * 164 + 4, 6 * 164 + 4, 3)  # 22 masks, six in a row
    ground, tint = np.array(COLORS), np.array(ONLY_MASK)
    tinted = {
        tuple(color) for color in np.rint(ground + 0.5 * (tint - ground)).astype(int).tolist()
    }
    for number in range(22):
        y, x = 84 + 164 * (number // 6), 84 + 164 * (number % 6)
        assert tuple(pixels[y, x].tolist()) in tinted  # in the middle of a mask
    assert (pixels[-84, -84] == 255).all()  # no tile any more


def test_images_that_are_gone_are_not_drawn(tmp_path: Path) -> None:
    loose = write_images(tmp_path / "loose", 2)
    result = teach([], [loose], tmp_path / "d")
    shutil.rmtree(loose)
    loose.mkdir()
    Image.new("RGB", (20, 30)).save(loose / "000.png")
    write_dense_report(result, tmp_path / "d")
    assert (tmp_path / "d" / "confidence.png").exists()
    assert not (tmp_path / "d" / "masks.png").exists()


def test_the_confidence_is_compared_on_held_out_images(source: SourceFiles, tmp_path: Path) -> None:
    held = [in_validation(dhash(patches(random_boxes(number))), 0, 0.1) for number in range(100)]
    numbers = [held.index(True), held.index(False)]
    document: dict[str, list[Any]] = {"images": [], "annotations": []}
    for place, number in enumerate(numbers):
        single = write_source(tmp_path / str(place), 1, start=number)
        own = json.loads(single.annotations.read_text())
        document["images"] += own["images"]
        document["annotations"] += own["annotations"]
        shutil.copytree(single.images, tmp_path / "images", dirs_exist_ok=True)
    write_json(tmp_path / "a.json", {**document, "categories": []})
    both = SourceFiles(annotations=tmp_path / "a.json", images=tmp_path / "images")
    result = teach([both], [], tmp_path / "d")
    write_dense_report(result, tmp_path / "d")
    (part,) = result.curve
    assert (part.count, part.iou) == (1, 1.0)
    assert part.low <= part.confidence == 0.8919 < part.high


@given(
    st.lists(st.tuples(st.floats(0.45, 1), st.floats(0, 1)), max_size=30),
    st.integers(1, 9),
)
def test_the_curve_counts_every_known_mask_once(pairs: Any, bins: int) -> None:
    image_hash = next(n for n in itertools.count() if in_validation(n, 0, 0.1))
    entry = {
        "dhash": f"{image_hash:016x}",
        "masks": [{"confidence": confidence, "known": known} for confidence, known in pairs],
    }
    curve = confidence_curve([entry], DenseConfig(), bins=bins)
    counted = [(confidence, known) for confidence, known in pairs if known > 0.5]
    assert sum(part.count for part in curve) == len(counted)
    for part in curve:
        assert part.low - 1e-9 <= part.confidence <= part.high + 1e-9
        assert 0.5 < part.iou <= 1
    if counted:
        mean = sum(part.count * part.iou for part in curve) / len(counted)
        assert mean == pytest.approx(np.mean([known for _, known in counted]))


# --- what is left out, and named ----------------------------------------------------------------


def test_what_cannot_be_used_is_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    images = tmp_path / "patches-images"
    (images / "001.png").write_text("no image any more")
    Image.new("RGB", (20, 30)).save(images / "002.png")
    (images / "003.png").unlink()
    (tmp_path / "loose" / "008.png").write_bytes(b"")
    result = teach([source_in(tmp_path)], [tmp_path / "loose"], tmp_path / "d")
    problems = {problem.where: problem.what for problem in result.problems}
    assert list(problems) == ["image 4", "image 001.png", "image 002.png", "image 008.png"]
    assert "003.png' is missing" in problems["image 4"]
    assert "is 20x30 pixels, and the annotations are for 128x96" in problems["image 002.png"]
    assert result.images == COUNT + LOOSE - 4


def test_images_of_evaluated_sets_are_left_out_by_name(
    place: Path, source: SourceFiles, copied: Path, tmp_path: Path
) -> None:
    evaluated = tmp_path / "evaluated"
    evaluated.mkdir()
    with Image.open(source.images / "004.png") as image:
        image.convert("RGB").resize((256, 192)).save(evaluated / "another.jpg", quality=80)
    shutil.copy(place / "loose" / "009.png", evaluated)
    result = teach([source], [place / "loose"], tmp_path / "d", exclude=[evaluated])
    assert [problem.where for problem in result.problems] == ["image 004.png", "image 009.png"]
    assert all("evaluated set" in problem.what for problem in result.problems)
    names = [
        entry["file_name"]
        for files in result.files
        for entry in json.loads(files.annotations.read_text())["images"]
    ]
    assert "004.png" not in names
    assert "009.png" not in names
    assert len(names) == COUNT + LOOSE - 2
    later = teach([source], [place / "loose"], copied, exclude=[evaluated])
    assert later.written == 0  # by a run that excluded nothing
    assert later.problems == result.problems
    assert later.masks == result.masks
    for earlier, files in zip(result.files, later.files, strict=True):
        assert earlier.annotations.read_bytes() == files.annotations.read_bytes()


# --- resuming and sharing -----------------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_stopped(
    place: Path, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d"
    words = [source.annotations, source.images, place / "loose", out, "--kill-at", 10]
    killed = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert {"dense.json", "part-00000.json"} == set(contents(out))
    teacher = ColorTeacher()
    result = teach([source], [place / "loose"], out, teacher=teacher)
    assert (result.kept, result.written) == (1, 3)
    assert len(teacher.prompts) == 2 * (COUNT + LOOSE - 3)
    assert contents(out) == contents(taught)


def test_a_finished_folder_asks_nobody(place: Path, source: SourceFiles, copied: Path) -> None:
    teacher, before = ColorTeacher(), contents(copied)
    teacher.name = "color:elsewhere"
    result = teach([source], [place / "loose"], copied, teacher=teacher)
    assert (result.kept, result.written, teacher.prompts) == (4, 0, [])
    assert (result.masks, len(result.files)) == (2 * COUNT + 3 * LOOSE, 2)
    assert contents(copied) == before


def test_processes_share_the_parts(
    place: Path, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    results = [
        teach([source], [place / "loose"], tmp_path / "d", rank=rank, world=2) for rank in (1, 0)
    ]
    assert [result.written for result in results] == [2, 2]
    assert [result.finished for result in results] == [False, True]
    assert [len(result.files) for result in results] == [0, 2]
    assert contents(tmp_path / "d") == contents(taught)


# --- what is refused ----------------------------------------------------------------------------


def test_a_folder_of_other_masks(place: Path, source: SourceFiles, copied: Path) -> None:
    loose, before = [place / "loose"], contents(copied)
    other = ColorTeacher(key="other")
    other.name = "color:other"
    with pytest.raises(StoreError) as caught:
        teach([source], loose, copied, teacher=other)
    for name, teacher in (("color:tiny", ColorTeacher()), ("color:other", other)):
        assert f"{name} ({teacher.fingerprint[:12]})" in str(caught.value)
    with pytest.raises(StoreError, match="holds dense masks of other images: choose another"):
        teach([source], [], copied)
    with pytest.raises(StoreError, match="holds dense masks with other settings"):
        teach([source], loose, copied, config=replace(SMALL_PARTS, boxes=7))
    with pytest.raises(StoreError, match="holds dense masks by another finder"):
        teach([source], loose, copied, finder_sha256="0" * 64)
    assert contents(copied) == before


def test_folders_that_hold_no_dense_masks(place: Path, source: SourceFiles, tmp_path: Path) -> None:
    store = make_store(tmp_path, 3)
    with pytest.raises(StoreError, match="is not empty and holds no dense masks"):
        teach([source], [], store.path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        teach([source], [], tmp_path / "file")


def test_dense_masks_are_no_store(source: SourceFiles, taught: Path) -> None:
    with pytest.raises(StoreError, match="is not a crop store: make one"):
        Store(taught)
    with pytest.raises(StoreError, match="is not empty and holds no store"):
        prepare([source], taught, StoreConfig(), workers=1)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"fingerprint": "x"}'])
def test_damaged_plans(source: SourceFiles, place: Path, copied: Path, text: str) -> None:
    (copied / "dense.json").write_text(text)
    with pytest.raises(StoreError, match=r"dense\.json cannot be read: choose another folder"):
        teach([source], [place / "loose"], copied)


def damage(text: str, change: str) -> str:
    part = json.loads(text)
    if change == "half":
        return text[: len(text) // 2]
    if change == "fewer":
        part["images"].pop()
    elif change == "other":
        part["images"][0]["file_name"] = "other.png"
    elif change == "size":
        del part["images"][0]["height"]
    elif change == "mask":
        del part["images"][0]["masks"][0]["known"]
    elif change == "list":
        part = part["images"]
    return json.dumps(part)


@pytest.mark.parametrize("change", ["half", "fewer", "other", "size", "mask", "list"])
def test_damaged_parts(place: Path, source: SourceFiles, copied: Path, change: str) -> None:
    expected = contents(copied)
    file = copied / "part-00001.json"
    file.write_text(damage(file.read_text(), change))
    (copied / "part-00003.json").unlink()  # which would cost time
    teacher = ColorTeacher()
    with pytest.raises(StoreError, match=r"part-00001\.json is damaged: remove it and run"):
        teach([source], [place / "loose"], copied, teacher=teacher)
    assert teacher.prompts == []
    file.unlink()
    teach([source], [place / "loose"], copied, teacher=teacher)
    assert contents(copied) == expected


def test_folders_without_images(source: SourceFiles, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"there is no image in .*empty"):
        teach([source], [tmp_path / "empty"], tmp_path / "d")
    with pytest.raises(DataError, match=r"image folder .*gone does not exist"):
        image_files(tmp_path / "gone")
    with pytest.raises(DataError, match="there is no image to teach about"):
        teach([], [], tmp_path / "d")
    with pytest.raises(DataError, match="holds no images"):
        teach([source], [], tmp_path / "d", exclude=[tmp_path / "empty"])
    assert not (tmp_path / "d").exists()


def test_names_of_sources(
    source: SourceFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_names([source, replace(source, name=None, annotations=Path("a/b.json"))],
                        [Path("x/y"), Path("z/")]) == ["patches", "b", "y", "z"]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert source_names([], [Path()]) == [tmp_path.name]
    assert source_names([], [Path("a/..")]) == [tmp_path.name]
    with pytest.raises(ConfigError, match="two sources are named 'patches'"):
        source_names([source, source], [])
    with pytest.raises(ConfigError, match="two sources are named 'patches'"):
        teach([source], [Path("other/patches")], tmp_path / "d")
    with pytest.raises(ConfigError, match="the file of the parts of 'patches'"):
        source_names([source], [Path("patches-parts")])
    for name in ("../up", "a/b", ".hidden", ".."):
        with pytest.raises(ConfigError, match="go to a file of its name"):
            source_names([replace(source, name=name)], [])


# --- a store made of it -------------------------------------------------------------------------


def test_a_store_of_dense_masks(
    place: Path, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    """`data prepare` reads the files; images of both sources are on one side of the split."""
    dense = [
        SourceFiles(annotations=taught / "annotations" / f"{name}.json", images=images, name=name)
        for name, images in (("patches", source.images), ("loose", place / "loose"))
    ]
    config = StoreConfig(context=64, validation=0.5, views=("box",))
    made = prepare([source, *dense], tmp_path / "store", config, workers=1)
    assert made.problems == ()
    store = Store(tmp_path / "store", verify=True)
    assert store.source_names == ("dense-loose", "dense-patches", "patches")
    objects = np.bincount(store.records["source"])
    assert objects.tolist() == [3 * LOOSE, 2 * COUNT, COUNT]
    sides: dict[tuple[str, str], set[bool]] = {}
    for entry in store.image_entries:
        key = (entry["source"].removeprefix("dense-"), entry["file_name"])
        sides.setdefault(key, set()).add(entry["validation"])
    assert len(sides) == COUNT + LOOSE
    assert all(len(side) == 1 for side in sides.values())
    assert any(all(side) for side in sides.values())
    assert {image.source for image in store.held_out()} == {"patches"}
    evaluated = write_source(tmp_path, 3, start=COUNT, name="evaluated")
    images = read_coco(evaluated.annotations, evaluated.images).images
    leaks = check_leaks(images, training_images(store.path)).leaks
    assert [(leak.image, leak.stored) for leak in leaks] == [
        (f"{COUNT + n:03d}.png", f"dense-loose/{COUNT + n:03d}.png") for n in range(LOOSE)
    ]


def test_the_masks_of_two_teachers_do_not_go_into_one_store(
    source: SourceFiles, place: Path, taught: Path, tmp_path: Path
) -> None:
    other = teach([source], [], tmp_path / "other", teacher=ColorTeacher(key="other")).files
    first = SourceFiles(
        annotations=taught / "annotations" / "patches.json", images=source.images, name="first"
    )
    for write, config in (
        (prepare, StoreConfig(context=64)),
        (prepare_images, ImageStoreConfig()),
    ):
        with pytest.raises(
            ConfigError, match=r"000\.png \(source 'dense-patches'\): give the masks"
        ):
            write([source, first, *other], tmp_path / "store", config, workers=1)
        assert not list((tmp_path / "store").glob("*.json"))


def test_a_store_of_dense_masks_alone_has_nothing_to_measure_on(
    place: Path, taught: Path, tmp_path: Path
) -> None:
    loose = SourceFiles(
        annotations=taught / "annotations" / "loose.json", images=place / "loose", name="loose"
    )
    config = StoreConfig(context=64, validation=0.9, views=("box",))
    prepare([loose], tmp_path / "store", config, workers=1)
    store = Store(tmp_path / "store", verify=True)
    assert any(entry["validation"] for entry in store.image_entries)
    with pytest.raises(StoreError, match="keeps no images for validation to measure on"):
        store.held_out()


def test_training_images_are_not_the_drawings_of_masks_or_caches(
    place: Path, source: SourceFiles, copied: Path, tmp_path: Path
) -> None:
    write_dense_report(teach([source], [place / "loose"], copied), copied)
    with pytest.raises(DataError, match=r"dense holds dense masks: give the store that was"):
        training_images(copied)
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds a teacher's cache: give the store"):
        training_images(tmp_path)
