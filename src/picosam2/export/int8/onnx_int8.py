"""FP32 weights to an INT8 ONNX file: calibrate, write, check and compare, in one function.

The graph is ONNX's QDQ form, which onnxruntime and most other runtimes fuse into integer operators:
weights in int8 with one scale per channel, symmetric; activations in uint8 with one scale and zero
point per tensor (x86 processors have fast instructions for just this pair); biases in int32. Input
and output stay float32, so the file takes and gives what the FP32 one does, and holds the same
facts: windows, scorers, preprocessing.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from picosam2._files import atomic_write, scratch_folder
from picosam2._progress import Progress, part_of
from picosam2.data.coco import AnnotatedImage
from picosam2.data.store import Store
from picosam2.errors import PicoSAM2Error, WeightsError
from picosam2.evaluation.run import evaluate
from picosam2.export.int8.calibration import (
    AUTO,
    METHODS,
    CalibrationConfig,
    Crops,
    choose_crops,
    observe,
    ranges,
)
from picosam2.export.int8.layout import enlarged_by_copying, widened
from picosam2.images import normalize
from picosam2.predictor import Predictor
from picosam2.runtimes.metadata import METADATA_KEY
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.onnx_file import seal_onnx
from picosam2.runtimes.ort import import_onnxruntime
from picosam2.runtimes.protocol import Runtime

quantization = import_onnxruntime("quantization")

TOLERANCE = 0.25
"""Largest error of the logits, as a share of their spread, at which a file is still written."""

LOSS_LIMIT = 0.005
"""A loss of mIoU above this is worth a warning."""


class QuantizeError(PicoSAM2Error):
    """An INT8 file that does not do what the FP32 weights do."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The INT8 network beside the FP32 one on the same crops."""

    logit_error: float
    """Root mean square difference of the logits."""
    relative_error: float
    """The same as a share of the logits' own standard deviation."""
    disagreement: float
    """1 - IoU of the two masks, mean over crops."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """mIoU on the same objects of validation images by one protocol, before and after."""

    fp32: float
    int8: float
    objects: int

    @property
    def change(self) -> float:
        """What INT8 gains; negative if it loses."""
        return self.int8 - self.fp32


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An INT8 file that was written, checked and compared."""

    path: Path
    bytes: int
    fp32_bytes: int
    crops: int
    """Crops it was calibrated on."""
    method: str
    """The method that chose its ranges."""
    compared: Compared
    tried: Mapping[str, float]
    """The disagreement of every method that was tried."""
    miou: Mapping[str, Change] = field(default_factory=dict)
    """By protocol."""


class _Once(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]  # no types
    """One crop. The ranges come from `calibration`; this only lets `quantize_static` begin."""

    def __init__(self, inputs: dict[str, npt.NDArray[np.float32]]) -> None:
        self._waiting = [inputs]

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        return self._waiting.pop() if self._waiting else None


