"""The forms in which tracked objects are written: a video, PNG files, COCO-VID JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from picosam2._files import atomic_write, write_bytes, write_json
from picosam2._words import counted
from picosam2.errors import ConfigError
from picosam2.io.formats import indexed_png
from picosam2.io.video_files import VIDEO_ENDINGS, Frame, FrameSource, VideoWriter, check_video_name
from picosam2.masks import rle_encode
from picosam2.prompts import Prompt
from picosam2.results import PALETTE, Segmentation, overlay
from picosam2.tasks.tracking import Tracked

Form: TypeAlias = Literal["overlay", "masks", "json"]
"""The video with the masks drawn on it, an indexed PNG a frame, or one JSON file."""


_NUMBERED: Final = re.compile(r"[0-9]{6,}\.png")


class TrackOutput:
    """Takes the frames and what was found in them. Used in a `with` statement."""

    def __init__(self, out: Path, source: FrameSource, prompts: Sequence[Prompt]) -> None:
        self._out, self._source, self._prompts = out, source, prompts
        self._stack = ExitStack()
        self._count = 0
        self._lost = [0] * len(prompts)

    def __enter__(self) -> TrackOutput:
        self.begin()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()
        self._stack.__exit__(kind, error, trace)

    def add(self, frame: Frame, objects: Sequence[Tracked] | None) -> None:
        """Take a frame; `objects` is None before tracking begins."""
        self._count += objects is not None
        for number, each in enumerate(objects or ()):
            self._lost[number] += not each.found
        self.write(frame, objects)

    def summary(self) -> str:
        """One line about all of it."""
        parts = [
            f"object {n}: found in {self._count - lost:,}, lost in {lost:,}"
            for n, lost in enumerate(self._lost, 1)
        ]
        return f"{counted(self._count, 'frame')}; " + "; ".join(parts)

    def begin(self) -> None:
        """Before the first frame."""

    def write(self, frame: Frame, objects: Sequence[Tracked] | None) -> None:
        """Write one frame."""
        raise NotImplementedError

    def finish(self) -> None:
        """After the last frame, if all went well."""


class OverlayOutput(TrackOutput):
    """The video with the masks drawn on it."""

    def begin(self) -> None:

        if Path(self._source.name).resolve() == self._out.resolve():
            raise ConfigError(f"{self._out} is the video itself: choose another --out")
        temporary = self._stack.enter_context(atomic_write(self._out))
        self._writer = self._stack.enter_context(
            VideoWriter(temporary, self._source.rate, sound=self._source.sound)
        )

    def write(self, frame: Frame, objects: Sequence[Tracked] | None) -> None:
        self._writer.pixel_aspect = self._source.pixel_aspect  # known from the first frame on
        self._writer.write(draw(frame.pixels, objects or ()), frame.time)
        if self._writer.note and self._writer.note not in self._source.notes:
            self._source.notes.append(self._writer.note)


def check_masks_folder(folder: Path, video: str, *, overwrite: bool = False) -> None:
    """Check that masks of the frames of `video` may be written into `folder`.

    Raises:
        ConfigError: the folder is the one with the frames, or it holds masks already and
            `overwrite` is not set.
    """
    if folder.is_dir() and Path(video).resolve() == folder.resolve():
        raise ConfigError(f"{folder} is the folder with the frames: choose another --out")
    if _masks_in(folder) and not overwrite:
        raise ConfigError(
            f"{folder} holds numbered PNG files already: choose another --out, or add --overwrite "
            "to replace them"
        )


def _masks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name)]


class MasksOutput(TrackOutput):
    """An indexed PNG for each frame, as in DAVIS: the value is the object's number."""

    def begin(self) -> None:
        check_masks_folder(self._out, self._source.name, overwrite=True)
        self._names: set[str] = set()

    def write(self, frame: Frame, objects: Sequence[Tracked] | None) -> None:

        empty = np.zeros(frame.pixels.shape[:2], np.bool_)
        masks = [each.mask for each in objects] if objects else [empty for _ in self._prompts]
        name = f"{frame.index:06d}.png"
        write_bytes(self._out / name, indexed_png(masks))
        self._names.add(name)

    def finish(self) -> None:
        for path in _masks_in(self._out):  # a longer video left more of them
            if path.name not in self._names:
                path.unlink()


