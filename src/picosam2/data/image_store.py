"""The image store: whole images and their masks, decoded once, memory-mapped by training after.

The crop store keeps what a fixed window sees. Windows that follow a mask and clicks cannot be known
before, so here whole images are kept, and any window is cut from them at full resolution.

    images.json                  the plan: settings, sources with their hashes, a fingerprint
    part-00000.pixels.npy        (N,) uint8: RGB images one after the other
    part-00000.masks.npy         (M,) uint8: compressed run-length encodings, one after the other
    part-00000.images.npy        of `IMAGE`
    part-00000.objects.npy       of `OBJECT`
    part-00000.json              written last: checksums, the images' names, problems
    validation/, validation.json  the validation images and their masks, in COCO's format
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2._files import sha256_file, write_json
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem
from picosam2.data.crop_files import save_array
from picosam2.data.datasets import read_annotations
from picosam2.data.held_out import held_out_images
from picosam2.data.split import split
from picosam2.data.store import (
    ProgressCounter,
    SourceFiles,
    hash_images,
    kept_for_validation,
    write_validation,
)
from picosam2.data.taught import check_taught_once
from picosam2.data.workers import workers as in_processes
from picosam2.errors import ConfigError, DataError, PicoSAM2Error, StoreError
from picosam2.images import load_image
from picosam2.runtimes.cpus import allowed_cpus

FORMAT = 1

IMAGE = np.dtype(
    [
        ("id", "<i8"),  # image id of the annotation file
        ("source", "<i4"),  # index into ImageStore.source_names
        ("validation", "?"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("start", "<i8"),  # of its pixels in the part's file
    ]
)
OBJECT = np.dtype(
    [
        ("id", "<i8"),  # of the annotation
        ("image", "<i8"),  # index into the part's images; into the store's, once it is open
        ("area", "<i8"),  # of the mask, in pixels
        ("box", "<i4", (4,)),  # tight: x0, y0, x1, y1 in pixels
        ("start", "<i8"),  # of its encoding in the part's file
        ("length", "<i4"),
    ]
)
_ARRAYS = ("pixels", "masks", "images", "objects")


@dataclass(frozen=True, kw_only=True)
class ImageStoreConfig:
    """How an image store is prepared."""

    validation: float = 0.1
    """Share of the images kept for validation, 0 to 0.9; the same rule as the crop store's."""
    seed: int = 0
    """Seed of the split."""
    images_per_part: int = 256
    """Images in one part."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation <= 0.9:
            raise ConfigError("`validation` must be from 0 to 0.9")
        if self.images_per_part < 1:
            raise ConfigError("`images_per_part` must be at least 1")


def prepare_images(
    sources: Sequence[SourceFiles],
    out: Path,
    config: ImageStoreConfig | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[EntryProblem, ...]:
    """Write the image store of `sources` to the folder `out`; finished parts are kept.

    Args:
        progress: called as `progress(done, total)`, in images, each of which is read twice.

    Returns:
        What could not be used; the rest goes on without it.

    Raises:
        StoreError: `out` holds something else, or a store of other sources or settings.
        DataError: a source cannot be read at all, or there is no object in any.
        ConfigError: two sources hold a teacher's masks of one image.
    """
    config = config or ImageStoreConfig()
    read = [read_annotations(s.dataset, s.annotations, s.images, s.name) for s in sources]
    images = [image for annotations in read for image in annotations.images if image.instances]
    check_taught_once(images)
    if not images:
        raise DataError("there is no image with an object to prepare: check the annotation files")
    names = sorted({image.source for image in images})
    plan: dict[str, Any] = {
        "format": FORMAT, **asdict(config), "source_names": names, "images": len(images),
        "annotations": [sha256_file(source.annotations) for source in sources],
        "parts": -(-len(images) // config.images_per_part),
    }  # fmt: skip
    plan["fingerprint"] = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    _claim(out, plan)
    starts = range(0, len(images), config.images_per_part)
    groups = [images[start : start + config.images_per_part] for start in starts]
    counter = ProgressCounter(2 * len(images), progress)
    with in_processes(min(workers or allowed_cpus(), len(groups))) as in_parallel:
        hashes: list[int | None] = []
        for some in in_parallel(hash_images, [[i.path for i in group] for group in groups]):
            hashes += some
            counter.add(len(some))
        kept = split(hashes, config.seed, config.validation)
        jobs = [
            _Job(out / f"part-{index:05d}", tuple(group), tuple(hashes[start : start + len(group)]),
                 tuple(kept[start : start + len(group)]), tuple(names))
            for index, (start, group) in enumerate(zip(starts, groups, strict=True))
        ]  # fmt: skip
        waiting = [job for job in jobs if not job.summary.exists()]
        counter.add(sum(len(job.images) for job in jobs if job.summary.exists()))
        for count in in_parallel(_write_part, waiting):
            counter.add(count)
    summaries = [_summary(job.summary) for job in jobs]
    held_out: list[AnnotatedImage] = []
    for job, summary in zip(jobs, summaries, strict=True):
        held_out += kept_for_validation(job.images, summary["images"])
    write_validation(out, held_out)
    write_json(out / "images.json", {**plan, "complete": True})
    problems = [problem for annotations in read for problem in annotations.problems]
    for summary in summaries:
        problems += [EntryProblem(**problem) for problem in summary["problems"]]
    return tuple(problems)


def _claim(out: Path, plan: dict[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be a store's folder: {error.strerror}") from error
    manifest = out / "images.json"
    if manifest.exists():
        if _manifest(manifest).get("fingerprint") != plan["fingerprint"]:
            raise StoreError(
                f"{out} holds an image store made from other sources or settings: choose another "
                "folder, or remove it first"
            )
    elif any(out.iterdir()):
        raise StoreError(f"{out} is not empty and holds no image store: choose another folder")
    else:
        write_json(manifest, {**plan, "complete": False})


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StoreError(
            f"{path.parent} is not an image store: make one with `picosam2 data images`"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: remove the store and prepare it again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path} has another format: prepare the store again with this version")
    return manifest


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
        if not all(isinstance(summary[key], list) for key in ("images", "problems")):
            raise ValueError("it lacks its lists")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    return summary


def _damaged(path: Path, reason: Exception) -> StoreError:
    return StoreError(
        f"{path.stem} of the image store {path.parent} is damaged ({reason}): delete its files "
        "and run the same command again"
    )


@dataclass(frozen=True)
class _Job:
    """One part to write."""

    stem: Path
    images: tuple[AnnotatedImage, ...]
    hashes: tuple[int | None, ...]
    """Of each image; None where it cannot be read."""
    validation: tuple[bool, ...]
    names: tuple[str, ...]

    @property
    def summary(self) -> Path:
        """Written last, so its presence vouches for the arrays."""
        return self.stem.with_suffix(".json")


def _write_part(job: _Job) -> int:
    """Decode a part's images and masks and write its files; the number of its images."""
    pixels: list[npt.NDArray[np.uint8]] = []
    encodings: list[bytes] = []
    images: list[tuple[Any, ...]] = []
    objects: list[tuple[Any, ...]] = []
    names: list[dict[str, Any]] = []
    problems: list[dict[str, str]] = []
    at = written = 0
    planned = zip(job.images, job.hashes, job.validation, strict=True)
    for place, (image, image_hash, kept) in enumerate(planned):
        try:
            decoded = load_image(image.path)
            if decoded.shape[:2] != (image.height, image.width):
                height, width = decoded.shape[:2]
                raise StoreError(f"is {width}x{height}, not {image.width}x{image.height} as stated")
        except PicoSAM2Error as error:
            problems.append({"where": f"image {image.path.name}", "what": str(error)})
            continue
        for instance in image.instances:
            try:
                mask = instance.mask()
            except PicoSAM2Error as error:
                problems.append({"where": f"annotation {instance.id}", "what": str(error)})
                continue
            encoded = masks.rle_encode(mask)["counts"].encode("ascii")
            objects.append(
                (instance.id, len(images), int(mask.sum()), masks.bbox(mask), written, len(encoded))
            )
            encodings.append(encoded)
            written += len(encoded)
        images.append((image.id, job.names.index(image.source), kept, *decoded.shape[:2], at))
        names.append(
            {
                "place": place, "source": image.source, "id": image.id,
                "file_name": image.path.name,
                "dhash": f"{image_hash or 0:016x}", "validation": kept,
            }
        )  # fmt: skip
        pixels.append(decoded.ravel())
        at += decoded.size
    nothing = np.zeros(0, np.uint8)
    arrays: dict[str, npt.NDArray[Any]] = {
        "pixels": np.concatenate(pixels) if pixels else nothing,
        "masks": np.frombuffer(b"".join(encodings), np.uint8),
        "images": np.array(images, IMAGE),
        "objects": np.array(objects, OBJECT),
    }
    sums = {name: save_array(job.stem.with_suffix(f".{name}.npy"), arrays[name]) for name in arrays}
    write_json(job.summary, {"sha256": sums, "images": names, "problems": problems})
    return len(job.images)


