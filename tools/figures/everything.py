"""Contact sheets of everything mode: each image beside its masks, to be judged by eye.

    python tools/figures/everything.py --images val2017 --images domain/images --out sheets

Of every folder some images, evenly over their names; a sheet has five of them below each other in
two columns. Under each stand the number of its masks and the time. Put --out outside the
repository: the images are not ours to publish.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from picosam2.cli._exit_codes import run_script
from picosam2.data.contact_sheet import caption, grid
from picosam2.images import load_image
from picosam2.io.formats import colors
from picosam2.predictor import Predictor
from picosam2.results import overlay
from picosam2.runtimes.finder import opened_finder
from picosam2.tasks.everything import METHODS, Everything, everything

ROWS, COLUMNS = 5, 2
TILE = (960, 360)  # pixels: the image and its masks side by side
ENDINGS = (".jpg", ".jpeg", ".png")


def chosen(folder: Path, count: int) -> list[Path]:
    """So many images of a folder at most, evenly over their names."""
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not images:
        raise SystemExit(f"{folder} holds no images")
    places = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    return [images[place] for place in places.tolist()]


def tile(path: Path, predictor: Predictor, settings: Everything, finder: str) -> Image.Image:
    """An image beside its masks."""
    pixels = load_image(path)
    started = time.process_time()
    results = everything(
        pixels, predictor, settings, finder=opened_finder(finder, 1, predictor.runtime.info.name)
    )
    seconds = time.process_time() - started
    drawn = overlay(pixels, results, colors=colors(len(results)), prompts=False)
    half = (TILE[0] // 2, TILE[1])
    both = Image.new("RGB", TILE, "white")
    for place, image in enumerate((Image.fromarray(pixels), drawn)):
        both.paste(ImageOps.pad(image, half, color="white"), (place * half[0], 0))
    caption(both, f"{path.name}: {len(results)} masks, {seconds:.1f} s")
    return both


def main() -> None:
    """Write the sheets of every folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=20, help="images of each folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--method", choices=METHODS, default="finder")
    parser.add_argument("--weights", default="default-int8")
    parser.add_argument("--finder", default="finder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(options.weights, threads=1)
    settings = Everything(method=options.method)
    for number, folder in enumerate(options.images, 1):
        tiles = [
            np.asarray(tile(path, predictor, settings, options.finder))
            for path in chosen(folder, options.count)
        ]
        for start in range(0, len(tiles), ROWS * COLUMNS):
            sheet = options.out / f"{number}-{start // (ROWS * COLUMNS) + 1}.jpg"
            some = np.stack(tiles[start : start + ROWS * COLUMNS])
            grid(some, COLUMNS).save(sheet, quality=85)
            print(f"{folder}: {sheet}")


if __name__ == "__main__":
    run_script(main)
