"""A synthetic clip whose every mask is known: an object of the sample image moves over a ground.

The ground is the sample's table with other objects of the sample lying on it. The object moves,
changes its size, passes behind something, and leaves the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2.io.sample_image import SampleObject, sample, sample_objects
from picosam2.prompts import Box

HEIGHT, WIDTH = 480, 640


@dataclass(frozen=True)
class Pose:
    """Where the object is in one frame: its middle in pixels, and its size."""

    x: float
    y: float
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (N, H, W, 3) uint8; what is to be seen of the object (N, H, W) bool; its whole area.

    `share` (N,) is the part of the object that is in sight.
    """

    frames: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    share: npt.NDArray[np.float64]

    def box(self, index: int) -> Box:
        """The tight box of the object in one frame."""
        rows, columns = np.nonzero(self.masks[index])
        return Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def ground() -> npt.NDArray[np.uint8]:
    """The table alone, (480, 640, 3) uint8."""
    table = sample()[400:480]
    tile = np.concatenate([table, table[::-1]])
    return np.concatenate([tile] * 3)


def make_clip(
    name: str,
    poses: list[Pose],
    *,
    lying: dict[str, tuple[int, int]] | None = None,
    hiding: dict[str, tuple[int, int]] | None = None,
    seed: int = 0,
) -> Clip:
    """Move object `name` through `poses`, over the objects `lying` and under those `hiding` it.

    Both map names to the place of the middle. The frames have a camera's noise.
    """
    rng = np.random.default_rng(seed)
    objects = {sample_object.name: sample_object for sample_object in sample_objects()}
    below = ground()
    for other, (x, y) in (lying or {}).items():
        _lay(below, *_sprite(objects[other], 1.0), x, y)
    frames, truths, shares = [], [], []
    for pose in poses:
        frame = below.copy()
        patch, cover = _sprite(objects[name], pose.scale)
        seen = _lay(frame, patch, cover, pose.x, pose.y)
        whole = float((cover > 0.5).sum())
        for other, (x, y) in (hiding or {}).items():
            seen &= ~_lay(frame, *_sprite(objects[other], 1.0), x, y)
        noise = rng.normal(0, 2, frame.shape)
        frames.append(np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8))
        truths.append(seen)
        shares.append(float(seen.sum()) / whole)
    return Clip(np.stack(frames), np.stack(truths), np.array(shares))


def _sprite(
    thing: SampleObject, scale: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """An object's pixels (h, w, 3) and its cover (h, w), 0..1, at a size."""
    place = np.s_[int(thing.box.y0) : int(thing.box.y1), int(thing.box.x0) : int(thing.box.x1)]
    cover = thing.mask[place].astype(np.uint8) * np.uint8(255)
    size = max(round(cover.shape[1] * scale), 1), max(round(cover.shape[0] * scale), 1)
    image = Image.fromarray(sample()[place]).resize(size, Image.Resampling.BILINEAR)
    shape = Image.fromarray(cover).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, float), np.asarray(shape, float) / 255


def _lay(
    frame: npt.NDArray[np.uint8],
    patch: npt.NDArray[np.float64],
    cover: npt.NDArray[np.float64],
    x: float,
    y: float,
) -> npt.NDArray[np.bool_]:
    """Draw a sprite with its middle at (x, y); where it covers the frame, (H, W) bool."""
    height, width = cover.shape
    top, left = round(y - height / 2), round(x - width / 2)
    rows = np.s_[max(top, 0) : min(top + height, HEIGHT)]
    columns = np.s_[max(left, 0) : min(left + width, WIDTH)]
    covered = np.zeros((HEIGHT, WIDTH), np.bool_)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return covered
    inner = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    part = cover[inner][:, :, None]
    frame[rows, columns] = np.rint(frame[rows, columns] * (1 - part) + patch[inner] * part)
    covered[rows, columns] = cover[inner] > 0.5
    return covered


def journey(count: int = 60) -> list[Pose]:
    """Across the frame from the left, with a bow and a change of size; out of it at the end."""
    poses = []
    for i in range(count):
        t = i / (count - 1)
        poses.append(
            Pose(
                x=90 + 720 * t,
                y=250 - 90 * np.sin(2 * np.pi * t),
                scale=0.8 + 0.5 * np.sin(np.pi * t),
            )
        )
    return poses
