"""The crop store: images and annotations prepared once, memory-mapped by training ever after.

A store is a folder of shards. Each shard holds *views*: square context crops, wider than any window
that training cuts from them, with the object's mask as a fourth channel. A view belongs to one
instance and to one kind of prompt; `View` says how wide its context is. Images are split into train
and validation by what they show (`data.split`).

    store.json                  the plan: settings, sources with their hashes, a fingerprint
    shard-00000.crops.npy       (N, C, C, 4) uint8: R, G, B, mask coverage; see `data.crop_files`
    shard-00000.records.npy     (N,) of `RECORD`
    shard-00000.json            written last: count, SHA-256 of the files, images, problems
    validation/, validation.json  the validation images and their masks, in COCO's format
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2._files import sha256_file, write_bytes, write_json
from picosam2._progress import Progress
from picosam2._words import counted
from picosam2.data.coco import AnnotatedImage, Annotations, EntryProblem, Instance, read_coco
from picosam2.data.crop_files import (
    CROP_FORMATS,
    JPEG_BYTES_PER_PIXEL,
    CropFormat,
    CropReader,
    CropWriter,
    files_of,
    save_array,
)
from picosam2.data.datasets import read_annotations
from picosam2.data.held_out import held_out_images
from picosam2.data.split import dhash, split, spread
from picosam2.data.taught import check_taught_once
from picosam2.data.workers import LOCK, disk_errors, folder_lock
from picosam2.data.workers import workers as in_processes
from picosam2.errors import ConfigError, DataError, PicoSAM2Error, StoreError
from picosam2.geometry import Window
from picosam2.images import load_image
from picosam2.io.formats.objects import check_stated_size, reasons
from picosam2.prompts import Box, Point
from picosam2.runtimes.cpus import allowed_cpus

FORMAT = 1
BOX, CLICK = 0, 1
"""Kinds of prompt, in the order of the network's logit channels."""

RECORD = np.dtype(
    [
        ("instance", "<i8"),
        ("photo", "<i8"),  # image id of the annotation file
        ("source", "<i4"),  # index into Store.source_names
        ("view", "<i4"),  # index into Store.views
        ("validation", "?"),
        ("height", "<i4"),  # of the image
        ("width", "<i4"),
        ("area", "<f4"),  # of the mask, in pixels
        ("window", "<f8", (4,)),  # of the context: x0, y0, x1, y1 in image pixels
        ("point", "<f4", (2,)),  # the object's center point, x, y in image pixels
    ]
)
"""What is known of each view, beside its pixels."""

_UNFINISHED = re.compile(r"\.(store|shard-\d+(\.\w+)?|validation|\d{6})-")  # see `atomic_write`


@dataclass(frozen=True, kw_only=True)
class View:
    """How the context of one kind of view is placed. Half-sizes are in image pixels."""

    kind: int
    extent: float = 0.0
    """Context half-size as a multiple of the object's extent about its center or point."""
    least: float = 0.0
    """... but at least this fraction of the image's long side (clicks), or these pixels."""
    max_aspect: float = math.inf
    """Limit on the aspect of a box's context; 1 makes it square."""
    native: bool = False
    """The context keeps the image's own pixels, whatever the object's size."""

    def window(self, box: Box, point: Point, long_side: int, context: int) -> Window:
        """The context window of an object with this box and center point."""
        if self.native:
            return geometry.point_window(point, context / 2)
        if self.kind == BOX:
            return geometry.box_window(box, growth=self.extent, max_aspect=self.max_aspect)
        reach = max(point.x - box.x0, box.x1 - point.x, point.y - box.y0, box.y1 - point.y)
        return geometry.point_window(point, max(self.extent * reach, self.least * long_side))


