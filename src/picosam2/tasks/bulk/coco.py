"""The COCO file of a run over many images: put together, and read back by a later run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from picosam2.errors import ConfigError
from picosam2.io.formats import coco_annotation, coco_document
from picosam2.io.prompt_files import PromptEntry
from picosam2.results import Segmentation
from picosam2.tasks.bulk.prompts import PromptSource

PART = ".part"
"""What a COCO file's name has more while it is being made."""


def part_of(target: Path) -> Path:
    """The file that holds the finished images, a line each, until the COCO file is whole."""
    return target.with_name(target.name + PART)


def coco_record(
    name: str,
    height: int,
    width: int,
    objects: Sequence[Segmentation],
    prompts: Sequence[PromptEntry],
    *,
    polygons: bool,
    tolerance: float,
) -> dict[str, Any]:
    """What a COCO file will hold of one image."""
    entries = []
    for segmentation, prompt in zip(objects, prompts, strict=True):
        entry = coco_annotation(
            segmentation, id=0, image_id=0, polygons=polygons, tolerance=tolerance
        )
        entry |= {"id": prompt.id, "category_id": prompt.category}
        if prompt.score is not None:
            entry["prompt_score"] = prompt.score
        entries.append(entry)
    return {"name": name, "height": height, "width": width, "masks": entries}


def read_records(path: Path) -> tuple[list[dict[str, Any]], Any]:
    """The records of a COCO file of ours, whole or in the making, and the settings of its run.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        text = path.read_text("utf-8")
        if path.name.endswith(PART):
            lines = [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
            records = lines[1:]
            for record in records:
                _check_record(record)
            return records, lines[0]["settings"] if lines else None
        document = json.loads(text)
        return _records_of(document), document["info"]["settings"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ConfigError(
            f"{path} is there, but is no result of this command: "
            "choose another --out, or add --overwrite"
        ) from error


def coco_of_run(
    records: Mapping[str, Mapping[str, Any]], source: PromptSource, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The COCO file. The numbers of images, objects and classes are those of the prompt file."""
    ordered = sorted(records.values(), key=lambda record: str(record["name"]))
    image_ids = _image_ids(ordered, source)
    ids = [entry["id"] for record in ordered for entry in record["masks"]]
    keep = None not in ids and len(set(ids)) == len(ids)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, record in zip(image_ids, ordered, strict=True):
        images.append(
            {
                "id": image_id,
                "file_name": record["name"],
                "height": record["height"],
                "width": record["width"],
            }
        )
        for entry in record["masks"]:
            number = entry["id"] if keep else len(annotations) + 1
            annotations.append({**entry, "id": number, "image_id": image_id})
    return coco_document(
        images,
        annotations,
        [{"id": number, "name": name} for number, name in source.categories.items()],
        {"description": "masks by PicoSAM2", "settings": dict(settings)},
    )


def _image_ids(ordered: Sequence[Mapping[str, Any]], source: PromptSource) -> list[int]:
    """The numbers that the prompt file gives the images, or else 1, 2, 3, ..."""
    if source.file is not None:
        known = source.file.image_ids
        names = source.file.match([record["name"] for record in ordered]).names
        ids = [known.get(names.get(record["name"], "")) for record in ordered]
        whole = [number for number in ids if number is not None]
        if len(set(whole)) == len(ordered):
            return whole
    return list(range(1, len(ordered) + 1))


def _records_of(document: Any) -> list[dict[str, Any]]:
    records = {
        entry["id"]: {
            "name": entry["file_name"],
            "height": entry["height"],
            "width": entry["width"],
            "masks": [],
        }
        for entry in document["images"]
    }
    for entry in document["annotations"]:
        # In its place, so that the file is the same, byte for byte, when it is written again.
        records[entry["image_id"]]["masks"].append({**entry, "image_id": 0})
    for record in records.values():
        _check_record(record)
    return list(records.values())


def _check_record(record: Any) -> None:
    """Raise `KeyError`, `TypeError` or `ValueError` for a record that cannot be written again."""
    if not isinstance(record["name"], str):
        raise TypeError("an image's name is text")
    if type(record["height"]) is not int or type(record["width"]) is not int:
        raise TypeError("an image's size is two whole numbers")
    for entry in record["masks"]:
        if not isinstance(entry, dict) or type(entry["category_id"]) is not int:
            raise TypeError("a mask is an object with a category")
        if entry["id"] is not None and type(entry["id"]) is not int:
            raise TypeError("a mask's id is a whole number")
