"""Pictures in: whatever the user has becomes one RGB array, or an `ImageError` that says why not.

The network's mean and standard deviation live here, once.
"""

from __future__ import annotations

import importlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picosam2.errors import ImageError

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any]
)

MEAN: Final = (0.485, 0.456, 0.406)
"""ImageNet's mean of R, G and B, on a scale of 0..1."""

STD: Final = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of R, G and B, on a scale of 0..1."""

PAD_RGB: Final = (124, 116, 104)
"""What lies outside a picture: `MEAN` as uint8, so that padding is near zero after `normalise`."""

MAX_PIXELS: Final = 100_000_000
"""Pictures with more pixels than this are refused before they are decoded."""

# Formats whose decoders are widely used and fuzzed. Pillow knows many more (EPS even starts
# another program), and a picture from a stranger should not be able to choose among them.
_FORMATS: Final = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Ppm", "Avif")
_EXPECTED: Final = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or AVIF"

_ORIENTATION_TAG: Final = 0x0112  # EXIF 2.32, section 4.6.4
_MAX_16_BIT: Final = 65535

# Replacing the warning filters is global to the process, so two threads must not interleave it.
_WARNINGS_LOCK = threading.Lock()


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture from `source` as RGB.

    `source` is a path, the bytes of a picture file, an open binary file (also one that cannot
    seek, such as `sys.stdin.buffer`), a PIL image, or an array: (H, W), (H, W, 1), (H, W, 3) or
    (H, W, 4) of uint8, uint16, bool, or floats within 0..1.

    The picture is turned upright by its EXIF orientation, 16-bit values are scaled to 8 bits,
    transparency is laid on white, and of an animation the first frame counts. Colour profiles are
    not applied.

    Returns (H, W, 3) uint8, RGB, C-contiguous and writable; it shares no memory with `source`.
    Raises `ImageError` if there is no readable picture, or if it has more than `max_pixels`
    pixels, which for files is judged from the header before anything is decoded.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array", max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_stream(io.BytesIO(source), "the picture's bytes", max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_path(source, max_pixels)
    if hasattr(source, "read"):
        return _from_file(source, max_pixels)
    raise ImageError(
        f"a picture cannot be made from {type(source).__name__}: "
        "give a path, bytes, an open binary file, a PIL image or a NumPy array"
    )


def channels_first(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A view of crops (B, H, W, 3) uint8 as (B, 3, H, W). `ImageError` for anything else."""
    check_crops(crops)
    return crops.transpose(0, 3, 1, 2)


