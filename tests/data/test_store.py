"""The crop store: what is cut, the split, resuming, and damage that must not go unnoticed."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.progress import Recorded
from helpers.tiny import HEIGHT, SMALL_STORE, WIDTH, annotation, make_store, scene, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from picosam2 import geometry, masks
from picosam2.data import crop_files
from picosam2.data import store as store_module
from picosam2.data.coco import read_coco
from picosam2.data.split import dhash
from picosam2.data.store import (
    BOX,
    CLICK,
    RECORD,
    VIEWS,
    SourceFiles,
    Store,
    StoreConfig,
    View,
    prepare,
)
from picosam2.data.workers import folder_lock, workers
from picosam2.errors import ConfigError, DataError, StoreError
from picosam2.geometry import Window
from picosam2.images import load_image
from picosam2.prompts import Box, Point

SCRIPT = Path(__file__).parents[1] / "helpers" / "prepare_slowly.py"
ALL_VIEWS = replace(SMALL_STORE, views=tuple(VIEWS))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the annotations and images of 8 objects, and their store. Not to be changed."""
    folder = tmp_path_factory.mktemp("kept")
    make_store(folder, 8, ALL_VIEWS)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be changed."""
    return Path(shutil.copytree(kept / "store", tmp_path / "store"))


# --- what is cut --------------------------------------------------------------------------------


def test_every_object_has_every_view_once(kept: Path) -> None:
    store = Store(kept / "store", verify=True)
    assert len(store) == 8 * len(VIEWS)
    assert store.view_names == tuple(VIEWS)
    assert store.views == tuple(VIEWS.values())
    assert store.source_names == ("shapes",)
    pairs = Counter(zip(store.records["instance"], store.records["view"], strict=True))
    assert set(pairs.values()) == {1}
    assert sorted(set(store.records["instance"])) == list(range(101, 109))
    assert store.records["photo"].tolist() == (store.records["instance"] - 100).tolist()


def test_a_view_is_the_geometrys_crop_of_its_window(kept: Path) -> None:
    store = Store(kept / "store")
    rows = np.arange(len(store))
    crops = store.gather(rows)
    assert crops.shape == (len(store), 64, 64, 4)
    for row, crop in zip(rows, crops, strict=True):
        record = store.records[row]
        image, mask = scene(int(record["instance"]) - 101)
        window = Window(*record["window"])
        np.testing.assert_array_equal(crop[..., :3], geometry.crop(image, window, 64))
        covered = geometry.crop_mask(mask, window, 64)
        np.testing.assert_allclose(crop[..., 3] / 255, covered, atol=1e-6)
        assert record["area"] == mask.sum()
        assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
        point = masks.center_point(mask)
        assert record["point"].tolist() == [point.x, point.y]


def test_the_windows_of_the_views(kept: Path) -> None:
    store = Store(kept / "store")
    for record in store.records:
        _, mask = scene(int(record["instance"]) - 101)
        box, point = Box(*(masks.bbox(mask) or ())), masks.center_point(mask)
        window = Window(*record["window"])
        name = store.view_names[record["view"]]
        if store.views[record["view"]].kind == BOX:
            assert window.center == pytest.approx((box.center.x, box.center.y))
            assert max(window.width, window.height) == pytest.approx(
                1.8 * max(box.width, box.height)
            )
        else:
            assert window.center == pytest.approx((point.x, point.y))
        if name == "box":
            assert window.height == pytest.approx(1.8 * box.height)
        else:
            assert window.width == pytest.approx(window.height)
        if name == "native":
            assert window.width == 64
        if name.startswith("click"):
            # The object fits, so that its whole mask is known.
            assert window.x0 < box.x0
            assert window.x1 > box.x1


def test_a_small_object_keeps_surroundings() -> None:
    box, point = Box(100, 100, 104, 104), Point(102, 102)
    near, far = (VIEWS[n].window(box, point, 640, 160) for n in ("click-near", "click-far"))
    assert near.width / 2 == pytest.approx(0.045 * 640)
    assert far.width / 2 == pytest.approx(0.1 * 640)
    large = Box(50, 60, 250, 160)
    assert VIEWS["click-near"].window(large, Point(200, 100), 640, 160).width == pytest.approx(
        2 * 1.7 * 150  # from a point off the middle the object reaches further
    )


def test_gather_takes_rows_in_any_order_and_into_a_given_array(kept: Path) -> None:
    store = Store(kept / "store")
    rows = np.array([17, 3, 3, 39, 0])
    out = np.zeros((5, 64, 64, 4), np.uint8)
    assert store.gather(rows, out) is out
    for crop, row in zip(out, rows, strict=True):
        np.testing.assert_array_equal(crop, store.gather(np.array([row]))[0])
    assert store.gather(np.array([], int)).shape == (0, 64, 64, 4)


def test_kinds_follow_the_views(kept: Path) -> None:
    store = Store(kept / "store")
    kinds = dict(zip(VIEWS, (BOX, BOX, CLICK, CLICK, CLICK), strict=True))
    for view, kind in zip(store.records["view"], store.kinds, strict=True):
        assert kind == kinds[store.view_names[view]]


# --- the split ----------------------------------------------------------------------------------


def test_the_split_is_by_image(kept: Path) -> None:
    store = Store(kept / "store")
    sides = {
        image: set(store.records["validation"][store.records["photo"] == image].tolist())
        for image in set(store.records["photo"].tolist())
    }
    assert all(len(side) == 1 for side in sides.values())
    kept_as = {image["id"]: image["validation"] for image in store.image_entries}
    assert kept_as == {image: side.pop() for image, side in sides.items()}


def textured(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image without flat parts, as real ones are, and a mask."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.BICUBIC))
    return image, scene(number, HEIGHT * 2, WIDTH * 2)[1]


def test_copies_of_an_image_fall_on_the_same_side(tmp_path: Path) -> None:
    """Two sources hold the same images under other names, sizes and JPEG qualities."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, scale, quality in ((first, 1, 95), (second, 2, 60)):
        folder.mkdir()
        entries: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        for number in range(24):
            image, mask = textured(number)
            size = (WIDTH * 2 // scale, HEIGHT * 2 // scale)
            pixels = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
            pixels.save(folder / f"{number}.jpg", quality=quality)
            mask = mask[::scale, ::scale]
            height, width = mask.shape
            entries["images"].append(
                {"id": number, "file_name": f"{number}.jpg", "height": height, "width": width}
            )
            entries["annotations"].append(annotation(number, number, mask))
        (folder / "a.json").write_text(json.dumps(entries))
    sources = [
        SourceFiles(annotations=f / "a.json", images=f, name=f.name) for f in (first, second)
    ]
    prepare(sources, tmp_path / "store", replace(SMALL_STORE, validation=0.5), workers=1)
    store = Store(tmp_path / "store")
    side = {(p["source"], p["id"]): p["validation"] for p in store.image_entries}
    assert len(side) == 48
    assert {side["a", n] for n in range(24)} == {True, False}
    hashes = {(p["source"], p["id"]): p["dhash"] for p in store.image_entries}
    assert any(hashes["a", n] != hashes["b", n] for n in range(24))  # near, not equal
    assert all(side["a", n] == side["b", n] for n in range(24))


def test_the_validation_images_are_a_data_set_of_their_own(kept: Path) -> None:
    store = Store(kept / "store")
    held = {image["id"] for image in store.image_entries if image["validation"]}
    annotated = read_coco(store.path / "validation.json", store.path / "validation")
    assert not annotated.problems
    assert len(annotated.images) == len(held) > 0
    numbers = sorted(image_id - 1 for image_id in held)
    for image, number in zip(annotated.images, numbers, strict=True):
        pixels, mask = scene(number)
        np.testing.assert_array_equal(load_image(image.path), pixels)
        assert image.source == "shapes"
        (instance,) = image.instances
        np.testing.assert_array_equal(instance.mask(), mask)


# --- preparing ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_parallel_gives_the_bytes_of_serial(kept: Path, tmp_path: Path) -> None:
    progress = Recorded()
    source = SourceFiles(
        annotations=kept / "shapes.json", images=kept / "shapes-images", name="shapes"
    )
    prepare(
        [source], tmp_path / "store", ALL_VIEWS, workers=2,
        progress=progress,
    )  # fmt: skip
    assert contents(tmp_path / "store") == contents(kept / "store")
    assert progress.counts == [
        (n, 16) for n in (0, 3, 6, 8, 8, 11, 14, 16)
    ]  # read to split, then to cut


def test_what_is_finished_is_kept_and_the_rest_comes_out_the_same(kept: Path, folder: Path) -> None:
    whole = contents(folder)
    (folder / "shard-00001.json").unlink()  # not vouched for: written again
    (folder / "shard-00002.json").unlink()
    (folder / "shard-00002.crops.npy").write_bytes(b"half")
    (folder / ".shard-00002.records-x1y2.npy").write_bytes(b"left by a kill")
    (folder / "validation" / ".000001-abc.png").write_bytes(b"left by a kill")
    first = (folder / "shard-00000.json").stat().st_mtime_ns
    source = SourceFiles(
        annotations=kept / "shapes.json", images=kept / "shapes-images", name="shapes"
    )
    done = prepare([source], folder, ALL_VIEWS, workers=1)
    assert contents(folder) == whole
    assert done.reused_shards == 1
    assert (done.images, done.instances, done.views) == (8, 8, 40)
    assert (folder / "shard-00000.json").stat().st_mtime_ns == first


@pytest.mark.slow
def test_killed_in_the_middle_then_resumed(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 8)
    out = tmp_path / "killed"
    command = [sys.executable, SCRIPT, source.annotations, source.images, out]
    killed = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(StoreError, match="unfinished: run the same"):
        Store(out)
    assert (out / "shard-00000.json").exists()
    assert not (out / "shard-00001.json").exists()
    done = prepare([source], out, SMALL_STORE, workers=1)
    assert done.reused_shards == 1
    prepare([source], tmp_path / "whole", SMALL_STORE, workers=1)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_in_plain_words() -> None:
    with pytest.raises(StoreError, match="fewer workers"), workers(2) as in_parallel:
        list(in_parallel(os._exit, [1, 1]))


def test_other_settings_or_sources_are_refused(kept: Path, folder: Path, tmp_path: Path) -> None:
    source = SourceFiles(
        annotations=kept / "shapes.json", images=kept / "shapes-images", name="shapes"
    )
    others = write_coco(tmp_path, 8, start=20)
    for given_source, config in (
        (source, replace(ALL_VIEWS, seed=1)),
        (source, replace(ALL_VIEWS, context=96)),
        (source, replace(ALL_VIEWS, views=("box",))),
        (source, replace(ALL_VIEWS, validation=0.5)),
        (others, ALL_VIEWS),
    ):
        with pytest.raises(StoreError, match="other sources or settings"):
            prepare([given_source], folder, config, workers=1)


def test_a_folder_that_is_not_a_store_is_left_alone(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not empty"):
        prepare([source], tmp_path / "full", SMALL_STORE, workers=1)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="cannot be a store's folder"):
        prepare([source], tmp_path / "file", SMALL_STORE, workers=1)


def test_a_store_can_be_moved(kept: Path, folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    assert Store(moved).fingerprint == Store(kept / "store").fingerprint


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    document = json.loads(source.annotations.read_text())
    size = [HEIGHT, WIDTH]
    base = {"image_id": 4, "category_id": 1, "iscrowd": 0, "area": 5, "bbox": [0, 0, 1, 1]}
    document["annotations"] += [
        {**base, "id": 900, "segmentation": {"size": size, "counts": [HEIGHT * WIDTH]}},
        {**base, "id": 901, "segmentation": {"size": size, "counts": "~~~~"}},
        {**base, "id": 902, "segmentation": [[1, 1, 2]]},
        {**base, "id": 903, "iscrowd": 1, "segmentation": {"size": size, "counts": [0, 50, 6862]}},
    ]
    source.annotations.write_text(json.dumps(document))
    images = source.images
    (images / "000.png").write_bytes((images / "000.png").read_bytes()[:200])  # truncated
    (images / "001.png").write_bytes(b"")
    Image.new("RGB", (10, 10)).save(images / "002.png")  # another size than stated
    done = prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    where = {problem.where: problem.what for problem in done.problems}
    assert {"image 000.png", "image 001.png", "image 002.png"} <= set(where)
    assert {"annotation 900", "annotation 901", "annotation 902"} <= set(where)
    assert where["image 002.png"].startswith("is 10x10 pixels, and the annotations are for 96x72")
    assert len(where) == 6
    assert done.crowds == 1
    assert (done.images, done.instances, done.views) == (3, 3, 9)
    store = Store(tmp_path / "store", verify=True)
    assert len(store) == 9
    assert len(store.image_entries) == 3
    assert set(store.records["instance"]) == {104, 105, 106}


def test_a_shard_without_a_usable_image(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    for number in range(3):
        (source.images / f"{number:03d}.png").write_bytes(b"no image")
    prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    store = Store(tmp_path / "store", verify=True)
    assert len(store) == 9
    assert store.gather(np.arange(9)).any()


def test_nothing_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "none.json").write_text('{"images": [], "annotations": [], "categories": []}')
    source = SourceFiles(annotations=tmp_path / "none.json", images=tmp_path / "images")
    with pytest.raises(DataError, match="no image with an object"):
        prepare([source], tmp_path / "store", SMALL_STORE, workers=1)


def test_sources_that_share_their_names_and_ids_stay_apart(tmp_path: Path) -> None:
    """Validation images come from the right folder though both sources call them the same."""
    first = write_coco(tmp_path / "a", 6, name="same")
    second = write_coco(tmp_path / "b", 6, start=50, name="same")
    document = json.loads(second.annotations.read_text())
    for number, entry in enumerate(document["images"]):
        entry["id"] = number + 1
        document["annotations"][number]["image_id"] = number + 1
    second.annotations.write_text(json.dumps(document))
    prepare([first, second], tmp_path / "store", replace(SMALL_STORE, validation=0.4), workers=1)
    store = Store(tmp_path / "store")
    held = {image["file_name"] for image in store.image_entries if image["validation"]}
    annotated = read_coco(store.path / "validation.json", store.path / "validation")
    assert len(annotated.images) == len(held)
    hashes = {image["dhash"] for image in store.image_entries if image["validation"]}
    assert {f"{dhash(load_image(image.path)):016x}" for image in annotated.images} == hashes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"views": ("box", "round")}, "`views` must be among"),
        ({"views": ()}, "`views`"),
        ({"context": 16}, "`context`"),
        ({"validation": 0.95}, "`validation`"),
        ({"validation": math.nan}, "`validation`"),
        ({"photos_per_shard": 0}, "`photos_per_shard`"),
    ],
)
def test_impossible_settings(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StoreConfig(**changes)


# --- damage -------------------------------------------------------------------------------------


def test_verifying_catches_a_single_flipped_bit(folder: Path) -> None:
    file = folder / "shard-00001.crops.npy"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    Store(folder)
    with pytest.raises(StoreError, match=r"shard-00001 .* checksum differs"):
        Store(folder, verify=True)


@pytest.mark.parametrize("name", ["crops.npy", "records.npy", "json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_damaged_shards_say_what_to_do(name: str, damage: str, folder: Path) -> None:
    file = folder / f"shard-00001.{name}"
    if damage == "missing":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-50])
    else:
        file.write_bytes(b"[1, 2]" if name == "json" else b"\x80\x04\x95 a pickle, or not")
    with pytest.raises(StoreError, match=r"shard-00001 .* damaged .* delete its files"):
        Store(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"view": 99}, {"view": -1}, {"source": 7},
    ],
)  # fmt: skip
def test_records_that_point_nowhere(change: dict[str, int], folder: Path) -> None:
    file = folder / "shard-00000.records.npy"
    table = np.load(file)
    for name, value in change.items():
        table[name][0] = value
    np.save(file, table)
    with pytest.raises(StoreError, match="it holds an unknown"):
        Store(folder)


