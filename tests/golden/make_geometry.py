"""Write geometry.json: what `picosam2.geometry` gives for fixed cases, for other languages too.

Run `python tests/golden/make_geometry.py` after a deliberate change of the geometry, and look at
the difference before committing it. `tests/test_geometry.py` compares the package with the file.
"""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from picosam2 import geometry
from picosam2.errors import PromptError
from picosam2.geometry import Window
from picosam2.images import PAD_RGB
from picosam2.prompts import Box, Point

PATH = Path(__file__).with_name("geometry.json")

ABOUT = {
    "what": "Reference cases of the geometry: prompt -> window -> crop, and logits -> image.",
    "written_by": "python tests/golden/make_geometry.py",
    "coordinates": (
        "Pixels of the image, x to the right, y down, origin at the top left corner, pixel centers "
        "at +0.5. A window is [x0, y0, x1, y1] and may reach past the image. Arrays are row by row "
        "from the top, each row from the left. base64 fields hold raw bytes of such arrays."
    ),
    "filter": (
        "Sample i of S along an axis of a window from a to b lies at c = a + (i + 0.5) s, "
        "s = (b - a) / S. It is the weighted mean of the pixels whose centers lie within r of c, "
        "r = max(s, 1), weight 1 - |center - c| / r, weights normalized to sum 1; pixels outside "
        "the image hold the padding. One axis after the other, rounded to whole levels."
    ),
    "sections": {
        "constants": "The settings that the cases depend on.",
        "images": (
            "RGB images by name, 8 bits. 'linear': channel k of pixel (column x, row y) is "
            "(a x + b y + c) mod 256 with [a, b, c] = channels[k], columns and rows from 0. "
            "'raw': base64 of height * width * 3 bytes."
        ),
        "masks": (
            "Masks by name: pixel (column x, row y) is on the object where "
            "(x + 0.5 - cx)^2 + (y + 0.5 - cy)^2 <= radius^2."
        ),
        "logits": (
            "Square maps by name: the value at (column x, row y) is "
            "floor + (peak - floor) * max(0, 1 - ((x + 0.5 - cx)^2 + (y + 0.5 - cy)^2) / radius^2)."
        ),
        "point_window": "The square window of half-size 'half' about 'point'.",
        "click_windows": "The windows tried for a click in an image of this size, smallest first.",
        "box_window": "The window of a box; max_aspect null means no limit.",
        "sensor_window": (
            "'window' shrunk about its center into the frame; null where that is an error because "
            "the center lies outside."
        ),
        "to_crop": "'image_points' in the crop of 'window' with side 'size', and back.",
        "crop": "'expected': base64 of size * size * 3 bytes, RGB.",
        "crop_mask": "'expected': base64 of size * size bytes, coverage times 255.",
        "paste": (
            "Logits of 'window' on an image of this size: the part starts at column x, row y and "
            "is 'width_px' by 'height_px'; 'expected' are its values row by row. Pixels whose "
            "centers the window covers (its right and bottom edges excluded). Here a sample lies "
            "at an image pixel's center, distances are in crop pixels, "
            "s = crop pixels per image pixel, and the map's edge is repeated outwards. A window "
            "thinner than one pixel is first widened to one about its center."
        ),
    },
    "tolerances": {
        "window": "1e-9 relative or absolute, whichever is larger",
        "crop": "1 level in every value with the rounding above, 2 levels without it",
        "crop_mask": "as crop",
        "paste": "1e-3 absolute",
    },
}

