"""The finder: a network that sees a whole image once and says which boxes hold an object.

EfficientNet-Lite0 with ImageNet weights, a feature pyramid, and a dense head without anchors (FCOS,
Tian et al. 2019). Each cell gives the distances to the four edges of a box, and instead of a class
the IoU that the box is expected to have with an object (OLN, Kim et al. 2022, whose point is that
an object that nobody labeled must not be learned as background).

Shape suffixes: B batch, C channels, H and W rows and columns, N cells of all levels, S the input's
side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2.errors import ConfigError
from picosam2.models.encoders import LITE0, lite_stages, load_imagenet
from picosam2.models.views import OUTPUTS, STRIDES

_ENCODER = replace(LITE0, groups=(*LITE0.groups[:-1], (6, 5, 2, 192, 2)))
_RARE = -4.0  # objectness at the start: few cells are of an object


@dataclass(frozen=True, kw_only=True)
class FinderConfig:
    """What makes one finder differ from another."""

    width: int = 96
    """Channels of the pyramid and of the head."""
    input_size: int = 384
    """Side of the letterboxed image in pixels; a multiple of 64."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError("`width` must be at least 1")
        if self.input_size < 64 or self.input_size % STRIDES[-1]:
            raise ConfigError(
                f"`input_size` must be a multiple of {STRIDES[-1]}, not {self.input_size}"
            )

    def build(self) -> Finder:
        """The network, its weights drawn from torch's random numbers."""
        return Finder(self)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise convolution 5x5, then pointwise 1x1, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 5, stride, 2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(True),
    )


class Finder(nn.Module):
    """The network: 1.58 M parameters."""

    def __init__(self, config: FinderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FinderConfig()
        width = config.width
        stages, last = lite_stages(_ENCODER)
        self.encoder = nn.ModuleList([*stages, last])
        channels = (*_ENCODER.widths[2:], _ENCODER.channels)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
            for inputs in channels
        )
        self.smooth = nn.ModuleList(_block(width, width) for _ in channels)
        self.coarsest = _block(width, width, stride=2)
        self.towers = nn.ModuleList(
            nn.Sequential(*_block(width, width), *_block(width, width)) for _ in STRIDES
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, OUTPUTS, 1) for _ in STRIDES)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            nn.init.normal_(head.weight, std=0.01)
            with torch.no_grad():
                head.bias.copy_(torch.tensor([_RARE, 0.0, 0.0, 0.0, 0.0]))

    def load_imagenet(self) -> None:
        """Fill the encoder with the weights that it learned on ImageNet."""
        load_imagenet(_ENCODER, list(self.encoder))

    def forward(self, image_B3SS: Tensor) -> dict[str, Tensor]:
        """Normalized images (B, 3, S, S) float32 to {"cells": (B, 5, N) float32}.

        The cells are those of the first level row by row, then those of the next; see `OUTPUTS`.
        """
        x_BCHW = image_B3SS
        features = []
        for number, stage in enumerate(self.encoder):
            x_BCHW = stage(x_BCHW)
            if number >= 2:
                features.append(x_BCHW)
        above_BCHW: Tensor | None = None
        levels: list[Tensor] = []
        for lateral, smooth, feature_BCHW in zip(
            reversed(self.lateral), reversed(self.smooth), reversed(features), strict=True
        ):
            sum_BCHW = lateral(feature_BCHW)
            if above_BCHW is not None:
                sum_BCHW = sum_BCHW + F.interpolate(above_BCHW, scale_factor=2.0, mode="nearest")
            above_BCHW = smooth(sum_BCHW)
            levels.insert(0, above_BCHW)
        levels.append(self.coarsest(levels[-1]))
        cells = [
            head(tower(level_BCHW)).flatten(2)
            for tower, head, level_BCHW in zip(self.towers, self.heads, levels, strict=True)
        ]
        return {"cells": torch.cat(cells, 2)}

    @property
    def output_names(self) -> list[str]:
        """The names of what `forward` gives, in order."""
        return ["cells"]

    def stages(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts of the network by name, in the order they run."""
        for number, stage in enumerate(self.encoder, 1):
            yield f"encoder {number}", stage
        for name in ("lateral", "smooth"):
            for number, part in reversed([*enumerate(getattr(self, name), 1)]):
                yield f"{name} {number}", part
        yield "coarsest", self.coarsest
        for name in ("towers", "heads"):
            for number, part in enumerate(getattr(self, name), 1):
                yield f"{name} {number}", part
