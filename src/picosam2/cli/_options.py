"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.errors import ConfigError

if TYPE_CHECKING:
    from picosam2.data.store import SourceFiles

Weights = Annotated[
    str, Parameter(help="Shipped weights by name (`picosam2 weights` lists them), or a file.")
]
RuntimeName = Annotated[
    Literal["onnx", "torch", "openvino", "litert", "executorch"],
    Parameter(help="What runs the network; all but onnx are extras."),
]
Flip = Annotated[
    bool,
    Parameter(
        help="Look at every crop mirrored, too: a little better, for twice the time.",
        negative=(),
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    Parameter(
        help="CPU threads for the network; by default as many as there are cores.",
        validator=Number(gte=1),
    ),
]


def given_sources(
    coco: Sequence[tuple[Path, Path]] | None,
    lvis: Sequence[tuple[Path, Path]] | None,
    other: Sequence[tuple[str, Path, Path]] | None,
    *,
    to: str,
) -> list[SourceFiles]:
    """What `--coco`, `--lvis` and `--source` name, for a command that wants it `to` do something.

    Raises:
        ConfigError: they name nothing.
    """
    from picosam2.data.store import SourceFiles

    sources = [
        SourceFiles(annotations=file, images=folder, dataset=kind, name=kind)
        for kind, given in (("coco", coco), ("lvis", lvis))
        for file, folder in given or ()
    ]
    sources += [
        SourceFiles(annotations=file, images=folder, dataset="coco", name=name)
        for name, file, folder in other or ()
    ]
    if not sources:
        raise ConfigError(f"there is nothing to {to}: add --coco FILE DIR, --lvis or --source")
    return sources
