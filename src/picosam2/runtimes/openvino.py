"""OpenVINO: Intel's runtime, on the same ONNX files as ONNX Runtime."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.images import normalize
from picosam2.runtimes.cpus import default_threads
from picosam2.runtimes.onnx import OnnxRuntime, normalizes
from picosam2.runtimes.single_crop import OneCropRuntime, Session


class OpenVinoRuntime(OneCropRuntime):
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
        openvino = require("openvino", "openvino")
        path = Path(path)
        # ONNX Runtime is there in any case, and knows what is wrong with a file.
        info = replace(OnnxRuntime(path, threads=1).info, name="openvino")
        if normalizes(info.facts):
            raise WeightsError(f"{path} is made for a sensor: give it to the runtime onnx")
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        threads = threads or default_threads()
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads

        def start() -> Session:
            try:
                core = openvino.Core()
                model = core.read_model(path)
                model.reshape([1, 3, info.input_size, info.input_size])
                request = core.compile_model(model, "CPU", settings).create_infer_request()
            except RuntimeError as error:
                raise WeightsError(f"OpenVINO cannot run {path}: {error}") from error

            def run(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
                logits: npt.NDArray[np.float32] = request.infer([normalize(crop)])["logits"][0]
                return logits

            return run

        super().__init__(info, start)
