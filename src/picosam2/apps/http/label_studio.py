"""The protocol of Label Studio's ML backends: smart keypoints and rectangles get masks.

Label Studio sends the address of a task's image. None is opened: images come as data URLs in the
task, or from a folder that the operator names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from picosam2.apps.http.bodies import Bytes, content_kind, parse
from picosam2.apps.http.errors import RequestError
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.schemas import check_count, decode_base64
from picosam2.apps.http.service import Service
from picosam2.errors import PromptError
from picosam2.masks import Polygon, fill_polygons
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import Segmentation

_RUN_BITS = (3, 4, 8, 16)  # of the four kinds of runs in Label Studio's RLE
_HEADER_BITS = 32 + 5 + 4 * 4
_MAX_CORNERS = 1000  # of a polygon: each may cross every row of the image
_OUTPUTS = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}
_WORDS = re.compile(r"(\w+?)(?:labels)?", re.ASCII)


class Region(BaseModel):
    """A keypoint, rectangle, brush or polygon that the user has drawn, in percent of the image."""

    model_config = ConfigDict(extra="ignore")

    type: str
    value: dict[str, Any]
    is_positive: bool = True
    original_width: int | None = None
    original_height: int | None = None


class Context(BaseModel):
    """What the user has drawn."""

    model_config = ConfigDict(extra="ignore")

    result: list[Region] = []


class Params(BaseModel):
    """Where newer versions of Label Studio put the context."""

    model_config = ConfigDict(extra="ignore")

    context: Context | None = None


class Task(BaseModel):
    """One image."""

    model_config = ConfigDict(extra="ignore")

    data: dict[str, Any]


class PredictBody(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="ignore")

    tasks: list[Task] = Field(min_length=1, max_length=1000)
    label_config: str = Field(max_length=200_000)
    params: Params | None = None
    context: Context | None = None


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What a project's labeling interface calls things."""

    image: str
    """The key of a task's image."""
    to_name: str
    from_name: str
    output: str
    """`brushlabels` or `polygonlabels`."""


class ImageFolder:
    """The operator's folder, in which tasks name images."""

    def __init__(self, folder: Path | None, limits: Limits) -> None:
        """Read files in `folder` only; none if it is None."""
        self._folder = None if folder is None else folder.resolve()
        self._limits = limits

    def read(self, name: Any) -> bytes:
        """The bytes of a task's image.

        Raises:
            RequestError: it is neither a data URL nor a file of the folder.
        """
        if not isinstance(name, str) or not name:
            raise RequestError(400, "the task has no image")
        if name.startswith("data:"):
            return decode_base64(name)
        if self._folder is None:
            raise RequestError(
                400, "the task's image is an address: start the server with --images FOLDER"
            )
        missing = RequestError(404, "the folder of --images does not hold the task's image")
        try:
            path = (self._folder / _relative(name)).resolve()
            if not path.is_relative_to(self._folder) or not path.is_file():
                raise missing
            if path.stat().st_size > self._limits.body:
                raise RequestError(413, f"the image has more than {self._limits.body:,} bytes")
            return path.read_bytes()
        except (OSError, ValueError):
            raise missing from None


def add_routes(
    app: FastAPI, service: Service, limits: Limits, weights: str, images: Path | None
) -> None:
    """Answer Label Studio's requests, within the limits of all others.

    Args:
        app: what the routes are added to.
        service: what answers.
        limits: bounds on requests.
        weights: the weights' hash, for the model's version.
        images: the folder in which tasks name images; None for data URLs only.
    """
    folder = ImageFolder(images, limits)
    model_version = f"picosam2-{weights[:12]}"

    @app.post("/setup")
    async def setup(request: Request) -> Response:
        """The model's version, for Label Studio."""
        with service.bodies.holding() as held:
            await service.bodies.read(request, held)
        return JSONResponse({"model_version": model_version})

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        """Masks for what a user has drawn in Label Studio."""

        def read(body: Bytes) -> tuple[PredictBody, Tags, list[Region], Bytes]:
            if content_kind(request) != "application/json":
                raise RequestError(415, "send a JSON object as application/json")
            body_read = parse(PredictBody, body, limits)
            tags = read_tags(body_read.label_config)
            context = body_read.context or (body_read.params.context if body_read.params else None)
            regions = context.result if context else []
            check_count(limits, 1, len(regions))
            data = folder.read(body_read.tasks[0].data.get(tags.image)) if regions else b""
            return body_read, tags, regions, data

        def results(predictions: Sequence[dict[str, Any]], count: int) -> dict[str, Any]:
            nothing: dict[str, Any] = {"result": [], "score": 0.0, "model_version": model_version}
            filled = [{**nothing, **each} for each in predictions]
            return {
                "results": filled + [nothing] * (count - len(filled)),
                "model_version": model_version,
            }

        with service.bodies.holding() as held:
            service.check_room()
            body_read, tags, regions, data = await service.read(request, held, read)
            count = len(body_read.tasks)
            if not regions:  # Label Studio asks for predictions before anybody has clicked
                return JSONResponse(results([], count))
            labels = _labels(regions)
            return await service.answer(
                request,
                held,
                data,
                lambda height, width: [prompt_of(regions, height, width)],
                lambda segmentations: results(
                    [
                        {
                            "result": items(segmentations[0], tags, labels),
                            "score": float(segmentations[0].score),
                        }
                    ],
                    count,
                ),
            )


