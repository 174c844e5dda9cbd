"""Images in: whatever the user has becomes one RGB array, or an `ImageError` that says why not.

The network's mean and standard deviation are defined here, once.
"""

from __future__ import annotations

import importlib
import io
import math
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picosam2.errors import ImageError
from picosam2.images.tags import bytes_of_exif, bytes_of_jpeg_tags, bytes_of_tags, most_pieces

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any]
)

MEAN: Final = (0.485, 0.456, 0.406)
"""ImageNet's mean of R, G and B, on a scale of 0..1."""

STD: Final = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of R, G and B, on a scale of 0..1."""

PAD_RGB: Final = (124, 116, 104)
"""What lies outside an image: `MEAN` as uint8, so that padding is near zero after `normalize`."""

MAX_PIXELS: Final = 100_000_000
"""Images with more pixels than this are refused before they are decoded."""

MAX_SECONDS: Final = 10.0
"""Files whose decoding takes more processor time are refused."""

MAX_SCANS: Final = 100
"""JPEG files with more scans are refused: each is a pass over the image. Progressive files have
about ten."""

# Formats whose decoders are widely used and fuzzed. Pillow knows many more (EPS even starts
# another program), and an image from a stranger should not be able to choose among them.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""The file formats that are read, by Pillow's names."""

CLIENT_FORMATS: Final = ("JPEG", "PNG", "WEBP")
"""The file formats that a server takes from its clients."""

_SIGNATURE: Final = 16  # bytes that tell the format
_SIGNATURES: Final = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]|II\0[*]|MM[*]\0"),
    "PPM": re.compile(rb"P[0-7fFy]"),
    "AVIF": re.compile(rb"....ftyp(?:avif|avis|msf1)", re.DOTALL),
}
_PLUGINS: Final = {"JPEG": "Jpeg", "PNG": "Png", "WEBP": "WebP", "GIF": "Gif", "BMP": "Bmp",
                   "TIFF": "Tiff", "PPM": "Ppm", "AVIF": "Avif"}  # fmt: skip
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_FRAMES: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of frame headers
_MAX_SEGMENTS: Final = 1000  # of a JPEG file before its frame header
_MAX_COMMENTS: Final = 1000  # of a plain PPM file
_MAX_PIECES: Final = 200_000  # strips or tiles of a TIFF file
_MAX_TAGS: Final = 64_000_000  # bytes of all tags, if the file is not larger
_MAX_WEBP: Final = 67_200_000  # pixels, of which Pillow takes 16 bytes each
_HEADER: Final = 1 << 20  # bytes of a JPEG file in which its size is sought, and its tags
_MAX_BYTES: Final = 1_000_000_000  # of a stream that cannot seek

_ORIENTATION_TAG: Final = 0x0112  # EXIF 2.32, section 4.6.4
_MAX_16_BIT: Final = 65535
_MAX_12_BIT: Final = 4095
_ROWS: Final = 256  # of an image that are worked on together

# Replacing the warning filters is global to the process, so two threads must not interleave it.
_WARNINGS_LOCK = threading.RLock()


