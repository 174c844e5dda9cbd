"""`picosam2 track`: a video and a prompt in; the object's mask in every frame out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import RuntimeName, Threads, Weights
from picosam2.errors import ConfigError, PromptError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from picosam2.io.video_files import Frame, FrameSource
    from picosam2.predictor import Predictor
    from picosam2.prompts import Prompt
    from picosam2.tasks.tracking import Tracked

Form: TypeAlias = Literal["overlay", "masks", "json"]


def track(
    clip: Annotated[str, Parameter(name="CLIP", allow_leading_hyphen=True)],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], metavar="FILE|DIR")],
    point: Annotated[
        list[str] | None,
        Parameter(allow_leading_hyphen=True, negative=(), metavar="X,Y[,LABEL]"),
    ] = None,
    box: Annotated[
        list[str] | None,
        Parameter(allow_leading_hyphen=True, negative=(), metavar="X0,Y0,X1,Y1"),
    ] = None,
    one_object: Annotated[bool | None, Parameter(negative="--separate")] = None,
    frame: Annotated[int, Parameter(validator=Number(gte=0), metavar="N")] = 0,
    frames: Annotated[int | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    format: Annotated[Form | None, Parameter(name=["--format", "-f"])] = None,
    size: Annotated[str | None, Parameter(metavar="WxH")] = None,
    rate: Annotated[float | None, Parameter(validator=Number(gt=0), metavar="FPS")] = None,
    weights: Weights = "default",
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> int:
    """Follow objects through a video, from a click or a box in one frame.

    Each point and each box means one object; with LABEL 0 among the points all of them mean one
    object. An object that is hidden or has left is reported as lost, never as something else, and
    is found again when it comes back. Ctrl C ends a camera or a stream; what was written is whole.

    Raw frames come from another program, for instance
    `ffmpeg -i clip.avi -f rawvideo -pix_fmt rgb24 - | picosam2 track - --size 640x480 ...`

    Args:
        clip: A video file, the number of a camera (0 is the first), or `-` for raw RGB frames.
        out: A video (.mp4, .mov, .mkv, .webm), a .json file, or a folder for mask PNGs.
        point: A click on the object (LABEL 1, or none) or on what does not belong to it (0).
            Repeatable.
        box: The object's left, top, right and bottom. Repeatable.
        one_object: All points and the box mean one object, or each means its own, whatever the
            labels.
        frame: The frame that the prompts belong to, counted from 0. Tracking begins there.
        frames: Stop after this many frames of the clip.
        format: The video with the masks drawn on it; an indexed PNG a frame, whose values are the
            objects' numbers; or JSON in the form of COCO-VID (YouTube-VIS). By default what the
            name in --out says.
        size: Width and height of raw frames.
        rate: Frames a second of raw frames or of the camera.
    """
    from picosam2.cli.segment import read_prompts

    prompts = read_prompts(point or (), box or (), one_object)
    form = _form(out, format)

    from picosam2.io.video_files import open_frames

    with ExitStack() as stack:
        source = stack.enter_context(
            open_frames(clip, size=None if size is None else read_size(size), rate=rate)
        )
        if source.length is not None and frame >= source.length:
            raise _no_such_frame(source, source.length, frame)
        from picosam2.predictor import Predictor

        predictor = Predictor(weights, runtime=runtime, threads=threads)
        # Nothing is left of a file that could not be completed.
        sink = stack.enter_context(_SINKS[form](out, source, prompts))
        _follow(source, predictor, prompts, frame, frames, sink)
    print(f"{out}: {sink.told()}")
    return 0


def _follow(
    source: FrameSource,
    predictor: Predictor,
    prompts: Sequence[Prompt],
    first: int,
    limit: int | None,
    sink: _Sink,
) -> None:
    from picosam2.cli._progress import progress
    from picosam2.tasks.tracking import Tracker

    tracker = Tracker(predictor)
    total = source.length if limit is None else min(limit, source.length or limit)
    count, spent = 0, 0.0
    with progress("tracking", "frames") as update:
        try:
            for frame in source:
                found: list[Tracked] | None = None
                started = time.perf_counter()
                if frame.index == first:
                    found = tracker.start(frame.pixels, prompts=prompts)
                elif frame.index > first:
                    found = tracker.update(frame.pixels)
                spent += time.perf_counter() - started
                sink.add(frame, found)
                count = frame.index + 1
                update(count, total, note=f"{max(count - first, 0) / max(spent, 1e-9):.0f} a s")
                if count == limit:
                    break
        except KeyboardInterrupt:
            if not source.live:
                raise
            print(f"picosam2: {source.name} stopped after frame {count - 1}", file=sys.stderr)
    if count <= first:
        raise _no_such_frame(source, count, first)


def _no_such_frame(source: FrameSource, count: int, first: int) -> PromptError:
    return PromptError(
        f"{source.name} has {count} frames, counted from 0: --frame {first} is not among them"
    )


class _Sink:
    """Takes the frames and what was found in them. Used in a `with` statement."""

    def __init__(self, out: Path, source: FrameSource, prompts: Sequence[Prompt]) -> None:
        self._out, self._source, self._prompts = out, source, prompts
        self._stack = ExitStack()
        self._count = 0
        self._lost = [0] * len(prompts)

    def __enter__(self) -> _Sink:
        self.begin()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()
        self._stack.__exit__(kind, error, trace)

    def add(self, frame: Frame, found: Sequence[Tracked] | None) -> None:
        """Take a frame; `found` is None before tracking begins."""
        self._count += found is not None
        for number, one in enumerate(found or ()):
            self._lost[number] += not one.found
        self.write(frame, found)

    def told(self) -> str:
        """One line about all of it."""
        parts = [
            f"object {n}: found in {self._count - lost:,}, lost in {lost:,}"
            for n, lost in enumerate(self._lost, 1)
        ]
        return f"{self._count:,} frames; " + "; ".join(parts)

    def begin(self) -> None:
        """Before the first frame."""

    def write(self, frame: Frame, found: Sequence[Tracked] | None) -> None:
        """Write one frame."""
        raise NotImplementedError

    def finish(self) -> None:
        """After the last frame, if all went well."""


class _Overlay(_Sink):
    """The video with the masks drawn on it."""

    def begin(self) -> None:
        from picosam2._files import atomic_write
        from picosam2.io.video_files import VideoWriter

        if Path(self._source.name).resolve() == self._out.resolve():
            raise ConfigError(f"{self._out} is the clip itself: choose another --out")
        temporary = self._stack.enter_context(atomic_write(self._out))
        self._writer = self._stack.enter_context(VideoWriter(temporary, self._source.rate))

    def write(self, frame: Frame, found: Sequence[Tracked] | None) -> None:
        self._writer.write(draw(frame.pixels, found or ()), frame.time)


class _Masks(_Sink):
    """An indexed PNG for each frame, as in DAVIS: the value is the object's number."""

    def write(self, frame: Frame, found: Sequence[Tracked] | None) -> None:
        import numpy as np

        from picosam2._files import write_bytes
        from picosam2.io.formats import indexed_png

        empty = np.zeros(frame.pixels.shape[:2], np.bool_)
        masks = [one.mask for one in found] if found else [empty for _ in self._prompts]
        write_bytes(self._out / f"{frame.index:06d}.png", indexed_png(masks))


