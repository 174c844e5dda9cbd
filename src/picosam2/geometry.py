"""The contract between a prompt and the network: prompt -> window -> crop, and back again.

Every coordinate of the project is settled here. A *window* is a rectangle of the original image,
in pixels, origin at the top left, pixel centers at +0.5; it may reach past the image, and what is
outside is padding. It is resampled to the square *crop* that the network sees; the prompt itself is
never an input, because it is where the crop is ("fixed-point prompt encoding", arXiv 2506.18807):
a click is always the center of its window, a box is always the same rectangle of its window.

Resampling is the triangle filter whose support is `max(1, scale)` source pixels on either side of
a sample, horizontally and then vertically (bilinear when enlarging, antialiased when shrinking).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2.errors import PromptError
from picosam2.images import MAX_PIXELS, PAD_RGB
from picosam2.masks import OUTSIDE_LOGIT as OUTSIDE_LOGIT
from picosam2.masks import Region
from picosam2.prompts import Box, Point

CROP_SIZE = 96
"""Side of the network's input, in pixels (the paper's)."""

BOX_GROWTH = 1.2
"""A box window is this many times as wide and as high as its box (docs/box-window.md)."""

BOX_MAX_ASPECT = math.inf
"""Longest side over shortest of a box window; 1 squares it, infinity follows the box."""

CLICK_HALVES = (0.02, 0.0375, 0.075, 0.15, 0.3, 0.5625)
"""Half-sizes of the windows tried for a click, as fractions of the image's long side."""

MAX_AT_ONCE = 1 << 20
"""Pixels of logits that are pasted in one piece; more are pasted strip by strip."""

