"""The one place that chooses where torch computes."""

from __future__ import annotations

import os

import torch

from picosam2.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def torch_device(name: str) -> str:
    """The device that `auto`, `cpu` or `cuda` means to this process.

    Of several GPUs it is the one of the process's number, which `torchrun` sets.

    Raises:
        ConfigError: `cuda`, and there is no GPU that torch can use; or another name.
    """
    if name not in DEVICES:
        raise ConfigError(f"the device must be one of {', '.join(DEVICES)}, not {name}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("there is no GPU that torch can use: say --device cpu")
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return name
