"""Numbers of things in words."""

from __future__ import annotations


def counted(count: int, name: str, names: str | None = None) -> str:
    """A number of things in words: "1 image", "2,000 images"."""
    return f"{count:,} {name if count == 1 else names or name + 's'}"
