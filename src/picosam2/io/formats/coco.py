"""COCO's JSON files: the one reader for instances and results, and the writer.

The format is described at https://cocodataset.org/#format-data. Reading checks the structure of
every entry and leaves out what is broken, with an `EntryProblem` that says which entry and why;
only a file that is no annotation file at all is an error. What can be read is read: numbers as text
("7") or with a point (640.0), ids that are text, a null where a field may be missing, and a
segmentation with a stray polygon of one or two points. Crowd regions are counted and left out:
they mark many objects at once.

Polygons are filled by the rule of pycocotools, the format's reference code, pixel for pixel. Its
rule for the pixels on an edge is its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from picosam2 import masks
from picosam2.errors import DataError
from picosam2.images import MAX_PIXELS
from picosam2.io.formats.objects import (
    DECIMALS,
    LABEL,
    EntryProblem,
    read_json,
    shorten,
    whole_number,
)
from picosam2.io.formats.outlines import outlines
from picosam2.masks import Mask
from picosam2.prompts import Box
from picosam2.results import Segmentation

Polygons: TypeAlias = tuple[NDArray[np.float64], ...]
"""Each (2N,) float64: x0, y0, x1, y1, ... in pixels."""

Counts: TypeAlias = NDArray[np.uint32]
"""Lengths of runs in column order, off and on the object in turn."""

CocoSegmentation: TypeAlias = Polygons | bytes | Counts
"""Polygons, or a run-length encoding in column order: compressed (bytes) or run lengths."""

_MAX_COORDINATE: Final = 1_000_000.0
_MAX_PERIMETER: Final = 2_000_000.0  # pixels; filling takes about 150 bytes a pixel of outline
_MAX_ID: Final = 2**63  # ids are stored as 64-bit integers


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoImage:
    """An image entry: `name` is its `file_name`, `height` and `width` its size as stated.

    Each is None where the entry has none that makes sense. `where` is what messages call it.
    """

    where: str
    id: int
    name: str | None
    height: int | None
    width: int | None
    entry: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CocoAnnotation:
    """An annotation, or a result of a detector.

    Attributes:
        where: what a message calls it, "annotation 123".
        id: None where the entry has none.
        box: x, y, width, height in pixels; None where the entry has none.
        segmentation: None where the entry has none that can be used.
        without: why there is no segmentation.
        area: in pixels, as stated.
        score: a detector's.
    """

    where: str
    id: int | None
    image_id: int
    category_id: int
    box: tuple[float, float, float, float] | None
    segmentation: CocoSegmentation | None = field(repr=False)
    without: str | None
    area: float | None
    score: float | None


@dataclass(kw_only=True, eq=False)
class CocoFile:
    """What a COCO file holds. `results` tells that it is a bare list of a detector's results.

    A list of results names its images by their numbers only; `images` then holds these.
    """

    images: dict[int, CocoImage] = field(default_factory=dict)
    annotations: list[CocoAnnotation] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    problems: list[EntryProblem] = field(default_factory=list)
    crowds: int = 0
    results: bool = False

    def leave_out(self, broken: Mapping[int, str]) -> list[CocoAnnotation]:
        """Name images as left out, by id with the reason; the annotations of all others."""
        lost = dict.fromkeys(broken, 0)
        kept = []
        for annotation in self.annotations:
            if annotation.image_id in lost:
                lost[annotation.image_id] += 1
            else:
                kept.append(annotation)
        for image_id, what in broken.items():
            count = lost[image_id]
            more = f" ({count} annotations are left out with it)" if count else ""
            where = self.images[image_id].where
            self.problems.append(EntryProblem(where=where, what=what + more))
        return kept


# --- reading ------------------------------------------------------------------------------------


def read_coco_file(path: Path) -> CocoFile:
    """Read a COCO file of instances, or a list of results.

    Raises:
        DataError: the file is missing, cannot be read, or is neither.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the annotation file {path} does not exist: check the path") from error
    except OSError as error:
        raise DataError(f"the annotation file {path} cannot be read: {error.strerror}") from error
    return read_coco_document(read_json(data, str(path)), str(path))