def test_arrays_of_another_kind(folder: Path) -> None:
    for name, array in (
        ("crops", np.zeros((15, 64, 64, 4), np.float32)),
        ("crops", np.zeros((15, 64, 64, 3), np.uint8)),
        ("crops", np.zeros((14, 64, 64, 4), np.uint8)),
        ("crops", np.array([{"an": "object"}], dtype=object)),
        ("records", np.zeros(15, np.int64)),
        ("records", np.zeros(14, RECORD)),
    ):
        file = folder / f"shard-00000.{name}.npy"
        before = file.read_bytes()
        np.save(file, array, allow_pickle=True)
        with pytest.raises(StoreError, match="damaged"):
            Store(folder)
        file.write_bytes(before)
    Store(folder)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 127), value=st.integers(0, 255))
def test_no_header_crashes(kept: Path, at: int, value: int) -> None:
    """Any byte of an array's header may be wrong: it opens, or says that it is damaged."""
    file = kept / "store" / "shard-00000.records.npy"
    before = file.read_bytes()
    data = bytearray(before)
    data[at] = value
    file.write_bytes(data)
    try:
        Store(kept / "store")
    except StoreError:
        pass
    finally:
        file.write_bytes(before)


def test_a_shard_that_is_lost_while_the_store_is_open(folder: Path) -> None:
    store = Store(folder)
    file = folder / "shard-00001.crops.npy"
    rows = np.arange(len(store))
    os.truncate(file, file.stat().st_size - 10)
    with pytest.raises(StoreError, match="was cut short"):
        store.gather(rows)
    file.unlink()
    with pytest.raises(StoreError, match="cannot be read any more"):
        store.gather(rows)
    assert store.gather(rows[:15]).any()  # the first shard is as it was


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is not a crop store"),
        ("{", "cannot be read"),
        ("[]", "another format"),
        ('{"format": 99, "complete": true}', "another format"),
        ('{"format": 1, "complete": true}', "prepare it again"),
        ('{"format": 1, "complete": true, "views": 5}', "prepare it again"),
        ('{"format": 1}', "unfinished"),
    ],
)
def test_manifests(text: str | None, says: str, folder: Path) -> None:
    if text is None:
        (folder / "store.json").unlink()
    else:
        (folder / "store.json").write_text(text)
    with pytest.raises(StoreError, match=says):
        Store(folder)


