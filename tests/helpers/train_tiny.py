"""A training of the tiny recipe in a process of its own, which may kill itself half-way.

python train_tiny.py STORE OUT [--kill-at STEP] [--resume] [--samples N] [--batch-norm FILE]
    [--slow-validation SECONDS | --no-validation | --failing-validation]
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from tiny import tiny_recipe
from torch import nn

from picosam2.data.store import Store
from picosam2.errors import DataError
from picosam2.models.network import PicoSAM2
from picosam2.training.syncbn import synchronize_batchnorm
from picosam2.training.trainer import TrainingStep, processes, train


def check_batch_norm(report: Path) -> None:
    """Write how far `GlobalBatchNorm2d` on this process's share is from `nn.BatchNorm2d` on all."""
    torch.manual_seed(0)
    whole = torch.randn(6, 5, 4, 3) * 3 + 40
    weigh = torch.randn(6, 5, 4, 3)
    plain, shared = nn.BatchNorm2d(5), nn.Sequential(nn.BatchNorm2d(5))
    for norm in (plain, shared[0]):
        nn.init.uniform_(norm.weight)
        norm.bias.data.copy_(norm.weight.data.flip(0))
    shared[0].load_state_dict(plain.state_dict())
    with processes("cpu") as group:
        synchronize_batchnorm(shared)
        mine = slice(group.rank * 3, group.rank * 3 + 3)
        part = whole[mine].clone().requires_grad_()
        whole.requires_grad_()
        expected, actual = plain(whole), shared(part)
        (expected * weigh).sum().backward()
        (actual * weigh[mine]).sum().backward()
        gradient = shared[0].weight.grad.clone()
        dist.all_reduce(gradient)
        differences = [
            (expected[mine] - actual).abs().max(),
            (whole.grad[mine] - part.grad).abs().max(),
            (plain.weight.grad - gradient).abs().max(),
            (plain.running_mean - shared[0].running_mean).abs().max(),
            (plain.running_var - shared[0].running_var).abs().max(),
        ]
        worst = torch.stack(differences).detach()
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        if group.first:
            report.write_text(" ".join(str(float(value)) for value in worst))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--batch-norm", type=Path)
    parser.add_argument("--slow-validation", type=float, help="with a timeout of half as long")
    parser.add_argument("--no-validation", action="store_true", help="where one is due")
    parser.add_argument("--failing-validation", action="store_true")
    options = parser.parse_args()
    if options.batch_norm:
        check_batch_norm(options.batch_norm)

    validates = options.slow_validation or options.failing_validation

    def validate(_model: PicoSAM2) -> dict[str, float]:
        if options.failing_validation:
            raise DataError("nothing to measure")
        time.sleep(options.slow_validation)
        return {"box_miou": 0.5}

    if options.slow_validation:
        timeout = timedelta(seconds=options.slow_validation / 2)
        dist.init_process_group = partial(dist.init_process_group, timeout=timeout)

    def on_step(progress: TrainingStep) -> None:
        if progress.step == options.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        tiny_recipe(
            samples=options.samples, validate_every=2 if validates or options.no_validation else 0
        ),
        Store(options.store),
        options.out,
        resume=options.resume,
        device="cpu",
        validate=validate if validates else None,
        on_step=on_step,
    )


if __name__ == "__main__":
    main()
