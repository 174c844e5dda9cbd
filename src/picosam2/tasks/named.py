"""Images that a user names one by one: reading them, and writing what was found in each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from picosam2.errors import ConfigError, ImageError, PicoSAM2Error
from picosam2.images import MAX_PIXELS, load_image
from picosam2.io.encode import DRAWN, PER_OBJECT, encode
from picosam2.io.extras import file_extras
from picosam2.io.sample_image import sample_bytes
from picosam2.results import Segmentation
from picosam2.tasks.output_plan import STREAM, OutputPlan, relative_to_file

SAMPLE = "sample"
"""The word that means the bundled image, where no file has that name."""

_MAX_STREAM_BYTES = 4 * MAX_PIXELS

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class NamedImage:
    """An image as the user named it: a path, `-` for standard input, or `sample`."""

    text: str

    @property
    def path(self) -> Path | None:
        """The file; None for standard input and the bundled image."""
        if self.text == STREAM or (self.text == SAMPLE and not Path(self.text).exists()):
            return None
        return Path(self.text)

    @property
    def name(self) -> str:
        """What its results are named after."""
        return "stdin" if self.text == STREAM else Path(self.text).name

    def load(self) -> Image:
        """The image (H, W, 3) uint8 RGB. `ImageError` if it cannot be read."""
        if self.text == STREAM:
            if sys.stdin is None:
                raise ImageError("standard input is closed: give the path of an image file")
            return load_image(_read_stream(sys.stdin.buffer))
        if self.path is None:
            return load_image(sample_bytes())
        # A path swallows one of the slashes of a web address, which `load_image` looks for.
        if self.text.startswith(("http:/", "https:/")):
            return load_image(self.text.replace(":/", "://", 1))
        return load_image(self.text)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that was written, with its objects; path None means standard output."""

    path: Path | None
    objects: Sequence[Segmentation]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that could not be used, and why."""

    name: str
    reason: str


def named_images(names: Sequence[str], *, command: str) -> list[NamedImage]:
    """The images of a command line.

    Raises:
        ImageError: there is none.
        ConfigError: one is named twice, or looks like an option of `command`.
    """
    if not names:
        raise ImageError(
            "there is no image: name one, or write `sample` for the bundled one, "
            "or - to read one from standard input"
        )
    for name in names:
        # `-` is an image, so the parser lets everything with a hyphen through.
        if name.startswith("-") and name != STREAM and not Path(name).exists():
            raise ConfigError(f"there is no option {name}: see `picosam2 {command} --help`")
    for name in set(names):
        if names.count(name) > 1:
            raise ConfigError(f"the image {name} is named twice: name it once")
    return [NamedImage(text=name) for name in names]


def write_named(
    images: Sequence[NamedImage],
    objects_of: Callable[[NamedImage, Image], Sequence[Segmentation]],
    plan: OutputPlan,
    *,
    separate: bool = False,
    **encoding: Any,
) -> Iterator[Written | LeftOut]:
    """Find the objects of each image and write them, image by image.

    Args:
        images: what to read.
        objects_of: gives the objects of an image (H, W, 3) uint8 RGB.
        plan: where to write, and in which form.
        separate: an overlay for each object.
        encoding: further arguments for `io.encode.encode`.

    An image that cannot be used is given as `LeftOut`. If it is the only one, its error is raised
    instead.
    """
    for image in images:
        try:
            pixels = image.load()
            objects = objects_of(image, pixels)
            written = list(_write(image, pixels, objects, plan, separate, encoding))
        except PicoSAM2Error as error:
            if len(images) == 1:
                raise
            yield LeftOut(name=image.text, reason=str(error))
        else:
            yield from written


def _write(
    image: NamedImage,
    pixels: Image,
    objects: Sequence[Segmentation],
    plan: OutputPlan,
    separate: bool,
    encoding: dict[str, Any],
) -> Iterator[Written]:
    groups: list[Sequence[Segmentation]] = [objects]
    if plan.format in PER_OBJECT or (separate and plan.format == "overlay"):
        groups = [[each] for each in objects]
    if plan.stream and len(groups) > 1:
        raise ConfigError(
            f"standard output takes one image, not {len(groups)}: use --format json, or a folder"
        )
    if plan.format in DRAWN and image.path is not None and image.path.is_file():
        encoding = {
            **encoding,
            "extras": file_extras(image.path, rgba=plan.format == "cutout"),
        }
    for number, group in enumerate(groups, 1):
        path = plan.path(image.name, number if len(groups) > 1 else None)
        name = image.text
        if plan.format == "labelme" and image.path is not None and not plan.stream:
            name = relative_to_file(image.path, path)
        jpeg = path.suffix.lower() in (".jpg", ".jpeg")
        plan.write(path, encode(plan.format, name, pixels, group, jpeg=jpeg, **encoding))
        yield Written(path=None if plan.stream else path, objects=group)


def _read_stream(stream: BinaryIO) -> bytes:
    data = stream.read(_MAX_STREAM_BYTES + 1)
    if len(data) > _MAX_STREAM_BYTES:
        raise ImageError(
            f"standard input has more than {_MAX_STREAM_BYTES / 1e6:,.0f} MB: give the path of "
            "an image file"
        )
    return data
