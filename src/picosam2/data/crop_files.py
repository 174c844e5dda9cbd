"""How a shard keeps its crops: as they are, or compressed.

raw   shard-00000.crops.npy    (N, C, C, 4) uint8, read without decoding
jpeg  shard-00000.crops.bin    for each crop a JPEG of its colors and a PNG of its mask, in a row
      shard-00000.lengths.npy  (N, 2) int32: the bytes of the two
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2._files import atomic_write, sha256_file
from picosam2.errors import StoreError

CropFormat: TypeAlias = Literal["raw", "jpeg"]
CROP_FORMATS: Final[tuple[CropFormat, ...]] = get_args(CropFormat)

QUALITY: Final = 95
"""Of the JPEGs, with full color resolution; docs/training.md says what it costs."""

JPEG_BYTES_PER_PIXEL: Final = 0.5
"""Bytes a pixel of a crop takes with its mask, for estimates: measured on COCO, see docs."""

_HEADER: Final = 128  # bytes of a .npy file before the rows


def files_of(stem: Path, crops: CropFormat) -> dict[str, Path]:
    """The files of a shard's crops, by the name that its summary has for their checksums."""
    if crops == "raw":
        return {"crops": stem.with_suffix(".crops.npy")}
    return {"crops": stem.with_suffix(".crops.bin"), "lengths": stem.with_suffix(".lengths.npy")}


class CropWriter:
    """Writes a shard's crops one by one, so that none has to stay in memory.

    Used in a `with` statement; the files are in place when it ends without an error.

    Attributes:
        count: how many were written.
        sha256: the files' checksums, once it has ended.
    """

    def __init__(self, stem: Path, side: int, crops: CropFormat) -> None:
        self._files, self._side, self._crops = files_of(stem, crops), side, crops
        self._lengths: list[tuple[int, int]] = []
        self.count = 0
        self.sha256: dict[str, str] = {}

    def __enter__(self) -> CropWriter:
        self._atomic = atomic_write(self._files["crops"])
        self._path = self._atomic.__enter__()
        self._stream: BinaryIO = self._path.open("wb")
        if self._crops == "raw":
            self._stream.write(_npy_header(0, self._side))
        return self

    def add(self, crop: npt.NDArray[np.uint8]) -> None:
        """Write one crop (C, C, 4) uint8: R, G, B, mask coverage."""
        if self._crops == "raw":
            self._stream.write(np.ascontiguousarray(crop).data)
        else:
            parts = _encode(crop)
            self._stream.write(b"".join(parts))
            self._lengths.append((len(parts[0]), len(parts[1])))
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self._crops == "raw":
                    self._stream.seek(0)
                    self._stream.write(_npy_header(self.count, self._side))
                self._stream.close()
                self.sha256["crops"] = sha256_file(self._path)
        except BaseException as failed:
            self._close_quietly()
            self._atomic.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._close_quietly()
        self._atomic.__exit__(kind, error, trace)
        if kind is None and self._crops == "jpeg":
            lengths = np.array(self._lengths, np.int32).reshape(-1, 2)
            self.sha256["lengths"] = save_array(self._files["lengths"], lengths)

    def _close_quietly(self) -> None:
        with suppress(
            OSError
        ):  # what could not be flushed: the disk is full, which is being raised
            self._stream.close()


def save_array(path: Path, array: npt.NDArray[Any]) -> str:
    """Write an array to a .npy file, atomically; the file's SHA-256."""
    with atomic_write(path) as temporary:
        with temporary.open("wb") as stream:
            # Not np.save to a path: where the disk is full its error does not say so.
            np.lib.format.write_array_header_1_0(
                stream, np.lib.format.header_data_from_array_1_0(array)
            )
            stream.write(np.ascontiguousarray(array).tobytes())
        return sha256_file(temporary)


def _npy_header(count: int, side: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 4)}
    )
    assert len(buffer.getvalue()) == _HEADER, "the header has one length, whatever the count"
    return buffer.getvalue()


def _encode(crop: npt.NDArray[np.uint8]) -> tuple[bytes, bytes]:
    colors, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(crop[..., :3]).save(colors, "JPEG", quality=QUALITY, subsampling=0)
    Image.fromarray(crop[..., 3]).save(mask, "PNG", compress_level=6)
    return colors.getvalue(), mask.getvalue()


