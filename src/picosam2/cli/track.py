"""`picosam2 track`: a video and a prompt in; the object's mask in every frame out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2._words import counted
from picosam2.cli._options import Boxes, Points, RuntimeName, Threads, Weights, read_prompts
from picosam2.cli._targets import check_files, check_folders
from picosam2.cli._text import one_line
from picosam2.errors import PromptError

if TYPE_CHECKING:
    from picosam2.io.video_files import FrameSource
    from picosam2.predictor import Predictor
    from picosam2.prompts import Prompt
    from picosam2.tasks.tracking import Tracked
    from picosam2.tasks.tracking_outputs import TrackOutput

Form: TypeAlias = Literal["overlay", "masks", "json"]  # as in tasks.tracking_outputs


def track(
    video: Annotated[str, Parameter(name="VIDEO", allow_leading_hyphen=True)],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], metavar="FILE|DIR")],
    point: Points = None,
    box: Boxes = None,
    one_object: Annotated[bool | None, Parameter(negative="--separate")] = None,
    frame: Annotated[int, Parameter(validator=Number(gte=0), metavar="N")] = 0,
    frames: Annotated[int | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    format: Annotated[Form | None, Parameter(name=["--format", "-f"])] = None,
    size: Annotated[str | None, Parameter(metavar="WxH")] = None,
    rate: Annotated[
        float | None, Parameter(validator=Number(gt=0, lte=1000), metavar="FPS")
    ] = None,
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
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
        video: A video file, a folder of images, the number of a camera (0 is the first), or `-` for
            raw RGB frames.
        out: A video (.mp4, .mov, .mkv, .webm), a .json file, or a folder for mask PNGs.
        point: A click on the object (LABEL 1, or none) or on what does not belong to it (0).
            Repeatable.
        box: The object's left, top, right and bottom. Repeatable.
        one_object: All points and the box mean one object, or each means its own, whatever the
            labels.
        frame: The frame that the prompts belong to, counted from 0. Tracking begins there.
        frames: Stop after this many frames of the video.
        format: The video with the masks drawn on it; an indexed PNG a frame, whose values are the
            objects' numbers; or JSON in the form of COCO-VID (YouTube-VIS). By default what the
            name in --out says.
        size: Width and height of raw frames.
        rate: Frames a second of raw frames, of a folder or of the camera.
        overwrite: Replace the mask PNGs that the folder holds.
    """
    from picosam2.runtimes.weights import find_weights
    from picosam2.tasks.tracking_outputs import OUTPUTS, check_masks_folder, output_form

    prompts = read_prompts(point or (), box or (), one_object)
    form = output_form(out, format)
    if frames is not None and frames <= frame:
        raise PromptError(
            f"--frames {frames} ends before --frame {frame}, where tracking begins: make it "
            f"{frame + 1} or more"
        )
    if form == "masks":
        check_folders(out)
        check_masks_folder(out, video, overwrite=overwrite)
    else:
        check_files(out)
    find_weights(weights, runtime)

    from picosam2.io.video_files import open_frames, read_size

    with ExitStack() as stack:
        source = stack.enter_context(
            open_frames(video, size=None if size is None else read_size(size), rate=rate)
        )
        if source.length is not None and frame >= source.length:
            length = source.count()  # headers are not always right
            if length is not None and frame >= length:
                raise _no_such_frame(source, length, frame)
        from picosam2.predictor import Predictor

        predictor = Predictor(weights, runtime=runtime, threads=threads)
        # Nothing is left of a file that could not be completed.
        sink = stack.enter_context(OUTPUTS[form](out, source, prompts))
        _follow(source, predictor, prompts, frame, frames, sink)
    for note in source.notes:
        print(f"picosam2: {one_line(note)}", file=sys.stderr)
    print(f"{out}: {sink.summary()}")
    return 0


def _follow(
    source: FrameSource,
    predictor: Predictor,
    prompts: Sequence[Prompt],
    first: int,
    limit: int | None,
    sink: TrackOutput,
) -> None:
    from picosam2.cli._progress import progress
    from picosam2.tasks.tracking import Tracker

    tracker = Tracker(predictor)
    total = source.length if limit is None else min(limit, source.length or limit)
    count, spent = 0, 0.0
    with progress("tracking", "frames") as update:
        try:
            for frame in source:
                objects: list[Tracked] | None = None
                started = time.perf_counter()
                if frame.index == first:
                    objects = tracker.start(frame.pixels, prompts=prompts)
                elif frame.index > first:
                    objects = tracker.update(frame.pixels)
                spent += time.perf_counter() - started
                sink.add(frame, objects)
                count = frame.index + 1
                update(
                    count, total, note=f"{max(count - first, 0) / max(spent, 1e-9):.1f} frames/s"
                )
                if count == limit:
                    break
        except KeyboardInterrupt:
            if not source.live:
                raise
            print(f"picosam2: {source.name} stopped after frame {count - 1}", file=sys.stderr)
    if count <= first:
        raise _no_such_frame(source, count, first)


def _no_such_frame(source: FrameSource, count: int, first: int) -> PromptError:
    if count == 0:
        return PromptError(
            f"{source.name} gave no frames: if a program writes them, see what it says"
        )
    return PromptError(
        f"{source.name} has {counted(count, 'frame')}, counted from 0: --frame {first} is "
        "not among them"
    )
