"""Masks as PNG files: one object as black and white, or a number for each object of an image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picosam2 import masks
from picosam2.errors import DataError
from picosam2.images import MAX_PIXELS
from picosam2.io.formats.objects import colors
from picosam2.masks import Mask

MAX_INDEXED: Final = 255
"""Objects that an indexed PNG can hold."""
_MAX_IDS: Final = 65_535


def mask_png(mask: Mask) -> bytes:
    """A mask (H, W) bool as a grayscale PNG: 255 on the object, 0 off it."""
    return _encode(Image.fromarray(mask.astype(np.uint8) * np.uint8(255)))


def read_mask_png(data: bytes) -> Mask:
    """The mask (H, W) bool in a grayscale, 1-bit or indexed PNG: where it is not 0.

    Raises:
        DataError: this is no such PNG.
    """
    mask: Mask = _decode(data) != 0
    return mask


def numbered(object_masks: Sequence[Mask]) -> NDArray[np.int32]:
    """Masks of one image (H, W) bool as numbers (H, W) int32: 0 off all, n on the n-th.

    Where masks overlap the smaller one is in front.

    Raises:
        DataError: there is no mask.
    """
    if not object_masks:
        raise DataError("there is no mask to number: an image without objects has no size")
    numbers = np.zeros(object_masks[0].shape, np.int32)
    for index in sorted(range(len(object_masks)), key=lambda i: -masks.area(object_masks[i])):
        numbers[object_masks[index]] = index + 1
    return numbers


def indexed_png(object_masks: Sequence[Mask]) -> bytes:
    """Masks of one image (H, W) bool as an indexed PNG, a color each: `numbered`, up to 255.

    Raises:
        DataError: there is no mask, or there are more than 255.
    """
    _check_count(object_masks, MAX_INDEXED, "an indexed PNG", "a 16-bit PNG")
    image = Image.fromarray(numbered(object_masks).astype(np.uint8), "P")
    shades = colors(len(object_masks))
    image.putpalette([0, 0, 0, *(channel for rgb in shades for channel in rgb)])
    return _encode(image)


def ids_png(object_masks: Sequence[Mask]) -> bytes:
    """Masks of one image (H, W) bool as a 16-bit grayscale PNG: `numbered`, up to 65,535.

    Raises:
        DataError: there is no mask, or there are more than 65,535.
    """
    _check_count(object_masks, _MAX_IDS, "a 16-bit PNG", "COCO")
    return _encode(Image.fromarray(numbered(object_masks).astype(np.uint16)))


def read_ids_png(data: bytes) -> list[Mask]:
    """The masks (H, W) bool of an indexed or 16-bit PNG, from number 1 to the highest there is.

    A number that no pixel has, such as that of an object wholly behind others, is an empty mask.

    Raises:
        DataError: this is no such PNG.
    """
    numbers = _decode(data)
    highest = int(numbers.max(initial=0))
    return [numbers == number for number in range(1, highest + 1)]


def _check_count(object_masks: Sequence[Mask], limit: int, what: str, instead: str) -> None:
    if len(object_masks) > limit:
        raise DataError(
            f"{what} holds up to {limit:,} objects, not {len(object_masks):,}: use {instead}"
        )


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _decode(data: bytes) -> NDArray[Any]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"a mask may have up to {MAX_PIXELS / 1e6:g} million pixels")
            values = np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # whatever a decoder raises at untrusted bytes
        raise DataError(f"this is no PNG that can be read: {error}") from error
    if values.ndim != 2:
        raise DataError("a mask's PNG has one channel: save it as grayscale, 16-bit or indexed")
    return values