_RESAMPLE = Image.Resampling.BILINEAR
_THINNEST = 2.0**-10  # Pillow keeps rectangles in single precision, and refuses empty ones
_ROWS = 512  # of an image that are halved together
_MAX_READ = 2 * MAX_PIXELS  # image and padding; only windows thousands of times the image pass it


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle (x0, y0, x1, y1) of the image, in pixels; it may reach past the image."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if 0 < self.x1 - self.x0 < math.inf and 0 < self.y1 - self.y0 < math.inf:
            return
        if not all(math.isfinite(v) for v in (self.x0, self.y0, self.x1, self.y1)):
            raise PromptError("a window needs four finite numbers")
        raise PromptError("a window needs a positive, finite width and height")

    @property
    def width(self) -> float:
        """Width in image pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Height in image pixels."""
        return self.y1 - self.y0

    @property
    def center(self) -> tuple[float, float]:
        """The middle (x, y), in image pixels."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def scaled(self, factor_x: float, factor_y: float | None = None) -> Window:
        """The window grown or shrunk about its center."""
        x, y = self.center
        half_w = self.width * factor_x / 2
        half_h = self.height * (factor_x if factor_y is None else factor_y) / 2
        return Window(x - half_w, y - half_h, x + half_w, y + half_h)

    def in_cells(self, step: int) -> Window:
        """The window in cells of `step` x `step` pixels."""
        return Window(self.x0 / step, self.y0 / step, self.x1 / step, self.y1 / step)

    def at_least(self, side: float) -> Window:
        """The window, widened about its center where a side is shorter than `side` pixels."""
        if self.width >= side and self.height >= side:
            return self
        return self.scaled(max(side / self.width, 1.0), max(side / self.height, 1.0))

    def to_crop(
        self, points: npt.NDArray[np.floating], size: int = CROP_SIZE
    ) -> npt.NDArray[np.float64]:
        """Image points (N, 2) as (x, y) to crop points (N, 2); the window spans 0..`size`."""
        scale = np.array([size / self.width, size / self.height])
        mapped: npt.NDArray[np.float64] = (points - np.array([self.x0, self.y0])) * scale
        return mapped

    def to_image(
        self, points: npt.NDArray[np.floating], size: int = CROP_SIZE
    ) -> npt.NDArray[np.float64]:
        """Crop points (N, 2) as (x, y) back to image points (N, 2): the inverse of `to_crop`."""
        scale = np.array([self.width / size, self.height / size])
        mapped: npt.NDArray[np.float64] = points * scale + np.array([self.x0, self.y0])
        return mapped


def point_window(point: Point, half: float) -> Window:
    """The square window of half-size `half` (image pixels, > 0) centered on `point`."""
    return Window(point.x - half, point.y - half, point.x + half, point.y + half)


def click_windows(
    point: Point, height: int, width: int, halves: Sequence[float] = CLICK_HALVES
) -> tuple[Window, ...]:
    """The windows tried for a click, smallest first. A click knows no scale; these are the guesses.

    Sizes are `halves` of the image's long side, so that an image gives the same windows at any
    resolution.
    """
    long_side = max(height, width)
    return tuple(point_window(point, fraction * long_side) for fraction in halves)


def box_window(
    box: Box, *, growth: float = BOX_GROWTH, max_aspect: float = BOX_MAX_ASPECT
) -> Window:
    """The window around `box`, `growth` times its size, x and y scaled apart.

    The box then always is the same rectangle of the crop: the middle 1/`growth` of it. `max_aspect`
    (>= 1) limits how far the two scales may differ, by widening the shorter side; 1 gives the
    square window of PicoSAM3.
    """
    width, height = box.width * growth, box.height * growth
    width, height = max(width, height / max_aspect), max(height, width / max_aspect)
    x, y = box.center.x, box.center.y
    return Window(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def sensor_window(window: Window, height: int, width: int) -> Window:
    """`window` shrunk about its center until it lies inside the image.

    A sensor's region of interest cannot leave the frame. Moving it would move the prompt, so it is
    made smaller instead. Raises `PromptError` if the center is not inside the frame.
    """
    x, y = window.center
    room = min(
        2 * min(x, width - x) / window.width,
        2 * min(y, height - y) / window.height,
    )
    if room <= 0:
        raise PromptError(
            f"the window's center ({x:g}, {y:g}) must lie inside the {width}x{height} frame"
        )
    return window if room >= 1 else window.scaled(room)


@dataclass(frozen=True, slots=True)
class _Span:
    """One axis of a window: the crop pixels that see the image, and the pixels they read."""

    first: int
    last: int
    """Crop pixels `first` to `last` (exclusive); the others see only padding."""
    start: int
    stop: int
    """Image pixels `start` to `stop` (exclusive); they may lie past the image."""
    low: float
    high: float
    """The edges of those crop pixels, in image pixels from `start`."""
    limit: int
    """The image's length."""

    @staticmethod
    def of(low: float, high: float, size: int, limit: int) -> _Span:
        """Of a window from `low` to `high` seen by `size` crop pixels."""
        scale = (high - low) / size
        reach = max(scale, 1.0)
        first = min(max(math.floor((-reach - low) / scale - 0.5), 0), size)
        last = min(max(math.ceil((limit + reach - low) / scale + 0.5), first), size)
        near, far = low + first * scale, low + last * scale
        start, stop = math.floor(near - reach), math.ceil(far + reach)
        return _Span(first, last, start, stop, near - start, far - start, limit)

    @property
    def inside(self) -> slice:
        """The part of the image that is read."""
        low = min(max(self.start, 0), self.limit)
        return slice(low, max(min(self.stop, self.limit), low))

    @property
    def is_inside(self) -> bool:
        """Whether all that is read lies in the image, so that there is no padding."""
        return self.start >= 0 and self.stop <= self.limit


class Plane(Protocol):
    """Pixels (H, W) or (H, W, 3) uint8 that can be cut: an array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3)."""

    def __getitem__(self, part: tuple[slice, slice], /) -> npt.NDArray[np.uint8]:
        """The pixels of some rows and columns."""


