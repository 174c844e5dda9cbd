"""Options and words that the measuring commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

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


def number(value: float | None) -> str:
    """A score with four decimals; - if there is none."""
    return "-" if value is None else f"{value:.4f}"
