"""Weights to an ExecuTorch file (.pte): write, describe, check and compare, in one function."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from picosam2.errors import require
from picosam2.export.device import PixelNetwork, export_device_file
from picosam2.export.onnx import Exported
from picosam2.models.network import PicoSAM2
from picosam2.runtimes._silence import silenced
from picosam2.runtimes.executorch import ExecuTorchRuntime

FILE = {
    "runtime": "executorch",
    "input": "(1, 3, S, S) float32, channels last: a crop's RGB pixels in their own order, 0..255",
    "output": "(1, S', S', K) float32: logits; a mask is logits > 0",
}


def export_executorch(
    model: PicoSAM2, path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Exported:
    """Write `model` for ExecuTorch to `path`, atomically, and prove that it gives the same logits.

    Operators that XNNPACK has kernels for run there; the others, the enlargements of the decoder,
    run in ExecuTorch's portable kernels.

    Raises:
        MissingExtraError: ExecuTorch is not installed.
        ExportError: the file's logits differ from PyTorch's.
    """
    return export_device_file(
        model, path, facts or {}, file=FILE, convert=_convert, open_it=ExecuTorchRuntime
    )


class _Outward(nn.Module):
    """Gives the logits as (1, S', S', K).

    As (1, K, S', S'), channels last, ExecuTorch 1.5 refuses to run them where K is 1: it takes the
    layout, in which a single channel is no different, for channels first.
    """

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_13SS: Tensor) -> Tensor:
        logits_1KSS: Tensor = self.network(pixels_13SS)
        return logits_1KSS.permute(0, 2, 3, 1)


def _convert(network: PixelNetwork) -> bytes:
    with silenced():
        exir = require("executorch.exir", "executorch")
        xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
        side = network.network.config.input_size
        # With channels first, every part outside XNNPACK would turn its input around, and back.
        example = torch.zeros(1, 3, side, side).contiguous(memory_format=torch.channels_last)
        program = exir.to_edge_transform_and_lower(
            torch.export.export(_Outward(network).eval(), (example,)),
            partitioner=[xnnpack.XnnpackPartitioner()],
        ).to_executorch()
    made: bytes = program.buffer
    return made
