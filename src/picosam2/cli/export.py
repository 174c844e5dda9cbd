"""`picosam2 export`: weights in the forms that other programs run."""

from __future__ import annotations

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
    from picosam2.cli.report import size
    from picosam2.errors import ConfigError, require
    from picosam2.weights import find_weights

    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out} is no name for an ONNX file: end it in .onnx")
    for module in ("torch", "safetensors", "onnx"):
        require(module, "train")
    from picosam2.checkpoint import load_weights
    from picosam2.export.onnx import export_onnx, weights_facts

    path = find_weights(weights, "torch")
    made = export_onnx(load_weights(path), out, weights_facts(path))
    print(f"{out}: {size(made.bytes)}, logits within {made.largest_difference:.1e} of PyTorch's")
