"""Numbers of things in words."""

from __future__ import annotations

import pytest

from picosam2._words import counted


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2,000 images")]
)
def test_one_is_singular(count: int, says: str) -> None:
    assert counted(count, "image") == says


def test_a_plural_of_its_own() -> None:
    assert counted(1, "image or object", "images or objects") == "1 image or object"
    assert counted(3, "image or object", "images or objects") == "3 images or objects"
