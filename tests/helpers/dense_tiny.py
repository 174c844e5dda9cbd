"""Images of colored patches, a teacher that goes by color, and a dense teaching that may be killed.

python dense_tiny.py ANNOTATIONS IMAGES FOLDER OUT [--kill-at CALL]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from picosam2.data.store import SourceFiles
from picosam2.distillation.dense import teach_dense
from picosam2.distillation.dense_masks import DenseConfig
from picosam2.distillation.dense_report import write_dense_report
from picosam2.distillation.protocol import Target, TeacherAnswer, fingerprint
from picosam2.geometry import Window

HEIGHT, WIDTH = 96, 128
"""As wide as the view of `PatchFinder`, which then sees the pixels as they are."""

COLORS = ((250, 40, 40), (40, 250, 40), (60, 60, 250), (240, 240, 60))
GROUND = (20, 20, 20)
SMALL_PARTS = DenseConfig(images_per_part=3)


def patches(
    boxes: Sequence[tuple[int, int, int, int]], height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray:
    """An image (H, W, 3) uint8 with a patch of its own color in each box x0, y0, x1, y1."""
    image = np.full((height, width, 3), GROUND, np.uint8)
    for (x0, y0, x1, y1), color in zip(boxes, COLORS, strict=False):
        image[y0:y1, x0:x1] = color
    return image


def random_boxes(seed: int) -> list[tuple[int, int, int, int]]:
    """Three boxes that lie apart."""
    rng = np.random.default_rng(700 + seed)  # where the first images look different
    boxes = []
    for place in rng.permutation(6)[:3].tolist():
        x, y = 42 * (place % 3), 48 * (place // 3)
        w, h = rng.integers(16, 36), rng.integers(16, 42)
        x0, y0 = x + 2 + rng.integers(38 - w), y + 2 + rng.integers(44 - h)
        boxes.append((int(x0), int(y0), int(x0 + w), int(y0 + h)))
    return boxes


def write_images(folder: Path, count: int, *, start: int = 0) -> Path:
    """`count` images of three patches each, 000.png and so on, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.fromarray(patches(random_boxes(number))).save(folder / f"{number:03d}.png")
    return folder


def write_source(folder: Path, count: int, *, start: int = 0, name: str = "patches") -> SourceFiles:
    """Such images with an annotation file that knows the first patch of each."""
    from helpers.tiny import annotation

    images = write_images(folder / f"{name}-images", count, start=start)
    document: dict[str, Any] = {
        "images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    for number in range(start, start + count):
        x0, y0, x1, y1 = random_boxes(number)[0]
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[y0:y1, x0:x1] = True
        document["images"].append(
            {"id": number + 1, "file_name": f"{number:03d}.png", "height": HEIGHT, "width": WIDTH}
        )
        document["annotations"].append(annotation(number + 101, number + 1, mask))
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return SourceFiles(annotations=path, images=images, name=name)


Change = Callable[[TeacherAnswer], TeacherAnswer]


class ColorTeacher:
    """Answers with all pixels of the color in the middle of the box, over the whole image.

    `change` changes its answers, `change_mirror` those to every second image that it is shown.
    """

    name = "color:tiny"

    def __init__(
        self, *, change: Change | None = None, change_mirror: Change | None = None,
        kill_at: int | None = None, key: str = "", predicted: float = 0.9,
    ) -> None:  # fmt: skip
        self.fingerprint = fingerprint(key=key)
        self.settings: dict[str, Any] = {"prompt": "box"}
        self.prompts: list[int] = []
        self._changes = (change, change_mirror or change)
        self._kill_at, self._predicted = kill_at, predicted

    def __call__(self, image: np.ndarray, targets: Sequence[Target]) -> list[TeacherAnswer]:
        change = self._changes[len(self.prompts) % 2] or (lambda answer: answer)
        self.prompts.append(len(targets))
        if len(self.prompts) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        height, width = image.shape[:2]
        answers = []
        for target in targets:
            color = image[int(target.point.y), int(target.point.x)]
            logits = np.where((image == color).all(2), 8, -8).astype(np.float32)
            window = Window(0, 0, width, height)
            answer = TeacherAnswer(logits=logits, window=window, predicted_iou=self._predicted)
            answers.append(change(answer))
        return answers


def with_logits(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change of the logits alone."""
    return lambda answer: replace(answer, logits=change(answer.logits.copy()))


def main() -> None:
    from box_finder import PatchFinder  # a script finds what lies beside it

    parser = argparse.ArgumentParser()
    for name in ("annotations", "images", "folder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kill-at", type=int)
    options = parser.parse_args()
    source = SourceFiles(annotations=options.annotations, images=options.images, name="patches")
    teacher = ColorTeacher(kill_at=options.kill_at)
    result = teach_dense(
        teacher, PatchFinder(), [source], [options.folder], options.out, SMALL_PARTS
    )
    write_dense_report(result, options.out)


if __name__ == "__main__":
    main()
