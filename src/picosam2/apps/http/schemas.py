"""What requests and answers are made of: the models that are validated and described.

The OpenAPI document is generated from these models, so it describes what the server really takes.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from picosam2.apps.http.errors import RequestError, larger
from picosam2.apps.http.given_masks import PromptRequest, read_prompt_request
from picosam2.apps.http.limits import Limits

Format: TypeAlias = Literal["json", "mask", "overlay", "cutout"]
"""JSON, or a PNG: the mask (indexed for several objects), the image with the masks drawn on it, or
one object on a clear ground."""

MAX_MASKS = 300
"""Masks that a request for everything may ask for."""

_DATA_URL = re.compile(r"data:[\w.+/;=-]{0,100},", re.ASCII)
_SPACE = re.compile(r"\s+", re.ASCII)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


# -- requests ----------------------------------------------------------------------------------


class PromptJson(_Model):
    """One object: points, a box, or both. Points are clicks in their order."""

    points: list[tuple[float, float] | tuple[float, float, Literal[0, 1]]] | None = Field(
        None, description="[x, y] or [x, y, label]: pixels; 1 is on the object, 0 off it."
    )
    box: tuple[float, float, float, float] | None = Field(
        None, description="Left, top, right, bottom in pixels."
    )


class RleJson(_Model):
    """COCO's run lengths, compressed or as a list."""

    size: tuple[int, int] = Field(description="Height, width.")
    counts: str | list[int]


class AskedJson(PromptJson):
    """One object: points, a box, a mask so far, or several of them."""

    mask: str | RleJson | None = Field(
        None,
        description="The mask so far, of the image's size: a PNG file (white is on the object) in "
        "base64 or as a data URL, or an RLE. The points say what is wrong in it.",
    )


def decode_base64(value: Any, name: str = "image") -> bytes:
    """The bytes of base64 text, which may be broken into lines or be a data URL."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise RequestError(400, f"'{name}' must be an image file's bytes in base64")
    if header := _DATA_URL.match(value):
        if not header[0].endswith(";base64,"):
            raise RequestError(
                400, f"'{name}' is a data URL that is not base64: end it in ;base64,"
            )
        value = value[header.end() :]
    try:
        return base64.b64decode(_SPACE.sub("", value), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            400, f"'{name}' is not base64: send a file's bytes as `base64 FILE` prints them"
        ) from None


AskedValue = Annotated[
    PromptRequest,
    PlainValidator(
        partial(read_prompt_request, decode_base64=decode_base64), json_schema_input_type=AskedJson
    ),
]


ImageBytes = Annotated[
    bytes,
    BeforeValidator(lambda value: decode_base64(value), json_schema_input_type=str),
    Field(description="An image file's bytes in base64, or a data URL of them."),
]


class SegmentOptions(_Model):
    """How masks are to be made and sent."""

    multimask: bool = Field(False, description="Three masks for each point.")
    format: Format = "json"


class SegmentQuery(SegmentOptions):
    """Prompts in a query or in the fields of a form."""

    point: list[Annotated[str, StringConstraints(max_length=64)]] = Field(
        [], description="X,Y or X,Y,LABEL; each is one object."
    )
    box: list[Annotated[str, StringConstraints(max_length=64)]] = Field(
        [], description="X0,Y0,X1,Y1; each is one object."
    )


class SegmentKept(SegmentOptions):
    """Prompts on the image of a session."""

    prompts: list[AskedValue] = Field([], description="At least one.")
    multimask: StrictBool = Field(False, description="Three masks for each point.")

    @field_validator("prompts", mode="before")
    @classmethod
    def _check_count(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse too many before any is read."""
        if isinstance(value, list) and isinstance(info.context, Limits):
            check_count(info.context, len(value), sum(map(_count_points, value)))
        return value


class SegmentBody(SegmentKept):
    """An image and prompts on it."""

    image: ImageBytes


