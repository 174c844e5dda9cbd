"""What a prediction is: a `Segmentation` that knows its mask, its prompt, and how to be shown.

Drawing is done with distances: a line is opaque where a pixel is nearer to its middle than half
its width, and fades over one pixel. That gives smooth lines at any size without drawing large and
shrinking.
"""

from __future__ import annotations

import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageFilter

from picosam2 import masks
from picosam2._files import atomic_write
from picosam2.errors import ConfigError, DataError, ImageError
from picosam2.geometry import CROP_SIZE, Window
from picosam2.images import ImageSource, load_image
from picosam2.masks import PackedMask, Polygon, Region
from picosam2.prompts import Box, Prompt

Color: TypeAlias = str | tuple[int, int, int]
Format: TypeAlias = Literal["mask", "overlay", "cutout", "json"]

PALETTE: Final = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
)
"""Colors (RGB) that people with any color vision can tell apart, in the order they are used.

Okabe and Ito, "Color Universal Design", 2008, without black; the bright ones first, because a dark
tint hides what is under it.
"""

FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "mask": (".png",),
    "overlay": (".png", ".jpg", ".jpeg"),
    "cutout": (".png",),
    "json": (".json",),
}
"""What `Segmentation.save` can write, and the file name endings for it."""

_WHITE: Final = (255, 255, 255)
_BLACK: Final = (0, 0, 0)
_MAX_UNIT: Final = 4.0  # lines and markers are at most so many times as large as at 640 x 480
_CONTRAST: Final = 150.0  # of `_color_distance` between a tint and what is under it
_TILE: Final = 512  # pixels; outlines are drawn tile by tile, where a mask's border passes
_HALO: Final = 0.45  # opacity of the dark rim that keeps white lines visible on white

_STEEPNESS: Final = 4.0  # of the sigmoid that makes the edge of a cutout
_MAX_EDGE: Final = 12  # pixels on either side of a mask's border, at most
_JPEG_SIDE: Final = 65_500  # pixels, the limit of libjpeg


