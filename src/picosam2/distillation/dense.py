"""A teacher labels what nobody annotated, in whole images, and its masks become annotation files.

They are written in COCO's format, so that `data prepare` makes a store of them as of any other
annotations; `dense_masks` says which masks are kept.

    dense.json                  the plan: teacher, finder, settings, images, a fingerprint
    part-00000.json             the masks of some images; written last, whole or not at all
    annotations/SOURCE.json     the new objects of a source, with scores, once every part is there
    annotations/SOURCE-parts.json   parts of objects, which lie in a larger mask
    confidence.png, masks.png   see `distillation.dense_report`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2._files import write_json
from picosam2._progress import Progress
from picosam2.data.coco import EntryProblem, Instance
from picosam2.data.datasets import read_annotations
from picosam2.data.detections import Detections
from picosam2.data.split import NEAR, dhash, in_validation
from picosam2.data.store import SourceFiles
from picosam2.data.taught import TAUGHT
from picosam2.data.workers import disk_errors
from picosam2.distillation.dense_masks import DenseConfig, dense_masks, propose
from picosam2.distillation.protocol import Teacher, fingerprint
from picosam2.distillation.teach import ImageCounter
from picosam2.errors import ConfigError, DataError, ImageError, PicoSAM2Error, StoreError
from picosam2.evaluation.leak_check import training_images
from picosam2.images import load_image
from picosam2.io.formats.objects import check_stated_size
from picosam2.io.paths import IMAGE_ENDINGS, files_below
from picosam2.masks import Region
from picosam2.runtimes.finder import BoxFinder

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """Masks of about one confidence that are those of an annotated object."""

    low: float
    high: float
    """The confidence, from `low` to below `high`; the last bin has its end, too."""
    count: int
    confidence: float
    """Its mean."""
    iou: float
    """Mean IoU with the annotated masks, 0..1."""


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
    """Parts of this process that were there already."""
    finished: bool
    """Every part is there, and the annotation files are written."""
    files: tuple[SourceFiles, ...]
    """The annotation files with their images, as `prepare` takes them, if it is finished."""
    curve: tuple[ConfidenceBin, ...]
    """How good masks were by their confidence, on held-out images; see `confidence_curve`."""
    problems: tuple[EntryProblem, ...]
    """What was left out: annotations and images that cannot be used, images of evaluated sets."""


def teach_dense(
    teacher: Teacher,
    finder: BoxFinder | Detections,
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

    An image file that several sources or folders have is labeled once, for the first of them, and
    what any of them has annotated is not taught again.

    Args:
        teacher: who is asked, by boxes.
        finder: proposes the boxes, or the boxes of another detector, with their scores as their
            objectness.
        sources: annotation files with their images.
        folders: folders of images without annotations.
        out: the folder of the result; finished parts in it are kept.
        config: which masks are looked for and kept.
        finder_sha256: of the finder's weights or the file of boxes, for the fingerprint.
        only: the sources of the images that are looked at: what an image's field `source` says, or
            else the name of its annotation file; empty for all.
        exclude: folders with the images of evaluated sets: an image that is in them, or looks like
            one of them, is left out.
        rank: this process writes the parts with these numbers, modulo `world`.
        world: number of processes. The one that finishes last writes the annotation files.
        progress: is called after every image.

    Raises:
        StoreError: `out` holds something else or a damaged part, or the disk is full.
        DataError: there is no image, or an annotation file cannot be read.
        ConfigError: a source has no name of its own that can be a file's, or no image has a source
            of `only`.
    """
    config = config or DenseConfig()
    images, problems = _images(sources, folders)
    if only:
        known = sorted({image.source for image in images})
        if unknown := set(only) - set(known):
            raise ConfigError(
                f"there is no image of the source {min(unknown)!r}; there are {', '.join(known)}"
            )
        images = [image for image in images if image.source in only]
    plan = _plan(teacher, finder_sha256, images, config)
    excluded = _hashes(exclude)
    size = config.images_per_part
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    with disk_errors(out):
        _claim(out, plan)
        mine = range(rank, len(parts), world)
        kept = [index for index in mine if _read_part(out, index, parts[index]) is not None]
        waiting = [index for index in mine if index not in kept]
        counter = ImageCounter(
            sum(len(parts[index]) for index in kept),
            sum(len(parts[index]) for index in waiting),
            progress,
        )
        for index in waiting:
            entries = []
            for image in parts[index]:
                entries.append(_entry(image, teacher, finder, config, excluded))
                counter.advance()
            write_json(_part(out, index), {"images": entries}, indent=None)
        read = [_read_part(out, index, part) for index, part in enumerate(parts)]
        finished = None not in read
        # Parts may be of a run that excluded less.
        entries = [_unless_excluded(entry, excluded) for part in read for entry in part or ()]
        files = _write_annotations(out, images, entries, config) if finished else ()
    counts = [len(_new(entry, config)) for entry in entries]
    problems += [
        EntryProblem(where=f"image {entry['file_name']}", what=entry["problem"])
        for entry in entries
        if entry["problem"]
    ]
    return DenseResult(
        images=sum(count > 0 for count in counts),
        masks=sum(counts),
        written=len(waiting),
        kept=len(kept),
        finished=finished,
        files=files,
        curve=confidence_curve(entries, config),
        problems=tuple(problems),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """An image to label, and where its masks are written."""

    id: int
    folder: Path
    """The folder of its source's images."""
    file_name: str
    """Relative to that."""
    file_source: str
    """The name of the annotation file that its masks go to."""
    source: str
    """What stores call its source."""
    instances: tuple[Instance, ...] = ()
    """What is annotated in it."""

    @property
    def path(self) -> Path:
        return self.folder / self.file_name


def source_names(sources: Sequence[SourceFiles], folders: Sequence[Path]) -> list[str]:
    """What the annotation files with the new masks are called: of each source, then each folder.

    Raises:
        ConfigError: two have the same name, or a name cannot be a file's.
    """
    names = [source.name or source.annotations.stem for source in sources]
    names += [
        folder.name if folder.name not in ("", "..") else folder.resolve().name
        for folder in folders
    ]
    for name in names:
        if not name or name.startswith(".") or Path(name).name != name:
            raise ConfigError(
                f"the masks of a source go to a file of its name, and {name!r} is none: choose "
                "another name, with --source NAME FILE DIR"
            )
        if f"{name}-parts" in names:
            raise ConfigError(
                f"a source is named as the file of the parts of {name!r}: rename one of the two, "
                "with --source NAME FILE DIR, or a folder by a link to it"
            )
        if names.count(name) > 1:
            raise ConfigError(
                f"two sources are named {name!r}, and their masks would go to one file: rename "
                "one, with --source NAME FILE DIR, or a folder by a link to it"
            )
    return names


def image_files(folder: Path) -> list[str]:
    """The images below a folder, as paths relative to it, in alphabetical order.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"the image folder {folder} does not exist: check the path")
    files = [
        name for name, path in files_below(folder).items() if path.suffix.lower() in IMAGE_ENDINGS
    ]
    if not files:
        raise DataError(f"there is no image in {folder}: pass a folder of images")
    return files


def _images(
    sources: Sequence[SourceFiles], folders: Sequence[Path]
) -> tuple[list[_Image], list[EntryProblem]]:
    """All images, source by source, then folder by folder, and what is left out of the sources."""
    names = source_names(sources, folders)
    images: dict[Path, _Image] = {}  # by their real paths
    problems: list[EntryProblem] = []

    def add(image: _Image) -> None:
        path = image.path.resolve()
        known = images.setdefault(path, image)
        if known is not image:
            images[path] = replace(known, instances=known.instances + image.instances)

    for source, name in zip(sources, names[: len(sources)], strict=True):
        read = read_annotations(source.dataset, source.annotations, source.images, name)
        problems += read.problems
        for each in read.images:
            file_name = each.path.relative_to(source.images).as_posix()
            add(_Image(id=each.id, folder=source.images, file_name=file_name, file_source=name,
                       source=each.source, instances=each.instances))  # fmt: skip
    for folder, name in zip(folders, names[len(sources) :], strict=True):
        for number, file_name in enumerate(image_files(folder), 1):
            add(_Image(id=number, folder=folder, file_name=file_name, file_source=name,
                       source=name))  # fmt: skip
    if not images:
        raise DataError("there is no image to teach about: check the annotation files")
    return list(images.values()), problems


def _plan(
    teacher: Teacher, finder_sha256: str, images: Sequence[_Image], config: DenseConfig
) -> dict[str, Any]:
    """What the parts are made from. Paths and the teacher's name are not in its fingerprint."""
    listed = [[each.file_source, each.id, each.file_name, len(each.instances)] for each in images]
    facts = {
        "format": FORMAT,
        "finder": finder_sha256,
        # What lies in a larger mask is decided when the annotations are written.
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


def check_dense_folder(out: Path) -> None:
    """Refuse (`StoreError`) a folder that holds something else than dense masks."""
    # Listed once: another process may write the plan at any moment.
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if "dense.json" not in names and any(not name.startswith(".") for name in names):
        raise StoreError(f"{out} is not empty and holds no dense masks: choose another folder")


def _claim(out: Path, plan: Mapping[str, Any]) -> None:
    """Mark `out` as this plan's folder, or refuse if it is another's."""
    out.mkdir(parents=True, exist_ok=True)
    check_dense_folder(out)
    file = out / "dense.json"
    if not file.exists():
        write_json(file, plan)
    try:
        existing = json.loads(file.read_text())
        if existing["fingerprint"] == plan["fingerprint"]:
            return
        same = {key: existing[key] == plan[key] for key in ("finder", "config", "images")}
        name, sha256 = existing["teacher"]["name"], existing["teacher"]["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be read: choose another folder, or remove it") from error
    if sha256 != plan["teacher"]["fingerprint"]:
        what = f"of the teacher {name} ({sha256[:12]}), not of {plan['teacher']['name']} "
        what += f"({plan['teacher']['fingerprint'][:12]})"
    elif not same["images"]:
        what = "of other images"
    elif not same["config"]:
        what = "with other settings"
    else:
        what = "by another finder or version"
    raise StoreError(f"{out} holds dense masks {what}: choose another folder, or remove it first")


def _part(out: Path, index: int) -> Path:
    return out / f"part-{index:05d}.json"


_KEYS = {"file_name", "masks", "problem"}
_MASK_KEYS = {"counts", "confidence", "agreement", "known"}


def _read_part(out: Path, index: int, images: Sequence[_Image]) -> list[dict[str, Any]] | None:
    """What a part says of its images; None if it is not there yet. `StoreError` if damaged."""
    file = _part(out, index)
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text())["images"]
        for entry, image in zip(entries, images, strict=True):
            if entry["file_name"] != image.file_name or not entry.keys() >= _KEYS:
                raise ValueError("it is of other images")
            if entry["masks"] and not {"height", "width", "dhash"} <= entry.keys():
                raise ValueError("an image has no size")
            if any(not mask.keys() >= _MASK_KEYS for mask in entry["masks"]):
                raise ValueError("a mask is not whole")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged: remove it and run the same command again") from error
    return entries


def _hashes(folders: Sequence[Path]) -> npt.NDArray[np.uint64]:
    """The perceptual hashes of all images in folders."""
    entries = [entry for folder in folders for entry in training_images(folder).image_entries]
    return np.array([int(entry["dhash"], 16) for entry in entries], np.uint64)


def _unless_excluded(entry: dict[str, Any], excluded: npt.NDArray[np.uint64]) -> dict[str, Any]:
    """What a part says of an image, or that it is left out as one of an evaluated set."""
    image_hash = entry.get("dhash")
    if image_hash is None:  # it could not be read
        return entry
    if not (np.bitwise_count(excluded ^ np.uint64(int(image_hash, 16))) <= NEAR).any():
        return entry
    what = "shows what an image of an evaluated set shows: it is not taught from"
    return {**entry, "masks": [], "problem": what}


def _entry(
    image: _Image,
    teacher: Teacher,
    finder: BoxFinder | Detections,
    config: DenseConfig,
    excluded: npt.NDArray[np.uint64],
) -> dict[str, Any]:
    """What a part says of an image: its size, its masks, or why it was left out."""
    entry: dict[str, Any] = {"file_name": image.file_name, "masks": [], "problem": None}
    try:
        pixels = load_image(image.path)
        height, width = pixels.shape[:2]
        entry |= {"height": height, "width": width, "dhash": f"{dhash(pixels):016x}"}
        entry = _unless_excluded(entry, excluded)
        if entry["problem"]:
            return entry
        for instance in image.instances:
            check_stated_size((instance.height, instance.width), (height, width))
        known = [Region(0, 0, instance.mask()).tight() for instance in image.instances]
    except PicoSAM2Error as error:
        what = str(error)
        if isinstance(error, ImageError):
            what = what.removeprefix(f"{image.path} ")
        return {**entry, "problem": what}
    proposed = propose(pixels, finder, (image.source, image.id), config)
    entry["masks"] = [
        {
            "counts": masks.rle_encode(mask.region.on_image(height, width))["counts"],
            "confidence": round(mask.confidence, 4),
            "agreement": round(mask.agreement, 4),
            "known": round(mask.known, 4),
        }
        for mask in dense_masks(pixels, teacher, proposed, config, known)
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
) -> tuple[SourceFiles, ...]:
    """Files in COCO's format: for each source one of whole objects and one of parts of objects."""
    documents: dict[SourceFiles, dict[str, list[dict[str, Any]]]] = {}
    for image, entry in zip(images, entries, strict=True):
        new = _new(entry, config)
        if not new:
            continue
        height, width = entry["height"], entry["width"]
        regions = [_region(mask["counts"], height, width) for mask in new]
        known = [Region(0, 0, each.mask()).tight() for each in image.instances]
        for mask, region in zip(new, regions, strict=True):
            part = _is_part(region, [*known, *regions], config.inside)
            kind, ending = (f"{TAUGHT}parts-", "-parts") if part else (TAUGHT, "")
            files = SourceFiles(
                annotations=out / "annotations" / f"{image.file_source}{ending}.json",
                images=image.folder,
                name=f"{kind}{image.file_source}",
            )
            document = documents.setdefault(files, {"images": [], "annotations": []})
            listed = document["images"]
            if not listed or listed[-1]["id"] != image.id:
                listed.append(
                    {
                        "id": image.id,
                        "file_name": image.file_name,
                        "height": height,
                        "width": width,
                        "source": f"{kind}{image.source}",
                    }
                )
            rows, columns = region.mask.shape
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image.id,
                    "category_id": 1,
                    "segmentation": {"size": [height, width], "counts": mask["counts"]},
                    "area": region.area,
                    "bbox": [region.x, region.y, columns, rows],
                    "iscrowd": 0,
                    "score": mask["confidence"],
                }
            )
    for files, document in documents.items():
        categories = [{"id": 1, "name": "object"}]
        write_json(files.annotations, {**document, "categories": categories}, indent=None)
    return tuple(sorted(documents, key=lambda files: files.annotations.stem))


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
    pairs = [
        (mask["confidence"], mask["known"])
        for entry in entries
        if entry["masks"] and in_validation(int(entry["dhash"], 16), 0, 0.1)
        for mask in entry["masks"]
        if mask["known"] > config.known
    ]
    confidence, iou = np.array(pairs, float).reshape(-1, 2).T
    edges = np.linspace(config.confidence, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    curve = []
    for place in np.unique(places).tolist():
        inside = places == place
        curve.append(
            ConfidenceBin(
                low=float(edges[place]),
                high=float(edges[place + 1]),
                count=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                iou=float(iou[inside].mean()),
            )
        )
    return tuple(curve)