class EverythingQuery(_Model):
    """How the masks of all objects are to be made and sent."""

    max_masks: int = Field(
        100, ge=1, le=MAX_MASKS, description="So many masks at most, the best ones."
    )
    format: Literal["json", "mask", "overlay"] = "json"


class SessionBody(_Model):
    """An image to keep."""

    image: ImageBytes


def check_count(limits: Limits, prompts: int, points: int) -> None:
    """Raise `RequestError` for more objects or points than one request may have."""
    for count, most, name, more in (
        (prompts, limits.prompts, "prompts", larger("--max-prompts")),
        (points, limits.points, "points", ""),
    ):
        if count > most:
            raise RequestError(400, f"{count} {name} are too many: send up to {most}{more}")


def _count_points(value: Any) -> int:
    points = value.get("points") if isinstance(value, dict) else None
    return len(points) if isinstance(points, list) else 0


# -- answers -----------------------------------------------------------------------------------


class Rle(_Model):
    """COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="Height, width.")
    counts: str


class PolygonJson(_Model):
    """One contour."""

    points: list[tuple[float, float]]
    hole: bool


class Mask(_Model):
    """One mask: what `Segmentation.to_json` writes."""

    prompt: PromptJson
    box: tuple[float, float, float, float] | None = Field(
        description="The tight box around the mask; null if the mask is empty."
    )
    score: float = Field(ge=0, le=1, description="The predicted IoU with the object.")
    area: int = Field(description="Pixels.")
    size: tuple[int, int] = Field(description="Height, width.")
    rle: Rle
    polygons: list[PolygonJson]


class Masks(_Model):
    """The masks of a request, in the order of its prompts."""

    width: int
    height: int
    masks: list[Mask]


class AllMasks(_Model):
    """The masks of all objects, the largest first."""

    width: int
    height: int
    masks: list[Mask] = Field(description="Each prompt is the box that led to the mask.")


class Session(_Model):
    """An image that is kept."""

    session: str
    width: int
    height: int
    expires_in: float = Field(description="Seconds without a click until it is forgotten.")


class Index(_Model):
    """What this is."""

    name: str
    openapi: str


class Health(_Model):
    """The server runs."""

    status: str
    weights: str = Field(description="The SHA-256 hash of the weights.")


class Error(_Model):
    """What is wrong, in one sentence."""

    error: str


# -- mistakes ----------------------------------------------------------------------------------


def describe(error: ValidationError, model: type[BaseModel], kind: str = "key") -> str:
    """The first mistake of a request as a sentence; `kind` is what its names are called."""
    first = error.errors(include_url=False, include_input=False)[0]
    return describe_mistake(dict(first), list(model.model_fields), kind)


def describe_mistake(mistake: dict[str, Any], names: list[str], kind: str) -> str:
    """One of pydantic's mistakes as a sentence."""
    path = [str(part) for part in mistake["loc"]]
    name, context = ascii(path[-1][:40]) if path else "the body", mistake.get("ctx", {})
    match mistake["type"]:
        case "json_invalid":
            return "the body is not JSON"
        case "model_type" | "model_attributes_type":
            return "the body must be a JSON object"
        case "extra_forbidden" if path == ["image"]:
            return "this session has its image: leave 'image' out"
        case "extra_forbidden":
            return f"there is no {kind} {name}: use {', '.join(names)}"
        case "missing" if path[-1:] == ["image"]:
            return "there is no image: send its bytes, or base64 in 'image'"
        case "list_type" if path == ["prompts"]:
            return "'prompts' must be a list of objects with 'points', 'box' or 'mask'"
        case "literal_error":
            return f"{name} must be one of {str(context['expected']).replace(chr(39), '')}"
        case "bool_type" | "bool_parsing":
            return f"{name} must be true or false"
        case "string_too_long":
            return "a coordinate has too many digits"
        case _:
            return f"{name}: {mistake['msg'].lower()}"
