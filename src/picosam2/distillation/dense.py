"""Masks of what nobody annotated: a teacher labels whole images by itself.

A finder proposes boxes, the teacher answers each of them in the image and in its mirror image, and
the masks that it is sure of, and that no annotation has, are kept. They are written in COCO's
format, so that `data prepare` makes a store of them as of any other annotations:

    dense.json                  the plan: teacher, finder, settings, sources, a fingerprint
    part-00000.json             the masks of some images; written last, whole or not at all
    annotations/SOURCE.json     the objects of a source, with a score each, when all are there
    annotations/SOURCE-parts.json   parts of objects, which lie in a larger mask
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2._files import write_json
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem
from picosam2.data.datasets import read_annotations
from picosam2.data.split import NEAR, dhash, in_validation
from picosam2.data.store import SourceFiles
from picosam2.data.workers import disk_errors
from picosam2.distillation.protocol import Target, Teacher, TeacherAnswer, fingerprint
from picosam2.errors import ConfigError, DataError, ImageError, PicoSAM2Error, StoreError
from picosam2.evaluation.leak_check import training_images
from picosam2.images import image_size, load_image
from picosam2.io.formats.objects import check_stated_size
from picosam2.io.paths import IMAGE_ENDINGS, files_below
from picosam2.masks import Region
from picosam2.masks.ops import iou_of_areas
from picosam2.prompts import Box
from picosam2.runtimes.finder import BoxFinder
from picosam2.tasks.finder import combined, find_boxes

FORMAT = 1

_TOGETHER = 32  # boxes that the teacher is asked about at once


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Which masks are looked for and kept. `ConfigError` if a value is impossible."""

    boxes: int = 48
    """So many boxes of the finder are looked at in an image, the best ones."""
    parts_from: float = 1.5
    """Where the image's long side is at least so many times the finder's view, the finder looks at
    parts of the image, too, in which small objects are larger."""
    confidence: float = 0.45
    """Masks of a lower confidence are left out, 0..1; see `DenseMask`."""
    agreement: float = 0.8
    """... and those whose IoU with the mask in the mirror image is lower, 0..1."""
    overlap: float = 0.7
    """Of masks with a higher IoU only the most confident is kept."""
    known: float = 0.5
    """Masks with a higher IoU with an annotated one are left out: the annotation is the truth."""
    inside: float = 0.8
    """A mask is a part of an object if this share of it lies in a larger mask."""
    least_area: int = 64
    """Masks of fewer pixels are left out ..."""
    largest_share: float = 0.95
    """... and those of a larger share of the image: they point at nothing."""
    images_per_part: int = 32
    """Images in a part: so much is lost at most when a run is killed."""

    def __post_init__(self) -> None:
        for name in ("confidence", "agreement", "overlap", "known", "inside", "largest_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be from 0 to 1, not {getattr(self, name):g}")
        if not self.parts_from > 0:
            raise ConfigError(f"`parts_from` must be above 0, not {self.parts_from:g}")
        for name in ("boxes", "least_area", "images_per_part"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class DenseMask:
    """A mask that the teacher is sure of."""

    region: Region
    """The mask on its part of the image."""
    confidence: float
    """0..1: how good the mask is if its box holds an object (the teacher's predicted IoU), times
    the square root of the finder's objectness, which says whether it does."""
    agreement: float
    """IoU of the masks in the image and in its mirror image, 0..1."""
    known: float
    """The highest IoU with an annotated mask, 0..1."""


def dense_masks(
    image: npt.NDArray[np.uint8],
    teacher: Teacher,
    finder: BoxFinder,
    config: DenseConfig,
    known: Sequence[Region] = (),
) -> list[DenseMask]:
    """What a teacher sees in an image (H, W, 3) RGB uint8, the most confident first.

    `known` are the masks that are annotated already; they are only compared. Answers with a number
    that is not finite are left out.
    """
    height, width = image.shape[:2]
    parts = max(height, width) >= config.parts_from * finder.input_size
    proposed = find_boxes(image, finder, most=config.boxes, parts=parts)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    seen: list[DenseMask] = []
    for start in range(0, len(proposed), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        corners = proposed.boxes[some].astype(float)
        turned = corners[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
        answers, mirrors = teacher(image, _targets(corners)), teacher(mirrored, _targets(turned))
        for answer, mirror, objectness in zip(
            answers, mirrors, proposed.objectness[some].tolist(), strict=True
        ):
            mean = _mean(answer, mirror, height, width)
            if mean is None:
                continue
            region, agreement, predicted = mean
            confidence = combined(objectness, predicted)
            if confidence < config.confidence or agreement < config.agreement:
                continue
            if config.least_area <= region.area <= config.largest_share * height * width:
                best = max((_iou(region, other) for other in known), default=0.0)
                seen.append(DenseMask(region, confidence, agreement, best))
    seen.sort(key=lambda mask: -mask.confidence)
    kept: list[DenseMask] = []
    for mask in seen:
        if not any(_iou(mask.region, other.region) > config.overlap for other in kept):
            kept.append(mask)
    return kept


def _targets(corners: npt.NDArray[np.float64]) -> list[Target]:
    boxes = [Box(*box) for box in corners.tolist()]
    return [Target(box=box, point=box.centre) for box in boxes]


def _mean(
    answer: TeacherAnswer, mirror: TeacherAnswer, height: int, width: int
) -> tuple[Region, float, float] | None:
    """The mask of the mean of two answers, the IoU of their masks, and their predicted IoU.

    None for an empty mask, and where a number is not finite.
    """
    predicted = (answer.predicted_iou + mirror.predicted_iou) / 2
    back = mirror.logits[:, ::-1]
    mean = (answer.logits + back) * np.float32(0.5)
    if not (math.isfinite(predicted) and np.isfinite(mean).all()):
        return None
    region = geometry.paste_region(mean, answer.window, height, width)
    tight = Region(region.x, region.y, region.mask).tight()
    if not tight.area:
        return None
    return tight, masks.iou(answer.logits > 0, back > 0), min(max(predicted, 0.0), 1.0)


def _iou(a: Region, b: Region) -> float:
    return iou_of_areas(a.overlap(b), a.area, b.area)


@dataclass(frozen=True, kw_only=True)
class DenseResult:
    """What `teach_dense` did."""

    images: int
    """Images with at least one new mask, in all parts."""
    masks: int
    """New masks in all parts."""
    written: int
    """Parts written now."""
    kept: int
    """Parts that were there already."""
    files: tuple[Path, ...]
    """The annotation files; none as long as another process has a part in work."""
    curve: tuple[ConfidenceBin, ...]
    """How good masks were by their confidence, on held-out images; see `confidence_curve`."""
    problems: tuple[EntryProblem, ...]
    """Images that were left out: they cannot be read, or belong to an evaluated set."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """Masks of about one confidence that are those of an annotated object."""

    low: float
    high: float
    """The confidence, from `low` to below `high`."""
    count: int
    confidence: float
    """Its mean."""
    iou: float
    """Mean IoU with the annotated masks, 0..1."""


def teach_dense(
    teacher: Teacher,
    finder: BoxFinder,
    sources: Sequence[SourceFiles],
    folders: Sequence[Path],
    out: Path,
    config: DenseConfig | None = None,
    *,
    finder_sha256: str = "",
    only: Sequence[str] = (),
    exclude: Sequence[Path] = (),
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> DenseResult:
    """Write the masks that a teacher is sure of, in whole images, to the folder `out`.

    Args:
        teacher: who is asked, by boxes.
        finder: proposes the boxes.
        sources: annotation files with their images. What is annotated is not taught again.
        folders: folders of images without annotations.
        out: the folder of the result; finished parts in it are kept.
        config: which masks are looked for and kept.
        finder_sha256: of the finder's weights, for the fingerprint.
        only: the sources of the images that are looked at: what an image's field `source` says, or
            else the name of its annotation file; empty for all.
        exclude: folders with the images of evaluated sets: an image that is in them, or looks like
            one of them, is left out.
        rank: this process writes the parts with these numbers, modulo `world`.
        world: number of processes. The one that finishes last writes the annotation files.
        progress: is called after every image.

    Raises:
        StoreError: `out` holds something else, or the disk is full.
        DataError: there is no image, or an annotation file cannot be read.
        ConfigError: two sources have the same name, or no image has a source of `only`.
    """
    config = config or DenseConfig()
    images = _images(sources, folders)
    if only:
        known = sorted({image.annotated.source for image in images})
        if unknown := set(only) - set(known):
            raise ConfigError(
                f"there is no image of the source {min(unknown)!r}; there are {', '.join(known)}"
            )
        images = [image for image in images if image.annotated.source in only]
    plan = _plan(teacher, finder_sha256, images, config)
    excluded = _hashes(exclude)
    with disk_errors(out):
        _claim(out, plan)
        size = config.images_per_part
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        mine = range(rank, len(parts), world)
        waiting = [index for index in mine if not _part(out, index).exists()]
        done = sum(len(parts[index]) for index in mine) - sum(len(parts[i]) for i in waiting)
        total = done + sum(len(parts[index]) for index in waiting)
        for index in waiting:
            entries = []
            for image in parts[index]:
                entries.append(_entry(image, teacher, finder, config, excluded))
                done += 1
                if progress:
                    progress(done, total)
            write_json(_part(out, index), {"images": entries}, indent=None)
        finished = all(_part(out, index).exists() for index in range(len(parts)))
        entries = [
            entry
            for index in range(len(parts))
            if _part(out, index).exists()
            for entry in _read_part(out, index, len(parts[index]))
        ]
        files = _write_annotations(out, images, entries, config) if finished else ()
    counts = [len(_new(entry, config)) for entry in entries]
    return DenseResult(
        images=sum(count > 0 for count in counts),
        masks=sum(counts),
        written=len(waiting),
        kept=len(mine) - len(waiting),
        files=files,
        curve=confidence_curve(entries, config),
        problems=tuple(
            EntryProblem(where=f"image {entry['file_name']}", what=entry["problem"])
            for entry in entries
            if entry["problem"]
        ),
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """An image to label, and where its masks are written."""

    annotated: AnnotatedImage
    file_name: str
    """Relative to the folder of its source's images."""
    source: str
    """The name of the annotation file that its masks go to."""


def _images(sources: Sequence[SourceFiles], folders: Sequence[Path]) -> list[_Image]:
    """All images, source by source, then folder by folder."""
    images: list[_Image] = []
    names = [s.name or s.annotations.stem for s in sources] + [f.name for f in folders]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"two sources are named {min(doubled)!r}, and their masks would go to one file: give "
            "them different names"
        )
    for source, name in zip(sources, names, strict=False):
        read = read_annotations(source.dataset, source.annotations, source.images, name)
        images += [
            _Image(each, each.path.relative_to(source.images).as_posix(), name)
            for each in read.images
        ]
    for folder, name in zip(folders, names[len(sources) :], strict=True):
        if not folder.is_dir():
            raise DataError(f"the image folder {folder} does not exist: check the path")
        below = {
            file: path
            for file, path in files_below(folder).items()
            if path.suffix.lower() in IMAGE_ENDINGS
        }
        if not below:
            raise DataError(f"there is no image in {folder}: pass a folder of images")
        for number, (file, path) in enumerate(below.items(), 1):
            try:
                height, width = image_size(path)
            except PicoSAM2Error:  # named when it is looked at
                height = width = 1
            unknown = AnnotatedImage(
                id=number, path=path, height=height, width=width, source=name, instances=()
            )
            images.append(_Image(unknown, file, name))
    if not images:
        raise DataError("there is no image to teach about: check the annotation files")
    return images


def _plan(
    teacher: Teacher, finder_sha256: str, images: Sequence[_Image], config: DenseConfig
) -> dict[str, Any]:
    """What the parts are made from. Names and paths are not part of its fingerprint."""
    listed = [
        [each.source, each.annotated.id, each.file_name, len(each.annotated.instances)]
        for each in images
    ]
    facts = {
        "format": FORMAT,
        "finder": finder_sha256,
        # What a part is, is decided when the annotations are written.
        "config": {key: value for key, value in asdict(config).items() if key != "inside"},
        "images": fingerprint(images=listed),
        "count": len(images),
    }
    about = {"name": teacher.name, "fingerprint": teacher.fingerprint, **teacher.settings}
    return {
        **facts,
        "fingerprint": fingerprint(teacher=teacher.fingerprint, **facts),
        "teacher": about,
    }


def _claim(out: Path, plan: Mapping[str, Any]) -> None:
    """Mark `out` as this plan's folder, or refuse if it is another's."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "dense.json"
    if not file.exists():
        if any(not path.name.startswith(".") for path in out.iterdir()):
            raise StoreError(f"{out} is not empty and holds no dense masks: choose another folder")
        write_json(file, plan)
        return
    try:
        existing = json.loads(file.read_text())["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be read: choose another folder, or remove it") from error
    if existing != plan["fingerprint"]:
        raise StoreError(
            f"{out} holds the masks of another teacher, of other images or with other settings: "
            "choose another folder, or remove it first"
        )


def _part(out: Path, index: int) -> Path:
    return out / f"part-{index:05d}.json"


def _read_part(out: Path, index: int, count: int) -> list[dict[str, Any]]:
    file = _part(out, index)
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text())["images"]
        if len(entries) == count:
            return entries
    except (ValueError, KeyError, TypeError):
        pass
    raise StoreError(f"{file} is damaged: remove it and run the same command again")


def _hashes(folders: Sequence[Path]) -> npt.NDArray[np.uint64]:
    """The perceptual hashes of all images in folders."""
    entries = [entry for folder in folders for entry in training_images(folder).image_entries]
    return np.array([int(entry["dhash"], 16) for entry in entries], np.uint64)


def _entry(
    image: _Image,
    teacher: Teacher,
    finder: BoxFinder,
    config: DenseConfig,
    excluded: npt.NDArray[np.uint64],
) -> dict[str, Any]:
    """What a part says of an image: its size, its masks, or why it was left out."""
    entry: dict[str, Any] = {"file_name": image.file_name, "masks": [], "problem": None}
    annotated = image.annotated
    try:
        pixels = load_image(annotated.path)
        height, width = pixels.shape[:2]
        image_hash = dhash(pixels)
        entry |= {"height": height, "width": width, "dhash": f"{image_hash:016x}"}
        if (np.bitwise_count(excluded ^ np.uint64(image_hash)) <= NEAR).any():
            raise DataError("shows what an image of an evaluated set shows: it is not taught from")
        if annotated.instances:
            check_stated_size((annotated.height, annotated.width), (height, width))
        known = [Region(0, 0, instance.mask()).tight() for instance in annotated.instances]
    except PicoSAM2Error as error:
        what = str(error)
        if isinstance(error, ImageError):
            what = what.removeprefix(f"{annotated.path} ")
        return {**entry, "problem": what}
    entry["masks"] = [
        {
            "counts": masks.rle_encode(mask.region.on_image(height, width))["counts"],
            "confidence": round(mask.confidence, 4),
            "agreement": round(mask.agreement, 4),
            "known": round(mask.known, 4),
        }
        for mask in dense_masks(pixels, teacher, finder, config, known)
    ]
    return entry


def _new(entry: Mapping[str, Any], config: DenseConfig) -> list[dict[str, Any]]:
    """The masks of an image that no annotation has."""
    return [mask for mask in entry["masks"] if mask["known"] <= config.known]


def _write_annotations(
    out: Path,
    images: Sequence[_Image],
    entries: Sequence[Mapping[str, Any]],
    config: DenseConfig,
) -> tuple[Path, ...]:
    """Files in COCO's format: for each source one of whole objects and one of parts of objects."""
    by_name: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for image, entry in zip(images, entries, strict=True):
        new = _new(entry, config)
        if not new:
            continue
        height, width = entry["height"], entry["width"]
        regions = [_region(mask["counts"], height, width) for mask in new]
        known = [Region(0, 0, each.mask()).tight() for each in image.annotated.instances]
        for mask, region in zip(new, regions, strict=True):
            part = _is_part(region, [*known, *regions], config.inside)
            name = f"{image.source}-parts" if part else image.source
            document = by_name.setdefault(name, {"images": [], "annotations": []})
            listed = document["images"]
            if not listed or listed[-1]["id"] != image.annotated.id:
                kind = "dense-parts" if part else "dense"
                listed.append(
                    {
                        "id": image.annotated.id,
                        "file_name": image.file_name,
                        "height": height,
                        "width": width,
                        "source": f"{kind}-{image.annotated.source}",
                    }
                )
            rows, columns = region.mask.shape
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image.annotated.id,
                    "category_id": 1,
                    "segmentation": {"size": [height, width], "counts": mask["counts"]},
                    "area": region.area,
                    "bbox": [region.x, region.y, columns, rows],
                    "iscrowd": 0,
                    "score": mask["confidence"],
                }
            )
    files = []
    for name, document in sorted(by_name.items()):
        file = out / "annotations" / f"{name}.json"
        categories = [{"id": 1, "name": "object"}]
        write_json(file, {**document, "categories": categories}, indent=None)
        files.append(file)
    return tuple(files)


