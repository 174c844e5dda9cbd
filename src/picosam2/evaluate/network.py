"""What a network costs: parameters, multiply-accumulates, activations, bytes and milliseconds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from picosam2.distill.config import from_table
from picosam2.errors import require
from picosam2.files import sha256_file
from picosam2.model import ModelConfig, PicoSAM2
from picosam2.predictor import Predictor
from picosam2.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Block:
    """One stage of the network as it ran: its name, and channels and side of what it gave."""

    name: str
    channels: int
    side: int
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one crop costs. `macs` are those of convolutions and linear layers."""

    parameters: int
    macs: int
    peak_activations: int
    """Most numbers alive at once, layer by layer: a layer's input and output and the skips."""
    blocks: tuple[Block, ...]


def cost(config: ModelConfig) -> Cost:
    """Count a network by running it once, on shapes alone.

    Convolutions and linear layers give their multiply-accumulates; the rest costs next to nothing.
    """
    with torch.device("meta"):
        model = PicoSAM2(config).eval()
    macs: dict[nn.Module, int] = {}
    outputs: dict[nn.Module, Tensor] = {}
    held: dict[nn.Module, Tensor] = {}  # skips that wait for the decoder, and what waits for them
    peak = 0
    stages = _stages(model)
    encoders, decoders = list(model.encoder), list(model.decoder)
    skips = list(model.skip)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal peak
        macs[module] = output[0].numel() * _weights_per_output(module)
        alive = {id(tensor): tensor.numel() for tensor in (*held.values(), inputs[0], output)}
        peak = max(peak, sum(alive.values()))

    def remember(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[module] = output
        if module in encoders or module in decoders:
            held[module] = output
        if module in skips:
            index = skips.index(module)
            held.pop(decoders[index])
            held.pop(encoders[-1 - index])

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    for module in stages.values():
        module.register_forward_hook(remember)
    with torch.no_grad():
        model(torch.zeros(1, 3, config.input_size, config.input_size, device="meta"))
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        macs=sum(macs.values()),
        peak_activations=peak,
        blocks=tuple(
            Block(
                name=name,
                channels=outputs[stage].shape[1],
                side=outputs[stage].shape[-1],
                parameters=sum(p.numel() for p in stage.parameters()),
                macs=sum(macs.get(part, 0) for part in stage.modules()),
            )
            for name, stage in stages.items()
        ),
    )


def _weights_per_output(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel()


def _stages(model: PicoSAM2) -> dict[str, nn.Module]:
    """The parts that a drawing shows, in the order in which a crop meets them."""
    found: dict[str, nn.Module] = {}
    if list(model.stem.parameters()):
        found["stem"] = model.stem
    for index, (encoder, down) in enumerate(zip(model.encoder, model.down, strict=True), start=1):
        found[f"encoder {index}"] = encoder
        found[f"down {index}"] = down
    found["bottleneck"] = model.bottleneck
    if list(model.attention.parameters()):
        found["attention"] = model.attention
    for index, (decoder, skip) in enumerate(zip(model.decoder, model.skip, strict=True), start=1):
        found[f"decoder {index}"] = decoder
        found[f"skip {index}"] = skip
    found["head"] = model.head
    return found


def config_of(facts: Mapping[str, Any]) -> ModelConfig | None:
    """The network's configuration, from what a weights file says of itself."""
    table = facts.get("model")
    return from_table(ModelConfig, table, where="model") if isinstance(table, dict) else None


def weights_facts(name: str, path: Path, predictor: Predictor) -> dict[str, Any]:
    """What a report says of weights: `name` as it was given, size, precision, cost, speed.

    `path` is their file. The speed is of the bare network on one crop, in this process.
    """
    info = predictor.runtime.info
    config = config_of(info.facts)
    found: dict[str, Any] = {
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
        counted = cost(config)
        found |= {
            "parameters": counted.parameters,
            "macs": counted.macs,
            "peak_activations": counted.peak_activations,
            "model": asdict(config),
        }
    return found


def precision(path: Path) -> str:
    """`int8` for an ONNX file with quantised nodes, else `fp32` (`fp16` for half safetensors)."""
    if path.suffix == ".onnx":
        graph = require("onnx", "train").load(path).graph
        kinds = {node.op_type for node in graph.node}
        return "int8" if any("Quantize" in k or "Integer" in k for k in kinds) else "fp32"
    from picosam2.checkpoint import read_tensors

    kinds = {tensor.dtype for tensor in read_tensors(path).tensors.values()}
    return "fp16" if torch.float16 in kinds else "fp32"


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
