"""Which weights file a name or path means, and the runtime that runs it."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from picosam2.errors import WeightsError, require
from picosam2.runtime import METADATA_KEY, OnnxRuntime, Runtime

RUNTIMES = ("onnx", "torch")
_ENDINGS = {"onnx": ".onnx", "torch": ".safetensors"}


def shipped() -> list[str]:
    """The names of the weights that come with the package."""
    folder = Path(str(resources.files("picosam2") / "assets" / "weights"))
    return sorted({path.stem for path in folder.glob("*.onnx")})


def shipped_files(name: str) -> dict[str, Path]:
    """The files of shipped weights, by the runtime that takes them; none if there are none."""
    folder = Path(str(resources.files("picosam2") / "assets" / "weights"))
    found = {runtime: folder / f"{name}{_ENDINGS[runtime]}" for runtime in RUNTIMES}
    return {runtime: path for runtime, path in found.items() if path.is_file()}


def find_weights(name: str | os.PathLike[str], runtime: str = "onnx") -> Path:
    """The file of shipped weights (`default`, `default-int8`, `paper`), or a path as it is.

    Raises:
        WeightsError: no such weights.
    """
    if runtime not in RUNTIMES:
        raise WeightsError(f"there is no runtime {runtime!r}: use {' or '.join(RUNTIMES)}")
    path = Path(name)
    if path.suffix:
        if not path.is_file():
            raise WeightsError(f"there are no weights at {path}: check the path")
        return path
    if str(name) not in shipped():
        known = ", ".join(shipped()) or "none"
        raise WeightsError(f"there are no weights named {name}: use {known}, or a path to a file")
    files = shipped_files(str(name))
    if runtime not in files:
        raise WeightsError(
            f"the weights {name} do not come for {runtime}: use the runtime {' or '.join(files)}"
        )
    return files[runtime]


def load_runtime(
    weights: str | os.PathLike[str] = "default", runtime: str = "onnx", threads: int | None = None
) -> Runtime:
    """Open weights, by shipped name or path, with a runtime (`onnx`, or `torch` with its extra).

    A `.safetensors` path always runs in torch. Raises `WeightsError`, or `MissingExtraError`
    without torch.
    """
    path = find_weights(weights, runtime)
    if runtime == "torch" and path.suffix != ".safetensors":
        raise WeightsError(f"torch runs no {path.suffix} file: give {path} to the runtime onnx")
    if path.suffix == ".safetensors":
        require("torch", "train")
        require("safetensors", "train")
        from picosam2.torch_runtime import TorchRuntime

        return TorchRuntime.load(path, threads=threads)
    return OnnxRuntime(path, threads=threads)


def read_facts(path: Path) -> dict[str, Any]:
    """What a weights file, ONNX or safetensors, says of itself. Needs no torch.

    Raises:
        WeightsError: it is damaged, or not of this project.
    """
    if path.suffix != ".safetensors":
        return OnnxRuntime(path, threads=1).info.facts
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("it is cut short")
            header = json.loads(stream.read(length))
        facts: dict[str, Any] = json.loads(header["__metadata__"][METADATA_KEY])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} holds no PicoSAM2 weights: {error}") from error
    return facts