def test_preparing_again_over_a_damaged_summary_says_so(kept: Path, folder: Path) -> None:
    (folder / "shard-00001.json").write_text("{")
    source = SourceFiles(
        annotations=kept / "shapes.json", images=kept / "shapes-images", name="shapes"
    )
    with pytest.raises(StoreError, match="shard-00001"):
        prepare([source], folder, ALL_VIEWS, workers=1)


def test_a_view_without_a_limit_survives_json(kept: Path) -> None:
    text = (kept / "store" / "store.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # no Infinity
    assert Store(kept / "store").views[0] == View(kind=BOX, extent=1.8, max_aspect=math.inf)


# --- compressed crops ---------------------------------------------------------------------------

JPEG = replace(SMALL_STORE, crops="jpeg")


def test_compressed_crops_keep_masks_exactly_and_colors_nearly(tmp_path: Path) -> None:
    raw = make_store(tmp_path / "raw", 6)
    small = make_store(tmp_path / "jpeg", 6, JPEG)
    np.testing.assert_array_equal(raw.records, small.records)
    assert raw.fingerprint != small.fingerprint
    rows = np.random.default_rng(0).permutation(len(raw))
    exact, close = raw.gather(rows), small.gather(rows)
    np.testing.assert_array_equal(exact[..., 3], close[..., 3])
    errors = np.abs(exact[..., :3].astype(int) - close[..., :3])
    assert 0 < errors.mean() < 3
    assert Store(small.path, verify=True).gather(rows[:1]).any()

    def size(store: Store) -> int:
        return sum(path.stat().st_size for path in store.path.glob("shard-*.crops.*"))

    assert size(small) < size(raw) / 3


def test_compressed_crops_come_out_the_same_in_parallel_and_resumed(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 8)
    prepare([source], tmp_path / "serial", JPEG, workers=1)
    prepare([source], tmp_path / "parallel", JPEG, workers=2)
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel")
    for name in ("json", "crops.bin"):
        (tmp_path / "parallel" / f"shard-00001.{name}").unlink()
    prepare([source], tmp_path / "parallel", JPEG, workers=1)
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel")


@pytest.mark.parametrize("name", ["crops.bin", "lengths.npy"])
@pytest.mark.parametrize("change", ["cut", "flip"])
def test_damage_to_compressed_crops_is_seen(tmp_path: Path, name: str, change: str) -> None:
    store = make_store(tmp_path, 6, JPEG)
    path = store.path / f"shard-00001.{name}"
    data = bytearray(path.read_bytes())
    if change == "cut":
        del data[-10:]
    else:
        data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        Store(store.path, verify=True)
    if change == "cut":
        with pytest.raises(StoreError, match="damaged"):
            Store(store.path)


def test_crops_that_do_not_decode(tmp_path: Path) -> None:
    store = make_store(tmp_path, 6, JPEG)
    path = store.path / "shard-00000.crops.bin"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(StoreError, match="is damaged: make it again"):
        Store(store.path).gather(np.arange(3))


def test_writing_crops_needs_no_memory_for_them(tmp_path: Path) -> None:
    crop = np.zeros((256, 256, 4), np.uint8)
    for crops in crop_files.CROP_FORMATS:
        tracemalloc.start()
        with crop_files.CropWriter(tmp_path / "shard-00000", 256, crops) as writer:
            for _ in range(200):  # 52 MB
                writer.add(crop)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8_000_000
        assert writer.count == 200


# --- before anything is written -----------------------------------------------------------------


def test_the_size_is_announced_and_a_disk_without_room_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_coco(tmp_path, 6)
    announced: list[tuple[int, int]] = []

    def announce(objects: int, size: int) -> None:
        announced.append((objects, size))

    done = prepare([source], tmp_path / "store", SMALL_STORE, workers=1, announce=announce)
    ((objects, size),) = announced
    written = sum(path.stat().st_size for path in (tmp_path / "store").glob("shard-*.npy"))
    assert objects == done.instances == 6
    assert size == pytest.approx(written, rel=0.02)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StoreError, match="free: keep them as jpeg"):
        prepare([source], tmp_path / "other", SMALL_STORE, workers=1)
    assert list((tmp_path / "other").iterdir()) == []
    prepare([source], tmp_path / "store", SMALL_STORE, workers=1)  # it is there already