def _resample(
    plane: Plane, window: Window, size: int, fill: tuple[int, ...] | int
) -> npt.NDArray[np.uint8]:
    """`plane` seen through `window`, (size, size) or (size, size, 3) uint8."""
    height, width = plane.shape[:2]
    window = window.at_least(_THINNEST)
    across = _Span.of(window.x0, window.x1, size, width)
    down = _Span.of(window.y0, window.y1, size, height)
    seen = plane[down.inside, across.inside]
    if not seen.size:
        out = np.empty((size, size, *plane.shape[2:]), np.uint8)
        out[...] = fill
        return out
    image = _image(np.ascontiguousarray(seen))
    if across.is_inside and down.is_inside and width >= height and size >= image.height:
        # The same as the two steps below in one: Pillow resamples across first if the rows grow.
        box = across.low, down.low, across.high, down.high
        return _array(image.resize((size, size), _RESAMPLE, box=box))
    # One axis at a time, the longer first: padding is then only ever laid along a strip, so that
    # a long, narrow image seen through a square window takes no more memory than it has itself.
    for axis in (0, 1) if width >= height else (1, 0):
        image = _resample_axis(image, axis, down if axis else across, size, fill)
    return _array(image)


def _image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """A contiguous array (H, W) or (H, W, 3) as an image: `Image.fromarray`, in a third of its
    time, which counts for small ones."""
    mode = "L" if pixels.ndim == 2 else "RGB"
    size = pixels.shape[1], pixels.shape[0]
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)


def _array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The inverse of `_image`."""
    shape = (image.height, image.width, *([3] if image.mode == "RGB" else []))
    return np.frombuffer(image.tobytes(), np.uint8).reshape(shape)


def _resample_axis(
    image: Image.Image, axis: int, span: _Span, size: int, fill: tuple[int, ...] | int
) -> Image.Image:
    """The part of an image that `span` reads along `axis` (0 across, 1 down), `size` long."""
    if image.size[1 - axis] * (span.stop - span.start) > _MAX_READ:
        raise PromptError("the window is too large for the image: choose one nearer to its size")
    read = _placed(image, axis, span.inside.start - span.start, span.stop - span.start, fill)
    shape, box = list(read.size), [0.0, 0.0, *read.size]
    shape[axis] = span.last - span.first
    box[axis], box[2 + axis] = span.low, span.high
    small = read.resize((shape[0], shape[1]), _RESAMPLE, box=(box[0], box[1], box[2], box[3]))
    return _placed(small, axis, span.first, size, fill)


def _placed(
    image: Image.Image, axis: int, start: int, length: int, fill: tuple[int, ...] | int
) -> Image.Image:
    """An image from `start` on in one that is `length` long along `axis`, filled elsewhere."""
    if image.size[axis] == length:
        return image
    shape, place = list(image.size), [0, 0]
    shape[axis], place[axis] = length, start
    out = Image.new(image.mode, (shape[0], shape[1]), fill)
    out.paste(image, (place[0], place[1]))
    return out


def crop(image: ImageOrPyramid, window: Window, size: int = CROP_SIZE) -> npt.NDArray[np.uint8]:
    """What the network sees: `image` (H, W, 3) RGB uint8 through `window`, (size, size, 3) uint8.

    Outside the image the crop holds `images.PAD_RGB`, which normalisation takes to about zero.
    Raises `PromptError` for a window thousands of times as large as the image.
    """
    if isinstance(image, Pyramid):
        image, window = image.level(window, size)
    return _resample(image, window, size, PAD_RGB)


class Pyramid:
    """An image in several sizes, so that a large window is cropped from a small copy.

    Windows whose crop shrinks the image by less than `EXACT` come from the image itself; larger
    ones come from a copy that is still `REST` times as fine as the crop. Copies are made when they
    are needed, and kept. The page does the same.
    """

    REST = 3
    EXACT = 2 * REST

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        """Of an image (H, W, 3) RGB uint8."""
        self._levels = [image]

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The image itself."""
        return self._levels[0]

    def level(self, window: Window, size: int) -> tuple[npt.NDArray[np.uint8], Window]:
        """The copy that a crop of that size comes from, and the window in its pixels."""
        shrink = min(window.width, window.height) / size
        wanted = 0 if shrink < self.EXACT else math.floor(math.log2(shrink / self.REST))
        while len(self._levels) <= wanted and min(self._levels[-1].shape[:2]) > 1:
            self._levels.append(_halved(self._levels[-1]))
        level = min(wanted, len(self._levels) - 1)
        if not level:
            return self.image, window
        step = 2**level
        scaled = window.in_cells(step)
        return self._levels[level], scaled