def load_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float = MAX_SECONDS,
    formats: Collection[str] = FORMATS,
) -> NDArray[np.uint8]:
    """Read an image as RGB.

    The image is turned upright by its EXIF orientation, 16-bit values are scaled to 8 bits (12-bit
    values in 16 bits too: those that are all below 4096), transparency is laid on white, and of an
    animation the first frame counts. Color profiles are not applied.

    Args:
        source: a path, the bytes of an image file, an open binary file (also one that cannot seek,
            such as `sys.stdin.buffer`), a PIL image, or an array: (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4) of uint8, uint16, bool, or floats within 0..1.
        max_pixels: the most pixels it may have, which for files is judged from the header, before
            anything is decoded. Of WebP, which takes more memory, it is 67.2 million up to the
            default.
        max_seconds: the most processor time that decoding a file may take; `math.inf` lifts it.
            WebP, AVIF and compressed TIFF are decoded in one piece, which it cannot interrupt.
        formats: the file formats to accept, some of `FORMATS`.

    Returns:
        (H, W, 3) uint8, RGB, C-contiguous and writable; it shares no memory with `source`.

    Raises:
        ImageError: there is no readable image, or it is beyond the limits.
    """
    reader = _Reader(max_pixels, max_seconds, formats)
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array", max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return reader.from_stream(io.BytesIO(source), "the image's data")
    if isinstance(source, str | os.PathLike):
        return reader.from_path(source)
    if hasattr(source, "read"):
        return reader.from_file(source)
    raise ImageError(
        f"an image cannot be made from {type(source).__name__}: "
        "give a path, bytes, an open binary file, a PIL image or a NumPy array"
    )


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width that `load_image` would give an image file; only its header is read.

    Raises:
        ImageError: there is no such file, or it is no image of a known format.
    """
    name = os.fspath(path)
    reader = _Reader(MAX_PIXELS, MAX_SECONDS, FORMATS)
    try:
        with Path(path).open("rb") as stream, reader.open(stream, name, decoding=False) as image:
            width, height = image.size
            if image.format == "TIFF":  # of these, Pillow gives the size as shown
                from PIL.TiffImagePlugin import TiffImageFile

                assert isinstance(image, TiffImageFile)
                width, height = image.tag_v2[256], image.tag_v2[257]
            with without_warnings():
                turned = _orientation(image, name) >= 5
            return (width, height) if turned else (height, width)
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist: check the path") from error
    except OSError as error:
        raise ImageError(f"{name} is not an image that can be read: {_reason(error)}") from error


def check_start(
    start: bytes,
    name: str,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: Collection[str] = FORMATS,
) -> None:
    """Refuse by its first bytes, 32 or more, a file that `load_image` would refuse by them.

    Raises `ImageError`: it is of no accepted format, or says that it has more pixels.
    """
    _Reader(max_pixels, math.inf, formats).check_format(start, name)
    size = stored_size(start)
    if size is not None:
        _check_size(*size, name, max_pixels)


def stored_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Height and width, as stored, of a JPEG, PNG or WebP file; None if its header does not say.

    The bytes may be cut off. Nothing is decoded, and the time does not grow with their number.
    """
    if _SIGNATURES["PNG"].match(data) and data[12:16] == b"IHDR" and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if _SIGNATURES["WEBP"].match(data):
        return _webp_size(data[:30])
    if _SIGNATURES["JPEG"].match(data):
        return _jpeg_size(data)
    return None