class _Json(_Sink):
    """COCO-VID's form, as YouTube-VIS has it: an annotation is an object, with a mask a frame."""

    def begin(self) -> None:
        self._masks: list[list[Any]] = [[] for _ in self._prompts]
        self._boxes: list[list[Any]] = [[] for _ in self._prompts]
        self._areas: list[list[Any]] = [[] for _ in self._prompts]
        self._scores: list[list[float]] = [[] for _ in self._prompts]
        self._times: list[float] = []
        self._shape = (0, 0)

    def write(self, frame: Frame, found: Sequence[Tracked] | None) -> None:
        from picosam2.masks import rle_encode

        self._shape = (frame.pixels.shape[0], frame.pixels.shape[1])
        self._times.append(frame.time)
        for number in range(len(self._prompts)):
            one = found[number] if found else None
            box = one.box if one else None
            self._masks[number].append(rle_encode(one.mask) if one and box else None)
            self._boxes[number].append(list(box.as_xywh()) if box else None)
            self._areas[number].append(one.area if one and box else None)
            self._scores[number].append(round(one.score, 4) if one else 0.0)

    def finish(self) -> None:
        from picosam2._files import write_json

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


_SINKS: dict[Form, type[_Sink]] = {"overlay": _Overlay, "masks": _Masks, "json": _Json}


def draw(pixels: npt.NDArray[np.uint8], found: Sequence[Tracked]) -> npt.NDArray[np.uint8]:
    """A frame (H, W, 3) uint8 with the objects on it, and the lost ones named in a corner."""
    import numpy as np
    from PIL import ImageDraw, ImageFont

    from picosam2.prompts import Prompt
    from picosam2.results import PALETTE, Segmentation, overlay

    shown, colours = [], []
    for number, one in enumerate(found):
        if box := one.box:
            shown.append(Segmentation(mask=one.mask, score=one.score, prompt=Prompt(box=box)))
            colours.append(PALETTE[number % len(PALETTE)])
    picture = overlay(pixels, shown, colors=colours) if shown else None
    lost = [str(number) for number, one in enumerate(found, 1) if not one.found]
    if lost:
        from PIL import Image

        picture = picture or Image.fromarray(pixels)
        text = "lost" if len(found) == 1 else f"lost: {', '.join(lost)}"
        height = max(pixels.shape[0] // 20, 12)
        ImageDraw.Draw(picture).text(
            (height // 2, height // 2),
            text,
            fill="white",
            stroke_fill="black",
            stroke_width=max(height // 8, 1),
            font=ImageFont.load_default(height),
        )
    return pixels if picture is None else np.asarray(picture)


def _form(out: Path, form: Form | None) -> Form:
    """What `out` is to hold, or `ConfigError` if its name does not suit that."""
    from picosam2.io.video_files import VIDEO_ENDINGS, check_video_name

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


def read_size(text: str) -> tuple[int, int]:
    """Width and height, of "WxH". Raises `ConfigError`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{text!r} is no size: write width x height, for instance 640x480")
    return int(parts[0]), int(parts[1])
