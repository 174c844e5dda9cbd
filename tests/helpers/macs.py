"""What a network costs, counted independently of `picosam2.models.costs`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolution_macs(model: nn.Module, size: int) -> int:
    """Multiply-accumulates of every convolution, counted as they happen."""
    total = 0

    def count(module: nn.Conv2d, _given: Any, output: Tensor) -> None:
        nonlocal total
        kernel = module.kernel_size[0] * module.kernel_size[1]
        each = kernel * module.in_channels // module.groups
        total += each * output[0].numel()

    hooks = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total
