"""Prompts for many images, from a file of prompts or from a detector's or a label tool's boxes.

Names in these files are matched with images by `picosam2.io.image_names.match_names`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeAlias, cast

from picosam2.errors import DataError, PicoSAM2Error
from picosam2.io.formats.coco import (
    CocoAnnotation,
    CocoImage,
    read_coco_document,
    segmentation_mask,
    text,
)
from picosam2.io.formats.labelme import read_labelme
from picosam2.io.formats.objects import (
    LABEL,
    EntryProblem,
    LabeledObject,
    check_stated_size,
    read_json,
    reasons,
    shorten,
)
from picosam2.io.formats.yolo import (
    CLASSES,
    DATA_FILES,
    YoloForm,
    read_class_names,
    read_yolo,
    yolo_classes,
)
from picosam2.io.image_names import Matches, match_names, plain
from picosam2.prompts import Box, Prompt

BoxesFormat: TypeAlias = Literal["coco", "yolo", "yolo-boxes", "yolo-polygons", "labelme"]

_COLUMNS: Final = ("image", "object", "class", "x", "y", "label", "x0", "y0", "x1", "y1")
_KEYS: Final = ("image", "points", "box", "object", "class")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]{1,4})?", re.ASCII | re.I)


@dataclass(frozen=True, kw_only=True)
class PromptEntry:
    """One object of an image, as a prompt file has it.

    Attributes:
        prompt: where it is.
        label: the name of its class.
        category: the number of its class, a key of `PromptFile.categories`.
        name: what messages call it.
        id: its number in the file, if it has one.
        score: the detector's, if there is one.
    """

    prompt: Prompt
    label: str = LABEL
    category: int = 1
    name: str = ""
    id: int | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImagePrompts:
    """What a file has for one image, and what of it cannot be used."""

    entries: Sequence[PromptEntry] = ()
    problems: Sequence[EntryProblem] = ()


ImageReader: TypeAlias = Callable[[int, int], ImagePrompts]
"""Reads the objects of an image, given its height and width. May raise a `PicoSAM2Error`."""


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """The prompts for many images.

    Attributes:
        images: a reader for each image, by the name that the file has for it.
        categories: the names of the classes by number.
        image_ids: the numbers of images, where the file gives them.
        problems: entries that cannot be used, whatever the images are.
        zero_based: whether the numbers of classes are YOLO's, which count from 0.
        other_names: what the file calls some images besides, for names that are not clear.
    """

    images: Mapping[str, ImageReader]
    categories: Mapping[int, str] = field(default_factory=dict)
    image_ids: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[EntryProblem] = ()
    zero_based: bool = False
    other_names: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str, height: int, width: int) -> ImagePrompts:
        """The prompts for the image that the file calls `name`, which has that size.

        Raises:
            DataError: the file's part for this image cannot be read, or is for another size.
        """
        return self.images[name](height, width)

    def match(self, images: Sequence[str]) -> Matches:
        """Which of `images`, paths below a folder (with /), the names in this file mean."""
        first = match_names(self.images, images)
        taken = set(first.names.values())
        left = {name for name in self.images if name not in taken}
        others = {self.other_names[name]: name for name in left if name in self.other_names}
        if not others:
            return first
        free = [image for image in images if image not in first.names]
        second = match_names(others, free)
        names = {image: others[other] for image, other in second.names.items()}
        cleared = set(names.values())
        unclear = {n: p for n, p in first.unclear.items() if n not in cleared}
        return Matches(first.names | names, unclear)

    def find(self, image: str) -> str | None:
        """What the file calls an image if there is only that one; None if it has none for it."""
        return self.match([image]).names.get(image)


# --- prompts ------------------------------------------------------------------------------------


def read_prompt_file(path: Path) -> PromptFile:
    """Read `--prompts`: JSON or CSV, by the file's ending.

    JSON is a list of {"image", "points", "box", "object", "class"}, one for each object, where
    points are [[x, y] or [x, y, label], ...] and box is [x0, y0, x1, y1]; one of the two will do,
    and object and class may be left out. CSV has a header with some of the columns image, object,
    class, x, y, label, x0, y0, x1, y1; rows of the same image and object are one object.

    Entries that cannot be used are named in `problems`.

    Raises:
        DataError: the file cannot be read at all, or no entry of it can be used.
    """
    content = _read(path)
    problems: list[EntryProblem] = []
    if path.suffix.lower() == ".csv":
        rows: Iterable[tuple[str, Any]] = _csv_entries(content, path, problems)
    elif path.suffix.lower() == ".json":
        document = read_json(content, str(path))
        if not isinstance(document, list):
            raise DataError(f"{path} must hold a list of objects, each with an image and a prompt")
        rows = [(f"object {number}", entry) for number, entry in enumerate(document, 1)]
    else:
        raise DataError(f"{path} must end in .json or .csv")
    entries: dict[str, list[PromptEntry]] = {}
    for number, (where, row) in enumerate(rows, 1):
        try:
            image, entry = _prompt_entry(row, number)
        except PicoSAM2Error as error:
            problems.append(EntryProblem(where=where, what=str(error)))
        else:
            entries.setdefault(image, []).append(entry)
    if problems and not entries:
        raise DataError(f"{path} has no object that can be used: {reasons(problems)}")
    names = _number_names(entry.label for some in entries.values() for entry in some)
    numbers = {name: number for number, name in names.items()}
    return PromptFile(
        images={
            image: _known([replace(entry, category=numbers[entry.label]) for entry in some])
            for image, some in entries.items()
        },
        categories=names,
        problems=problems,
    )


def _csv_entries(
    content: str, path: Path, problems: list[EntryProblem]
) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a CSV as the entries of a JSON file, each with what messages call it."""
    reader = csv.reader(io.StringIO(content), skipinitialspace=True)
    rows = _csv_rows(reader, problems)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    unknown = [name for name in header if name not in _COLUMNS]
    if "image" not in header or unknown:
        wrong = f"an unknown column {shorten(unknown[0])}" if unknown else "no column 'image'"
        raise DataError(f"{path} has {wrong}: its first line names some of {', '.join(_COLUMNS)}")
    entries: dict[Any, tuple[str, dict[str, Any]]] = {}
    for number, row in rows:
        cells = {k: c.strip() for k, c in zip(header, row, strict=False) if c.strip()}
        if not any(cell.strip() for cell in row):
            continue
        where = f"line {number}"
        try:
            if len(row) > len(header):
                raise DataError("has more cells than the first line names")
            point = _cells(cells, ("x", "y"))
            label = _cells(cells, ("label",))
            box = _cells(cells, ("x0", "y0", "x1", "y1"))
            key = (cells.get("image"), cells["object"]) if cells.get("object") else number
            _, entry = entries.setdefault(
                key, (where, {"image": cells.get("image", ""), "points": []})
            )
            if box is not None and "box" in entry:
                raise DataError("is the second box of one object: give it another number")
        except DataError as error:
            problems.append(EntryProblem(where=where, what=str(error)))
            continue
        entry |= {name: cells[name] for name in ("object", "class") if name in cells}
        if point is not None:
            entry["points"].append([*point, *(label or [1])])
        if box is not None:
            entry["box"] = box
    return list(entries.values())


