"""A person's own masks beside a folder of images: COCO, labelme or YOLO, whichever it is.

The formats are those of `segment --boxes` and are read by `picosam2.io`. There a mask counts as its
box; here the mask itself is wanted, and a box is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from picosam2 import masks
from picosam2.data.coco import AnnotatedImage, Annotations, Instance, read_coco
from picosam2.errors import DataError, ImageError, PicoSAM2Error
from picosam2.images import image_size
from picosam2.io.formats.labelme import read_labelme
from picosam2.io.formats.objects import (
    EntryProblem,
    LabeledObject,
    check_stated_size,
    read_json,
    reasons,
)
from picosam2.io.formats.yolo import read_yolo
from picosam2.io.image_names import match_names, plain
from picosam2.io.paths import IMAGE_ENDINGS, files_below
from picosam2.io.prompt_files import guess_format, label_files

SOURCE = "own"
"""What the images' field `source` says."""

_Reader = Callable[[str, int, int, list[EntryProblem]], list[LabeledObject]]
"""Reads a label file's text for an image of a height and width."""


def read_labeled_images(annotations: Path, images: Path) -> Annotations:
    """Read masks of a COCO file, or of labelme or YOLO files in a folder, with their images.

    Only headers of the images are read. Images without a mask are left out; so is what is broken,
    with a problem each. The ids are new.

    Raises:
        DataError: the annotations are none of these formats, or no mask of them can be used.
    """
    if not annotations.exists():
        raise DataError(f"the annotations {annotations} do not exist: check the path")
    if not images.is_dir():
        raise DataError(f"the image folder {images} does not exist: pass the folder of the images")
    form = _format(annotations)
    if form == "coco":
        read = _checked_sizes(read_coco(annotations, images, source=SOURCE))
    elif form == "labelme":
        files = label_files(annotations, ".json")
        read = _read_files(files, images, _labelme_objects, _labelme_names(files))
    else:
        read = _read_files(label_files(annotations, ".txt"), images, _yolo_objects, {})
    kept = [image for image in read.images if image.instances]
    if not kept:
        why = f": {reasons(read.problems)}" if read.problems else ""
        raise DataError(f"no mask in {annotations} can be used with the images in {images}{why}")
    return replace(read, images=tuple(_numbered(kept)))


def _format(annotations: Path) -> str:
    """coco, labelme or yolo; the message for anything else names these."""
    if annotations.is_dir():
        endings = {file.suffix.lower() for file in files_below(annotations).values()}
        endings -= IMAGE_ENDINGS
        if not endings & {".json", ".txt"}:
            held = f"holds {', '.join(sorted(endings))} files" if endings else "is empty"
            raise DataError(
                f"the folder {annotations} {held}, and no labels that are known: give a COCO file, "
                "or a folder of labelme (.json) or YOLO (.txt) files"
            )
        if {".json", ".txt"} <= endings and len(label_files(annotations, ".txt")):
            raise DataError(
                f"the folder {annotations} holds both .json and .txt files: give a folder with the "
                "labels of one tool"
            )
    elif annotations.suffix.lower() not in (".json", ".txt"):
        raise DataError(
            f"{annotations} is no file of labels that is known: give a COCO file (.json), or a "
            "folder of labelme (.json) or YOLO (.txt) files"
        )
    return guess_format(annotations)


def _numbered(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """The same images with ids from 1 for themselves and their objects."""
    numbered, last = [], 0
    for number, image in enumerate(images, 1):
        instances = []
        for instance in image.instances:
            last += 1
            instances.append(replace(instance, id=last, image_id=number))
        numbered.append(replace(image, id=number, instances=tuple(instances)))
    return numbered


def _checked_sizes(read: Annotations) -> Annotations:
    """Without the images whose files have another size than is stated."""
    kept, problems = [], list(read.problems)
    for image in read.images:
        if not image.instances:
            continue
        try:
            check_stated_size((image.height, image.width), image_size(image.path))
        except PicoSAM2Error as error:
            problems.append(EntryProblem(where=image.path.name, what=str(error)))
        else:
            kept.append(image)
    return replace(read, images=tuple(kept), problems=tuple(problems))


def _read_files(
    files: Mapping[str, Path], images: Path, reader: _Reader, other_names: Mapping[str, str]
) -> Annotations:
    """Label files, one for each image, matched with the images by their names."""
    below = {
        name: path
        for name, path in files_below(images).items()
        if path.suffix.lower() in IMAGE_ENDINGS
    }
    if not below:
        raise DataError(f"there is no image in {images}: pass the folder of the images")
    matches = match_names(files, list(below))
    key_of = dict(matches.names)
    left = {other_names[key]: key for key in files if key in other_names}
    taken = set(key_of.values())
    left = {other: key for other, key in left.items() if key not in taken}
    free = [name for name in below if name not in key_of]
    key_of |= {name: left[other] for name, other in match_names(left, free).names.items()}
    taken = set(key_of.values())
    problems = [
        matches.unclear.get(key, EntryProblem(where=key, what="there is no such image"))
        for key in files
        if key not in taken
    ]
    annotated = []
    for name, path in below.items():
        if name not in key_of:
            continue
        key = key_of[name]
        of_image: list[EntryProblem] = []
        try:
            height, width = image_size(path)
            objects = reader(_text(files[key]), height, width, of_image)
        except PicoSAM2Error as error:
            what = str(error).removeprefix(f"{path} ") if isinstance(error, ImageError) else error
            problems.append(EntryProblem(where=name, what=str(what)))
            continue
        instances = []
        for number, labeled in enumerate(objects, 1):
            if labeled.mask is None or not labeled.mask.any():
                what = "is a box or a point, and no outline" if labeled.mask is None else "is empty"
                of_image.append(EntryProblem(where=f"object {number}", what=what))
                continue
            counts = masks.rle_encode(labeled.mask)["counts"].encode("ascii")
            area = float(labeled.mask.sum())
            instances.append(
                Instance(id=0, image_id=0, category_id=labeled.class_id or 1, segmentation=counts,
                         height=height, width=width, area=area)
            )  # fmt: skip
        problems += [replace(each, where=f"{name}, {each.where}") for each in of_image]
        annotated.append(
            AnnotatedImage(id=0, path=path, height=height, width=width, source=SOURCE,
                           instances=tuple(instances))
        )  # fmt: skip
    return Annotations(images=tuple(annotated), problems=tuple(problems), crowds=0)


def _labelme_objects(
    text: str, height: int, width: int, problems: list[EntryProblem]
) -> list[LabeledObject]:
    return read_labelme(read_json(text, "it"), size=(height, width), problems=problems)


def _yolo_objects(
    text: str, height: int, width: int, problems: list[EntryProblem]
) -> list[LabeledObject]:
    return read_yolo(text, height, width, problems=problems)


def _labelme_names(files: Mapping[str, Path]) -> dict[str, str]:
    """What labelme files themselves call their images, by the files' own names."""
    names = {}
    for name, file in files.items():
        try:
            document = read_json(_text(file), str(file))
        except DataError:  # named when its image is read
            continue
        image = document.get("imagePath") if isinstance(document, dict) else None
        if isinstance(image, str) and image:
            folder = PurePosixPath(name).parent
            names[name] = (folder / PurePosixPath(plain(image)).name).as_posix()
    return names


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
