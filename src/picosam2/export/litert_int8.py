"""Weights to a LiteRT file of integers alone (.tflite), for microcontrollers and NPUs.

Weights are int8 with one scale per channel, activations int8 with one scale per tensor, biases
int32; the input is a crop's pixels less 128, the output logits in int8. LiteRT's quantizer takes
the ranges of the activations from calibration crops.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2._files import atomic_write
from picosam2.data.image_store import ImageStore
from picosam2.data.store import Store
from picosam2.errors import ConfigError, WeightsError, require
from picosam2.export.device import PixelNetwork
from picosam2.export.int8.calibration import choose_crops, sample_crops
from picosam2.export.int8.finder import TOLERANCE as FINDER_TOLERANCE
from picosam2.export.int8.finder import (
    objectness_error,
    objectness_of,
    sample_views,
    some_views,
)
from picosam2.export.int8.onnx_int8 import TOLERANCE, QuantizeError, answers, compare
from picosam2.export.litert import convert
from picosam2.export.onnx import described
from picosam2.images import PAD_RGB
from picosam2.models.finder import Finder
from picosam2.models.network import PicoSAM2, without_guidance
from picosam2.predictor import Predictor
from picosam2.runtimes._silence import silenced
from picosam2.runtimes.device_file import device_file
from picosam2.runtimes.finder import LiteRtFinder
from picosam2.runtimes.litert import LiteRtRuntime
from picosam2.runtimes.torch import TorchRuntime

FILE = {
    "runtime": "litert",
    "input": "(1, S, S, 3) int8: a crop's RGB pixels, 0..255, less 128",
    "output": "(1, S', S', K) int8: logits; a mask is logits > the output's zero point",
}

EXTRA = "export-litert"


@dataclass(frozen=True, kw_only=True)
class LiteRtInt8Config:
    """What the ranges are taken from."""

    samples: int = 256
    """Crops, half of them box windows and half click windows; as many others are compared on."""
    seed: int = 0
    """Chooses the crops."""

    def __post_init__(self) -> None:
        if self.samples < 2 or self.seed < 0:
            raise ConfigError("`samples` must be at least 2, `seed` at least 0")


@dataclass(frozen=True, kw_only=True)
class ExportedInt8:
    """A file that was written and compared."""

    path: Path
    bytes: int
    crops: int
    """Crops that the ranges are from."""
    relative_error: float
    """Root mean square difference from PyTorch's logits, as a share of their deviation."""
    disagreement: float
    """1 - IoU of the two masks, mean over crops that were not calibrated on."""


def export_litert_int8(
    model: PicoSAM2,
    path: str | os.PathLike[str],
    facts: Mapping[str, Any] | None = None,
    config: LiteRtInt8Config | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
) -> ExportedInt8:
    """Write `model` for LiteRT in integers to `path`, atomically, and compare it with PyTorch.

    Args:
        model: the weights. A branch for guidance is left out.
        path: the file to write.
        facts: what is known of the weights.
        config: what to calibrate on.
        store: a store that `picosam2 data prepare` made; its training part sets the ranges. Without
            one, augmented crops of the bundled sample image do.

    Raises:
        MissingExtraError: the converter is not installed.
        StoreError: not a store, or nothing in it to calibrate on.
        QuantizeError: the logits are too far from PyTorch's to be of use.
        WeightsError: the converter left something in floating point.
    """
    config = config or LiteRtInt8Config()
    path = Path(path)
    model = without_guidance(model).eval()
    metadata = described(model, facts or {})
    metadata["preprocessing"] = {"order": "RGB", "range": [0, 255], "pad": PAD_RGB}
    runtime = TorchRuntime(model, facts=dict(facts or {}))
    predictor = Predictor(runtime)
    if store is None:
        crops = sample_crops(predictor, config.samples, config.seed)
        held_out = sample_crops(predictor, config.samples, config.seed + 1)
        metadata["quantization"] = {"crops": "the bundled sample image, augmented"}
    else:
        opened = Store(store)
        crops = choose_crops(opened, predictor, config.samples, config.seed)
        held_out = choose_crops(opened, predictor, config.samples, config.seed, held_out=True)
        metadata["quantization"] = {"crops": "a store", "store": opened.fingerprint}
    metadata["quantization"] |= {"samples": len(crops.pixels), "seed": config.seed}
    with atomic_write(path) as temporary:
        made = quantized(convert(PixelNetwork(model)), crops.pixels)
        data = device_file(made, metadata, FILE)
        temporary.write_bytes(data)
        compared = compare(answers(runtime, held_out), answers(LiteRtRuntime(temporary), held_out))
        if not compared.relative_error <= TOLERANCE:
            raise QuantizeError(
                f"the INT8 logits are {compared.relative_error:.0%} of their spread away from "
                "PyTorch's: calibrate on more samples, or on a store"
            )
    return ExportedInt8(
        path=path,
        bytes=len(data),
        crops=len(crops.pixels),
        relative_error=compared.relative_error,
        disagreement=compared.disagreement,
    )


