"""A mask of one object from an image file, as a prompt: what `--mask` takes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picosam2.errors import DataError
from picosam2.images import MAX_PIXELS, without_warnings

_FORM: Final = "give a PNG that is black off the object and white on it"
_NUMBERED: Final = ("P", "I", "I;16", "I;16B")  # modes of images of which each value is an object


def read_mask_file(path: Path) -> NDArray[np.bool_] | NDArray[np.float32]:
    """The mask of one object, in a PNG.

    With 0 and one other value the object is where it is not 0. With more values of gray, these are
    the mask's probability. Of an image that is transparent
    somewhere, such as a cut-out, the opacity is taken.

    Returns:
        (H, W) bool, or float32 of 0..1.

    Raises:
        DataError: the file cannot be read, or is not the mask of one object.
    """
    try:
        values, mode = _decode(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"the mask {path} cannot be read: {error.strerror or error}") from error
    if values.ndim == 3:
        values = _gray(values, path)
    on: NDArray[np.bool_] = values != 0
    highest = values.max()
    if (values[on] == highest).all():
        return on
    if mode in _NUMBERED:
        count = len(np.unique(values[on]))
        raise DataError(f"{path} has the numbers of {count} objects: {_FORM}, with one alone")
    if highest < 128:
        raise DataError(f"{path} has several shades of gray, and all are dark: {_FORM}")
    return values.astype(np.float32) / np.float32(255)


def _decode(data: bytes, path: Path) -> tuple[NDArray[Any], str]:
    """The values of a PNG, and Pillow's name of their kind."""
    try:
        with without_warnings():
            image = Image.open(io.BytesIO(data), formats=["PNG"])
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # whatever a decoder raises at untrusted bytes
        raise DataError(f"{path} is no PNG that can be read: {_FORM}") from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(path)
        try:
            return np.asarray(image), image.mode
        except Exception as error:
            raise DataError(f"{path} is a damaged PNG: {_FORM}") from error


def _gray(values: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """One channel (H, W) of two to four."""
    channels = values.shape[2]
    if channels in (2, 4) and (values[:, :, -1] < 255).any():
        return values[:, :, -1]
    colors = values[:, :, : 1 if channels == 2 else 3]
    if (colors != colors[:, :, :1]).any():
        raise DataError(f"{path} is an image in colors, and not a mask: {_FORM}")
    return colors[:, :, 0]


def _too_large(path: Path) -> DataError:
    return DataError(f"{path}: a mask may have up to {MAX_PIXELS / 1e6:g} million pixels")
