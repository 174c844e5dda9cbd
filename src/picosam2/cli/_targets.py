"""Files and folders that a command will read and write, checked before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from picosam2.errors import ConfigError, DataError


def check_files(
    *paths: Path | None, ending: str | None = None, kept: Iterable[Path | str | None] = ()
) -> None:
    """Raise `ConfigError` for a file that cannot be written, or has not this ending.

    Without it the results of hours could be lost to a misspelled folder. None is passed over. The
    files `kept` are what the command reads: they are not written over.
    """
    sources = {Path(source).resolve() for source in kept if source is not None}
    for path in paths:
        if path is None:
            continue
        if path.resolve() in sources:
            raise ConfigError(f"{path} is read by this command: give what it writes another name")
        if ending is not None and path.suffix.lower() != ending:
            raise ConfigError(f"{path} is no name for such a file: end it in {ending}")
        if path.is_dir():
            raise ConfigError(f"{path} is a folder: give the name of a file in it")
        _check_place(path.parent, path)


def check_sources(*sources: tuple[Path, Path]) -> None:
    """Raise `DataError` unless each is an annotation file and a folder of images that are there.

    Reading the first of several annotation files can take a minute.
    """
    for file, images in sources:
        if not file.is_file():
            raise DataError(f"the annotation file {file} does not exist: check the path")
        if not images.is_dir():
            raise DataError(
                f"the image folder {images} does not exist: pass the folder of the images"
            )


def check_image_folders(*folders: Path) -> None:
    """Raise `DataError` unless each folder is there."""
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"the image folder {folder} does not exist: check the path")


def check_folders(*paths: Path | None) -> None:
    """Raise `ConfigError` for a folder that cannot be made or written. None is passed over."""
    for path in paths:
        if path is not None:
            _check_place(path, path)


def _check_place(folder: Path, path: Path) -> None:
    """The folder, or the nearest one above it that exists, must be one that takes new files."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"{path} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be written: new files are not allowed in {folder}")
