"""The runtime that runs a PyTorch model: for training's own measurements, and to compare with."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from picosam2._files import sha256_file
from picosam2.images import normalize
from picosam2.models.checkpoint import load_weights, read_tensors
from picosam2.models.devices import autocast
from picosam2.models.network import PicoSAM2
from picosam2.runtimes.protocol import RuntimeInfo, check_inputs

_MAX_BATCH = 64


class TorchRuntime:
    """Runs a `PicoSAM2` in evaluation mode."""

    def __init__(
        self,
        model: PicoSAM2,
        *,
        weights_sha256: str = "",
        facts: dict[str, Any] | None = None,
        precision: str = "fp32",
    ) -> None:
        """Run `model` where it is. `precision`: fp32, or bf16 by autocast."""
        self._model = model
        self._precision = precision
        config = model.config
        metadata = {"model": asdict(config), **(facts or {})}
        if (
            metadata["model"].get("guidance") and not config.guidance
        ):  # it was left out of the model
            metadata["model"] = {**metadata["model"], "guidance": False}
        self._info = RuntimeInfo(
            name="torch",
            input_size=config.input_size,
            channels=config.logits,
            weights_sha256=weights_sha256,
            facts=metadata,
            output_size=config.output_size,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> TorchRuntime:
        """The weights in a safetensors file. `WeightsError` if they cannot be used."""
        if threads is not None:
            torch.set_num_threads(threads)
        model = load_weights(path)
        model.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            model,
            weights_sha256=sha256_file(path),
            facts=read_tensors(path).info,
            precision=precision,
        )

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""
        return self._info

    @torch.inference_mode()
    def __call__(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Like `Runtime.__call__`."""
        check_inputs(self._info, crops, guidance)
        device = next(self._model.parameters()).device
        was_training = self._model.training
        self._model.eval()
        parts = []
        for start in range(0, len(crops), _MAX_BATCH):
            some = slice(start, start + _MAX_BATCH)
            inputs = [torch.from_numpy(normalize(crops[some]))]
            if guidance is not None:
                inputs.append(torch.from_numpy(np.ascontiguousarray(guidance[some])))
            batch = [
                values.to(device).contiguous(memory_format=torch.channels_last) for values in inputs
            ]
            with autocast(device.type, self._precision):
                logits = self._model(*batch)["logits"]
            parts.append(logits.float().cpu())
        self._model.train(was_training)
        return torch.cat(parts).numpy()
