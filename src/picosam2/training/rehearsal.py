"""Rehearsal: a network that learns new objects goes on answering other images as before.

What a fine-tuned network is not shown, it forgets. The images it once learned from are not at hand,
but its own answers to any image are ("learning without forgetting", Li and Hoiem 2016), and the
image may be a drawn one (Baradad et al. 2021, "Learning to see by looking at noise"). So each step
also shows it windows of drawn images, with changed colors and some of them mixed, and what it
answered before the training is what it has to answer. The images are dead leaves (Lee, Mumford and
Huang 2001): many shapes over one another, whose sizes follow a power law as those of things do.

Shape suffixes: N windows that are kept, B windows of a step, S the crop's side, L the logits' side.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picosam2 import geometry
from picosam2.data.augment import AugmentConfig, Draws, _normalise, _photometric, _Uniforms
from picosam2.data.store import BOX, CLICK
from picosam2.models.devices import autocast
from picosam2.models.folding import fold_batchnorm
from picosam2.models.network import PicoSAM2, channel
from picosam2.prompts import Box, Point
from picosam2.training.losses import DistillConfig, probability_mse_dice, teacher_term

_IMAGES = 24
_HEIGHT, _WIDTH = 480, 640
_WINDOWS = 768  # half of them boxes', half of them clicks'
_BOX_SIDES = 0.05, 0.95  # shares of the image's long side, drawn log-uniformly
_ASPECT = 0.5  # standard deviation of the logarithm of a box's height over its width
_CLICK_HALVES = 0.02, 0.5
_MIXED = 0.3  # share of the windows that another one shines through
_COLORS = AugmentConfig(color=0.6, gray=0.15, blur=0.2, jpeg=0.2, noise=0.2)


class Rehearsal:
    """The loss of answers that differ from those of before, on windows of drawn images."""

    def __init__(
        self,
        model: PicoSAM2,
        *,
        batch: int,
        seed: int,
        precision: str = "fp32",
    ) -> None:
        """Keep `model` as it is now, draw the images and cut the windows.

        Args:
            model: with a logit channel for boxes and one for clicks.
            batch: windows of a step, at least 1.
            seed: of the images, the windows and all changes.
            precision: fp32, or bf16 by autocast.
        """
        self._before = fold_batchnorm(model).requires_grad_(False)
        self._before.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch, self._seed, self._precision = batch, seed, precision
        rng = np.random.default_rng(seed)
        images = [dead_leaves(rng) for _ in range(_IMAGES)]
        side = model.config.input_size
        kinds = np.arange(_WINDOWS) % 2 == 0
        self._kind_N = torch.where(torch.from_numpy(kinds), BOX, CLICK)
        self._crop_NSS3 = np.stack(
            [
                geometry.crop(images[rng.integers(_IMAGES)], _window(is_box, rng), side)
                for is_box in kinds.tolist()
            ]
        )

    def __call__(self, model: PicoSAM2, step: int) -> Tensor:
        """The mean loss of the windows of a step; a function of the seed and the step's number."""
        image_B3SS, kind_B = self._windows(step)
        with autocast("cpu", self._precision):
            with torch.no_grad():
                before_BLL = channel(self._before(image_B3SS)["logits"], kind_B).float()
            now_BLL = channel(model(image_B3SS)["logits"], kind_B).float()
        differs_B = teacher_term(now_BLL, before_BLL, DistillConfig())
        return (differs_B + probability_mse_dice(now_BLL, before_BLL)).mean()

    def _windows(self, step: int) -> tuple[Tensor, Tensor]:
        """The normalized crops (B, 3, S, S) of a step, and their kinds of prompt (B,)."""
        rng = np.random.default_rng((self._seed, step))
        rows = rng.integers(len(self._crop_NSS3), size=self._batch)
        image_B3SS = torch.from_numpy(self._crop_NSS3[rows]).permute(0, 3, 1, 2).float()
        flipped_B, mixed_B = rng.random(self._batch) < 0.5, rng.random(self._batch) < _MIXED
        image_B3SS = torch.where(_of(flipped_B), image_B3SS.flip(3), image_B3SS)
        share_B = np.where(mixed_B, rng.random(self._batch), 1).astype(np.float32)
        image_B3SS = image_B3SS.roll(1, 0).lerp(image_B3SS, _of(share_B))
        draws = Draws.of(self._batch, torch.Generator().manual_seed(self._seed * 1_000_003 + step))
        image_B3SS = image_B3SS.contiguous()
        image_B3SS = _photometric(image_B3SS, _Uniforms(draws), draws.tile_3TT, _COLORS)
        layout = torch.channels_last
        return _normalise(image_B3SS).contiguous(memory_format=layout), self._kind_N[rows]


