"""The image store: images and masks as they were, resuming, and damage that must not pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.progress import Recorded
from helpers.tiny import scene, write_coco
from PIL import Image

from picosam2.data.coco import read_coco
from picosam2.data.image_store import ImageStore, ImageStoreConfig, prepare_images
from picosam2.data.store import SourceFiles
from picosam2.errors import ConfigError, StoreError
from picosam2.evaluation.leak_check import check_leaks
from picosam2.images import load_image

CONFIG = ImageStoreConfig(validation=0.3, images_per_part=3)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[SourceFiles]:
    folder = tmp_path_factory.mktemp("images")
    return [write_coco(folder, 5), write_coco(folder, 3, start=20, name="others")]


@pytest.fixture(scope="module")
def kept(sources: list[SourceFiles], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is not to be changed."""
    out = tmp_path_factory.mktemp("store")
    prepare_images(sources, out, CONFIG, workers=1)
    return out


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be changed."""
    return Path(shutil.copytree(kept, tmp_path / "store"))


def test_images_and_masks_come_back_as_they_were(kept: Path) -> None:
    store = ImageStore(kept, verify=True)
    assert store.source_names == ("others", "shapes")
    assert len(store) == len(store.images) == 8
    for row, number in enumerate([0, 1, 2, 3, 4, 20, 21, 22]):
        image, mask = scene(number)
        record = store.objects[row]
        assert np.array_equal(store.image(int(record["image"])), image)
        assert np.array_equal(store.mask(row), mask)
        assert record["area"] == mask.sum()
        assert record["id"] == number + 101
        assert store.image_entries[row]["file_name"] == f"{number:03d}.png"
        source = store.source_names[store.images[record["image"]]["source"]]
        assert source == ("others" if number >= 20 else "shapes")


def test_validation_images_are_kept_as_coco_too(kept: Path) -> None:
    store = ImageStore(kept)
    held = store.held_out()
    assert 0 < len(held) == store.images["validation"].sum() < 8
    numbers = np.flatnonzero(store.images["validation"])
    for image, number in zip(held, numbers, strict=True):
        assert np.array_equal(image.instances[0].mask(), store.mask(int(number)))


def test_images_of_one_source_name_id_and_file_name_stay_on_their_sides(tmp_path: Path) -> None:
    """As of two exports of a label tool, which number their images anew."""
    sources = []
    for start in (0, 40):
        source = write_coco(tmp_path / str(start), 6, start=start)
        document = json.loads(source.annotations.read_text())
        for number, entry in enumerate(document["images"]):
            name = f"frame_{number:06d}.png"
            (source.images / entry["file_name"]).rename(source.images / name)
            entry["file_name"] = name
            annotation = document["annotations"][number]
            entry["id"] = annotation["image_id"] = annotation["id"] = number + 1
        source.annotations.write_text(json.dumps(document))
        sources.append(replace(source, name="coco"))
    prepare_images(sources, tmp_path / "store", CONFIG, workers=1)
    store = ImageStore(tmp_path / "store")
    numbers = np.flatnonzero(store.images["validation"])
    held = store.held_out()
    assert 0 < len(held) == len(numbers) < 12
    for image, number in zip(held, numbers, strict=True):
        assert np.array_equal(load_image(image.path), store.image(int(number)))


def test_evaluated_images_are_recognized(kept: Path, sources: list[SourceFiles]) -> None:
    images = read_coco(sources[0].annotations, sources[0].images).images
    assert len(check_leaks(images, ImageStore(kept)).leaks) == 5


def test_a_finished_part_is_kept_and_a_missing_one_made_again(
    folder: Path, sources: list[SourceFiles]
) -> None:
    before = (folder / "part-00000.pixels.npy").stat().st_mtime_ns
    (folder / "part-00001.json").unlink()
    progress = Recorded()
    prepare_images(sources, folder, CONFIG, workers=1, progress=progress)
    assert progress.counts[-1] == (16, 16)
    assert (folder / "part-00000.pixels.npy").stat().st_mtime_ns == before
    assert np.array_equal(ImageStore(folder, verify=True).image(4), scene(4)[0])


def test_an_image_that_cannot_be_used_is_named_and_left_out(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 4)
    Image.new("RGB", (10, 10)).save(source.images / "001.png")
    (source.images / "002.png").write_bytes(b"no image")
    problems = prepare_images([source], tmp_path / "store", CONFIG, workers=1)
    assert ["001.png" in problems[0].where, "002.png" in problems[1].where] == [True, True]
    assert "10x10" in problems[0].what
    assert ImageStore(tmp_path / "store").objects["id"].tolist() == [101, 104]


def test_another_store_is_not_written_over(folder: Path, sources: list[SourceFiles]) -> None:
    with pytest.raises(StoreError, match="other sources or settings"):
        prepare_images(sources[:1], folder, CONFIG, workers=1)
    (folder / "images.json").unlink()
    with pytest.raises(StoreError, match="not empty"):
        prepare_images(sources, folder, CONFIG, workers=1)


def test_an_unfinished_store_is_not_opened(folder: Path) -> None:
    manifest = json.loads((folder / "images.json").read_text())
    (folder / "images.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(StoreError, match="unfinished"):
        ImageStore(folder)
    (folder / "images.json").unlink()
    with pytest.raises(StoreError, match="not an image store"):
        ImageStore(folder)


@pytest.mark.parametrize("name", ["pixels", "masks"])
def test_short_files_are_damage(folder: Path, name: str) -> None:
    path = folder / f"part-00001.{name}.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(StoreError, match=r"part-00001 .* cut short"):
        ImageStore(folder)


def test_changed_bytes_are_damage(folder: Path) -> None:
    path = folder / "part-00000.pixels.npy"
    pixels = np.load(path)
    pixels[7] ^= 1
    np.save(path, pixels)
    ImageStore(folder)
    with pytest.raises(StoreError, match=r"part-00000 .* checksum of its pixels"):
        ImageStore(folder, verify=True)


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="validation"):
        ImageStoreConfig(validation=1.0)
    with pytest.raises(ConfigError, match="images_per_part"):
        ImageStoreConfig(images_per_part=0)
