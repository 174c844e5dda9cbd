"""The prompts of a run over many images: the same for each, those of a file, or everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from picosam2._files import sha256_file
from picosam2.errors import ConfigError, PicoSAM2Error
from picosam2.io.formats.objects import LABEL
from picosam2.io.paths import files_below
from picosam2.io.prompt_files import (
    BoxesFormat,
    PromptEntry,
    PromptFile,
    read_boxes,
    read_prompt_file,
)
from picosam2.prompts import Prompt
from picosam2.tasks.everything import Everything


@dataclass(frozen=True, kw_only=True)
class PromptSource:
    """What to segment in each image. One of the first three is given.

    everywhere: the same prompts in every image.
    file: the prompts of a file, image by image.
    everything: all objects of an image, without prompts.
    digest: names the prompts, so that a later run can tell whether it has the same ones.
    """

    everywhere: tuple[PromptEntry, ...] | None = None
    file: PromptFile | None = None
    everything: Everything | None = None
    digest: str = ""

    @classmethod
    def same(cls, prompts: Sequence[Prompt]) -> PromptSource:
        """The same prompts for every image."""
        entries = tuple(
            PromptEntry(prompt=prompt, name=f"object {number}")
            for number, prompt in enumerate(prompts, 1)
        )
        return cls(everywhere=entries, digest=json.dumps([prompt.to_json() for prompt in prompts]))

    @classmethod
    def of_prompt_file(cls, path: Path) -> PromptSource:
        """The prompts of a JSON or CSV file. `DataError` if it is bad."""
        return cls(file=read_prompt_file(path), digest=_digest(path))

    @classmethod
    def of_boxes(cls, path: Path, form: BoxesFormat | None = None) -> PromptSource:
        """The boxes of a detector or a label tool. `DataError` if the file or folder is bad."""
        return cls(file=read_boxes(path, form), digest=_digest(path))

    @classmethod
    def all_objects(cls, settings: Everything) -> PromptSource:
        """No prompts: all objects of each image."""
        return cls(everything=settings, digest=json.dumps({"everything": vars(settings)}))

    @property
    def categories(self) -> dict[int, str]:
        """The names of the classes by number."""
        return dict(self.file.categories) if self.file and self.file.categories else {1: LABEL}

    @property
    def yolo_classes(self) -> dict[int, int]:
        """The number in YOLO's labels, which count from 0, for each of `categories`."""
        if self.file is not None and self.file.zero_based:
            return {number: number for number in self.categories}
        return {number: place for place, number in enumerate(sorted(self.categories))}

    @property
    def yolo_names(self) -> dict[int, str]:
        """The names of the classes by their numbers in YOLO's labels."""
        return {place: self.categories[number] for number, place in self.yolo_classes.items()}

    def prompts_for(
        self, key: str | None, height: int, width: int
    ) -> tuple[list[PromptEntry], list[str]]:
        """The prompts for an image of that size, and a sentence for each that cannot be used.

        `key` is what the prompt file calls the image. Raises a `PicoSAM2Error` if the file's part
        for this image cannot be read.
        """
        entries: Sequence[PromptEntry] = self.everywhere or ()
        usable: list[PromptEntry] = []
        problems: list[str] = []
        if self.file is not None and key is not None:
            of_image = self.file.read(key, height, width)
            entries = of_image.entries
            problems += map(str, of_image.problems)
        for entry in entries:
            try:
                # A detector's boxes reach past the image as a matter of course.
                usable.append(replace(entry, prompt=entry.prompt.clipped(height, width)))
            except PicoSAM2Error as error:
                problems.append(f"{entry.name}: {error}")
        return usable, problems


def prompt_source(
    everywhere: Sequence[Prompt] | None,
    prompts: Path | None,
    boxes: Path | None,
    boxes_format: BoxesFormat | None,
) -> PromptSource:
    """The source that options name: exactly one of the first three is given.

    Raises:
        ConfigError: none is given, or more than one.
        DataError: the file is bad.
    """
    if prompts is not None and boxes is not None:
        raise ConfigError("give --prompts or --boxes, not both")
    if everywhere is not None and (prompts is not None or boxes is not None):
        raise ConfigError("give --point and --box, or --prompts, or --boxes, not several")
    if prompts is not None:
        return PromptSource.of_prompt_file(prompts)
    if boxes is not None:
        return PromptSource.of_boxes(boxes, boxes_format)
    if everywhere is None:
        raise ConfigError("nothing is pointed at: add --prompts, --boxes, --point or --box")
    return PromptSource.same(everywhere)


def entries_json(entries: Sequence[PromptEntry]) -> list[Mapping[str, Any]]:
    """Prompts as plain values, for a digest."""
    return [
        {
            "prompt": each.prompt.to_json(),
            "label": each.label,
            "category": each.category,
            "id": each.id,
            "score": each.score,
        }
        for each in entries
    ]


def _digest(path: Path) -> str:
    """Of a file's bytes, or of all files of a folder with their names."""
    if path.is_file():
        return sha256_file(path)
    total = hashlib.sha256()
    for name, file in files_below(path).items():
        total.update(f"{name}\0{sha256_file(file)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
