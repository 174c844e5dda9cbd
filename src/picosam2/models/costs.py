"""What a network costs, stage by stage: parameters, multiplications, memory for activations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from picosam2.models.network import MatMul, PicoSAM2


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The costs of one stage for one crop."""

    name: str
    shape: tuple[int, ...]
    """What the stage gives: channels, rows, columns; or a length."""
    parameters: int
    macs: int
    """Multiply-accumulates of its convolutions, linear layers and matrix products."""
    activations: int
    """Numbers that these and its pools write. Batch norms and ReLUs are folded into the layer
    before them wherever the network is deployed, so they add none."""

    def bytes(self, size: int) -> int:
        """Memory for the activations at `size` bytes a number: 4 for fp32, 1 for int8."""
        return self.activations * size


def stage_costs(model: PicoSAM2) -> list[StageCost]:
    """The costs of every stage of `model` at its own input size, in the order they run.

    The network runs once, on shapes alone: `model` is only read.
    """
    with torch.device("meta"):
        model = PicoSAM2(model.config).eval()
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    macs: dict[nn.Module, int] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs[module] = output[0].numel() * module.weight[0].numel()
        elif isinstance(module, MatMul):
            macs[module] = output[0].numel() * given[0].shape[-1]
        elif isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            macs[module] = 0

    stages = dict(_stages(model))
    for stage in stages.values():
        for module in {stage, *stage.modules()}:
            module.register_forward_hook(note)
    side = model.config.input_size
    with torch.inference_mode():
        model(torch.zeros(1, 3, side, side, device="meta"))
    return [
        StageCost(
            name=name,
            shape=shapes[stage],
            parameters=sum(p.numel() for p in stage.parameters()),
            macs=sum(macs.get(part, 0) for part in stage.modules()),
            activations=sum(math.prod(shapes[part]) for part in stage.modules() if part in macs),
        )
        for name, stage in stages.items()
        if not isinstance(stage, nn.Identity)
    ]


def _stages(model: PicoSAM2) -> Iterator[tuple[str, nn.Module]]:
    yield "stem", model.stem
    for number, (encode, down) in enumerate(zip(model.encoder, model.down, strict=True), 1):
        yield f"encoder {number}", encode
        yield f"down {number}", down
    yield "bottleneck", model.bottleneck
    yield "attention", model.attention
    for number, (decode, skip) in enumerate(zip(model.decoder, model.skip, strict=True), 1):
        yield f"decoder {number}", decode
        yield f"skip {number}", skip
    yield "head", model.head
    for name, head in model.heads.items():
        yield f"{name} head", head