def normalise(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn crops into the network's input: (x / 255 - MEAN) / STD, channels first.

    `crops` is (B, H, W, 3) uint8 RGB. Returns (B, 3, H, W) float32, contiguous, about -2.2..2.7.
    Raises `ImageError` for any other shape or dtype.
    """
    planes = channels_first(crops)
    std = np.array(STD)
    scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
    shift = (np.array(MEAN) / std).astype(np.float32)[:, None, None]
    out = np.empty(planes.shape, np.float32)
    np.multiply(planes, scale, out=out)
    out -= shift
    return out


def check_crops(crops: NDArray[np.uint8]) -> None:
    """Raise `ImageError` unless `crops` is (B, H, W, 3) uint8."""
    if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
        raise ImageError(
            f"crops must be a uint8 array of shape (B, H, W, 3), not {crops.dtype} {crops.shape}"
        )


def _from_path(source: str | os.PathLike[str], max_pixels: int) -> NDArray[np.uint8]:
    name = os.fspath(source)
    if "://" in name:
        raise ImageError(f"{name} is a web address: download the picture and give its path")
    try:
        with Path(name).open("rb") as stream:
            seekable = stream if stream.seekable() else io.BytesIO(stream.read())
            return _from_stream(cast(BinaryIO, seekable), name, max_pixels)
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder: give the path of one picture in it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(f"{name!r} cannot be opened: {_reason(error)}") from error


def _from_file(stream: BinaryIO, max_pixels: int) -> NDArray[np.uint8]:
    given = getattr(stream, "name", None)
    name = given if isinstance(given, str) else "the open file"
    try:
        if stream.seekable():
            stream.seek(0)
        data = stream.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or not text
        raise ImageError(
            f"{name} cannot be read: {_reason(error)}; open it with mode 'rb'"
        ) from error
    if not isinstance(data, bytes):
        raise ImageError(f"{name} is open as text: open it with mode 'rb'")
    return _from_stream(io.BytesIO(data), name, max_pixels)


def _from_stream(stream: BinaryIO, name: str, max_pixels: int) -> NDArray[np.uint8]:
    start = stream.read(16)
    if not start:
        raise ImageError(f"{name} is empty: give a picture file ({_EXPECTED})")
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"hevc", b"mif1"):
        raise ImageError(f"{name} is an HEIC picture: convert it to JPEG or PNG first")
    stream.seek(0)
    try:
        with _quietly():
            picture = Image.open(stream, formats=_formats())
    except Image.DecompressionBombError as error:
        # Pillow's own limit is 179 million pixels unless the program has changed it.
        raise _too_large(name, "more pixels than Pillow accepts", max_pixels) from error
    except Exception as error:  # whatever a decoder raises at untrusted bytes
        raise ImageError(
            f"{name} is not a picture that can be read: give a {_EXPECTED} file"
        ) from error
    with picture:
        return _from_pil(picture, name, max_pixels)


def _from_pil(picture: Image.Image, name: str, max_pixels: int) -> NDArray[np.uint8]:
    width, height = picture.size
    _check_size(height, width, name, max_pixels)
    # Decoding is left outside the lock, so that threads decode side by side. Only pictures
    # beyond Pillow's warning level, which TIFF repeats when it decodes, are read one by one.
    limit = Image.MAX_IMAGE_PIXELS
    quiet = limit is not None and width * height > limit
    try:
        with _quietly() if quiet else nullcontext():
            picture.load()
    except Exception as error:  # whatever a decoder raises at untrusted bytes
        raise ImageError(
            f"{name} is damaged or cut off ({_reason(error)}): get a whole copy of the picture"
        ) from error
    try:
        values = _values(picture)
    except Exception as error:  # Pillow knows modes that it cannot turn into RGB, such as LAB
        raise ImageError(
            f"{name} has pixels of a kind that cannot be turned into RGB ({_reason(error)}): "
            "save it as an RGB PNG or JPEG first"
        ) from error
    with _quietly():
        orientation = _orientation(picture)
    return _upright(_from_array(values, name, max_pixels), orientation)


def _values(picture: Image.Image) -> NDArray[Any]:
    """The pixels of a loaded picture in a form that `_from_array` takes."""
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode == "I":  # 16-bit PGM, and 16-bit PNG in other releases of Pillow
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > _MAX_16_BIT:
            raise ValueError("32-bit integers")
        return values.astype(np.uint16)
    if picture.mode == "F":
        return np.asarray(picture)
    return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


def _from_array(values: NDArray[Any], name: str, max_pixels: int) -> NDArray[np.uint8]:
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        hint = "; put the channels last with .transpose(1, 2, 0)" if first else ""
        raise ImageError(
            f"{name} has shape {values.shape}, "
            f"but a picture is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
        )
    _check_size(values.shape[0], values.shape[1], name, max_pixels)
    pixels = _to_8_bit(values, name)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 4:
        return _on_white(pixels)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def _to_8_bit(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN compares false
            raise ImageError(
                f"{name} has floats from {low:g} to {high:g}, but floats must be finite and "
                "within 0..1: scale them, or convert to uint8"
            )
        scaled: NDArray[np.float32] = values.astype(np.float32) * np.float32(255)
        return np.rint(scaled).astype(np.uint8)
    raise ImageError(
        f"{name} has dtype {values.dtype}, but a picture is uint8, uint16, bool or float 0..1: "
        "convert it, for instance with .astype(np.uint8)"
    )


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[:, :, 3:].astype(np.uint16)
    # At most 255 * 255 + 127, which uint16 holds.
    blend = rgba[:, :, :3] * alpha + np.uint16(255) * (np.uint16(255) - alpha) + np.uint16(127)
    return (blend // np.uint16(255)).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 if there is none or it is damaged.

    Asked after decoding, because Pillow turns TIFF itself and then drops the tag.
    """
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to refuse a picture that decodes
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation (EXIF 2.32, section 4.6.4: where row 0 and column 0 lie)."""
    if orientation >= 5:  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}): give a picture with some")
    if height * width > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)


def _too_large(name: str, size: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name} has {size}, and the limit is {max_pixels / 1e6:g} million: make it smaller first"
    )


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The names of the formats to accept, with only their plug-ins imported."""
    for plugin in _FORMATS:
        with suppress(ModuleNotFoundError):  # AVIF came with Pillow 11.3
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name.upper() for name in _FORMATS if name.upper() in Image.OPEN)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Pillow's warnings (large picture, damaged metadata) from the user: we judge both."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
