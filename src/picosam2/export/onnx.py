"""Weights to an ONNX file: write, describe, check and compare, in one function.

The graph takes normalized crops `image` (B, 3, S, S) float32, and `guidance` (B, 3, S, S) float32
if the network takes it, and gives `logits` (B, K, S', S'), for any batch. What a runtime must know
beside the graph - mean and standard deviation, the window rules, the scorers, where the weights
come from - is JSON in the file's metadata, so that nothing has to be typed twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from picosam2 import geometry
from picosam2._files import atomic_write, sha256_file
from picosam2.errors import PicoSAM2Error
from picosam2.images import MEAN, PAD_RGB, STD, without_warnings
from picosam2.models.finder import Finder
from picosam2.models.folding import fold_batchnorm
from picosam2.models.network import PicoSAM2
from picosam2.models.views import FINDER, REACH, STRIDES
from picosam2.runtimes.metadata import METADATA_KEY, SCHEMA_VERSION
from picosam2.runtimes.onnx_file import seal_onnx
from picosam2.runtimes.ort import import_onnxruntime, session_options

OPSET = 17
"""Old enough for the runtimes in use on devices, new enough for everything the network has."""

TOLERANCE = 1e-3
"""Largest difference of a logit between the ONNX file and PyTorch."""


class ExportError(PicoSAM2Error):
    """An exported file that does not do what the weights do."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written, checked and compared."""

    path: Path
    bytes: int
    largest_difference: float
    """Of any logit, against PyTorch on random crops."""


def described(model: PicoSAM2 | Finder, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The file's metadata: `facts` plus preprocessing, geometry and the network."""
    common = {
        **facts,
        "schema_version": SCHEMA_VERSION,
        "model": asdict(model.config),
        "input_size": model.config.input_size,
        "preprocessing": {"order": "RGB", "mean": MEAN, "std": STD, "pad": PAD_RGB},
    }
    if isinstance(model, Finder):
        return {**common, "kind": FINDER, "geometry": {"strides": STRIDES, "reach": REACH}}
    return {
        **common,
        "output_size": model.config.output_size,
        "channels": model.config.logits,
        "geometry": {
            "box_growth": geometry.BOX_GROWTH,
            "box_max_aspect": None,
            "click_halves": geometry.CLICK_HALVES,
            "outside_logit": geometry.OUTSIDE_LOGIT,
            **facts.get("geometry", {}),
        },
    }


def export_onnx(
    model: PicoSAM2, path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Exported:
    """Write `model` as ONNX to `path`, atomically, and prove that it gives the same logits.

    Batch norms are folded into the convolutions before them.

    Raises:
        ExportError: the file's logits differ from PyTorch's by more than `TOLERANCE`.
    """
    side = model.config.input_size
    generator = torch.Generator().manual_seed(0)
    examples = {"image": torch.randn(2, 3, side, side, generator=generator)}
    if model.config.guidance:
        examples["guidance"] = torch.rand(2, 3, side, side, generator=generator)
    return write_graph(fold_batchnorm(model), Path(path), examples, described(model, facts or {}))


def export_finder(
    model: Finder, path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Exported:
    """Write a finder as ONNX to `path`, like `export_onnx`.

    The graph takes normalized views `image` (B, 3, S, S) float32 and gives `cells` (B, 5, N)
    float32; see `views`.

    Raises:
        ExportError: the file's cells differ from PyTorch's by more than `TOLERANCE`.
    """
    side = model.config.input_size
    generator = torch.Generator().manual_seed(0)
    examples = {"image": torch.randn(2, 3, side, side, generator=generator)}
    document = described(model, facts or {})
    return write_graph(fold_batchnorm(model), Path(path), examples, document)


def write_graph(
    folded: nn.Module, path: Path, examples: Mapping[str, Tensor], document: Mapping[str, Any]
) -> Exported:
    """Write a network as ONNX to `path`, atomically, and prove that it answers alike.

    Args:
        folded: the network, which gives its outputs by name.
        path: the file.
        examples: its inputs by name, as it takes them in order.
        document: what the file says of itself.

    Raises:
        ExportError: the file's outputs differ from PyTorch's by more than `TOLERANCE`.
    """
    with torch.no_grad():
        expected = folded(*examples.values())
    names = list(expected)
    with atomic_write(path) as temporary:
        with without_warnings():  # the exporter's own deprecations
            torch.onnx.export(
                folded,
                tuple(examples.values()),
                str(temporary),
                input_names=list(examples),
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in (*examples, *names)},
                opset_version=OPSET,
                dynamo=False,
            )
        graph = onnx.load(temporary)
        onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(document, sort_keys=True)})
        graph.producer_name, graph.producer_version = "picosam2", ""
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, temporary)
        temporary.write_bytes(seal_onnx(temporary.read_bytes()))
        onnxruntime = import_onnxruntime()
        session = onnxruntime.InferenceSession(
            temporary, session_options(), providers=["CPUExecutionProvider"]
        )
        got = session.run(names, {name: value.numpy() for name, value in examples.items()})
        differences = [
            float(np.abs(a - expected[name].numpy()).max())
            for name, a in zip(names, got, strict=True)
        ]
        if not max(differences) <= TOLERANCE:
            raise ExportError(
                f"the exported file's outputs differ from PyTorch's by {max(differences):g}: "
                "keep the old file and report this"
            )
    return Exported(path=path, bytes=path.stat().st_size, largest_difference=max(differences))


def weights_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of an exported file: the facts of the safetensors file it was made from."""
    from picosam2.models.checkpoint import read_tensors

    return {**read_tensors(path).info, "source_sha256": sha256_file(path)}