def read_coco_document(document: Any, name: str) -> CocoFile:
    """Read a parsed COCO file; its lists are emptied on the way, for they take much memory.

    Raises:
        DataError: it is neither a file of instances nor a list of results; the message has `name`.
    """
    if isinstance(document, list):
        return _read_results(document)
    if not isinstance(document, dict):
        raise DataError(f"{name} is no COCO file: it holds no JSON object and no list of results")
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            raise DataError(
                f"{name} is no COCO file: it has no list {key!r}; pass a file of instances"
            )
    file = CocoFile()
    categories = document.get("categories")
    if categories is not None and not isinstance(categories, list):
        file.problems.append(EntryProblem(where="categories", what="are no list: left out"))
        categories = None
    category_ids, image_ids = _Ids(categories), _Ids(document["images"])
    _read_categories(file, categories or [], category_ids)
    _read_images(file, document["images"], image_ids)
    _read_annotations(file, document["annotations"], image_ids, category_ids)
    return file


class _Ids:
    """Whole numbers for the ids of a list: themselves, and new ones for ids that are text."""

    def __init__(self, entries: Any) -> None:
        ids = (e.get("id") for e in entries if isinstance(e, dict)) if entries else ()
        self._highest = max((number for number in map(whole, ids) if number), default=0)
        self._texts: dict[str, int] = {}

    def known(self, value: Any) -> int | None:
        """The number of an id; None if it is none, or a text that was not seen before."""
        if isinstance(value, str) and not _is_whole(value):
            return self._texts.get(value)
        return whole(value)

    def add(self, value: Any) -> int | None:
        """The number of an id, for a new text the next one that is free; None if it is none."""
        if isinstance(value, str) and value and not _is_whole(value) and value not in self._texts:
            self._highest += 1
            self._texts[value] = self._highest
        return self.known(value)


def whole(value: Any) -> int | None:
    """A whole number from 0 up, also as text or with a point; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if isinstance(value, str) and _is_whole(value):
        value = int(value)
    return value if type(value) is int and 0 <= value < _MAX_ID else None


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 19


def _need(entry: Mapping[str, Any], key: str) -> int:
    number = whole(entry.get(key))
    if number is None:
        raise DataError(f"has no {key} that is a whole number from 0 up")
    return number


def _read_categories(file: CocoFile, entries: list[Any], ids: _Ids) -> None:
    for position, entry in enumerate(entries):
        number = ids.add(entry.get("id")) if isinstance(entry, dict) else None
        where = f"category entry {position}" if number is None else f"category {number}"
        try:
            if number is None:
                raise DataError("has no id that is a whole number from 0 up")
            if number in file.categories:
                raise DataError("has the same id as an earlier category")
            name = entry.get("name")
            file.categories[number] = str(number)
            if name is not None:
                file.categories[number] = text(name, "name")
        except DataError as error:
            file.problems.append(EntryProblem(where=where, what=str(error)))


def text(value: Any, what: str) -> str:
    """A word from a file.

    Raises:
        DataError: it is no text, empty, or holds half a character (a lone surrogate).
    """
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise DataError(f"has no {what} that is text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"has a {what} that is no text: {shorten(value)}") from None
    return value


def _read_images(file: CocoFile, entries: list[Any], ids: _Ids) -> None:
    for position, entry in enumerate(entries):
        entries[position] = None
        if not isinstance(entry, dict):
            problem = EntryProblem(where=f"image entry {position}", what="is not a JSON object")
            file.problems.append(problem)
            continue
        number = ids.add(entry.get("id"))
        if number is None:
            what = "has no id that is a whole number from 0 up"
            file.problems.append(EntryProblem(where=f"image entry {position}", what=what))
        elif number in file.images:
            what = "has the same id as an earlier image"
            file.problems.append(EntryProblem(where=_called("image", entry["id"]), what=what))
        else:
            name = entry.get("file_name")
            file.images[number] = CocoImage(
                where=_called("image", entry["id"]),
                id=number,
                name=name if isinstance(name, str) and name else None,
                height=whole(entry.get("height")),
                width=whole(entry.get("width")),
                entry=entry,
            )


def _called(what: str, value: Any) -> str:
    """What messages call an entry with an id."""
    return f"{what} {shorten(value)}" if isinstance(value, str) else f"{what} {value}"


def _read_results(entries: list[Any]) -> CocoFile:
    """A detector's results: entries without ids, of images that only their numbers name."""
    file = CocoFile(results=True)
    for position, entry in enumerate(entries):
        entries[position] = None
        where = f"result {position}"
        try:
            if not isinstance(entry, dict):
                raise DataError("is not a JSON object")
            image_id = _need(entry, "image_id")
            file.annotations.append(
                _read_entry(entry, where, None, image_id, _need(entry, "category_id"), None)
            )
            height, width = _stated_size(entry.get("segmentation"))
            known = file.images.get(image_id)
            if known is None or (known.height is None and height is not None):
                file.images[image_id] = CocoImage(
                    where=f"image {image_id}",
                    id=image_id,
                    name=None,
                    height=height,
                    width=width,
                    entry={},
                )
        except DataError as error:
            file.problems.append(EntryProblem(where=where, what=str(error)))
    return file


