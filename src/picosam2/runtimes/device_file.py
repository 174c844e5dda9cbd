"""Files of LiteRT and ExecuTorch with metadata: the model, then a ZIP with one JSON file.

Both formats write down where the model ends, so that their runtimes, on a phone too, read such a
file as it is, while any unzip shows the metadata. TensorFlow Lite keeps labels in the same way. The
metadata holds the model's hash: damage shows before a runtime sees the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picosam2.errors import WeightsError
from picosam2.runtimes.metadata import MAX_BYTES, parse_document

MEMBER = "picosam2.json"
"""The name of the metadata within the ZIP."""

_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of format: the same weights give the same bytes


@dataclass(frozen=True, eq=False)
class DeviceFile:
    """What such a file holds."""

    model: bytes
    """The file of the runtime's own format."""
    facts: dict[str, Any]
    """Its metadata; the table `file` holds for this file alone."""


def device_file(model: bytes, facts: Mapping[str, Any], file: Mapping[str, Any]) -> bytes:
    """The bytes of a file: `model` with its metadata `facts` behind it.

    `file` tells what holds for this file alone: the `runtime` that it is for, what it takes and
    gives. The model's SHA-256 is added to it.
    """
    document = {**facts, "file": {**file, "sha256": hashlib.sha256(model).hexdigest()}}
    stream = io.BytesIO(model)
    stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream, "w") as archive:
        member = zipfile.ZipInfo(MEMBER, _FIRST_DAY)
        archive.writestr(member, json.dumps(document, sort_keys=True), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def read_device_file(path: str | os.PathLike[str], runtime: str) -> DeviceFile:
    """Read a file that `device_file` made for `runtime`.

    Raises:
        WeightsError: missing, damaged, for another runtime, or not of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}: check the path")
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = archive.getinfo(MEMBER)
            if member.file_size > MAX_BYTES:
                raise ValueError("its metadata is too long")
            model = data[: member.header_offset]
            facts = parse_document(archive.read(member))
        file = facts["file"]
        meant, wanted = file["runtime"], file["sha256"]
    # zipfile reads a stranger's bytes: beside its own error it gives those of what it stands on.
    except Exception as error:
        raise WeightsError(
            f"{path} is not a PicoSAM2 model for {runtime}, or it was cut short: make one with "
            f"`picosam2 export {runtime}`"
        ) from error
    if meant != runtime:
        raise WeightsError(f"{path} is a model for {meant}, not for {runtime}, whatever its name")
    if hashlib.sha256(model).hexdigest() != wanted:
        raise WeightsError(f"{path} is damaged: its model is not the one it was written with")
    return DeviceFile(model, facts)