IMAGES: dict[str, dict[str, Any]] = {
    "wide": {
        "kind": "linear", "height": 24, "width": 40,
        "channels": [[5, 1, 20], [2, 7, 40], [3, 3, 100]],
    },
    "tall": {
        "kind": "linear", "height": 61, "width": 17,
        "channels": [[13, 0, 0], [0, 4, 0], [7, 3, 60]],
    },
    "large": {
        "kind": "linear", "height": 300, "width": 403,
        "channels": [[1, 0, 0], [0, 1, 0], [1, 2, 9]],
    },
    "busy": {
        "kind": "linear", "height": 90, "width": 130,
        "channels": [[37, 91, 3], [83, 29, 5], [61, 53, 7]],
    },
    "dot": {
        "kind": "linear", "height": 1, "width": 1,
        "channels": [[0, 0, 200], [0, 0, 10], [0, 0, 60]],
    },
    "small": {
        "kind": "raw", "height": 5, "width": 7,
        "base64": base64.b64encode(
            np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8).tobytes()
        ).decode(),
    },
}  # fmt: skip

MASKS = {
    "disc": {"height": 50, "width": 60, "cx": 33.0, "cy": 21.5, "radius": 14.0},
    "cut": {"height": 48, "width": 30, "cx": 2.0, "cy": 47.0, "radius": 19.5},
}

LOGITS = {
    "hill": {"size": 12, "cx": 6.5, "cy": 5.0, "radius": 5.0, "floor": -4.0, "peak": 6.0},
    "slope": {"size": 8, "cx": -2.0, "cy": 10.0, "radius": 14.0, "floor": -3.0, "peak": 9.0},
}

POINTS = [((10.0, 7.5), 4.0), ((0.5, 0.5), 48.0), ((319.25, 200.75), 31.7), ((0.0, 0.0), 0.5)]

CLICKS = [((320.0, 240.0), 480, 640), ((3.5, 900.25), 1000, 667), ((0.5, 0.5), 1, 1)]

BOXES = [
    ((10.0, 20.0, 50.0, 40.0), geometry.BOX_GROWTH, None),
    ((10.0, 20.0, 50.0, 40.0), 1.2, 1.0),
    ((10.0, 20.0, 50.0, 40.0), 1.5, 1.5),
    ((3.0, 1.0, 4.0, 301.0), 1.2, 4.0),
    ((0.25, 0.5, 99.75, 100.5), 1.0, 1.0),
    ((100.5, 7.125, 101.0, 7.375), 1.2, None),
]

SENSOR = [
    ((10.0, 10.0, 50.0, 40.0), 100, 200),
    ((-10.0, 10.0, 50.0, 40.0), 100, 200),
    ((-10.0, -30.0, 50.0, 40.0), 100, 200),
    ((150.0, 60.0, 230.0, 120.0), 100, 200),
    ((-500.0, -500.0, 600.0, 580.0), 100, 200),
    ((-30.0, 10.0, 20.0, 40.0), 100, 200),
    ((10.0, 80.0, 20.0, 120.0), 100, 200),
]

CROPS = [
    ("identity", "wide", (8.0, 6.0, 20.0, 18.0), 12),
    ("half a pixel to the right and down", "wide", (8.5, 6.5, 20.5, 18.5), 12),
    ("sub-pixel, enlarged 2.4 times", "wide", (9.3, 7.7, 14.3, 12.7), 12),
    ("shrunk by 5/3", "wide", (2.0, 1.0, 22.0, 21.0), 12),
    ("shrunk by odd factors that differ", "large", (31.0, 12.25, 383.5, 290.75), 16),
    ("enlarged and shrunk at once", "large", (200.0, 20.0, 205.0, 280.0), 13),
    ("past the left border", "wide", (-7.0, 4.0, 9.0, 20.0), 12),
    ("past the top border", "wide", (11.0, -9.5, 27.0, 6.5), 12),
    ("past the right border", "wide", (30.0, 3.0, 51.0, 24.0), 12),
    ("past the bottom border", "wide", (10.25, 15.0, 28.25, 33.0), 12),
    ("past the top left corner", "tall", (-8.0, -6.0, 8.0, 10.0), 12),
    ("past the bottom right corner", "tall", (11.0, 52.0, 23.0, 70.0), 12),
    ("past left and right", "tall", (-14.0, 10.0, 31.0, 55.0), 14),
    ("past every border", "tall", (-30.0, -8.0, 47.0, 69.0), 14),
    ("ends on the borders", "wide", (0.0, 0.0, 40.0, 24.0), 12),
    ("wholly outside", "wide", (60.0, 50.0, 90.0, 80.0), 8),
    ("outside, touching by the filter only", "wide", (41.0, 5.0, 65.0, 20.0), 8),
    ("tiny", "wide", (20.1, 11.4, 20.35, 11.65), 8),
    ("far larger than the image", "wide", (-1000.0, -800.0, 1040.0, 824.0), 9),
    ("one-pixel image", "dot", (-1.5, -1.5, 2.5, 2.5), 8),
    ("raw, all of it", "small", (0.0, 0.0, 7.0, 5.0), 10),
    ("raw, beyond", "small", (-2.5, 1.0, 8.0, 9.0), 10),
    ("full size, shrunk", "busy", (-20.0, -11.5, 140.0, 101.0), 96),
]  # fmt: skip