def _csv_rows(reader: Any, problems: list[EntryProblem]) -> Iterator[tuple[int, list[str]]]:
    """The rows with their line numbers; a row that cannot be read is named and passed over."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"cannot be read: {error}"
            problems.append(EntryProblem(where=f"line {reader.line_num}", what=what))
            continue
        yield reader.line_num, row


def _cells(cells: Mapping[str, str], names: tuple[str, ...]) -> list[float] | None:
    """The numbers in some columns: all of them, or none."""
    present = [name for name in names if name in cells]
    if not present:
        return None
    if len(present) < len(names):
        raise DataError(f"has {present[0]} but not all of {', '.join(names)}")
    for name in names:
        if len(cells[name]) > 400 or not _NUMBER.fullmatch(cells[name]):
            raise DataError(f"has no numbers in {', '.join(names)}: {shorten(cells[name], 30)}")
    return [float(cells[name]) for name in names]


def _prompt_entry(entry: Any, number: int) -> tuple[str, PromptEntry]:
    """The image that an entry names, and its prompt. A `PicoSAM2Error` says what is wrong."""
    if not isinstance(entry, dict):
        raise DataError("it is no JSON object")
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        raise DataError(f"there is no key {shorten(unknown[0])}: use {', '.join(_KEYS)}")
    image, label = entry.get("image"), entry.get("class", LABEL)
    if not isinstance(image, str) or not image:
        raise DataError("it names no image")
    if not isinstance(label, str) or not label:
        raise DataError("its class must be a word")
    label = text(label, "class")
    name = entry.get("object", number)
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise DataError("its object must be a number or a word")
    if isinstance(name, int) and not 0 <= name < 2**63:
        raise DataError("its object must be a number from 0 up")
    name = str(name)
    whole = name.isascii() and name.isdecimal() and len(name) <= 18
    return plain(image), PromptEntry(
        prompt=Prompt.from_json({key: entry.get(key) for key in ("points", "box")}),
        label=label,
        name=f"object {shorten(name).strip(chr(39))}",
        id=int(name) if whole else None,
    )


# --- boxes --------------------------------------------------------------------------------------


def read_boxes(path: Path, form: BoxesFormat | None = None) -> PromptFile:
    """Read `--boxes`: a COCO file of instances or results, or a file or folder of YOLO or labelme.

    Without `form` the content decides. Masks in these files count as their boxes. Entries
    that cannot be used are named, in `problems` or when their image is read; crowds are left out.

    Raises:
        DataError: it cannot be read at all.
    """
    form = form or guess_format(path)
    if form == "coco":
        return _read_coco(path)
    if form == "labelme":
        return _read_labelme(label_files(path, ".json"))
    lines: YoloForm | None = None
    if form != "yolo":
        lines = "boxes" if form == "yolo-boxes" else "polygons"
    return _read_yolo(path, label_files(path, ".txt"), lines)


def guess_format(path: Path) -> BoxesFormat:
    """Which of the formats a file or folder of annotations has.

    Raises:
        DataError: it holds none of them, or several.
    """
    if path.is_dir():
        kinds = [
            kind
            for kind, ending in (("yolo", ".txt"), ("labelme", ".json"))
            if any(file.name != CLASSES for file in path.rglob(f"*{ending}"))
        ]
        if len(kinds) != 1:
            held = "both .txt and .json files" if kinds else "neither .txt nor .json files"
            raise DataError(f"{path} holds {held}: say --boxes-format yolo or labelme")
        return cast(BoxesFormat, kinds[0])
    if path.suffix.lower() == ".txt":
        return "yolo"
    document = read_json(_read(path), str(path))
    return "labelme" if isinstance(document, dict) and "shapes" in document else "coco"


def label_files(path: Path, ending: str) -> dict[str, Path]:
    """Label files by their paths below `path`, without ending; or the one file."""
    if path.is_dir():
        files = (
            file
            for file in sorted(path.rglob(f"*{ending}"))
            if file.name not in (CLASSES, *DATA_FILES) and not file.name.startswith(".")
        )
        return {file.relative_to(path).with_suffix("").as_posix(): file for file in files}
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path")
    return {path.stem: path}


def _read_coco(path: Path) -> PromptFile:
    file = read_coco_document(read_json(_read(path), str(path)), str(path))
    broken = {}
    names: dict[int, str] = {}
    first: dict[str, int] = {}
    for image in file.images.values():
        name = str(image.id) if file.results else plain(image.name or "")
        if not name:
            broken[image.id] = "has no file_name"
            continue
        names[image.id] = name
        if (earlier := first.setdefault(name, image.id)) != image.id:
            what = f"has the same file_name as image {earlier}: read as one image"
            file.problems.append(EntryProblem(where=f"image {image.id}", what=what))
    objects: dict[str, list[_Boxed]] = {name: [] for name in names.values()}
    categories = dict(file.categories)
    for annotation in file.leave_out(broken):
        try:
            boxed = None if annotation.box is None else _prompt_of_box(annotation.box)
        except PicoSAM2Error as error:
            file.problems.append(EntryProblem(where=annotation.where, what=str(error)))
            continue
        objects[names[annotation.image_id]].append((annotation, boxed))
        categories.setdefault(annotation.category_id, str(annotation.category_id))
    return PromptFile(
        images={
            name: _coco_reader(file.images[first[name]], some, categories)
            for name, some in objects.items()
        },
        categories=categories,
        image_ids=first,
        problems=file.problems,
    )


_Boxed: TypeAlias = tuple[CocoAnnotation, Prompt | None]
"""An annotation with its box as a prompt, if it has one."""


def _prompt_of_box(box: tuple[float, float, float, float]) -> Prompt:
    x, y, width, height = box
    return Prompt(box=Box(x, y, x + width, y + height))


def _coco_reader(
    image: CocoImage, annotations: Sequence[_Boxed], categories: Mapping[int, str]
) -> ImageReader:
    def read(height: int, width: int) -> ImagePrompts:
        if image.height is not None and image.width is not None:
            check_stated_size((image.height, image.width), (height, width))
        entries, problems = [], []
        for annotation, boxed in annotations:
            try:
                prompt = boxed or _prompt_of_mask(annotation, height, width)
            except PicoSAM2Error as error:
                problems.append(EntryProblem(where=annotation.where, what=str(error)))
                continue
            entries.append(
                PromptEntry(
                    prompt=prompt,
                    label=categories[annotation.category_id],
                    category=annotation.category_id,
                    name=annotation.where,
                    id=annotation.id,
                    score=annotation.score,
                )
            )
        return ImagePrompts(entries=entries, problems=problems)

    return read


def _prompt_of_mask(annotation: CocoAnnotation, height: int, width: int) -> Prompt:
    assert annotation.segmentation is not None, "an annotation has a box or a segmentation"
    mask = segmentation_mask(annotation.segmentation, height, width)
    if not mask.any():
        raise DataError("its mask has no pixel")
    return LabeledObject(mask=mask).prompt()


def _read_yolo(path: Path, files: Mapping[str, Path], form: YoloForm | None) -> PromptFile:
    names = read_class_names(path if path.is_dir() else path.parent)
    used: set[int] = set()
    for file in files.values():
        try:
            used |= yolo_classes(_read(file))
        except DataError:  # named when its image is read
            continue
    categories = names | {number: str(number) for number in used if number not in names}

    def reader(file: Path) -> ImageReader:
        def read(height: int, width: int) -> ImagePrompts:
            problems: list[EntryProblem] = []
            objects = read_yolo(
                _read(file), height, width, names=names, form=form, problems=problems
            )
            return _as_prompts(objects, problems, None)

        return read

    return PromptFile(
        images={name: reader(file) for name, file in files.items()},
        categories=dict(sorted(categories.items())),
        zero_based=True,
    )


def _read_labelme(files: Mapping[str, Path]) -> PromptFile:
    labels = []
    other_names = {}
    for name, file in files.items():
        try:
            document = read_json(_read(file), str(file))
        except DataError:  # named when its image is read
            continue
        if not isinstance(document, dict):
            continue
        image = document.get("imagePath")
        if isinstance(image, str) and image:
            folder = PurePosixPath(name).parent
            other_names[name] = (folder / PurePosixPath(plain(image)).name).as_posix()
        shapes = document.get("shapes")
        for shape in shapes if isinstance(shapes, list) else []:
            label = shape.get("label") if isinstance(shape, dict) else None
            labels.append(label if isinstance(label, str) and label else LABEL)
    names = _number_names(label for label in labels if _is_text(label))
    numbers = {name: number for number, name in names.items()}

    def reader(file: Path) -> ImageReader:
        def read(height: int, width: int) -> ImagePrompts:
            problems: list[EntryProblem] = []
            document = read_json(_read(file), str(file))
            objects = read_labelme(document, size=(height, width), problems=problems)
            return _as_prompts(objects, problems, numbers)

        return read

    return PromptFile(
        images={name: reader(file) for name, file in files.items()},
        categories=names,
        other_names=other_names,
    )


def _as_prompts(
    objects: Sequence[LabeledObject],
    problems: list[EntryProblem],
    numbers: Mapping[str, int] | None,
) -> ImagePrompts:
    entries = []
    for number, boxed in enumerate(objects, 1):
        name = f"object {number}"
        try:
            prompt = boxed.prompt()
        except PicoSAM2Error as error:
            problems.append(EntryProblem(where=name, what=str(error)))
            continue
        category = numbers[boxed.label] if numbers is not None else boxed.class_id
        entries.append(
            PromptEntry(
                prompt=prompt,
                label=boxed.label,
                category=category if category is not None else 1,
                name=name,
                score=boxed.score,
            )
        )
    return ImagePrompts(entries=entries, problems=problems)


# --- shared -------------------------------------------------------------------------------------


def _known(entries: Sequence[PromptEntry]) -> ImageReader:
    return lambda height, width: ImagePrompts(entries=entries)


def _number_names(labels: Iterable[str]) -> dict[int, str]:
    """Class names by number from 1, in alphabetical order."""
    return dict(enumerate(sorted(set(labels)), 1))


def _is_text(label: str) -> bool:
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
