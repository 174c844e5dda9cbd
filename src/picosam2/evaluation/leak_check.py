"""Check whether evaluated images are in the training store: then their scores mean little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from picosam2.data.coco import AnnotatedImage
from picosam2.data.split import NEAR, dhash
from picosam2.data.store import Store
from picosam2.errors import ImageError
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


def check_leaks(images: Sequence[AnnotatedImage], store: Store) -> Leaks:
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
