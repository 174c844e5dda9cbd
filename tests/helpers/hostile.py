"""Small image files that cost their decoders much time or memory. All are made by code."""

from __future__ import annotations

import io
import re
import struct
import zlib
from functools import partial

import numpy as np
from PIL import Image


def progressive_jpeg(scans: int = 20_000, side: int = 2000) -> bytes:
    """A progressive JPEG whose last scan is repeated: each is a pass over the image."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    start = [match.start() for match in re.finditer(b"\xff\xda", data)][-1]
    return data[:-2] + data[start:-2] * scans + data[-2:]


def commented_ppm(comments: int = 1_500_000) -> bytes:
    """A plain PPM file of 4 x 4 pixels; Pillow's time grows with the square of its comments."""
    return b"P3\n4 4\n255\n" + b"#\n" * comments + b"1 " * 48


def odd_pgm(side: int = 5000) -> bytes:
    """A PGM file with a largest value of 254, which Pillow decodes pixel by pixel in Python."""
    return b"P5\n%d %d\n254\n" % (side, side) + bytes(side * side)


def rle_bmp(side: int = 9900) -> bytes:
    """A BMP file of 98 megapixels in a few kilobytes of runs."""
    body = (b"\xff\x00" * (side // 255 + 1) + b"\x00\x00") * 200 + b"\x00\x01"
    offset = 14 + 40 + 1024
    head = struct.pack("<IHHI", offset + len(body), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + head + info + bytes(1024) + body


def tiled_tiff(side: int = 1000) -> bytes:
    """A TIFF file of 1 x 1 tiles, all of them the same byte."""
    count, at = side * side, 8 + 2 + 12 * 12 + 4
    tags = [(256, 3, 1, side), (257, 3, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (277, 3, 1, 1), (282, 3, 1, 1), (283, 3, 1, 1), (322, 3, 1, 1), (323, 3, 1, 1),
            (324, 4, count, at), (325, 4, count, at + 4 * count)]  # fmt: skip
    return (
        _tiff(tags)
        + struct.pack("<I", at + 8 * count) * count
        + struct.pack("<I", 1) * count
        + b"\x80"
    )


def noisy_fax(width: int = 4000, height: int = 8000, size: int = 1_000_000) -> bytes:
    """A TIFF file of noise in CCITT's fax code: libtiff writes a line on stderr for every row."""
    body = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 1), (259, 3, 1, 3),
            (262, 3, 1, 0), (273, 4, 1, 8 + 2 + 12 * 9 + 4), (277, 3, 1, 1), (278, 4, 1, height),
            (279, 4, 1, size)]  # fmt: skip
    return _tiff(tags) + body


def huge_webp(width: int = 16383, height: int = 16383) -> bytes:
    """46 bytes that name an image of 268 megapixels, for which Pillow makes room at once."""
    data = b"\x2f" + struct.pack("<I", (width - 1) | ((height - 1) << 14)) + bytes(21)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def animated_webp(width: int = 16384, height: int = 16384) -> bytes:
    """The same for an animation, whose size stands elsewhere."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sides
    chunk += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def greedy_tags(count: int = 5000, size: int = 60_000) -> bytes:
    """EXIF data of 60 kB whose tags all name the same bytes: 300 MB if they are read."""
    tags = [(number, 1, size, 8) for number in range(1, count + 1)]
    return _tiff(tags).ljust(size + 8, b"\0")


def greedy_tiff() -> bytes:
    """A TIFF file with such tags."""
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)]  # fmt: skip
    tags += [(number, 1, 60_000, 8) for number in range(1000, 6000)]
    return _tiff(tags).ljust(70_000, b"\0")


def greedy_jpeg() -> bytes:
    """A JPEG file with such EXIF data."""
    return _small("JPEG", exif=b"Exif\0\0" + greedy_tags())


def greedy_list_jpeg() -> bytes:
    """A JPEG file with such a list of further images."""
    data, segment = _small("JPEG"), b"MPF\0" + greedy_tags()
    return data[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def greedy_webp() -> bytes:
    """A WebP file with such EXIF data."""
    return _small("WEBP", exif=greedy_tags())


def greedy_png(form: str = "eXIf") -> bytes:
    """A PNG file with such EXIF data, in a chunk of its own or as text."""
    data, content = _small("PNG"), greedy_tags()
    if form == "tEXt":
        text = f"\nexif\n{len(content)}\n{content.hex()}\n"
        content = b"Raw profile type exif\0" + text.encode()
    chunk = form.encode() + content
    return (
        data[:33]
        + struct.pack(">I", len(content))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + data[33:]
    )


def _small(kind: str, **options: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(tags: list[tuple[int, int, int, int]]) -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)


HOSTILE = {
    "progressive.jpg": (progressive_jpeg, "scans"),
    "comments.ppm": (commented_ppm, "comments"),
    "odd.pgm": (odd_pgm, "seconds to decode"),
    "rle.bmp": (rle_bmp, "damaged or cut off"),
    "tiles.tif": (tiled_tiff, "strips or tiles"),
    "huge.webp": (huge_webp, "the limit is 67.2 million"),
    "animated.webp": (animated_webp, "the limit is 67.2 million"),
    "tags.jpg": (greedy_jpeg, "tags"),
    "list.jpg": (greedy_list_jpeg, "tags"),
    "tags.webp": (greedy_webp, "tags"),
    "tags.png": (greedy_png, "tags"),
    "text.png": (partial(greedy_png, "tEXt"), "tags"),
    "tags.tif": (greedy_tiff, "tags"),
}
"""File names: how each is made, and a part of the sentence that refuses it."""