CROP_MASKS = [
    ("shrunk", "disc", (10.0, 2.0, 56.0, 41.0), 12),
    ("enlarged, past the border", "cut", (-6.0, 30.5, 18.0, 54.5), 40),
    ("missed", "cut", (20.0, 0.0, 30.0, 10.0), 6),
]

PASTES = [
    ("identity", "hill", (3.0, 2.0, 15.0, 14.0), 20, 20),
    ("enlarged, sub-pixel", "hill", (2.3, 1.7, 27.8, 20.1), 24, 30),
    ("shrunk", "hill", (4.0, 3.0, 9.0, 7.0), 12, 16),
    ("enlarged across, shrunk down", "slope", (1.0, 2.5, 20.0, 7.0), 10, 22),
    ("clipped on the left and top", "hill", (-9.0, -6.5, 15.0, 12.0), 16, 20),
    ("clipped on every side", "slope", (-5.0, -4.0, 14.0, 15.5), 11, 9),
    ("wholly outside", "hill", (30.0, 5.0, 40.0, 15.0), 20, 20),
    ("thinner than a pixel", "slope", (4.4, 2.0, 4.6, 9.0), 12, 12),
    ("between two pixel centers", "slope", (4.6, 2.0, 5.4, 3.3), 12, 12),
]


def image(case: dict[str, Any]) -> np.ndarray:
    """The image that an entry of `images` describes, (H, W, 3) uint8."""
    height, width = case["height"], case["width"]
    if case["kind"] == "raw":
        data = base64.b64decode(case["base64"])
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)
    y, x = np.mgrid[:height, :width]
    return np.stack([(a * x + b * y + c) % 256 for a, b, c in case["channels"]], 2).astype(np.uint8)


def mask(case: dict[str, Any]) -> np.ndarray:
    """The mask that an entry of `masks` describes, (H, W) bool."""
    y, x = np.mgrid[: case["height"], : case["width"]] + 0.5
    return (x - case["cx"]) ** 2 + (y - case["cy"]) ** 2 <= case["radius"] ** 2


def logits(case: dict[str, Any]) -> np.ndarray:
    """The map that an entry of `logits` describes, (S, S) float32."""
    y, x = np.mgrid[: case["size"], : case["size"]] + 0.5
    away = ((x - case["cx"]) ** 2 + (y - case["cy"]) ** 2) / case["radius"] ** 2
    value = case["floor"] + (case["peak"] - case["floor"]) * np.maximum(0, 1 - away)
    return value.astype(np.float32)


def numbers(window: Window) -> list[float]:
    """A window as JSON has it."""
    return [window.x0, window.y0, window.x1, window.y1]


