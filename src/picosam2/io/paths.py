"""The files below a folder, through linked folders too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
"""The endings of the files in a folder that count as images."""


def files_below(
    folder: Path, *, on_error: Callable[[OSError], None] | None = None
) -> dict[str, Path]:
    """All files below `folder`, by their paths relative to it (with /), in alphabetical order.

    Linked folders are entered, except into a folder that leads back to one above it. Hidden files
    and folders, whose names begin with a dot, are left out.

    Args:
        folder: where to look.
        on_error: receives the error for each folder or link that cannot be read.
    """
    files: dict[str, Path] = {}
    # Each folder with the real paths of the folders above it, its own included.
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(),))]
    while waiting:
        place, above = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            if on_error is not None:
                on_error(error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = place / entry.name
            try:
                leads_on = entry.is_dir()
            except OSError as error:  # a link to itself, or to where one may not look
                if on_error is not None:
                    on_error(error)
                continue
            if leads_on:
                real = path.resolve() if entry.is_symlink() else above[-1] / entry.name
                if real not in above:
                    waiting.append((path, (*above, real)))
            else:
                files[path.relative_to(folder).as_posix()] = path
    return dict(sorted(files.items()))
