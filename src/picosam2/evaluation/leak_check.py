"""Check whether evaluated images were trained on: then their scores mean little.

What was trained on is a crop store, or a folder with the training images themselves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from picosam2.data.coco import AnnotatedImage
from picosam2.data.split import NEAR, dhash
from picosam2.data.store import Store
from picosam2.errors import DataError, ImageError
from picosam2.images import load_image


@dataclass(frozen=True, kw_only=True)
class Leak:
    """An evaluated image that the training store holds."""

    image: str
    """Its file name."""
    stored: str
    """The store's file name, with its source."""
    why: str
    """`id`: same image id and file name; `image`: same perceptual hash."""
    validation: bool
    """The store kept it for validation: it chose a checkpoint or a scorer, not the weights."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What the check found; `checked` images were compared with `stored`."""

    checked: int
    stored: int
    fingerprint: str
    leaks: tuple[Leak, ...]

    @property
    def warning(self) -> str | None:
        """One sentence to print beside every score, or None if there is no leak."""
        if not self.leaks:
            return None
        trained = sum(not leak.validation for leak in self.leaks)
        return (
            f"{len(self.leaks)} of the {self.checked} images measured on are in the training store "
            f"({trained} of them trained on), for instance {self.leaks[0].image}: "
            "these scores do not show how the weights do on new images"
        )

    def to_json(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "checked": self.checked,
            "stored": self.stored,
            "store": self.fingerprint,
            "met": len(self.leaks),
            "trained_on": sum(not leak.validation for leak in self.leaks),
            "photos": [leak.image for leak in self.leaks],
        }


class TrainingImages(Protocol):
    """What was trained on: one entry an image, with `id`, `file_name`, `source`, `dhash`."""

    @property
    def image_entries(self) -> list[dict[str, Any]]:
        """The entries; `dhash` is hexadecimal, and `validation` says what was held out."""

    @property
    def fingerprint(self) -> str:
        """What tells it from others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderImages:
    """The images of a folder, hashed as a store's are."""

    image_entries: list[dict[str, Any]]
    fingerprint: str


def training_images(place: Path) -> TrainingImages:
    """The store in `place`, or else every image in it and its folders, linked ones too.

    Raises:
        StoreError: a store that is damaged.
        DataError: there is no such folder, or no image in it.
    """
    if (place / "store.json").is_file():
        return Store(place)
    for file, what in (("dense.json", "dense masks"), ("cache.json", "a teacher's cache")):
        if (place / file).is_file():  # its drawings are no training images
            raise DataError(f"{place} holds {what}: give the store that was trained on")
    entries: list[dict[str, Any]] = []
    for folder, _, names in os.walk(place, followlinks=True):
        for name in sorted(names):
            try:
                hashed = dhash(load_image(Path(folder) / name))
            except ImageError:
                continue
            entries.append(
                {
                    # No id: those of a file of annotations are not known here.
                    "id": None,
                    "file_name": name,
                    "source": Path(folder).name,
                    "dhash": f"{hashed:016x}",
                    "validation": False,
                }
            )
    if not entries:
        raise DataError(f"{place} is no training store and holds no images: check the path")
    hashes = "".join(entry["dhash"] for entry in entries)
    return FolderImages(
        image_entries=entries, fingerprint=hashlib.sha256(hashes.encode()).hexdigest()
    )


def check_leaks(images: Sequence[AnnotatedImage], store: TrainingImages) -> Leaks:
    """Compare images with those of a store, by image id and file name and by perceptual hash.

    The store's validation images count too. Images that cannot be read are not compared.
    """
    stored = store.image_entries
    hashes = np.array([int(entry["dhash"], 16) for entry in stored], np.uint64)
    # An id alone is no proof: every data set starts counting at one.
    names = {(entry["id"], entry["file_name"]): index for index, entry in enumerate(stored)}
    leaks: list[Leak] = []
    checked = 0
    for image in images:
        try:
            pixels = load_image(image.path)
        except ImageError:
            continue
        checked += 1
        index, why = names.get((image.id, image.path.name)), "id"
        if index is None and len(hashes):
            distance = np.bitwise_count(hashes ^ np.uint64(dhash(pixels)))
            index, why = int(np.argmin(distance)), "image"
            if distance[index] > NEAR:
                continue
        if index is None:
            continue
        entry = stored[index]
        leaks.append(
            Leak(
                image=image.path.name,
                stored=f"{entry['source']}/{entry['file_name']}",
                why=why,
                validation=bool(entry["validation"]),
            )
        )
    return Leaks(
        checked=checked, stored=len(stored), fingerprint=store.fingerprint, leaks=tuple(leaks)
    )
