"""The forms in which commands write what they found: one file for a photo, or for an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from picosam2.results import Segmentation

Format: TypeAlias = Literal[
    "overlay",
    "mask",
    "cutout",
    "json",
    "indexed",
    "ids",
    "svg",
    "coco",
    "coco-polygons",
    "yolo",
    "labelme",
]

ENDINGS: dict[str, tuple[str, ...]] = {
    "overlay": (".png", ".jpg", ".jpeg"),
    "mask": (".png",),
    "cutout": (".png",),
    "json": (".json",),
    "indexed": (".png",),
    "ids": (".png",),
    "svg": (".svg",),
    "coco": (".json",),
    "coco-polygons": (".json",),
    "yolo": (".txt",),
    "labelme": (".json",),
}
"""File name endings by format; the first is the usual one."""

PER_OBJECT = ("mask", "cutout")
"""Formats that have a file for each object."""

MANY_PHOTOS = ("coco", "coco-polygons")
"""Formats whose file can hold many photos."""

Tolerance = Annotated[
    float,
    Parameter(
        help="How far outlines may lie from the mask's edge, in pixels; 0 is exact, with more "
        "points. For svg, coco-polygons, yolo and labelme.",
        validator=Number(gte=0),
    ),
]


def tail(format: Format) -> str:
    """What follows the photo's name in a file's name, before the ending."""
    return f"-{format}" if ENDINGS[format][0] == ".png" else ""


def encode(
    format: Format,
    photo: str,
    picture: npt.NDArray[np.uint8],
    found: Sequence[Segmentation],
    *,
    jpeg: bool = False,
    prompts: bool = True,
    labels: Sequence[str] | None = None,
    class_ids: Sequence[int] | None = None,
    tolerance: float = 1.0,
) -> bytes:
    """A file's content for one photo, or for one object with a format of `PER_OBJECT`.

    `json` is the one format that is not made here: it names the weights. `prompts` draws them on
    an overlay; without them each object has a colour of its own, however many there are.
    """
    from picosam2.io import formats
    from picosam2.results import encode_picture, overlay

    height, width = picture.shape[:2]
    kind = "JPEG" if jpeg else "PNG"
    if format == "overlay":
        if prompts:
            return encode_picture(overlay(picture, found), kind)
        shades = formats.colours(max(len(found), 1))
        return encode_picture(overlay(picture, found, colors=shades, prompts=False), kind)
    if format == "mask":
        return formats.mask_png(found[0].mask)
    if format == "cutout":
        return encode_picture(found[0].cutout(), "PNG")
    if format in ("indexed", "ids"):
        write = formats.indexed_png if format == "indexed" else formats.ids_png
        return write([one.mask for one in found] or [_nothing(height, width)])
    if format == "svg":
        return formats.svg(found, height, width, tolerance=tolerance, labels=labels).encode()
    if format == "yolo":
        return formats.yolo(found, class_ids=class_ids, tolerance=tolerance).encode()
    if format == "labelme":
        return as_json(
            formats.labelme(found, photo, height, width, tolerance=tolerance, labels=labels)
        )
    annotations = [
        formats.coco_annotation(
            one, id=number, image_id=1, polygons=format == "coco-polygons", tolerance=tolerance
        )
        for number, one in enumerate(found, 1)
    ]
    image = {"id": 1, "file_name": photo, "height": height, "width": width}
    return as_json(formats.coco_document([image], annotations))


def as_json(document: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    import json

    return (json.dumps(document, allow_nan=False) + "\n").encode()


def _nothing(height: int, width: int) -> npt.NDArray[np.bool_]:
    import numpy as np

    return np.zeros((height, width), np.bool_)
