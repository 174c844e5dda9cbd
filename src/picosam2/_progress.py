"""How long work reports its progress: the one protocol for it, whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback that receives the progress of a piece of work.

    A function that takes a while has the argument `progress: Progress | None = None` and calls it
    now and then. The command line passes a progress bar; any function with this signature will do.
    """

    def __call__(
        self, done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        """Receive the progress so far.

        Args:
            done: how many parts of the work are finished.
            total: how many there are; None if that is not known.
            what: the step that is being done, if the work has several.
            note: more to show beside the numbers, for instance a loss.
        """


def part_of(progress: Progress | None, *, name: str, before: int, whole: int) -> Progress:
    """The progress of one part of the work, as progress of the whole.

    Args:
        progress: receives the progress of the whole.
        name: the part's name.
        before: how much of the whole was finished before this part.
        whole: how much there is to do.
    """

    def report(
        done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        if progress:
            progress(before + done, whole, what=what or name, note=note)

    return report
