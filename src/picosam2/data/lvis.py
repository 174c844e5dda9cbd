"""LVIS annotation files, versions 0.5 and 1: COCO's format and images, other file names.

The format is described at https://www.lvisdataset.org/dataset. It differs from COCO's for a reader
in where the images are: version 1 names only each image's URL, its validation set mixes those of
COCO's train2017 and val2017, and version 0.5 writes file names in the fashion of COCO 2014.
LVIS has no crowd regions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from picosam2.data.coco import Annotations, read_annotated_images
from picosam2.errors import DataError
from picosam2.io.formats.coco import CocoImage

_FOLDERS = ("train2017", "val2017")
_COCO_2014 = re.compile(r"^COCO_[a-z]+2014_")


def read_lvis(annotations: Path, images: Path, *, source: str | None = None) -> Annotations:
    """Read an LVIS file, version 0.5 (`file_name`) or 1 (`coco_url`).

    Args:
        annotations: the JSON file, for instance `lvis_v1_val.json`.
        images: the folder of the COCO 2017 images. They may lie in it, or in `train2017` and
            `val2017` below it.
        source: as for `picosam2.data.coco.read_coco`, whose rules and errors hold here too.
    """
    return read_annotated_images(annotations, images, source=source, candidates=_candidates)


def _candidates(image: CocoImage) -> Sequence[str]:
    """Where an image may lie: below the folder that its URL names, in the folder, or in a part."""
    url = image.entry.get("coco_url")
    parts = url.split("/") if isinstance(url, str) else []
    name = image.name or (parts[-1] if parts else "")
    if not name:
        raise DataError("has neither file_name nor coco_url")
    name = _COCO_2014.sub("", name)
    folders = list(_FOLDERS)
    if len(parts) > 1 and parts[-2] in _FOLDERS:
        folders.sort(key=lambda folder: folder != parts[-2])
    return (name, *(f"{folder}/{name}" for folder in folders))
