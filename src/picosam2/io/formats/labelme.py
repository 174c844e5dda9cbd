"""labelme's JSON files: polygons and other shapes of one image."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from picosam2._words import counted
from picosam2.errors import DataError, PicoSAM2Error
from picosam2.images import MAX_PIXELS
from picosam2.io.formats.objects import (
    LABEL,
    EntryProblem,
    LabeledObject,
    check_labels,
    check_stated_size,
    number_list,
    shorten,
)
from picosam2.io.formats.outlines import fill_rings, outlines
from picosam2.io.formats.png import read_mask_png
from picosam2.masks import Mask
from picosam2.prompts import Box, Point
from picosam2.results import Segmentation

LABELME_VERSION: Final = "5.5.0"
"""The release of labelme whose files are written; later ones read them."""


def labelme(
    segmentations: Sequence[Segmentation],
    image_path: str,
    height: int,
    width: int,
    *,
    tolerance: float = 1.0,
    labels: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Objects of one image as a labelme file: a polygon for each piece, a group for each object.

    Args:
        segmentations: the objects.
        image_path: the image's path, relative to the folder of the file that is written; labelme
            looks for the image there.
        height, width: the image's size in pixels.
        tolerance: how far outlines may be simplified, in pixels; 0 is exact.
        labels: a class name for each object.

    Raises:
        DataError: there are more or fewer labels than objects.
    """
    shapes = []
    names = check_labels(segmentations, labels)
    for number, (segmentation, label) in enumerate(zip(segmentations, names, strict=True), 1):
        for ring in outlines(segmentation.mask, tolerance):
            shapes.append(
                {
                    "label": label,
                    "points": ring.tolist(),
                    "group_id": number,
                    "description": f"score {segmentation.score:.3f}",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
            )
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path.replace("\\", "/"),
        "imageData": None,
        "imageHeight": int(height),
        "imageWidth": int(width),
    }


def read_labelme(
    document: Any,
    *,
    size: tuple[int, int] | None = None,
    problems: list[EntryProblem] | None = None,
) -> list[LabeledObject]:
    """Objects of a labelme file, in order of their first shapes.

    Polygons, circles, oriented rectangles and masks give masks, rectangles boxes, points clicks on
    the object. Shapes with the same group are one object. Lines have no area and are left out.

    Args:
        document: the parsed JSON.
        size: height and width of the image, if known; the file's must be the same.
        problems: takes what is wrong with shapes that are left out. Without it the first is raised.

    Raises:
        DataError: this is no labelme file, it is of an image of another size, or a shape cannot be
            used and there is no list for `problems`.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("shapes"), list):
        raise DataError("this is no labelme file: it has no list 'shapes'")
    height, width = (_side(document.get(key)) for key in ("imageHeight", "imageWidth"))
    if height is None or width is None or height * width > MAX_PIXELS:
        raise DataError("a labelme file needs imageHeight and imageWidth: save it with labelme")
    if size is not None:
        check_stated_size((height, width), size)
    parts: dict[Any, list[LabeledObject]] = {}
    for index, shape in enumerate(document["shapes"]):
        try:
            part = _read_shape(shape, height, width)
        except PicoSAM2Error as error:
            problem = EntryProblem(where=f"shape {index + 1}", what=str(error))
            if problems is None:
                raise DataError(f"{problem.where} cannot be used: {error}") from error
            problems.append(problem)
            continue
        if part is not None:
            group = shape.get("group_id")
            key = ("alone", index) if group is None else (shorten(str(group)), part.label)
            parts.setdefault(key, []).append(part)
    return [_unite(group) for group in parts.values()]


def _side(value: Any) -> int | None:
    """A side in pixels; also of a file that has it as 640.0."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= MAX_PIXELS else None


def _read_shape(shape: Any, height: int, width: int) -> LabeledObject | None:
    """The object of one shape; None if it has no area. `DataError` with the reason if broken."""
    if not isinstance(shape, Mapping):
        raise DataError("it is no JSON object")
    label = _label(shape.get("label"))
    kind = shape.get("shape_type") or "polygon"
    if kind in ("line", "linestrip"):
        return None
    rows = shape.get("points")
    if not isinstance(rows, list) or not rows:
        raise DataError("it has no points")
    points = np.array([_pair(row) for row in rows])
    if kind == "point":
        x, y = points[0].tolist()
        return LabeledObject(points=(Point(x, y),), label=label)
    if kind == "points":
        return LabeledObject(points=tuple(Point(x, y) for x, y in points.tolist()), label=label)
    if kind == "rectangle" and len(points) > 1:
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return LabeledObject(box=Box(x0, y0, x1, y1), label=label)
    if kind in ("polygon", "oriented_rectangle") and len(points) > 2:
        return LabeledObject(mask=_some(fill_rings([points], height, width)), label=label)
    if kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        rows_, columns = np.ogrid[:height, :width]
        inside = np.hypot(columns + 0.5 - points[0, 0], rows_ + 0.5 - points[0, 1]) <= radius
        return LabeledObject(mask=_some(inside), label=label)
    if kind == "mask":
        return LabeledObject(mask=_some(_read_patch(shape, points, height, width)), label=label)
    raise DataError(
        f"it is a {shorten(kind)} of {counted(len(points), 'point')}, which is not known here"
    )


def _label(value: Any) -> str:
    """The class of a shape; one that is not labeled is an `LABEL`."""
    if not isinstance(value, str) or not value:
        return LABEL
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"its label {shorten(value)} is no text") from None
    return value


def _some(mask: Mask) -> Mask:
    if not mask.any():
        raise DataError("it has no pixel of the image inside")
    return mask


def _read_patch(
    shape: Mapping[str, Any], points: NDArray[np.float64], height: int, width: int
) -> Mask:
    try:
        patch = read_mask_png(base64.b64decode(shape["mask"], validate=True))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DataError("its mask is no PNG in base64") from error
    x, y = (int(v) for v in points.min(0))
    full = np.zeros((height, width), np.bool_)
    part = full[max(y, 0) : max(y + patch.shape[0], 0), max(x, 0) : max(x + patch.shape[1], 0)]
    part[...] = patch[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
    return full


def _unite(parts: Sequence[LabeledObject]) -> LabeledObject:
    """The object that several shapes of one group are."""
    if len(parts) == 1:
        return parts[0]
    part_masks = [part.mask for part in parts if part.mask is not None]
    boxes = np.array([(b.x0, b.y0, b.x1, b.y1) for p in parts if (b := p.box) is not None])
    return LabeledObject(
        mask=np.logical_or.reduce(part_masks) if part_masks else None,
        box=Box(*boxes[:, :2].min(0), *boxes[:, 2:].max(0)) if len(boxes) else None,
        points=tuple(point for part in parts for point in part.points),
        label=parts[0].label,
    )


def _pair(value: Any) -> list[float]:
    pair = number_list(value, "a point")
    if len(pair) != 2:
        raise DataError(f"a point has two numbers, not {len(pair)}")
    return pair
