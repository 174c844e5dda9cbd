"""Were the photos that are measured on part of the training store? Then a score means little."""

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
    """An evaluated photo that the training store holds."""

    photo: str
    """Its file name."""
    stored: str
    """The store's file name, with its source."""
    why: str
    """`id`: same image id and file name; `picture`: same perceptual hash."""
    validation: bool
    """The store kept it for validation: it chose a checkpoint or a scorer, not the weights."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What the check found; `checked` photos were compared with `stored`."""

    checked: int
    stored: int
    fingerprint: str
    found: tuple[Leak, ...]

    @property
    def warning(self) -> str | None:
        """One sentence to print beside every score, or None if nothing met."""
        if not self.found:
            return None
        trained = sum(not leak.validation for leak in self.found)
        return (
            f"{len(self.found)} of the {self.checked} photos measured on are in the training store "
            f"({trained} of them trained on), for instance {self.found[0].photo}: "
            "these scores do not show how the weights do on new photos"
        )

    def to_json(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "checked": self.checked,
            "stored": self.stored,
            "store": self.fingerprint,
            "met": len(self.found),
            "trained_on": sum(not leak.validation for leak in self.found),
            "photos": [leak.photo for leak in self.found],
        }


def check_leaks(photos: Sequence[AnnotatedImage], store: Store) -> Leaks:
    """Compare photos with those of a store, by image id and file name and by picture.

    The store's validation photos count too. Photos that cannot be read are not compared.
    """
    stored = store.photos
    hashes = np.array([int(one["dhash"], 16) for one in stored], np.uint64)
    # An id alone says nothing: every data set starts counting at one.
    names = {(one["id"], one["file_name"]): index for index, one in enumerate(stored)}
    found: list[Leak] = []
    checked = 0
    for photo in photos:
        try:
            picture = load_image(photo.path)
        except ImageError:
            continue
        checked += 1
        index, why = names.get((photo.id, photo.path.name)), "id"
        if index is None and len(hashes):
            distance = np.bitwise_count(hashes ^ np.uint64(dhash(picture)))
            index, why = int(np.argmin(distance)), "picture"
            if distance[index] > NEAR:
                continue
        if index is None:
            continue
        one = stored[index]
        found.append(
            Leak(
                photo=photo.path.name,
                stored=f"{one['source']}/{one['file_name']}",
                why=why,
                validation=bool(one["validation"]),
            )
        )
    return Leaks(
        checked=checked, stored=len(stored), fingerprint=store.fingerprint, found=tuple(found)
    )
