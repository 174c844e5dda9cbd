"""LiteRT, which was TensorFlow Lite: the runtime of phones and microcontrollers, here on a CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.runtimes.cpus import allowed_cpus
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.protocol import GUIDANCE_PLANES, RuntimeInfo
from picosam2.runtimes.reopen import OpenedFile
from picosam2.runtimes.session_pool import Session, SessionPoolRuntime


class Interpreter:
    """An interpreter of a file of this project: pixels in, numbers out, also if it has integers.

    Raises:
        WeightsError: LiteRT cannot run it.
        MissingExtraError: LiteRT is not installed.
    """

    def __init__(self, path: Path, model: bytes, threads: int | None) -> None:
        litert = require("ai_edge_litert.interpreter", "litert")
        try:
            self._run = litert.Interpreter(
                model_content=model, num_threads=threads or allowed_cpus()
            )
            self._run.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"LiteRT cannot run {path}: {error}") from error
        inputs, outputs = self._run.get_input_details(), self._run.get_output_details()
        inputs.sort(key=lambda tensor: tensor["name"])  # the image, then its guidance
        self._inputs: list[dict[str, Any]] = inputs
        self._output: dict[str, Any] = outputs[0]
        self._integers = inputs[0]["dtype"] == np.int8
        self.shapes: list[tuple[int, ...]] = [tuple(map(int, each["shape"])) for each in inputs]
        """Of its inputs."""
        self.answer_shape: tuple[int, ...] = tuple(map(int, outputs[0]["shape"]))
        """Of its output."""
        self.fits = len(outputs) == 1
        """Whether it takes and gives numbers as the files of this project do."""
        if self._integers:
            self.fits &= inputs[0]["quantization"] == (1.0, -128) and len(inputs) == 1
            self.fits &= outputs[0]["dtype"] == np.int8

    def __call__(
        self, image: npt.NDArray[np.uint8], planes: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """An image (1, S, S, 3) RGB uint8, and its guidance (1, S, S, 3), to the output."""
        pixels = (image ^ 128).view(np.int8) if self._integers else image.astype(np.float32, "C")
        self._run.set_tensor(self._inputs[0]["index"], pixels)
        if planes is not None:
            self._run.set_tensor(self._inputs[1]["index"], planes)
        self._run.invoke()
        answer: npt.NDArray[np.float32] = self._run.get_tensor(self._output["index"])
        if self._integers:
            scale, zero = self._output["quantization"]
            answer = (answer.astype(np.float32) - zero) * np.float32(scale)
        return answer


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
        require("ai_edge_litert.interpreter", "litert")
        self._path, self._threads = Path(path), threads
        file = read_device_file(path, "litert")
        info = RuntimeInfo.of_file("litert", path, file.facts)

        def start() -> Session:
            interpreter = Interpreter(Path(path), file.model, threads)
            side = info.input_size
            expected = [(1, side, side, 3)]
            if info.guidance:
                expected.append((1, side, side, GUIDANCE_PLANES))
            promised = (1, info.output_size, info.output_size, info.channels)
            if (
                not interpreter.fits
                or interpreter.shapes != expected
                or interpreter.answer_shape != promised
            ):
                raise WeightsError(
                    f"{path} does not take crops of {side} pixels to logits, as it says: export "
                    "it again"
                )

            def run(
                crop: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None
            ) -> npt.NDArray[np.float32]:
                planes = None
                if info.guidance:
                    planes = np.zeros(expected[1], np.float32)
                    if guidance is not None:
                        planes[:] = guidance.transpose(0, 2, 3, 1)
                logits: npt.NDArray[np.float32] = interpreter(crop, planes)[0]
                return logits.transpose(2, 0, 1)

            return run

        super().__init__(info, start)
