"""PicoSAM2 in napari: points and rectangles on an image become a labels layer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from picosam2 import Box, Point, Predictor, Prompt

if TYPE_CHECKING:
    import napari.layers
    import napari.types

open_predictor = cache(Predictor)
"""The network of weights, opened once."""


def segment(
    image: napari.layers.Image,
    clicks: napari.layers.Points | None = None,
    clicks_off_the_object: napari.layers.Points | None = None,
    boxes: napari.layers.Shapes | None = None,
    each_click_is_an_object: bool = False,
    weights: str = "default",
) -> napari.types.LayerDataTuple:
    """Segment a two-dimensional image.

    Args:
        image: gray, RGB or RGBA. What is not 8-bit color is taken by its contrast limits.
        clicks: points on an object, which together mark it.
        clicks_off_the_object: points that are not on it.
        boxes: rectangles, one object each; other shapes count by the box around them.
        each_click_is_an_object: every click marks an object of its own; none are off.
        weights: a shipped name or a file.

    Returns:
        The data of a labels layer, in which each object has a number: the object of the clicks, or
        the object of each click, then that of each box. Where two overlap, it has the later one's.

    Raises:
        ValueError: the image has other dimensions, or there is nothing to segment.
        PromptError: a click or a box makes no sense on this image.
    """
    pixels = as_rgb(image)
    on, off = points_of(clicks, image), points_of(clicks_off_the_object, image)
    prompts = []
    if each_click_is_an_object:
        if off:
            raise ValueError("points off the object need one object: untick the box")
        prompts += [Prompt((Point(x, y),)) for x, y in on]
    elif on:
        marked = [Point(x, y) for x, y in on] + [Point(x, y, positive=False) for x, y in off]
        prompts.append(Prompt(tuple(marked)))
    prompts += [Prompt(box=box) for box in boxes_of(boxes, image)]
    if not prompts:
        raise ValueError("add a points layer with a click, or a shapes layer with a rectangle")
    labels = np.zeros(pixels.shape[:2], np.uint16)
    for number, result in enumerate(open_predictor(weights)(pixels, prompts=prompts), 1):
        labels[result.mask] = number
    layer = {"name": f"{image.name} (PicoSAM2)", "scale": image.scale, "translate": image.translate}
    return labels, layer, "labels"


def as_rgb(image: napari.layers.Image) -> npt.NDArray[np.uint8]:
    """The pixels (H, W, 3) of a layer, RGB."""
    pixels = np.asarray(image.data)
    if image.ndim != 2:
        raise ValueError(
            f"PicoSAM2 takes images of two dimensions, and {image.name} has {image.ndim}"
        )
    if image.rgb:
        pixels = pixels[..., :3]
        low, high = (0.0, 255.0) if pixels.dtype == np.uint8 else (0.0, 1.0)
    else:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
        low, high = map(float, image.contrast_limits)
    if pixels.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return np.ascontiguousarray(pixels)
    scaled = (pixels.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)


def on_image(places: Any, layer: Any, image: napari.layers.Image) -> list[tuple[float, float]]:
    """Places of a layer as x, y on the image. napari's pixel centers are whole numbers."""
    positions = []
    for place in places:
        row, column = image.world_to_data(layer.data_to_world(place))[-2:]
        positions.append((float(column) + 0.5, float(row) + 0.5))
    return positions


def points_of(layer: Any, image: napari.layers.Image) -> list[tuple[float, float]]:
    """The points of a layer, if there is one."""
    return [] if layer is None else on_image(layer.data, layer, image)


def boxes_of(layer: Any, image: napari.layers.Image) -> list[Box]:
    """The boxes around the shapes of a layer, if there is one, cut to the image."""
    height, width = image.data.shape[:2]
    boxes = []
    for shape in [] if layer is None else layer.data:
        corners = np.array(on_image(shape, layer, image))
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        boxes.append(Prompt(box=Box(x0, y0, x1, y1)).clipped(height, width).box)
    return boxes
