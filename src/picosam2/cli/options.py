"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

Weights = Annotated[
    str, Parameter(help="Shipped weights by name (`picosam2 weights` lists them), or a file.")
]
RuntimeName = Annotated[
    Literal["onnx", "torch", "openvino", "litert", "executorch"],
    Parameter(help="What runs the network; all but onnx are extras."),
]
Threads = Annotated[
    int | None,
    Parameter(
        help="CPU threads for the network; by default as many as there are cores.",
        validator=Number(gte=1),
    ),
]
