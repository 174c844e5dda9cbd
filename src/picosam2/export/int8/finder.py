"""A finder in 8 bits: calibrated on views of training images, compared on held-out ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from picosam2 import geometry
from picosam2._files import atomic_write
from picosam2._progress import Progress
from picosam2.data.image_store import ImageStore
from picosam2.errors import StoreError, WeightsError
from picosam2.export.int8.calibration import (
    AUTO,
    METHODS,
    CalibrationConfig,
    Crops,
    observe,
    ranges,
    recolored,
)
from picosam2.export.int8.onnx_int8 import QuantizeError, described, is_int8, quantize_graph
from picosam2.geometry import Window
from picosam2.io.sample_image import sample
from picosam2.models.views import part_windows, whole_window
from picosam2.runtimes.finder import BoxFinder, OnnxFinder
from picosam2.runtimes.onnx_file import seal_onnx

_COUNTED = 0.1  # objectness from which on a cell is compared
_SHIFT = 0.05  # of the sample's views: spread of their place, as a share of their side

TOLERANCE = 0.1
"""Error of objectness, root mean square, at which a file is still written."""


@dataclass(frozen=True, kw_only=True)
class QuantizedFinder:
    """An INT8 finder that was written, checked and compared."""

    path: Path
    bytes: int
    fp32_bytes: int
    views: int
    """Views it was calibrated on."""
    method: str
    """How its ranges were chosen."""
    tried: dict[str, float]
    """Error of objectness of every method that was tried, root mean square over the cells that
    count."""


def quantize_finder(
    weights: str | os.PathLike[str],
    store: ImageStore,
    out: str | os.PathLike[str],
    config: CalibrationConfig | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> QuantizedFinder:
    """Write a finder's FP32 weights as INT8 ONNX to `out`, atomically, and compare them.

    Args:
        weights: the finder's ONNX file in FP32.
        store: an image store; its training images set the ranges, its held-out ones choose the
            method.
        out: the file to write.
        config: how many views, and the method; `samples` counts views.
        threads: threads of the networks.
        progress: receives the progress of calibrating and comparing.

    Raises:
        WeightsError: no finder, or one in 8 bits already.
        StoreError: the store lacks training or held-out images.
        QuantizeError: the answers are too far from the FP32 ones to be of use.
    """
    config = config or CalibrationConfig()
    weights, out = Path(weights), Path(out)
    before = OnnxFinder(weights, threads=threads)
    model = onnx.load(weights)
    if is_int8(model):
        raise WeightsError(f"{weights} is in 8 bits already: give the FP32 weights it comes from")
    size = before.input_size
    with atomic_write(out) as temporary:
        crops = Crops(some_views(store, size, config.samples, config.seed), np.zeros(0, np.int64))
        held_out = some_views(store, size, config.samples // 2, config.seed, held_out=True)
        histograms = observe(model, crops, threads=threads, progress=progress)
        expected = objectness_of(before, held_out)
        graphs: dict[str, onnx.ModelProto] = {}
        tried: dict[str, float] = {}
        wanted = tuple(METHODS) if config.method == AUTO else (config.method,)
        for number, method in enumerate(wanted, 1):
            graphs[method] = quantize_graph(model, ranges(histograms, method), crops)
            onnx.save(described(graphs[method], before.info.facts, {}), temporary)
            tried[method] = objectness_error(
                expected, objectness_of(OnnxFinder(temporary, threads=threads), held_out)
            )
            if progress:
                progress(number, len(wanted), what="comparing")
        method = min(tried, key=lambda name: tried[name])
        if not tried[method] <= TOLERANCE:
            raise QuantizeError(
                f"the INT8 finder's objectness is {tried[method]:.2f} away from the FP32 one: "
                "calibrate on more samples, or by another method"
            )
        quantization = {
            "format": "QDQ",
            "weights": "int8, symmetric, per channel",
            "activations": "uint8, asymmetric, per tensor",
            "method": method,
            "views": len(crops.pixels),
            "seed": config.seed,
            "store": store.fingerprint,
            "fp32_sha256": before.info.weights_sha256,
            "objectness_error": {name: round(error, 5) for name, error in tried.items()},
        }
        graph = described(graphs[method], before.info.facts, quantization)
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, temporary)
        temporary.write_bytes(seal_onnx(temporary.read_bytes()))
        OnnxFinder(temporary, threads=threads)  # what is left behind can be opened
    return QuantizedFinder(
        path=out, bytes=out.stat().st_size, fp32_bytes=weights.stat().st_size,
        views=len(crops.pixels), method=method, tried=tried,
    )  # fmt: skip


def some_views(
    store: ImageStore, size: int, count: int, seed: int, *, held_out: bool = False
) -> npt.NDArray[np.uint8]:
    """Views (N, S, S, 3) of different images of a store: half whole images, half parts.

    Raises:
        StoreError: the store has no such images.
    """
    rows = np.flatnonzero(store.images["validation"] == held_out)
    if not len(rows):
        raise StoreError(
            f"{store.path} has no {'held-out' if held_out else 'training'} images: prepare it with "
            "--validation 0.1"
        )
    rng = np.random.default_rng((seed, int(held_out)))
    views = []
    for number, row in enumerate(np.sort(rng.choice(rows, min(count, len(rows)), replace=False))):
        height, width = (int(store.images[row][name]) for name in ("height", "width"))
        parts = part_windows(height, width) if number % 2 else []
        window = parts[int(rng.integers(len(parts)))] if parts else whole_window(height, width)
        views.append(geometry.crop(store.image(int(row)), window, size))
    return np.stack(views)


def sample_views(size: int, count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Views (N, S, S, 3) of the bundled sample image, for where there is no image store.

    Half show all of it and half a part; each has a place, exposure, contrast and tint of its own.
    """
    rng = np.random.default_rng(seed)
    image = sample()
    height, width = image.shape[:2]
    whole, parts = whole_window(height, width), part_windows(height, width)
    views = []
    for number in range(count):
        window = parts[int(rng.integers(len(parts)))] if number % 2 else whole
        x, y = rng.normal(0, _SHIFT, 2) * window.width
        window = Window(window.x0 + x, window.y0 + y, window.x1 + x, window.y1 + y)
        view = recolored(geometry.crop(image, window.scaled(rng.uniform(0.7, 1.1)), size), rng)
        views.append(view[:, ::-1] if rng.random() < 0.5 else view)
    return np.stack(views)


def objectness_of(finder: BoxFinder, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Objectness (B, N) of every cell of views (B, S, S, 3)."""
    cells = np.concatenate(
        [finder(views[start : start + 8])[:, 0] for start in range(0, len(views), 8)]
    )
    objectness: npt.NDArray[np.float32] = 1 / (1 + np.exp(-np.clip(cells, -30, 30)))
    return objectness


def objectness_error(expected: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    """Root mean square difference, where either counts."""
    counts = np.maximum(expected, got) >= _COUNTED
    return float(np.sqrt(np.mean((expected - got)[counts] ** 2))) if counts.any() else 0.0
