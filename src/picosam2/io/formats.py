"""Masks in the formats of other tools, and objects read back from those that serve as inputs.

============  ============  ==========================================  ==========================
format        one file for  holds                                       read back
============  ============  ==========================================  ==========================
binary PNG    an object     255 on it, 0 off it                         yes
indexed PNG   a photo       the object's number in each pixel, with a   yes
                            palette; up to 255
16-bit PNG    a photo       the same without a palette; up to 65,535    yes
SVG           a photo       a path for each object                      no
COCO          many photos   RLE or polygons, box, score, category       yes, and as boxes
YOLO          a photo       a polygon a line, in shares of the photo    yes, and as boxes
labelme       a photo       polygons; those of one object share a       yes, also as boxes, points
                            group
supervision   a photo       `Detections`, in memory                     no
============  ============  ==========================================  ==========================

Numbered PNGs have one number a pixel: where objects overlap, the smaller one is in front. All
others keep overlaps. COCO, YOLO and labelme know polygons without holes only. A hole is joined to
its outline by a line walked there and back (a keyhole), which leaves the even-odd area, and so the
mask, as it was. At tolerance 0 every polygon format gives back exactly the mask that was written.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picosam2 import masks
from picosam2.errors import DataError, require
from picosam2.images import MAX_PIXELS
from picosam2.masks import Mask, Polygon
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import PALETTE, Segmentation

if TYPE_CHECKING:
    import supervision

LABEL: Final = "object"
"""The class of an object of which nothing is known."""

LABELME_VERSION: Final = "5.5.0"
"""The release of labelme whose files are written; later ones read them."""

_MAX_INDEXED, _MAX_IDS = 255, 65_535
_DECIMALS: Final = 6  # of YOLO's shares and of scores, as ultralytics writes them
_MAX_CROSSINGS: Final = 50_000_000  # rows crossed by a read polygon's edges: some 2 GB to fill


@dataclass(frozen=True, kw_only=True, eq=False)
class Described:
    """One object as a file describes it: a mask, a box, points, or several of them.

    mask: (H, W) bool. box: in pixels. label: its class. score: the detector's, 0..1, if it has
    one. id: what the file calls it.
    """

    mask: Mask | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    label: str = LABEL
    score: float | None = None
    id: int | None = None

    def prompt(self) -> Prompt:
        """The box and the points, or else the mask's box. `PromptError` if there is nothing."""
        box = self.box
        if box is None and not self.points and self.mask is not None:
            corners = masks.bbox(self.mask)
            box = None if corners is None else Box(*corners)
        return Prompt(points=self.points, box=box)


def colours(count: int) -> list[tuple[int, int, int]]:
    """`count` RGB colours: the palette of overlays, and then hues a golden angle apart."""
    more = range(count - len(PALETTE))
    return [*PALETTE, *(_hue(0.07 + i * 0.61803398875, i) for i in more)][:count]