def dead_leaves(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A drawn image (480, 640, 3) uint8: ellipses and polygons of few colors over one another."""
    image = np.empty((_HEIGHT, _WIDTH, 3), np.float32)
    image[:] = rng.uniform(0, 255, 3)
    colors = rng.uniform(0, 255, (rng.integers(3, 9), 3))
    for _ in range(rng.integers(60, 400)):
        shape = _shape(rng)
        left, top, width, height = cv2.boundingRect(shape)
        if not width:  # it lies outside the image
            continue
        part = slice(top, top + height), slice(left, left + width)
        inside = shape[part] > 0
        color = colors[rng.integers(len(colors))] + rng.normal(0, 25, 3)
        image[part][inside] = (color.clip(0, 255) + _surface(height, width, rng))[inside]
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    grain = rng.normal(0, rng.uniform(0, 5), image.shape)
    drawn: npt.NDArray[np.uint8] = (blurred + grain).clip(0, 255).astype(np.uint8)
    return drawn


def _shape(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An ellipse or a polygon anywhere in the image, (480, 640) uint8, 1 inside."""
    shape = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    radius = min(4 * rng.random() ** -0.8, 160.0)
    x, y = rng.uniform(0, _WIDTH), rng.uniform(0, _HEIGHT)
    if rng.random() < 1 / 3:
        axes = max(int(radius), 2), max(int(radius * rng.uniform(0.3, 1)), 2)
        cv2.ellipse(shape, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, 1, cv2.FILLED)
    else:
        corners = rng.integers(3, 9)
        angle = np.sort(rng.uniform(0, 2 * math.pi, corners))
        reach = radius * rng.uniform(0.5, 1.2, corners)
        outline = np.stack((x + reach * np.cos(angle), y + reach * np.sin(angle)), 1)
        cv2.fillPoly(shape, [outline.astype(np.int32)], 1)
    return shape


def _surface(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """What a shape's surface adds to its color, (height, width, 1): a texture and a shade."""
    surface = np.zeros((height, width))
    if rng.random() < 0.7:
        rows, columns = (max(2, int(side / rng.uniform(2, 30))) for side in (height, width))
        coarse = rng.normal(0, rng.uniform(5, 40), (rows, columns))
        surface += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.6:
        down, across = rng.normal(0, rng.uniform(10, 60), 2)
        y, x = np.mgrid[:height, :width]
        surface += down * (y / height - 0.5) + across * (x / width - 0.5)
    return surface[..., None]


def _window(is_box: bool, rng: np.random.Generator) -> geometry.Window:
    """The window of a box, or of a click, anywhere in the image."""
    center = Point(rng.uniform(0, _WIDTH), rng.uniform(0, _HEIGHT))
    if not is_box:
        return geometry.point_window(center, _WIDTH * _log_uniform(rng, *_CLICK_HALVES))
    across = _WIDTH * _log_uniform(rng, *_BOX_SIDES) / 2
    down = across * math.exp(rng.normal() * _ASPECT)
    x, y = center.x, center.y
    return geometry.box_window(Box(x - across, y - down, x + across, y + down))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _of(value_B: npt.NDArray[np.generic]) -> Tensor:
    """One value a sample, as a tensor that planes (B, 3, S, S) can be combined with."""
    return torch.from_numpy(value_B)[:, None, None, None]