def make() -> dict[str, Any]:
    """The whole file, as the package computes it now."""
    return {
        "about": ABOUT,
        "constants": {
            "crop_size": geometry.CROP_SIZE,
            "box_growth": geometry.BOX_GROWTH,
            "box_max_aspect": _no_infinity(geometry.BOX_MAX_ASPECT),
            "click_halves": list(geometry.CLICK_HALVES),
            "outside_logit": geometry.OUTSIDE_LOGIT,
            "pad_rgb": list(PAD_RGB),
        },
        "images": IMAGES,
        "masks": MASKS,
        "logits": LOGITS,
        "point_window": [
            {
                "point": point,
                "half": half,
                "expected": numbers(geometry.point_window(Point(*point), half)),
            }
            for point, half in POINTS
        ],
        "click_windows": [
            {
                "point": point,
                "height": height,
                "width": width,
                "expected": [
                    numbers(w) for w in geometry.click_windows(Point(*point), height, width)
                ],
            }
            for point, height, width in CLICKS
        ],
        "box_window": [_box_window(*case) for case in BOXES],
        "sensor_window": [_sensor_window(*case) for case in SENSOR],
        "to_crop": [
            _to_crop(*case) for case in (((-3.0, 5.0, 37.5, 25.25), 96), ((1, 2, 3, 5), 7))
        ],
        "crop": [_crop(*case) for case in CROPS],
        "crop_mask": [_crop_mask(*case) for case in CROP_MASKS],
        "paste": [_paste(*case) for case in PASTES],
    }


def _no_infinity(value: float) -> float | None:
    return None if math.isinf(value) else value


def _box_window(box: tuple[float, ...], growth: float, max_aspect: float | None) -> dict[str, Any]:
    limit = math.inf if max_aspect is None else max_aspect
    window = geometry.box_window(Box(*box), growth=growth, max_aspect=limit)
    return {"box": box, "growth": growth, "max_aspect": max_aspect, "expected": numbers(window)}


def _sensor_window(window: tuple[float, ...], height: int, width: int) -> dict[str, Any]:
    try:
        expected = numbers(geometry.sensor_window(Window(*window), height, width))
    except PromptError:
        expected = None
    return {"window": window, "height": height, "width": width, "expected": expected}


def _to_crop(window: tuple[float, ...], size: int) -> dict[str, Any]:
    points = np.array([[0.0, 0.0], [window[0], window[1]], [window[2], window[3]], [2.25, 9.5]])
    return {
        "window": window,
        "size": size,
        "image_points": points.tolist(),
        "crop_points": Window(*window).to_crop(points, size).tolist(),
    }


def _crop(name: str, shown: str, window: tuple[float, ...], size: int) -> dict[str, Any]:
    pixels = geometry.crop(image(IMAGES[shown]), Window(*window), size)
    return {"name": name, "image": shown, "window": window, "size": size,
            "expected": base64.b64encode(pixels.tobytes()).decode()}  # fmt: skip


def _crop_mask(name: str, which: str, window: tuple[float, ...], size: int) -> dict[str, Any]:
    covered = geometry.crop_mask(mask(MASKS[which]), Window(*window), size)
    levels = np.rint(covered * 255).astype(np.uint8)
    return {"name": name, "mask": which, "window": window, "size": size,
            "expected": base64.b64encode(levels.tobytes()).decode()}  # fmt: skip


def _paste(
    name: str, which: str, window: tuple[float, ...], height: int, width: int
) -> dict[str, Any]:
    region = geometry.paste_region(logits(LOGITS[which]), Window(*window), height, width)
    rows, columns = region.logits.shape
    return {"name": name, "logits": which, "window": window, "height": height, "width": width,
            "x": region.x, "y": region.y, "width_px": columns, "height_px": rows,
            "expected": np.round(region.logits.astype(float), 5).ravel().tolist()}  # fmt: skip


def text() -> str:
    """The file's text: one line a case, so that a change shows as the cases it touches."""
    parts = []
    for key, value in make().items():
        if isinstance(value, list):
            lines = ",\n".join("  " + json.dumps(case) for case in value)
            parts.append(f'"{key}": [\n{lines}\n]')
        else:
            parts.append(f'"{key}": {json.dumps(value, indent=1)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"wrote {PATH}")
