"""Weights to a LiteRT file (.tflite): write, describe, check and compare, in one function."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from picosam2.errors import require
from picosam2.export.device import PixelNetwork, export_device_file
from picosam2.export.onnx import Exported
from picosam2.models.finder import Finder
from picosam2.models.network import PicoSAM2
from picosam2.runtimes._silence import silenced
from picosam2.runtimes.finder import LiteRtFinder
from picosam2.runtimes.litert import LiteRtRuntime

FILE = {
    "runtime": "litert",
    "input": "(1, S, S, 3) float32: a crop's RGB pixels, 0..255",
    "output": "(1, S', S', K) float32: logits; a mask is logits > 0",
}

FINDER_FILE = {
    "runtime": "litert",
    "input": "(1, S, S, 3) float32: a view's RGB pixels, 0..255",
    "output": "(1, 5, N) float32: cells; objectness as a logit, then four log-distances",
}


def export_litert(
    model: PicoSAM2 | Finder, path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Exported:
    """Write `model` for LiteRT to `path`, atomically, and prove that it gives the same answers.

    The graph takes one crop in its own layout, height, width, channel, as LiteRT's kernels do; a
    finder's takes one view.

    Raises:
        MissingExtraError: the converter is not installed.
        ExportError: the file's answers differ from PyTorch's.
    """
    finds = isinstance(model, Finder)
    return export_device_file(
        model,
        path,
        facts or {},
        file=FINDER_FILE if finds else FILE,
        convert=convert,
        open_it=LiteRtFinder if finds else LiteRtRuntime,
    )


def convert(network: PixelNetwork) -> bytes:
    """The network as a file of LiteRT in float32, without metadata."""
    with silenced():
        converter = require("litert_torch", "export-litert")
        side = network.network.config.input_size
        # Cells are no image: they have no channels to bring to the end.
        outputs = [] if isinstance(network.network, Finder) else [0]
        inward = converter.to_channel_last_io(network, args=[0], outputs=outputs).eval()
        made: bytes = converter.convert(inward, (torch.zeros(1, side, side, 3),)).model_content()
    return made
