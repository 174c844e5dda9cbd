"""The split: a share of the images, the same for copies, and stable."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from picosam2.data.split import NEAR, dhash, in_validation, split
from picosam2.images import load_image


def test_the_hash_compares_neighbors_of_a_nine_by_eight_image() -> None:
    rng = np.random.default_rng(0)
    cells = rng.permutation(72).reshape(8, 9).astype(np.uint8) * 3
    image = np.repeat(np.repeat(cells, 10, 0), 12, 1)
    bits = "".join(str(int(row[i + 1] > row[i])) for row in cells for i in range(8))
    assert dhash(np.repeat(image[:, :, None], 3, 2)) == int(bits, 2)
    assert dhash(np.zeros((5, 7, 3), np.uint8)) == 0


def test_a_smaller_and_coarser_copy_is_near() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image = coarse.resize((320, 240), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        image.resize((155, 117), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=75)
        difference = dhash(np.asarray(image)) ^ dhash(load_image(stream.getvalue()))
        assert difference.bit_count() <= NEAR


def test_the_share_and_the_seed() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 4000).tolist()
    kept = np.array([in_validation(h, 0, 0.1) for h in hashes])
    assert 0.08 < kept.mean() < 0.12
    assert not any(in_validation(h, 0, 0.0) for h in hashes)
    # A larger share keeps what a smaller one had; another seed chooses others.
    more = np.array([in_validation(h, 0, 0.3) for h in hashes])
    assert (more | ~kept).all()
    other = np.array([in_validation(h, 1, 0.1) for h in hashes])
    assert (kept & other).mean() < 0.03
    # Images that resemble no other are on the side that their own hash says.
    assert split(hashes, 0, 0.1) == kept.tolist()


def test_groups_are_those_of_every_pair_compared() -> None:
    """Against the plain way: chains of near hashes, whatever the order they come in."""
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, 150, dtype=np.uint64).tolist()
    for index in rng.choice(len(hashes), 40, replace=False):
        start = hashes[index]
        for _ in range(rng.integers(1, 5)):  # a chain: its ends may be far apart
            for bit in rng.integers(0, 64, rng.integers(1, NEAR + 3)).tolist():
                start ^= 1 << bit
            hashes.append(start)
    hashes = [hashes[i] for i in rng.permutation(len(hashes))]
    hashes += hashes[:5]  # exact copies

    group = list(range(len(hashes)))
    for _ in hashes:  # let the smallest number spread until nothing changes
        before = list(group)
        for i, a in enumerate(hashes):
            for j, b in enumerate(hashes):
                if (a ^ b).bit_count() <= NEAR:
                    group[i] = group[j] = min(group[i], group[j])
        if group == before:
            break
    smallest = {
        g: min(h for h, other in zip(hashes, group, strict=True) if other == g) for g in group
    }
    expected = [in_validation(smallest[g], 7, 0.5) for g in group]
    assert split(hashes, 7, 0.5) == expected
    assert len(set(group)) < len(set(hashes)) - 50


def test_what_cannot_be_read_is_on_no_side() -> None:
    assert split([None, 5, None], 0, 1.0) == [False, True, False]
    assert split([None], 0, 1.0) == [False]
    assert split([], 0, 0.5) == []