def test_a_limit_takes_images_at_even_distances(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 8)
    config = replace(SMALL_STORE, limit=3, validation=0.0)
    done = prepare([source], tmp_path / "store", config, workers=1)
    assert done.images == 3
    store = Store(tmp_path / "store")
    assert [image["id"] for image in store.image_entries] == [1, 5, 8]
    shards = store.shard_images([source])
    assert [image.id for shard in shards for image in shard] == [1, 5, 8]
    with pytest.raises(StoreError, match="other sources or settings"):
        prepare([source], tmp_path / "store", replace(config, limit=4), workers=1)


def test_nothing_to_prepare_says_why(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    for path in source.images.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"'00\d.png' is missing .*\(and 5 like it\)"):
        prepare([source], tmp_path / "store", SMALL_STORE, workers=1)


def test_a_store_from_before_there_were_these_settings_is_known_again(kept: Path) -> None:
    manifest = json.loads((kept / "store" / "store.json").read_text())
    assert "crops" not in manifest
    assert "limit" not in manifest


# --- other processes, killed processes, a full disk ---------------------------------------------


def test_a_second_prepare_of_one_store_is_refused(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    (tmp_path / "store").mkdir()
    with (
        folder_lock(tmp_path / "store"),
        pytest.raises(StoreError, match="another process is preparing"),
    ):
        prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    assert not [path for path in (tmp_path / "store").iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.slow
def test_killed_with_workers_none_is_left_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 8)
    prepare([source], tmp_path / "whole", replace(SMALL_STORE, photos_per_shard=1), workers=1)
    script = Path(__file__).parents[1] / "helpers" / "prepare_killed.py"
    command = [sys.executable, script, source.annotations, source.images, tmp_path / "store"]
    killed = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, start_new_session=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    workers_of_it = [int(pid) for pid in killed.stdout.split()]
    assert len(workers_of_it) == 2
    until = time.monotonic() + 10
    while any(map(is_running, workers_of_it)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_running, workers_of_it))
    prepare([source], tmp_path / "store", replace(SMALL_STORE, photos_per_shard=1), workers=2)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(crop_files.CropWriter):
        def add(self, crop: np.ndarray) -> None:
            if self.count:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().add(crop)

    source = write_coco(tmp_path, 6)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "CropWriter", Full)
        with pytest.raises(StoreError, match=r"no room left on the disk of .* free some"):
            prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    assert not list((tmp_path / "store").glob(".*"))
    prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    Store(tmp_path / "store", verify=True)


