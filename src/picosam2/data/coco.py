"""COCO-format annotation files: photos, and objects whose masks are decoded when asked for.

The format is described at https://cocodataset.org/#format-data. Reading checks the structure of
every entry and leaves out what is broken, with an `EntryProblem` that says which entry and why;
only a file that is no annotation file at all is an error. Polygons are filled by pycocotools, the
format's reference code, whose rule for the pixels on an edge is its own. Its C code trusts its
input, so what it is given is checked first, and run-length encodings go to `picosam2.masks`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picosam2.data.paths import stays_inside
from picosam2.errors import DataError, require
from picosam2.images import MAX_PIXELS
from picosam2.masks import Mask, rle_decode

Polygons = tuple[NDArray[np.float64], ...]
Counts = NDArray[np.uint32]

_MAX_COORDINATE = 1_000_000.0  # pycocotools multiplies by 5 and converts to a 32-bit integer
_MAX_PERIMETER = 2_000_000.0  # pixels; pycocotools allocates about 80 bytes a pixel of outline
_MAX_ID = 2**63  # ids are stored as 64-bit integers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instance:
    """One annotated object.

    Attributes:
        segmentation: polygons as a tuple of (2N,) float64 arrays x0, y0, x1, y1, ... in pixels, or
            a run-length encoding in column order: bytes (compressed) or (R,) uint32 (run lengths).
        height, width: the photo's size in pixels.
        area: the object's area in pixels, as the file states it, or else from its outline.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Polygons | bytes | Counts = field(repr=False)
    height: int
    width: int
    area: float

    def mask(self) -> Mask:
        """The object's pixels, (H, W) bool. `DataError` if broken or empty."""
        counts = self.segmentation
        try:
            if isinstance(counts, tuple):
                counts = _rasterise(counts, self.height, self.width)
            mask = rle_decode({"size": [self.height, self.width], "counts": counts})
        except DataError as error:
            raise DataError(f"annotation {self.id} cannot be used: {error}") from error
        if not mask.any():
            raise DataError(f"annotation {self.id} cannot be used: its mask has no pixel")
        return mask


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnnotatedImage:
    """One photo and its objects. `height` and `width` are what the annotation file says."""

    id: int
    path: Path
    height: int
    width: int
    source: str
    instances: tuple[Instance, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryProblem:
    """Something left out: `where` names it ("annotation 123"), `what` says why."""

    where: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Annotations:
    """What one annotation file holds. `crowds` counts the crowd regions that were skipped."""

    images: tuple[AnnotatedImage, ...]
    problems: tuple[EntryProblem, ...]
    crowds: int


def read_coco(annotations: Path, images: Path, *, source: str | None = None) -> Annotations:
    """Read a COCO instances file.

    Args:
        annotations: the JSON file, for instance `instances_val2017.json`.
        images: the folder that the file names in it start from.
        source: name of the data set, for images without a field `source`; by default the
            annotation file's stem.

    Photos and objects keep the file's order. Crowd regions are counted and skipped: they mark many
    objects at once. Broken entries, photos that are not there and a second entry with the same id
    are left out, each with an `EntryProblem`.

    Raises:
        DataError: the file or the folder is missing, or the file is not a COCO instances file.
    """
    return read_document(annotations, images, source=source, candidates=_coco_candidates)


def _coco_candidates(entry: dict[str, Any]) -> Sequence[str]:
    """Where a photo may lie below the image folder."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError("has no file_name")
    return (name,)


def read_document(
    annotations: Path,
    images: Path,
    *,
    source: str | None,
    candidates: Callable[[dict[str, Any]], Sequence[str]],
) -> Annotations:
    """Read a COCO-like file; `candidates(image entry)` gives the relative paths to look at.

    `candidates` raises `ValueError` with the reason when the entry names no file.
    """
    annotations, images = Path(annotations), Path(images)
    document = _load(annotations)
    if not images.is_dir():
        raise DataError(f"the image folder {images} does not exist: pass the folder of the photos")
    default_source = annotations.stem if source is None else source
    problems: list[EntryProblem] = []
    photos: dict[int, AnnotatedImage] = {}
    broken: dict[int, str] = {}  # image id -> why its photo is left out
    for position, entry in enumerate(document["images"]):
        image_id: int | None = None
        try:
            image_id = _entry_id(entry)
            if image_id in photos or image_id in broken:
                raise _DuplicateError("has the same id as an earlier image")
            photos[image_id] = _read_photo(entry, image_id, images, default_source, candidates)
        except _DuplicateError as error:
            problems.append(EntryProblem(where=f"image {image_id}", what=str(error)))
        except ValueError as error:
            if image_id is None:
                problems.append(EntryProblem(where=f"image entry {position}", what=str(error)))
            else:
                broken[image_id] = str(error)

    instances: dict[int, list[Instance]] = {}
    lost: Counter[int] = Counter()  # annotations of broken photos
    seen: set[int] = set()
    crowds = 0
    entries = document["annotations"]
    for position, entry in enumerate(entries):
        entries[position] = None  # a parsed entry takes several times the room of an Instance
        where = f"annotation entry {position}"
        try:
            instance_id = _entry_id(entry)
            where = f"annotation {instance_id}"
            if instance_id in seen:
                raise ValueError("has the same id as an earlier annotation")
            seen.add(instance_id)
            if entry.get("iscrowd", 0) not in (0, 1):
                raise ValueError("has an iscrowd that is neither 0 nor 1")
            if entry.get("iscrowd"):
                crowds += 1
                continue
            image_id = _whole(entry, "image_id")
            if image_id in broken:
                lost[image_id] += 1
                continue
            if image_id not in photos:
                raise ValueError(f"belongs to image {image_id}, which is not in the file")
            instance = _read_instance(entry, instance_id, photos[image_id])
        except ValueError as error:
            problems.append(EntryProblem(where=where, what=str(error)))
        else:
            instances.setdefault(image_id, []).append(instance)

    for image_id, what in broken.items():
        left_out = f" ({lost[image_id]} annotations are left out with it)" if lost[image_id] else ""
        problems.append(EntryProblem(where=f"image {image_id}", what=what + left_out))
    return Annotations(
        images=tuple(
            AnnotatedImage(
                id=photo.id,
                path=photo.path,
                height=photo.height,
                width=photo.width,
                source=photo.source,
                instances=tuple(instances.get(photo.id, ())),
            )
            for photo in photos.values()
        ),
        problems=tuple(problems),
        crowds=crowds,
    )


class _DuplicateError(ValueError):
    """A second image with the same id: the first one stays."""


def _load(path: Path) -> dict[str, Any]:
    """The parsed annotation file, with lists under `images` and `annotations`."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"the annotation file {path} does not exist: check the path") from error
    except OSError as error:
        raise DataError(f"the annotation file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a JSON file, or it is cut short: fetch it again ({error})"
        ) from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds no JSON object: pass a COCO or LVIS instances file")
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            raise DataError(f"{path} has no list {key!r} in it: pass a COCO or LVIS instances file")
    return document


def _entry_id(entry: Any) -> int:
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    return _whole(entry, "id")


def _whole(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 <= value < _MAX_ID:
        raise ValueError(f"has no {key} that is a whole number from 0 up")
    return value


def _read_photo(
    entry: dict[str, Any],
    image_id: int,
    images: Path,
    default_source: str,
    candidates: Callable[[dict[str, Any]], Sequence[str]],
) -> AnnotatedImage:
    height, width = _whole(entry, "height"), _whole(entry, "width")
    if height == 0 or width == 0:
        raise ValueError("has no pixels")
    if height * width > MAX_PIXELS:
        raise ValueError(f"is larger than {MAX_PIXELS} pixels")
    source = entry.get("source")
    return AnnotatedImage(
        id=image_id,
        path=_find(images, candidates(entry)),
        height=height,
        width=width,
        source=source if isinstance(source, str) and source else default_source,
        instances=(),
    )


def _find(images: Path, names: Sequence[str]) -> Path:
    """The first of `names` that is a file below `images`."""
    for name in names:
        if not stays_inside(name):
            raise ValueError(f"has a file_name that leaves the image folder: {_short(name)}")
    for name in names:
        path = images / name
        try:
            if path.is_file():
                return path
        except OSError:  # a name that the file system cannot have
            continue
    raise ValueError(f"has no photo in the image folder: {_short(names[0])} is missing")


def _short(name: str) -> str:
    return repr(name if len(name) <= 100 else name[:100] + "...")


def _read_instance(entry: dict[str, Any], instance_id: int, photo: AnnotatedImage) -> Instance:
    segmentation = _read_segmentation(entry.get("segmentation"), photo)
    box = entry.get("bbox")
    if box is not None:
        numbers = _numbers(box)
        if numbers is None or len(numbers) != 4 or (numbers[2:] < 0).any():
            raise ValueError("has a bbox that is not x, y, width, height")
    area = entry.get("area")
    if area is None:
        area = _area(segmentation, photo)
    elif type(area) not in (int, float) or not 0 <= area <= MAX_PIXELS:
        raise ValueError("has an area that is not a number of pixels")
    return Instance(
        id=instance_id,
        image_id=photo.id,
        category_id=_whole(entry, "category_id"),
        segmentation=segmentation,
        height=photo.height,
        width=photo.width,
        area=float(area),
    )


def _read_segmentation(value: Any, photo: AnnotatedImage) -> Polygons | bytes | Counts:
    """The checked segmentation; `ValueError` with the reason if there is none to use."""
    if not value or not isinstance(value, list | dict):
        raise ValueError("has no segmentation")
    if isinstance(value, list):
        return tuple(_read_polygon(polygon) for polygon in value)
    if value.get("size") != [photo.height, photo.width]:
        raise ValueError("has a run-length encoding of another size than its photo")
    counts = value.get("counts")
    if isinstance(counts, str) and counts:
        try:
            return counts.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("has a run-length encoding with foreign characters") from None
    numbers = _numbers(counts)
    if numbers is None or not numbers.size or (numbers != np.floor(numbers)).any():
        raise ValueError("has a run-length encoding without run lengths")
    if not 0 <= numbers.min() <= numbers.max() <= MAX_PIXELS:
        raise ValueError("has a run length that is negative or too long")
    if numbers.sum() != photo.height * photo.width:
        raise ValueError("has run lengths that do not add up to the photo's pixels")
    return numbers.astype(np.uint32)


def _read_polygon(value: Any) -> NDArray[np.float64]:
    numbers = _numbers(value)
    if numbers is None:
        raise ValueError("has a polygon that is not a list of finite numbers")
    if numbers.size % 2:
        raise ValueError("has a polygon with an odd count of numbers")
    if numbers.size < 6:
        raise ValueError("has a polygon of fewer than three points")
    if np.abs(numbers).max() > _MAX_COORDINATE:
        raise ValueError("has a polygon that reaches far outside its photo")
    return numbers


def _numbers(value: Any) -> NDArray[np.float64] | None:
    """A flat JSON list of finite numbers as float64, or None if it is anything else."""
    if not isinstance(value, list):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):  # lists of different lengths, numbers beyond a double
        return None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        return None
    numbers = array.astype(np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _rasterise(polygons: Polygons, height: int, width: int) -> bytes:
    """The union of polygons as compressed counts, by pycocotools' rule for edge pixels."""
    for polygon in polygons:
        if _perimeter(polygon) > _MAX_PERIMETER:
            raise DataError("its outline is longer than two million pixels")
    tools = require("pycocotools.mask", "train")
    return bytes(tools.merge(tools.frPyObjects(list(polygons), height, width))["counts"])


def _perimeter(polygon: NDArray[np.float64]) -> float:
    """The closed outline's length in the larger of |dx|, |dy| a side, as pycocotools walks it."""
    points = polygon.reshape(-1, 2)
    steps = np.abs(points - np.roll(points, 1, axis=0))
    return float(steps.max(axis=1).sum())


def _area(segmentation: Polygons | bytes | Counts, photo: AnnotatedImage) -> float:
    """The area in pixels of a checked segmentation: polygon outlines, or runs of the object."""
    if isinstance(segmentation, tuple):
        return math.fsum(_polygon_area(polygon) for polygon in segmentation)
    try:
        return float(
            rle_decode({"size": [photo.height, photo.width], "counts": segmentation}).sum()
        )
    except DataError as error:
        raise ValueError(f"has no area, nor a mask to count: {error}") from error


def _polygon_area(polygon: NDArray[np.float64]) -> float:
    """The shoelace formula, about the first point so that large coordinates cancel early."""
    x, y = (polygon.reshape(-1, 2) - polygon[:2]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
