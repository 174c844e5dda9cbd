"""What every format shares: objects as files describe them, class names, entries left out, JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from picosam2 import masks
from picosam2._words import counted
from picosam2.errors import DataError
from picosam2.masks import Mask
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import PALETTE, Segmentation

LABEL: Final = "object"
"""The class of an object of which nothing is known."""

DECIMALS: Final = 6
"""Digits of scores and of YOLO's shares, as ultralytics writes them."""


_DETAILS = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9]+")  # in which reasons of one kind differ


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryProblem:
    """An entry that was left out: `where` names it ("annotation 123"), `what` says why."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledObject:
    """One object as a file describes it: a mask, a box, points, or several of them.

    Attributes:
        mask: (H, W) bool.
        box: in pixels.
        points: clicks on the object.
        label: its class.
        class_id: the number of its class, where the file gives one.
        score: the detector's, 0..1, if it has one.
    """

    mask: Mask | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    label: str = LABEL
    class_id: int | None = None
    score: float | None = None

    def prompt(self) -> Prompt:
        """The box and the points, or else the mask's box.

        Raises:
            PromptError: there is nothing to prompt with, such as an empty mask.
        """
        box = self.box
        if box is None and not self.points and self.mask is not None:
            corners = masks.bbox(self.mask)
            box = None if corners is None else Box(*corners)
        return Prompt(points=self.points, box=box)


def colors(count: int) -> list[tuple[int, int, int]]:
    """`count` RGB colors, 0..255: the palette of overlays, and then hues a golden angle apart."""
    more = range(count - len(PALETTE))
    return [*PALETTE, *(_hue(0.07 + i * 0.61803398875, i) for i in more)][:count]


def _hue(hue: float, number: int) -> tuple[int, int, int]:
    import colorsys

    saturation = (0.85, 0.55, 0.7)[number % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, (0.95, 0.85, 0.7)[number // 3 % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def read_json(data: str | bytes, name: str) -> Any:
    """Parse the JSON file `name`.

    Raises:
        DataError: it is no JSON, is cut short, or is nested too deeply; the message names it.
    """
    try:
        try:
            return json.loads(data)
        except ValueError as error:
            if "integer string conversion" not in str(error):
                raise
            # A number of thousands of digits: for whoever reads the entry it is just too large.
            return json.loads(data, parse_int=lambda d: int(d) if len(d) < 400 else math.inf)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200]
        raise DataError(f"{name} is not a JSON file, or it is cut short ({reason})") from error


def reasons(problems: Iterable[EntryProblem], limit: int = 3) -> str:
    """The commonest reasons of problems, an example of each with how many are like it."""
    alike: dict[str, list[EntryProblem]] = {}
    for problem in problems:
        alike.setdefault(_DETAILS.sub("", problem.what), []).append(problem)
    ordered = sorted(alike.values(), key=len, reverse=True)
    parts = []
    for some in ordered[:limit]:
        more = f" (and {len(some) - 1:,} like it)" if len(some) > 1 else ""
        parts.append(f"{some[0]}"[:300] + more)
    rest = sum(map(len, ordered[limit:]))
    return "; ".join(parts) + (f"; and {rest:,} more" if rest else "")


def shorten(value: object, limit: int = 60) -> str:
    """A value from a file as a message may quote it: escaped, and cut after `limit` characters."""
    text = value if isinstance(value, str) else type(value).__name__
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def check_labels(segmentations: Sequence[Segmentation], labels: Sequence[str] | None) -> list[str]:
    """The class names of objects, `LABEL` if none are given.

    Raises:
        DataError: there are more or fewer labels than objects.
    """
    if labels is None:
        return [LABEL] * len(segmentations)
    names = [str(label) for label in labels]  # also of NumPy's kind
    if len(names) != len(segmentations):
        raise DataError(_not_one_each(len(segmentations), len(names), "label"))
    return names


def check_class_ids(count: int, class_ids: Sequence[Any] | None) -> list[int]:
    """The class numbers of `count` objects as whole numbers, 0 if none are given.

    Arrays, tensors and whole floats (2.0) are taken too.

    Raises:
        DataError: there are more or fewer of them than objects, or one is no number from 0 up.
    """
    if class_ids is None:
        return [0] * count
    numbers = [whole_number(value, "a class number") for value in class_ids]
    if len(numbers) != count:
        raise DataError(_not_one_each(count, len(numbers), "class number"))
    return numbers


def _not_one_each(objects: int, count: int, name: str) -> str:
    return f"{counted(objects, 'object')} with {counted(count, name)}: give one for each"


def whole_number(value: Any, what: str) -> int:
    """A whole number from 0 up, also of NumPy, of a tensor, or with a point (2.0).

    Raises:
        DataError: `value` is none. `what` names it.
    """
    try:
        number = int(value)
        exact = number == value and number >= 0
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact:
        raise DataError(f"{what} is a whole number from 0 up, not {value!r}")
    return number


def check_stated_size(stated: tuple[int, int], real: tuple[int, int]) -> None:
    """Refuse (`DataError`) annotations for an image of another size, (height, width) both."""
    if stated == real:
        return
    turned = (
        ", as the file has it before it is turned by its EXIF orientation"
        if stated == (real[1], real[0])
        else ""
    )
    raise DataError(
        f"is {real[1]}x{real[0]} pixels, and the annotations are for {stated[1]}x{stated[0]}"
        f"{turned}: annotate the image as it is, or give the image that was annotated"
    )


def number_list(value: Any, what: str) -> list[float]:
    """A JSON list of finite numbers as floats.

    Raises:
        DataError: it is anything else, or holds a number beyond a thousand million; `what` names
            it.
    """
    if not isinstance(value, list) or not all(
        type(v) in (int, float) and -1e9 < v < 1e9 for v in value
    ):
        raise DataError(f"{what} is a list of numbers")
    return [float(v) for v in value]
