"""The annotation readers by the data set's name, for the command line and the store builder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from picosam2.data.coco import Annotations, read_coco
from picosam2.data.lvis import read_lvis
from picosam2.errors import ConfigError

READERS: dict[str, Callable[..., Annotations]] = {"coco": read_coco, "lvis": read_lvis}


def read_annotations(
    dataset: str, annotations: Path, images: Path, source: str | None = None
) -> Annotations:
    """Read an annotation file of `dataset`, "coco" (also any other in COCO's format) or "lvis".

    The other arguments are those of `picosam2.data.coco.read_coco`.

    Raises:
        ConfigError: no data set has that name.
        DataError: see `read_coco`.
    """
    if dataset not in READERS:
        raise ConfigError(f"there is no data set {dataset!r}: choose one of {', '.join(READERS)}")
    return READERS[dataset](annotations, images, source=source)
