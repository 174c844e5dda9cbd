"""The facts of weights in a result file: size, precision, costs, speed and machine.

Parameters and MACs are counted on the torch network; without torch they are left out.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from picosam2._files import sha256_file
from picosam2.errors import ConfigError
from picosam2.predictor import Predictor
from picosam2.runtimes.onnx_file import operators
from picosam2.runtimes.protocol import Runtime
from picosam2.runtimes.weights import DEVICE_FILES

if TYPE_CHECKING:
    from picosam2.models.network import ModelConfig


def config_of(facts: Mapping[str, Any]) -> ModelConfig | None:
    """The network's configuration, from the metadata of a weights file; None if not ours.

    The file may hold any graph with our inputs and outputs: no error. Without torch: None.
    """
    table = facts.get("model")
    if importlib.util.find_spec("torch") is None:
        return None
    from picosam2.models.network import read_config

    try:
        return read_config(table) if isinstance(table, dict) else None
    except ConfigError:
        return None


def describe_weights(name: str, path: Path, predictor: Predictor) -> dict[str, Any]:
    """The facts of weights in a result file: `name` as the user wrote it, size, precision, costs.

    `path` is their file. The speed is of the bare network on one crop, in this process.
    """
    info = predictor.runtime.info
    config = config_of(info.facts)
    facts: dict[str, Any] = {
        "name": name,
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "runtime": info.name,
        "precision": precision(path),
        "ms_per_crop": time_crop(predictor.runtime),
        "machine": machine(),
    }
    if config is not None:
        from picosam2.models.costs import stage_costs

        stages = stage_costs(config.build())
        facts |= {
            "parameters": sum(stage.parameters for stage in stages),
            "macs": sum(stage.macs for stage in stages),
            "model": asdict(config),
        }
    return facts


def precision(path: Path) -> str:
    """`int8` for an ONNX file with quantized nodes, else `fp32` (`fp16` for half safetensors)."""
    if path.suffix == ".onnx":
        kinds = operators(path.read_bytes())
        return "int8" if any("Quantize" in k or "Integer" in k for k in kinds) else "fp32"
    if path.suffix in DEVICE_FILES:
        return "fp32"  # the only kind that is exported
    import torch

    from picosam2.models.checkpoint import read_tensors

    types = {tensor.dtype for tensor in read_tensors(path).tensors.values()}
    return "fp16" if torch.float16 in types else "fp32"


def time_crop(runtime: Runtime, *, repeats: int = 30) -> float:
    """Median milliseconds of the network on one crop, after three to warm up."""
    side = runtime.info.input_size
    crop = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    times = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        runtime(crop)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[3:]))


def machine() -> dict[str, Any]:
    """The processor that times were taken on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {"processor": name, "cores": os.cpu_count() or 1, "system": platform.system()}
