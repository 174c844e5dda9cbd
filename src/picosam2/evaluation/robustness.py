"""How scores fall when prompts are careless and images are bad: one curve for each disturbance.

Every level of a curve is one evaluation of the same objects under `box` or `click`. The first level
of each curve is the undisturbed one, so curves can be compared. Disturbances are seeded by the
image's or the annotation's id: two networks see the same ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from picosam2 import masks
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage
from picosam2.errors import ConfigError
from picosam2.evaluation import metrics
from picosam2.evaluation.boundary import erode
from picosam2.evaluation.models import ModelUnderTest
from picosam2.evaluation.protocols import Item
from picosam2.evaluation.run import Evaluation, evaluate
from picosam2.predictor import Predictor
from picosam2.prompts import Point, Prompt

RgbImage = npt.NDArray[np.uint8]

ERODED_SHARE = 0.1
"""`inside` erodes an object by this share of the shorter side of its box before it clicks in it."""


# --- images -------------------------------------------------------------------------------------


def jpeg(image: RgbImage, quality: float, _: int = 0) -> RgbImage:
    """The image saved as JPEG at that quality (1..95) and read again; 100 leaves it alone."""
    if quality >= 100:
        return image
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream).convert("RGB"))


def low_light(image: RgbImage, exposure: float, seed: int = 0) -> RgbImage:
    """The scene with `exposure` (0..1] of the light, as a camera sees it: darker, and noisy.

    Values are taken to linear light (the sRGB curve), scaled, given shot noise of a sensor that
    holds `_FULL_WELL` electrons and `_READ_NOISE` electrons of read noise, and taken back.
    """
    if exposure >= 1:
        return image
    rng = np.random.default_rng((seed, 11))
    electrons = _TO_LINEAR[image] * exposure * _FULL_WELL
    # Normal, not Poisson: the same above a few electrons, and much faster.
    noise = rng.standard_normal(image.shape, np.float32)
    electrons += noise * np.sqrt(electrons + _READ_NOISE**2)
    linear = np.clip(electrons / _FULL_WELL, 0, 1)
    levels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    darker: RgbImage = np.rint(levels * 255).astype(np.uint8)
    return darker


_FULL_WELL = 4000.0
_READ_NOISE = 3.0
_LEVELS = np.arange(256, dtype=np.float32) / 255
_TO_LINEAR = np.where(
    _LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4
).astype(np.float32)


def blur(image: RgbImage, sigma: float, _: int = 0) -> RgbImage:
    """The image out of focus: a Gaussian of that standard deviation in pixels."""
    if sigma <= 0:
        return image
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def downscale(image: RgbImage, factor: float, _: int = 0) -> RgbImage:
    """The image from a camera with `factor` times fewer pixels a side, enlarged back."""
    if factor <= 1:
        return image
    full = Image.fromarray(image)
    small = (max(1, round(full.width / factor)), max(1, round(full.height / factor)))
    shrunk = full.resize(small, Image.Resampling.BOX)
    return np.asarray(shrunk.resize(full.size, Image.Resampling.BICUBIC))


# --- clicks -------------------------------------------------------------------------------------


def click_off(item: Item, distance: float, seed: int) -> Item:
    """The click `distance` pixels off its place, in a random direction, if need be off the object.

    It stays on the image.
    """
    if not distance:
        return item
    angle = np.random.default_rng((seed, 13)).uniform(0, 2 * np.pi)
    height, width = item.mask.shape
    x = float(np.clip(item.point.x + distance * np.cos(angle), 0.5, width - 0.5))
    y = float(np.clip(item.point.y + distance * np.sin(angle), 0.5, height - 0.5))
    return replace(item, prompt=Prompt(points=(Point(x, y),)))


def click_inside(item: Item, on: float, seed: int) -> Item:
    """A click anywhere in the object, not near its edge: uniform in the eroded mask; 0 is off.

    Where nothing is left of the eroded mask, uniform in the mask.
    """
    if not on:
        return item
    bounds = masks.bbox(item.mask)
    assert bounds is not None, "empty masks are skipped before"
    x0, y0, x1, y1 = bounds
    patch = item.mask[y0:y1, x0:x1]
    inner = erode(patch, int(ERODED_SHARE * min(patch.shape)))
    rows, columns = np.nonzero(inner if inner.any() else patch)
    chosen = int(np.random.default_rng((seed, 17)).integers(len(rows)))
    point = Point(float(columns[chosen]) + x0 + 0.5, float(rows[chosen]) + y0 + 0.5)
    return replace(item, prompt=Prompt(points=(point,)))


# --- curves -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One disturbance of images or prompts. The first of `levels` changes nothing."""

    title: str
    unit: str
    """What a level counts; the label of the figure's axis."""
    levels: tuple[float, ...]
    protocols: tuple[str, ...]
    image: Callable[[RgbImage, float, int], RgbImage] | None = None
    click: Callable[[Item, float, int], Item] | None = None

    def arguments(self, level: float) -> dict[str, Any]:
        """The arguments of `evaluate` for one level."""
        arguments: dict[str, Any] = {}
        if self.image is not None:
            worse = self.image
            arguments["disturb_image"] = lambda image, seed: worse(image, level, seed)
        if self.click is not None:
            moved = self.click
            arguments["disturb_item"] = lambda item, seed: moved(item, level, seed)
        if not arguments:
            arguments["jitter"] = level
        return arguments