def read_tags(label_config: str) -> Tags:
    """The names in a project's labeling interface. Raises `RequestError`."""
    if "<!" in label_config.replace("<!--", ""):
        raise RequestError(400, "'label_config' must not declare a document type")
    try:
        tree = ElementTree.fromstring(label_config)
    except ElementTree.ParseError:
        raise RequestError(400, "'label_config' is not XML") from None
    images = {image.get("name", ""): image for image in tree.iter("Image")}
    for name, output in _OUTPUTS.items():
        for tag in tree.iter(name):
            image = images.get(tag.get("toName", ""))
            if image is not None:
                return Tags(
                    image=image.get("value", "").removeprefix("$"),
                    to_name=image.get("name", ""),
                    from_name=tag.get("name", ""),
                    output=output,
                )
    raise RequestError(400, "'label_config' has no BrushLabels or PolygonLabels of an Image")


def prompt_of(regions: Sequence[Region], height: int, width: int) -> Prompt:
    """What the user has drawn on an image of that size, as one object.

    A brush or a polygon is the mask so far, which keypoints correct; several are its parts.

    Raises:
        PromptError: it is nothing that can be used.
    """
    points: list[Point] = []
    box: Box | None = None
    mask: npt.NDArray[np.bool_] | None = None
    for region in regions:
        stated = region.original_width, region.original_height
        if stated != (None, None) and stated != (width, height):
            raise PromptError(
                f"the regions are of an image of {stated[0]}x{stated[1]}, but the task's has "
                f"{width}x{height}"
            )
        kind = _WORDS.fullmatch(region.type)
        if kind and kind[1] in ("brush", "polygon", "rectangle") and not region.is_positive:
            raise PromptError(f"a negative {kind[1]} cannot be used: use negative keypoints")
        if kind and kind[1] in ("brush", "polygon"):
            part = (_read_brush if kind[1] == "brush" else _read_polygon)(region, height, width)
            mask = part if mask is None else mask | part
            continue
        x, y = (_percent(region, key) for key in "xy")
        if kind and kind[1] == "keypoint":
            # 100 % is the far edge of the last pixel.
            place = min(x * width, width - 0.01), min(y * height, height - 0.01)
            points.append(Point(*place, region.is_positive))
        elif kind and kind[1] == "rectangle":
            if box is not None:
                raise PromptError("there are several rectangles: draw one for each object")
            if region.value.get("rotation"):
                raise PromptError("a rotated rectangle cannot be used: draw an upright one")
            x1, y1 = x + _percent(region, "width"), y + _percent(region, "height")
            box = Box(x * width, y * height, min(x1, 1) * width, min(y1, 1) * height)
        else:
            raise PromptError(
                f"a region of type {region.type[:40]!a} is no prompt: use keypoints, rectangles, "
                "brushes or polygons"
            )
    return Prompt(tuple(points), box=box, mask=mask)


def items(result: Segmentation, tags: Tags, labels: Sequence[str]) -> list[dict[str, Any]]:
    """A mask as Label Studio's regions: one brush, or a polygon for each outer contour."""
    height, width = result.mask.shape
    if not result.mask.any():
        return []
    if tags.output == "brushlabels":
        values: list[dict[str, Any]] = [{"format": "rle", "rle": brush_rle(result.mask)}]
    else:
        scale = np.array([100 / width, 100 / height])
        values = [
            {"points": (polygon.points * scale).tolist(), "closed": True}
            for polygon in result.polygons()
            if not polygon.hole
        ]
    return [
        {
            "from_name": tags.from_name,
            "to_name": tags.to_name,
            "type": tags.output,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "readonly": False,
            "score": float(result.score),
            "value": {**value, tags.output: list(labels)},
        }
        for value in values
    ]


def brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask as the bytes of Label Studio's RLE, four equal channels of 0 or 255 a pixel.

    A header names the number of values (32 bits), their size (5) and four sizes of run lengths (4
    each), all sizes less 1. A run is a bit 1, the kind of its length (2), its length less 1, and
    its value.
    """
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    bits = [f"{flat.size * 4:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    start = 0
    for end in ends.tolist():
        value, length = int(flat[start]) * 255, (end - start) * 4
        while length:
            part = min(length, 1 << _RUN_BITS[-1])
            kind = next(i for i, size in enumerate(_RUN_BITS) if part <= 1 << size)
            bits.append(f"1{kind:02b}{part - 1:0{_RUN_BITS[kind]}b}{value:08b}")
            length -= part
        start = end
    ones = np.frombuffer("".join(bits).encode(), np.uint8) == ord("1")
    packed: list[int] = np.packbits(ones).tolist()
    return packed


def read_brush_rle(rle: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask (height, width) of Label Studio's RLE: where its fourth channel is above 127.

    Raises:
        PromptError: it is damaged, or of an image of another size.
    """
    try:
        data = bytes(rle) if isinstance(rle, list) else b""
    except (TypeError, ValueError):
        data = b""
    bits = f"{int.from_bytes(data):0{8 * len(data)}b}"
    count = height * width * 4
    if len(bits) < _HEADER_BITS or int(bits[:32], 2) != count or int(bits[32:37], 2) != 8 - 1:
        raise PromptError(f"a brush's rle is damaged, or not of an image of {width}x{height}")
    lengths = [int(bits[at : at + 4], 2) + 1 for at in range(37, _HEADER_BITS, 4)]
    values = np.zeros(count, np.uint8)
    at, done = _HEADER_BITS, 0
    while done < count and at + 3 <= len(bits):
        same, size = bits[at] == "1", lengths[int(bits[at + 1 : at + 3], 2)]
        start = at + 3 + size
        length = int(bits[at + 3 : start] or "0", 2) + 1
        at = start + 8 * (1 if same else length)
        if at > len(bits) or done + length > count:
            break
        read = [int(bits[first : first + 8], 2) for first in range(start, at, 8)]
        values[done : done + length] = read
        done += length
    if done < count:
        raise PromptError(f"a brush's rle is damaged, or not of an image of {width}x{height}")
    mask: npt.NDArray[np.bool_] = values.reshape(height, width, 4)[..., 3] > 127
    return mask


def _read_brush(region: Region, height: int, width: int) -> npt.NDArray[np.bool_]:
    if region.value.get("format") != "rle":
        raise PromptError("a brush must be of the format rle")
    return read_brush_rle(region.value.get("rle"), height, width)


def _read_polygon(region: Region, height: int, width: int) -> npt.NDArray[np.bool_]:
    points = region.value.get("points")
    if not isinstance(points, list) or not 3 <= len(points) <= _MAX_CORNERS:
        raise PromptError(f"a polygon must have 3 to {_MAX_CORNERS:,} points")
    corners = []
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise PromptError("a polygon's points must be [x, y]")
        x, y = (_share(number, "polygon's points") for number in point)
        corners.append((x * width, y * height))
    return fill_polygons([Polygon(np.array(corners), hole=False)], height, width)


def _labels(regions: Sequence[Region]) -> list[str]:
    """The labels of the region that was drawn last and has some."""
    for region in reversed(regions):
        labels = region.value.get(region.type)
        if isinstance(labels, list) and labels:
            return [str(label)[:200] for label in labels[:10]]
    return []


def _percent(region: Region, key: str) -> float:
    """A value of a region as a part of the image, 0..1."""
    return _share(region.value.get(key), f"region's {key}")


def _share(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise PromptError(f"a {name} must be a number of percent, 0 to 100")
    return value / 100


def _relative(name: str) -> str:
    """The path below the folder that a task's address means."""
    parts = urlsplit(name)
    path = unquote(parts.path)
    if path.rstrip("/") == "/data/local-files":
        return parse_qs(parts.query).get("d", [""])[0].lstrip("/")
    if path.startswith("/data/upload/"):
        return path.removeprefix("/data/upload/").lstrip("/")
    if parts.scheme or parts.netloc:
        raise ValueError("an address elsewhere")
    return path.lstrip("/")
