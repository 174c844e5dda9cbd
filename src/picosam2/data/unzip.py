"""Unpack an official zip file: check its whole list of contents, then write what is missing."""

from __future__ import annotations

import errno
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from picosam2._progress import Progress
from picosam2.errors import DataError
from picosam2.io.image_names import stays_inside

_CHUNK = 1 << 20
_MAX_RATIO = 20  # unpacked size over archive size; the official ones stay below 4
_MAX_MEMBERS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One unpacked file: its path below the folder, size in bytes and CRC-32."""

    name: str
    size: int
    crc: int

    def in_place(self, folder: Path) -> bool:
        """Whether the file lies below `folder`, with this size and CRC-32."""
        path = folder / self.name
        if not stays_inside(self.name) or not path.is_file() or path.stat().st_size != self.size:
            return False
        crc = 0
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                crc = zlib.crc32(chunk, crc)
        return crc == self.crc


def unpack(archive: Path, folder: Path, *, progress: Progress | None = None) -> tuple[Member, ...]:
    """Unpack a zip file below `folder` and give its files, with CRC-32 checked.

    Files that are already there with the right size and CRC-32 stay; others are replaced, each at
    once. The whole list of contents is checked before the first file is written: no path out of
    the folder, no link or device, no file twice, no more than 20 times the archive's size.

    Raises:
        DataError: the archive is damaged or has such contents, or there is no room.
    """
    members = []
    with disk_errors(folder), _damage(archive), zipfile.ZipFile(archive) as opened:
        entries = [entry for entry in opened.infolist() if not entry.filename.endswith("/")]
        if fault := _fault(entries, archive.stat().st_size):
            raise DataError(f"{archive} {fault}: it is not the official archive, do not use it")
        done, total = 0, sum(entry.file_size for entry in entries)
        for entry in entries:
            member = Member(name=entry.filename, size=entry.file_size, crc=entry.CRC)
            if not member.in_place(folder):
                _unpack_one(opened, entry, folder / entry.filename)
            members.append(member)
            done += entry.file_size
            if progress:
                progress(done, total, what=f"{archive.name}, unpacking")
    return tuple(members)


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """A zip file that cannot be read is a `DataError`."""
    damages = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError)
    try:
        yield
    except (*damages, OSError) as error:
        # EINVAL: the archive names a place before its beginning. Others are the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DataError(
            f"{archive} is a damaged zip file ({str(error) or type(error).__name__}): "
            "delete it and run this again"
        ) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses, while something is written below `folder`, is a `DataError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"there is no room left in {folder}: free some and run this again, "
                "it continues where it stopped"
            ) from error
        raise DataError(
            f"{error.filename or folder} cannot be used ({error.strerror or error}): "
            "choose another folder"
        ) from error


def _fault(entries: Sequence[zipfile.ZipInfo], size: int) -> str | None:
    """What is wrong with the contents of an archive of `size` bytes."""
    if len(entries) > _MAX_MEMBERS:
        return f"holds more than {_MAX_MEMBERS} files"
    if sum(entry.file_size for entry in entries) > _MAX_RATIO * size:
        return f"would unpack to more than {_MAX_RATIO} times its size"
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        if not stays_inside(name):
            return f"holds a file that leaves the folder, {name!r}"
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            return f"holds something that is not a plain file, {name!r}"
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            return f"holds a file with encryption or rare compression, {name!r}"
        same_everywhere = PurePosixPath(name).as_posix().casefold()
        if same_everywhere in seen:
            return f"holds a file twice, {name!r}"
        seen.add(same_everywhere)
    return None


def _unpack_one(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    # Not `_files.atomic_write`: it waits for the disk, which 118,287 images make too slow, and a
    # file lost in a power cut is noticed by its CRC at the next run.
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with opened.open(entry) as source, temporary.open("wb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
            if stream.tell() != entry.file_size:
                raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than stated")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
