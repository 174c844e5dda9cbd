"""The file formats of the commands: one image's objects, or one object, as the bytes of a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from picosam2.io import formats
from picosam2.io.extras import FileExtras, apply_alpha
from picosam2.results import Segmentation, encode_image, overlay

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

ENDINGS: dict[Format, tuple[str, ...]] = {
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

DRAWN: tuple[Format, ...] = ("overlay", "cutout")
"""Formats that show the image's own pixels."""

PER_OBJECT: tuple[Format, ...] = ("mask", "cutout")
"""Formats that have a file for each object."""

MANY_IMAGES: tuple[Format, ...] = ("coco", "coco-polygons")
"""Formats whose file can hold many images."""


MARK = "picosam2"
"""The key in JSON files by which this project knows its own results; see `marked`."""


def name_suffix(format: Format) -> str:
    """What follows the image's name in a file's name, before the ending."""
    return f"-{format}" if ENDINGS[format][0] == ".png" else ""


def encode(
    format: Format,
    image_name: str,
    image: npt.NDArray[np.uint8],
    objects: Sequence[Segmentation],
    *,
    jpeg: bool = False,
    prompts: bool = True,
    labels: Sequence[str] | None = None,
    class_ids: Sequence[int] | None = None,
    tolerance: float = 1.0,
    weights: Mapping[str, str] | None = None,
    extras: FileExtras | None = None,
) -> bytes:
    """A file's content for one image, or for one object with a format of `PER_OBJECT`.

    Args:
        format: what is written.
        image_name: what the file calls the image.
        image: (H, W, 3) uint8 RGB.
        objects: the image's objects; one, with a format of `PER_OBJECT`.
        jpeg: an overlay as JPEG instead of PNG.
        prompts: draw the prompts on an overlay; without them each object has a color of its own,
            however many there are.
        labels: the objects' classes, for svg and labelme.
        class_ids: the objects' class numbers, for yolo.
        tolerance: how far outlines may lie from the mask's edge, in pixels.
        weights: the weights' name and SHA-256, for json.
        extras: what the image's file holds beside its colors, for overlays and cut-outs.
    """
    extras = extras or FileExtras()
    height, width = image.shape[:2]
    kind = "JPEG" if jpeg else "PNG"
    if format == "overlay":
        colors = None if prompts else formats.colors(max(len(objects), 1))
        drawn = overlay(image, objects, colors=colors, prompts=prompts)
        drawn.info.update(extras.info.items())
        return encode_image(drawn, kind)
    if format == "mask":
        return formats.mask_png(objects[0].mask)
    if format == "cutout":
        cutout = apply_alpha(objects[0].cutout(), extras)
        cutout.info.update(extras.info.items())
        return encode_image(cutout, "PNG")
    if format in ("indexed", "ids"):
        write = formats.indexed_png if format == "indexed" else formats.ids_png
        empty = np.zeros((height, width), np.bool_)
        return write([segmentation.mask for segmentation in objects] or [empty])
    if format == "json":
        document = {
            "image": image_name,
            "size": [height, width],
            "weights": dict(weights or {}),
            "masks": [segmentation.to_json() for segmentation in objects],
        }
        return json_line(marked(document))
    if format == "svg":
        return formats.svg(objects, height, width, tolerance=tolerance, labels=labels).encode()
    if format == "yolo":
        return formats.yolo(objects, class_ids=class_ids, tolerance=tolerance).encode()
    if format == "labelme":
        document = formats.labelme(
            objects, image_name, height, width, tolerance=tolerance, labels=labels
        )
        return json_line(marked(document))
    if format in ("coco", "coco-polygons"):
        annotations = [
            formats.coco_annotation(
                segmentation,
                id=number,
                image_id=1,
                polygons=format == "coco-polygons",
                tolerance=tolerance,
            )
            for number, segmentation in enumerate(objects, 1)
        ]
        entry = {"id": 1, "file_name": image_name, "height": height, "width": width}
        return json_line(marked(formats.coco_document([entry], annotations)))
    raise AssertionError(f"the format {format} has no case here")


def json_line(document: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    return (json.dumps(document, allow_nan=False) + "\n").encode()


def marked(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with a mark of this project, which no longer fits once it is edited."""
    return {**document, MARK: {"sha256": _digest(document)}}


def is_marked(path: Path) -> bool:
    """Whether a file is a document of `marked` that nobody has edited since."""
    try:
        document = json.loads(path.read_bytes())
        mark = document.pop(MARK)["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return bool(mark == _digest(document))


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
