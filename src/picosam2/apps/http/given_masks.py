"""Masks that clients send with their prompts: a PNG file in base64, or COCO's run lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from picosam2.apps.http.errors import RequestError
from picosam2.errors import DataError, ImageError
from picosam2.masks import rle_decode
from picosam2.prompts import Prompt

GivenMask: TypeAlias = bytes | Mapping[str, Any]
"""A PNG file's bytes, or an RLE."""

MAX_COUNTS = 1_000_000
"""Characters, or numbers, of an RLE: decoding takes some hundred bytes for each."""

_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = "'mask' must be a PNG file in base64, or COCO's RLE {'size': [H, W], 'counts': ...}"
# Stands for a mask that is read once the image is there, so that the rest can be checked before.
_LATER = np.ones((1, 1), np.bool_)


@dataclass(frozen=True, eq=False)
class PromptRequest:
    """One object that a client asks for. If it has a mask, that of `prompt` only stands for it."""

    prompt: Prompt
    mask: GivenMask | None = None


def read_prompt_request(value: Any, decode_base64: Callable[[Any, str], bytes]) -> PromptRequest:
    """A prompt in JSON, with a mask or without. Raises `PromptError`, `RequestError`."""
    if not isinstance(value, Mapping) or value.get("mask") is None:
        if isinstance(value, Mapping):
            value = {key: each for key, each in value.items() if key != "mask"}
        return PromptRequest(Prompt.from_json(value))
    mask: GivenMask
    if isinstance(sent := value["mask"], Mapping):
        if set(sent) != {"size", "counts"} or not isinstance(sent["counts"], str | list):
            raise RequestError(400, _KINDS)
        if len(sent["counts"]) > MAX_COUNTS:
            raise RequestError(400, f"'counts' is too long: {MAX_COUNTS:,} at most, or send a PNG")
        mask = sent
    elif isinstance(sent, str):
        mask = decode_base64(sent, "mask")
        if not mask.startswith(_PNG):
            raise RequestError(400, _KINDS)
    else:
        raise RequestError(400, _KINDS)
    rest = {key: each for key, each in value.items() if key != "mask"}
    return PromptRequest(Prompt.from_json(rest, _LATER), mask)


def with_mask(
    request: PromptRequest,
    height: int,
    width: int,
    decode: Callable[[bytes], npt.NDArray[np.uint8]],
) -> PromptRequest:
    """The same with its mask read, for an image of `height` x `width` pixels.

    `decode` gives the pixels (H, W, 3) uint8 of a PNG file's bytes.

    Raises:
        RequestError: the mask cannot be read, or has another size.
        PromptError: it is empty, and there is nothing else that says where the object is.
    """
    if request.mask is None:
        return request
    if isinstance(request.mask, bytes):
        try:
            pixels = decode(request.mask)
        except ImageError as error:
            raise RequestError(400, f"'mask': {error}") from error
        _check_size(pixels.shape[:2], height, width)
        if (pixels != pixels[..., :1]).any():
            raise RequestError(400, "'mask' has colors: send one object, white on black")
        mask = pixels[..., 0] > 127
    else:
        size = request.mask["size"]
        if isinstance(size, list) and len(size) == 2:
            _check_size(size, height, width)
        try:
            mask = rle_decode(request.mask, max_pixels=height * width)
        except DataError as error:
            raise RequestError(400, f"'mask': {error}") from error
        _check_size(mask.shape, height, width)
    return PromptRequest(replace(request.prompt, mask=mask))


def _check_size(size: Any, height: int, width: int) -> None:
    if list(size) != [height, width]:
        rows, columns = (str(number)[:12] for number in size)
        raise RequestError(
            400,
            f"the mask has {columns} x {rows} pixels and the image {width} x {height}: "
            "send a mask of the image's size",
        )
