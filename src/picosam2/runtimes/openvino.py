"""OpenVINO: Intel's runtime, on the same ONNX files as ONNX Runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.images import normalize
from picosam2.runtimes.cpus import default_threads
from picosam2.runtimes.onnx import read_weights
from picosam2.runtimes.protocol import GUIDANCE_PLANES, RuntimeInfo
from picosam2.runtimes.reopen import OpenedFile, PerProcess
from picosam2.runtimes.session_pool import Session, SessionPoolRuntime


def import_openvino() -> ModuleType:
    """The package `openvino`, without what it would send home.

    When it is imported, it makes an identity in the home directory and reports to its makers, if
    `openvino_telemetry` is there. Where a program has imported it before, nothing is changed.

    Raises:
        MissingExtraError: it is not installed.
    """
    reporting = "openvino_telemetry"
    if "openvino" in sys.modules or reporting in sys.modules:
        return require("openvino", "openvino")
    sys.modules[reporting] = None  # type: ignore[assignment]  # an import of it fails
    try:
        return require("openvino", "openvino")
    finally:
        del sys.modules[reporting]


@cache
def _core(openvino: Any) -> PerProcess[Any]:
    """The one `openvino.Core` of a process.

    The first network that a core compiles puts the thread's signals on a stack of the core's own,
    and the core's end puts back the stack of before. When the first of two cores ends first, what
    the second one puts back is no longer there, and the next Ctrl-C ends the process with a
    segmentation fault (OpenVINO 2026.4). So one core lives as long as the process.
    """
    return PerProcess(openvino.Core)


def open_request(
    openvino: Any,
    path: Path,
    shapes_of: Callable[[Any], dict[str, list[int]]],
    threads: int | None,
    output: str,
    wrong: str,
) -> tuple[Any, dict[str, list[int]]]:
    """A request that runs an ONNX file, and the shapes of its inputs by name.

    Args:
        openvino: the package.
        path: the file.
        shapes_of: gives the shapes that a model's inputs are to have; `ValueError` if it is of
            another kind.
        threads: threads of one inference; by default OpenVINO's choice, or fewer where the process
            may not use all processors.
        output: the output that the model must have.
        wrong: what is wrong with the file if it cannot be run: "does not take ... to ...".

    Raises:
        WeightsError: OpenVINO cannot run it.
    """
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    inference_threads = threads or default_threads()
    if inference_threads is not None:
        settings["INFERENCE_NUM_THREADS"] = inference_threads
    try:
        core = _core(openvino)()
        model = core.read_model(path)
        shapes = shapes_of(model)
        model.reshape(shapes)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        model.output(output)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(
            f"OpenVINO cannot run {path}, which {wrong} as it says, or is damaged: {error}"
        ) from error
    return request, shapes


class OpenVinoRuntime(SessionPoolRuntime, OpenedFile):
    """OpenVINO on the CPU, in full precision (on some processors it would use bfloat16)."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load an ONNX file that this project exported.

        Args:
            path: the file.
            threads: threads of one inference; by default OpenVINO's choice, or
                fewer where the process may not use all processors (`cpus`).

        Raises:
            WeightsError: missing, damaged, or not exported by this project.
            MissingExtraError: OpenVINO is not installed.
        """
        openvino = import_openvino()
        path = Path(path)
        self._path, self._threads = path, threads
        _, info = read_weights(path, "openvino")
        if info.metadata.normalizes:
            raise WeightsError(f"{path} is made for a sensor: give it to the runtime onnx")

        def start() -> Session:
            request, shapes = open_request(
                openvino, path, lambda model: _input_shapes(model, info), threads, "logits",
                f"does not take crops of {info.input_size} pixels to logits",
            )  # fmt: skip
            (image,) = (name for name in shapes if name != "guidance")

            def run(
                crop: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None
            ) -> npt.NDArray[np.float32]:
                feed = {image: normalize(crop)}
                if info.guidance:
                    feed["guidance"] = (
                        np.zeros(shapes["guidance"], np.float32) if guidance is None else guidance
                    )
                logits: npt.NDArray[np.float32] = request.infer(feed)["logits"][0]
                return logits

            return run

        super().__init__(info, start)


def _input_shapes(model: Any, info: RuntimeInfo) -> dict[str, list[int]]:
    """The shapes of one crop and its guidance, by input. `ValueError` if the model has others."""
    shapes = {}
    for node in model.inputs:
        name, shape = node.get_any_name(), node.partial_shape
        planes = GUIDANCE_PLANES if name == "guidance" else 3
        shapes[name] = [1, planes, info.input_size, info.input_size]
        if shape.rank.is_dynamic or len(shape) != 4:
            raise ValueError(f"{name} has the shape {shape}")
        for side, expected in zip(list(shape)[1:], shapes[name][1:], strict=True):
            if side.is_static and side.get_length() != expected:
                raise ValueError(f"{name} has the shape {shape}")
    if len(shapes) != 1 + info.guidance or ("guidance" in shapes) != info.guidance:
        raise ValueError(f"its inputs are {', '.join(shapes)}")
    return shapes
