"""Three objects in three images, each after its first click and after three corrections.

    pip download scikit-image --no-deps --dest .
    unzip -j scikit_image-*.whl 'skimage/data/*' -d images
    python tools/figures/corrections.py --images images --out docs/images/corrections.jpg

The images come with the package scikit-image: the astronaut Eileen Collins (NASA, public domain), a
cat (Stéfan van der Walt, CC0) and a cup of coffee (Rachel Michetti, CC0).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from picosam2 import Predictor, Prompt
from picosam2.cli._exit_codes import run_script
from picosam2.images import load_image
from picosam2.results import overlay

HEIGHT, GAP = 240, 6
POSITIVE, NEGATIVE = (0, 158, 115), (213, 94, 0)


@dataclass(frozen=True)
class Example:
    """An image, and clicks x, y, label in their order."""

    file: str
    clicks: tuple[tuple[int, int, int], ...]


EXAMPLES = (
    Example("astronaut.png", ((215, 110, 1), (110, 350, 1), (330, 260, 1), (60, 120, 0))),
    Example("chelsea.png", ((230, 130, 1), (275, 285, 1), (345, 270, 0), (35, 240, 0))),
    Example("coffee.png", ((300, 120, 1), (225, 268, 1), (250, 290, 0), (350, 275, 0))),
)


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="default")
    args = parser.parse_args()
    predictor = Predictor(args.weights)
    rows = [row(predictor, args.images, example) for example in EXAMPLES]
    width = max(image.width for image in rows)
    figure = Image.new("RGB", (width, len(rows) * (HEIGHT + GAP) - GAP), "white")
    for number, image in enumerate(rows):
        figure.paste(image, (0, number * (HEIGHT + GAP)))
    figure.save(args.out, quality=88)


def row(predictor: Predictor, folder: Path, example: Example) -> Image.Image:
    """One image after 1, 2, ... clicks, side by side."""
    image = load_image(folder / example.file)
    tiles = []
    for count in range(1, len(example.clicks) + 1):
        clicks = example.clicks[:count]
        (answer,) = predictor(image, prompts=[Prompt(points=clicks)])
        tile = overlay(image, [answer], prompts=False)
        draw = ImageDraw.Draw(tile)
        radius = max(tile.height // 60, 3)
        for x, y, label in clicks:
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius),
                fill=POSITIVE if label else NEGATIVE,
                outline="white",
                width=max(radius // 3, 1),
            )
        tiles.append(tile.resize((tile.width * HEIGHT // tile.height, HEIGHT)))
    side = Image.new("RGB", (sum(t.width + GAP for t in tiles) - GAP, HEIGHT), "white")
    left = 0
    for tile in tiles:
        side.paste(tile, (left, 0))
        left += tile.width + GAP
    return side


if __name__ == "__main__":
    run_script(main)
