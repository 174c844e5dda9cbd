"""ExecuTorch: PyTorch's runtime for phones and embedded boards, here on a CPU."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from picosam2.errors import WeightsError, require
from picosam2.runtimes._muted import quietly
from picosam2.runtimes.cpus import default_threads
from picosam2.runtimes.onnx import info_of
from picosam2.runtimes.packaged import read_sealed
from picosam2.runtimes.single_crop import OneCropRuntime, Session


class ExecuTorchRuntime(OneCropRuntime):
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
        with quietly():
            executorch = require("executorch.runtime", "executorch")
        import torch

        sealed = read_sealed(path, "executorch")
        info = info_of("executorch", path, sealed.facts)
        threads = threads or default_threads()
        if threads is not None:
            from executorch.extension.pybindings import portable_lib

            portable_lib._unsafe_reset_threadpool(threads)

        def start() -> Session:
            try:
                program = executorch.Runtime.get().load_program(sealed.model)
                about = program.load_method("forward").metadata
            except (KeyError, RuntimeError) as error:
                raise WeightsError(f"ExecuTorch cannot run {path}: {error}") from error
            side = info.input_size
            fits = about.num_inputs() == about.num_outputs() == 1
            if (
                not fits
                or about.input_tensor_meta(0).sizes() != (1, 3, side, side)
                or about.output_tensor_meta(0).sizes()[3:] != (info.channels,)
            ):
                raise WeightsError(
                    f"{path} does not take crops of {side} pixels to logits, as it says: export "
                    "it again"
                )

            def run(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
                # A crop's own layout, which ExecuTorch calls channels last.
                pixels = torch.from_numpy(crop.astype(np.float32, "C")).permute(0, 3, 1, 2)
                # The program keeps its method; asking it each time keeps the program.
                logits: npt.NDArray[np.float32] = (
                    program.load_method("forward").execute([pixels])[0][0].numpy()
                )
                return logits.transpose(2, 0, 1)

            return run

        super().__init__(info, start)
