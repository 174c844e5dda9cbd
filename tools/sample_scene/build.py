"""Turn the renders of ``scene.py`` into the bundled ``sample.jpg`` and ``sample.json``."""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask

from picosam2._files import write_bytes, write_json
from picosam2.cli._exit_codes import run_script
from picosam2.masks import bbox, center_point

LICENCE = "Apache-2.0; modelled and rendered for this project, see tools/sample_scene"
QUALITY = 88
GRAIN = 2.2  # standard deviation of the sensor noise, in gray levels
FALL_OFF = 0.08  # how much darker the corners are than the center
MARGIN = 7  # pixels between a click and the edge of its object, where the object is that thick


def develop(render: np.ndarray) -> np.ndarray:
    """Give a noiseless (H, W, 3) uint8 render a lens's fall-off and a sensor's grain."""
    height, width = render.shape[:2]
    y, x = np.mgrid[:height, :width]
    reach = np.hypot(x - width / 2, y - height / 2) / np.hypot(width / 2, height / 2)
    rng = np.random.default_rng(2)
    # Most grain is brightness; a demosaiced sensor's color noise is weaker.
    grain = GRAIN * (rng.normal(size=(height, width, 1)) + 0.4 * rng.normal(size=render.shape))
    darkened = render * (1.0 - FALL_OFF * reach[..., None] ** 2)
    return np.clip(np.rint(darkened + grain), 0, 255).astype(np.uint8)


def click(mask: np.ndarray) -> list[float]:
    """A good click on a (H, W) bool mask: the center of a pixel well inside it, x first."""
    edge = 2 * MARGIN + 1
    pared = np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MinFilter(edge))) > 0
    center = center_point(pared if pared.any() else mask)
    return [int(center.x) + 0.5, int(center.y) + 0.5]


def describe(name: str, mask: np.ndarray) -> dict[str, object]:
    """One entry of sample.json."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    size = [int(side) for side in rle["size"]]
    return {
        "name": name,
        "point": click(mask),
        "box": bbox(mask),
        "rle": {"size": size, "counts": rle["counts"].decode("ascii")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("renders", type=Path, help="the folder that scene.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two assets")
    options = parser.parse_args()

    names = json.loads((options.renders / "ids.json").read_text())
    ids = np.asarray(Image.open(options.renders / "ids.png").convert("RGB"))[..., 0]
    strangers = set(np.unique(ids).tolist()) - {0, *map(int, names)}
    if strangers:
        raise SystemExit(f"ids.png holds gray levels that are no object: {sorted(strangers)}")
    render = np.asarray(Image.open(options.renders / "render.png").convert("RGB"))
    if render.shape[:2] != ids.shape:
        raise SystemExit("render.png and ids.png differ in size: render both again")

    jpeg = io.BytesIO()
    Image.fromarray(develop(render)).save(jpeg, "JPEG", quality=QUALITY, optimize=True)
    write_bytes(options.out / "sample.jpg", jpeg.getvalue())
    objects = [describe(name, ids == int(gray)) for gray, name in names.items()]
    write_json(
        options.out / "sample.json",
        {"image": "sample.jpg", "license": LICENCE, "objects": objects},
    )


if __name__ == "__main__":
    run_script(main)
