"""Writing files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

_MAX_STEM, _MAX_SUFFIX = 128, 32  # bytes; file systems take names of 255 or, encrypted, of 143


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it replaces `path`, on an error it goes.

    The temporary file is in the same folder, so that the replacement is one rename. What a killed
    process left behind is used by the next one that writes the same file.
    """
    with _replacing(Path(path)) as (temporary, _):
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())


@contextmanager
def _replacing(target: Path) -> Iterator[tuple[Path, int | None]]:
    """`atomic_write` without waiting for the disk; also gives the file's handle, not on Windows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _open_temporary(target)
    windows = sys.platform == "win32"  # which renames and removes no open file
    if windows:
        os.close(handle)
    try:
        yield temporary, None if windows else handle
        temporary.replace(target)
    except BaseException:
        # Not after the rename: the name may be another writer's by then.
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if not windows:
            os.close(handle)  # and with it goes the lock


def _open_temporary(target: Path) -> tuple[int, Path]:
    """An empty file beside `target`, open and locked by this process as long as it is open.

    The kernel gives it the permissions of a new file: reading the umask takes a moment in which it
    is not in force, in all threads.
    """
    stem, suffix = _cut(target.stem), target.suffix
    if len(os.fsencode(suffix)) > _MAX_SUFFIX:
        suffix = ""
    for number in itertools.count():
        path = target.with_name(f".{stem}-{number}{suffix}")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        if sys.platform == "win32":
            flags |= os.O_EXCL
        try:
            handle = os.open(path, flags, 0o666)
        except OSError:
            if not os.path.lexists(path):
                raise
            continue  # another user's, or on Windows another writer's
        if _lock(handle, path):
            os.ftruncate(handle, 0)
            return handle, path
        os.close(handle)
    raise AssertionError("itertools.count has no end")


@contextmanager
def scratch_folder(parent: Path | None = None, prefix: str = "picosam2-") -> Iterator[Path]:
    """A folder to work in, which goes at the end, unless it has been moved.

    What killed processes left of such folders goes now: they are those that nobody has locked
    (not on Windows).

    Args:
        parent: where it is made; by default among the system's temporary files, for this user only.
        prefix: what its name begins with.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    if sys.platform != "win32":
        name = re.compile(f"{re.escape(prefix)}[0-9a-f]{{16}}")
        for left in (path for path in where.iterdir() if name.fullmatch(path.name)):
            _remove_if_free(left)
    folder, handle = _new_folder(where, prefix, 0o700 if parent is None else 0o777)
    try:
        yield folder
    finally:
        if handle is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            if _is_at(handle, folder):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _new_folder(where: Path, prefix: str, mode: int) -> tuple[Path, int | None]:
    """A new folder and, except on Windows, its handle, locked by this process."""
    while True:
        folder = where / f"{prefix}{os.urandom(8).hex()}"
        folder.mkdir(mode)
        if sys.platform == "win32":
            return folder, None
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # another process took it for one that was left behind
            continue
        if _lock(handle, folder):
            return folder, handle
        os.close(handle)


def _remove_if_free(folder: Path) -> None:
    """Remove a folder of this user's that no process has locked."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.fstat(handle).st_uid == os.geteuid() and _lock(handle, folder):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder has this name (still)."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


def _lock(handle: int, path: Path) -> bool:
    """Whether the file is free, and this process's from now on."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    # Between opening and locking, the writer before may have renamed it to its target.
    return _is_at(handle, path)


def _cut(stem: str) -> str:
    """A file name's stem, cut so that what is added to it leaves a name that systems take."""
    while len(os.fsencode(stem)) > _MAX_STEM:
        stem = stem[:-1]
    return stem


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with (
        _replacing(Path(path)) as (temporary, handle),
        # The handle that is open already saves opening it twice, which counts for small files.
        temporary.open("wb") if handle is None else open(handle, "wb", closefd=False) as stream,
    ):
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> None:
    """Write `value` as JSON to `path`, atomically. NaN and infinity are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
