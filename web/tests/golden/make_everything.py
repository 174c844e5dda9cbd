"""Write everything.json: what everything mode finds in fixed images, for the page's twin.

Finder and segmenter are stood in for by arithmetic on what they see, so that the file depends on no
weights. Run `python web/tests/golden/make_everything.py` after a deliberate change of
`models/views.py`, `tasks/finder.py` or `tasks/answers.py`; `tests/apps/test_demo.py` compares the
package with the file.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from picosam2 import masks
from picosam2.geometry import Window
from picosam2.models import views
from picosam2.predictor import Predictor
from picosam2.tasks.everything import Everything, everything
from picosam2.tasks.finder import find_boxes

PATH = Path(__file__).with_name("everything.json")

SIZE = 64  # of the finder's views
SIZES = ((150, 210), (480, 640), (800, 12000), (2000, 100), (300, 300), (37, 53), (1, 1))
"""Heights and widths of images of which only the views are written."""
MAGNIFIED = 8
"""How often each pixel is repeated in the large image, whose masks are compared on a small one."""

SETTINGS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "few boxes, weak masks": {"max_boxes": 12, "pred_iou_thresh": 0.1},
    "second looks": {"max_boxes": 12, "pred_iou_thresh": 0.1, "second_looks": 20},
    "strict": {
        "second_looks": 5,
        "pred_iou_thresh": 0.5,
        "box_nms_thresh": 0.5,
        "stability_score_thresh": 0.7,
    },
    "the best 50 boxes alone": {
        "box_nms_thresh": 0.9,
        "objectness_thresh": 0.95,
        "pred_iou_thresh": 0.05,
    },
    "alike masks, the best three": {"mask_nms_thresh": 0.95, "max_masks": 3},
}


def _predictor_cases() -> Any:
    """make_predictor.py beside this file: its image and its arithmetic in the network's place."""
    path = Path(__file__).with_name("make_predictor.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ArithmeticFinder:
    """Cells from the mean colors of the squares around them, in whole numbers."""

    input_size = SIZE

    def __call__(self, seen: np.ndarray) -> np.ndarray:
        return np.stack([self._cells(view.astype(np.int64)) for view in seen])

    @staticmethod
    def _cells(view: np.ndarray) -> np.ndarray:
        levels = []
        for stride in views.STRIDES:
            across = SIZE // stride
            squares = view.reshape(across, stride, across, stride, 3)
            red, green, blue = (squares.sum((1, 3)) // stride**2).reshape(-1, 3).T
            bright = (2 * red + green - blue - 320) / 40
            edges = [(channel - 128) / 100 for channel in (red, green, blue, red)]
            levels.append(np.stack([bright, *edges]))
        return np.concatenate(levels, 1).astype(np.float32)


def made_cells() -> np.ndarray:
    """Cells of one view, (5, N): noise of two digits."""
    random = np.random.default_rng(7)
    count = views.cell_count(SIZE)
    return random.normal(0, 1.2, (views.OUTPUTS, count)).round(2).astype(np.float32)


def corners(window: Window) -> list[float]:
    return [round(v, 6) for v in (window.x0, window.y0, window.x1, window.y1)]


def decoded() -> list[dict[str, Any]]:
    """The boxes of the made-up cells in several windows of an image."""
    cells = made_cells()
    height, width = 150, 210
    windows = [views.whole_window(height, width), *views.part_windows(height, width)[:3]]
    cases = []
    for window in windows:
        boxes, objectness = views.decode(cells[None], [window], height, width, SIZE, 0.3)
        cases.append(
            {
                "window": corners(window),
                "boxes": boxes.astype(float).round(3).tolist(),
                "objectness": objectness.astype(float).round(5).tolist(),
                "thinned": views.thinned(boxes, 0.5, 20).tolist(),
            }
        )
    return cases


def searched(image: np.ndarray, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """What is found in an image: boxes and their masks, which are not cleaned."""
    settings = Everything(min_mask_region_area=1, **overrides)
    finder = ArithmeticFinder()
    predictor = Predictor(_PREDICTOR.Arithmetic())
    proposed = find_boxes(image, finder, most=settings.max_boxes, overlap=settings.box_overlap)
    results = everything(image, predictor, settings, finder=finder)
    objects = []
    for result in results:
        box = result.prompt.box
        assert box is not None
        objects.append(
            {
                "box": [round(v, 3) for v in (box.x0, box.y0, box.x1, box.y1)],
                "score": round(float(result.score), 4),
                "area": int(result.area),
                "rle": masks.rle_encode(result.mask),
            }
        )
    return {"name": name, "settings": overrides, "proposals": len(proposed), "objects": objects}


_PREDICTOR = _predictor_cases()


def make() -> dict[str, Any]:
    """The whole file, as the package computes it now."""
    image = _PREDICTOR.pixels()
    large = image.repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1)
    large_case = searched(large, "a large image", {"max_boxes": 40})
    for entry in large_case["objects"]:
        del entry["rle"]  # of a million pixels
    return {
        "size": SIZE,
        "strides": views.STRIDES,
        "reach": views.REACH,
        "views": [
            {
                "height": height,
                "width": width,
                "windows": [
                    corners(views.whole_window(height, width)),
                    *map(corners, views.part_windows(height, width)),
                ],
            }
            for height, width in SIZES
        ],
        "cells": made_cells().astype(float).round(2).tolist(),
        "decoded": decoded(),
        "magnified": MAGNIFIED,
        "searched": [searched(image, *case) for case in SETTINGS.items()],
        "large": large_case,
    }


def text() -> str:
    """The file's text: one line an entry."""
    lines = []
    for key, value in make().items():
        listed = isinstance(value, list) and isinstance(value[0], dict)
        body = ",\n".join("  " + json.dumps(entry) for entry in value) if listed else ""
        lines.append(f'"{key}": [\n{body}\n]' if listed else f'"{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"wrote {PATH}")
