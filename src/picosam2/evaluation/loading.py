"""The images and masks of a measurement, loaded one image at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2._progress import Progress
from picosam2._words import counted
from picosam2.data.coco import AnnotatedImage, EntryProblem, Instance
from picosam2.errors import DataError, PicoSAM2Error
from picosam2.images import load_image


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedImage:
    """An annotated image, and those of its objects whose masks could be read.

    pixels: (H, W, 3) uint8 RGB. masks: (H, W) bool, one for each of `instances`, at least one.
    """

    annotated: AnnotatedImage
    pixels: npt.NDArray[np.uint8]
    instances: tuple[Instance, ...]
    masks: tuple[npt.NDArray[np.bool_], ...]


def load_images(
    images: Iterable[AnnotatedImage],
    problems: list[EntryProblem],
    *,
    max_objects: int | None = None,
    max_images: int | None = None,
    progress: Progress | None = None,
) -> Iterator[LoadedImage]:
    """Load annotated images that have at least one usable object, in order.

    Args:
        images: what to load.
        problems: gets an entry for each image and each object that could not be read.
        max_objects: stop after so many objects.
        max_images: stop after so many images.
        progress: receives the number of objects that are done, or of images with `max_images`;
            an image is done when the next one is requested.

    Raises:
        DataError: there was no usable object at all.
    """
    listed = tuple(images)
    objects_in_all = sum(len(image.instances) for image in listed)
    total = min(objects_in_all, max_objects or objects_in_all)
    if max_images is not None:
        total = min(len(listed), max_images)
    objects = loaded_images = 0
    for annotated in listed:
        room = None if max_objects is None else max_objects - objects
        if room == 0 or loaded_images == max_images:
            break
        loaded = _load(annotated, room, problems)
        if loaded is None:
            continue
        yield loaded
        objects += len(loaded.instances)
        loaded_images += 1
        if progress:
            progress(objects if max_images is None else loaded_images, total)
    if not objects:
        reasons = "; ".join(f"{each.where}: {each.what}" for each in problems[:3])
        raise DataError(
            "there was nothing to measure: check the annotations and the image folder"
            + (f" ({counted(len(problems), 'problem')}: {reasons})" if problems else "")
        )


def _load(
    annotated: AnnotatedImage, room: int | None, problems: list[EntryProblem]
) -> LoadedImage | None:
    """The image with the first `room` of its objects; None if it cannot be used."""
    try:
        pixels = load_image(annotated.path)
    except PicoSAM2Error as error:
        problems.append(EntryProblem(where=f"image {annotated.path.name}", what=str(error)))
        return None
    kept, masks = [], []
    for instance in annotated.instances[:room]:
        try:
            mask = instance.mask()
            if mask.shape != pixels.shape[:2]:
                raise DataError("its mask has another size than the image")
        except PicoSAM2Error as error:
            problems.append(EntryProblem(where=f"annotation {instance.id}", what=str(error)))
            continue
        kept.append(instance)
        masks.append(mask)
    if not kept:
        return None
    return LoadedImage(
        annotated=annotated, pixels=pixels, instances=tuple(kept), masks=tuple(masks)
    )
