"""The one place that chooses where torch computes, and in which numbers."""

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


def computes_bf16(device: str) -> bool:
    """Whether a device, such as `cpu` or `cuda`, is quick in bf16.

    A processor without AVX-512 is not: torch has no kernels for it, and takes many times as long as
    in fp32.
    """
    return device != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def autocast(device: str, precision: str) -> torch.autocast:
    """A context in which torch computes on `device` in bf16, or in fp32.

    Args:
        device: cpu or cuda.
        precision: fp32, or bf16, which a processor that is slow in it takes for fp32.
    """
    enabled = precision == "bf16" and computes_bf16(device)
    return torch.autocast(device, torch.bfloat16, enabled=enabled)
