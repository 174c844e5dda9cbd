"""How the commands write numbers."""

from __future__ import annotations

import pytest

from picosam2.cli._text import size


@pytest.mark.parametrize(
    ("count", "text"),
    [(212, "0.2 kB"), (9_940, "9.9 kB"), (10_000, "0.01 MB"), (1_356_672_000, "1,356.67 MB")],
)
def test_a_size_is_never_shown_as_nothing(count: int, text: str) -> None:
    assert size(count) == text
