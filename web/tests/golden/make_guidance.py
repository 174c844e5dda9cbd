"""Write guidance.json: what `picosam2.guidance` draws for fixed masks, for the page's twin.

Run `python web/tests/golden/make_guidance.py` after a deliberate change of the guidance;
`tests/apps/test_demo.py` compares the package with the file.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from picosam2 import guidance
from picosam2.geometry import Window
from picosam2.prompts import Box, Point

PATH = Path(__file__).with_name("guidance.json")

HEIGHT, WIDTH = 60, 90
SIZE = 48

POINTS = (Point(30.5, 20.5), Point(44.0, 31.25, False), Point(2.0, 58.5), Point(89.5, 0.5, False))

WINDOWS = {
    "inside": (10.0, 5.0, 70.0, 50.0),
    "past the image": (-20.5, -10.25, 110.0, 75.0),
    "small": (25.3, 15.7, 36.1, 26.5),
    "without clicks": (60.0, 40.0, 70.0, 50.0),
}

BOXES: tuple[tuple[Box | None, tuple[Point, ...]], ...] = (
    (Box(20.0, 10.0, 40.0, 30.0), ()),
    (Box(20.0, 10.0, 40.0, 30.0), (Point(30.5, 20.5),)),
    (Box(20.0, 10.0, 40.0, 30.0), (Point(60.5, 20.5), Point(5.0, 5.0, False))),
    (Box(20.0, 10.0, 40.0, 30.0), (Point(10.5, 50.5), Point(80.25, 3.0))),
    (Box(20.0, 10.0, 20.5, 10.5), ()),
    (None, (Point(30.5, 20.5),)),
    (None, (Point(30.5, 20.5), Point(80.5, 50.5))),
    (None, (Point(30.5, 20.5, False),)),
)


def mask() -> np.ndarray:
    """A mask so far, probabilities 0..255: a disc that fades, (60, 90) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = (x - 38) ** 2 + (y - 26) ** 2
    return np.clip(300 - distance // 2, 0, 255).astype(np.uint8)


def _packed(plane: np.ndarray) -> str:
    return base64.b64encode(np.rint(plane * 255).astype(np.uint8).tobytes()).decode()


def _packed_logits(logits: np.ndarray) -> str:
    return base64.b64encode(logits.astype("<f4").tobytes()).decode()


def make() -> dict[str, Any]:
    """The whole file, as the package computes it now."""
    planes = []
    for name, window in WINDOWS.items():
        drawn = guidance.planes(Window(*window), SIZE, mask(), POINTS)
        planes.append({"name": name, "window": window, "expected": [_packed(p) for p in drawn]})
    boxes = []
    for box, points in BOXES:
        result = guidance.following_box(box, points, HEIGHT, WIDTH)
        boxes.append(
            {
                "mask": None if box is None else [box.x0, box.y0, box.x1, box.y1],
                "points": [[p.x, p.y, int(p.positive)] for p in points],
                "expected": None
                if result is None
                else [result.x0, result.y0, result.x1, result.y1],
            }
        )
    side = SIZE // 2
    answer = np.linspace(-8, 8, side * side, dtype=np.float32).reshape(side, side)
    settled = []
    for name, window in WINDOWS.items():
        around = Window(*window)
        drawn = guidance.planes(around, SIZE, mask(), POINTS)
        mean = guidance.settled(answer, drawn[0], around, POINTS[0])
        settled.append({"name": name, "window": window, "expected": _packed_logits(mean)})
    logits = np.linspace(-20, 20, 161, dtype=np.float32)
    return {
        "height": HEIGHT,
        "width": WIDTH,
        "size": SIZE,
        "points": [[p.x, p.y, int(p.positive)] for p in POINTS],
        "planes": planes,
        "settled": settled,
        "following_box": boxes,
        "probability": guidance.probability(logits).tolist(),
    }


def text() -> str:
    """The file's text."""
    return json.dumps(make(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"wrote {PATH}")
