"""Training or validation? Decided by what an image shows, so that copies of it stay together.

Data sets borrow images from one another and save them again, smaller and at another quality; video
frames follow each other. Images that look the same are one group, and a group is on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

_Item = TypeVar("_Item")

NEAR = 4
"""Bits, of 64, by which two difference hashes of one image may differ after it was re-saved.

Re-saving 100 COCO val2017 images at 400 pixels and JPEG quality 75 changed up to 3 bits, and none
in only 55 of them. Different images of that hundred were at least 12 bits apart.
"""

_CHUNKS = NEAR + 1  # two hashes that differ in no more than NEAR bits agree in one chunk at least
_CHUNK_BITS = 64 // _CHUNKS


def dhash(image: npt.NDArray[np.uint8]) -> int:
    """A 64-bit difference hash of an image (H, W, 3) uint8; see `NEAR` for comparing two.

    Source: N. Krawetz, "Kind of Like That", 2013.
    """
    gray = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    pixels = np.asarray(gray, np.int16)
    bits = (pixels[:, 1:] > pixels[:, :-1]).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def in_validation(image_hash: int, seed: int, share: float) -> bool:
    """Whether an image is kept for validation: a fixed function of its hash and the seed."""
    digest = hashlib.sha256(f"{seed}:{image_hash:016x}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split(hashes: Sequence[int | None], seed: int, share: float) -> list[bool]:
    """Which images, by their `dhash`, are kept for validation: about a `share` of the groups.

    A group is all images that are `NEAR` another of it; its smallest hash decides for it. None
    stands for an image that cannot be read, which is on no side.
    """
    known = np.unique(np.array([h for h in hashes if h is not None], np.uint64))
    decisive = dict(zip(known.tolist(), known[_groups(known)].tolist(), strict=True))
    return [h is not None and in_validation(decisive[h], seed, share) for h in hashes]


def _groups(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The index of the first hash of each one's group; `hashes` (N,) are different and rising."""
    first = np.arange(len(hashes))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = int(first[index])
        return index

    for chunk in range(_CHUNKS):
        keys = (hashes >> np.uint64(chunk * _CHUNK_BITS)) & np.uint64(2**_CHUNK_BITS - 1)
        order = np.argsort(keys, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(keys[order])) + 1, len(order))
        start = 0
        for end in ends.tolist():
            alike = order[start:end]
            for place, index in enumerate(alike[:-1].tolist()):
                others = alike[place + 1 :]
                near = np.bitwise_count(hashes[others] ^ hashes[index]) <= NEAR
                for other in others[near].tolist():
                    low, high = sorted((root(index), root(other)))
                    first[high] = low
            start = end
    return np.array([root(index) for index in range(len(hashes))], np.int64)


def spread(images: Sequence[_Item], count: int) -> tuple[_Item, ...]:
    """`count` images, or their numbers, at even distances in their order; 0: all.

    So every source is among them: a store's images stand source by source, and the first ones
    would be of one source only.
    """
    if not count or count >= len(images):
        return tuple(images)
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    return tuple(images[index] for index in chosen)
