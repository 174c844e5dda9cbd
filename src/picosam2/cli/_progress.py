"""How far a long command is: a bar on a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from picosam2._progress import Progress

_EVERY_S = 10.0  # between lines where there is no terminal


@contextmanager
def progress(what: str, unit: str) -> Iterator[Progress]:
    """Show the progress of `what`, counted in `unit` ("images"; "bytes" are shown as MB).

    Nothing is shown before the first call, so of several processes only one need show it.
    """
    if sys.stderr.isatty():
        with _bar(what, unit) as update:
            yield update
    else:
        yield _Lines(what, unit)


class _Lines:
    """A line at most every `_EVERY_S` seconds, and one at the end of each task."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._said = time.monotonic()
        self._last = ""

    def __call__(
        self, done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        self._what = what or self._what
        now = time.monotonic()
        if now - self._said < _EVERY_S and done != total:
            return
        line = ", ".join(x for x in (f"{self._what}: {amount(done, total, self._unit)}", note) if x)
        if line != self._last:
            print(line, file=sys.stderr, flush=True)
        self._said, self._last = now, line


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Progress]:
    import rich.progress
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = rich.progress.Progress(*columns, console=Console(stderr=True))
    task: TaskID | None = None

    def update(
        done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        nonlocal task
        if task is None:
            task = shown.add_task(title, total=None, amount="", note="")
            shown.start()
        amount_text = amount(done, total, unit)
        shown.update(
            task, completed=done, total=total, amount=amount_text, note=note, description=what
        )

    try:
        yield update
    finally:
        if task is not None:
            shown.stop()


def amount(done: int, total: int | None, unit: str) -> str:
    """ "12/48 images", "1.2/815.6 MB", or without the total where it is not known."""
    if unit == "bytes":
        numbers, unit = [f"{n / 1e6:,.1f}" for n in (done, total) if n is not None], "MB"
    else:
        numbers = [f"{n:,}" for n in (done, total) if n is not None]
    return f"{'/'.join(numbers)} {unit}"
