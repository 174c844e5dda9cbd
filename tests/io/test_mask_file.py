"""Masks from PNG files: which values mean the object."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import disc
from PIL import Image

from picosam2.errors import DataError
from picosam2.images import load_image
from picosam2.io.mask_file import read_mask_file

MASK = disc(30, 40, 20.5, 15.5, 9)
WHITE = MASK.astype(np.uint8) * np.uint8(255)


def saved(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(values, mode)
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 10, 10])
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (MASK, None),
        (MASK.astype(np.uint8), None),
        (WHITE, None),
        (MASK.astype(np.uint8) * np.uint8(7), None),
        (MASK.astype(np.uint8), "P"),
        (MASK.astype(np.uint16) * np.uint16(65535), None),
        (np.dstack([WHITE] * 3), None),
        (np.dstack([np.full((30, 40), 255, np.uint8), WHITE]), "LA"),
        (np.dstack([np.full((30, 40, 3), 99, np.uint8), WHITE]), None),
    ],
    ids=["1 bit", "0 and 1", "0 and 255", "0 and 7", "indexed", "16 bits", "RGB", "LA", "RGBA"],
)  # fmt: skip
def test_two_values_are_a_mask(tmp_path: Path, values: np.ndarray, mode: str | None) -> None:
    mask = read_mask_file(saved(tmp_path / "m.png", values, mode))
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, MASK)


def test_grays_are_probabilities(tmp_path: Path) -> None:
    soft = np.where(MASK, 230, 20).astype(np.uint8)
    soft[0, 0] = 51
    mask = read_mask_file(saved(tmp_path / "m.png", soft))
    assert mask.dtype == np.float32
    assert mask[0, 0] == pytest.approx(0.2)
    assert np.array_equal(mask > 0.5, MASK)


def test_one_value_is_all_or_nothing(tmp_path: Path) -> None:
    assert not read_mask_file(saved(tmp_path / "m.png", np.zeros((3, 4), np.uint8))).any()
    assert read_mask_file(saved(tmp_path / "m.png", np.full((3, 4), 255, np.uint8))).all()


def test_numbers_of_several_objects(tmp_path: Path) -> None:
    numbers = np.zeros((3, 4), np.uint16)
    numbers[0], numbers[1] = 1, 300
    with pytest.raises(DataError, match="numbers of 2 objects"):
        read_mask_file(saved(tmp_path / "m.png", numbers))


def test_more_pixels_than_an_image_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.png", MASK)
    monkeypatch.setattr("picosam2.io.mask_file.MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="may have up to"):
        read_mask_file(path)


def test_an_image_and_a_mask_read_at_once_leave_the_warning_filters_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing them is global: the one that began first must not end first."""
    image, mask = tmp_path / "image.jpg", tmp_path / "mask.png"
    Image.new("RGB", (8, 8)).save(image)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(mask)
    opens, mask_is_open, image_is_open = Image.open, threading.Event(), threading.Event()
    mask_is_read = threading.Event()

    def slowly(*arguments: Any, formats: list[str], **keywords: Any) -> Image.Image:
        if formats == ["PNG"]:
            mask_is_open.set()
            image_is_open.wait(0.3)
        else:
            image_is_open.set()
            mask_is_read.wait(5)
        return opens(*arguments, formats=formats, **keywords)

    monkeypatch.setattr(Image, "open", slowly)
    filters = list(warnings.filters)
    try:
        with ThreadPoolExecutor(2) as pool:
            of_mask = pool.submit(read_mask_file, mask)
            mask_is_open.wait(5)
            of_image = pool.submit(load_image, image)
            assert of_mask.result().sum() == 8
            mask_is_read.set()
            assert of_image.result().shape == (8, 8, 3)
    finally:
        left, warnings.filters[:] = list(warnings.filters), filters
    assert left == filters
