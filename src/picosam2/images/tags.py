"""What it would take to read the tags of TIFF files and of EXIF data, from their directories.

Each tag names bytes anywhere in the file, also the same ones as others do: a small file can ask for
gigabytes. Pillow takes them, before release 12.3 without a limit, when it opens the file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

_ENTRIES = 200_000  # of a directory; BigTIFF may have more
_PIECES = (273, 279, 324, 325)  # where strips and tiles begin, and their lengths
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
          17: 8, 18: 8}  # fmt: skip
"""Bytes of a value by its type."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_LONE_MARKERS = (0x01, 0xD8)  # without a length
_ENDS = (0xD9, 0xDA)  # the image's end, and the start of its pixels


class _Tag(NamedTuple):
    number: int
    size: int  # bytes, if they are not in the directory itself, else 0
    values: int
    offset: int


def most_pieces(stream: BinaryIO) -> int:
    """How many strips or tiles the first image of a TIFF file has."""
    return max((tag.values for tag in _directory(stream) if tag.number in _PIECES), default=0)


def bytes_of_tags(stream: BinaryIO) -> int:
    """How many bytes the tags of a TIFF file's first image name, the same ones more than once."""
    length = stream.seek(0, io.SEEK_END)
    return sum(min(tag.size, max(length - tag.offset, 0)) for tag in _directory(stream))


def bytes_of_exif(data: bytes) -> int:
    """The same of EXIF data."""
    return bytes_of_tags(io.BytesIO(re.sub(rb"^(Exif\0\0){1,2}", b"", data)))


def bytes_of_jpeg_tags(data: bytes) -> int:
    """The same of what a JPEG file has before its pixels: EXIF data, and a list of further images.

    The bytes may be cut off.
    """
    exif, images = bytearray(), b""
    for code, segment in _segments(data):
        if code == 0xE1 and segment[:6] == b"Exif\0\0":
            exif += segment[6:]
        elif code == 0xE2 and segment[:4] == b"MPF\0":
            images = segment[4:]
    return max(bytes_of_exif(bytes(exif)), bytes_of_exif(images))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG file before its pixels: each one's code and content."""
    at = 2
    while marker := _MARKER.search(data, at):
        at, code = marker.end(), marker[0][1]
        if code in _ENDS:
            break
        if code not in _LONE_MARKERS:
            length = max(int.from_bytes(data[at : at + 2], "big"), 2)
            yield code, data[at + 2 : at + length]
            at += length


def _directory(stream: BinaryIO) -> Iterator[_Tag]:
    """The tags of a TIFF file's first image."""
    stream.seek(0)
    head = stream.read(16)
    order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
    big = int.from_bytes(head[2:4], order) == 43  # BigTIFF
    start, count_size, entry = (head[8:16], 8, 20) if big else (head[4:8], 2, 12)
    value = 12 if big else 8
    place = int.from_bytes(start, order)
    if place >= 1 << 63:  # no file is that long
        return
    stream.seek(place)
    entries = min(int.from_bytes(stream.read(count_size), order), _ENTRIES)
    directory = stream.read(entries * entry)
    for at in range(0, len(directory) - entry + 1, entry):
        fields = directory[at : at + entry]
        count = int.from_bytes(fields[4:value], order)
        size = count * _SIZES.get(int.from_bytes(fields[2:4], order), 0)
        yield _Tag(
            number=int.from_bytes(fields[:2], order),
            size=size if size > entry - value else 0,
            values=count,
            offset=int.from_bytes(fields[value:], order),
        )
