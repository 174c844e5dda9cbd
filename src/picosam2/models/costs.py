"""What a network costs, stage by stage: parameters, multiplications, memory for activations."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from picosam2.models.finder import Finder
from picosam2.models.network import PicoSAM2

_FOLDED = (
    nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Identity
)  # fmt: skip
"""Layers that are part of the one before them wherever the network is deployed."""


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
    """Numbers that these and its pools write. Batch norms and activation functions are folded into
    the layer before them wherever the network is deployed, so they add none."""

    def bytes(self, size: int) -> int:
        """Memory for the activations at `size` bytes a number: 4 for fp32, 1 for int8."""
        return self.activations * size


def stage_costs(model: PicoSAM2 | Finder) -> list[StageCost]:
    """The costs of every stage of `model` at its own input size, in the order they run.

    The network runs once, on shapes alone: `model` is only read.
    """
    model = deepcopy(model).to("meta").eval()
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])

    stages = {name: stage for name, stage in model.stages() if not isinstance(stage, nn.Identity)}
    for stage in stages.values():
        for module in stage.modules():
            module.register_forward_hook(note)
    side = model.config.input_size
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 3, side, side, device="meta"))
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    paths = {module: f"{type(model).__name__}.{path}" for path, module in model.named_modules()}
    return [
        StageCost(
            name=name,
            shape=shapes[stage],
            parameters=sum(p.numel() for p in stage.parameters()),
            macs=flops.get(paths[stage], 0) // 2,
            activations=sum(
                math.prod(shapes[layer])
                for layer in stage.modules()
                if not [*layer.children()] and not isinstance(layer, _FOLDED)
            ),
        )
        for name, stage in stages.items()
    ]
