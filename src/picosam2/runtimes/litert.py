"""LiteRT, which was TensorFlow Lite: the runtime of phones and microcontrollers, here on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.runtimes.cpus import allowed_cpus
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.protocol import GUIDANCE_PLANES, RuntimeInfo
from picosam2.runtimes.reopen import OpenedFile
from picosam2.runtimes.session_pool import Session, SessionPoolRuntime


class LiteRtRuntime(SessionPoolRuntime, OpenedFile):
    """LiteRT on the CPU, with its XNNPACK kernels.

    Files of integers take a crop's pixels less 128; their logits are given as the numbers that they
    stand for.
    """

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
        self._path, self._threads = Path(path), threads
        file = read_device_file(path, "litert")
        info = RuntimeInfo.of_file("litert", path, file.facts)

        def start() -> Session:
            try:
                interpreter = litert.Interpreter(
                    model_content=file.model, num_threads=threads or allowed_cpus()
                )
                interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                raise WeightsError(f"LiteRT cannot run {path}: {error}") from error
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            inputs.sort(key=lambda tensor: tensor["name"])  # the crop, then its guidance
            side = info.input_size
            expected = [(1, side, side, 3)]
            if info.guidance:
                expected.append((1, side, side, GUIDANCE_PLANES))
            fits = [tuple(tensor["shape"]) for tensor in inputs] == expected and len(outputs) == 1
            promised = (1, info.output_size, info.output_size, info.channels)
            integers = inputs[0]["dtype"] == np.int8
            if integers:
                fits &= inputs[0]["quantization"] == (1.0, -128) and not info.guidance
                fits &= outputs[0]["dtype"] == np.int8
            if not fits or tuple(outputs[0]["shape"]) != promised:
                raise WeightsError(
                    f"{path} does not take crops of {side} pixels to logits, as it says: export "
                    "it again"
                )
            target = outputs[0]["index"]
            scale, zero = outputs[0]["quantization"]

            def run(
                crop: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None
            ) -> npt.NDArray[np.float32]:
                pixels = (crop ^ 128).view(np.int8) if integers else crop.astype(np.float32, "C")
                interpreter.set_tensor(inputs[0]["index"], pixels)
                if info.guidance:
                    planes = np.zeros(expected[1], np.float32)
                    if guidance is not None:
                        planes[:] = guidance.transpose(0, 2, 3, 1)
                    interpreter.set_tensor(inputs[1]["index"], planes)
                interpreter.invoke()
                logits: npt.NDArray[np.float32] = interpreter.get_tensor(target)[0]
                if integers:
                    logits = (logits.astype(np.float32) - zero) * np.float32(scale)
                return logits.transpose(2, 0, 1)

            return run

        super().__init__(info, start)