def channels_first(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A view of crops (B, H, W, 3) uint8 as (B, 3, H, W). `ImageError` for anything else."""
    check_crops(crops)
    return crops.transpose(0, 3, 1, 2)


def normalize(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
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


class _Reader:
    """Reads image files within the limits of one call."""

    def __init__(self, max_pixels: int, max_seconds: float, formats: Collection[str]) -> None:
        self._max_pixels, self._max_seconds, self._formats = max_pixels, max_seconds, formats

    def from_path(self, source: str | os.PathLike[str]) -> NDArray[np.uint8]:
        name = os.fspath(source)
        if "://" in name:
            raise ImageError(f"{name} is a web address: download the image and give its path")
        try:
            with Path(name).open("rb") as stream:
                if not stream.seekable():
                    return self.from_stream(self._whole(stream, name), name)
                return self.from_stream(stream, name)
        except FileNotFoundError as error:
            raise ImageError(f"{name} does not exist: check the path") from error
        except IsADirectoryError as error:
            raise ImageError(f"{name} is a folder: give the path of one image in it") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ImageError(f"{name!r} cannot be opened: {_reason(error)}") from error

    def from_file(self, stream: BinaryIO) -> NDArray[np.uint8]:
        stream_name = getattr(stream, "name", None)
        name = stream_name if isinstance(stream_name, str) else "the open file"
        try:
            if stream.seekable():
                stream.seek(0)
            return self.from_stream(self._whole(stream, name), name)
        except (OSError, ValueError) as error:  # ValueError: closed, or not text
            raise ImageError(
                f"{name} cannot be read: {_reason(error)}; open it with mode 'rb'"
            ) from error

    def _whole(self, stream: BinaryIO, name: str) -> BinaryIO:
        """All of a stream that may not be able to seek. What is no image is not read on."""
        start = stream.read(_SIGNATURE)
        if not isinstance(start, bytes):
            raise ImageError(f"{name} is open as text: open it with mode 'rb'")
        while len(start) < _SIGNATURE and (more := stream.read(_SIGNATURE - len(start))):
            start += more
        if start:
            self.check_format(start, name)
        rest = stream.read(_MAX_BYTES)
        if len(rest) == _MAX_BYTES:
            raise ImageError(f"{name} has more than {_MAX_BYTES:,} bytes: make it smaller first")
        return io.BytesIO(start + rest)

    def check_format(self, start: bytes, name: str) -> str:
        """The format that a file's first bytes name; `ImageError` if it is not accepted."""
        if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"hevc", b"mif1"):
            raise ImageError(f"{name} is an HEIC image: convert it to JPEG or PNG first")
        accepted = [name for name in FORMATS if name in self._formats]
        expected = f"{', '.join(accepted[:-1])} or {accepted[-1]}" if accepted[1:] else accepted[0]
        for kind, signature in _SIGNATURES.items():
            if signature.match(start):
                if kind in accepted:
                    return kind
                raise ImageError(f"{name} is a {kind} image: convert it to {expected} first")
        raise ImageError(f"{name} is not an image that can be read: give a {expected} file")

    def open(self, stream: BinaryIO, name: str, *, decoding: bool = True) -> Image.Image:
        """The image of a file, not decoded yet; `decoding`: whether it will be."""
        start = stream.read(_SIGNATURE)
        if not start:
            raise ImageError(f"{name} is empty: give an image file ({', '.join(self._formats)})")
        kind = self.check_format(start, name)
        self._check_header(kind, stream, name, decoding=decoding)
        stream.seek(0)
        timed = _TimedStream(stream, self._max_seconds)
        try:
            with without_warnings():
                _import_plugin(kind)
                return Image.open(cast(BinaryIO, timed), formats=[kind])
        except Image.DecompressionBombError as error:
            # Pillow's own limit is 179 million pixels unless the program has changed it.
            raise _too_large(name, "more pixels than Pillow accepts", self._max_pixels) from error
        except _TooSlowError as error:
            raise self._too_slow(name) from error
        except MemoryError as error:
            raise ImageError(f"{name} needs more memory than there is: make it smaller") from error
        except Exception as error:  # whatever a decoder raises at untrusted bytes
            raise ImageError(
                f"{name} is not an image that can be read: it starts like a {kind} file, but is "
                "damaged"
            ) from error

    def from_stream(self, stream: BinaryIO, name: str) -> NDArray[np.uint8]:
        with self.open(stream, name) as image:
            try:
                return _from_pil(image, name, self._max_pixels)
            except _TooSlowError as error:
                raise self._too_slow(name) from error
            except MemoryError as error:
                raise ImageError(
                    f"{name} needs more memory than there is: make it smaller"
                ) from error

    def _check_header(self, kind: str, stream: BinaryIO, name: str, *, decoding: bool) -> None:
        """Refuse files whose decoders would take much time or memory before they are asked."""
        timed = decoding and math.isfinite(self._max_seconds)
        stream.seek(0)
        if kind == "WEBP":  # Pillow makes room for the image while it opens the file
            size = _webp_size(stream.read(30))
            lifted = self._max_pixels > MAX_PIXELS
            most = self._max_pixels if lifted else min(self._max_pixels, _MAX_WEBP)
            if size is not None:
                _check_size(*size, name, most)
        elif kind == "JPEG":
            data = stream.read(-1 if timed else _HEADER)
            if timed and _jpeg_scans(data, MAX_SCANS) > MAX_SCANS:
                raise ImageError(
                    f"{name} has more than {MAX_SCANS} scans, which take long to decode: "
                    "save it anew"
                )
            _check_tags(bytes_of_jpeg_tags(data), name)
        elif kind == "PPM" and timed and stream.read(2) in (b"P1", b"P2", b"P3"):
            # Pillow's time for them grows with the square of their number.
            comments = sum(block.count(b"#") for block in iter(lambda: stream.read(1 << 20), b""))
            if comments > _MAX_COMMENTS:
                raise ImageError(f"{name} has {comments:,} comments: save it anew without them")
        elif kind == "TIFF":
            pieces = most_pieces(stream)
            if pieces > _MAX_PIECES and math.isfinite(self._max_seconds):
                raise ImageError(f"{name} has {pieces:,} strips or tiles: save it anew with fewer")
            length = stream.seek(0, io.SEEK_END)
            _check_tags(bytes_of_tags(stream), name, max(length, _MAX_TAGS))

    def _too_slow(self, name: str) -> ImageError:
        return ImageError(
            f"{name} takes more than {self._max_seconds:g} seconds to decode: save it anew, "
            "smaller or as a plain JPEG or PNG"
        )


