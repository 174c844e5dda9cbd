"""`picosam2 finetune`: a person's own masks in, weights made better for them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from picosam2.cli._options import Threads
from picosam2.cli._targets import check_files


def finetune(
    annotations: Annotated[Path, Parameter(metavar="ANNOTATIONS")],
    images: Annotated[Path, Parameter(metavar="IMAGES")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="NAME")],
    minutes: float = 10.0,
    weights: Annotated[str, Parameter(metavar="NAME|FILE")] = "default",
    resume: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    threads: Threads = None,
) -> None:
    """Train weights further on your own masks, in minutes, on a processor.

    Writes NAME.safetensors, NAME.onnx, NAME-int8.onnx and NAME.html: a page that compares them with
    the weights before, on some of your images that were kept aside. Ctrl-C stops early and keeps
    the best weights so far.

    Args:
        annotations: A COCO file, or a folder of labelme or YOLO files with outlines.
        images: The folder of the images.
        out: The name of the files, without ending.
        minutes: How long everything may take.
        weights: What to start from: `default`, or a safetensors file, for instance of a fine-tuning
            before.
        resume: Go on with a run that was stopped.
    """
    from picosam2._words import counted
    from picosam2.apps.finetune import finetune as run
    from picosam2.cli._memory import keep_memory
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns, name_problems

    endings = (".safetensors", ".onnx", "-int8.onnx", ".html")
    check_files(*(out.with_name(out.name + ending) for ending in endings), kept=[weights])
    keep_memory()
    with progress("fine-tuning", "s") as update:
        result = run(
            annotations,
            images,
            out,
            weights=weights,
            minutes=minutes,
            resume=resume,
            threads=threads,
            progress=update,
        )
    rows: list[tuple[str, ...]] = [("", "before", "after", "INT8")]
    after, int8 = result.after.columns(), result.int8_scores.columns()
    for prompt, values in result.before.columns().items():
        scores = (sum(of) / len(of) for of in (values, after[prompt], int8[prompt]))
        rows.append((prompt, *(f"{100 * score:.1f}" for score in scores)))
    kept_aside = len(set(result.before.images))
    measured, images_aside = len(result.before.box), counted(kept_aside, "image")
    print(f"mIoU on {counted(measured, 'mask')} in {images_aside} kept aside")
    print(columns(rows))
    name_problems(result.problems, "images or masks left out")
    if result.stopped:
        print("stopped early: --resume goes on")
    print("\n".join(str(path) for path in (result.weights, result.onnx, result.int8, result.page)))