def _hue(hue: float, number: int) -> tuple[int, int, int]:
    import colorsys

    saturation = (0.85, 0.55, 0.7)[number % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, (0.95, 0.85, 0.7)[number // 3 % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


# --- PNG ----------------------------------------------------------------------------------------


def mask_png(mask: Mask) -> bytes:
    """A mask (H, W) bool as a greyscale PNG: 255 on the object, 0 off it."""
    return _png(Image.fromarray(mask.astype(np.uint8) * np.uint8(255)))


def read_mask_png(data: bytes) -> Mask:
    """The mask in a greyscale, 1-bit or indexed PNG: where it is not 0. `DataError` if none."""
    mask: Mask = _read_png(data) != 0
    return mask


def numbered(found: Sequence[Mask]) -> NDArray[np.int32]:
    """Masks of one photo (H, W) as numbers (H, W) int32: 0 off all, n on the n-th.

    Where masks overlap the smaller one is in front. `DataError` if there is no mask.
    """
    if not found:
        raise DataError("there is no mask to number: a picture without objects has no size")
    numbers = np.zeros(found[0].shape, np.int32)
    for index in sorted(range(len(found)), key=lambda i: -masks.area(found[i])):
        numbers[found[index]] = index + 1
    return numbers


def indexed_png(found: Sequence[Mask]) -> bytes:
    """Masks of one photo as an indexed PNG, a colour each: `numbered`, up to 255 of them."""
    _check_count(found, _MAX_INDEXED, "an indexed PNG", "a 16-bit PNG")
    picture = Image.fromarray(numbered(found).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, *(part for rgb in colours(len(found)) for part in rgb)])
    return _png(picture)


def ids_png(found: Sequence[Mask]) -> bytes:
    """Masks of one photo as a 16-bit greyscale PNG: `numbered`, up to 65,535 of them."""
    _check_count(found, _MAX_IDS, "a 16-bit PNG", "COCO")
    return _png(Image.fromarray(numbered(found).astype(np.uint16)))


def read_ids_png(data: bytes) -> list[Mask]:
    """The masks of an indexed or 16-bit PNG, from number 1 to the highest there is.

    A number that no pixel has, such as that of an object wholly behind others, is an empty mask.
    """
    numbers = _read_png(data)
    highest = int(numbers.max(initial=0))
    return [numbers == number for number in range(1, highest + 1)]


def _check_count(found: Sequence[Mask], limit: int, what: str, instead: str) -> None:
    if len(found) > limit:
        raise DataError(f"{what} holds up to {limit:,} objects, not {len(found):,}: use {instead}")


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _read_png(data: bytes) -> NDArray[Any]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"a mask may have up to {MAX_PIXELS / 1e6:g} million pixels")
            values = np.asarray(picture)
    except DataError:
        raise
    except Exception as error:  # whatever a decoder raises at untrusted bytes
        raise DataError(f"this is no PNG that can be read: {error}") from error
    if values.ndim != 2:
        raise DataError("a mask's PNG has one channel: save it as greyscale, 16-bit or indexed")
    return values


# --- outlines -----------------------------------------------------------------------------------


def outlines(mask: Mask, tolerance: float = 0.0) -> list[NDArray[np.float64]]:
    """One closed ring (N, 2) of x, y pixels for each piece of a mask, its holes joined by keyholes.

    The even-odd areas of the rings together are the mask: exactly so at `tolerance` 0, in pixels.

    >>> outlines(np.ones((1, 2), np.bool_))[0].tolist()
    [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]
    """
    pieces, count = masks.label(mask)
    rings = []
    for number in range(1, count + 1):
        outer, *holes = _contours(pieces == number if count > 1 else mask, tolerance)
        rings.append(_joined([outer, *holes]))
    return rings


def one_outline(mask: Mask, tolerance: float = 0.0) -> NDArray[np.float64]:
    """One closed ring (N, 2) around all of a mask, its pieces joined like its holes."""
    contours = _contours(mask, tolerance)
    return _joined(contours) if contours else np.zeros((0, 2))


def _contours(mask: Mask, tolerance: float) -> list[NDArray[np.float64]]:
    """The contours, the outer ones first."""
    found = masks.polygons(mask, tolerance)
    return [polygon.points for polygon in sorted(found, key=lambda polygon: polygon.hole)]


