"""What `segment` and `everything` share: running, and saying what was written and left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from picosam2._words import counted
from picosam2.cli._text import one_line

if TYPE_CHECKING:
    from picosam2.io.encode import Format
    from picosam2.predictor import Predictor
    from picosam2.results import Segmentation
    from picosam2.tasks.bulk.prompts import PromptSource
    from picosam2.tasks.named import Image, NamedImage

_LISTED = 10  # scores that are printed one by one


def segment_folders(
    images: Sequence[Path],
    source: PromptSource,
    *,
    out: Path | None,
    format: Format | None,
    tolerance: float,
    overwrite: bool,
    weights: str,
    runtime: str,
    workers: int | None,
    flip: bool = False,
) -> int:
    """Segment folders of images and print how many; the exit code."""
    from picosam2.cli._progress import progress
    from picosam2.tasks.bulk.run import segment_many

    with progress("segmenting", "images") as update:
        result = segment_many(
            images,
            source,
            out=out,
            format=format,
            tolerance=tolerance,
            overwrite=overwrite,
            weights=weights,
            runtime=runtime,
            workers=workers,
            flip=flip,
            progress=update,
        )
    before = f", {result.done_before:,} done already" if result.done_before else ""
    made = f"{counted(result.masks, 'mask')} of {counted(result.images, 'image')}"
    print(one_line(f"{result.target}: {made}{before}"))
    return _left_out(f"left out ({len(result.problems):,})", result.problems)


def segment_named(
    images: Sequence[NamedImage],
    objects_of: Callable[[Predictor, NamedImage, Image], Sequence[Segmentation]],
    *,
    out: Path | None,
    format: Format | None,
    tolerance: float,
    overwrite: bool,
    weights: str,
    runtime: str,
    threads: int | None,
    flip: bool = False,
    separate: bool = False,
    prompts: bool = True,
    kept: Sequence[Path] = (),
) -> int:
    """Segment images that were named one by one, and print the files; the exit code.

    `kept` are further files that results may not replace.
    """
    from picosam2.tasks.named import LeftOut, write_named
    from picosam2.tasks.output_plan import OutputPlan

    places = [(image.name, image.path) for image in images]
    plan = OutputPlan.for_named(places, out, format, overwrite=overwrite, kept=kept)

    from picosam2.predictor import Predictor

    predictor = Predictor(weights, runtime=runtime, threads=threads, flip=flip)
    left_out = []
    for result in write_named(
        images,
        lambda image, pixels: objects_of(predictor, image, pixels),
        plan,
        separate=separate,
        tolerance=tolerance,
        prompts=prompts,
        weights={"name": weights, "sha256": predictor.runtime.info.weights_sha256},
    ):
        if isinstance(result, LeftOut):
            left_out.append(f"{result.name}: {result.reason}")
        elif result.path is not None:
            print(one_line(f"{result.path}: {summary(result.objects)}"))
    return _left_out(f"{len(left_out)} of {counted(len(images), 'image')} left out", left_out)


def summary(objects: Sequence[Segmentation]) -> str:
    """The objects of an image in a few words."""
    if not objects:
        return "nothing found"
    scores = " ".join(f"{each.score:.2f}" for each in objects)
    if len(objects) > _LISTED:
        low, high = min(each.score for each in objects), max(each.score for each in objects)
        scores = f"{low:.2f} to {high:.2f}"
    if len(objects) > 1:
        return f"{len(objects)} masks, scores {scores}"
    area = objects[0].area
    return f"score {scores}, {area:,} pixels" if area else f"score {scores}, nothing found"


def _left_out(heading: str, reasons: Sequence[str]) -> int:
    if not reasons:
        return 0
    print(f"picosam2: {heading}:", file=sys.stderr)
    for reason in reasons:
        print(f"  {one_line(reason)}", file=sys.stderr)
    return 2