VIEWS: dict[str, View] = {
    "box": View(kind=BOX, extent=1.8),
    "box-square": View(kind=BOX, extent=1.8, max_aspect=1.0),
    "click-near": View(kind=CLICK, extent=1.7, least=0.045),
    "click-far": View(kind=CLICK, extent=3.8, least=0.1),
    "native": View(kind=CLICK, native=True),
}
"""The views that a store may hold. `native` is the paper's: the image's own pixels."""


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """One annotation file and its images. `dataset` is coco or lvis."""

    annotations: Path
    images: Path
    dataset: str = "coco"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How a store is prepared."""

    views: tuple[str, ...] = ("box", "click-near", "click-far")
    """Views to cut for every object; see `VIEWS`."""
    context: int = 160
    """Side of the context crops in pixels; a window of 96 is cut from it."""
    validation: float = 0.1
    """Share of the images kept for validation, 0 to 0.9."""
    seed: int = 0
    """Seed of the split."""
    photos_per_shard: int = 128
    """Images in one shard."""
    crops: CropFormat = "raw"
    """How crops are kept: raw, or jpeg, which takes about a tenth of the disk."""
    limit: int = 0
    """Use only so many images, at even distances; 0: all."""

    def __post_init__(self) -> None:
        if not self.views or set(self.views) - set(VIEWS):
            raise ConfigError(f"`views` must be among {', '.join(VIEWS)}, not {self.views!r}")
        if not 32 <= self.context <= 1024:
            raise ConfigError("`context` must be from 32 to 1024 pixels")
        if not 0 <= self.validation <= 0.9:
            raise ConfigError("`validation` must be from 0 to 0.9")
        if self.photos_per_shard < 1:
            raise ConfigError("`photos_per_shard` must be at least 1")
        if self.crops not in CROP_FORMATS:
            raise ConfigError(f"`crops` must be {' or '.join(CROP_FORMATS)}, not {self.crops!r}")
        if self.limit < 0:
            raise ConfigError("`limit` must be 0 or more")

    def estimate(self, objects: int) -> int:
        """About how many bytes the crops of so many objects take."""
        pixel = 4 if self.crops == "raw" else JPEG_BYTES_PER_PIXEL
        return round(objects * len(self.views) * (self.context**2 * pixel + RECORD.itemsize))


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What `prepare` did. `instances` counts objects, `views` the crops made of them."""

    images: int
    instances: int
    views: int
    crowds: int
    reused_shards: int
    problems: tuple[EntryProblem, ...]


def prepare(
    sources: Sequence[SourceFiles],
    out: Path,
    config: StoreConfig | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[int, int], None] | None = None,
) -> PrepareResult:
    """Write the store of `sources` to the folder `out`, in parallel; finished shards are kept.

    Args:
        sources: the annotation files with their images.
        out: the store's folder.
        config: how it is prepared.
        workers: processes; by default as many as this process may use processors.
        progress: receives the number of images, each of which is read twice: to be split and to be
            cut.
        announce: called as `announce(objects, bytes)` before a crop is written, with an estimate
            of what they will take.

    An image or annotation that cannot be used is named in the result and in its shard's file, and
    the rest goes on.

    Raises:
        StoreError: `out` holds a store made from other settings or sources, another process writes
            it, or the disk has no room for it.
        DataError: a source cannot be read at all, or there is no object in any.
        ConfigError: two sources hold a teacher's masks of one image.
    """
    config = config or StoreConfig()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be a store's folder: {error.strerror}") from error
    with disk_errors(out), folder_lock(out):
        read = [read_annotations(s.dataset, s.annotations, s.images, s.name) for s in sources]
        check_taught_once(image for annotations in read for image in annotations.images)
        images = _limited(read, config.limit)
        if not images:
            problems = [problem for annotations in read for problem in annotations.problems]
            why = f": {reasons(problems)}" if problems else ""
            raise DataError(
                f"there is no image with an object to prepare{why}: check the annotation files"
            )
        objects = sum(len(image.instances) for image in images)
        names = sorted({image.source for image in images})
        plan = _plan(sources, config, names, len(images))
        _check_room(out, config.estimate(objects))
        _claim(out, plan)
        if announce:
            announce(objects, config.estimate(objects))
        return _prepare(read, images, out, config, plan, workers, progress)


