"""Annotated images of a data set in COCO's format: where each is, and the masks of its objects.

The format itself is read by `picosam2.io.formats.coco`. Here its image names are found as files,
and what a data set needs is asked for: an id and a segmentation for each object, and a size for
each image. What is broken or not there is left out, with an `EntryProblem` that says which and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from picosam2.errors import DataError
from picosam2.images import MAX_PIXELS
from picosam2.io.formats.coco import (
    CocoAnnotation,
    CocoFile,
    CocoImage,
    CocoSegmentation,
    read_coco_file,
    segmentation_area,
    segmentation_mask,
)
from picosam2.io.formats.objects import EntryProblem, reasons
from picosam2.io.image_names import spellings, stays_inside
from picosam2.masks import Mask

__all__ = [
    "AnnotatedImage",
    "Annotations",
    "EntryProblem",
    "Instance",
    "read_annotated_images",
    "read_coco",
]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instance:
    """One annotated object.

    Attributes:
        segmentation: polygons as a tuple of (2N,) float64 arrays x0, y0, x1, y1, ... in pixels, or
            a run-length encoding in column order: bytes (compressed) or (R,) uint32 (run lengths).
        height, width: the image's size in pixels.
        area: the object's area in pixels, as the file states it, or else from its outline.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: CocoSegmentation = field(repr=False)
    height: int
    width: int
    area: float

    def mask(self) -> Mask:
        """The object's pixels, (H, W) bool.

        Raises:
            DataError: the segmentation is broken, or no pixel is on the object.
        """
        try:
            mask = segmentation_mask(self.segmentation, self.height, self.width)
        except DataError as error:
            raise DataError(f"annotation {self.id} cannot be used: {error}") from error
        if not mask.any():
            raise DataError(f"annotation {self.id} cannot be used: its mask has no pixel")
        return mask


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnnotatedImage:
    """One image and its objects. `height` and `width` are what the annotation file says."""

    id: int
    path: Path
    height: int
    width: int
    source: str
    instances: tuple[Instance, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Annotations:
    """What one annotation file holds. `crowds` counts the crowd regions that were skipped."""

    images: tuple[AnnotatedImage, ...]
    problems: tuple[EntryProblem, ...]
    crowds: int

    def images_to_measure(self) -> tuple[AnnotatedImage, ...]:
        """The images, if there is an object in any.

        Raises:
            DataError: there is none, with the commonest reasons why entries were left out.
        """
        if not any(image.instances for image in self.images):
            why = f": {reasons(self.problems)}" if self.problems else ""
            raise DataError(
                f"there is nothing to measure, no image with an object{why}: check the "
                "annotations and the image folder"
            )
        return self.images


def read_coco(annotations: Path, images: Path, *, source: str | None = None) -> Annotations:
    """Read a COCO instances file.

    Args:
        annotations: the JSON file, for instance `instances_val2017.json`.
        images: the folder that the file names in it start from.
        source: name of the data set, for images without a field `source`; by default the
            annotation file's stem.

    Images and objects keep the file's order. Crowd regions are counted and skipped: they mark many
    objects at once. Broken entries, images that are not there and a second entry with the same id
    are left out, each with an `EntryProblem`.

    Raises:
        DataError: the file or the folder is missing, or the file is not a COCO instances file.
    """
    return read_annotated_images(annotations, images, source=source, candidates=_file_name)


def _file_name(image: CocoImage) -> Sequence[str]:
    """Where an image may lie below the image folder."""
    if image.name is None:
        raise DataError("has no file_name")
    return (image.name,)


def read_annotated_images(
    annotations: Path,
    images: Path,
    *,
    source: str | None,
    candidates: Callable[[CocoImage], Sequence[str]],
) -> Annotations:
    """Read a COCO-like file; `candidates(image)` gives the relative paths to look at.

    `candidates` raises `DataError` with the reason when the entry names no file.
    """
    annotations, images = Path(annotations), Path(images)
    file = read_coco_file(annotations)
    if file.results:
        raise DataError(
            f"{annotations} holds no JSON object: pass a COCO or LVIS instances file, not results"
        )
    if not images.is_dir():
        raise DataError(f"the image folder {images} does not exist: pass the folder of the images")
    default_source = annotations.stem if source is None else source
    annotated: dict[int, AnnotatedImage] = {}
    broken: dict[int, str] = {}  # image id -> why it is left out
    by_path: dict[Path, list[tuple[int, bool]]] = {}  # image ids, and whether by the very name
    for image in file.images.values():
        try:
            path, exact = _find(images, candidates(image))
            annotated[image.id] = _annotated(image, path, default_source)
        except DataError as error:
            broken[image.id] = str(error)
        else:
            by_path.setdefault(path, []).append((image.id, exact))
    for path, ids in by_path.items():
        for image_id, exact in ids:
            if not exact and len(ids) > 1:
                del annotated[image_id]
                broken[image_id] = (
                    f"has no file of its own name in the image folder, and {path.name} is taken "
                    "by another image"
                )
    instances: dict[int, list[Instance]] = {}
    for annotation, instance in _instances(file, broken, annotated):
        if isinstance(instance, Instance):
            instances.setdefault(instance.image_id, []).append(instance)
        else:
            file.problems.append(EntryProblem(where=annotation.where, what=str(instance)))
    return Annotations(
        images=tuple(
            replace(image, instances=tuple(instances.get(image.id, ())))
            for image in annotated.values()
        ),
        problems=tuple(file.problems),
        crowds=file.crowds,
    )


def _annotated(image: CocoImage, path: Path, default_source: str) -> AnnotatedImage:
    sides = {"height": image.height, "width": image.width}
    for name, side in sides.items():
        if side is None:
            raise DataError(f"has no {name} that is a whole number from 0 up")
    height, width = image.height or 0, image.width or 0
    if height == 0 or width == 0:
        raise DataError("has no pixels")
    if height * width > MAX_PIXELS:
        raise DataError(f"is larger than {MAX_PIXELS} pixels")
    source = image.entry.get("source")
    return AnnotatedImage(
        id=image.id,
        path=path,
        height=height,
        width=width,
        source=source if isinstance(source, str) and source else default_source,
        instances=(),
    )


def _find(images: Path, names: Sequence[str]) -> tuple[Path, bool]:
    """The first of `names` that is a file below `images`, and whether under that very name."""
    for exact in (True, False):
        for name in names:
            for spelled in [name] if exact and stays_inside(name) else spellings(name):
                path = images / spelled
                try:
                    if path.is_file():
                        return path, exact and spelled == name
                except OSError:  # a name that the file system cannot have
                    continue
    for name in names:
        if not stays_inside(name):
            raise DataError(f"has a file_name that leaves the image folder: {_short(name)}")
    raise DataError(f"has no image in the image folder: {_short(names[0])} is missing")


def _short(name: str) -> str:
    return repr(name if len(name) <= 100 else name[:100] + "...")


def _instances(
    file: CocoFile, broken: dict[int, str], images: dict[int, AnnotatedImage]
) -> Iterator[tuple[CocoAnnotation, Instance | DataError]]:
    """The objects of images that are not broken, or why one cannot be used."""
    for annotation in file.leave_out(broken):
        try:
            yield annotation, _instance(annotation, images[annotation.image_id])
        except DataError as error:
            yield annotation, error


def _instance(annotation: CocoAnnotation, image: AnnotatedImage) -> Instance:
    if annotation.id is None:
        raise DataError("has no id that is a whole number from 0 up")
    if annotation.segmentation is None:
        raise DataError(annotation.without or "has no segmentation")
    area = annotation.area
    if area is None:
        try:
            area = segmentation_area(annotation.segmentation, image.height, image.width)
        except DataError as error:
            raise DataError(f"has no area, nor a mask to count: {error}") from error
    return Instance(
        id=annotation.id,
        image_id=image.id,
        category_id=annotation.category_id,
        segmentation=annotation.segmentation,
        height=image.height,
        width=image.width,
        area=area,
    )
