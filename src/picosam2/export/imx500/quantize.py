"""From trained weights to quantized ONNX files, by the worker in the tools' environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import picosam2
from picosam2._progress import Progress
from picosam2.errors import ConfigError, PicoSAM2Error
from picosam2.export.imx500 import worker
from picosam2.export.imx500.environment import Environment
from picosam2.export.imx500.processes import last_lines, run
from picosam2.export.onnx import described
from picosam2.models.network import PicoSAM2
from picosam2.runtimes.metadata import METADATA_KEY
from picosam2.runtimes.onnx_file import seal_onnx

OPSET = 20
"""The first with GELU as one operator, and the newest that tracing writes."""


class SensorQuantizeError(PicoSAM2Error):
    """The network could not be quantized."""


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """How the network is quantized: eight bits, thresholds from calibration crops, no training."""

    samples: int = 256
    """Training crops that the thresholds are taken from."""
    seed: int = 0
    """Chooses them."""
    gptq: int = 0
    """Epochs over them that tune the roundings of the weights (GPTQ); 0 for none."""
    weights_share: float = 1.0
    """Bytes of the weights as a share of eight bits each; below 1, layers get 2, 4 or 8 bits."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError("`samples` must be at least 1")
        if self.gptq < 0:
            raise ConfigError("`gptq` is a number of epochs: 0 or more")
        if not 0.25 < self.weights_share <= 1:
            raise ConfigError("`weights_share` must be above 0.25 (two bits each) and at most 1")


@dataclass(frozen=True, kw_only=True)
class SensorNetwork:
    """Two files of the same quantized network."""

    converted: Path
    """With the toolkit's own quantizer operators: what the converter reads."""
    simulated: Path
    """With standard operators: what onnxruntime runs, described as `export_onnx` describes it."""
    facts: dict[str, Any]
    """The worker's result: facts of the quantization."""


def quantize(
    model: PicoSAM2,
    facts: Mapping[str, Any],
    crops: npt.NDArray[np.uint8],
    folder: Path,
    config: QuantizeConfig,
    environment: Environment,
    *,
    log: Path,
    progress: Progress | None = None,
) -> SensorNetwork:
    """Quantize `model` with the thresholds of `crops` (N, S, S, 3) RGB uint8; files in `folder`.

    `facts` are the metadata of the weights file.

    Raises:
        SensorQuantizeError: the toolkit gave up, or its two files do not give the same.
    """
    weights, calibration = folder / "weights.npz", folder / "calibration.npy"
    converted, simulated = folder / "quantized.onnx", folder / "simulated.onnx"
    np.savez(weights, **{name: value.numpy() for name, value in model.state_dict().items()})
    np.save(calibration, crops)
    request = {
        "package": str(Path(picosam2.__file__).parent.absolute()),
        "weights": str(weights),
        "calibration": str(calibration),
        "converted": str(converted),
        "simulated": str(simulated),
        "model": asdict(model.config),
        "gptq": config.gptq,
        "weights_share": config.weights_share,
        "seed": config.seed,
        "opset": OPSET,
    }
    answers: dict[str, Any] = {}

    def on_line(line: str) -> None:
        answer = json.loads(line)
        if "progress" in answer and progress:
            progress(answer["done"], answer["total"], what=answer["progress"])
        answers.update(answer)

    command = [str(environment.python), "-I", worker.__file__]
    code = run(command, log=log, on_line=on_line, stdin=json.dumps(request), errors_apart=True)
    if code != 0 or "result" not in answers:
        reason = answers.get("error") or f"{last_lines(log)}, exit code {code}"
        raise SensorQuantizeError(f"the network could not be quantized: {reason} (log: {log})")
    for file in (weights, calibration):
        file.unlink()
    result: dict[str, Any] = answers["result"]
    _refuse_difference(result["outputs"])
    _describe(simulated, model, facts, config, result)
    return SensorNetwork(converted=converted, simulated=simulated, facts=result)


def _refuse_difference(outputs: Mapping[str, Any]) -> None:
    """Raise if the file to measure and the file to convert differ by more than rounding."""
    for name, output in outputs.items():
        difference, error = output["simulated"], output["rms_error"]
        # Float sums in another order round some activations the other way, and that spreads: the
        # more, the steeper the network. It is far less than what all the rounding does.
        if difference["rms"] > error / 2:
            raise SensorQuantizeError(
                f"the file to measure and the file to convert differ in `{name}`: in "
                f"{difference['share']:.1%} of its numbers, by {difference['rms']:.3f} (root mean "
                f"square) where both are {error:.3f} away from FP32; report this"
            )


def _describe(
    path: Path,
    model: PicoSAM2,
    facts: Mapping[str, Any],
    config: QuantizeConfig,
    result: Mapping[str, Any],
) -> None:
    """Write into the file the metadata that a runtime needs."""
    graph = onnx.load(path)
    metadata = described(model, facts)
    metadata["preprocessing"] = {**metadata["preprocessing"], "inside": True}
    metadata["exact"] = True
    metadata["quantization"] = {
        "for": "IMX500",
        "by": result["versions"],
        "bits": result["bits"],
        **asdict(config),
    }
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    graph.producer_name, graph.producer_version = "picosam2", ""
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    path.write_bytes(seal_onnx(path.read_bytes()))
