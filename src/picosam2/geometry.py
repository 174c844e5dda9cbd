"""The contract between a prompt and the network: prompt -> window -> crop, and back again.

Every coordinate of the project is settled here. A *window* is a rectangle of the original image,
in pixels, origin at the top left, pixel centres at +0.5; it may reach past the image, and what is
outside is padding. It is resampled to the square *crop* that the network sees; the prompt itself is
never an input, because it is where the crop is ("fixed-point prompt encoding", arXiv 2506.18807):
a click is always the centre of its window, a box is always the same rectangle of its window.

Resampling is the triangle filter whose support is `max(1, scale)` source pixels on either side of
a sample, horizontally and then vertically (bilinear when enlarging, antialiased when shrinking).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

_RESAMPLE = Image.Resampling.BILINEAR
_THINNEST = 2.0**-10  # Pillow keeps rectangles in single precision, and refuses empty ones
_MAX_READ = 2 * MAX_PIXELS  # image and padding; only windows thousands of times the image pass it


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle (x0, y0, x1, y1) of the image, in pixels; it may reach past the image."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.x0, self.y0, self.x1, self.y1)):
            raise PromptError("a window needs four finite numbers")
        if not (0 < self.width < math.inf and 0 < self.height < math.inf):
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
    def centre(self) -> tuple[float, float]:
        """The middle (x, y), in image pixels."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def scaled(self, factor_x: float, factor_y: float | None = None) -> Window:
        """The window grown or shrunk about its centre."""
        x, y = self.centre
        half_w = self.width * factor_x / 2
        half_h = self.height * (factor_x if factor_y is None else factor_y) / 2
        return Window(x - half_w, y - half_h, x + half_w, y + half_h)

    def at_least(self, side: float) -> Window:
        """The window, widened about its centre where a side is shorter than `side` pixels."""
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
    """The square window of half-size `half` (image pixels, > 0) centred on `point`."""
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
    x, y = box.centre.x, box.centre.y
    return Window(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def sensor_window(window: Window, height: int, width: int) -> Window:
    """`window` shrunk about its centre until it lies inside the image.

    A sensor's region of interest cannot leave the frame. Moving it would move the prompt, so it is
    made smaller instead. Raises `PromptError` if the centre is not inside the frame.
    """
    x, y = window.centre
    room = min(
        2 * min(x, width - x) / window.width,
        2 * min(y, height - y) / window.height,
    )
    if room <= 0:
        raise PromptError(
            f"the window's centre ({x:g}, {y:g}) must lie inside the {width}x{height} frame"
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


def _resample(
    plane: npt.NDArray[np.uint8], window: Window, size: int, fill: Sequence[int] | int
) -> npt.NDArray[np.uint8]:
    """`plane` (H, W) or (H, W, 3) uint8 seen through `window`, (size, size[, 3]) uint8."""
    height, width = plane.shape[:2]
    window = window.at_least(_THINNEST)
    across = _Span.of(window.x0, window.x1, size, width)
    down = _Span.of(window.y0, window.y1, size, height)
    seen = plane[down.inside, across.inside]
    if not seen.size:
        out = np.empty((size, size, *plane.shape[2:]), np.uint8)
        out[...] = fill
        return out
    # One axis at a time, the longer first: padding is then only ever laid along a strip, so that
    # a long, narrow image seen through a square window takes no more memory than it has itself.
    for axis in (1, 0) if width >= height else (0, 1):
        seen = _resample_axis(seen, axis, across if axis else down, size, fill)
    return seen


def _resample_axis(
    plane: npt.NDArray[np.uint8], axis: int, span: _Span, size: int, fill: Sequence[int] | int
) -> npt.NDArray[np.uint8]:
    """The part of an image that `span` reads along `axis` (0 down, 1 across), `size` long."""
    if plane.shape[1 - axis] * (span.stop - span.start) > _MAX_READ:
        raise PromptError("the window is too large for the image: choose one nearer to its size")
    read = _placed(plane, axis, span.inside.start - span.start, span.stop - span.start, fill)
    shape, box = list(read.shape[:2]), [0.0, 0.0, read.shape[1], read.shape[0]]
    shape[axis] = span.last - span.first
    box[1 - axis], box[3 - axis] = span.low, span.high
    whole = Image.fromarray(np.ascontiguousarray(read))
    small = np.asarray(whole.resize((shape[1], shape[0]), _RESAMPLE, box=tuple(box)))
    return _placed(small, axis, span.first, size, fill)


def _placed(
    plane: npt.NDArray[np.uint8], axis: int, start: int, length: int, fill: Sequence[int] | int
) -> npt.NDArray[np.uint8]:
    """`plane` from `start` on in an array `length` long along `axis`, filled elsewhere."""
    if plane.shape[axis] == length:
        return plane
    shape = list(plane.shape)
    shape[axis] = length
    out = np.empty(shape, np.uint8)
    out[...] = fill
    place = slice(start, start + plane.shape[axis])
    out[(place,) if axis == 0 else (slice(None), place)] = plane
    return out


def crop(
    image: npt.NDArray[np.uint8], window: Window, size: int = CROP_SIZE
) -> npt.NDArray[np.uint8]:
    """What the network sees: `image` (H, W, 3) RGB uint8 through `window`, (size, size, 3) uint8.

    Outside the image the crop holds `images.PAD_RGB`, which normalisation takes to about zero.
    Raises `PromptError` for a window thousands of times as large as the image.
    """
    return _resample(image, window, size, PAD_RGB)


def crop_mask(
    mask: npt.NDArray[np.bool_], window: Window, size: int = CROP_SIZE
) -> npt.NDArray[np.float32]:
    """The share of each crop pixel that `mask` (H, W) bool covers: (size, size) float32, 0..1."""
    return crop_plane(mask.view(np.uint8) * np.uint8(255), window, size)


def crop_plane(
    plane: npt.NDArray[np.uint8], window: Window, size: int = CROP_SIZE
) -> npt.NDArray[np.float32]:
    """`plane` (H, W) uint8 through `window`, zero outside the image: (size, size) float32, 0..1."""
    covered = _resample(plane, window, size, 0)
    return covered.astype(np.float32) / np.float32(255)


def paste_region(
    logits: npt.NDArray[np.float32], window: Window, height: int, width: int
) -> Region:
    """Logits (S, S) float32 of `window` back on the pixels of an image whose centres it covers.

    The inverse of `crop`: bilinear on the logits (antialiased where the image is coarser than the
    crop). Only the window's part of the image is computed; thresholding comes after. A window
    thinner than a pixel is pasted as if it were a pixel wide.
    """
    window = window.at_least(1.0)
    x0, x1 = _centres(window.x0, window.x1, width)
    y0, y1 = _centres(window.y0, window.y1, height)
    if x1 <= x0 or y1 <= y0:
        return Region(x0, y0, np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), np.float32))
    rows, columns = logits.shape
    step_x, step_y = columns / window.width, rows / window.height
    # A covered pixel may stick out of the window by half of itself, and the filter reaches one
    # more step: replicating the edge serves both.
    pad_x, pad_y = math.ceil(1.5 * step_x) + 1, math.ceil(1.5 * step_y) + 1
    padded = np.pad(logits.astype(np.float32, copy=False), ((pad_y,) * 2, (pad_x,) * 2), "edge")
    box = Window(
        (x0 - window.x0) * step_x + pad_x,
        (y0 - window.y0) * step_y + pad_y,
        (x1 - window.x0) * step_x + pad_x,
        (y1 - window.y0) * step_y + pad_y,
    ).at_least(_THINNEST)
    resized = Image.fromarray(padded).resize(
        (x1 - x0, y1 - y0), _RESAMPLE, box=(box.x0, box.y0, box.x1, box.y1)
    )
    return Region(x0, y0, np.asarray(resized))


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
    and `outside` where the centre of a target pixel is not in `source`.
    """
    corners = target.to_crop(np.array([[source.x0, source.y0], [source.x1, source.y1]]), size)
    return paste(logits, Window(*corners.ravel().tolist()), size, size, outside)


def inside(window: Window, height: int, width: int, size: int = CROP_SIZE) -> tuple[slice, slice]:
    """The rows and columns of a crop of `window` whose centres lie in an image of that size."""
    corners = window.to_crop(np.array([[0, 0], [width, height]], float), size)
    (x0, y0), (x1, y1) = corners.tolist()
    return slice(*_centres(y0, y1, size)), slice(*_centres(x0, x1, size))


def _centres(low: float, high: float, limit: int) -> tuple[int, int]:
    """The range of pixels 0..limit whose centres lie in [low, high)."""
    start = min(max(math.ceil(low - 0.5), 0), limit)
    return start, min(max(math.ceil(high - 0.5), start), limit)