def quantize(
    weights: str | os.PathLike[str],
    store: Store,
    out: str | os.PathLike[str],
    config: CalibrationConfig | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write FP32 weights as INT8 ONNX to `out`, atomically, and measure what they lose.

    Ranges come from crops of the store's training part. The choice of `auto`, the errors and the
    mIoU come from its validation part. The file is the same for the same arguments.

    Args:
        weights: an ONNX file in FP32 that this project exported.
        store: the store that they were trained on.
        out: the file to write.
        config: what to calibrate on, and how.
        threads: threads of the networks.
        progress: receives the progress of calibrating, comparing and measuring.

    Raises:
        WeightsError: no weights of ours, or in 8 bits already.
        StoreError: the store lacks the views or the validation images that this takes.
        QuantizeError: the logits are too far from the FP32 ones to be of use.
    """
    config = config or CalibrationConfig()
    weights, out = Path(weights), Path(out)
    before = OnnxRuntime(weights, threads=threads)
    model = onnx.load(weights)
    if is_int8(model):
        raise WeightsError(f"{weights} is in 8 bits already: give the FP32 weights it comes from")
    facts = before.info.facts
    predictor = Predictor(before)
    with atomic_write(out) as temporary:  # where nothing can be written, nothing is calibrated
        crops = choose_crops(store, predictor, config.samples, config.seed)
        held_out = choose_crops(store, predictor, config.samples, config.seed, held_out=True)
        images = _validation_images(store, config.validation_images)
        histograms = observe(
            model,
            crops,
            threads=threads,
            progress=progress,
        )
        expected = answers(before, held_out)
        tried: dict[str, tuple[onnx.ModelProto, Compared]] = {}
        wanted = tuple(METHODS) if config.method == AUTO else (config.method,)
        for number, method in enumerate(wanted):
            graph = quantize_graph(model, ranges(histograms, method), crops)
            onnx.save(described(graph, facts, {}), temporary)
            logits = answers(OnnxRuntime(temporary, threads=threads), held_out)
            tried[method] = graph, compare(expected, logits)
            if progress:
                progress(number + 1, len(wanted), what="comparing")
        method = min(tried, key=lambda name: tried[name][1].disagreement)
        graph, compared = tried[method]
        if not compared.relative_error <= TOLERANCE:
            raise QuantizeError(
                f"the INT8 logits are {compared.relative_error:.0%} of their spread away from the "
                "FP32 ones: calibrate on more samples, or by another method"
            )
        onnx.save(described(graph, facts, {}), temporary)
        after = Predictor(OnnxRuntime(temporary, threads=threads))
        miou = _measure(predictor, after, images, progress)
        quantization = {
            "format": "QDQ",
            "weights": "int8, symmetric, per channel",
            "activations": "uint8, asymmetric, per tensor",
            "method": method,
            "crops": len(crops.pixels),
            "seed": config.seed,
            "store": store.fingerprint,
            "fp32_sha256": before.info.weights_sha256,
            "logit_error": round(compared.logit_error, 5),
            "disagreement": {
                name: round(comparison.disagreement, 5) for name, (_, comparison) in tried.items()
            },
            "miou": {
                name: {
                    "fp32": round(change.fp32, 5),
                    "int8": round(change.int8, 5),
                    "n": change.objects,
                }
                for name, change in miou.items()
            },
        }
        described(graph, facts, quantization)
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, temporary)
        temporary.write_bytes(seal_onnx(temporary.read_bytes()))
        OnnxRuntime(temporary, threads=threads)  # the final file can be opened
    return Quantized(
        path=out,
        bytes=out.stat().st_size,
        fp32_bytes=weights.stat().st_size,
        crops=len(crops.pixels),
        method=method,
        compared=compared,
        tried={name: comparison.disagreement for name, (_, comparison) in tried.items()},
        miou=miou,
    )


def is_int8(model: onnx.ModelProto) -> bool:
    """Whether a graph rounds to integers somewhere."""
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def quantize_graph(
    model: onnx.ModelProto,
    limits: Mapping[str, tuple[float, float]],
    crops: Crops,
) -> onnx.ModelProto:
    """The QDQ form of an FP32 graph, with these ranges of its activations (`ranges`).

    The first of `crops` is shown to onnxruntime's quantizer. The result holds no facts yet.
    """
    plain = widened(model)
    inputs = {model.graph.input[0].name: normalize(crops.pixels[:1])}
    planes = crops.planes(0, 1)
    if planes is not None:
        inputs["guidance"] = planes
    # This property tells onnxruntime that nothing is left to fold, as is true of our files.
    helper.set_model_props(plain, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with scratch_folder() as folder, _temporary_files_in(folder):
        source, target = folder / "fp32.onnx", folder / "int8.onnx"
        onnx.save(plain, source)
        quantization.quantize_static(
            str(source),
            str(target),
            _Once(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*_early(plain), *_last(plain)],
            extra_options={
                "TensorQuantOverrides": {
                    name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
                    for name, (low, high) in limits.items()
                }
            },
        )
        return _tidied(enlarged_by_copying(onnx.load(target)))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Within the block the process makes its temporary files there: onnxruntime's go along."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _early(model: onnx.ModelProto) -> list[str]:
    """The nodes that stay in FP32: the first stage of an encoder with ReLU6, which is EfficientNet.

    Its first depthwise convolution has weights up to 20, which enlarge what the image's own
    convolution rounds: that made a quarter of all error. Both have few channels, and take no longer
    in FP32 (docs/quantize.md). A branch for guidance belongs to this stage.
    """
    stage = [node for node in model.graph.node if node.name.startswith("/encoder.0")]
    if not any(node.op_type == "Clip" for node in stage):
        return []
    branch = [node for node in model.graph.node if node.name.startswith("/guidance/")]
    produced = {name for node in branch for name in node.output}
    sums = [node for node in model.graph.node if node.op_type == "Add" and produced & {*node.input}]
    return [node.name for node in (*stage, *branch, *sums)]


def _last(model: onnx.ModelProto) -> list[str]:
    """The nodes of a finder that stay in FP32: its heads, and what puts their answers together.

    One scale for objectness and log-distances alike would move each edge by two percent.
    """
    last = [node for node in model.graph.node if node.name.startswith("/heads.")]
    if not last:
        return []
    outputs = {name for node in last for name in node.output}
    for node in model.graph.node:
        if outputs & {*node.input}:
            last.append(node)
            outputs.update(node.output)
    return [node.name for node in last]


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without unneeded bytes: long names, zero points of biases, unread nodes."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    read = {name for node in graph.node for name in node.input} | outputs
    alive = [node for node in graph.node if not read.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(alive)
    integers = {
        constant.name: constant
        for constant in graph.initializer
        if constant.data_type == onnx.TensorProto.INT32
    }
    for node in graph.node:
        # int32 is symmetric, and so it is without a zero point.
        if node.op_type == "DequantizeLinear" and node.input[0] in integers:
            del node.input[2:]
    kept = {*(node.name for node in graph.input), *outputs, ""}
    used = {name for node in graph.node for name in node.input}
    names: dict[str, str] = {name: name for name in kept}

    def short(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}")

    for number, node in enumerate(graph.node):
        for ends in (node.input, node.output):
            ends[:] = [short(name) for name in ends]
        # A convolution keeps its layer's name, so that profiles can be read.
        node.name = _layer(node) if node.op_type == "Conv" else f"n{number}"
    constants = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:], graph.value_info[:]
    for constant in constants:
        constant.name = short(constant.name)
        if not constant.HasField("raw_data"):  # a list of numbers takes more
            constant.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(constant), constant.name)
            )
        graph.initializer.append(constant)
    model.producer_name, model.producer_version = "picosam2", ""
    return model


def _layer(node: onnx.NodeProto) -> str:
    """The layer's name in the network: `a.0.b.1` of `/a/a.0/b/b.1/Conv`."""
    parts = node.name.removesuffix(f"/{node.op_type}").strip("/").split("/")
    inner = [part for part, after in pairwise(parts) if not after.startswith(part)]
    return ".".join([*inner, parts[-1]])


def described(
    graph: onnx.ModelProto, facts: Mapping[str, Any], quantization: Mapping[str, Any]
) -> onnx.ModelProto:
    """`graph` itself, with the metadata of the FP32 file and of the quantization."""
    metadata = {**facts, "quantization": dict(quantization)}
    del graph.metadata_props[:]
    helper.set_model_props(graph, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    return graph


def answers(runtime: Runtime, crops: Crops) -> npt.NDArray[np.float32]:
    """The logits (N, S', S') of the channel that answers for each crop."""
    logits = runtime(crops.pixels, crops.planes(0, len(crops.pixels)))
    answering: npt.NDArray[np.float32] = logits[np.arange(len(logits)), crops.channels]
    return answering


def compare(expected: npt.NDArray[np.float32], actual: npt.NDArray[np.float32]) -> Compared:
    """Logits (N, S', S') of INT8 beside those of FP32."""
    error = float(np.sqrt(np.mean((expected - actual) ** 2, dtype=np.float64)))
    before, after = expected > 0, actual > 0
    both, either = (before & after).sum((1, 2)), (before | after).sum((1, 2))
    agreement = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return Compared(
        logit_error=error,
        relative_error=error / max(float(expected.std(dtype=np.float64)), 1e-12),
        disagreement=1 - float(agreement.mean()),
    )


def _validation_images(store: Store, count: int) -> tuple[AnnotatedImage, ...]:
    """Validation images of the store with their objects, of every source."""
    from picosam2.data.split import spread

    return spread(store.held_out(), count)


def _measure(
    before: Predictor,
    after: Predictor,
    images: tuple[AnnotatedImage, ...],
    progress: Progress | None,
) -> dict[str, Change]:
    """mIoU of both by the protocols that the weights are made for."""
    native = before.runtime.info.metadata.native
    protocols = ("click",) if native else ("box", "click")
    count = sum(len(image.instances) for image in images)
    changes = {}
    for protocol in protocols:
        miou, objects = [], 0
        for index, predictor in enumerate((before, after)):
            report = part_of(
                progress, name=f"measuring {protocol}", before=index * count, whole=2 * count
            )
            result = evaluate(predictor, images, protocol=protocol, progress=report)
            miou.append(float(result.column("iou").mean()))
            objects = len(result.measured)
        changes[protocol] = Change(fp32=miou[0], int8=miou[1], objects=objects)
    return changes
