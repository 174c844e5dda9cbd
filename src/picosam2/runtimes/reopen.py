"""Runtimes in other processes: one is copied and pickled as the file that it was opened from.

What runs a network (a session of ONNX Runtime, an interpreter) lives in one process: it cannot be
pickled, and after a fork its threads are missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from picosam2.errors import WeightsError

_Opened = TypeVar("_Opened")


class _HasHash(Protocol):
    @property
    def weights_sha256(self) -> str: ...


class OpenedFile:
    """A runtime of a class that opens a file by `cls(path, threads=...)`.

    Its copies open the file again. Shipped weights are found by their name, wherever the package
    lies there; other files by their absolute path.
    """

    _path: Path
    _threads: int | None

    @property
    def info(self) -> _HasHash:
        """What it runs."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        """How to open it again, which is what pickle and deepcopy do."""
        path = self._path.absolute()
        shipped = path.parent == _shipped_folder().absolute()
        place = path.name if shipped else str(path)
        return reopen, (type(self), place, self._threads, self.info.weights_sha256)


def reopen(kind: Callable[..., Any], place: str, threads: int | None, sha256: str) -> Any:
    """The runtime of class `kind` on the same file as another one, maybe in another process.

    Raises:
        WeightsError: the file is not there, or has changed.
    """
    path = Path(place)
    if not path.is_absolute():
        path = _shipped_folder() / path
    if not path.is_file():
        raise WeightsError(
            f"there are no weights at {path}, where another process has opened them: put the "
            "file at the same place on every machine"
        )
    runtime = kind(path, threads=threads)
    if runtime.info.weights_sha256 != sha256:
        raise WeightsError(
            f"{path} holds other weights than those that were opened before: use one file, and "
            "one release of picosam2, everywhere"
        )
    return runtime


class PerProcess(Generic[_Opened]):
    """Something that is opened once in every process that uses it, also in forked ones."""

    def __init__(self, start: Callable[[], _Opened]) -> None:
        """`start` opens it; it is called now, so that what is wrong shows at once."""
        self._start = start
        self._opened = start()
        self._process = os.getpid()
        self._inherited: list[_Opened] = []

    def __call__(self) -> _Opened:
        """This process's own."""
        if self._process != os.getpid():
            # The parent's is kept: closing it would wait for threads that are not here.
            self._inherited.append(self._opened)
            self._opened = self._start()
            self._process = os.getpid()
        return self._opened


def _shipped_folder() -> Path:
    return Path(str(resources.files("picosam2") / "assets" / "weights"))
