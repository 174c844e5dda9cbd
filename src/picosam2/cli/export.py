"""`picosam2 export`: weights in the forms that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from picosam2.export.onnx import Exported

app = App(name="export", help="Write weights in the forms that other programs run.", sort_key=5)


@app.command
def onnx(
    *,
    weights: Annotated[str, Parameter(metavar="FILE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
) -> None:
    """Write weights as ONNX, and prove that it gives the same logits as PyTorch.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The file to write; it ends in .onnx.
    """
    _check(out, "onnx", "an ONNX", {"torch": "train", "safetensors": "train", "onnx": "train"})
    from picosam2.checkpoint import load_weights
    from picosam2.export.onnx import export_onnx, weights_facts
    from picosam2.weights import find_weights

    path = find_weights(weights, "torch")
    _tell(export_onnx(load_weights(path), out, weights_facts(path)))


@app.command
def litert(
    *,
    weights: Annotated[str, Parameter(metavar="FILE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
) -> None:
    """Write weights for LiteRT (phones, boards), and prove that it gives the same logits.

    The file takes one crop as RGB pixels from 0 to 255, (1, S, S, 3) float32, and normalises them
    itself. Extras: `export-litert` here, `litert` to run the file.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The file to write; it ends in .tflite.
    """
    extras = {"torch": "train", "safetensors": "train", "onnx": "train"}
    _check(out, "litert", "a LiteRT", {**extras, "litert_torch": "export-litert"})
    from picosam2.checkpoint import load_weights
    from picosam2.export.litert import export_litert
    from picosam2.export.onnx import weights_facts
    from picosam2.weights import find_weights

    path = find_weights(weights, "torch")
    _tell(export_litert(load_weights(path), out, weights_facts(path)))


@app.command
def executorch(
    *,
    weights: Annotated[str, Parameter(metavar="FILE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
) -> None:
    """Write weights for ExecuTorch (phones, boards), and prove that it gives the same logits.

    The file takes one crop as RGB pixels from 0 to 255, (1, 3, S, S) float32 in channels-last
    order, and normalises them itself. The extra `executorch` makes the file and runs it.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The file to write; it ends in .pte.
    """
    extras = {"torch": "train", "safetensors": "train", "onnx": "train"}
    _check(out, "executorch", "an ExecuTorch", {**extras, "executorch": "executorch"})
    from picosam2.checkpoint import load_weights
    from picosam2.export.executorch import export_executorch
    from picosam2.export.onnx import weights_facts
    from picosam2.weights import find_weights

    path = find_weights(weights, "torch")
    _tell(export_executorch(load_weights(path), out, weights_facts(path)))


def _check(out: Path, runtime: str, article: str, modules: dict[str, str]) -> None:
    """That `out` is a name for the runtime's file, and that the modules, with extras, are there."""
    from picosam2.errors import ConfigError, require
    from picosam2.quiet import quietly
    from picosam2.weights import ENDINGS

    if out.suffix.lower() != ENDINGS[runtime]:
        raise ConfigError(f"{out} is no name for {article} file: end it in {ENDINGS[runtime]}")
    with quietly():
        for module, extra in modules.items():
            require(module, extra)


def _tell(made: Exported) -> None:
    from picosam2.cli.report import size

    print(
        f"{made.path}: {size(made.bytes)}, logits within {made.largest_difference:.1e} of PyTorch's"
    )