class ImageStore:
    """A prepared image store, opened for reading.

    Attributes:
        images: (N,) of `IMAGE`.
        objects: (M,) of `OBJECT`; `image` indexes `images`.
        source_names: the source that each image's `source` is an index of.
        fingerprint: SHA-256 of everything that the store is made from.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = False) -> None:
        """Open the store at `path`; `verify` reads every byte and compares checksums.

        Raises:
            StoreError: missing, unfinished, damaged or of another format.
        """
        self.path = Path(path)
        manifest = _manifest(self.path / "images.json")
        if not manifest.get("complete"):
            raise StoreError(f"{self.path} is unfinished: prepare it again, it goes on")
        try:
            self.source_names: tuple[str, ...] = tuple(manifest["source_names"])
            self.fingerprint = str(manifest["fingerprint"])
            parts = int(manifest["parts"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self.path / 'images.json'} lacks {error}: prepare again") from error
        self._pixels: list[npt.NDArray[np.uint8]] = []
        self._masks: list[npt.NDArray[np.uint8]] = []
        images: list[npt.NDArray[np.void]] = []
        objects: list[npt.NDArray[np.void]] = []
        parts_of_images: list[npt.NDArray[np.int64]] = []
        parts_of_objects: list[npt.NDArray[np.int64]] = []
        for part in range(parts):
            arrays = self._open(part, verify)
            arrays["objects"]["image"] += sum(map(len, images))
            self._pixels.append(arrays["pixels"])
            self._masks.append(arrays["masks"])
            images.append(arrays["images"])
            objects.append(arrays["objects"])
            parts_of_images.append(np.full(len(images[-1]), part))
            parts_of_objects.append(np.full(len(objects[-1]), part))
        self.images: npt.NDArray[np.void] = np.concatenate(images)
        self.objects: npt.NDArray[np.void] = np.concatenate(objects)
        self._part_of_image = np.concatenate(parts_of_images)
        self._part_of_object = np.concatenate(parts_of_objects)

    def _open(self, part: int, verify: bool) -> dict[str, npt.NDArray[Any]]:
        stem = self.path / f"part-{part:05d}"
        summary = _summary(stem.with_suffix(".json"))
        try:
            files = {name: stem.with_suffix(f".{name}.npy") for name in _ARRAYS}
            if verify:
                for name, file in files.items():
                    if sha256_file(file) != summary["sha256"][name]:
                        raise ValueError(f"the checksum of its {name} differs")
            arrays = {
                name: np.load(
                    file, mmap_mode="r" if name in ("pixels", "masks") else None, allow_pickle=False
                )
                for name, file in files.items()
            }
            images, objects = arrays["images"], arrays["objects"]
            if images.dtype != IMAGE or objects.dtype != OBJECT:
                raise ValueError("it holds other data")
            ends = images["start"] + 3 * images["height"].astype(np.int64) * images["width"]
            if len(images) and (ends.max() > arrays["pixels"].size or images["start"].min() < 0):
                raise ValueError("its pixels were cut short")
            ends = objects["start"] + objects["length"]
            if len(objects) and (ends.max() > arrays["masks"].size or objects["start"].min() < 0):
                raise ValueError("its masks were cut short")
            if len(objects) and not 0 <= objects["image"].min() <= objects["image"].max() < len(
                images
            ):
                raise ValueError("an object of it has no image")
        except Exception as error:  # NumPy's reader of headers raises a dozen kinds
            raise _damaged(stem.with_suffix(".json"), error) from error
        return arrays

    def __len__(self) -> int:
        return len(self.objects)

    @cached_property
    def image_entries(self) -> list[dict[str, Any]]:
        """Source, id, file name, dhash and split of every image, in order."""
        entries: list[dict[str, Any]] = []
        for summary in sorted(self.path.glob("part-*.json")):
            entries += _summary(summary)["images"]
        return entries

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """One image, (H, W, 3) RGB uint8, read-only."""
        record = self.images[index]
        height, width, start = (int(record[name]) for name in ("height", "width", "start"))
        flat: npt.NDArray[np.uint8] = self._pixels[self._part_of_image[index]][
            start : start + 3 * height * width
        ]
        return flat.reshape(height, width, 3)

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """The mask of one object, (H, W) bool."""
        record = self.objects[index]
        image = self.images[record["image"]]
        start, length = int(record["start"]), int(record["length"])
        counts = self._masks[self._part_of_object[index]][start : start + length].tobytes()
        return masks.rle_decode(
            {"size": [int(image["height"]), int(image["width"])], "counts": counts}
        )

    def held_out(self) -> tuple[AnnotatedImage, ...]:
        """The images that are kept for validation and their objects, source by source.

        Raises:
            StoreError: the store keeps none; see `held_out_images`.
            DataError: what it keeps cannot be read.
        """
        if self.images["validation"].any() and (images := held_out_images(self.path)):
            return images
        raise StoreError(
            f"{self.path} keeps no images for validation to measure on: prepare it with "
            "--validation 0.1"
        )