def _region(counts: str, height: int, width: int) -> Region:
    return Region(0, 0, masks.rle_decode({"size": [height, width], "counts": counts})).tight()


def _is_part(region: Region, others: Sequence[Region], inside: float) -> bool:
    """Whether a mask lies in a larger one, but for a share of it."""
    area = region.area
    return any(
        other.area > area and region.overlap(other) >= inside * area
        for other in others
        if other is not region
    )


def confidence_curve(
    entries: Sequence[Mapping[str, Any]], config: DenseConfig, *, bins: int = 6
) -> tuple[ConfidenceBin, ...]:
    """IoU with annotated masks by confidence, on the images that stores keep for validation.

    A mask counts if it is that of an annotated object, with an IoU above `config.known`: of the
    others nobody knows how good they are.
    """
    pairs = np.array(
        [
            (mask["confidence"], mask["known"])
            for entry in entries
            if entry["masks"] and in_validation(int(entry["dhash"], 16), 0, 0.1)
            for mask in entry["masks"]
            if mask["known"] > config.known
        ]
    ).reshape(-1, 2)
    edges = np.linspace(config.confidence, 1, bins + 1)
    curve = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        some = pairs[(pairs[:, 0] >= low) & (pairs[:, 0] < high)]
        if len(some):
            confidence, iou = some.mean(0).tolist()
            curve.append(
                ConfidenceBin(low=low, high=high, count=len(some), confidence=confidence, iou=iou)
            )
    return tuple(curve)
