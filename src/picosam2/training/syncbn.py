"""Batch norm whose statistics are those of the global batch, on any backend.

On GPUs it is `torch.nn.SyncBatchNorm`, which refuses CPU tensors; there this does the same with two
all-reduces, so that a run on several processes takes the very steps that a single one would take.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the batches of all processes, which have equally many samples."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        x_BCHW = input.float()
        mean_C = _average(x_BCHW.mean((0, 2, 3)))
        x_BCHW = x_BCHW - mean_C[:, None, None]
        variance_C = _average((x_BCHW**2).mean((0, 2, 3)))
        count = x_BCHW.numel() // x_BCHW.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(variance_C * count / max(count - 1, 1), self.momentum)
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        normed: Tensor = x_BCHW * scale_C[:, None, None] + self.bias[:, None, None]
        return normed.to(input.dtype)


class _Average(torch.autograd.Function):
    """The mean of a tensor over all processes; so is the gradient's way back."""

    @staticmethod
    def forward(_context: Any, local: Tensor) -> Tensor:
        return _mean(local)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(local: Tensor) -> Tensor:
    total = local.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _average(local: Tensor) -> Tensor:
    mean: Tensor = _Average.apply(local)  # type: ignore[no-untyped-call]
    return mean


def synchronize_batchnorm(model: nn.Module) -> None:
    """Let every `nn.BatchNorm2d` of `model` take the statistics of all processes, in place."""
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