class Segmentation:
    """One object of one image. It cannot be changed, and is small however large the image is.

    The mask is kept with one bit a pixel of its box, and logits are made anew from the network's
    own: `mask` and `logits` are new arrays each time.
    """

    __slots__ = ("_image", "_logits", "_mask", "_prompt", "_score", "_shape", "_window")

    def __init__(
        self,
        *,
        mask: NDArray[np.bool_],
        score: float,
        prompt: Prompt,
        window: Window | None = None,
        image: NDArray[np.uint8] | None = None,
        logits: NDArray[np.float32] | None = None,
    ) -> None:
        """The object of a mask.

        Args:
            mask: (H, W) bool, True on the object, in the original image's pixels.
            score: the predicted IoU of the mask with the object, 0..1.
            prompt: what was pointed at.
            window: the part of the image the network saw, if one window was used.
            image: the image (H, W, 3) uint8 RGB, for `overlay` and `cutout`.
            logits: (H, W) float32 before the sigmoid, for the soft edge of `cutout`.

        Raises:
            DataError: the shapes do not agree or the score is not within 0..1.
        """
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise DataError(f"a mask is an array (H, W) of bool, not {mask.dtype} {mask.shape}")
        if logits is not None and logits.shape != mask.shape:
            raise DataError(f"a mask of {mask.shape} does not fit logits of {logits.shape}")
        self._set(Region(0, 0, mask), mask.shape, score, prompt, window, image, logits)

    @classmethod
    def of_region(
        cls,
        region: Region,
        shape: tuple[int, int],
        *,
        score: float,
        prompt: Prompt,
        window: Window | None = None,
        image: NDArray[np.uint8] | None = None,
        logits: Callable[[], Region] | None = None,
    ) -> Segmentation:
        """The object of a region of an image of `shape` (H, W).

        `logits` makes the region's logits when they are asked for; it can be pickled if it is a
        `functools.partial`. Raises `DataError` like the class.
        """
        made = cls.__new__(cls)
        made._set(region, shape, score, prompt, window, image, logits)
        return made

    def _set(
        self,
        region: Region,
        shape: tuple[int, ...],
        score: float,
        prompt: Prompt,
        window: Window | None,
        image: NDArray[np.uint8] | None,
        logits: NDArray[np.float32] | Callable[[], Region] | None,
    ) -> None:
        height, width = shape
        if not 0 <= score <= 1:
            raise DataError(f"a score lies within 0..1, not {score}")
        if image is not None and image.shape != (height, width, 3):
            raise DataError(f"a mask of {(height, width)} does not fit an image of {image.shape}")
        self._mask = PackedMask.of(region)
        self._shape = height, width
        self._score, self._prompt, self._window = float(score), prompt, window
        self._image, self._logits = image, logits

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, True on the object, in the original image's pixels. A new array."""
        return self.region.on_image(*self._shape)

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """(H, W) float32 before the sigmoid, or None if they are not known. A new array."""
        if self._logits is None or isinstance(self._logits, np.ndarray):
            return self._logits
        return self._logits().logits_on_image(*self._shape)

    @property
    def region(self) -> Region:
        """The mask on its tight box alone."""
        return self._mask.region()

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self._shape

    @property
    def score(self) -> float:
        """The predicted IoU of the mask with the object, 0..1; 0 for an empty mask."""
        return self._score

    @property
    def prompt(self) -> Prompt:
        """What was pointed at."""
        return self._prompt

    @property
    def window(self) -> Window | None:
        """The part of the image the network saw, if one window was used."""
        return self._window

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """The image (H, W, 3) uint8 RGB, if it is kept."""
        return self._image

    def __repr__(self) -> str:
        height, width = self._shape
        box = "none" if self.box is None else f"({self.box})"
        return (
            f"<Segmentation of {self.area} pixels in {width}x{height}, box {box}, "
            f"score {self.score:.3f}>"
        )

    @property
    def area(self) -> int:
        """The number of pixels on the object."""
        return self._mask.area

    @property
    def box(self) -> Box | None:
        """The tight box around the mask, in pixels; None if the mask is empty."""
        return self._mask.box

    def polygons(self, tolerance: float = 1.0) -> list[Polygon]:
        """The contours, simplified by up to `tolerance` pixels (0: exact); `masks.polygons`."""
        return masks.polygons(self.mask, tolerance)

    def rle(self) -> dict[str, Any]:
        """The mask as COCO's compressed RLE, {"size": [H, W], "counts": str}."""
        return masks.rle_encode(self.mask)

    def to_json(self) -> dict[str, Any]:
        """The result in plain values that `json` can write.

        {"prompt": as `Prompt.to_json`, "box": [x0, y0, x1, y1] or None, "score": 0..1,
        "area": pixels, "size": [H, W], "rle": as `rle`,
        "polygons": [{"points": [[x, y], ...], "hole": bool}, ...] as `polygons`}
        """
        box = self.box
        return {
            "prompt": self.prompt.to_json(),
            "box": None if box is None else [box.x0, box.y0, box.x1, box.y1],
            "score": float(self.score),
            "area": self.area,
            "size": list(self._shape),
            "rle": self.rle(),
            "polygons": [
                {"points": polygon.points.tolist(), "hole": polygon.hole}
                for polygon in self.polygons()
            ],
        }

    def mask_image(self) -> Image.Image:
        """The mask as a grayscale image: 255 on the object, 0 off it."""
        return Image.fromarray(_gray(self.mask))

    def overlay(self, color: Color = PALETTE[0], alpha: float = 0.5) -> Image.Image:
        """The image with the object tinted and outlined, and the prompt drawn (RGB).

        `color` is an RGB tuple of 0..255 or a CSS name or #rrggbb; `alpha` is the tint's opacity,
        0..1. Raises `ImageError` if the result holds no image (then use the function `overlay`),
        `ConfigError` for a color or opacity that does not exist.
        """
        return overlay(self._image_for("an overlay"), [self], colors=[color], alpha=alpha)

    def cutout(self) -> Image.Image:
        """The object alone on a transparent ground (RGBA), as large as the image.

        With logits the edge is soft: there the opacity is sigmoid(4 * logit), which is fully
        opaque from a logit of about 1.5 and clear below -1.5. It counts only near the mask's
        border, within about one pixel of the network's crop; away from it the inside is opaque and
        the outside clear, however unsure the network is. Without logits the edge is hard. Clear
        pixels are black, so nothing of the background stays in the file.

        Raises `ImageError` if the result holds no image.
        """
        image = self._image_for("a cutout")
        mask, logits = self.mask, self.logits
        alpha = _gray(mask) if logits is None else self._soft_alpha(mask, logits)
        rgba = np.dstack((image, alpha))
        rgba[alpha == 0] = 0
        return Image.fromarray(rgba)

    def save(self, path: str | os.PathLike[str], format: Format | None = None) -> None:
        """Write the result to `path`, atomically.

        `format` is "mask" (grayscale PNG), "overlay" (PNG or JPEG), "cutout" (PNG) or "json". If
        it is left out, .json means json, .jpg means overlay and .png means mask.

        Raises `ConfigError` for an unknown format, a file name ending that does not suit it, or a
        place that cannot be written; `ImageError` for an image the result does not hold.
        """
        ending = Path(path).suffix.lower()
        if format is None:
            fitting = [name for name, endings in FORMATS.items() if ending in endings]
            if not fitting:
                raise ConfigError(f"{path} tells no format: end it in .png, .jpg or .json")
            format = cast(Format, fitting[0])
        if format not in FORMATS:
            raise ConfigError(f"there is no format {format!r}: use {_listed(FORMATS)}")
        if ending not in FORMATS[format]:
            raise ConfigError(
                f"{path} does not suit {format}: end it in {_listed(FORMATS[format])}"
            )
        if format == "json":
            data = (json.dumps(self.to_json(), allow_nan=False) + "\n").encode()
        else:
            drawn = {
                "mask": self.mask_image,
                "overlay": self.overlay,
                "cutout": self.cutout,
            }[format]()
            data = encode_image(drawn, "PNG" if ending == ".png" else "JPEG")
        try:
            with atomic_write(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay, or the mask if there is no image."""
        return encode_image(self.mask_image() if self.image is None else self.overlay(), "PNG")

    def _image_for(self, what: str) -> NDArray[np.uint8]:
        if self.image is None:
            raise ImageError(
                f"this result holds no image to make {what} of: create it with image=..."
            )
        return self.image

    def _soft_alpha(
        self, mask: NDArray[np.bool_], logits: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Opacity (H, W), 0..255: see `cutout`."""
        alpha = _gray(mask)
        reach = 2
        if self.window is not None:
            longest = max(self.window.width, self.window.height)
            reach = min(max(math.ceil(longest / CROP_SIZE), 1), _MAX_EDGE)
        rows, columns = _surroundings(mask, reach + 1)
        hard = alpha[rows, columns].astype(np.float32) / 255
        near = np.asarray(Image.fromarray(alpha[rows, columns]).filter(ImageFilter.BoxBlur(reach)))
        inside = near.astype(np.float32) / 255
        weight = 4 * inside * (1 - inside)  # 1 on the border, 0 from `reach` pixels away
        soft = 1 / (1 + np.exp(np.clip(-_STEEPNESS * logits[rows, columns], -30, 30)))
        alpha[rows, columns] = np.rint(255 * (hard + weight * (soft - hard)))
        return alpha


def overlay(
    image: ImageSource,
    segmentations: Sequence[Segmentation],
    *,
    colors: Iterable[Color] | None = None,
    alpha: float = 0.5,
    prompts: bool = True,
) -> Image.Image:
    """Draw objects on an image (RGB): each tinted in a color of its own and outlined.

    With `prompts` these are drawn too: a ring for a point (with a bar in it if negative) and a thin
    rectangle for a box. Small objects are drawn over large ones. `image` is all that `load_image`
    takes; `colors` gives a color for each segmentation, else those of `PALETTE` are used in turn,
    except where one would hardly show; `alpha` is the tints' opacity, 0..1.

    Raises `DataError` if a mask does not fit the image, `ConfigError` for a color or opacity
    that does not exist, `ImageError` if the image cannot be read.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"an overlay's alpha lies within 0..1, not {alpha}")
    canvas = load_image(image)
    for item in segmentations:
        if item.shape != canvas.shape[:2]:
            raise DataError(f"a mask of {item.shape} does not fit an image of {canvas.shape[:2]}")
    if colors is None:
        chosen = _contrasting(canvas, (item.mask for item in segmentations))
    else:
        chosen = [_rgb(color) for color in colors]
    if not chosen and segmentations:
        raise ConfigError("an overlay needs at least one color: leave colors out for the default")
    unit = _line_unit(*canvas.shape[:2])
    colored = [(item, chosen[i % len(chosen)]) for i, item in enumerate(segmentations)]
    for item, rgb in sorted(colored, key=lambda pair: -pair[0].area):
        _draw_mask(canvas, item.mask, rgb, alpha, unit)
    for item, rgb in colored if prompts else ():
        _draw_prompt(canvas, item.prompt, rgb, unit)
    return Image.fromarray(canvas)


def _line_unit(height: int, width: int) -> float:
    """How many pixels of an image are one of a usual screen, for the widths of lines.

    Lines keep their look when images of any size are shown at one size. In a panorama the short
    side decides, so that they do not cover it, and in very large images they grow no further.
    """
    long_side, short_side = max(height, width), min(height, width)
    return min(max(min(long_side / 640, short_side / 240), 0.75), _MAX_UNIT)


def _contrasting(
    canvas: NDArray[np.uint8], object_masks: Iterable[NDArray[np.bool_]]
) -> list[tuple[int, int, int]]:
    """Colors of `PALETTE` for masks of an image, in turn, but none that hardly shows on its mask.

    A color comes again only when all others have been used.
    """
    chosen: list[tuple[int, int, int]] = []
    for mask in object_masks:
        used = chosen[len(chosen) // len(PALETTE) * len(PALETTE) :]
        free = [color for color in PALETTE if color not in used]
        under = _mean_color(canvas, mask)
        visible = [color for color in free if _color_distance(color, under) >= _CONTRAST]
        chosen.append(visible[0] if visible else max(free, key=lambda c: _color_distance(c, under)))
    return chosen


def _mean_color(canvas: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The mean R, G and B below a mask, from at most some 100,000 pixels of its box."""
    rows, columns = _surroundings(mask, 0)
    step = max(math.isqrt(mask[rows, columns].size // 100_000), 1)
    for stride in (step, 1):  # a thin mask can lie between the pixels that are looked at
        pixels = canvas[rows, columns][::stride, ::stride][mask[rows, columns][::stride, ::stride]]
        if len(pixels):
            red, green, blue = pixels.mean(0).tolist()
            return red, green, blue
    return 0.0, 0.0, 0.0


def _color_distance(color: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """How different two colors look, 0 to about 765 (T. Riemersma's weighted RGB distance)."""
    red, green, blue = (a - b for a, b in zip(color, other, strict=True))
    warmth = (color[0] + other[0]) / 512
    return math.sqrt((2 + warmth) * red**2 + 4 * green**2 + (3 - warmth) * blue**2)


def _draw_mask(
    canvas: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    rgb: tuple[int, int, int],
    alpha: float,
    unit: float,
) -> None:
    if not mask.any():
        return
    rows, columns = _surroundings(mask, 0)
    _tint(canvas[rows, columns], mask[rows, columns], rgb, alpha)
    sigma = 1.5 * unit
    margin = math.ceil(4 * sigma) + 2  # what is farther away does not change the blur
    rows, columns = _surroundings(mask, margin)
    for top in range(rows.start, rows.stop, _TILE):
        for left in range(columns.start, columns.stop, _TILE):
            low_y, low_x = max(top - margin, 0), max(left - margin, 0)
            bottom, right = min(top + _TILE, rows.stop), min(left + _TILE, columns.stop)
            patch = mask[low_y : bottom + margin, low_x : right + margin]
            if patch.all() or not patch.any():
                continue
            gray = Image.fromarray(_gray(patch)).filter(ImageFilter.GaussianBlur(sigma))
            blurred = np.asarray(gray)[top - low_y :, left - low_x :]
            blurred = blurred[: bottom - top, : right - left]
            # Across a straight edge a blurred mask is the normal distribution of the distance:
            # invert it. The blur also rounds off the pixels' steps.
            distance = np.float32(sigma) * _normal_quantiles()[blurred]
            _stroke(canvas[top:bottom, left:right], distance, 1.5 * unit)


def _tint(
    area: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    rgb: tuple[int, int, int],
    alpha: float,
) -> None:
    """Lay a color on the part of `area` (h, w, 3), which is changed, where `mask` (h, w) is."""
    levels = np.arange(256, dtype=np.float32)
    opacity = np.float32(alpha)
    tables = [np.rint(levels + opacity * (np.float32(part) - levels)) for part in rgb]
    below = Image.fromarray(area)
    tinted = below.point([int(value) for table in tables for value in table])
    below.paste(tinted, mask=Image.fromarray(_gray(mask)))
    area[...] = np.asarray(below)


@lru_cache(maxsize=1)
def _normal_quantiles() -> NDArray[np.float32]:
    """How many standard deviations from the middle the share i / 255 lies: (256,) float32."""
    inner = [abs(NormalDist().inv_cdf(i / 255)) for i in range(1, 255)]
    return np.array([math.inf, *inner, math.inf], np.float32)


def _draw_prompt(
    canvas: NDArray[np.uint8], prompt: Prompt, rgb: tuple[int, int, int], unit: float
) -> None:
    if prompt.box is not None:
        box = prompt.box
        area, x, y = _patch(canvas, box.x0, box.y0, box.x1, box.y1, 3 * unit)
        across = np.abs(x - (box.x0 + box.x1) / 2) - box.width / 2
        along = np.abs(y - (box.y0 + box.y1) / 2) - box.height / 2
        _stroke(area, np.abs(np.maximum(across, along)), 1.5 * unit)
    radius = 5 * unit
    for point in prompt.points:
        area, x, y = _patch(canvas, point.x, point.y, point.x, point.y, radius + 3 * unit)
        distance = np.hypot(x - point.x, y - point.y)
        _blend(area, np.clip(radius + 0.5 - distance, 0, 1), rgb if point.positive else _BLACK)
        ring = np.abs(distance - radius)
        if not point.positive:
            bar = np.hypot(np.maximum(np.abs(x - point.x) - radius / 2, 0), y - point.y)
            ring = np.minimum(ring, bar)
        _stroke(area, ring, 2 * unit)


def _patch(
    canvas: NDArray[np.uint8], x0: float, y0: float, x1: float, y1: float, margin: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """The part of the canvas around a rectangle, and the x (1, w) and y (h, 1) of its pixels."""
    height, width = canvas.shape[:2]
    left, right = (min(max(int(x), 0), width) for x in (x0 - margin, x1 + margin + 1))
    top, bottom = (min(max(int(y), 0), height) for y in (y0 - margin, y1 + margin + 1))
    x = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5)
    return canvas[top:bottom, left:right], x, y


def _stroke(area: NDArray[np.uint8], distance: NDArray[np.float32], width: float) -> None:
    """Draw a white line with a dark rim on `area`, given each pixel's distance to its middle."""
    rim = max(1.0, width / 2)
    _blend(area, _HALO * np.clip(width / 2 + rim + 0.5 - distance, 0, 1), _BLACK)
    _blend(area, np.clip(width / 2 + 0.5 - distance, 0, 1), _WHITE)


def _blend(
    area: NDArray[np.uint8], opacity: NDArray[np.float32], rgb: tuple[int, int, int]
) -> None:
    """Lay a color on `area` (h, w, 3), which is changed, with an opacity (h, w) of 0..1."""
    rows, columns = np.nonzero(opacity)
    below = area[rows, columns].astype(np.float32)
    share = opacity[rows, columns].astype(np.float32)[:, None]
    area[rows, columns] = np.rint(below + share * (np.array(rgb, np.float32) - below))


def _surroundings(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """The rows and columns of a mask's box and `margin` pixels around it, within the image."""
    x0, y0, x1, y1 = masks.bbox(mask) or (0, 0, 0, 0)
    return slice(max(y0 - margin, 0), y1 + margin), slice(max(x0 - margin, 0), x1 + margin)


def _gray(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


def encode_image(image: Image.Image, kind: str) -> bytes:
    """An image as the bytes of a file; `kind` is "PNG" or "JPEG".

    The image's color profile and resolution (`icc_profile` and `dpi` in its `info`) are kept.

    Raises:
        ConfigError: the image is larger than a file of that kind may be.
    """
    if kind == "JPEG" and max(image.size) > _JPEG_SIDE:
        width, height = image.size
        raise ConfigError(
            f"an image of {width}x{height} pixels is too large for JPEG, "
            f"whose sides end at {_JPEG_SIDE:,}: write a PNG"
        )
    buffer = io.BytesIO()
    kept = {key: image.info[key] for key in ("icc_profile", "dpi") if key in image.info}
    if kind == "JPEG":
        image.save(buffer, kind, quality=92, subsampling=0, **kept)  # thin lines need full color
    elif image.mode in ("RGB", "RGBA"):
        # Of images this makes files of the same size in a third of the time.
        image.save(buffer, kind, compress_level=1, compress_type=zlib.Z_RLE, **kept)
    else:
        image.save(buffer, kind, **kept)
    return buffer.getvalue()


def _rgb(color: Color) -> tuple[int, int, int]:
    if isinstance(color, str):
        try:
            red, green, blue = ImageColor.getrgb(color)[:3]
        except ValueError as error:
            raise ConfigError(
                f"there is no color {color!r}: use a CSS name, #rrggbb or three numbers 0..255"
            ) from error
        return red, green, blue
    if (
        not isinstance(color, tuple | list)
        or len(color) != 3
        or not all(isinstance(value, int) and 0 <= value <= 255 for value in color)
    ):
        raise ConfigError(f"a color is three whole numbers within 0..255, not {color!r}")
    red, green, blue = color
    return red, green, blue


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
