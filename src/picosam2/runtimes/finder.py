"""Runs the finder: views of an image in, cells out. What is done with the cells is in `views`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from picosam2._files import sha256_file
from picosam2.errors import WeightsError
from picosam2.images import check_crops, normalize
from picosam2.models.views import OUTPUTS, cell_count
from picosam2.runtimes.onnx import read_document, start_session
from picosam2.runtimes.reopen import OpenedFile, PerProcess
from picosam2.runtimes.weights import FINDER, finder_file

_MAX_SIDE: Final = 4096


class BoxFinder(Protocol):
    """Finds boxes in views of an image."""

    @property
    def input_size(self) -> int:
        """Side of the views, pixels."""

    def __call__(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Views (B, S, S, 3) RGB uint8 to cells (B, 5, N) float32; see `views.OUTPUTS`."""


@dataclass(frozen=True, kw_only=True)
class FinderInfo:
    """What is known of a finder's weights."""

    input_size: int
    """Side of the views, pixels."""
    weights_sha256: str
    """Of the weights file."""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All that the weights file says of itself."""


class OnnxFinder(OpenedFile):
    """A finder in ONNX Runtime on the CPU."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load a finder's ONNX file that this project exported.

        Args:
            path: the file.
            threads: threads of one inference; by default as many as the process may use.

        Raises:
            WeightsError: missing, damaged, or no finder.
        """
        self._path, self._threads = Path(path), threads
        data, document = read_document(self._path)
        if document.get("kind") != FINDER:
            raise WeightsError(f"{path} is no finder: give one that `picosam2 train` made")
        size = document.get("input_size")
        if isinstance(size, bool) or not isinstance(size, int) or not 64 <= size <= _MAX_SIDE:
            raise WeightsError(f"{path} does not say how large its views are: export it again")
        self._info = FinderInfo(
            input_size=size, weights_sha256=sha256_file(self._path), facts=document
        )
        where = self._path
        self._session = PerProcess(lambda: start_session(data, where, threads))
        inputs = [list(node.shape[1:]) for node in self._session().get_inputs()]
        if inputs != [[3, size, size]]:
            raise WeightsError(f"{path} does not take views of {size} pixels, as it says: export "
                               "it again")  # fmt: skip

    @property
    def info(self) -> FinderInfo:
        """What it runs."""
        return self._info

    @property
    def input_size(self) -> int:
        """Side of the views, pixels."""
        return self._info.input_size

    def __call__(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Like `BoxFinder.__call__`."""
        check_crops(views)
        cells: npt.NDArray[np.float32] = self._session().run(
            ["cells"], {"image": normalize(views)}
        )[0]
        expected = (len(views), OUTPUTS, cell_count(self.input_size))
        if cells.shape != expected:
            raise WeightsError(
                f"the finder answers with cells of shape {cells.shape}, not {expected}: export it "
                "again"
            )
        return cells


@lru_cache(maxsize=2)
def opened_finder(weights: str = FINDER, threads: int | None = None) -> OnnxFinder:
    """A finder by its shipped name or a path, opened once. `WeightsError` if it cannot be used."""
    return OnnxFinder(finder_file(weights), threads=threads)
