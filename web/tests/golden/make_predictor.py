"""Write predictor.json: what `picosam2.Predictor` answers for fixed prompts, for the page's twin.

The network is stood in for by arithmetic on the crop, so that the file depends on no weights: what
is compared is everything around the network. Run `python web/tests/golden/make_predictor.py` after
a deliberate change of the predictor; `tests/apps/test_demo.py` compares the package with the file.
The cases under "guided" are corrections and given masks, answered by arithmetic with guidance;
those under "started" are clicks whose scorer chooses the windows that are looked through.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from picosam2 import geometry, masks
from picosam2.images import MEAN, PAD_RGB, STD
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.runtimes.onnx import RuntimeInfo
from picosam2.scorer import FEATURES, features

PATH = Path(__file__).with_name("predictor.json")

HEIGHT, WIDTH = 150, 210
START = 2
"""The window that is looked at first where the scorer chooses."""
PATIENCES = (None, 0.3)
"""The patience of the scorer there; files that were fitted before it was fitted hold none."""
SIZE = 128  # of the network's input; its logits have half of it
MASK = (42, 30, 101, 92)
"""A given mask: the pixels of a rectangle, x0, y0, x1, y1."""


def mask() -> np.ndarray:
    """The given mask, (150, 210) bool."""
    x0, y0, x1, y1 = MASK
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[y0:y1, x0:x1] = True
    return drawn


PROMPTS = {
    "a click": Prompt((Point(70.5, 60.5),)),
    "a click near the border": Prompt((Point(3.25, 144.0),)),
    "a box": Prompt(box=Box(100.0, 20.0, 180.0, 130.5)),
    "two clicks": Prompt((Point(70.5, 60.5), Point(150.5, 80.5))),
    "two clicks far apart": Prompt((Point(12.0, 12.0), Point(190.0, 130.0))),
    "a click and one off it": Prompt((Point(70.5, 60.5), Point(96.5, 75.5, False))),
    "a box and one off it": Prompt((Point(120.5, 60.5, False),), Box(100.0, 20.0, 180.0, 130.5)),
    "many": Prompt(
        (
            Point(70.5, 60.5),
            Point(150.5, 80.5),
            Point(105.5, 20.5, False),
            Point(30.5, 130.5, False),
        )
    ),
}

GUIDED: dict[str, Prompt] = {
    "a click and one more": Prompt((Point(70.5, 60.5), Point(150.5, 80.5))),
    "a click and one on another object": Prompt((Point(70.5, 60.5), Point(30.5, 130.5))),
    "a click, one off it and one on it": Prompt(
        (Point(70.5, 60.5), Point(88.5, 75.5, False), Point(52.25, 47.0))
    ),
    "one off it before": Prompt((Point(88.5, 75.5, False), Point(70.5, 60.5))),
    "two off it before, one on it after": Prompt(
        (
            Point(88.5, 75.5, False),
            Point(51.5, 72.5, False),
            Point(70.5, 60.5),
            Point(99.5, 52.5),
        )
    ),
    "clicks whose disks overlap": Prompt(
        (Point(70.5, 60.5), Point(86.5, 70.5, False), Point(88.5, 71.5))
    ),
    "a box and one off it": Prompt((Point(120.5, 60.5, False),), Box(100.0, 20.0, 180.0, 130.5)),
    "a box, one past it and one off it": Prompt(
        (Point(196.5, 128.5), Point(150.5, 110.5, False)), Box(100.0, 20.0, 180.0, 130.5)
    ),
    "a mask": Prompt(mask=mask()),
    "a mask in a box": Prompt(box=Box(30.0, 20.0, 110.0, 100.0), mask=mask()),
    "a mask and one off it": Prompt((Point(90.5, 80.5, False),), mask=mask()),
    "a mask, two it knows, two it does not, one it does": Prompt(
        (
            Point(70.5, 60.5),
            Point(150.5, 80.5, False),
            Point(109.5, 60.5),
            Point(50.5, 40.5, False),
            Point(75.5, 62.5),
        ),
        mask=mask(),
    ),
    "a mask that knows all": Prompt((Point(70.5, 60.5), Point(20.5, 20.5, False)), mask=mask()),
    "a mask in a box, and one on it": Prompt(
        (Point(120.5, 75.5),), Box(30.0, 20.0, 130.0, 110.0), mask()
    ),
}


def pixels() -> np.ndarray:
    """Bright and dark discs on a slope, (150, 210, 3) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.int64)
    out = np.stack([40 + x // 3, 60 + y // 2, 90 + (x + y) // 4], 2)
    for cx, cy, radius, rgb in (
        (70, 60, 34, (220, 180, 90)), (150, 80, 45, (200, 210, 150)), (30, 130, 18, (240, 150, 60)),
        (105, 20, 15, (190, 190, 60)), (78, 66, 9, (60, 40, 30)), (12, 12, 20, (230, 200, 40)),
        (190, 130, 25, (250, 140, 90)),
    ):  # fmt: skip
        out[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = rgb
    return out.astype(np.uint8)


def scorer(count: int, seed: int) -> dict[str, Any]:
    """A perceptron with made-up weights, as weights files hold it."""
    random = np.random.default_rng(seed)
    inputs, hidden = count * len(FEATURES), 8
    return {
        "features": list(FEATURES),
        "mean": random.uniform(0, 1, inputs).round(4).tolist(),
        "scale": random.uniform(0.5, 2, inputs).round(4).tolist(),
        "hidden": random.normal(0, 0.3, (inputs, hidden)).round(4).tolist(),
        "hidden_bias": random.normal(0, 0.3, hidden).round(4).tolist(),
        "out": random.normal(0, 0.6, (hidden, count)).round(4).tolist(),
        "out_bias": random.normal(0, 0.3, count).round(4).tolist(),
    }


def facts() -> dict[str, Any]:
    """What a weights file says of itself."""
    return {
        "input_size": SIZE,
        "output_size": SIZE // 2,
        "channels": 2,
        "preprocessing": {"order": "RGB", "mean": MEAN, "std": STD, "pad": PAD_RGB},
        "geometry": {
            "box_growth": geometry.BOX_GROWTH,
            "click_halves": geometry.CLICK_HALVES,
            "outside_logit": geometry.OUTSIDE_LOGIT,
        },
        "scorers": {"click": scorer(len(geometry.CLICK_HALVES), 1), "box": scorer(1, 2)},
    }


class Arithmetic:
    """Logits from colors: 2 R + G - B of 2x2 pixels, above a level of each channel's own."""

    def __init__(self) -> None:
        stated = facts()
        self.info = RuntimeInfo(
            name="arithmetic", input_size=SIZE, channels=2, weights_sha256="", facts=stated
        )

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        rgb = crops.astype(np.int64)
        level = 2 * rgb[..., 0] + rgb[..., 1] - rgb[..., 2]
        four = level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2]
        return np.stack([(four - 1200) / 256, (four - 1320) / 256], 1).astype(np.float32)


class Guided:
    """The same, to whose first channel a mask so far and the clicks are added."""

    def __init__(self) -> None:
        self.info = RuntimeInfo(
            name="guided",
            input_size=SIZE,
            channels=2,
            weights_sha256="",
            facts={**facts(), "model": {"guidance": True}},
        )
        self.calls: list[list[int]] = []
        """The crops of each call, and of each plane of guidance the sum."""

    def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
        logits = Arithmetic()(crops)
        sums = [] if guidance is None else guidance[0].sum((1, 2), float).round().astype(int)
        self.calls.append([len(crops), *map(int, sums)])
        if guidance is not None:
            known, on, off = guidance[:, :, ::2, ::2].swapaxes(0, 1)
            logits[:, 0] += 3 * known + 2 * on - 4 * off
        return logits


class Started(Arithmetic):
    """The same, with a scorer that chooses which windows of a click are looked through."""

    def __init__(self, patience: float | None) -> None:
        super().__init__()
        described = facts()
        described["scorers"]["click"]["start"] = START
        if patience is not None:
            described["scorers"]["click"]["patience"] = patience
        self.info = replace(self.info, facts=described)
        self.calls: list[int] = []
        """The crops of each call."""

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.calls.append(len(crops))
        return super().__call__(crops)


def started() -> list[dict[str, Any]]:
    """What clicks give where the scorer chooses the windows."""
    cases = []
    places = itertools.product(PATIENCES, range(20, WIDTH, 42), range(15, HEIGHT, 40))
    for patience, x, y in places:
        runtime = Started(patience)
        prompt = Prompt((Point(x + 0.5, y + 0.25),))
        best = Predictor(runtime).candidates(pixels(), [prompt])[0][0]
        cases.append(
            {
                "patience": patience,
                "point": [x + 0.5, y + 0.25],
                "asked": runtime.calls,
                "score": round(float(best.score), 4),
                "rle": masks.rle_encode(best.mask(HEIGHT, WIDTH)),
            }
        )
    return cases


def guided() -> list[dict[str, Any]]:
    """What is answered with guidance."""
    cases = []
    for name, prompt in GUIDED.items():
        runtime = Guided()
        (result,) = Predictor(runtime).candidates(pixels(), [prompt])
        best = result[0]
        window = best.window
        cases.append(
            {
                "name": name,
                "prompt": prompt.to_json(),
                "mask": None if prompt.mask is None else MASK,
                "asked": runtime.calls,
                "window": [round(v, 4) for v in (window.x0, window.y0, window.x1, window.y1)],
                "score": round(float(best.score), 4),
                "rle": masks.rle_encode(best.mask(HEIGHT, WIDTH)),
            }
        )
    return cases


def make() -> dict[str, Any]:
    """The whole file, as the package computes it now."""
    image = pixels()
    predictor = Predictor(Arithmetic())
    cases = []
    for name, prompt in PROMPTS.items():
        result = predictor.candidates(image, [prompt])[0]
        best = result[0]
        cases.append(
            {
                "name": name,
                "prompt": prompt.to_json(),
                "scores": [round(float(c.score), 4) for c in result],
                "rle": masks.rle_encode(best.mask(HEIGHT, WIDTH)),
                "polygons": len(masks.polygons(best.mask(HEIGHT, WIDTH), 1.0)),
            }
        )
    windows = geometry.click_windows(Point(70.5, 60.5), HEIGHT, WIDTH)
    logits = Arithmetic()(np.stack([geometry.crop(image, w, SIZE) for w in windows]))[:, 1]
    measured = features(logits, windows, HEIGHT, WIDTH)
    return {
        "facts": facts(),
        "features": np.round(measured.astype(float), 5).tolist(),
        "cases": cases,
        "start": START,
        "started": started(),
        "guided": guided(),
    }


def text() -> str:
    """The file's text: one line a case."""
    made = make()
    cases, started, guided = (
        ",\n".join("  " + json.dumps(case) for case in made[key])
        for key in ("cases", "started", "guided")
    )
    return (
        f'{{\n"facts": {json.dumps(made["facts"])},\n'
        f'"features": {json.dumps(made["features"])},\n"cases": [\n{cases}\n],\n'
        f'"start": {START},\n"started": [\n{started}\n],\n'
        f'"guided": [\n{guided}\n]\n}}\n'
    )


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"wrote {PATH}")
