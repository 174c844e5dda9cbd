"""Masks that a teacher made, as sources of a store; see `distillation.dense`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from picosam2.data.coco import AnnotatedImage
from picosam2.errors import ConfigError

TAUGHT = "dense-"
"""The names of such sources begin with this."""


def check_taught_once(images: Iterable[AnnotatedImage]) -> None:
    """Refuse (`ConfigError`) the masks of two teachers for one image.

    Most objects would be there twice, and recipes could not weigh the two apart: their sources have
    one name.
    """
    seen: set[tuple[str, Path]] = set()
    for image in images:
        if not image.source.startswith(TAUGHT):
            continue
        key = (image.source, image.path)
        if key in seen:
            raise ConfigError(
                f"two of the files hold a teacher's masks of {image.path} (source "
                f"{image.source!r}): give the masks of one teacher"
            )
        seen.add(key)
