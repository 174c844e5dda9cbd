"""Record the masks of the shipped weights on the sample image: `python tests/golden/make_masks.py`.

Run it when weights are shipped, and only then: `tests/contract/test_shipped_masks.py` compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from picosam2 import masks
from picosam2.io.sample_image import sample, sample_objects
from picosam2.predictor import Predictor
from picosam2.prompts import Point, Prompt
from picosam2.results import Segmentation

WEIGHTS = ("default", "default-int8", "paper")
FILE = Path(__file__).with_name("masks.json")


def prompts() -> Iterator[tuple[str, Prompt]]:
    """Of each object its center point, its box, and both with a point in the image's corner."""
    for each in sample_objects():
        point = masks.center_point(each.mask)
        yield f"{each.name} by click", Prompt(points=(point,))
        yield f"{each.name} by box", Prompt(box=each.box)
        corner = Point(1.5, 1.5, positive=False)
        yield f"{each.name} by box and points", Prompt(box=each.box, points=(point, corner))


def answers(predictor: Predictor) -> dict[str, Segmentation]:
    """The segmentation of each prompt."""
    named = dict(prompts())
    return dict(zip(named, predictor(sample(), prompts=list(named.values())), strict=True))


def main() -> None:
    """Write the file."""
    recorded: dict[str, Any] = {}
    for weights in WEIGHTS:
        predictor = Predictor(weights, threads=1)
        recorded[weights] = {
            "sha256": predictor.runtime.info.weights_sha256,
            "masks": {
                name: {"counts": segmentation.rle()["counts"], "score": segmentation.score}
                for name, segmentation in answers(predictor).items()
            },
        }
    FILE.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