def _read_annotations(
    file: CocoFile, entries: list[Any], image_ids: _Ids, category_ids: _Ids
) -> None:
    ids = _Ids(entries)
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        entries[position] = None  # a parsed entry takes several times the room of what is kept
        where = f"annotation entry {position}"
        try:
            if not isinstance(entry, dict):
                raise DataError("is not a JSON object")
            number = None
            if entry.get("id") is not None:
                number = ids.add(entry["id"])
                if number is None:
                    raise DataError("has an id that is no whole number from 0 up")
                where = _called("annotation", entry["id"])
                if number in seen:
                    raise DataError("has the same id as an earlier annotation")
                seen.add(number)
            crowd = entry.get("iscrowd")
            if crowd not in (None, 0, 1):
                raise DataError("has an iscrowd that is neither 0 nor 1")
            if crowd:
                file.crowds += 1
                continue
            value = entry.get("image_id")
            image_id = image_ids.known(value)
            if image_id is None and not isinstance(value, str):
                _need(entry, "image_id")
            if image_id is None or image_id not in file.images:
                named = value if image_id is None else image_id
                raise DataError(f"belongs to image {named!s:.60}, which is not in the file")
            category = category_ids.known(entry.get("category_id"))
            if category is None:
                category = _need(entry, "category_id")
            image = file.images[image_id]
            annotation = _read_entry(entry, where, number, image_id, category, image)
            stray = 0 if annotation.segmentation is None else _stray_polygons(entry)
        except DataError as error:
            file.problems.append(EntryProblem(where=where, what=str(error)))
            continue
        file.annotations.append(annotation)
        if stray:
            what = f"has {stray} polygons of fewer than three points: read without them"
            file.problems.append(EntryProblem(where=where, what=what))


def _read_entry(
    entry: Mapping[str, Any],
    where: str,
    number: int | None,
    image_id: int,
    category_id: int,
    image: CocoImage | None,
) -> CocoAnnotation:
    size = None
    if image is not None and image.height is not None and image.width is not None:
        size = image.height, image.width
    box = entry.get("bbox")
    numbers = None
    if box is not None:
        numbers = _flat_numbers(box)
        if numbers is None or len(numbers) != 4 or (numbers[2:] < 0).any():
            raise DataError("has a bbox that is not x, y, width, height")
    segmentation: CocoSegmentation | None = None
    without: str | None = None
    try:
        segmentation = read_segmentation(entry.get("segmentation"), size)
    except DataError as error:
        if numbers is None:
            raise
        without = str(error)
    area = entry.get("area")
    if area is not None and (type(area) not in (int, float) or not 0 <= area <= MAX_PIXELS):
        raise DataError("has an area that is not a number of pixels")
    score = entry.get("score")
    if score is not None and (type(score) not in (int, float) or not abs(score) < 1e9):
        raise DataError("has a score that is no finite number")
    return CocoAnnotation(
        where=where,
        id=number,
        image_id=image_id,
        category_id=category_id,
        box=None if numbers is None else (*numbers.tolist(),),
        segmentation=segmentation,
        without=without,
        area=None if area is None else float(area),
        score=None if score is None else float(score),
    )


def read_segmentation(value: Any, size: tuple[int, int] | None) -> CocoSegmentation:
    """The checked segmentation of an entry. Polygons of one or two points are left out.

    Args:
        value: the entry's `segmentation`.
        size: height and width of its image, if known.

    Raises:
        DataError: there is none to use.
    """
    if not value or not isinstance(value, list | dict):
        raise DataError("has no segmentation")
    if isinstance(value, list):
        polygons = tuple(p for p in map(_read_polygon, value) if len(p) >= 6)
        if not polygons:
            raise DataError("has a polygon of fewer than three points")
        return polygons
    return _read_rle(value, size)


def _stated_size(segmentation: Any) -> tuple[int, int] | tuple[None, None]:
    """The height and width of the image that a run-length encoding is of."""
    stated = segmentation.get("size") if isinstance(segmentation, dict) else None
    sides = [whole(side) for side in stated] if isinstance(stated, list) else []
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        return None, None
    return sides[0], sides[1]


