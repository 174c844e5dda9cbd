"""A teacher that knows the truth, and a teaching in a process of its own that may kill itself.

python teach_tiny.py STORE ANNOTATIONS IMAGES OUT [--kill-at IMAGE]
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from picosam2.data.store import SourceFiles, Store
from picosam2.distillation.protocol import Target, TeacherAnswer, fingerprint
from picosam2.distillation.teach import teach
from picosam2.geometry import Window

STRENGTH = 8.0
"""Its logits are + or - this."""


class TruthTeacher:
    """Gives the true mask of every target over the whole image, and expects an IoU of 0.75."""

    name = "truth:tiny"

    def __init__(self, kill_at: int | None = None, key: str = "") -> None:
        self.fingerprint = fingerprint(key=key)
        self.settings: dict[str, Any] = {"prompt": "box"}
        self.batches: list[int] = []
        self._kill_at = kill_at

    def __call__(self, image: np.ndarray, targets: list[Target]) -> list[TeacherAnswer]:
        self.batches.append(len(targets))
        if len(self.batches) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        height, width = image.shape[:2]
        return [
            TeacherAnswer(
                logits=np.where(target.mask, STRENGTH, -STRENGTH).astype(np.float32),
                window=Window(0, 0, width, height),
                predicted_iou=0.75,
            )
            for target in targets
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("store", "annotations", "images", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kill-at", type=int)
    options = parser.parse_args()
    source = SourceFiles(annotations=options.annotations, images=options.images, name="shapes")
    teach(TruthTeacher(options.kill_at), Store(options.store), [source], options.out)


if __name__ == "__main__":
    main()
