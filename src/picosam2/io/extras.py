"""What an image file holds beside its colors: opacity, color profile and resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from picosam2.errors import ImageError
from picosam2.images import FORMATS

_ORIENTATION_TAG = 0x0112
_FIRST_TURNED = 5  # EXIF orientations from here on exchange rows and columns


@dataclass(frozen=True, kw_only=True, eq=False)
class FileExtras:
    """What `load_image` leaves out, for results that are made of the image.

    rgba: (H, W, 4) uint8, upright, if the file has transparent pixels.
    info: `icc_profile` (bytes) and `dpi` (x, y), as far as the file has them.
    """

    rgba: npt.NDArray[np.uint8] | None = None
    info: dict[str, Any] = field(default_factory=dict)


def file_extras(path: Path, *, rgba: bool = True) -> FileExtras:
    """Read the extras of a file that `load_image` has read before.

    Args:
        path: an image file.
        rgba: whether opacity is of interest; without it nothing is decoded.

    Raises:
        ImageError: the file can no longer be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            turned = isinstance(orientation, int) and orientation >= _FIRST_TURNED
            info = _info(image, turned)
            if not (rgba and image.has_transparency_data):
                return FileExtras(info=info)
            upright = ImageOps.exif_transpose(image.convert("RGBA"))
            return FileExtras(rgba=np.asarray(upright), info=info)
    except Exception as error:  # whatever a decoder raises
        raise ImageError(f"{path} can no longer be read: was it changed meanwhile?") from error


def apply_alpha(cutout: Image.Image, extras: FileExtras) -> Image.Image:
    """A cut-out (RGBA) that is nowhere more opaque than the file's pixels, in their own colors."""
    if extras.rgba is None or extras.rgba.shape[:2] != (cutout.height, cutout.width):
        return cutout
    pixels = extras.rgba.copy()
    alpha = np.asarray(cutout.getchannel("A")).astype(np.uint16) * pixels[:, :, 3]
    pixels[:, :, 3] = (alpha + 127) // 255
    pixels[pixels[:, :, 3] == 0] = 0
    return Image.fromarray(pixels)


def _info(image: Image.Image, turned: bool) -> dict[str, Any]:
    info: dict[str, Any] = {}
    profile = image.info.get("icc_profile")
    # Profiles of gray or CMYK images do not describe the RGB pixels that are written.
    if isinstance(profile, bytes) and profile[16:20] == b"RGB ":
        info["icc_profile"] = profile
    try:
        x, y = (float(value) for value in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return info
    if math.isfinite(x + y) and min(x, y) >= 1 and max(x, y) < 60_000:
        info["dpi"] = (y, x) if turned else (x, y)
    return info
