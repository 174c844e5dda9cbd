"""ONNX Runtime on the CPU: the runtime that comes with the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError
from picosam2.images import channels_first, normalize
from picosam2.runtimes.metadata import parse_document
from picosam2.runtimes.onnx_file import HASH_KEY, read_onnx
from picosam2.runtimes.ort import import_onnxruntime, session_options
from picosam2.runtimes.protocol import (
    GUIDANCE_PLANES,
    RuntimeInfo,
    check_inputs,
    check_logits,
)
from picosam2.runtimes.reopen import OpenedFile, PerProcess

# Activations of a crop are a few MB: those of a larger batch leave the caches and are allocated
# anew each time. On one core a crop took 6 ms in batches of up to 8, and 12 to 24 ms of 64.
_MAX_BATCH = 8


class OnnxRuntime(OpenedFile):
    """ONNX Runtime on the CPU."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load an ONNX file that this project exported.

        Args:
            path: the file.
            threads: threads of one inference; by default as many as the process may use (`cpus`).

        Raises:
            WeightsError: missing, damaged, or not exported by this project.
        """
        self._path, self._threads = Path(path), threads
        data, self._info = read_weights(self._path)
        where, exact = self._path, self._info.metadata.exact
        self._session = PerProcess(lambda: start_session(data, where, threads, exact=exact))
        side = self._info.input_size
        inputs = {node.name: list(node.shape[1:]) for node in self._session().get_inputs()}
        guidance = inputs.pop("guidance", None)
        expected = [GUIDANCE_PLANES, side, side] if self._info.guidance else None
        fits = list(inputs.values()) == [[3, side, side]] and guidance == expected
        if not fits or not self._gives_logits():
            raise WeightsError(
                f"{path} does not take crops of {side} pixels to logits, as it says: export it "
                "again"
            )
        (self._input,) = inputs

    def _gives_logits(self) -> bool:
        """Whether the output `logits` has the shape that the metadata promises, where it is set."""
        shapes = {node.name: node.shape for node in self._session().get_outputs()}
        expected = (self._info.channels, self._info.output_size, self._info.output_size)
        shape = shapes.get("logits", ())
        return len(shape) == 4 and all(
            not isinstance(side, int) or side == wanted
            for side, wanted in zip(shape[1:], expected, strict=True)
        )

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""
        return self._info

    def __call__(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Like `Runtime.__call__`."""
        check_inputs(self._info, crops, guidance)
        starts = range(0, max(len(crops), 1), _MAX_BATCH)
        parts = [
            self._run(
                crops[start : start + _MAX_BATCH],
                None if guidance is None else guidance[start : start + _MAX_BATCH],
            )
            for start in starts
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.float32]:
        plain = self._info.metadata.normalizes
        feed: dict[str, Any] = {
            self._input: channels_first(crops).astype(np.float32) if plain else normalize(crops)
        }
        if self._info.guidance:
            shape = (len(crops), GUIDANCE_PLANES, *crops.shape[1:3])
            feed["guidance"] = np.zeros(shape, np.float32) if guidance is None else guidance
        logits: npt.NDArray[np.float32] = self._session().run(["logits"], feed)[0]
        check_logits(self._info, logits, len(crops))
        return logits


def start_session(data: bytes, path: Path, threads: int | None, *, exact: bool = False) -> Any:
    """A session of ONNX Runtime on the bytes of the file `path`.

    `exact` graphs stand for another device's arithmetic: nothing is to be fused.

    Raises:
        WeightsError: ONNX Runtime cannot run it.
    """
    onnxruntime = import_onnxruntime()
    options = session_options(threads)
    if _overflows():
        # INT8 weights only: exact sums there, at some cost in time.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen private kinds
        raise WeightsError(f"{path} is no ONNX file that can be run: {error}") from error


def read_weights(path: Path, name: str = "onnx") -> tuple[bytes, RuntimeInfo]:
    """The bytes of an ONNX file, checked, and what the runtime `name` holds that runs it.

    Raises:
        WeightsError: missing, damaged, not exported by this project, or a finder.
    """
    data, document = read_document(path)
    return data, RuntimeInfo.of_file(name, path, document)


def read_document(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an ONNX file, checked, and its metadata without the hash of the graph.

    Raises:
        WeightsError: missing, damaged, or not exported by this project.
    """
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}: check the path")
    data = path.read_bytes()
    try:
        file = read_onnx(data)
    except WeightsError as error:
        raise WeightsError(f"{path} is no ONNX file that can be run: {error}") from error
    if file.metadata is None:
        raise WeightsError(
            f"{path} is not a PicoSAM2 model: export one with `picosam2 export onnx`"
        )
    try:
        document = parse_document(file.metadata)
    except WeightsError as error:
        raise WeightsError(
            f"{path} does not say what it needs to ({error}): export it again"
        ) from error
    if document.pop(HASH_KEY, file.sha256) != file.sha256:
        raise WeightsError(
            f"{path} is damaged: its graph is not the one it was written with (if another tool "
            f"has changed it, take {HASH_KEY} out of its metadata)"
        )
    return data, document


def _overflows(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an x86 processor that adds products of uint8 and int8 in 16 bits.

    Those with AVX2 and without VNNI do, and onnxruntime lets them cut off what is too large.
    """
    try:
        with info.open() as stream:
            text = stream.read(8192)  # one core's part is enough
    except OSError:
        return False
    return "avx2" in text and "vnni" not in text
