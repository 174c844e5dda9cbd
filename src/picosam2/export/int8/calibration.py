"""Calibration: the crops that the network sees at prediction, and the ranges its activations take.

The crops are cut from the context crops of a store, with the windows that the weights' own
`Predictor` chooses: the box window, and for a click one rung of the ladder. Nothing is augmented.
Where there is no store, the bundled sample image takes its place, with altered colors and windows.
A range is what 256 levels are spread over; which part of the values it should hold is the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from picosam2 import geometry, guidance
from picosam2._progress import Progress
from picosam2.data.store import BOX, CLICK, Store, View
from picosam2.errors import ConfigError, StoreError
from picosam2.geometry import Window
from picosam2.images import normalize
from picosam2.io.sample_image import sample, sample_objects
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Predictor
from picosam2.prompts import Box, Point
from picosam2.runtimes.ort import import_onnxruntime, session_options
from picosam2.runtimes.protocol import Runtime

AUTO = "auto"
BINS = 2048
"""Bins of a histogram; `entropy` looks at multiples of an eighth of the 256 levels."""

PERCENTILE = 99.99
"""Share of the values that the method `percentile` keeps; half of the rest is cut at each end."""

_LEVELS = 256
_BATCH = 16
_STRIDE = 7  # of the values, one in so many is counted; prime to widths and channels
_ABSORBED = (["Relu"], ["Clip"])
_SHIFT = 0.05  # of the sample's boxes: spread of each side, as a share of the box's
_LEAST = 0.2  # of its context that a click's window must span, or there are too few true pixels


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """The crops to calibrate on, and how the ranges are chosen."""

    method: str = AUTO
    """`minmax`, `entropy`, `percentile`; or `auto`, the one that changes the masks least."""
    samples: int = 512
    """Training crops, half of them box windows and half click windows; as many held out."""
    seed: int = 0
    """Seed of their choice."""
    validation_images: int = 120
    """Validation images on which mIoU is measured; 0 takes all."""

    def __post_init__(self) -> None:
        if self.method not in (AUTO, *METHODS):
            raise ConfigError(
                f"there is no method {self.method!r}: use {AUTO}, {', '.join(METHODS)}"
            )
        if self.samples < 2 or self.seed < 0 or self.validation_images < 0:
            raise ConfigError(
                "`samples` must be at least 2, `seed` and `validation_images` at least 0"
            )


@dataclass(frozen=True, eq=False)
class Crops:
    """The network's inputs: crops, their channels, and their guidance."""

    pixels: npt.NDArray[np.uint8]
    """(N, S, S, 3) RGB."""
    channels: npt.NDArray[np.int64]
    """(N,) the logit channel that answers for each."""
    guidance: npt.NDArray[np.uint8] | None = None
    """(N, 3, S, S), 255 times the guidance of each; None for a network that takes none."""

    def planes(self, start: int, stop: int) -> npt.NDArray[np.float32] | None:
        """The guidance (n, 3, S, S) float32, 0..1, of some of the crops."""
        if self.guidance is None:
            return None
        planes = self.guidance[start:stop].astype(np.float32)
        planes /= 255
        return planes


# --- crops --------------------------------------------------------------------------------------


