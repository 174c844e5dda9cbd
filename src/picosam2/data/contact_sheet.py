"""Contact sheets: many small images on one, to see at a glance what a store holds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from picosam2._files import write_bytes
from picosam2.data.store import Store
from picosam2.errors import ConfigError, StoreError
from picosam2.results import PALETTE, encode_image

_GAP = 4  # pixels between tiles
_TINT = 0.5  # opacity

BOTH, ONLY_TRUTH, ONLY_MASK = PALETTE[2], PALETTE[0], PALETTE[1]
"""Green, blue and orange: how a mask is drawn beside the true one."""


def contact_sheet(
    store: Store, out: Path, *, count: int = 48, view: str | None = None, seed: int = 0
) -> int:
    """Write an image of random context crops with their masks tinted; how many it shows.

    Each view has a color of its own. `view` shows that one only. `out` ends in .png or .jpg.

    Raises:
        ConfigError: the store has no such view, or `out` has another ending.
        StoreError: there is nothing to show.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"{out} is no name for an image: end it in .png or .jpg")
    if view is not None and view not in store.view_names:
        raise ConfigError(f"the store has no view {view!r}; it has {', '.join(store.view_names)}")
    rows = np.arange(len(store))
    if view is not None:
        rows = np.flatnonzero(store.records["view"] == store.view_names.index(view))
    if not len(rows):
        raise StoreError(f"{store.path} has no crops to show")
    rows = np.random.default_rng(seed).permutation(rows)[:count]
    rows = rows[np.argsort(store.records["view"][rows], kind="stable")]
    crops = store.gather(rows)
    colors = np.array(PALETTE, np.float32)[store.records["view"][rows] % len(PALETTE)]
    share = crops[..., 3:].astype(np.float32) * (_TINT / 255)
    tinted = crops[..., :3] + share * (colors[:, None, None] - crops[..., :3])
    sheet = grid(np.rint(tinted).astype(np.uint8), math.ceil(math.sqrt(1.5 * len(rows))))
    write_bytes(out, encode_image(sheet, "PNG" if out.suffix.lower() == ".png" else "JPEG"))
    return len(rows)


def agreement(
    image: npt.NDArray[np.uint8], truth: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """An image (h, w, 3) uint8 RGB with two masks (h, w): `BOTH`, `ONLY_TRUTH`, `ONLY_MASK`."""
    drawn = image.astype(np.float32)
    for part, color in (
        (truth & mask, BOTH),
        (truth & ~mask, ONLY_TRUTH),
        (~truth & mask, ONLY_MASK),
    ):
        drawn[part] += _TINT * (np.array(color, np.float32) - drawn[part])
    return np.rint(drawn).astype(np.uint8)


def grid(tiles: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """Tiles (N, h, w, 3) uint8 RGB in rows of `columns`, with white gaps."""
    count, height, width, _ = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        y = _GAP + index // columns * (height + _GAP)
        x = _GAP + index % columns * (width + _GAP)
        canvas[y : y + height, x : x + width] = tile
    return Image.fromarray(canvas)


def caption(tile: Image.Image, text: str) -> None:
    """Write `text` into the top left corner of a tile."""
    draw = ImageDraw.Draw(tile)
    draw.text((6, 4), text, fill="white", stroke_width=2, stroke_fill="black", font_size=14)
