"""The images that a store keeps for validation, to measure on."""

from __future__ import annotations

from pathlib import Path

from picosam2.data.coco import AnnotatedImage, read_coco
from picosam2.data.taught import TAUGHT


def held_out_images(store: Path) -> tuple[AnnotatedImage, ...]:
    """The validation images with their annotated objects, source by source.

    Images without an object are left out, and so are masks that a teacher made: they are learned
    from, but how good they are is not known.

    Raises:
        DataError: they cannot be read.
    """
    read = read_coco(store / "validation.json", store / "validation")
    return tuple(
        image for image in read.images if image.instances and not image.source.startswith(TAUGHT)
    )
