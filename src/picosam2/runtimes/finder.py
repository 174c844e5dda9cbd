"""Runs the finder: views of an image in, cells out. What is done with the cells is in `views`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from picosam2._files import sha256_file
from picosam2.errors import WeightsError, require
from picosam2.images import check_crops, normalize
from picosam2.models.views import FINDER, OUTPUTS, cell_count
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.litert import Interpreter
from picosam2.runtimes.onnx import read_document, start_session
from picosam2.runtimes.openvino import import_openvino, open_request
from picosam2.runtimes.reopen import OpenedFile, PerProcess
from picosam2.runtimes.session_pool import SessionPool
from picosam2.runtimes.weights import finder_file

_MAX_SIDE: Final = 4096

Views: TypeAlias = npt.NDArray[np.uint8]
Cells: TypeAlias = npt.NDArray[np.float32]


class BoxFinder(Protocol):
    """Finds boxes in views of an image."""

    @property
    def input_size(self) -> int:
        """Side of the views, pixels."""

    def __call__(self, views: Views) -> Cells:
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

    @classmethod
    def of_file(cls, path: Path, document: Mapping[str, Any]) -> FinderInfo:
        """By the metadata of a file. `WeightsError` if it is no finder's."""
        if document.get("kind") != FINDER:
            raise WeightsError(f"{path} is no finder: give one that `picosam2 train` made")
        size = document.get("input_size")
        if isinstance(size, bool) or not isinstance(size, int) or not 64 <= size <= _MAX_SIDE:
            raise WeightsError(f"{path} does not say how large its views are: export it again")
        return cls(input_size=size, weights_sha256=sha256_file(path), facts=document)


class FileFinder(OpenedFile):
    """A finder from a file: what is the same in every runtime."""

    _info: FinderInfo

    @property
    def info(self) -> FinderInfo:
        """What it runs."""
        return self._info

    @property
    def input_size(self) -> int:
        """Side of the views, pixels."""
        return self._info.input_size

    def __call__(self, views: Views) -> Cells:
        """Like `BoxFinder.__call__`."""
        check_crops(views)
        cells = self._run(views)
        expected = (len(views), OUTPUTS, cell_count(self.input_size))
        if cells.shape != expected:
            raise WeightsError(
                f"the finder answers with cells of shape {cells.shape}, not {expected}: export it "
                "again"
            )
        return cells

    def _run(self, views: Views) -> Cells:
        """The cells of checked views."""
        raise NotImplementedError


class OnnxFinder(FileFinder):
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
        self._info = FinderInfo.of_file(self._path, document)
        where, size = self._path, self.input_size
        self._session = PerProcess(lambda: start_session(data, where, threads))
        inputs = [list(node.shape[1:]) for node in self._session().get_inputs()]
        if inputs != [[3, size, size]]:
            raise _other_views(where, size)

    def _run(self, views: Views) -> Cells:
        cells: Cells = self._session().run(["cells"], {"image": normalize(views)})[0]
        return cells


class OpenVinoFinder(FileFinder):
    """A finder in OpenVINO on the CPU, in full precision; views go one by one."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load a finder's ONNX file that this project exported.

        Args:
            path: the file.
            threads: threads of one inference; by default OpenVINO's choice.

        Raises:
            WeightsError: missing, damaged, or no finder.
            MissingExtraError: OpenVINO is not installed.
        """
        openvino = import_openvino()
        self._path, self._threads = Path(path), threads
        _, document = read_document(self._path)
        self._info = FinderInfo.of_file(self._path, document)
        where, size = self._path, self.input_size

        def start() -> Callable[[Views], Cells]:
            request, _ = open_request(
                openvino, where, lambda model: {"image": [1, 3, size, size]}, threads, "cells",
                f"does not take views of {size} pixels to cells",
            )  # fmt: skip

            def run(view: Views) -> Cells:
                cells: Cells = request.infer({"image": normalize(view)})["cells"].copy()
                return cells

            return run

        self._pool = SessionPool(start)

    def _run(self, views: Views) -> Cells:
        with self._pool.session() as session:
            return np.concatenate([session(views[i : i + 1]) for i in range(len(views))])


class LiteRtFinder(FileFinder):
    """A finder in LiteRT on the CPU, in floating point or in integers; views go one by one."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load a file that `picosam2 export litert` wrote of a finder.

        Args:
            path: the file.
            threads: threads of one inference; by default as many as the process may use.

        Raises:
            WeightsError: missing, damaged, or no finder.
            MissingExtraError: LiteRT is not installed.
        """
        require("ai_edge_litert.interpreter", "litert")
        self._path, self._threads = Path(path), threads
        file = read_device_file(path, "litert")
        self._info = FinderInfo.of_file(self._path, file.facts)
        where, size = self._path, self.input_size

        def start() -> Interpreter:
            interpreter = Interpreter(where, file.model, threads)
            promised = (1, OUTPUTS, cell_count(size))
            if (
                not interpreter.fits
                or interpreter.shapes != [(1, size, size, 3)]
                or interpreter.answer_shape != promised
            ):
                raise _other_views(where, size)
            return interpreter

        self._pool = SessionPool(start)

    def _run(self, views: Views) -> Cells:
        with self._pool.session() as interpreter:
            return np.concatenate([interpreter(views[i : i + 1]) for i in range(len(views))])


def _other_views(path: Path, size: int) -> WeightsError:
    return WeightsError(
        f"{path} does not take views of {size} pixels to cells, as it says: export it again"
    )


@lru_cache(maxsize=2)
def opened_finder(
    weights: str = FINDER, threads: int | None = None, runtime: str = "onnx"
) -> FileFinder:
    """A finder by its shipped name or a path, opened once.

    A file's ending chooses what runs it, `.onnx` or `.tflite`; with the runtime `openvino` it is
    OpenVINO that runs the `.onnx` file.

    Raises:
        WeightsError: it cannot be used.
        MissingExtraError: what runs it is not installed.
    """
    path = finder_file(weights)
    kinds: dict[str, type[OnnxFinder | OpenVinoFinder | LiteRtFinder]] = {
        ".onnx": OpenVinoFinder if runtime == "openvino" else OnnxFinder,
        ".tflite": LiteRtFinder,
    }
    if path.suffix.lower() not in kinds:
        raise WeightsError(
            f"{path} cannot be run as a finder: give an .onnx or a .tflite file, which `picosam2 "
            "export` makes"
        )
    return kinds[path.suffix.lower()](path, threads=threads)