FINDER_FILE = {
    "runtime": "litert",
    "input": "(1, S, S, 3) int8: a view's RGB pixels, 0..255, less 128",
    "output": "(1, 5, N) int8: cells; objectness as a logit, then four log-distances",
}


@dataclass(frozen=True, kw_only=True)
class ExportedFinderInt8:
    """A finder's file that was written and compared."""

    path: Path
    bytes: int
    views: int
    """Views that the ranges are from."""
    objectness_error: float
    """Difference of objectness from PyTorch's, root mean square over the cells that count, on views
    that were not calibrated on."""


def export_finder_litert_int8(
    model: Finder,
    path: str | os.PathLike[str],
    facts: Mapping[str, Any] | None = None,
    config: LiteRtInt8Config | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
) -> ExportedFinderInt8:
    """Write a finder for LiteRT in integers to `path`, like `export_litert_int8`.

    Args:
        model: the weights.
        path: the file to write.
        facts: what is known of the weights.
        config: what to calibrate on; `samples` counts views.
        store: an image store, whose training images set the ranges. Without one, altered views of
            the bundled sample image do.

    Raises:
        MissingExtraError: the converter is not installed.
        StoreError: no image store, or it lacks training or held-out images.
        QuantizeError: the objectness is too far from PyTorch's to be of use.
        WeightsError: the converter left something in floating point.
    """
    config = config or LiteRtInt8Config()
    path, side = Path(path), model.config.input_size
    metadata = described(model, facts or {})
    metadata["preprocessing"] = {"order": "RGB", "range": [0, 255], "pad": PAD_RGB}
    if store is None:
        views = sample_views(side, config.samples, config.seed)
        held_out = sample_views(side, config.samples, config.seed + 1)
        metadata["quantization"] = {"views": "the bundled sample image, altered"}
    else:
        opened = ImageStore(store)
        views = some_views(opened, side, config.samples, config.seed)
        held_out = some_views(opened, side, config.samples, config.seed, held_out=True)
        metadata["quantization"] = {"views": "an image store", "store": opened.fingerprint}
    metadata["quantization"] |= {"samples": len(views), "seed": config.seed}
    plain = convert(PixelNetwork(model))
    with atomic_write(path) as temporary:
        temporary.write_bytes(device_file(plain, described(model, facts or {}), FINDER_FILE))
        expected = objectness_of(LiteRtFinder(temporary), held_out)
        data = device_file(quantized(plain, views), metadata, FINDER_FILE)
        temporary.write_bytes(data)
        error = objectness_error(expected, objectness_of(LiteRtFinder(temporary), held_out))
        if not error <= FINDER_TOLERANCE:
            raise QuantizeError(
                f"the INT8 finder's objectness is {error:.2f} away from the FP32 one: calibrate on "
                "more samples, or on an image store"
            )
    return ExportedFinderInt8(path=path, bytes=len(data), views=len(views), objectness_error=error)


def quantized(model: bytes, crops: npt.NDArray[np.uint8]) -> bytes:
    """A file of LiteRT in float32 as one of integers, with the ranges of `crops` (N, S, S, 3)."""
    with silenced():
        quantizer = require("ai_edge_quantizer.quantizer", EXTRA)
        recipe = require("ai_edge_quantizer.recipe", EXTRA)
        litert = require("ai_edge_litert.interpreter", "litert")
        interpreter = litert.Interpreter(model_content=model)
        ((signature, ends),) = interpreter.get_signature_list().items()
        (argument,) = ends["inputs"]
        (pixels,) = interpreter.get_input_details()

        made = quantizer.Quantizer(model, recipe.static_wi8_ai8())
        shown = [{argument: crop[None].astype(np.float32)} for crop in crops]
        with _bars_on_terminals_only():
            ranges = made.calibrate({signature: shown}, num_threads=1)
            # Pixels are what they are: a scale of 1, whatever the crops held.
            for end, value in (("min", 0.0), ("max", 255.0)):
                ranges[pixels["name"]][end] = np.full_like(ranges[pixels["name"]][end], value)
            quantized_model = made.quantize(ranges, enable_progress_report=False).quantized_model
        result = bytes(quantized_model)
        interpreter = litert.Interpreter(
            model_content=result,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        types = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    if not types <= {np.int8, np.int32}:
        names = ", ".join(sorted(kind.__name__ for kind in types))
        raise WeightsError(f"the converter left other numbers than int8 and int32: {names}")
    return result


def _bars_on_terminals_only() -> AbstractContextManager[Any]:
    """Holds back the quantizer's progress bars, which would fill a log with hundreds of parts."""
    return nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
