"""The shared part of the exports for devices: write, seal, open and compare the file.

Unlike the ONNX file, these take the crop's pixels as they are (0..255) and normalize them in the
graph, so that an app has no numbers to copy, and give the logits alone, of one crop. A finder's
file takes a view, and gives its cells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from picosam2._files import atomic_write
from picosam2.export.onnx import TOLERANCE, Exported, ExportError, described
from picosam2.images import MEAN, PAD_RGB, STD, normalize
from picosam2.models.finder import Finder
from picosam2.models.folding import fold_batchnorm
from picosam2.models.network import PicoSAM2, without_guidance
from picosam2.runtimes.device_file import device_file


class PixelNetwork(nn.Module):
    """A crop's pixels (1, 3, S, S) float 0..255 to logits (1, K, S', S'), batch norms folded.

    Of a finder, a view's pixels to its cells (1, 5, N).
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, model: PicoSAM2 | Finder) -> None:
        super().__init__()
        self.network = fold_batchnorm(model)
        self._output = model.output_names[0]
        std = torch.tensor(STD, dtype=torch.float64)[:, None, None]
        mean = torch.tensor(MEAN, dtype=torch.float64)[:, None, None]
        self.register_buffer("scale_C11", (1 / (255 * std)).float())
        self.register_buffer("shift_C11", (mean / std).float())
        self.eval()

    def forward(self, pixels_13SS: Tensor) -> Tensor:
        """Logits, not probabilities; or cells."""
        answer: Tensor = self.network(pixels_13SS * self.scale_C11 - self.shift_C11)[self._output]
        return answer


def export_device_file(
    model: PicoSAM2 | Finder,
    path: str | os.PathLike[str],
    facts: Mapping[str, Any],
    *,
    file: Mapping[str, Any],
    convert: Callable[[PixelNetwork], bytes],
    open_it: Callable[[Path], Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]],
) -> Exported:
    """Write `model` in a device's format to `path`, atomically, and prove that the file is it.

    The file takes images alone: a branch for guidance is left out.

    Args:
        model: the weights.
        path: the file to write.
        facts: metadata of the weights.
        file: metadata of this format: `runtime`, `input`, `output`.
        convert: gives the bytes of the format.
        open_it: opens the written file with the runtime that users open it with.

    Raises:
        ExportError: the file's answers differ from PyTorch's by more than `TOLERANCE`.
    """
    path = Path(path)
    if isinstance(model, PicoSAM2):
        model = without_guidance(model)
    metadata = described(model, facts)
    metadata["preprocessing"] = {"order": "RGB", "range": [0, 255], "pad": PAD_RGB}
    side = model.config.input_size
    crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    was_training = model.training
    with torch.inference_mode():
        answers = model.eval()(torch.from_numpy(normalize(crops)))
        expected = answers[model.output_names[0]].numpy()
    model.train(was_training)
    data = device_file(convert(PixelNetwork(model)), metadata, file)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
        difference = float(np.abs(open_it(temporary)(crops) - expected).max())
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported file's answers differ from PyTorch's by {difference:g}: keep the "
                "old file and report this"
            )
    return Exported(path=path, bytes=len(data), largest_difference=difference)