def _limited(read: Sequence[Annotations], limit: int) -> list[AnnotatedImage]:
    """The images with an object, or `limit` of them."""
    images = [image for annotations in read for image in annotations.images if image.instances]
    return list(spread(images, limit))


def _check_room(out: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for."""
    there = sum(path.stat().st_size for path in out.glob("shard-*"))
    free = shutil.disk_usage(out).free
    if needed - there > free:
        raise StoreError(
            f"the crops would take about {needed / 1e9:,.1f} GB, and the disk of {out} has "
            f"{free / 1e9:,.1f} GB free: keep them as jpeg, limit the images, or choose another "
            "folder"
        )


def _prepare(
    read: Sequence[Annotations],
    images: Sequence[AnnotatedImage],
    out: Path,
    config: StoreConfig,
    plan: Mapping[str, Any],
    workers: int | None,
    progress: Progress | None,
) -> PrepareResult:
    names = plan["source_names"]
    parts = [
        (start, images[start : start + config.photos_per_shard])
        for start in range(0, len(images), config.photos_per_shard)
    ]
    counter = ProgressCounter(2 * len(images), progress)
    with in_processes(min(workers or allowed_cpus(), len(parts))) as in_parallel:
        hashes: list[int | None] = []
        for some in in_parallel(hash_images, [[p.path for p in part] for _, part in parts]):
            hashes += some
            counter.add(len(some))
        validation = split(hashes, config.seed, config.validation)
        jobs = [
            _Job(
                out=out,
                index=index,
                images=tuple(part),
                hashes=tuple(hashes[start : start + len(part)]),
                validation=tuple(validation[start : start + len(part)]),
                names=tuple(names),
                config=config,
            )
            for index, (start, part) in enumerate(parts)
        ]
        done = [job for job in jobs if job.finished()]
        waiting = [job for job in jobs if not job.finished()]
        counter.add(sum(len(job.images) for job in done))
        for count in in_parallel(_write_shard, waiting):
            counter.add(count)
    summaries = [_read_summary(job.summary) for job in jobs]
    held_out: list[AnnotatedImage] = []
    for job, summary in zip(jobs, summaries, strict=True):
        held_out += kept_for_validation(job.images, summary["photos"])
    digest = write_validation(out, held_out)
    write_json(out / "store.json", {**plan, "complete": True, "validation_sha256": digest})
    return PrepareResult(
        images=sum(len(s["photos"]) for s in summaries),
        instances=sum(s["instances"] for s in summaries),
        views=sum(s["count"] for s in summaries),
        crowds=sum(annotations.crowds for annotations in read),
        reused_shards=len(done),
        problems=_problems(read, summaries),
    )


def kept_for_validation(
    images: Sequence[AnnotatedImage], entries: Sequence[Mapping[str, Any]]
) -> Iterator[AnnotatedImage]:
    """The images of a shard that are kept for validation and could be used.

    Two images may share source, id and name, so they are known by their places.

    Args:
        images: all of the shard.
        entries: of those that could be used, in the same order, what the shard's summary says.
    """
    listed = iter(entries)
    entry = next(listed, None)
    for place, image in enumerate(images):
        if entry is None:
            return
        key = (image.source, image.id, image.path.name)
        # Shards of earlier versions do not say the place, but have the same order.
        same = key == (entry["source"], entry["id"], entry["file_name"])
        if same and entry.get("place", place) == place:
            if entry["validation"]:
                yield image
            entry = next(listed, None)


def _problems(read: Sequence[Annotations], summaries: Sequence[Any]) -> tuple[EntryProblem, ...]:
    problems = [problem for annotations in read for problem in annotations.problems]
    problems += [
        EntryProblem(**problem) for summary in summaries for problem in summary["problems"]
    ]
    return tuple(problems)


def _plan(
    sources: Sequence[SourceFiles], config: StoreConfig, names: Sequence[str], images: int
) -> dict[str, Any]:
    """What the store is made from. Paths are not part of it: a store may be moved."""
    settings = asdict(config)
    for name, usual in (("crops", "raw"), ("limit", 0)):  # as stores had it before there were these
        if settings[name] == usual:
            del settings[name]
    plan = {
        "format": FORMAT,
        **settings,
        "views": list(config.views),
        "view_settings": [_view_to_json(VIEWS[name]) for name in config.views],
        "annotations": [sha256_file(source.annotations) for source in sources],
        "source_names": list(names),
        "photos": images,
        "shards": -(-images // config.photos_per_shard),
    }
    return {**plan, "fingerprint": _fingerprint(plan), "complete": False}


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything that a store is made from, by its manifest."""
    later = ("fingerprint", "complete", "validation_sha256")
    plan = {key: value for key, value in manifest.items() if key not in later}
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _view_to_json(view: View) -> dict[str, Any]:
    """JSON has no infinity: no limit is written as null."""
    return {k: None if v == math.inf else v for k, v in asdict(view).items()}


def _view_from_json(value: Any) -> View:
    if not isinstance(value, dict):
        raise TypeError("the settings of a view")
    settings: dict[str, Any] = {k: math.inf if v is None else v for k, v in value.items()}
    return View(**settings)


def _claim(out: Path, plan: dict[str, Any]) -> None:
    """Mark `out` as this plan's store, or refuse if it is another's."""
    manifest = out / "store.json"
    for folder in (out, out / "validation"):
        for unfinished in folder.glob(".*"):  # of a run that was killed
            if _UNFINISHED.match(unfinished.name):
                unfinished.unlink()
    if manifest.exists():
        fingerprint = _read_manifest(manifest).get("fingerprint")
        if fingerprint != plan["fingerprint"]:
            raise StoreError(
                f"{out} holds a store made from other sources or settings: choose another folder, "
                "or remove it first"
            )
    elif any(path.name != LOCK for path in out.iterdir()):
        raise StoreError(f"{out} is not empty and holds no store: choose another folder")
    else:
        write_json(manifest, plan)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StoreError(
            f"{path.parent} is not a crop store: make one with `picosam2 data prepare`"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: remove the store and prepare it again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path} has another format: prepare the store again with this version")
    return manifest


_IMAGE = {"source": str, "id": int, "file_name": str, "dhash": str, "validation": bool}
"""What a shard's file says of each image."""


def _read_summary(path: Path) -> dict[str, Any]:
    """What a shard's JSON file says."""
    try:
        summary = json.loads(path.read_text())
        lengths = [len(summary[name]) for name in ("photos", "problems", "sha256")]
        if min(summary["count"], summary["instances"], *lengths) < 0:
            raise ValueError("a count is negative")
        for name in ("count", "instances"):
            if type(summary[name]) is not int:
                raise TypeError(f"its {name} is no whole number")
        for entry in summary["photos"]:
            for name, kind in _IMAGE.items():
                if type(entry[name]) is not kind:
                    raise TypeError(f"an image of it has no {name}")
        for problem in summary["problems"]:
            EntryProblem(**problem)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    checked: dict[str, Any] = summary
    return checked


def _damaged(summary: Path, reason: Exception) -> StoreError:
    return StoreError(
        f"{summary.stem} of the store {summary.parent} is damaged ({reason}): delete its "
        "files and run the same `data prepare` again"
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One shard to write."""

    out: Path
    index: int
    images: tuple[AnnotatedImage, ...]
    hashes: tuple[int | None, ...]
    """Of each image; None where it cannot be read."""
    validation: tuple[bool, ...]
    """Whether each image is kept for validation."""
    names: tuple[str, ...]
    config: StoreConfig

    @property
    def stem(self) -> Path:
        return self.out / f"shard-{self.index:05d}"

    def path(self, ending: str) -> Path:
        return self.stem.with_suffix(f".{ending}")

    @property
    def summary(self) -> Path:
        return self.path("json")

    def finished(self) -> bool:
        """The summary is written last, so its presence vouches for the arrays."""
        return self.summary.exists()


class ProgressCounter:
    """Adds up what is done and reports it."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self.add(0)

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def hash_images(paths: Sequence[Path]) -> list[int | None]:
    """The images' difference hashes; None for those that cannot be read."""
    hashes: list[int | None] = []
    for path in paths:
        try:
            hashes.append(dhash(load_image(path)))
        except PicoSAM2Error:
            hashes.append(None)  # named when its shard is written
    return hashes


def _write_shard(job: _Job) -> int:
    """Cut all views of a shard's images and write its three files, the summary last.

    Returns the number of images.
    """
    views = [VIEWS[name] for name in job.config.views]
    records: list[npt.NDArray[np.void]] = []
    entries: list[dict[str, Any]] = []
    problems: list[EntryProblem] = []
    instances = 0
    with CropWriter(job.stem, job.config.context, job.config.crops) as crops:
        each = zip(job.images, job.hashes, job.validation, strict=True)
        for place, (annotated, image_hash, kept) in enumerate(each):
            try:
                image = load_image(annotated.path)
                check_stated_size((annotated.height, annotated.width), image.shape[:2])
            except PicoSAM2Error as error:
                problems.append(EntryProblem(where=f"image {annotated.path.name}", what=str(error)))
                continue
            entries.append(
                {
                    "place": place,
                    "source": annotated.source,
                    "id": annotated.id,
                    "file_name": annotated.path.name,
                    "dhash": f"{image_hash or 0:016x}",
                    "validation": kept,
                }
            )
            for instance in annotated.instances:
                try:
                    mask = instance.mask()
                except PicoSAM2Error as error:
                    what = EntryProblem(where=f"annotation {instance.id}", what=str(error))
                    problems.append(what)
                    continue
                instances += 1
                for number, view in enumerate(views):
                    crop, window, point = _cut(image, mask, view, job.config.context)
                    crops.add(crop)
                    records.append(
                        _record(annotated, instance, mask, job, number, window, point, kept)
                    )
    table = np.array(records, RECORD) if records else np.zeros(0, RECORD)
    sums = crops.sha256 | {"records": save_array(job.path("records.npy"), table)}
    write_json(
        job.summary,
        {
            "count": len(table),
            "instances": instances,
            "sha256": sums,
            "photos": entries,
            "problems": [asdict(problem) for problem in problems],
        },
    )
    return len(job.images)


def _cut(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], view: View, context: int
) -> tuple[npt.NDArray[np.uint8], Window, Point]:
    """One context crop (C, C, 4) uint8 with its window and the object's center point."""
    bounds = masks.bbox(mask)
    assert bounds is not None, "Instance.mask() never gives an empty mask"
    point = masks.center_point(mask)
    window = view.window(Box(*bounds), point, max(mask.shape), context)
    crop = np.empty((context, context, 4), np.uint8)
    crop[..., :3] = geometry.crop(image, window, context)
    crop[..., 3] = np.rint(geometry.crop_mask(mask, window, context) * 255)
    return crop, window, point


def _record(
    annotated: AnnotatedImage,
    instance: Instance,
    mask: npt.NDArray[np.bool_],
    job: _Job,
    view: int,
    window: Window,
    point: Point,
    validation: bool,
) -> npt.NDArray[np.void]:
    record = np.zeros((), RECORD)
    record["instance"], record["photo"] = instance.id, annotated.id
    record["source"], record["view"] = job.names.index(annotated.source), view
    record["validation"] = validation
    record["height"], record["width"], record["area"] = *mask.shape, mask.sum()
    record["window"] = (window.x0, window.y0, window.x1, window.y1)
    record["point"] = (point.x, point.y)
    return record


def write_validation(out: Path, held_out: Sequence[AnnotatedImage]) -> str:
    """The validation images, copied, with a COCO file of their own: for measuring on whole images.

    Image and annotation ids are new, since two sources may use the same ones. Returns the file's
    SHA-256; it holds those of the images.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in held_out:
        image_id = len(images) + 1
        name = f"{image_id:06d}{image.path.suffix.lower()}"
        content = image.path.read_bytes()
        write_bytes(out / "validation" / name, content)
        images.append(
            {
                "id": image_id,
                "file_name": name,
                "width": image.width,
                "height": image.height,
                "source": image.source,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        for instance in image.instances:
            try:
                mask = instance.mask()
            except PicoSAM2Error:
                continue  # already named in its shard's problems
            x0, y0, x1, y1 = masks.bbox(mask) or (0, 0, 0, 0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(mask.sum()),
                    "segmentation": masks.rle_encode(mask),
                }
            )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    write_json(out / "validation.json", document, indent=None)
    return sha256_file(out / "validation.json")


class Store:
    """A prepared crop store, opened for reading.

    Attributes:
        records: (N,) of `RECORD`, every view of every shard.
        views: the `View` that each record's `view` is an index of; `view_names` their names.
        source_names: the source that each record's `source` is an index of.
        context: side of the crops, pixels.
        fingerprint: SHA-256 of everything the store is made from.
        ends: (shards,) int64, the row after the last of each shard.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = False) -> None:
        """Open the store at `path`; `verify` reads every byte and compares checksums.

        Raises:
            StoreError: missing, unfinished, damaged or of another format.
        """
        self.path = Path(path)
        manifest = _read_manifest(self.path / "store.json")
        if not manifest.get("complete"):
            raise StoreError(f"{self.path} is unfinished: run the same `data prepare` again")
        try:
            self.view_names: tuple[str, ...] = tuple(manifest["views"])
            self.views = tuple(_view_from_json(value) for value in manifest["view_settings"])
            self.source_names: tuple[str, ...] = tuple(manifest["source_names"])
            self.context = int(manifest["context"])
            self.fingerprint = str(manifest["fingerprint"])
            self._made_from: list[str] = list(manifest["annotations"])
            self._image_count = int(manifest["photos"])
            self._photos_per_shard = int(manifest["photos_per_shard"])
            self._limit = int(manifest.get("limit", 0))
            crops: CropFormat = manifest.get("crops", "raw")
            shards = int(manifest["shards"])
            changed = crops not in CROP_FORMATS or self.fingerprint != _fingerprint(manifest)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(
                f"{self.path / 'store.json'} lacks {error}: prepare it again"
            ) from error
        if changed:
            raise StoreError(
                f"{self.path / 'store.json'} was changed: its fingerprint is of other settings; "
                "prepare the store again"
            )
        self._crops = CropReader(self.context, crops)
        records = [self._open_shard(index, crops, verify) for index in range(shards)]
        self.records: npt.NDArray[np.void] = (
            np.concatenate(records) if records else np.zeros(0, RECORD)
        )
        self.ends = np.cumsum([len(table) for table in records], dtype=np.int64)
        if verify:
            self._check_validation(manifest.get("validation_sha256"))

    def _open_shard(self, index: int, crops: CropFormat, verify: bool) -> npt.NDArray[np.void]:
        """Take in the crops of a shard; its records."""
        stem = self.path / f"shard-{index:05d}"
        summary = _read_summary(stem.with_suffix(".json"))
        try:
            files = files_of(stem, crops) | {"records": stem.with_suffix(".records.npy")}
            if verify:
                for name, file in files.items():
                    if sha256_file(file) != summary["sha256"][name]:
                        raise ValueError("its checksum differs")
            self._crops.add_shard(stem, summary["count"])
            table: npt.NDArray[np.void] = np.load(files["records"], allow_pickle=False)
            if table.dtype != RECORD:
                raise ValueError("it holds other data")
            if table.shape != (summary["count"],):
                raise ValueError("its size differs")
            for name, known in (("view", self.views), ("source", self.source_names)):
                if not ((table[name] >= 0) & (table[name] < len(known))).all():
                    raise ValueError(f"it holds an unknown {name}")
            if not (np.isfinite(table["window"]).all() and np.isfinite(table["point"]).all()):
                raise ValueError("it holds a window without a place")
        except Exception as error:  # NumPy's reader of headers raises a dozen kinds
            raise _damaged(stem.with_suffix(".json"), error) from error
        return table

    def _check_validation(self, digest: str | None) -> None:
        """Compare what is kept for validation with the checksums; older stores have none."""
        held = sum(entry["validation"] for entry in self.image_entries)
        path = self.path / "validation.json"
        again = "remove it and run the same `data prepare` again"
        try:
            if digest is not None and sha256_file(path) != digest:
                raise ValueError("its checksum differs")
            images = json.loads(path.read_text())["images"]
            if len(images) != held:
                raise ValueError(f"it has {len(images)} images of {held}")
            for image in images:
                content = (self.path / "validation" / str(image["file_name"])).read_bytes()
                if image.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
                    raise ValueError(f"the checksum of {image['file_name']} differs")
            usable = len(read_coco(path, self.path / "validation").images)
            if usable != held:
                raise ValueError(f"{held - usable} of its images cannot be used")
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise StoreError(f"{path} is damaged ({error}): {again}") from error

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def kinds(self) -> npt.NDArray[np.int64]:
        """The kind of prompt of each view, (N,) int64: `BOX` or `CLICK`."""
        of_views = np.array([view.kind for view in self.views], np.int64)
        kinds: npt.NDArray[np.int64] = of_views[self.records["view"]]
        return kinds

    @cached_property
    def image_entries(self) -> list[dict[str, Any]]:
        """Source, id, file name, dhash and split of every image."""
        entries: list[dict[str, Any]] = []
        for summary in sorted(self.path.glob("shard-*.json")):
            entries += _read_summary(summary)["photos"]
        return entries

    def held_out(self) -> tuple[AnnotatedImage, ...]:
        """The images that are kept for validation and their objects, source by source.

        Raises:
            StoreError: the store keeps none; see `held_out_images`.
            DataError: what it keeps cannot be read.
        """
        held_out = any(entry["validation"] for entry in self.image_entries)
        if held_out and (images := held_out_images(self.path)):
            return images
        raise StoreError(
            f"{self.path} keeps no images for validation to measure on: prepare it with "
            "--validation 0.1"
        )

    def gather(
        self, rows: npt.NDArray[np.integer], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """The crops of `rows` (B,), copied to (B, C, C, 4) uint8 (into `out` if given)."""
        if out is None:
            out = np.empty((len(rows), self.context, self.context, 4), np.uint8)
        self._crops.gather(rows, out)
        return out

    def shard_images(self, sources: Sequence[SourceFiles]) -> list[tuple[AnnotatedImage, ...]]:
        """The images of each shard, with all their objects, read again from what it was made of.

        A store keeps no paths, so the annotation files are known by their hashes, in any order.

        Raises:
            StoreError: these are not the sources the store was made from.
            DataError: a source cannot be read at all.
        """
        unplaced = [(sha256_file(_file(source.annotations)), source) for source in sources]
        ordered: list[SourceFiles] = []
        for wanted in self._made_from:
            place = next((i for i, (other, _) in enumerate(unplaced) if other == wanted), None)
            if place is None:
                raise StoreError(
                    f"{self.path} was made from {counted(len(self._made_from), 'annotation file')}"
                    f", and the one with SHA-256 {wanted[:12]} is missing here: give the sources "
                    "that `data prepare` was given"
                )
            ordered.append(unplaced.pop(place)[1])
        if unplaced:
            raise StoreError(
                f"{self.path} was not made from {unplaced[0][1].annotations}: leave it"
            )
        read = [read_annotations(s.dataset, s.annotations, s.images, s.name) for s in ordered]
        images = _limited(read, self._limit)
        if len(images) != self._image_count:
            raise StoreError(
                f"{self.path} was made from {counted(self._image_count, 'image')}, and "
                f"{len(images):,} are here: check the image folders"
            )
        step = self._photos_per_shard
        return [tuple(images[start : start + step]) for start in range(0, len(images), step)]


def _file(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"there is no annotation file {path}: check the path")
    return path
