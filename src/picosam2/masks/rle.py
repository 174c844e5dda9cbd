"""Masks as COCO's run-length encoding, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from picosam2.errors import DataError
from picosam2.images import MAX_PIXELS
from picosam2.masks.runs import Ints, Mask, as_mask

# A compressed count has 5 bits a character; 12 characters are far more than any image needs and
# still fit an int64.
_MAX_CHARACTERS: Final = 12


def rle_encode(mask: ArrayLike) -> dict[str, Any]:
    """Encode as COCO's compressed RLE: {"size": [H, W], "counts": str}.

    Column by column, the lengths of the runs of False and True in turn, starting with False, are
    written as differences in a variable-length ASCII code, byte for byte as pycocotools does
    (`rleToString` in cocoapi's maskApi.c).
    """
    checked = as_mask(mask)
    height, width = checked.shape
    pixels = checked.T.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    bounds = [0, 0] if pixels.size and pixels[0] else [0]
    edges = np.concatenate((bounds, changes, [pixels.size]))
    counts = np.diff(edges) if pixels.size else np.zeros(0, np.int64)
    return {"size": [height, width], "counts": _compress(counts)}


def rle_decode(rle: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Decode COCO's RLE to a mask (H, W) bool.

    `rle` has "size" [H, W] and "counts": a compressed str or bytes, or the plain list of counts.
    Raises `DataError` if it is malformed or has more than `max_pixels` pixels; nothing of that
    size is allocated before the counts are found to fill it exactly.
    """
    if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
        raise DataError("a mask's RLE must be an object with 'size' and 'counts'")
    size = rle["size"]
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in size)
    ):
        raise DataError("an RLE's size must be two whole numbers [height, width]")
    height, width = int(size[0]), int(size[1])
    if height < 0 or width < 0 or height * width > max_pixels:
        raise DataError(
            f"an RLE's size is {height} x {width}, which must lie within 0 and "
            f"{max_pixels / 1e6:g} million pixels"
        )
    total = height * width
    counts = _read_counts(rle["counts"], total)
    if counts.size and (counts.min() < 0 or counts.max() > total):
        raise DataError("an RLE's counts must lie within 0 and its number of pixels")
    if int(counts.sum()) != total:
        raise DataError(
            f"an RLE's counts add up to {int(counts.sum())}, but its size {height} x {width} "
            f"has {total} pixels: the mask is damaged, or of another image"
        )
    pixels: Mask = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    return np.ascontiguousarray(pixels.reshape(width, height).T)


def _compress(counts: Ints) -> str:
    deltas = counts.copy()
    deltas[3:] -= counts[1:-2]  # from the third on, the difference to the last of the same kind
    # The number of 5-bit groups that hold the value in two's complement.
    groups = np.ones(deltas.size, np.int64)
    limit = 16
    while True:
        more = (deltas < -limit) | (deltas >= limit)
        if not more.any():
            break
        groups += more
        limit *= 32
    column = np.arange(groups.max(initial=0))
    bits = (deltas[:, None] >> (5 * column)) & 31
    bits += np.where(column < groups[:, None] - 1, 32 + 48, 48)  # 32 says that more follow
    return bytes(bits[column < groups[:, None]].astype(np.uint8)).decode("ascii")


def _read_counts(counts: Any, total: int) -> Ints:
    if isinstance(counts, str | bytes):
        return _decompress(counts, total)
    try:
        values = np.asarray(counts)
    except (ValueError, OverflowError) as error:  # rows of unequal length
        raise DataError("an RLE's counts must be a list of whole numbers") from error
    if values.size == 0 and values.ndim == 1:
        return np.zeros(0, np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError("an RLE's counts must be a string or a list of whole numbers")
    # Unsigned numbers too large for int64 would come out negative, which the caller refuses.
    return values.astype(np.int64)


def _decompress(text: str | bytes, total: int) -> Ints:
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise DataError("an RLE's counts hold characters that no RLE has") from error
    if not data:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(data, np.uint8)
    if codes.min() < 48 or codes.max() > 48 + 63:
        raise DataError("an RLE's counts hold characters that no RLE has")
    values = codes.astype(np.int64) - 48
    last = values < 32
    if not last[-1]:
        raise DataError("an RLE's counts are cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise DataError("an RLE's counts hold a number that is too large")
    shifts = 5 * (np.arange(values.size) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((values & 31) << shifts, starts)
    numbers -= np.where(values[ends] & 16, np.int64(1) << (5 * lengths), 0)  # two's complement
    if np.abs(numbers).max() > total:  # also keeps the sums below from overflowing
        raise DataError("an RLE's counts hold a number that is larger than its image")
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
