"""Prompts for many photos, from a file of prompts or from a detector's or a label tool's boxes.

A photo is known by its path below the photo folder (with /), or, where that is not how the file
calls it, by its name, by its name without ending, or by its number (000000000139.jpg is image 139).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, cast

from picosam2.errors import DataError, PicoSAM2Error
from picosam2.io.formats import (
    LABEL,
    Described,
    coco_box,
    coco_mask,
    read_json,
    read_labelme,
    read_yolo,
)
from picosam2.prompts import Box, Prompt

BoxesFormat: TypeAlias = Literal["coco", "yolo", "labelme"]

CLASSES = "classes.txt"
"""The file beside YOLO's labels that names their classes, a line each."""

_COLUMNS = ("image", "object", "class", "x", "y", "label", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One object that is asked for: where it is, its class, and what the file calls it."""

    prompt: Prompt
    label: str = LABEL
    name: str = ""
    id: int | None = None
    score: float | None = None
    """The detector's, 0..1."""


Reader: TypeAlias = Callable[[int, int], list[Asked]]
"""Reads the objects of a photo, given its height and width. May raise a `PicoSAM2Error`."""


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """What is asked for in many photos.

    readers: by the photo's name in the file. categories: class names and their numbers.
    image_ids: the numbers of photos, where the file gives them. problems: entries left out.
    """

    readers: Mapping[str, Reader]
    categories: Mapping[str, int] = field(default_factory=dict)
    image_ids: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    zero_based: bool = False
    """Whether the numbers of classes count from 0 without gaps, as YOLO's do."""

    def find(self, photo: str) -> str | None:
        """What the file calls a photo, given its path below the photo folder; None if unknown."""
        path = PurePosixPath(photo)
        names = [photo, path.name, str(path.with_suffix("")), path.stem]
        if path.stem.isdecimal():
            names.append(str(int(path.stem)))
        for name in names:
            if name in self.readers:
                return name
        return self._by_last_part.get(path.name)

    @cached_property
    def _by_last_part(self) -> dict[str, str]:
        """Names by their last part, where that is only one's."""
        last = {name: PurePosixPath(name).name for name in self.readers}
        count = Counter(last.values())
        return {part: name for name, part in last.items() if count[part] == 1}


def read_prompt_file(path: Path) -> PromptFile:
    """Read `--prompts`: JSON or CSV, by the file's ending.

    JSON is a list of {"image", "points", "box", "object", "class"}, one for each object, where
    points are [[x, y] or [x, y, label], ...] and box is [x0, y0, x1, y1]; one of the two will do,
    and object and class may be left out. CSV has a header with some of the columns image, object,
    class, x, y, label, x0, y0, x1, y1; rows of the same image and object are one object.

    Raises `DataError` that names the entry for anything else.
    """
    text = _read(path)
    if path.suffix.lower() == ".csv":
        entries = _csv_entries(text, path)
    elif path.suffix.lower() == ".json":
        entries = read_json(text, str(path))
    else:
        raise DataError(f"{path} must end in .json or .csv")
    if not isinstance(entries, list):
        raise DataError(f"{path} must hold a list of objects, each with an image and a prompt")
    found: dict[str, list[Asked]] = {}
    for number, entry in enumerate(entries, 1):
        try:
            name, asked = _asked(entry, number)
        except PicoSAM2Error as error:
            raise DataError(f"{path}, object {number}: {error}") from error
        found.setdefault(name, []).append(asked)
    return PromptFile(
        readers={name: _known(some) for name, some in found.items()},
        categories=_numbered(one.label for some in found.values() for one in some),
    )


def read_boxes(path: Path, form: BoxesFormat | None = None) -> PromptFile:
    """Read `--boxes`: a COCO file of instances or results, or a file or folder of YOLO or labelme.

    Without `form` it is told by the content. Masks in these files count as their boxes. Entries of
    a COCO file that cannot be used are named in `problems`; crowds are left out.

    Raises `DataError` if it cannot be read at all.
    """
    form = form or _guess(path)
    if form == "coco":
        return _read_coco(path)
    files = _files(path, ".txt" if form == "yolo" else ".json")
    return _read_yolo(path, files) if form == "yolo" else _read_labelme(files)


def _guess(path: Path) -> BoxesFormat:
    if path.is_dir():
        kinds = [
            kind
            for kind, ending in (("yolo", ".txt"), ("labelme", ".json"))
            if any(one.name != CLASSES for one in path.rglob(f"*{ending}"))
        ]
        if len(kinds) != 1:
            held = "both .txt and .json files" if kinds else "neither .txt nor .json files"
            raise DataError(f"{path} holds {held}: say --boxes-format yolo or labelme")
        return cast(BoxesFormat, kinds[0])
    if path.suffix.lower() == ".txt":
        return "yolo"
    document = read_json(_read(path), str(path))
    return "labelme" if isinstance(document, dict) and "shapes" in document else "coco"


def _files(path: Path, ending: str) -> dict[str, Path]:
    """Label files by their paths below `path`, without ending; or the one file."""
    if path.is_dir():
        found = (one for one in sorted(path.rglob(f"*{ending}")) if one.name != CLASSES)
        return {one.relative_to(path).with_suffix("").as_posix(): one for one in found}
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path")
    return {path.stem: path}


# --- prompts ------------------------------------------------------------------------------------


def _csv_entries(text: str, path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV as the entries of a JSON file."""
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = [(name or "").strip() for name in rows.fieldnames or ()]
    rows.fieldnames = header
    unknown = [name for name in header if name not in _COLUMNS]
    if "image" not in header or unknown:
        wrong = f"an unknown column {unknown[0]!r}" if unknown else "no column 'image'"
        raise DataError(f"{path} has {wrong}: its first line names some of {', '.join(_COLUMNS)}")
    entries: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(rows, 2):
        cells = {name: (row[name] or "").strip() for name in header if row.get(name)}
        if not cells:
            continue
        where = f"{path}, line {number}"
        if None in row:
            raise DataError(f"{where} has more cells than the first line names")
        key = (cells.get("image"), cells["object"]) if cells.get("object") else number
        entry = entries.setdefault(key, {"image": cells.get("image", ""), "points": []})
        for name in ("object", "class"):
            if cells.get(name):
                entry[name] = cells[name]
        point = _cells(cells, ("x", "y"), where)
        if point is not None:
            entry["points"].append([*point, *(_cells(cells, ("label",), where) or [1])])
        box = _cells(cells, ("x0", "y0", "x1", "y1"), where)
        if box is not None:
            if "box" in entry:
                raise DataError(f"{where} is the second box of one object: give it another number")
            entry["box"] = box
    return list(entries.values())


def _cells(cells: Mapping[str, str], names: tuple[str, ...], where: str) -> list[float] | None:
    """The numbers in some columns: all of them, or none."""
    given = [name for name in names if cells.get(name)]
    if not given:
        return None
    if len(given) < len(names):
        raise DataError(f"{where} has {given[0]} but not all of {', '.join(names)}")
    try:
        return [float(cells[name]) for name in names]
    except ValueError as error:
        raise DataError(f"{where} has no numbers in {', '.join(names)}") from error


def _asked(entry: Any, number: int) -> tuple[str, Asked]:
    if not isinstance(entry, dict):
        raise DataError("it is no JSON object")
    unknown = sorted(set(entry) - {"image", "points", "box", "object", "class"})
    if unknown:
        raise DataError(f"there is no key {unknown[0]!r}: use image, points, box, object, class")
    image, label = entry.get("image"), entry.get("class", LABEL)
    if not isinstance(image, str) or not image:
        raise DataError("it names no image")
    if not isinstance(label, str) or not label:
        raise DataError("its class must be a word")
    prompt = Prompt.from_json({key: entry.get(key) for key in ("points", "box")})
    name = str(entry.get("object", number))
    return image.replace("\\", "/").removeprefix("./"), Asked(
        prompt=prompt,
        label=label,
        name=f"object {name}",
        id=int(name) if name.isdecimal() else None,
    )


# --- boxes --------------------------------------------------------------------------------------


def _read_coco(path: Path) -> PromptFile:
    document = read_json(_read(path), str(path))
    results = document if isinstance(document, list) else None
    if results is None and not (
        isinstance(document, dict)
        and all(isinstance(document.get(key), list) for key in ("images", "annotations"))
    ):
        raise DataError(f"{path} is no COCO file: it has no lists 'images' and 'annotations'")
    problems: list[str] = []
    names: dict[int, str] = {}
    categories: dict[str, int] = {}
    if results is None:
        for entry in document["images"]:
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if isinstance(name, str) and name and type(entry.get("id")) is int:
                names[entry["id"]] = name
            else:
                problems.append("an image without an id or a file_name")
        for entry in document.get("categories") or []:
            if isinstance(entry, dict) and type(entry.get("id")) is int:
                categories[str(entry.get("name", entry["id"]))] = entry["id"]
    labels = {number: name for name, number in categories.items()}
    found: dict[str, list[tuple[dict[str, Any], Asked]]] = {n: [] for n in names.values()}
    for position, entry in enumerate(document["annotations"] if results is None else results, 1):
        if isinstance(entry, dict) and entry.get("iscrowd"):
            continue
        number = entry.get("id") if isinstance(entry, dict) else None
        where = f"annotation {number}" if type(number) is int else f"result {position}"
        try:
            if not isinstance(entry, dict) or type(entry.get("image_id")) is not int:
                raise DataError("it has no image_id")
            image = str(entry["image_id"]) if results is not None else names.get(entry["image_id"])
            if image is None:
                raise DataError(f"image {entry['image_id']} is not in the file")
            kind = entry.get("category_id")
            if type(kind) is not int:
                raise DataError("it has no category_id")
            label = labels.setdefault(kind, str(kind))
            categories.setdefault(label, kind)
            score = entry.get("score")
            asked = Asked(
                # Where there is only a mask its box is not known before the photo's size is.
                prompt=Prompt(box=Box(0, 0, 1, 1) if "bbox" not in entry else coco_box(entry)),
                label=label,
                name=where,
                id=number if type(number) is int else None,
                score=float(score) if isinstance(score, int | float) else None,
            )
        except PicoSAM2Error as error:
            problems.append(f"{where}: {error}")
            continue
        found.setdefault(image, []).append((entry, asked))
    return PromptFile(
        readers={name: _coco_reader(some) for name, some in found.items()},
        categories=categories,
        image_ids={name: number for number, name in names.items()}
        if results is None
        else {name: int(name) for name in found},
        problems=tuple(problems),
    )


def _coco_reader(entries: list[tuple[dict[str, Any], Asked]]) -> Reader:
    def read(height: int, width: int) -> list[Asked]:
        found = []
        for entry, asked in entries:
            if "bbox" not in entry:
                prompt = Described(mask=coco_mask(entry, height, width)).prompt()
                asked = replace(asked, prompt=prompt)
            found.append(asked)
        return found

    return read


def _read_yolo(path: Path, files: Mapping[str, Path]) -> PromptFile:
    listed = (path if path.is_dir() else path.parent) / CLASSES
    lines = _read(listed).splitlines() if listed.is_file() else []
    names = {number: name.strip() for number, name in enumerate(lines) if name.strip()}

    def reader(file: Path) -> Reader:
        return lambda height, width: _described(read_yolo(_read(file), height, width, names=names))

    numbers = {
        int(line.split()[0])
        for file in files.values()
        for line in _read(file).splitlines()
        if line.split()[:1] and line.split()[0].isdecimal()
    }
    return PromptFile(
        readers={name: reader(file) for name, file in files.items()},
        categories={names.get(number, str(number)): number for number in sorted(numbers)},
        zero_based=True,
    )


def _read_labelme(files: Mapping[str, Path]) -> PromptFile:
    def reader(file: Path) -> Reader:
        return lambda height, width: _described(
            read_labelme(read_json(_read(file), str(file))),
        )

    labels = []
    for file in files.values():
        try:
            document = read_json(_read(file), str(file))
        except DataError:  # said again, with the photo's name, when its turn comes
            continue
        shapes = document.get("shapes") if isinstance(document, dict) else None
        for shape in shapes if isinstance(shapes, list) else []:
            if isinstance(shape, dict) and isinstance(shape.get("label"), str):
                labels.append(shape["label"] or LABEL)
    return PromptFile(
        readers={name: reader(file) for name, file in files.items()}, categories=_numbered(labels)
    )


def _described(found: Iterable[Described]) -> list[Asked]:
    return [
        Asked(prompt=one.prompt(), label=one.label, name=f"object {number}", score=one.score)
        for number, one in enumerate(found, 1)
    ]


# --- shared -------------------------------------------------------------------------------------


def _known(asked: list[Asked]) -> Reader:
    return lambda height, width: asked


def _numbered(labels: Iterable[str]) -> dict[str, int]:
    """Class names from 1, in alphabetical order."""
    return {name: number for number, name in enumerate(sorted(set(labels)), 1)}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
