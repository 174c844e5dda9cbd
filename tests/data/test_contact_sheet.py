"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tiny import make_store
from PIL import Image

from picosam2.data.contact_sheet import contact_sheet, grid
from picosam2.errors import ConfigError
from picosam2.results import PALETTE

pytest.importorskip("pycocotools")


def test_a_grid():
    tiles = np.zeros((3, 5, 7, 3), np.uint8)
    tiles[1] = 9
    sheet = np.asarray(grid(tiles, 2))
    assert sheet.shape == (2 * 9 + 4, 2 * 11 + 4, 3)
    assert (sheet[4:9, 15:22] == 9).all()
    assert (sheet[:4] == 255).all()
    assert (sheet[13:, 15:] == 255).all()


def test_a_sheet_tints_the_masks(tmp_path):
    store = make_store(tmp_path, 4)
    assert contact_sheet(store, tmp_path / "sheet.png", count=100) == len(store)
    assert contact_sheet(store, tmp_path / "one.png", count=1, view="box") == 1
    with Image.open(tmp_path / "one.png") as opened:
        middle = np.asarray(opened)[4 + 32, 4 + 32].astype(int)
    row = store.gather(np.flatnonzero(store.records["view"] == 0))[:, 32, 32, :3].astype(int)
    tinted = np.rint((row + np.array(PALETTE[0])) / 2)
    assert np.abs(tinted - middle).max(1).min() <= 1


def test_the_seed_chooses(tmp_path):
    store = make_store(tmp_path, 4)
    images = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        contact_sheet(store, tmp_path / f"{name}.png", count=3, seed=seed)
        images.append((tmp_path / f"{name}.png").read_bytes())
    assert images[0] == images[1] != images[2]


def test_mistakes(tmp_path):
    store = make_store(tmp_path, 4)
    with pytest.raises(ConfigError, match=r"end it in \.png or \.jpg"):
        contact_sheet(store, tmp_path / "sheet.tif")
    with pytest.raises(ConfigError, match="no view 'box-square'; it has box"):
        contact_sheet(store, tmp_path / "sheet.png", view="box-square")
