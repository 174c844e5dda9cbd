"""Which weights file a name or path means, and the runtime that runs it."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from picosam2.errors import WeightsError, require
from picosam2.models.views import FINDER
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.metadata import MAX_BYTES, METADATA_KEY, parse_document
from picosam2.runtimes.onnx import OnnxRuntime, read_document
from picosam2.runtimes.protocol import Runtime, RuntimeInfo

RUNTIMES = ("onnx", "torch", "openvino", "litert", "executorch")
ENDINGS = {
    "onnx": ".onnx",
    "torch": ".safetensors",
    "openvino": ".onnx",
    "litert": ".tflite",
    "executorch": ".pte",
}
"""The file that a runtime runs, by its ending."""

DEVICE_FILES = {".tflite": "litert", ".pte": "executorch"}
"""File endings of `runtimes.device_file`, and the runtime of each. None ships with the package."""


def shipped() -> list[str]:
    """The names of the weights that come with the package and make masks; see `finder_file`."""
    folder = Path(str(resources.files("picosam2") / "assets" / "weights"))
    return sorted({path.stem for path in folder.glob("*.onnx")} - {FINDER})


def finder_file(name: str | os.PathLike[str] = FINDER, runtime: str = "onnx") -> Path:
    """The file of the finder that ships, as a runtime takes it, or a path as it is.

    Raises:
        WeightsError: there is no such file.
    """
    path = Path(name)
    if str(name) == FINDER:
        files = shipped_files(FINDER)
        if not files:
            raise WeightsError("this build of picosam2 ships no finder: use the grid of clicks")
        if runtime not in files:
            raise WeightsError(f"the finder does not come for {runtime}: use {' or '.join(files)}")
        return files[runtime]
    if not path.suffix:
        raise WeightsError(f"there is no finder named {name}: use {FINDER}, or a path to a file")
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}: check the path")
    return path


def shipped_files(name: str) -> dict[str, Path]:
    """The files of shipped weights, by the runtime that takes them; none if there are none."""
    folder = Path(str(resources.files("picosam2") / "assets" / "weights"))
    paths = {runtime: folder / f"{name}{ENDINGS[runtime]}" for runtime in RUNTIMES}
    return {runtime: path for runtime, path in paths.items() if path.is_file()}


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
    if runtime in files:
        return files[runtime]
    ending = ENDINGS[runtime]
    if ending in DEVICE_FILES and "torch" in files:  # an export starts from its file
        raise WeightsError(
            f"the weights {name} do not come as a {ending} file: make one with `picosam2 "
            f"export {runtime} --weights {name} --out {name}{ending}` and give its path"
        )
    raise WeightsError(
        f"the weights {name} do not come for {runtime}: use the runtime {' or '.join(files)}"
    )


def load_runtime(
    weights: str | os.PathLike[str] = "default", runtime: str = "onnx", threads: int | None = None
) -> Runtime:
    """Open weights, by shipped name or path, with a runtime; all but `onnx` are extras.

    With `onnx`, the file's ending chooses the runtime: `.safetensors` runs in torch, `.tflite` in
    LiteRT, `.pte` in ExecuTorch. Raises `WeightsError`, or `MissingExtraError` without the extra.
    """
    path = find_weights(weights, runtime)
    suffix = path.suffix.lower()
    owner = next((name for name, ending in ENDINGS.items() if ending == suffix), "onnx")
    if runtime == "onnx":
        runtime = owner
    elif suffix != ENDINGS[runtime]:
        made = f", or make one that it runs with `picosam2 export {runtime}`"
        raise WeightsError(
            f"{runtime} runs no {suffix} file: give {path} to the runtime {owner}"
            + (made if ENDINGS[runtime] in DEVICE_FILES else "")
        )
    return _open(path, runtime, threads)


def _open(path: Path, runtime: str, threads: int | None) -> Runtime:
    if runtime == "torch":
        require("torch", "train")
        require("safetensors", "train")
        from picosam2.runtimes.torch import TorchRuntime

        return TorchRuntime.load(path, threads=threads)
    if runtime == "openvino":
        from picosam2.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(path, threads=threads)
    if runtime == "litert":
        from picosam2.runtimes.litert import LiteRtRuntime

        return LiteRtRuntime(path, threads=threads)
    if runtime == "executorch":
        from picosam2.runtimes.executorch import ExecuTorchRuntime

        return ExecuTorchRuntime(path, threads=threads)
    if runtime == "onnx":
        return OnnxRuntime(path, threads=threads)
    raise AssertionError(f"the runtime {runtime} has no call here")


def read_facts(path: Path) -> dict[str, Any]:
    """What a weights file of any runtime says of itself. Needs no torch, and no extra.

    Raises:
        WeightsError: it is damaged, or not of this project.
    """
    suffix = path.suffix.lower()
    if suffix in DEVICE_FILES:
        return read_device_file(path, DEVICE_FILES[suffix]).facts
    if suffix != ".safetensors":
        _, document = read_document(path)
        if document.get("kind") != FINDER:
            RuntimeInfo.of_file("onnx", path, document)
        return document
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("it is cut short")
            if length > 4 * MAX_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        facts = parse_document(header["__metadata__"][METADATA_KEY])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, WeightsError) as error:
        raise WeightsError(f"{path} holds no PicoSAM2 weights: {error}") from error
    return facts