class JsonOutput(TrackOutput):
    """COCO-VID's form, as YouTube-VIS has it: an annotation is an object, with a mask a frame."""

    def begin(self) -> None:
        self._masks: list[list[Any]] = [[] for _ in self._prompts]
        self._boxes: list[list[Any]] = [[] for _ in self._prompts]
        self._areas: list[list[Any]] = [[] for _ in self._prompts]
        self._scores: list[list[float]] = [[] for _ in self._prompts]
        self._times: list[float] = []
        self._shape = (0, 0)

    def write(self, frame: Frame, objects: Sequence[Tracked] | None) -> None:

        self._shape = (frame.pixels.shape[0], frame.pixels.shape[1])
        self._times.append(frame.time)
        for number in range(len(self._prompts)):
            tracked = objects[number] if objects else None
            box = tracked.box if tracked else None
            self._masks[number].append(rle_encode(tracked.mask) if tracked and box else None)
            self._boxes[number].append(list(box.as_xywh()) if box else None)
            self._areas[number].append(tracked.area if tracked and box else None)
            self._scores[number].append(round(tracked.score, 4) if tracked else 0.0)

    def finish(self) -> None:

        height, width = self._shape
        length = len(self._times)
        video = {"id": 1, "name": self._source.name, "height": height, "width": width,
                 "length": length, "fps": self._source.rate,
                 "file_names": [f"{i:06d}" for i in range(length)]}  # fmt: skip
        annotations = [
            {
                "id": number + 1,
                "video_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": length,
                "prompt": prompt.to_json(),
                "segmentations": self._masks[number],
                "bboxes": self._boxes[number],
                "areas": self._areas[number],
                "scores": self._scores[number],
            }
            for number, prompt in enumerate(self._prompts)
        ]
        document = {
            "info": {"description": "made by picosam2 track"},
            "categories": [{"id": 1, "name": "object", "supercategory": "object"}],
            "videos": [video],
            "annotations": annotations,
        }
        write_json(self._out, document, indent=None)


OUTPUTS: dict[Form, type[TrackOutput]] = {
    "overlay": OverlayOutput,
    "masks": MasksOutput,
    "json": JsonOutput,
}


def draw(pixels: npt.NDArray[np.uint8], objects: Sequence[Tracked]) -> npt.NDArray[np.uint8]:
    """A frame (H, W, 3) uint8 with the objects on it, and the lost ones named in a corner."""

    shown, colors = [], []
    for number, tracked in enumerate(objects):
        if box := tracked.box:
            shown.append(
                Segmentation(mask=tracked.mask, score=tracked.score, prompt=Prompt(box=box))
            )
            colors.append(PALETTE[number % len(PALETTE)])
    canvas = overlay(pixels, shown, colors=colors) if shown else None
    lost = [str(number) for number, each in enumerate(objects, 1) if not each.found]
    if lost:
        canvas = canvas or Image.fromarray(pixels)
        text = "lost" if len(objects) == 1 else f"lost: {', '.join(lost)}"
        height = max(pixels.shape[0] // 20, 12)
        ImageDraw.Draw(canvas).text(
            (height // 2, height // 2),
            text,
            fill="white",
            stroke_fill="black",
            stroke_width=max(height // 8, 1),
            font=ImageFont.load_default(height),
        )
    return pixels if canvas is None else np.asarray(canvas)


def output_form(out: Path, form: Form | None) -> Form:
    """What `out` is to hold, or `ConfigError` if its name does not suit that."""

    ending = out.suffix.lower()
    if form is None:
        form = "json" if ending == ".json" else "overlay" if ending else "masks"
    if form == "overlay":
        check_video_name(out)
    elif form == "json" and ending != ".json":
        raise ConfigError(f"{out} does not suit JSON: end it in .json")
    elif form == "masks" and (ending in VIDEO_ENDINGS or ending == ".json"):
        raise ConfigError(f"{out} is to be a folder of masks: give it no ending")
    return form