class _TooSlowError(Exception):
    """The time for decoding is over."""


class _TimedStream:
    """A binary file for Pillow, which reads piece by piece, until the time is over."""

    def __init__(self, stream: BinaryIO, seconds: float) -> None:
        self._stream, self._end = stream, time.thread_time() + seconds
        self.seek, self.tell, self.close = stream.seek, stream.tell, lambda: None

    def read(self, size: int = -1) -> bytes:
        if time.thread_time() > self._end:
            raise _TooSlowError
        return self._stream.read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._stream.readline(size)


def _webp_size(head: bytes | bytearray) -> tuple[int, int] | None:
    """Height and width of a WebP file by its first 30 bytes; None if they do not say."""
    chunk, data = head[12:16], head[20:]
    if chunk == b"VP8X" and len(data) >= 10:
        return 1 + int.from_bytes(data[7:10], "little"), 1 + int.from_bytes(data[4:7], "little")
    if chunk == b"VP8L" and len(data) >= 5:
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if chunk == b"VP8 " and len(data) >= 10:
        return (
            int.from_bytes(data[8:10], "little") & 0x3FFF,
            int.from_bytes(data[6:8], "little") & 0x3FFF,
        )
    return None


def _jpeg_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Height and width of a JPEG file by its frame header; None if that is not in its place."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        segment = data[at : at + 9]
        if len(segment) < 9 or segment[0] != 0xFF:
            break
        if segment[1] in _JPEG_FRAMES:
            return int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[7:9], "big")
        # Before any marker there may be more bytes of 0xFF.
        at += 1 if segment[1] == 0xFF else 2 + int.from_bytes(segment[2:4], "big")
    return None


def _jpeg_scans(data: bytes, most: int) -> int:
    """How many scans a JPEG file's first image has, or an upper bound that is within `most`."""
    if (scans := data.count(b"\xff\xda")) <= most:  # fast, and never too few
        return scans
    scans, at = 0, 2
    while scans <= most and (marker := _JPEG_MARKER.search(data, at)):
        at, code = marker.end(), marker[0][1]
        if code == 0xD9:  # end of image: what follows is something else
            break
        scans += code == 0xDA
        if code not in (0x01, 0xD8):  # these have no length
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return scans


