"""ExecuTorch: PyTorch's runtime for phones and embedded boards, here on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.runtimes._silence import silenced
from picosam2.runtimes.cpus import default_threads
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.protocol import GUIDANCE_PLANES, RuntimeInfo
from picosam2.runtimes.reopen import OpenedFile
from picosam2.runtimes.session_pool import Session, SessionPoolRuntime


class ExecuTorchRuntime(SessionPoolRuntime, OpenedFile):
    """ExecuTorch on the CPU, with its XNNPACK kernels."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load a file that `picosam2 export executorch` wrote.

        Args:
            path: the file.
            threads: threads of one inference, for the whole process; by default as many as the
                process may use (`cpus`).

        Raises:
            WeightsError: missing, damaged, or not exported by this project.
            MissingExtraError: ExecuTorch is not installed.
        """
        with silenced():
            executorch = require("executorch.runtime", "executorch")
        import torch

        self._path, self._threads = Path(path), threads
        file = read_device_file(path, "executorch")
        info = RuntimeInfo.of_file("executorch", path, file.facts)
        pool_threads = threads or default_threads()
        if pool_threads is not None:
            from executorch.extension.pybindings import portable_lib

            portable_lib._unsafe_reset_threadpool(pool_threads)

        def start() -> Session:
            try:
                program = executorch.Runtime.get().load_program(file.model)
                about = program.load_method("forward").metadata
            except (KeyError, RuntimeError) as error:
                raise WeightsError(f"ExecuTorch cannot run {path}: {error}") from error
            side = info.input_size
            expected = [(1, 3, side, side)]
            if info.guidance:
                expected.append((1, GUIDANCE_PLANES, side, side))
            shapes = [about.input_tensor_meta(i).sizes() for i in range(about.num_inputs())]
            if (
                shapes != expected
                or about.num_outputs() != 1
                or about.output_tensor_meta(0).sizes()[3:] != (info.channels,)
            ):
                raise WeightsError(
                    f"{path} does not take crops of {side} pixels to logits, as it says: export "
                    "it again"
                )

            def run(
                crop: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None
            ) -> npt.NDArray[np.float32]:
                # A crop's own layout, which ExecuTorch calls channels last.
                inputs = [torch.from_numpy(crop.astype(np.float32, "C")).permute(0, 3, 1, 2)]
                if info.guidance:
                    planes = np.zeros(expected[1], np.float32) if guidance is None else guidance
                    last = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
                    inputs.append(torch.from_numpy(last).permute(0, 3, 1, 2))
                # The program keeps its method; asking it each time keeps the program.
                logits: npt.NDArray[np.float32] = (
                    program.load_method("forward").execute(inputs)[0][0].numpy()
                )
                return logits.transpose(2, 0, 1)

            return run

        super().__init__(info, start)
