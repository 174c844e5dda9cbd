"""The images of the README and the documentation, from the shipped weights and the sample.

    python tools/figures/readme.py --out docs/images

hero.png: the sample, a click or box on each thing, and the masks that come back.
window.png: how a click and a box become the crops that the network sees.
everything.jpg: what everything mode finds in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from picosam2 import geometry
from picosam2.cli._exit_codes import run_script
from picosam2.geometry import Window
from picosam2.io.formats import colors
from picosam2.io.sample_image import SampleObject, sample, sample_objects
from picosam2.predictor import CLICK_CHANNEL, Predictor
from picosam2.results import PALETTE, overlay
from picosam2.tasks.everything import everything

INK = "#1f2328"


def main() -> None:
    """Write the images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="default")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(args.weights)
    hero(predictor).save(args.out / "hero.png", optimize=True)
    window(predictor, args.out / "window.png")
    segmentations = everything(sample(), predictor)
    overlay(sample(), segmentations, colors=colors(len(segmentations)), prompts=False).save(
        args.out / "everything.jpg", quality=90
    )


def hero(predictor: Predictor) -> Image.Image:
    """The sample with every object's mask: boxes for the large, clicks where one click does."""
    image, things = sample(), sample_objects()
    boxes = [(t.box.x0, t.box.y0, t.box.x1, t.box.y1) for t in things]
    segmentations = predictor(image, boxes=boxes)
    before = Image.fromarray(image)
    after = overlay(image, segmentations)
    both = Image.new("RGB", (before.width * 2 + 8, before.height), "white")
    both.paste(before, (0, 0))
    both.paste(after, (before.width + 8, 0))
    return both


def window(predictor: Predictor, path: Path) -> None:
    """Image with windows on the left, what the network sees and says on the right."""
    image = sample()
    thing = next(t for t in sample_objects() if t.name == "apple")
    clicked, boxed = _windows(thing, *image.shape[:2])
    fig = plt.figure(figsize=(12, 4.2), dpi=110)
    grid = fig.add_gridspec(
        2, 8, width_ratios=(1, 1, 1, 1, 0.15, 1.35, 1.35, 1.35), wspace=0.08, hspace=0.16
    )
    axes = fig.add_subplot(grid[:, :4])
    axes.imshow(image)
    for number, clicked_window in enumerate(clicked):
        _frame(axes, clicked_window, _color(0), "windows of a click" if number == 0 else None)
    _frame(axes, boxed, _color(1), "window of a box")
    axes.plot(thing.point.x, thing.point.y, "o", color=_color(0), mec="white", ms=8)
    box = thing.box
    axes.add_patch(
        Rectangle((box.x0, box.y0), box.width, box.height, fill=False, ec=_color(1), ls=":", lw=1.5)
    )
    axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    axes.legend(loc="upper right", framealpha=0.9, fontsize=9)
    axes.set_title("the prompt is where the window is", fontsize=11, color=INK)
    axes.axis("off")
    shown = [*clicked[2:4], boxed]
    titles = ["click, 3rd window", "click, 4th window", "box"]
    for column, (window_shown, title) in enumerate(zip(shown, titles, strict=True)):
        channel = CLICK_CHANNEL if column < 2 else 0
        logits = predictor.window_logits(image, [window_shown], channel)[0]
        seen = geometry.crop(image, window_shown, predictor.runtime.info.input_size)
        _panel(fig.add_subplot(grid[0, 5 + column]), seen, title)
        _panel(fig.add_subplot(grid[1, 5 + column]), _shaded(logits), "mask")
    fig.savefig(path, bbox_inches="tight", facecolor="white")
    plt.close(fig)


def _windows(thing: SampleObject, height: int, width: int) -> tuple[list[Window], Window]:
    clicked = list(geometry.click_windows(thing.point, height, width))
    return clicked[:5], geometry.box_window(thing.box)


def _color(index: int) -> tuple[float, float, float]:
    red, green, blue = PALETTE[index]
    return red / 255, green / 255, blue / 255


def _frame(axes: Axes, window: Window, color: tuple[float, ...], label: str | None) -> None:
    corner = (window.x0, window.y0)
    axes.add_patch(
        Rectangle(corner, window.width, window.height, fill=False, ec=color, lw=2, label=label)
    )


def _panel(axes: Axes, pixels: npt.NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels, interpolation="nearest", cmap="gray")
    axes.set_title(title, fontsize=8.5, color=INK)
    axes.set(xticks=[], yticks=[])


def _shaded(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    shade: npt.NDArray[np.uint8] = (255 / (1 + np.exp(-logits))).astype(np.uint8)
    return shade


if __name__ == "__main__":
    run_script(main)
