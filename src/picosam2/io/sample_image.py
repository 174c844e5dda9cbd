"""The bundled sample: a rendered still life, with the true mask of each of its objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.images import load_image
from picosam2.masks import rle_decode
from picosam2.prompts import Box, Point


@dataclass(frozen=True, eq=False)
class SampleObject:
    """One object of the sample: its mask (480, 640) bool, a click on it and its tight box."""

    name: str
    mask: npt.NDArray[np.bool_]
    point: Point
    box: Box


def sample() -> npt.NDArray[np.uint8]:
    """The sample image, (480, 640, 3) uint8 RGB."""
    return load_image(sample_bytes())


def sample_bytes() -> bytes:
    """The sample image as a JPEG file's bytes."""
    data = (resources.files("picosam2") / "assets" / _described()["image"]).read_bytes()
    return bytes(data)


def sample_objects() -> tuple[SampleObject, ...]:
    """The sample's objects."""
    return tuple(
        SampleObject(
            name=item["name"],
            mask=rle_decode(item["rle"]),
            point=Point(*item["point"]),
            box=Box(*item["box"]),
        )
        for item in _described()["objects"]
    )


def _described() -> dict[str, Any]:
    text = (resources.files("picosam2") / "assets" / "sample.json").read_text("utf-8")
    description: dict[str, Any] = json.loads(text)
    return description
