"""YOLO labels: boxes and polygons in shares of the image, and the files that name the classes.

A line of a label file begins with the number of the class. What follows tells the form:

==========================================  =====================================================
numbers after the class                     read as
==========================================  =====================================================
x y w h                                     a box by its center
x y w h score                               a detector's box
x y w h [score] track                       a tracked box; the track's number is left out
x1 y1 x2 y2 x3 y3 ...                       a polygon of three points or more
x1 y1 ... score, x1 y1 ... score track      a polygon with what detectors add
==========================================  =====================================================

A score is within 0..1. A track's number is whole; above 1 it cannot be a share of the image, and
then it shows the form of all lines of its file that have as many numbers. What stays open, six
numbers that are a triangle as well as a tracked box, is refused: `form` settles it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from picosam2._words import counted
from picosam2.errors import DataError, PicoSAM2Error
from picosam2.io.formats.objects import (
    DECIMALS,
    EntryProblem,
    LabeledObject,
    check_class_ids,
    shorten,
)
from picosam2.io.formats.outlines import fill_rings, joined_outline
from picosam2.prompts import Box
from picosam2.results import Segmentation

YoloForm: TypeAlias = Literal["boxes", "polygons"]

CLASSES: Final = "classes.txt"
"""The file beside YOLO's labels that names their classes, a line each, from number 0."""

DATA_FILES: Final = ("data.yaml", "data.yml", "dataset.yaml")
"""Files of a YOLO data set that name its classes under `names`."""

MAX_CLASSES: Final = 100_000
"""The number of a class is below this: a file that names them all has a line for each."""

