"""The images of a run: found in folders, and matched with the names in a prompt file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picosam2.errors import ConfigError, DataError, ImageError
from picosam2.io.encode import ENDINGS
from picosam2.io.formats.objects import EntryProblem, reasons
from picosam2.io.paths import IMAGE_ENDINGS, files_below
from picosam2.tasks.bulk.prompts import PromptSource
from picosam2.tasks.output_plan import OutputPlan


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image of a run.

    name: its path below the folder of images, with /. path: where it is. key: what the prompt file
    calls it, if there is one.
    """

    name: str
    path: Path
    key: str | None = None


def check_paths(paths: Sequence[Path]) -> None:
    """Raise `ImageError` if there is no path, or one is neither a file nor a folder."""
    if not paths:
        raise ImageError("there is no image: name a folder of images")
    for place in paths:
        if str(place) == "-" or not (place.is_dir() or place.is_file()):
            raise ImageError(f"{place} is not an image nor a folder of images: check the path")


def find_images(paths: Sequence[Path], plan: OutputPlan) -> tuple[dict[str, Path], list[str]]:
    """The images in folders and files, by name, and a sentence for each that cannot be read.

    The name is the path below the folder in which an image was found; of a file, its own name.

    Raises:
        ImageError: there is no image, or a path is neither an image nor a folder.
        ConfigError: two images have one name.
    """
    check_paths(paths)
    images: dict[str, Path] = {}
    problems: list[str] = []
    for place in paths:
        here = _images_below(place, plan, problems) if place.is_dir() else {place.name: place}
        for name, path in here.items():
            if name in images:
                raise ConfigError(f"{images[name]} and {path} have one name: use two calls")
            images[name] = path
    return images, problems


def match_images(images: dict[str, Path], source: PromptSource) -> tuple[list[Job], list[str]]:
    """The images that have prompts, and a sentence for each prompt without an image.

    Raises:
        DataError: no image is named in the prompt file.
    """
    if source.file is None:
        return [Job(name=name, path=path) for name, path in images.items()], []
    file = source.file
    matches = file.match(list(images))
    jobs = [
        Job(name=name, path=path, key=matches.names[name])
        for name, path in images.items()
        if name in matches.names
    ]
    used = set(matches.names.values())
    missing = [
        matches.unclear.get(key, EntryProblem(where=key, what="there is no such image"))
        for key in file.images
        if key not in used
    ]
    if not jobs:
        if not file.images:
            why = f": {reasons(file.problems)}" if file.problems else ""
            raise DataError(f"the prompts name no image{why}")
        why = reasons([*missing, *file.problems])
        raise DataError(f"no image is named in the prompts: {why}: check the folder")
    return jobs, [*map(str, file.problems), *map(str, missing)]


def _images_below(folder: Path, plan: OutputPlan, problems: list[str]) -> dict[str, Path]:
    real = folder.resolve()
    written = None if plan.file else plan.folder.resolve()
    if written == real and ENDINGS[plan.format][0] == ".png":
        raise ConfigError(f"{folder} holds the images: give --out another folder")
    # Images that an earlier run wrote into a folder among the images are none of them.
    results = written if written and real in written.parents else None
    unreadable: list[str] = []

    def on_error(error: OSError) -> None:
        unreadable.append(f"{error.filename}: it cannot be read: {error.strerror or error}")

    images = {}
    for name, path in files_below(folder, on_error=on_error).items():
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        if results and path.resolve().is_relative_to(results):
            continue
        if path.is_file():
            images[name] = path
        elif path.is_symlink():
            unreadable.append(f"{name}: it is a link to {path.readlink()}, which is not there")
    if not images:
        reasons = f": {'; '.join(unreadable[:3])}" if unreadable else ""
        raise ImageError(f"there is no image in {folder}{reasons}")
    problems += unreadable
    return images