def choose_crops(
    store: Store, predictor: Predictor, count: int, seed: int, *, held_out: bool = False
) -> Crops:
    """About `count` crops of the store's training part (or of its validation part, `held_out`).

    Half are box windows and half click windows, of objects drawn without replacement; weights that
    only know the image's own pixels get those. Fewer where the store has fewer.

    Raises:
        StoreError: the store lacks a view that is needed, or has no such part.
    """
    kinds = _views(store, predictor)
    rng = np.random.default_rng((seed, int(held_out)))
    chosen: list[npt.NDArray[np.int64]] = []
    for number, views in enumerate(kinds):
        part = store.records["validation"] == held_out
        rows = np.flatnonzero(part & np.isin(store.records["view"], views))
        if not len(rows):
            raise StoreError(
                f"{store.path} keeps no images for validation to measure on: prepare it with "
                "--validation 0.1"
                if held_out
                else f"{store.path} has no object to calibrate on: prepare one with training images"
            )
        wanted = (count + number) // len(kinds)
        chosen.append(rng.choice(rows, min(wanted, len(rows)), replace=False))
    rows = np.sort(np.concatenate(chosen))
    size, channels = predictor.runtime.info.input_size, predictor.runtime.info.channels
    pixels = np.empty((len(rows), size, size, 3), np.uint8)
    covered = np.empty((len(rows), size, size), np.uint8)
    for start in range(0, len(rows), _BATCH):
        contexts = store.gather(rows[start : start + _BATCH])
        for slot, context in enumerate(contexts, start):
            record = store.records[rows[slot]]
            seen = Window(*map(float, record["window"]))
            view = store.views[int(record["view"])]
            window = _window(record, seen, view, predictor, rng)
            within = _within(window, seen, store.context)
            pixels[slot] = geometry.crop(np.ascontiguousarray(context[..., :3]), within, size)
            covered[slot] = (
                geometry.crop_plane(np.ascontiguousarray(context[..., 3]), within, size) * 255
            )
    channel = np.where(store.kinds[rows] == BOX, BOX_CHANNEL, CLICK_CHANNEL)
    channel = np.minimum(channel, channels - 1)
    if not predictor.runtime.info.guidance:
        return Crops(pixels, channel)
    return Crops(pixels, channel, _corrections(predictor.runtime, pixels, covered, channel, rng))


def sample_crops(predictor: Predictor, count: int, seed: int) -> Crops:
    """`count` crops of the bundled sample image, for weights whose store is not at hand.

    Half are box windows and half click windows, of random objects, with random rungs of the ladder;
    weights that only know the image's own pixels get click windows alone. Each prompt is shifted a
    little, and each crop has its own exposure, contrast and tint and is mirrored or not: one scene
    has few colors, and the ranges must hold for others.
    """
    rng = np.random.default_rng(seed)
    image, objects = sample(), sample_objects()
    height, width = image.shape[:2]
    info = predictor.runtime.info
    size = info.input_size
    pixels = np.empty((count, size, size, 3), np.uint8)
    by_box = np.arange(count) % 2 == 0 if not info.metadata.native else np.zeros(count, np.bool_)
    for row in range(count):
        chosen = objects[int(rng.integers(len(objects)))]
        box = chosen.box
        if by_box[row]:
            x0, x1 = np.array([box.x0, box.x1]) + rng.normal(0, _SHIFT, 2) * box.width
            y0, y1 = np.array([box.y0, box.y1]) + rng.normal(0, _SHIFT, 2) * box.height
            window = predictor.box_window(Box(float(x0), float(y0), float(x1), float(y1)))
        else:
            y, x = np.argwhere(chosen.mask)[rng.integers(np.count_nonzero(chosen.mask))].tolist()
            ladder = predictor.click_windows(Point(x + 0.5, y + 0.5), height, width)
            window = ladder[int(rng.integers(len(ladder)))]
        crop = recolored(geometry.crop(image, window, size), rng)
        pixels[row] = crop[:, ::-1] if rng.random() < 0.5 else crop
    channels = np.where(by_box, BOX_CHANNEL, CLICK_CHANNEL)
    return Crops(pixels, np.minimum(channels, info.channels - 1))