_CLASS = re.compile(r"[0-9]{1,9}(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)
_MAX_WORD: Final = 40  # characters of a number
_MAX_SHARE: Final = 10.0  # boxes and polygons may reach past the image, but not far


def yolo(
    segmentations: Sequence[Segmentation],
    *,
    class_ids: Sequence[int] | None = None,
    tolerance: float = 1.0,
) -> str:
    """Objects as YOLO segmentation labels: a line `class x1 y1 x2 y2 ...` for each, shares of 0..1.

    Pieces are joined to one polygon, as ultralytics' own converters do. An empty mask has no line.

    Raises:
        DataError: there are more or fewer class numbers than objects, or one is no whole number.
    """
    numbers = check_class_ids(len(segmentations), class_ids)
    lines = []
    for segmentation, number in zip(segmentations, numbers, strict=True):
        height, width = segmentation.mask.shape
        shares = joined_outline(segmentation.mask, tolerance) / (width, height)
        if len(shares):
            words = (f"{share:.{DECIMALS}g}" for share in _end_on_a_share(shares).ravel())
            lines.append(" ".join([str(number), *words]))
    return "".join(line + "\n" for line in lines)


def _end_on_a_share(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ring (N, 2) turned so that its last y is below 1: 1 might be taken for a track."""
    inside = np.flatnonzero(ring[:, 1] < 1)
    return np.roll(ring, -1 - int(inside[-1]), axis=0) if len(inside) else ring


def read_yolo(
    text: str,
    height: int,
    width: int,
    *,
    names: Mapping[int, str] | None = None,
    form: YoloForm | None = None,
    problems: list[EntryProblem] | None = None,
) -> list[LabeledObject]:
    """Objects of a YOLO label file for an image of that size; see this module for its lines.

    Args:
        text: the file's content.
        height, width: the image's size in pixels.
        names: names for the classes; a class without one is called by its number.
        form: what lines of six numbers or more after the class are; by default the lines decide.
        problems: takes what is wrong with lines that are left out. Without it the first is raised.

    Raises:
        DataError, PromptError: a line that cannot be used, if there is no list for `problems`.
    """
    lines = list(_lines(text))
    tracked = _tracked_lengths([words for _, words in lines])
    objects = []
    for number, words in lines:
        try:
            class_id, values = _numbers(words)
            label = (names or {}).get(class_id, str(class_id))
            box, ring, score = _shape(values, form, len(values) in tracked)
            if box is not None:
                x, y, w, h = box * (width, height, width, height)
                corners = Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                labeled = LabeledObject(box=corners, label=label, class_id=class_id, score=score)
            else:
                mask = fill_rings([ring * (width, height)], height, width)
                labeled = LabeledObject(mask=mask, label=label, class_id=class_id, score=score)
        except PicoSAM2Error as error:
            problem = EntryProblem(where=f"line {number}", what=str(error))
            if problems is None:
                raise DataError(str(problem)) from error
            problems.append(problem)
            continue
        objects.append(labeled)
    return objects


def yolo_classes(text: str) -> set[int]:
    """The numbers of the classes that a label file uses, of lines that begin with one."""
    numbers = set()
    for _, words in _lines(text):
        if _CLASS.fullmatch(words[0]) and (number := int(words[0].partition(".")[0])) < MAX_CLASSES:
            numbers.add(number)
    return numbers


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank: their number and their words."""
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.split():
            yield number, words


def _numbers(words: Sequence[str]) -> tuple[int, NDArray[np.float64]]:
    """The class and the numbers after it. `DataError` if they are none."""
    first, *rest = words
    if not _CLASS.fullmatch(first) or int(first.partition(".")[0]) >= MAX_CLASSES:
        raise DataError(
            f"begins with {shorten(first, 20)}: a class is a whole number from 0 to "
            f"{MAX_CLASSES - 1:,}"
        )
    for word in rest:
        if len(word) > _MAX_WORD or not _NUMBER.fullmatch(word):
            raise DataError(f"has {shorten(word, 20)}, which is no number")
    values = np.array([float(word) for word in rest])
    if not np.isfinite(values).all():
        raise DataError("has a number that is too large")
    return int(first.partition(".")[0]), values


def _tracked_lengths(lines: Sequence[Sequence[str]]) -> set[int]:
    """How many numbers lines with a track have, where one ends in a number no share can be."""
    lengths = set()
    for words in lines:
        count, last = len(words) - 1, words[-1]
        whole = len(last) <= _MAX_WORD and _CLASS.fullmatch(last) is not None
        may_end_in_track = count in (5, 6) or (count >= 8 and count % 2 == 0)
        if may_end_in_track and whole and float(last) > 1:
            lengths.add(count)
    return lengths


def _shape(
    values: NDArray[np.float64], form: YoloForm | None, tracked: bool
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64], float | None]:
    """The box (4,) or else the ring (N, 2) in shares of the image, and the score.

    Raises:
        DataError: the numbers are no documented form, or two of them.
    """
    count = len(values)
    if tracked:  # the last number is the track's
        values = values[:-1]
    nothing = np.zeros((0, 2))
    if count < 4 or (count == 4 and form == "polygons"):
        raise DataError(f"has {count} numbers after the class: a box has 4, a polygon 6 or more")
    if form != "polygons" and len(values) in (4, 5) and (count < 6 or tracked):
        return _shares(values[:4]), nothing, _score(values[4:])
    if form == "boxes":
        if count == 6:  # a track whose number is 1
            return _shares(values[:4]), nothing, _score(values[4:5])
        raise DataError(f"has {count} numbers after the class: a box has 4 to 6")
    if form is None and count == 6 and _may_be_tracked_box(values):
        raise DataError(
            "may be a triangle or a box with score and track: say which by the format yolo-boxes "
            "or yolo-polygons"
        )
    odd = len(values) % 2
    ring = _shares(values[: len(values) - odd]).reshape(-1, 2)
    if len(ring) < 3:
        raise DataError(f"has a polygon of {counted(len(ring), 'point')}: it needs three")
    return None, ring, _score(values[len(values) - odd :])


def _may_be_tracked_box(values: NDArray[np.float64]) -> bool:
    """Whether six numbers can be x, y, w, h, score and the number 1 of a track."""
    x, y, w, h, score, track = values.tolist()
    inside = x - w / 2 > -0.01 and y - h / 2 > -0.01 and x + w / 2 < 1.01 and y + h / 2 < 1.01
    return bool(track == 1 and 0 <= score <= 1 and w > 0 and h > 0 and inside)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if (np.abs(values) > _MAX_SHARE).any():
        raise DataError("has numbers that are no shares of the image's size: they are 0 to 1")
    return values


def _score(values: NDArray[np.float64]) -> float | None:
    if not len(values):
        return None
    if not 0 <= values[0] <= 1:
        raise DataError(f"has the score {values[0]:g}: it is within 0 to 1")
    return float(values[0])


# --- names of classes ---------------------------------------------------------------------------


def read_class_names(folder: Path) -> dict[int, str]:
    """The classes that a folder of labels names, by number: in `classes.txt` or `data.yaml`.

    `data.yaml` may also lie one or two folders above, as in ultralytics' data sets. The folder's
    own files count first. A file that cannot be read names nothing.
    """
    places = [folder / CLASSES, *(folder / name for name in DATA_FILES)]
    above = list(folder.resolve().parents)[:2]
    places += [parent / name for parent in above for name in DATA_FILES]
    for path in places:
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        if path.name == CLASSES:
            rows: Iterator[tuple[int, str]] = enumerate(text.splitlines())
        else:
            rows = iter(_yaml_names(text).items())
        if names := {n: name.strip() for n, name in rows if name.strip() and n < MAX_CLASSES}:
            return names
    return {}


_ITEM = re.compile(r"""\s*(?:([0-9]{1,6})\s*:\s*)?(?:'([^']*)'|"([^"]*)"|([^,'"\[\]{}#]+))\s*""")


def _yaml_names(text: str) -> dict[int, str]:
    """The list or table under the key `names` of a YAML file, the only one that is needed."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return {}
    rest = lines[start].removeprefix("names:").strip()
    if rest and not rest.startswith("#"):  # in brackets, perhaps over several lines
        body = " ".join([rest, *lines[start + 1 :]])
        closing = min((i for i in map(body.find, "]}") if i >= 0), default=len(body))
        items = [match for match in _ITEM.finditer(body[1:closing]) if match.group().strip()]
    else:
        rows = []
        for line in lines[start + 1 :]:
            if line.strip() and not line.startswith((" ", "\t", "-")):
                break
            rows.append(line.strip().removeprefix("-"))
        items = [match for row in rows if row.strip() and (match := _ITEM.match(row))]
    names = {}
    for position, item in enumerate(items):
        number, *spellings = item.groups()
        name = next((spelling for spelling in spellings if spelling is not None), "")
        names[position if number is None else int(number)] = name.strip()
    return names