def _joined(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One ring that walks along all, over a bridge to each and back.

    A bridge is crossed twice, so it changes no even-odd area, wherever it lies.
    """
    whole = rings[0]
    for ring in rings[1:]:
        near = int(np.argmin(((whole - ring[0]) ** 2).sum(1)))
        whole = np.concatenate((whole[: near + 1], ring, ring[:1], whole[near:]))
    return whole


def fill_rings(rings: Iterable[NDArray[np.float64]], height: int, width: int) -> Mask:
    """The union of rings (N, 2) of x, y, each filled by the even-odd rule: (height, width) bool.

    Raises `DataError` for what is no ring, or would take gigabytes to fill.
    """
    filled = np.zeros((height, width), np.bool_)
    for ring in rings:
        if ring.ndim == 2 and ring.shape[1] == 2 and len(ring):
            rows = np.clip(ring[:, 1], 0, height)
            if np.abs(np.diff(rows, append=rows[:1])).sum() > _MAX_CROSSINGS:
                raise DataError("a polygon has too many long sides to be filled: simplify it")
        filled |= masks.fill_polygons([Polygon(ring, False)], height, width)
    return filled


# --- SVG ----------------------------------------------------------------------------------------


def svg(
    found: Sequence[Segmentation],
    height: int,
    width: int,
    *,
    tolerance: float = 1.0,
    labels: Sequence[str] | None = None,
) -> str:
    """Contours as an SVG drawing of the photo's size: a path for each object, largest at the back.

    A path carries the object's number (from 1), label and score as `data-` attributes; `tolerance`
    is in pixels, and 0 is exact.
    """
    names = _labels(found, labels)
    shades = colours(len(found))
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
    ]
    for index in sorted(range(len(found)), key=lambda i: -found[i].area):
        one, shade = found[index], "#{:02x}{:02x}{:02x}".format(*shades[index])
        contours = masks.polygons(one.mask, tolerance)
        path = " ".join("M" + " ".join(f"{x:g},{y:g}" for x, y in c.points) + "Z" for c in contours)
        lines.append(
            f'<path data-object="{index + 1}" data-label={quoteattr(names[index])} '
            f'data-score="{one.score:.4f}" fill="{shade}" fill-opacity="0.5" fill-rule="evenodd" '
            f'stroke="{shade}" d="{path}"><title>{escape(names[index])}</title></path>'
        )
    return "\n".join([*lines, "</svg>", ""])


# --- COCO ---------------------------------------------------------------------------------------


def coco_annotation(
    one: Segmentation,
    *,
    id: int,
    image_id: int,
    category_id: int = 1,
    polygons: bool = False,
    tolerance: float = 1.0,
) -> dict[str, Any]:
    """One object as an entry of a COCO instances file, with a `score` as result files have it.

    The mask is compressed RLE, or with `polygons` a list of rings; see https://cocodataset.org.
    """
    segmentation: Any = one.rle()
    if polygons:
        segmentation = [_numbers(ring) for ring in outlines(one.mask, tolerance)]
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox": _numbers(np.array(one.box.as_xywh() if one.box else (0, 0, 0, 0))),
        "area": one.area,
        "iscrowd": 0,
        "score": round(one.score, _DECIMALS),
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


def coco_mask(entry: Mapping[str, Any], height: int, width: int) -> Mask:
    """The mask (height, width) of an annotation: RLE, or rings filled by pixel centres.

    `data.coco` fills by the reference code's rule instead, which differs along the edges.
    Raises `DataError` if it has none, or one of another size.
    """
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, Mapping):
        if segmentation.get("size") != [height, width]:
            raise DataError("an annotation's RLE is of another size than its photo")
        return masks.rle_decode(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError("an annotation has no segmentation")
    return fill_rings([_ring(flat) for flat in segmentation], height, width)


def coco_box(entry: Mapping[str, Any]) -> Box:
    """The box of a COCO annotation or result. `DataError` if none, `PromptError` if empty."""
    box = _row(entry.get("bbox"), "a bbox")
    if len(box) != 4:
        raise DataError(f"a bbox has four numbers (x, y, width, height), not {len(box)}")
    x, y, width, height = box
    return Box(x, y, x + width, y + height)


# --- YOLO ---------------------------------------------------------------------------------------


def yolo(
    found: Sequence[Segmentation],
    *,
    class_ids: Sequence[int] | None = None,
    tolerance: float = 1.0,
) -> str:
    """Objects as YOLO segmentation labels: a line `class x1 y1 x2 y2 ...` for each, shares of 0..1.

    Pieces are joined to one polygon, as ultralytics' own converters do. An empty mask has no line.
    """
    lines = []
    for index, one in enumerate(found):
        height, width = one.mask.shape
        shares = one_outline(one.mask, tolerance) / (width, height)
        if len(shares):
            name = class_ids[index] if class_ids else 0
            lines.append(" ".join([str(name), *(f"{v:.{_DECIMALS}g}" for v in shares.ravel())]))
    return "".join(line + "\n" for line in lines)


def read_yolo(
    text: str, height: int, width: int, *, names: Mapping[int, str] | None = None
) -> list[Described]:
    """Objects of a YOLO label file for a photo of that size.

    A line is `class x y w h [score]` (a box by its centre) or `class x1 y1 x2 y2 x3 y3 ...`
    (a polygon), in shares of 0..1. `names` gives the classes names; else they are their numbers.
    Raises `DataError` for another line, `PromptError` for an empty box.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            kind, *rest = [int(words[0]), *map(float, words[1:])]
        except ValueError as error:
            raise DataError(f"line {number} has a word that is no number: {line[:60]!r}") from error
        values = np.array(rest)
        if not np.isfinite(values).all() or (np.abs(values) > 10).any():
            raise DataError(f"line {number} has numbers that are no shares of the photo's size")
        label = (names or {}).get(int(kind), str(int(kind)))
        if len(rest) in (4, 5):
            x, y, w, h = values[:4] * (width, height, width, height)
            box = Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            score = float(rest[4]) if len(rest) == 5 else None
            found.append(Described(box=box, label=label, score=score))
        elif len(rest) >= 6 and len(rest) % 2 == 0:
            ring = values.reshape(-1, 2) * (width, height)
            found.append(Described(mask=fill_rings([ring], height, width), label=label))
        else:
            raise DataError(
                f"line {number} has {len(rest)} numbers after the class: a box has 4 or 5, "
                "a polygon an even count from 6 on"
            )
    return found


# --- labelme ------------------------------------------------------------------------------------


def labelme(
    found: Sequence[Segmentation],
    name: str,
    height: int,
    width: int,
    *,
    tolerance: float = 1.0,
    labels: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Objects of the photo `name` as a labelme file, which lies beside the photo.

    A polygon for each piece; the pieces of one object share a group.
    """
    shapes = []
    for index, (one, label) in enumerate(zip(found, _labels(found, labels), strict=True)):
        for ring in outlines(one.mask, tolerance):
            shapes.append(
                {
                    "label": label,
                    "points": ring.tolist(),
                    "group_id": index + 1,
                    "description": f"score {one.score:.3f}",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
            )
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def read_labelme(document: Any) -> list[Described]:
    """Objects of a labelme file, in order of their first shapes.

    Polygons, circles and masks give masks, rectangles boxes, points clicks on the object. Shapes
    with the same group are one object. Lines have no area and are left out.
    Raises `DataError` for what is no labelme file.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("shapes"), list):
        raise DataError("this is no labelme file: it has no list 'shapes'")
    height, width = document.get("imageHeight"), document.get("imageWidth")
    if (
        type(height) is not int
        or type(width) is not int
        or not (height > 0 and width > 0 and height * width <= MAX_PIXELS)
    ):
        raise DataError("a labelme file needs imageHeight and imageWidth: save it with labelme")
    parts: dict[Any, list[Described]] = {}
    for index, shape in enumerate(document["shapes"]):
        try:
            part = _labelme_part(shape, height, width)
        except DataError as error:
            raise DataError(f"shape {index + 1} cannot be used: {error}") from error
        if part is not None:
            group = shape.get("group_id")
            key = ("alone", index) if group is None else (str(group), part.label)
            parts.setdefault(key, []).append(part)
    return [_united(group) for group in parts.values()]


def _labelme_part(shape: Any, height: int, width: int) -> Described | None:
    if not isinstance(shape, Mapping):
        raise DataError("it is no JSON object")
    label = shape.get("label")
    label = label if isinstance(label, str) and label else LABEL
    kind = shape.get("shape_type") or "polygon"
    if kind in ("line", "linestrip"):
        return None
    rows = shape.get("points")
    if not isinstance(rows, list) or not rows:
        raise DataError("it has no points")
    points = np.array([_pair(row) for row in rows])
    if kind == "point":
        x, y = points[0].tolist()
        return Described(points=(Point(x, y),), label=label)
    if kind == "points":
        return Described(points=tuple(Point(x, y) for x, y in points.tolist()), label=label)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return Described(box=Box(x0, y0, x1, y1), label=label)
    if kind == "polygon":
        return Described(mask=fill_rings([points], height, width), label=label)
    if kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        rows_, columns = np.ogrid[:height, :width]
        inside = np.hypot(columns + 0.5 - points[0, 0], rows_ + 0.5 - points[0, 1]) <= radius
        return Described(mask=inside, label=label)
    if kind == "mask":
        return Described(mask=_labelme_mask(shape, points, height, width), label=label)
    raise DataError(f"it is a {kind!r} of {len(points)} points, which is not known here")


def _labelme_mask(
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


def _united(parts: Sequence[Described]) -> Described:
    if len(parts) == 1:
        return parts[0]
    found = [part.mask for part in parts if part.mask is not None]
    boxes = np.array([(b.x0, b.y0, b.x1, b.y1) for p in parts if (b := p.box) is not None])
    return Described(
        mask=np.logical_or.reduce(found) if found else None,
        box=Box(*boxes[:, :2].min(0), *boxes[:, 2:].max(0)) if len(boxes) else None,
        points=tuple(point for part in parts for point in part.points),
        label=parts[0].label,
    )


# --- supervision --------------------------------------------------------------------------------


def detections(
    found: Sequence[Segmentation],
    *,
    class_ids: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
) -> supervision.Detections:
    """Objects as `supervision.Detections`, for its annotators, trackers and metrics.

    Needs the extra `supervision` (`MissingExtraError`). An empty mask has the box 0, 0, 0, 0.
    """
    sv = require("supervision", "supervision")
    if not found:
        empty: supervision.Detections = sv.Detections.empty()
        return empty
    boxes = [(b.x0, b.y0, b.x1, b.y1) if (b := one.box) else (0, 0, 0, 0) for one in found]
    made: supervision.Detections = sv.Detections(
        xyxy=np.array(boxes, np.float32),
        mask=np.stack([one.mask for one in found]),
        confidence=np.array([one.score for one in found], np.float32),
        class_id=np.array(class_ids if class_ids is not None else [0] * len(found)),
        data={"class_name": np.array(_labels(found, labels))},
    )
    return made


# --- shared -------------------------------------------------------------------------------------


def read_json(data: str | bytes, name: str) -> Any:
    """Parse JSON, or raise `DataError` that names the file."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not a JSON file, or it is cut short ({error})") from error


def _labels(found: Sequence[Segmentation], labels: Sequence[str] | None) -> list[str]:
    if labels is None:
        return [LABEL] * len(found)
    if len(labels) != len(found):
        raise DataError(f"{len(found)} objects need as many labels, not {len(labels)}")
    return list(labels)


def _numbers(values: NDArray[Any]) -> list[int | float]:
    """A flat list, whole numbers without a point."""
    return [int(v) if v == int(v) else float(v) for v in values.ravel().tolist()]


def _row(value: Any, what: str) -> list[float]:
    if not isinstance(value, list) or not all(
        type(v) in (int, float) and -1e9 < v < 1e9 for v in value
    ):
        raise DataError(f"{what} is a list of numbers")
    return [float(v) for v in value]


def _pair(value: Any) -> list[float]:
    pair = _row(value, "a point")
    if len(pair) != 2:
        raise DataError(f"a point has two numbers, not {len(pair)}")
    return pair


def _ring(flat: Any) -> NDArray[np.float64]:
    numbers = _row(flat, "a polygon")
    if len(numbers) < 6 or len(numbers) % 2:
        raise DataError("a polygon has an even count of numbers, six at least")
    return np.array(numbers).reshape(-1, 2)