def _decode(data: memoryview, first: int, out: npt.NDArray[np.uint8]) -> None:
    """Decode a crop to `out` (C, C, 4); `first` is the length of its JPEG."""
    with Image.open(io.BytesIO(data[:first]), formats=["JPEG"]) as colors:
        out[..., :3] = np.asarray(colors)
    with Image.open(io.BytesIO(data[first:]), formats=["PNG"]) as mask:
        out[..., 3] = np.asarray(mask)


class CropReader:
    """Reads rows of a store's crops, in any order, from several threads.

    They are read rather than copied from mapped memory, which costs a page fault for every 4 kB
    that was not touched yet: a third of the time, where it was measured.
    """

    def __init__(self, side: int, crops: CropFormat) -> None:
        self._side, self._crops = side, crops
        self._files: list[tuple[str, int]] = []
        self._places: list[npt.NDArray[np.int64]] = []
        self._first: list[npt.NDArray[np.int32]] = []
        self._ends: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def add_shard(self, stem: Path, count: int) -> None:
        """Take in the next shard. `ValueError` or `OSError` if its files do not fit."""
        files = files_of(stem, self._crops)
        if self._crops == "raw":
            crops = np.load(files["crops"], mmap_mode="r", allow_pickle=False)
            if crops.dtype != np.uint8:
                raise ValueError("it holds other data")
            if crops.shape != (count, self._side, self._side, 4):
                raise ValueError("its size differs")
            self._files.append((str(files["crops"]), int(crops.offset)))
        else:
            lengths = np.load(files["lengths"], allow_pickle=False)
            if lengths.dtype != np.int32 or lengths.shape != (count, 2) or (lengths <= 0).any():
                raise ValueError("its lengths differ")
            places = np.concatenate(([0], np.cumsum(lengths.sum(1, dtype=np.int64))))
            if files["crops"].stat().st_size != places[-1]:
                raise ValueError("its size differs")
            self._files.append((str(files["crops"]), 0))
            self._places.append(places)
            self._first.append(lengths[:, 0])
        before = self._ends[-1] if len(self._ends) else 0
        self._ends = np.append(self._ends, before + count)

    def gather(self, rows: npt.NDArray[np.integer], out: npt.NDArray[np.uint8]) -> None:
        """Read `rows` (B,) to `out` (B, C, C, 4) uint8.

        Raises:
            StoreError: a file is gone, was cut short or is damaged.
        """
        if self._crops == "raw":
            read_rows(self._files, self._ends, rows, out)
            return
        for shard, slots, places in _by_shard(self._ends, rows):
            path = self._files[shard][0]
            with _opened(path) as file:
                for slot, place in zip(slots, places, strict=True):
                    start, stop = self._places[shard][place : place + 2].tolist()
                    file.seek(start)
                    data = file.read(stop - start)
                    if len(data) != stop - start:
                        raise StoreError(f"{path} was cut short: make it again")
                    try:
                        _decode(memoryview(data), int(self._first[shard][place]), out[slot])
                    except Exception as error:  # whatever a decoder raises at damaged bytes
                        raise StoreError(f"{path} is damaged: make it again") from error


def read_rows(
    files: Sequence[tuple[str, int]],
    ends: npt.NDArray[np.int64],
    rows: npt.NDArray[np.integer],
    out: npt.NDArray[Any],
) -> None:
    """Read `rows` (B,) of arrays in several files to `out` (B, ...), whose type is the files'.

    `files` are paths with the place where the data begins; `ends` is the row after the last of
    each. Raises `StoreError` for a file that is gone or was cut short.
    """
    each = out[:1].nbytes
    for shard, slots, places in _by_shard(ends, rows):
        path, offset = files[shard]
        with _opened(path) as file:
            for slot, place in zip(slots, places, strict=True):
                file.seek(offset + place * each)
                if file.readinto(out[slot]) != each:
                    raise StoreError(f"{path} was cut short: make it again")


def _by_shard(
    ends: npt.NDArray[np.int64], rows: npt.NDArray[np.integer]
) -> Iterator[tuple[int, list[int], list[int]]]:
    """For each shard that `rows` are in: its number, their places in `rows`, and those in it."""
    shards = np.searchsorted(ends, rows, side="right")
    places = rows - np.concatenate(([0], ends))[shards]
    for shard in np.unique(shards).tolist():
        slots = np.flatnonzero(shards == shard)
        yield shard, slots.tolist(), places[slots].tolist()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            yield file
    except OSError as error:
        raise StoreError(f"{path} cannot be read any more: {error.strerror}") from error
