"""What the user points at: a Point, a Box, or a Prompt made of them; parsed and checked here.

All coordinates are pixels of the original image: origin at the top left, x to the right, y
down, and the center of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from picosam2.errors import PromptError, PromptWarning

_POINT_FORM: Final = (
    "X,Y or X,Y,LABEL, where LABEL is 1 (on the object) or 0 (off it), for instance 120,80"
)
_BOX_FORM: Final = "X0,Y0,X1,Y1 (left, top, right, bottom), for instance 40,30,200,160"

# Annotations round: a box that reaches past the image by less than this is cut without a word.
_ROUNDING: Final = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """A click at (x, y): on the object if `positive`, else on what does not belong to it.

    Raises `PromptError` if a coordinate is not a finite number.
    """

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            object.__setattr__(self, name, _finite(getattr(self, name), f"a point's {name}"))
        object.__setattr__(self, "positive", _label(self.positive))

    @classmethod
    def parse(cls, text: str) -> Point:
        """Read "X,Y" or "X,Y,LABEL" with LABEL 1 (positive) or 0. Raises `PromptError`."""
        numbers = _numbers(text)
        if numbers is None or len(numbers) not in (2, 3):
            raise PromptError(f"{_short(text)} is not a point: write {_POINT_FORM}")
        return cls._of(numbers)

    @classmethod
    def _of(cls, numbers: Sequence[Any]) -> Point:
        if len(numbers) not in (2, 3):
            raise PromptError(f"a point has 2 or 3 numbers, not {len(numbers)}: give {_POINT_FORM}")
        return cls(numbers[0], numbers[1], _label(numbers[2]) if len(numbers) == 3 else True)

    def __str__(self) -> str:
        return _text(self.x, self.y) if self.positive else _text(self.x, self.y, 0)


@dataclass(frozen=True, slots=True)
class Box:
    """The rectangle from (x0, y0), its top left corner, to (x1, y1), where it ends.

    Raises `PromptError` if a coordinate is not a finite number or the box has no area.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1"):
            object.__setattr__(self, name, _finite(getattr(self, name), f"a box's {name}"))
        if self.x1 == self.x0 or self.y1 == self.y0:
            side = "left and right" if self.x1 == self.x0 else "top and bottom"
            raise PromptError(f"the box {self} has no area: move its {side} edges apart")
        if self.x1 < self.x0 or self.y1 < self.y0:
            ordered = _text(
                min(self.x0, self.x1),
                min(self.y0, self.y1),
                max(self.x0, self.x1),
                max(self.y0, self.y1),
            )
            raise PromptError(
                f"the box {self} has its corners swapped: write left, top, right, bottom: {ordered}"
            )

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read "X0,Y0,X1,Y1". Raises `PromptError`."""
        numbers = _numbers(text)
        if numbers is None or len(numbers) != 4:
            raise PromptError(f"{_short(text)} is not a box: write {_BOX_FORM}")
        return cls(*numbers)

    @classmethod
    def _of(cls, numbers: Sequence[Any]) -> Box:
        if len(numbers) != 4:
            raise PromptError(f"a box has 4 numbers, not {len(numbers)}: give {_BOX_FORM}")
        return cls(*numbers)

    @property
    def width(self) -> float:
        """x1 - x0, above 0."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """y1 - y0, above 0."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Width times height, in square pixels."""
        return self.width * self.height

    @property
    def center(self) -> Point:
        """The point in the middle."""
        return Point((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, 0..1."""
        across = max(min(self.x1, other.x1) - max(self.x0, other.x0), 0)
        along = max(min(self.y1, other.y1) - max(self.y0, other.y0), 0)
        return across * along / (self.area + other.area - across * along)

    def as_xywh(self) -> tuple[float, float, float, float]:
        """(x0, y0, width, height), the form of COCO's annotations."""
        return self.x0, self.y0, self.width, self.height

    def __str__(self) -> str:
        return _text(self.x0, self.y0, self.x1, self.y1)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What says which object is meant: points, a box, a mask so far, or several of them.

    Args:
        points: `Point` objects or rows of x, y or x, y, label (1 on the object, 0 off it), in the
            order of the clicks.
        box: a `Box` or x0, y0, x1, y1.
        mask: the mask so far on the whole image, (H, W) bool, or float of 0..1 for its probability.
            Whole numbers are taken as True where they are not 0. It is kept as bool or float32.

    Raises `PromptError` if there is no positive point, no box and nothing in the mask ("not this"
    alone marks nothing), if a pixel is clicked as on and as off the object, or if the mask is none.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask: NDArray[np.bool_] | NDArray[np.float32] | None = field(
        default=None, repr=False, hash=False
    )

    def __post_init__(self) -> None:
        points = tuple(_as_point(point) for point in _rows(self.points, "a prompt's points"))
        object.__setattr__(self, "points", points)
        if self.box is not None:
            object.__setattr__(self, "box", _as_box(_plain(self.box)))
        if self.mask is not None:
            object.__setattr__(self, "mask", _as_mask(self.mask))
        positive = {(math.floor(p.x), math.floor(p.y)) for p in points if p.positive}
        for point in points:
            if not point.positive and (math.floor(point.x), math.floor(point.y)) in positive:
                raise PromptError(
                    f"the pixel of the point {_text(point.x, point.y)} is clicked as on the object "
                    "and as off it: leave one of them out"
                )
        if self.box is None and not positive and not self.has_mask:
            if self.mask is not None:
                raise PromptError("the mask is empty: add a point on the object, or its box")
            missing = "only negative points" if points else "neither a point nor a box"
            raise PromptError(f"a prompt has {missing}: give a point on the object, or its box")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prompt):
            return NotImplemented
        if (self.points, self.box) != (other.points, other.box):
            return False
        if self.mask is None or other.mask is None:
            return self.mask is other.mask
        return self.mask.dtype == other.mask.dtype and np.array_equal(self.mask, other.mask)

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask that is not empty."""
        return self.mask is not None and bool((self.mask > 0.5).any())

    @classmethod
    def from_json(cls, value: Any, mask: NDArray[Any] | None = None) -> Prompt:
        """Read what `to_json` writes: {"points": [[x, y] or [x, y, label], ...], "box": [...]}.

        Either key may be missing or null. The mask, which JSON does not hold, is given beside it.
        Raises `PromptError` for anything else.
        """
        if not isinstance(value, Mapping):
            raise PromptError(
                f"a prompt must be an object with 'points' or 'box', not {type(value).__name__}"
            )
        unknown = sorted(str(key) for key in value if key not in ("points", "box"))
        if unknown:
            raise PromptError(f"a prompt has no key {unknown[0]!r}: use 'points' and 'box'")
        points, box = value.get("points"), value.get("box")
        if points is not None and not _is_sequence(points):
            raise PromptError("a prompt's 'points' must be a list of [x, y] or [x, y, label]")
        if box is not None and not _is_sequence(box):
            raise PromptError("a prompt's 'box' must be a list [x0, y0, x1, y1]")
        return cls(
            points=tuple(_as_point(point) for point in (() if points is None else points)),
            box=None if box is None else Box._of(box),
            mask=mask,
        )

    def to_json(self) -> dict[str, list[Any]]:
        """The prompt in plain lists: {"points": [[x, y, label], ...], "box": [x0, y0, x1, y1]}.

        Label is 1 or 0. A key without a value is left out, and so is the mask, which is as large as
        the image.
        """
        value: dict[str, list[Any]] = {}
        if self.points:
            value["points"] = [[point.x, point.y, int(point.positive)] for point in self.points]
        if self.box is not None:
            value["box"] = [self.box.x0, self.box.y0, self.box.x1, self.box.y1]
        return value

    def clipped(self, height: int, width: int) -> Prompt:
        """The prompt as it applies to an image of `height` x `width` pixels.

        A point must have 0 <= x < width and 0 <= y < height. A box that reaches past the image is
        cut to it.

        Raises:
            PromptError: a point lies outside the image, or all of the box does, or the mask has
                another size.
        """
        if self.mask is not None and self.mask.shape != (height, width):
            rows, columns = self.mask.shape
            raise PromptError(
                f"the mask has {columns} x {rows} pixels and the image {width} x {height}: "
                "give a mask of the image's size"
            )
        for point in self.points:
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise PromptError(
                    f"the point {_text(point.x, point.y)} lies outside the image: "
                    f"x must be from 0 to {width - 1} and y from 0 to {height - 1}"
                )
        box = self.box
        if box is None or (box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height):
            return self
        if box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height:
            raise PromptError(
                f"the box {box} lies outside the image: "
                f"x must be from 0 to {width} and y from 0 to {height}"
            )
        cut = Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))
        return replace(self, box=cut)

    def within(self, height: int, width: int) -> Prompt:
        """Like `clipped`, with a `PromptWarning` if that takes half a pixel or more off the box."""
        clipped = self.clipped(height, width)
        box, cut = self.box, clipped.box
        if box is None or cut is None:
            return clipped
        overhang = max(cut.x0 - box.x0, cut.y0 - box.y0, box.x1 - cut.x1, box.y1 - cut.y1)
        if overhang >= _ROUNDING:
            warnings.warn(
                f"the box {box} reaches past the image of {width} x {height}: cut to {cut}",
                PromptWarning,
                stacklevel=2,
            )
        return clipped


PointLike: TypeAlias = Point | Sequence[float]
BoxLike: TypeAlias = Box | Sequence[float]
Points: TypeAlias = Point | Prompt | Sequence[float] | Iterable[PointLike | Prompt] | NDArray[Any]
Boxes: TypeAlias = Box | Prompt | Sequence[float] | Iterable[BoxLike | Prompt] | NDArray[Any]


def as_prompts(points: Points | None = None, boxes: Boxes | None = None) -> list[Prompt]:
    """One prompt for each point, then one for each box.

    `points` is an array (N, 2) of x, y or (N, 3) of x, y, label (1 or 0), a sequence of such
    rows, of `Point` or of `Prompt`, or a single one of them. `boxes` is likewise an array (N, 4)
    of x0, y0, x1, y1, or a sequence of rows, of `Box` or of `Prompt`. For an object that needs
    several points, or points and a box, give a `Prompt`.

    Raises `PromptError` if both are None, or if a row is not a point or a box.
    """
    if points is None and boxes is None:
        raise PromptError("there is no prompt: give points or boxes")
    prompts = []
    for point in _rows(points, "points"):
        prompts.append(point if isinstance(point, Prompt) else Prompt(points=(_as_point(point),)))
    for box in _rows(boxes, "boxes"):
        prompts.append(box if isinstance(box, Prompt) else Prompt(box=_as_box(box)))
    return prompts


def given_prompts(prompts: Any) -> list[Prompt]:
    """The `Prompt` objects of a sequence; a single one will do, and None is none.

    Raises `PromptError` for anything else, such as rows of numbers.
    """
    if isinstance(prompts, Mapping):
        raise PromptError("prompts must be Prompt objects: Prompt.from_json makes one of a mapping")
    rows = _rows(prompts, "prompts")
    for row in rows:
        if not isinstance(row, Prompt):
            raise PromptError(
                f"prompts must be Prompt objects, not {_short(row)}: numbers are points or boxes"
            )
    return rows


def _rows(value: Any, name: str) -> list[Any]:
    """The rows of `value`, which may also be one row, or None."""
    if value is None:
        return []
    if isinstance(value, Point | Box | Prompt):
        return [value]
    value = _plain(value)
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise PromptError(
            f"{name} must be rows of numbers, not {_short(value)}: "
            "text is read by Point.parse and Box.parse"
        )
    rows = [_plain(row) for row in value]
    return [rows] if rows and isinstance(rows[0], Real) else rows


def _plain(value: Any) -> Any:
    """Arrays and tensors of any library, device and number format as lists, or as a number."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return np.asarray(value).tolist() if hasattr(value, "__array__") else value


def as_array(value: Any) -> NDArray[Any]:
    """An array of an array or tensor of any library, device and number format, or of their list.

    Raises:
        TypeError, ValueError: NumPy cannot make an array of it.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = [as_array(part) if hasattr(part, "detach") else part for part in value]
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()
    return np.asarray(value)


def _as_mask(value: Any) -> NDArray[np.bool_] | NDArray[np.float32]:
    """A prompt's mask, checked, as an array of its own that cannot be written to."""
    try:
        array = as_array(value)
    except (TypeError, ValueError) as error:
        raise PromptError(f"a prompt's mask must be an array (H, W): {error}") from error
    if array.ndim != 2 or not array.size:
        raise PromptError(f"a prompt's mask must be an array (H, W), not of shape {array.shape}")
    mask: NDArray[np.bool_] | NDArray[np.float32]
    if array.dtype.kind in "biu":
        mask = array.astype(np.bool_)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise PromptError("a prompt's mask must be of finite numbers, not NaN or infinite")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise PromptError(
                f"a prompt's mask of floats holds probabilities within 0..1, not {low:g} to "
                f"{high:g}: give `logits > 0` for logits"
            )
        if array.dtype == np.float32 and not array.flags.writeable:
            return array
        mask = array.astype(np.float32)
    else:
        raise PromptError(f"a prompt's mask must be of bool or of numbers, not {array.dtype}")
    mask.flags.writeable = False
    return mask


def _as_point(value: Any) -> Point:
    if isinstance(value, Point):
        return value
    if not _is_sequence(value):
        raise PromptError(f"{_short(value)} is not a point: give {_POINT_FORM}")
    return Point._of(value)


def _as_box(value: Any) -> Box:
    if isinstance(value, Box):
        return value
    if not _is_sequence(value):
        raise PromptError(f"{_short(value)} is not a box: give {_BOX_FORM}")
    return Box._of(value)


def _is_sequence(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return is_list or (isinstance(value, np.ndarray) and value.ndim > 0)


def _finite(value: Any, what: str) -> float:
    if type(value) is float and math.isfinite(value):  # most are
        return value
    value = _plain(value)
    # A bool is a Real, but no coordinate.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PromptError(f"{what} must be a number, not {_short(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PromptError(f"{what} must be a finite number, not {value}")
    return number


def _label(value: Any) -> bool:
    value = _plain(value)
    if isinstance(value, bool) or (isinstance(value, Real) and value in (0, 1)):
        return bool(value)
    raise PromptError(
        f"a point's label must be 1 (on the object) or 0 (off it), not {_short(value)}"
    )


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _text(*numbers: float) -> str:
    """Numbers as a user would write them: 3 rather than 3.0."""
    return ",".join(str(n).removesuffix(".0") for n in numbers)


def _short(value: Any) -> str:
    """What the user gave, for a message: a long list is cut."""
    return " ".join(reprlib.repr(value).split())
