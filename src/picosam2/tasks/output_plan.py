"""Where results go and in which form: settled, and checked, before anything is computed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from picosam2._files import write_bytes
from picosam2.errors import ConfigError
from picosam2.io.encode import ENDINGS, MANY_IMAGES, PER_OBJECT, Format, is_marked, name_suffix

STREAM = "-"
"""Standard input as an image, standard output as a place."""

_OF_THE_PATH = (
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EINVAL,
    errno.EILSEQ,
)
"""Errors that say something of one path; another image's results may still be written."""

_USUAL: dict[str, Format] = {".json": "json", ".svg": "svg", ".txt": "yolo"}


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """The format of the results, and the file or the folder that they are written to.

    An image is known here by its name: its path below the folder of images, or its file name.

    format: what is written.
    folder: where files are written that are named after the images.
    file: the one file instead, for one image or for a format that holds many.
    stream: standard output instead.
    images: the images themselves (resolved paths), which are never written over.
    """

    format: Format
    folder: Path = Path()
    file: Path | None = None
    stream: bool = False
    images: frozenset[Path] = frozenset()

    @classmethod
    def for_named(
        cls,
        images: Sequence[tuple[str, Path | None]],
        out: Path | None,
        format: Format | None,
        *,
        overwrite: bool = False,
        kept: Iterable[Path] = (),
    ) -> OutputPlan:
        """The plan for images that were named one by one.

        Args:
            images: the name and the path of each; None for an image that is no file.
            out: a folder, a file, or `-`; None for the current folder.
            format: None for what suits a file's ending, else an overlay.
            overwrite: replace files that may be somebody's own work: labels and documents that
                share the image's name, and are not known as results of this project.
            kept: further files that are never written over.

        Raises:
            ConfigError: the images do not fit into `out`, the format does not suit it, or a file
                that is there would be lost.
        """
        stream = str(out) == STREAM
        file = None if out is None or stream else _as_file(out)
        chosen = format or (_USUAL.get(file.suffix.lower(), "overlay") if file else "overlay")
        endings = ENDINGS[chosen]
        if file and file.suffix.lower() not in endings:
            raise ConfigError(f"{file} does not suit {chosen}: end it in {' or '.join(endings)}")
        if file and len(images) > 1:
            raise ConfigError(
                f"{len(images)} images do not fit into one file, {file}: give --out a folder"
            )
        if stream and sys.stdout is None:
            raise ConfigError("standard output is closed: give --out a file or a folder")
        if stream and endings[0] == ".png":
            if len(images) > 1:
                raise ConfigError("standard output takes one image: name one, or use --format json")
            if sys.stdout.isatty():
                raise ConfigError("a terminal shows no image: send it to a file with > mask.png")
        plan = cls(
            format=chosen,
            folder=Path() if out is None or stream or file else out,
            file=file,
            stream=stream,
            images=_resolved([*(path for _, path in images), *kept]),
        )
        plan._check_names(images)
        if not (overwrite or stream or name_suffix(chosen)):
            for name, _ in images:
                _check_replaceable(plan.path(name))
        return plan

    @classmethod
    def for_many(cls, out: Path | None, format: Format | None) -> OutputPlan:
        """The plan for folders of images: a file for each, or one file for all.

        Raises:
            ConfigError: `out` does not suit the format.
        """
        if str(out) == STREAM:
            raise ConfigError("many images do not fit into standard output: give --out a folder")
        file = None if out is None else _as_file(out)
        if format is None:
            format = "coco" if file and file.suffix.lower() == ".json" else "overlay"
        if format in MANY_IMAGES:
            target = file or (out or Path()) / "masks.json"
            if target.suffix.lower() not in ENDINGS[format]:
                raise ConfigError(f"{target} does not suit {format}: end it in .json")
            return cls(format=format, file=target)
        if file:
            raise ConfigError(
                f"{format} has a file for each image: give --out a folder, not {file}"
            )
        return cls(format=format, folder=out or Path())

    @property
    def target(self) -> Path:
        """The file, or else the folder."""
        return self.file or self.folder

    def path(self, name: str, number: int | None = None) -> Path:
        """The file for an image, or for one object of several."""
        if self.file:
            base, ending = self.file.with_suffix(""), self.file.suffix
        else:
            stem = self.folder / Path(name).with_suffix("")
            base = stem.with_name(f"{stem.name}{name_suffix(self.format)}")
            ending = ENDINGS[self.format][0]
        numbered = "" if number is None else f"-{number}"
        return base.with_name(f"{base.name}{numbered}{ending}")

    def paths(self, name: str, objects: int, *, separate: bool = False) -> list[Path]:
        """The files for an image with so many objects: one each with `separate` or by format."""
        if objects != 1 and (separate or self.format in PER_OBJECT):
            return [self.path(name, number) for number in range(1, objects + 1)]
        return [self.path(name)]

    def with_images(self, images: Mapping[str, Path]) -> OutputPlan:
        """This plan for these images, by name. `ConfigError` if two would share a file."""
        if self.file is None:
            self._check_names(images.items())
        return replace(self, images=_resolved(images.values()))

    def write(self, path: Path, data: bytes) -> None:
        """Write a result to `path`, or to standard output.

        Raises:
            ConfigError: `path` is one of the images, or nothing can be written there.
            OSError: nothing can be written anywhere, for instance on a full disk.
        """
        self._check_input(path)
        if self.stream:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        try:
            write_bytes(path, data)
        except OSError as error:
            if error.errno in _OF_THE_PATH:
                raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error

    def _check_input(self, path: Path) -> None:
        if not self.stream and path.resolve() in self.images:
            raise ConfigError(f"{path} is one of the images: choose another --out")

    def _check_names(self, images: Iterable[tuple[str, Path | None]]) -> None:
        written: dict[Path, str] = {}
        for name, path in images:
            target, shown = self.path(name), name if path is None else str(path)
            self._check_input(target)
            if target in written:
                raise ConfigError(
                    f"{written[target]} and {shown} would both be written to {target}: "
                    "segment them in two calls, each with its own --out"
                )
            written[target] = shown


def relative_to_file(image: Path, file: Path) -> str:
    """The path of an image as seen from the folder of `file`, with /."""
    try:
        return Path(os.path.relpath(image.resolve(), file.parent.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return image.resolve().as_posix()


def _check_replaceable(path: Path) -> None:
    if path.exists() and not is_marked(path):
        raise ConfigError(
            f"{path} is there, and was not written by this command or was changed since: "
            "add --overwrite, or choose another --out"
        )


def _as_file(out: Path) -> Path | None:
    return out if out.suffix and not out.is_dir() else None


def _resolved(paths: Iterable[Path | None]) -> frozenset[Path]:
    return frozenset(path.resolve() for path in paths if path is not None)
