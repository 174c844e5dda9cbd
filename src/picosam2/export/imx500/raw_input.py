"""The network in the form that the sensor runs: it takes plain RGB and normalizes inside.

`images.normalize` subtracts a mean and divides by a deviation. Here both are weights. They cannot
all go into the first convolution: it pads its input with zeros, and zero must still mean the mean
color there. So a 1x1 convolution centers and scales each color, exactly, and the first
convolution takes in what is left of the scale.

The centered colors are scaled so that each just fills -1..1, a power of two as the sensor's
quantizers want it: one step is then 1.03 (red) to 1.19 (blue) of the 255 of the image.
Normalized numbers reach from -2.1 to 2.6 and would be cut into steps of 1.8.

Shape suffixes as in `picosam2.models.network`.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from picosam2.images import MEAN, STD
from picosam2.models.network import PicoSAM2

_FILLED = 127 / 128
"""The largest number of eight signed bits, where 1 is the next power of two."""


class RawInput(nn.Module):
    """A copy of a network that takes crops of 0..255 and gives its outputs as a tuple."""

    def __init__(self, model: PicoSAM2) -> None:
        super().__init__()
        self.network = deepcopy(model).float().eval()
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        scale = _FILLED / torch.maximum(mean, 1 - mean)  # of a color on 0..1
        self.center = nn.Conv2d(3, 3, 1, groups=3)
        first = next(m for m in self.network.modules() if isinstance(m, nn.Conv2d))
        with torch.no_grad():
            self.center.weight.copy_((scale / 255).view(3, 1, 1, 1))
            assert self.center.bias is not None
            self.center.bias.copy_(-mean * scale)
            rest = 1 / (std * scale)
            # Depthwise, a color has its own filter; otherwise every filter sees each color.
            own = first.groups == 3
            first.weight.mul_(rest.view(3, 1, 1, 1) if own else rest.view(1, 3, 1, 1))

    def forward(self, raw_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Crops (B, 3, S, S) float of 0..255, RGB, to the outputs that `output_names` lists."""
        return tuple(self.network(self.center(raw_B3SS)).values())

    def output_names(self) -> list[str]:
        """The names of the outputs, in their order: logits first."""
        return self.network.output_names
