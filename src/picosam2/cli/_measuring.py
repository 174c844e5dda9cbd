"""Options and words that the measuring commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.errors import ConfigError, require

if TYPE_CHECKING:
    from picosam2.evaluation.peers import Peer

Images = Annotated[Path, Parameter(metavar="DIR", help="The folder of the images.")]
AnnotationFile = Annotated[
    Path, Parameter(metavar="FILE", help="Masks in COCO's or LVIS's format.")
]
Dataset = Annotated[Literal["coco", "lvis"], Parameter(help="The annotations' format.")]
Limit = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="Measure the first objects only.")
]
ResultFile = Annotated[
    Path | None, Parameter(metavar="FILE", help="Also write the numbers to this file.")
]


def check_peer(peer: str | None, weights: str, runtime: str, *, flip: bool = False) -> None:
    """Refuse, beside --peer, options that are for weights of this project."""
    is_used = {"--weights": weights != "default", "--runtime": runtime != "onnx", "--flip": flip}
    used = [name for name, is_it in is_used.items() if is_it]
    if peer is not None and used:
        are, them = ("is", "it") if len(used) == 1 else ("are", "them")
        raise ConfigError(
            f"{', '.join(used)} {are} for weights of this project: leave {them} out with --peer"
        )


def open_peer(peer: str, threads: int | None) -> Peer:
    """The other model that --peer names."""
    from picosam2.evaluation.peers import Peer
    from picosam2.evaluation.sam import open_sam

    if threads is not None and not peer.startswith("onnx:"):
        require("torch", "train").set_num_threads(threads)
    return Peer(open_sam(peer, threads=threads))


def number(value: float | None) -> str:
    """A score with four decimals; - if there is none."""
    return "-" if value is None else f"{value:.4f}"