# --- checking -----------------------------------------------------------------------------------


def change_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": 2}, {"fingerprint": None}, {"fingerprint": "0" * 64}, {"context": 63},
        {"views": ["box", "box-square", "click-near", "native", "click-far"]},
        {"source_names": ["other"]}, {"photos": 9}, {"seed": 1}, {"crops": "jpeg"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_manifest_that_was_changed_is_refused(changes: dict[str, Any], folder: Path) -> None:
    change_manifest(folder, **changes)
    with pytest.raises(StoreError, match="was changed"):
        Store(folder)


def test_other_settings_of_a_view_are_refused(folder: Path) -> None:
    manifest = json.loads((folder / "store.json").read_text())
    manifest["view_settings"][0]["extent"] = 2.0
    change_manifest(folder, view_settings=manifest["view_settings"])
    with pytest.raises(StoreError, match="was changed"):
        Store(folder)


@pytest.mark.parametrize("damage", ["cut", "edit", "gone", "photo", "no image", "old"])
def test_damage_to_what_is_kept_for_validation_is_seen(damage: str, folder: Path) -> None:
    Store(folder, verify=True)
    path = folder / "validation.json"
    image = next((folder / "validation").iterdir())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "edit":
        path.write_text(path.read_text().replace('"category_id": 1', '"category_id": 2', 1))
    elif damage == "gone":
        path.unlink()
    elif damage == "photo":
        data = bytearray(image.read_bytes())
        data[-1] ^= 1
        image.write_bytes(data)
    elif damage == "no image":
        image.unlink()
    else:  # a store of an earlier version has no checksum of it
        change_manifest(folder, validation_sha256=None)
        document = json.loads(path.read_text())
        document["images"].pop()
        path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"validation\.json is damaged"):
        Store(folder, verify=True)


