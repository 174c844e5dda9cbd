"""YOLOv7-seg, from the weights that a Python package ships.

The file is a pickled network. A class that it names becomes one of those below, and torch refuses
any other name, so none of the package's code runs. The layers are those of YOLOv7 ("Trainable
bag-of-freebies sets new state-of-the-art for real-time object detectors", Wang et al. 2022), and
its head gives the coefficients of a mask beside each box, which are not used here.

Shape suffixes: N cells and anchors of all levels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

_Floats = npt.NDArray[np.float32]

_STRIDE = 32  # pixels between the cells of the coarsest level


class YoloV7:
    """The network, and the geometry of its answers.

    An image is seen once, in its own shape, and no larger than it is.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._network = read_yolov7(path)
        self._size = size

    def cells(self, image: Image.Image) -> tuple[_Floats, _Floats]:
        """The boxes (N, 4) of all cells in pixels of the image, and the classes' scores (N, 80)."""
        long = max(image.size)
        scale = min(self._size, -(-long // _STRIDE) * _STRIDE) / long
        size = tuple(max(round(side * scale / _STRIDE), 1) * _STRIDE for side in image.size)
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels_HW3 = torch.from_numpy(np.asarray(small, np.float32) / 255)
        with torch.inference_mode():
            boxes, scores = self._network(pixels_HW3.permute(2, 0, 1)[None])
        back = np.tile(np.float32(np.divide(image.size, size)), 2)
        boxes_N4 = (boxes[0].numpy() * back).clip(0, np.float32([*image.size, *image.size]))
        return boxes_N4, scores[0].numpy()

    whole = cells


class _Conv(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class _Concat(nn.Module):
    def forward(self, xs: list[Tensor]) -> Tensor:
        return torch.cat(xs, self.d)


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.m(x)


class _Pyramid(nn.Module):
    """Pooling at several scales, beside a short way round it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        return self.cv7(torch.cat([y, self.cv2(x)], 1))


class _Added(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.implicit + x


class _Unused(nn.Module):
    """A part that is in the file and not in the boxes."""


class _Head(nn.Module):
    """Boxes (N, K, 4) as corners in pixels, and scores (N, K, classes) from 0 to 1."""

    def forward(self, xs: list[Tensor]) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for level, x in enumerate(xs):
            n, _, rows, columns = x.shape
            stride, sizes = self.stride[level], self.anchors[level] * self.stride[level]
            y = self.m[level](self.ia[level](x)).view(n, self.na, self.no, rows, columns)
            y = y[:, :, : 5 + self.nc].sigmoid().permute(0, 1, 3, 4, 2)
            grid = torch.stack(
                torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), -1
            )
            middle = (y[..., :2] * 2 - 0.5 + grid) * stride
            half = (y[..., 2:4] * 2) ** 2 * sizes[:, None, None] / 2
            boxes.append(torch.cat([middle - half, middle + half], -1).flatten(1, 3))
            scores.append((y[..., 4:5] * y[..., 5:]).flatten(1, 3))
        return torch.cat(boxes, 1), torch.cat(scores, 1)


class _Network(nn.Module):
    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        kept: list[Any] = []
        for layer in self.model:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            inputs = [x if source == -1 else kept[source] for source in sources]
            x = layer(inputs[0] if isinstance(layer.f, int) else inputs)
            kept.append(x if layer.i in self.save else None)
        return x


def _attribute(of: object, name: str) -> None:
    """What the file asks for by name: the head's method in its own package, which is not run."""


_NAMES: list[Any] = [
    (_Network, "models.yolo.SegmentationModel"),
    (_Head, "models.yolo.ISegment"),
    (_Unused, "models.yolo.IDetect"),
    (_Conv, "models.common.Conv"),
    (_Concat, "models.common.Concat"),
    (_Pool, "models.common.MP"),
    (_Pyramid, "models.common.SPPCSPC"),
    (_Added, "models.common.ImplicitA"),
    (_Unused, "models.common.ImplicitM"),
    (_Unused, "models.common.Proto"),
    (_attribute, "builtins.getattr"),
    nn.SiLU,
    nn.BatchNorm2d,
    nn.ModuleList,
    nn.Sequential,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.Upsample,
]
"""What the file may name, with the class that it becomes. torch refuses every other name."""


def read_yolov7(path: Path) -> nn.Module:
    """The network of a file such as yolov7-seg.pt, ready to answer (N, 3, H, W) in 0 to 1, RGB."""
    with torch.serialization.safe_globals(_NAMES):
        file = torch.load(path, map_location="cpu", weights_only=True)
    network = (file.get("ema") or file["model"]).float().eval()
    for layer in network.modules():
        if isinstance(layer, _Conv):
            layer.conv = nn.utils.fusion.fuse_conv_bn_eval(layer.conv, layer.bn)
            layer.bn = nn.Identity()
        elif isinstance(layer, nn.Upsample):
            layer.recompute_scale_factor = None
    return network.to(memory_format=torch.channels_last)