def _read_rle(value: Mapping[str, Any], size: tuple[int, int] | None) -> bytes | Counts:
    stated = value.get("size")
    if size is None:
        sides = [whole(side) or 0 for side in stated] if isinstance(stated, list) else []
        if len(sides) != 2 or not 0 < sides[0] * sides[1] <= MAX_PIXELS:
            raise DataError("has a run-length encoding of no size")
        size = sides[0], sides[1]
    if not isinstance(stated, list) or [whole(side) for side in stated] != list(size):
        raise DataError("has a run-length encoding of another size than its image")
    counts = value.get("counts")
    if isinstance(counts, str) and counts:
        try:
            return counts.encode("ascii")
        except UnicodeEncodeError:
            raise DataError("has a run-length encoding with foreign characters") from None
    numbers = _flat_numbers(counts)
    if numbers is None or not numbers.size or (numbers != np.floor(numbers)).any():
        raise DataError("has a run-length encoding without run lengths")
    if not 0 <= numbers.min() <= numbers.max() <= MAX_PIXELS:
        raise DataError("has a run length that is negative or too long")
    if numbers.sum() != size[0] * size[1]:
        raise DataError("has run lengths that do not add up to the image's pixels")
    return numbers.astype(np.uint32)


def _read_polygon(value: Any) -> NDArray[np.float64]:
    numbers = _flat_numbers(value)
    if numbers is None:
        raise DataError("has a polygon that is not a list of finite numbers")
    if numbers.size % 2:
        raise DataError("has a polygon with an odd count of numbers")
    if numbers.size and np.abs(numbers).max() > _MAX_COORDINATE:
        raise DataError("has a polygon that reaches far outside its image")
    return numbers


def _stray_polygons(entry: Mapping[str, Any]) -> int:
    """How many polygons of a segmentation that can be used have too few points."""
    value = entry.get("segmentation")
    return sum(len(polygon) < 6 for polygon in value) if isinstance(value, list) else 0


def _flat_numbers(value: Any) -> NDArray[np.float64] | None:
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


# --- masks --------------------------------------------------------------------------------------


def segmentation_mask(segmentation: CocoSegmentation, height: int, width: int) -> Mask:
    """The pixels (height, width) bool of a checked segmentation.

    Raises:
        DataError: a run-length encoding is broken or of another size, or an outline is too long.
    """
    if isinstance(segmentation, tuple):
        return fill_coco_polygons(segmentation, height, width)
    return masks.rle_decode({"size": [height, width], "counts": segmentation})


def coco_mask(entry: Mapping[str, Any], height: int, width: int) -> Mask:
    """The mask (height, width) bool of an annotation entry: RLE, or polygons.

    Raises:
        DataError: it has none that can be used, or one of another size.
    """
    segmentation = read_segmentation(entry.get("segmentation"), (height, width))
    return segmentation_mask(segmentation, height, width)


def coco_box(entry: Mapping[str, Any]) -> Box:
    """The box of a COCO annotation or result.

    Raises:
        DataError: it has none.
        PromptError: the box is empty.
    """
    numbers = _flat_numbers(entry.get("bbox"))
    if numbers is None or len(numbers) != 4:
        raise DataError("has a bbox that is not x, y, width, height")
    x, y, width, height = numbers.tolist()
    return Box(x, y, x + width, y + height)


def fill_coco_polygons(polygons: Sequence[NDArray[np.float64]], height: int, width: int) -> Mask:
    """The union of polygons (2N,) of x0, y0, x1, y1, ... as pycocotools fills them.

    Source: `rleFrPoly` in pycocotools' maskApi.c. An outline is walked in fifths of a pixel; where
    it passes the middle of a column, the column's pixels from there on change sides.

    Returns:
        (height, width) bool.

    Raises:
        DataError: an outline is too long to be walked.
    """
    filled = np.zeros((width, height), np.bool_)
    for polygon in polygons:
        if _perimeter(polygon) > _MAX_PERIMETER:
            raise DataError("its outline is longer than two million pixels")
        columns, rows = _column_changes(polygon, height, width)
        if not len(columns):
            continue
        first, stop = int(columns.min()), int(columns.max()) + 1
        places = (columns - first) * height + rows
        changes = np.bincount(places, minlength=(stop - first) * height)
        inside = (np.cumsum(changes[: (stop - first) * height]) & 1).astype(np.bool_)
        filled[first:stop] |= inside.reshape(stop - first, height)
    return np.ascontiguousarray(filled.T)