ImageOrPyramid: TypeAlias = npt.NDArray[np.uint8] | Pyramid
"""An image (H, W, 3) RGB uint8, or its pyramid."""


def pixels_of(image: ImageOrPyramid) -> npt.NDArray[np.uint8]:
    """The image itself, (H, W, 3) RGB uint8."""
    return image.image if isinstance(image, Pyramid) else image


def _halved(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The mean of 2x2 pixels, rounded; in a last odd row or column that of fewer."""
    height, width = image.shape[:2]
    out = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    for top in range(0, height, _ROWS):
        rows = Image.fromarray(image[top : top + _ROWS]).reduce(2)
        out[top // 2 : top // 2 + rows.height] = np.asarray(rows)
    return out


def crop_mask(
    mask: npt.NDArray[np.bool_], window: Window, size: int = CROP_SIZE
) -> npt.NDArray[np.float32]:
    """The share of each crop pixel that `mask` (H, W) bool covers: (size, size) float32, 0..1."""
    return crop_plane(mask.view(np.uint8) * np.uint8(255), window, size)


def crop_plane(plane: Plane, window: Window, size: int = CROP_SIZE) -> npt.NDArray[np.float32]:
    """`plane` (H, W) uint8 through `window`, zero outside the image: (size, size) float32, 0..1."""
    covered = _resample(plane, window, size, 0)
    return covered.astype(np.float32) / np.float32(255)


def paste_region(
    logits: npt.NDArray[np.float32],
    window: Window,
    height: int,
    width: int,
    columns: slice | None = None,
) -> Region:
    """Logits (S, S) float32 of `window` back on the pixels of an image whose centers it covers.

    The inverse of `crop`: bilinear on the logits (antialiased where the image is coarser than the
    crop). Only the window's part of the image is computed, of it only some `columns` of the image
    if they are given; thresholding comes after. A window thinner than a pixel is pasted as if it
    were a pixel wide.
    """
    window = window.at_least(1.0)
    x0, x1 = _centers(window.x0, window.x1, width)
    y0, y1 = _centers(window.y0, window.y1, height)
    left, right = x0, x1
    if columns is not None:
        left, right = max(columns.start, x0), min(columns.stop, x1)
    if right <= left or y1 <= y0:
        return Region(left, y0, np.zeros((max(y1 - y0, 0), max(right - left, 0)), np.float32))
    rows_cells, columns_cells = logits.shape
    step_x, step_y = columns_cells / window.width, rows_cells / window.height
    # A covered pixel may stick out of the window by half of itself, and the filter reaches one
    # more step: replicating the edge serves both.
    pad_x, pad_y = math.ceil(1.5 * step_x) + 1, math.ceil(1.5 * step_y) + 1
    padded = _edged(logits, pad_y, pad_x)
    box = Window(
        (x0 - window.x0) * step_x + pad_x,
        (y0 - window.y0) * step_y + pad_y,
        (x1 - window.x0) * step_x + pad_x,
        (y1 - window.y0) * step_y + pad_y,
    ).at_least(_THINNEST)
    image = Image.frombuffer("F", (padded.shape[1], padded.shape[0]), padded, "raw", "F", 0, 1)
    # Where the rows grow, Pillow resamples across first: then the columns can be chosen in between.
    whole = columns is None and (x1 - x0) * (y1 - y0) <= MAX_AT_ONCE
    if whole or y1 - y0 < image.height:
        resized = image.resize((x1 - x0, y1 - y0), _RESAMPLE, box=(box.x0, box.y0, box.x1, box.y1))
        return Region(left, y0, np.asarray(resized)[:, left - x0 : right - x0])
    # The same in two steps, the second one strip by strip, so that its copies are small.
    wide = image.resize((x1 - x0, image.height), _RESAMPLE, box=(box.x0, 0, box.x1, image.height))
    out = np.empty((y1 - y0, right - left), np.float32)
    strip = max(MAX_AT_ONCE // 4 // (y1 - y0), 1)
    for start in range(left, right, strip):
        stop = min(start + strip, right)
        part = wide.crop((start - x0, 0, stop - x0, image.height))
        tall = part.resize(
            (stop - start, y1 - y0), _RESAMPLE, box=(0, box.y0, stop - start, box.y1)
        )
        out[:, start - left : stop - left] = np.asarray(tall)
    return Region(left, y0, out)


def _edged(logits: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Logits (h, w) with so many copies of their edges on all sides: `np.pad`, but faster."""
    height, width = logits.shape
    out = np.empty((height + 2 * rows, width + 2 * columns), np.float32)
    out[rows : rows + height, columns : columns + width] = logits
    out[:rows, columns : columns + width] = logits[0]
    out[rows + height :, columns : columns + width] = logits[-1]
    out[:, :columns] = out[:, columns : columns + 1]
    out[:, columns + width :] = out[:, columns + width - 1 : columns + width]
    return out


def positive_columns(logits: npt.NDArray[np.float32], window: Window, width: int) -> slice | None:
    """The columns of an image in which the mask of pasted logits (S, S) can be; None for none."""
    window = window.at_least(1.0)
    cells = np.flatnonzero((logits > 0).any(0))
    if not cells.size:
        return None
    step = logits.shape[1] / window.width
    reach = max(step, 1) + 1
    low = window.x0 + (cells[0] - reach) / step - 1
    high = window.x0 + (cells[-1] + 1 + reach) / step + 1
    return slice(max(math.floor(low), 0), max(min(math.ceil(high), width), 0))


def paste(
    logits: npt.NDArray[np.float32],
    window: Window,
    height: int,
    width: int,
    outside: float = OUTSIDE_LOGIT,
) -> npt.NDArray[np.float32]:
    """Like `paste_region`, on the whole image: (height, width) float32, `outside` elsewhere."""
    return paste_region(logits, window, height, width).logits_on_image(height, width, outside)


def resample_logits(
    logits: npt.NDArray[np.float32],
    source: Window,
    target: Window,
    size: int = CROP_SIZE,
    outside: float = OUTSIDE_LOGIT,
) -> npt.NDArray[np.float32]:
    """Logits (h, w) float32 on the window `source`, seen through `target`: (size, size) float32.

    What `paste` does with the target's grid for the image: bilinear, antialiased when shrinking,
    and `outside` where the center of a target pixel is not in `source`.
    """
    corners = target.to_crop(np.array([[source.x0, source.y0], [source.x1, source.y1]]), size)
    return paste(logits, Window(*corners.ravel().tolist()), size, size, outside)


def inside(window: Window, height: int, width: int, size: int = CROP_SIZE) -> tuple[slice, slice]:
    """The rows and columns of a crop of `window` whose centers lie in an image of that size."""
    corners = window.to_crop(np.array([[0, 0], [width, height]], float), size)
    (x0, y0), (x1, y1) = corners.tolist()
    return slice(*_centers(y0, y1, size)), slice(*_centers(x0, x1, size))


def _centers(low: float, high: float, limit: int) -> tuple[int, int]:
    """The range of pixels 0..limit whose centers lie in [low, high)."""
    start = min(max(math.ceil(low - 0.5), 0), limit)
    return start, min(max(math.ceil(high - 0.5), start), limit)