def recolored(crop: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """`crop` (S, S, 3) uint8 with another exposure, contrast and tint."""
    values = (crop / 255.0) ** rng.uniform(0.6, 1.7)
    values = 0.5 + (values - 0.5) * rng.uniform(0.6, 1.5)
    values = values * rng.uniform(0.7, 1.3) * rng.uniform(0.8, 1.2, 3)
    recolored: npt.NDArray[np.uint8] = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return recolored


def _corrections(
    runtime: Runtime,
    pixels: npt.NDArray[np.uint8],
    covered: npt.NDArray[np.uint8],
    channel: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Guidance (N, 3, S, S) uint8, 255 times the planes: every second box is being corrected.

    What a correction shows is the network's own answer, a click on what it missed and one on what
    it took too much, where there is any. The other crops have no guidance, as a first prompt has.
    """
    size = pixels.shape[1]
    drawn = np.zeros((len(pixels), guidance.PLANES, size, size), np.uint8)
    whole = Window(0, 0, size, size)
    for row in np.flatnonzero(channel == BOX_CHANNEL)[::2]:
        logits = runtime(pixels[row : row + 1])[0, BOX_CHANNEL]
        scale = size // len(logits)
        answer = guidance.probability(logits).repeat(scale, 0).repeat(scale, 1)
        truth, mask = covered[row] > 127, answer > 127
        points = []
        for wrong, positive in ((truth & ~mask, True), (mask & ~truth, False)):
            places = np.flatnonzero(wrong)
            if len(places):
                y, x = divmod(int(rng.choice(places)), size)
                points.append(Point(x + 0.5, y + 0.5, positive))
        drawn[row] = np.rint(255 * guidance.planes(whole, size, answer, points))
    return drawn


def _views(store: Store, predictor: Predictor) -> list[list[int]]:
    """The store's views that these weights are calibrated on, by kind of prompt."""
    wanted: dict[str, Callable[[View], bool]] = {
        "box": lambda view: view.kind == BOX and view.max_aspect == math.inf,
        "click-near": lambda view: view.kind == CLICK and not view.native,
    }
    if predictor.runtime.info.metadata.native:
        wanted = {"native": lambda view: view.native}
    chosen = {
        name: [index for index, view in enumerate(store.views) if fits(view)]
        for name, fits in wanted.items()
    }
    if missing := [name for name, views in chosen.items() if not views]:
        raise StoreError(
            f"{store.path} lacks the view {missing[0]} that these weights are calibrated on: "
            f"prepare a store with --views {','.join(chosen)}"
        )
    return list(chosen.values())


def _window(
    record: npt.NDArray[np.void],
    seen: Window,
    view: View,
    predictor: Predictor,
    rng: np.random.Generator,
) -> Window:
    """The window, in pixels of the image, that the predictor gives a prompt for this object."""
    if view.kind == BOX:
        tight = seen.scaled(1 / view.extent)
        return predictor.box_window(Box(tight.x0, tight.y0, tight.x1, tight.y1))
    point = Point(float(record["point"][0]), float(record["point"][1]))
    ladder = predictor.click_windows(point, int(record["height"]), int(record["width"]))
    share = np.array([window.width / seen.width for window in ladder])
    off = np.maximum(share - 1, 0) + np.maximum(_LEAST / share - 1, 0)  # 0: the context shows it
    return ladder[int(rng.choice(np.flatnonzero(off == off.min())))]


def _within(window: Window, seen: Window, context: int) -> Window:
    """A window of the image in the pixels of a context crop that shows `seen` of it."""
    x, y = context / seen.width, context / seen.height
    return Window(
        (window.x0 - seen.x0) * x,
        (window.y0 - seen.y0) * y,
        (window.x1 - seen.x0) * x,
        (window.y1 - seen.y0) * y,
    )


# --- ranges -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Histogram:
    """The values of one activation: (`BINS`,) counts between its smallest and largest value."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    def at(self, place: float) -> float:
        """The value at so many bins from the lowest."""
        return self.low + (self.high - self.low) * place / len(self.counts)


def observe(
    model: onnx.ModelProto,
    crops: Crops,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Histogram]:
    """Histograms of the activations of an FP32 network, by name, over crops.

    The crops go through it twice: for the ends, then for the counts. `progress(done, total)` is in
    crops.
    """
    names = activations(model)
    session = _session(model, names, threads)
    low = dict.fromkeys(names, math.inf)
    high = dict.fromkeys(names, -math.inf)
    done, total = 0, 2 * len(crops.pixels)
    for count, values in _run(session, names, crops):
        for name, value in zip(names, values, strict=True):
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
        done += count
        if progress:
            progress(done, total, what="calibrating")
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for count, values in _run(session, names, crops):
        for name, value in zip(names, values, strict=True):
            ends = (low[name], max(high[name], low[name] + 1e-6))
            counts[name] += np.histogram(value.ravel()[::_STRIDE], BINS, ends)[0]
        done += count
        if progress:
            progress(done, total, what="calibrating")
    return {
        name: Histogram(low[name], max(high[name], low[name] + 1e-6), counts[name])
        for name in names
    }


def activations(model: onnx.ModelProto) -> list[str]:
    """The float tensors of a graph that are rounded: its input and what its nodes give.

    What only a ReLU or ReLU6 reads is not, since both become one operator, whose range is that of
    what comes out; neither is an enlarged copy, whose range must be that of its source.
    """
    graph = model.graph
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    names = [graph.input[0].name]
    for node in graph.node:
        if node.op_type in ("Constant", "Resize"):
            continue
        names += [name for name in node.output if readers.get(name) not in _ABSORBED]
    return names


def _session(model: onnx.ModelProto, names: Sequence[str], threads: int | None) -> Any:
    """A session that gives every activation."""
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    known = {output.name for output in model.graph.output} | {model.graph.input[0].name}
    for name in names:
        if name not in known:
            open_model.graph.output.append(onnx.ValueInfoProto(name=name))
    return import_onnxruntime().InferenceSession(
        open_model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )


def _run(
    session: Any,
    names: Sequence[str],
    crops: Crops,
) -> Iterator[tuple[int, list[npt.NDArray[np.float32]]]]:
    """For each batch: how many crops, and the activations in the order of `names`."""
    image = session.get_inputs()[0].name
    for start in range(0, len(crops.pixels), _BATCH):
        batch = normalize(crops.pixels[start : start + _BATCH])
        feed = {image: batch}
        planes = crops.planes(start, start + _BATCH)
        if planes is not None:
            feed["guidance"] = planes
        activations = session.run([name for name in names if name != image], feed)
        values = dict(zip((name for name in names if name != image), activations, strict=True))
        yield len(batch), [batch if name == image else values[name] for name in names]


def _minmax(histogram: Histogram) -> tuple[float, float]:
    """The smallest and the largest value."""
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> tuple[float, float]:
    """All but the rarest values at either end. A ReLU's zeros are many: that end stays."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = (100 - PERCENTILE) / 200
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail)) + 1
    return histogram.at(first), histogram.at(last)