def _from_pil(image: Image.Image, name: str, max_pixels: int) -> NDArray[np.uint8]:
    width, height = image.size
    _check_size(height, width, name, max_pixels)
    # Decoding is left outside the lock, so that threads decode side by side. Only images
    # beyond Pillow's warning level, which TIFF repeats when it decodes, are read one by one.
    limit = Image.MAX_IMAGE_PIXELS
    quiet = limit is not None and width * height > limit
    try:
        with without_warnings() if quiet else nullcontext():
            image.load()
    except (_TooSlowError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder raises at untrusted bytes
        raise ImageError(
            f"{name} is damaged or cut off ({_reason(error)}): get a whole copy of the image"
        ) from error
    try:
        values = _values(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow knows modes that it cannot turn into RGB, such as LAB
        raise ImageError(
            f"{name} has pixels of a kind that cannot be turned into RGB ({_reason(error)}): "
            "save it as an RGB PNG or JPEG first"
        ) from error
    with without_warnings():
        orientation = _orientation(image, name)
    pixels = values if values.ndim == 3 else _from_array(values, name, max_pixels)
    return _upright(pixels, orientation)


def _values(image: Image.Image) -> NDArray[Any]:
    """The pixels of a loaded image: (H, W, 3) uint8 RGB, or (H, W) of more than 8 bits."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16, copy=False)
    if image.mode == "I":  # 16-bit PGM, and 16-bit PNG in other releases of Pillow
        values = np.asarray(image)
        if values.min() < 0 or values.max() > _MAX_16_BIT:
            raise ValueError("32-bit integers")
        return values.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for row in range(0, image.height, _ROWS):  # a few rows at a time need little memory
        rows = image.crop((0, row, image.width, min(row + _ROWS, image.height)))
        part = np.asarray(rows.convert(mode))
        pixels[row : row + _ROWS] = _on_white(part) if mode == "RGBA" else part
    return pixels


def _from_array(values: NDArray[Any], name: str, max_pixels: int) -> NDArray[np.uint8]:
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        hint = "; put the channels last with .transpose(1, 2, 0)" if first else ""
        raise ImageError(
            f"{name} has shape {values.shape}, "
            f"but an image is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
        )
    _check_size(values.shape[0], values.shape[1], name, max_pixels)
    pixels = _to_8_bit(values, name)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 4:
        return _on_white(pixels)
    if pixels.shape[2] == 3:
        return pixels.copy(order="C")
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def _to_8_bit(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        if values.max() <= _MAX_12_BIT:  # as cameras, scanners and microscopes write 12 bits
            return _by_rows(
                values,
                lambda rows: (rows.astype(np.uint32) * 255 + _MAX_12_BIT // 2) // _MAX_12_BIT,
            )
        # 65535 / 255 = 257
        return _by_rows(values, lambda rows: (rows.astype(np.uint32) + 128) // 257)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN compares false
            raise ImageError(
                f"{name} has floats from {low:g} to {high:g}, but floats must be finite and "
                "within 0..1: scale them, or convert to uint8"
            )
        return _by_rows(values, lambda rows: np.rint(rows.astype(np.float32) * np.float32(255)))
    raise ImageError(
        f"{name} has dtype {values.dtype}, but an image is uint8, uint16, bool or float 0..1: "
        "convert it, for instance with .astype(np.uint8)"
    )


def _by_rows(
    values: NDArray[Any], convert: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[np.uint8]:
    """`convert` of an array, a few rows at a time, which need little memory."""
    pixels = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        pixels[row : row + _ROWS] = convert(values[row : row + _ROWS])
    return pixels


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = np.empty((*rgba.shape[:2], 3), np.uint8)
    for row in range(0, len(rgba), _ROWS):  # a few rows at a time need little memory
        part = rgba[row : row + _ROWS]
        alpha = part[:, :, 3:].astype(np.uint16)
        # At most 255 * 255 + 127, which uint16 holds.
        blend = part[:, :, :3] * alpha + np.uint16(255) * (np.uint16(255) - alpha) + np.uint16(127)
        pixels[row : row + _ROWS] = blend // np.uint16(255)
    return pixels


def _orientation(image: Image.Image, name: str) -> int:
    """The EXIF orientation, 1..8; 1 if there is none or it is damaged.

    Asked after decoding, because Pillow turns TIFF itself and then drops the tag.
    """
    exif, text = image.info.get("exif"), image.info.get("Raw profile type exif")
    if exif is None and isinstance(text, str):  # in hexadecimal digits, as ImageMagick writes it
        with suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    if isinstance(exif, bytes):
        _check_tags(bytes_of_exif(exif), name)
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to refuse an image that decodes
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
        raise ImageError(f"{name} has no pixels ({width} x {height}): give an image with some")
    if height * width > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)


def _check_tags(size: int, name: str, most: int = _MAX_TAGS) -> None:
    if size > most:
        raise ImageError(
            f"{name} has tags (EXIF) that would take {size:,} bytes: save it anew without them"
        )


def _too_large(name: str, size: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name} has {size}, and the limit is {max_pixels / 1e6:g} million: make it smaller first"
    )


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _import_plugin(kind: str) -> None:
    """Make Pillow know one format, without the rest of them."""
    with suppress(ModuleNotFoundError):  # AVIF came with Pillow 11.3
        importlib.import_module(f"PIL.{_PLUGINS[kind]}ImagePlugin")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep a library's warnings from the user, such as Pillow's of large images and damaged EXIF.

    The one place of the package that replaces the warning filters, one thread at a time.
    """
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
