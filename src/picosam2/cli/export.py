"""`picosam2 export`: weights in the forms that other programs run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

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
    _export("onnx", "an ONNX", weights, out, {"onnx": "train"})


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
    _export("litert", "a LiteRT", weights, out, {"litert_torch": "export-litert"})


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
    _export("executorch", "an ExecuTorch", weights, out, {"executorch": "executorch"})


def _export(
    runtime: str, article: str, weights: str, out: Path, converters: Mapping[str, str]
) -> None:
    """Write the file of a runtime; `converters` are the modules it takes and their extras."""
    from importlib import import_module

    from picosam2.cli.report import size
    from picosam2.errors import ConfigError, require
    from picosam2.quiet import quietly
    from picosam2.weights import ENDINGS, find_weights

    if out.suffix.lower() != ENDINGS[runtime]:
        raise ConfigError(f"{out} is no name for {article} file: end it in {ENDINGS[runtime]}")
    needed = {"torch": "train", "safetensors": "train", "onnx": "train", **converters}
    with quietly():
        for module, extra in needed.items():
            require(module, extra)
    from picosam2.checkpoint import load_weights
    from picosam2.export.onnx import Exported, weights_facts

    path = find_weights(weights, "torch")
    export = getattr(import_module(f"picosam2.export.{runtime}"), f"export_{runtime}")
    made: Exported = export(load_weights(path), out, weights_facts(path))
    print(f"{out}: {size(made.bytes)}, logits within {made.largest_difference:.1e} of PyTorch's")