_BOTH = ("box", "click")
CURVES: dict[str, Curve] = {
    "box-jitter": Curve(
        title="Careless box",
        unit="each edge moved by up to this share of the side",
        levels=(0.0, 0.05, 0.1, 0.15, 0.2, 0.3),
        protocols=("box",),
    ),
    "click-offset": Curve(
        title="Click beside the center",
        unit="pixels off the object's center point",
        levels=(0.0, 5.0, 10.0, 15.0, 20.0),
        protocols=("click",),
        click=click_off,
    ),
    "click-inside": Curve(
        title="Click anywhere inside",
        unit="0: center point, 1: uniform in the eroded mask",
        levels=(0.0, 1.0),
        protocols=("click",),
        click=click_inside,
    ),
    "jpeg": Curve(
        title="JPEG compression",
        unit="quality (100: as it was)",
        levels=(100.0, 75.0, 50.0, 25.0, 10.0, 5.0),
        protocols=_BOTH,
        image=jpeg,
    ),
    "low-light": Curve(
        title="Low light",
        unit="share of the light",
        levels=(1.0, 0.3, 0.1, 0.03, 0.01),
        protocols=_BOTH,
        image=low_light,
    ),
    "blur": Curve(
        title="Out of focus",
        unit="sigma of the blur, pixels",
        levels=(0.0, 1.0, 2.0, 4.0, 8.0),
        protocols=_BOTH,
        image=blur,
    ),
    "downscale": Curve(
        title="Fewer pixels",
        unit="image's side divided by",
        levels=(1.0, 2.0, 4.0, 8.0),
        protocols=_BOTH,
        image=downscale,
    ),
}
"""Every disturbance, by name."""


def check_curves(names: Iterable[str]) -> None:
    """Raise `ConfigError` if a name is none of `CURVES`."""
    if unknown := set(names) - set(CURVES):
        raise ConfigError(f"there is no curve {min(unknown)!r}: use {', '.join(CURVES)}")


def robustness(
    predictor: Predictor | ModelUnderTest,
    images: Sequence[AnnotatedImage],
    *,
    dataset: str = "coco",
    curves: Sequence[str] = tuple(CURVES),
    protocols: Sequence[str] = _BOTH,
    limit: int | None = None,
    weights: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the curves: the result file of `picosam2 robustness`.

    The undisturbed images are measured once for each protocol. `progress` receives the
    number of evaluations that are done. `limit` takes the first objects only.

    Raises:
        ConfigError: an unknown curve or protocol.
        DataError: there was nothing to measure.
    """
    check_curves(curves)
    if unknown := set(protocols) - set(_BOTH):
        raise ConfigError(f"robustness is of {' and '.join(_BOTH)}, not {min(unknown)!r}")
    jobs = [
        (name, protocol, level)
        for name in curves
        for protocol in CURVES[name].protocols
        if protocol in protocols
        for level in CURVES[name].levels
    ]
    if not jobs:
        raise ConfigError(f"{', '.join(curves)} says nothing of {' and '.join(protocols)}")
    undisturbed: dict[str, Evaluation] = {}
    table: dict[str, Any] = {}
    run = partial(evaluate, predictor, images, dataset=dataset, limit=limit)
    for index, (name, protocol, level) in enumerate(jobs):
        curve = CURVES[name]
        if level == curve.levels[0]:
            if protocol not in undisturbed:
                undisturbed[protocol] = run(protocol=protocol)
            done = undisturbed[protocol]
        else:
            done = run(protocol=protocol, **curve.arguments(level))
        entry = table.setdefault(
            name, {"title": curve.title, "unit": curve.unit, "levels": list(curve.levels)}
        )
        scores = entry.setdefault("protocols", {}).setdefault(protocol, _empty())
        for key, value in _scores(done).items():
            scores[key].append(value)
        if progress:
            progress(index + 1, len(jobs), what=f"measuring {name} {protocol}")
    some = next(iter(undisturbed.values()))
    return {
        "kind": "robustness",
        "dataset": dataset,
        "n": len(some.measured),
        "photos": len({measured.image_id for measured in some.measured}),
        "weights_sha256": some.weights_sha256,
        "weights": dict(weights or {}),
        "curves": table,
        "rivals": {
            protocol: metrics.by_rivals(done.column("iou"), done.column("rivals"))
            for protocol, done in undisturbed.items()
        },
    }


def _empty() -> dict[str, list[float]]:
    return {"miou": [], "low": [], "high": [], "hit_rate": []}


def _scores(done: Evaluation) -> dict[str, float]:
    ious = done.column("iou")
    low, high = metrics.interval(ious, done.column("image_id"))
    return {
        "miou": float(ious.mean()),
        "low": low,
        "high": high,
        "hit_rate": metrics.hit_rate(ious),
    }