def test_images_of_one_source_name_with_one_id_stay_on_their_sides(tmp_path: Path) -> None:
    """CVAT numbers every task from 1 and calls its frames alike."""
    sources = []
    for part, start in (("a", 0), ("b", 50), ("c", 90)):
        source = write_coco(tmp_path / part, 6, start=start, name="task")
        document = json.loads(source.annotations.read_text())
        renamed = tmp_path / part / "frames"
        renamed.mkdir()
        for number, entry in enumerate(document["images"]):
            shutil.copy(source.images / entry["file_name"], renamed / f"frame_{number:06d}.png")
            entry.update(id=number + 1, file_name=f"frame_{number:06d}.png")
            document["annotations"][number]["image_id"] = number + 1
        source.annotations.write_text(json.dumps(document))
        sources.append(SourceFiles(annotations=source.annotations, images=renamed, name="coco"))
    config = replace(SMALL_STORE, validation=0.4, photos_per_shard=4)
    prepare(sources, tmp_path / "store", config, workers=1)
    store = Store(tmp_path / "store", verify=True)
    sides = {side: {p["dhash"] for p in store.image_entries if p["validation"] is side}
             for side in (True, False)}  # fmt: skip
    measured = {f"{dhash(load_image(image.path)):016x}" for image in store.held_out()}
    assert measured == sides[True]
    assert len(measured) == len(store.held_out()) > 0
    assert not measured & sides[False]
