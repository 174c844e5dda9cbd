"""`picosam2 proposals`: how many of the annotated objects everything mode finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import RuntimeName, Threads, Weights
from picosam2.cli._targets import check_files, check_sources

if TYPE_CHECKING:
    from picosam2.evaluation.proposals import Proposals


def proposals(
    *,
    images: Annotated[Path, Parameter(metavar="DIR")],
    annotations: Annotated[Path, Parameter(metavar="FILE")],
    dataset: Literal["coco", "lvis"] = "coco",
    weights: Weights = "default",
    method: Literal["finder", "grid"] = "finder",
    finder: Annotated[str, Parameter(metavar="NAME|FILE")] = "finder",
    against: Annotated[Literal["finder", "grid"] | None, Parameter()] = None,
    max_boxes: Annotated[int, Parameter(validator=Number(gte=1))] = 120,
    objectness_thresh: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.22,
    second_looks: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    box_nms_thresh: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None,
    points_per_side: Annotated[int, Parameter(validator=Number(gte=1))] = 24,
    crop_n_layers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    pred_iou_thresh: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.0,
    stability_score_thresh: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.4,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> None:
    """Measure `picosam2 everything` on annotated images.

    AR@100 is the average recall of the 100 best masks of an image over IoU .50:.05:.95, without
    classes, as COCO defines it. It takes the best by rank, so none is dropped for its predicted IoU
    unless that is asked for. Beside it stand a grid of 91 boxes, filled, and the same boxes as
    prompts for the network. The seconds are processor time, of all threads together.

    Args:
        images: The folder of the images.
        annotations: Masks in COCO's or LVIS's format.
        dataset: The annotations' format.
        method: What finds objects: the finder, or a grid of clicks.
        finder: The finder's weights: the name of those that ship, or a file.
        against: Measure the other method, too, on the same images in the same run.
        max_boxes: Look at so many boxes of the finder, at most.
        objectness_thresh: Of the finder: beyond the best 50, look at no boxes of a lower
            objectness.
        second_looks: Of the finder: look at so many of the best masks once more, by their own
            boxes, where these differ from the finder's.
        box_nms_thresh: Of boxes with a higher IoU, look at one only; by default 0.7, or 0.9 of
            the grid.
        points_per_side: Of the grid: clicks along each side of the image.
        crop_n_layers: For small objects, further layers of smaller parts that the finder looks at,
            or further grids of windows half as wide each time.
        pred_iou_thresh: Drop masks with a lower predicted IoU.
        stability_score_thresh: Drop masks that depend more on their threshold.
        limit: Measure the first images only.
        json: Also write the numbers to this file.
    """
    from picosam2._files import write_json
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.proposals import measure
    from picosam2.predictor import Predictor
    from picosam2.runtimes.finder import opened_finder
    from picosam2.tasks.everything import Everything

    settings = Everything(
        method=method,
        finder=finder,
        max_boxes=max_boxes,
        objectness_thresh=objectness_thresh,
        second_looks=second_looks,
        box_nms_thresh=box_nms_thresh,
        points_per_side=points_per_side,
        crop_n_layers=crop_n_layers,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        max_masks=100,
    )
    if against in (None, method):
        settings.refuse_unused()
    check_files(json)
    check_sources((annotations, images))
    predictor = Predictor(weights, runtime=runtime, threads=threads)
    opened = opened_finder(finder, threads, runtime) if "finder" in (method, against) else None
    read = read_annotations(dataset, annotations, images)
    annotated = [image for image in read.images_to_measure() if image.instances][:limit]
    with progress("measuring everything mode", "images") as update:
        result = measure(
            predictor,
            annotated,
            settings,
            finder=opened,
            beside=None if against is None else replace(settings, method=against),
            progress=update,
        )
    print(_table(result))
    problems = [f"{p.where}: {p.what}" for p in (*read.problems, *result.problems)]
    name_problems(problems, "images or annotations skipped")
    if json is not None:
        write_json(json, {**result.to_json(), "dataset": dataset, "problems": problems})


def _table(result: Proposals) -> str:
    from picosam2._words import counted
    from picosam2.cli._text import columns

    rows: list[tuple[str, ...]] = [
        ("", "AR@1", "AR@10", "AR@100", "small", "medium", "large", "masks", "alike", "s/image")
    ]
    for name, method in result.methods.items():
        sizes = ["-" if value is None else f"{value:.3f}" for value in method.by_size.values()]
        rows.append(
            (
                name,
                *(f"{value:.3f}" for value in method.at.values()),
                *sizes,
                f"{method.masks_per_image:.0f}",
                f"{100 * method.near_duplicates:.1f} %",
                f"{method.seconds_per_image:.2f}",
            )
        )
    return (
        f"{counted(result.objects, 'object')} in {counted(result.images, 'image')}\n{columns(rows)}"
    )
