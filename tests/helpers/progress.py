"""A `Progress` that keeps what it received."""

from __future__ import annotations


class Recorded:
    """Keeps (done, total) of each call, and beside them what was being done and the notes."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int | None]] = []
        self.names: list[str | None] = []
        self.notes: list[str] = []

    def __call__(
        self, done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        self.counts.append((done, total))
        self.names.append(what)
        self.notes.append(note)
