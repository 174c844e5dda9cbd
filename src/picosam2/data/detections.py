"""A detector's boxes for images, from a file of JSON lines.

A line is one image: `{"source": NAME, "image_id": ID, "boxes": [[x0, y0, x1, y1, score], ...]}`, in
pixels of the image, with scores from 0 to 1. The source and the id are those of a store, or of an
annotation file (docs/training.md). Any detector can write it.

Shape suffixes: M boxes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from picosam2.data.image_store import ImageStore
from picosam2.errors import ConfigError

_Floats = npt.NDArray[np.float32]

ImageKey: TypeAlias = tuple[str, int]
"""The source and the id of an image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The boxes of a file."""

    fingerprint: str
    """SHA-256 of the file."""
    boxes: dict[ImageKey, _Floats]
    """By image, (M, 5): x0, y0, x1, y1 and the score, best first."""

    def of_image(self, key: ImageKey) -> _Floats:
        """The boxes (M, 5) of an image; M is 0 without a line."""
        return self.boxes.get(key, np.zeros((0, 5), np.float32))

    def of_store(self, store: ImageStore) -> list[_Floats]:
        """The boxes of every image of a store.

        Raises:
            ConfigError: the file names an image that the store lacks.
        """
        names = store.source_names
        keys = [(names[image["source"]], int(image["id"])) for image in store.images]
        if unknown := self.boxes.keys() - set(keys):
            source, image_id = min(unknown)
            raise ConfigError(
                f"the detector's boxes are of other images: the store has no image {image_id} of "
                f"the source {source!r}"
            )
        return [self.of_image(key) for key in keys]


def read_detections(path: Path) -> Detections:
    """Read a file of boxes.

    Raises:
        ConfigError: the file cannot be read, a line is not of the form above, or an image is there
            twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    boxes: dict[ImageKey, _Floats] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            key, detected = _parsed(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise ConfigError(f"line {number} of {path} does not hold an image's boxes") from error
        if key in boxes:
            raise ConfigError(f"line {number} of {path}: image {key[1]} of {key[0]!r} again")
        boxes[key] = detected
    return Detections(fingerprint=hashlib.sha256(content).hexdigest(), boxes=boxes)


def _parsed(line: dict[str, Any]) -> tuple[ImageKey, _Floats]:
    boxes = np.array(line["boxes"], np.float32).reshape(-1, 5)
    low, high, score = boxes[:, :2], boxes[:, 2:4], boxes[:, 4]
    if not np.isfinite(boxes).all() or (low >= high).any() or ((score < 0) | (score > 1)).any():
        raise ValueError("no boxes")
    order = np.argsort(-score, kind="stable")
    return (str(line["source"]), int(line["image_id"])), boxes[order]
