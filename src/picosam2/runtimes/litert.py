"""LiteRT, which was TensorFlow Lite: the runtime of phones and microcontrollers, here on a CPU."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.runtimes.cpus import allowed_cpus
from picosam2.runtimes.onnx import info_of
from picosam2.runtimes.packaged import read_sealed
from picosam2.runtimes.single_crop import OneCropRuntime, Session


class LiteRtRuntime(OneCropRuntime):
    """LiteRT on the CPU, with its XNNPACK kernels."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load a file that `picosam2 export litert` wrote.

        Args:
            path: the file.
            threads: threads of one inference; by default as many as the process may use (`cpus`).

        Raises:
            WeightsError: missing, damaged, or not exported by this project.
            MissingExtraError: LiteRT is not installed.
        """
        litert = require("ai_edge_litert.interpreter", "litert")
        sealed = read_sealed(path, "litert")
        info = info_of("litert", path, sealed.facts)

        def start() -> Session:
            try:
                interpreter = litert.Interpreter(
                    model_content=sealed.model, num_threads=threads or allowed_cpus()
                )
                interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                raise WeightsError(f"LiteRT cannot run {path}: {error}") from error
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            shapes = [tuple(one["shape"]) for one in (*inputs, *outputs)]
            side = info.input_size
            fits = len(shapes) == 2 and shapes[0] == (1, side, side, 3)
            if not fits or len(shapes[1]) != 4 or shapes[1][3] != info.channels:
                raise WeightsError(
                    f"{path} does not take crops of {side} pixels to logits, as it says: export "
                    "it again"
                )
            source, target = inputs[0]["index"], outputs[0]["index"]

            def run(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
                interpreter.set_tensor(source, crop.astype(np.float32, "C"))
                interpreter.invoke()
                logits: npt.NDArray[np.float32] = interpreter.get_tensor(target)[0]
                return logits.transpose(2, 0, 1)

            return run

        super().__init__(info, start)