def _entropy(histogram: Histogram) -> tuple[float, float]:
    """The limit on |x| whose rounded distribution tells least apart from the true one.

    The Kullback-Leibler divergence between the values, cut at the limit, and the same in 256
    levels (Migacz, "8-bit inference with TensorRT", 2017). As there, the bin of zero counts as much
    as its neighbors: a ReLU's zeros are exact at any limit, and would outweigh everything.
    """
    counts = histogram.counts.copy()
    bins = len(counts)
    reach, width = max(-histogram.low, histogram.high), histogram.high - histogram.low
    zero = min(max(int(-histogram.low / width * bins), 0), bins - 1)
    counts[zero] = np.delete(counts[max(zero - 1, 0) : zero + 2], min(zero, 1)).mean()
    best, interval = math.inf, (histogram.low, histogram.high)
    for limit in np.linspace(1 / 16, 1, 121) * reach:
        first = min(max(round((-limit - histogram.low) / width * bins), 0), bins)
        last = min(max(round((limit - histogram.low) / width * bins), 0), bins)
        if last - first < _LEVELS:
            continue
        divergence = _divergence(counts, first, last)
        if divergence < best:
            best, interval = divergence, (histogram.at(first), histogram.at(last))
    return interval


def _divergence(counts: npt.NDArray[np.int64], first: int, last: int) -> float:
    inside = counts[first:last].astype(float)
    true = inside.copy()
    true[0] += counts[:first].sum()
    true[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * _LEVELS // len(inside)
    taken = inside > 0
    # A level's values are spread over those of its bins that hold any.
    share = np.bincount(level, inside, _LEVELS) / np.maximum(np.bincount(level, taken, _LEVELS), 1)
    rounded = np.where(taken, share[level], 0)
    some = true > 0
    true, rounded = true[some] / true.sum(), np.maximum(rounded[some] / max(inside.sum(), 1), 1e-9)
    return float((true * np.log(true / rounded)).sum())


METHODS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": _minmax,
    "entropy": _entropy,
    "percentile": _percentile,
}
"""How a range is taken from a histogram, by name."""


def ranges(histograms: Mapping[str, Histogram], method: str) -> dict[str, tuple[float, float]]:
    """The range (low, high) of each activation by one of `METHODS`. Zero is always inside."""
    limits = {name: METHODS[method](histogram) for name, histogram in histograms.items()}
    return {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in limits.items()}