def _column_changes(
    polygon: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where an outline passes the middle of a column: the columns, and the first row after it."""
    corners = (polygon.reshape(-1, 2) * 5 + 0.5).astype(np.int64)  # cut off towards 0, as C does
    begin, end = corners, np.roll(corners, -1, axis=0)
    steps = np.abs(end - begin)
    flat = steps[:, 0] >= steps[:, 1]  # walked along x, else along y
    back = np.where(flat, begin[:, 0] > end[:, 0], begin[:, 1] > end[:, 1])
    low = np.where(back[:, None], end, begin)
    high = np.where(back[:, None], begin, end)
    length = np.maximum(steps[:, 0], steps[:, 1])
    rise = np.where(flat, (high - low)[:, 1], (high - low)[:, 0]) / np.maximum(length, 1)

    edge = np.repeat(np.arange(len(length)), length + 1)
    nth = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - (length + 1), length + 1)
    nth = np.where(back[edge], length[edge] - nth, nth)
    along = np.where(flat, low[:, 0], low[:, 1])[edge] + nth
    across = np.where(flat, low[:, 1], low[:, 0])[edge] + rise[edge] * nth + 0.5
    across = across.astype(np.int64)
    x = np.where(flat[edge], along, across)
    y = np.where(flat[edge], across, along)

    moved = np.flatnonzero(np.diff(x))
    left = np.minimum(x[moved], x[moved + 1])
    top = np.minimum(y[moved], y[moved + 1])
    middle = (left % 5 == 2) & (left >= 2) & (left < 5 * width)
    # The rows after (top + 0.5) / 5 - 0.5, for top a whole number of fifths.
    rows = np.clip(-(-(2 * top[middle] - 4) // 10), 0, height)
    return left[middle] // 5, rows


def _perimeter(polygon: NDArray[np.float64]) -> float:
    """The closed outline's length in the larger of |dx|, |dy| a side."""
    points = polygon.reshape(-1, 2)
    steps = np.abs(points - np.roll(points, 1, axis=0))
    return float(steps.max(axis=1).sum())


def segmentation_area(segmentation: CocoSegmentation, height: int, width: int) -> float:
    """The area in pixels of a checked segmentation: that of its polygons' outlines, or of its runs.

    Raises:
        DataError: a run-length encoding is broken.
    """
    if isinstance(segmentation, tuple):
        return math.fsum(_polygon_area(polygon) for polygon in segmentation)
    return float(segmentation_mask(segmentation, height, width).sum())


def _polygon_area(polygon: NDArray[np.float64]) -> float:
    """The shoelace formula, about the first point so that large coordinates cancel early."""
    x, y = (polygon.reshape(-1, 2) - polygon[:2]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


# --- writing ------------------------------------------------------------------------------------


def coco_annotation(
    segmentation: Segmentation,
    *,
    id: int,
    image_id: int,
    category_id: int = 1,
    polygons: bool = False,
    tolerance: float = 1.0,
) -> dict[str, Any]:
    """One object as an entry of a COCO instances file, with a `score` as result files have it.

    Args:
        segmentation: the object.
        id, image_id, category_id: the entry's numbers.
        polygons: write the mask as a list of rings instead of compressed RLE. An empty mask has no
            ring, and is written as RLE, because pycocotools crashes on an empty list.
        tolerance: how far rings may be simplified, in pixels; 0 is exact.

    Raises:
        DataError: a number is not a whole number from 0 up.
    """
    rings = outlines(segmentation.mask, tolerance) if polygons else []
    box = segmentation.box
    return {
        "id": whole_number(id, "an id"),
        "image_id": whole_number(image_id, "an image_id"),
        "category_id": whole_number(category_id, "a category_id"),
        "segmentation": [_plain_numbers(ring) for ring in rings] or segmentation.rle(),
        "bbox": _plain_numbers(np.array(box.as_xywh() if box else (0, 0, 0, 0))),
        "area": segmentation.area,
        "iscrowd": 0,
        "score": round(segmentation.score, DECIMALS),
    }


def coco_document(
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]] | None = None,
    info: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A COCO instances file. An image is {"id", "file_name", "height", "width"}."""
    return {
        "info": dict(info or {}),
        "images": list(images),
        "annotations": list(annotations),
        "categories": list(categories or [{"id": 1, "name": LABEL}]),
    }


def _plain_numbers(values: NDArray[Any]) -> list[int | float]:
    """A flat list, whole numbers without a point."""
    return [int(v) if v == int(v) else float(v) for v in values.ravel().tolist()]
