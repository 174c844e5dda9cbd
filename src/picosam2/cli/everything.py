"""`picosam2 everything`: the masks of all objects of a photo, without being pointed at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import RuntimeName, Threads, Weights
from picosam2.cli._outputs import Format, Tolerance

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]


def everything(
    *photos: Annotated[Path, Parameter(name="PHOTO", allow_leading_hyphen=True)],
    points_per_side: Count = 24,
    points_per_batch: Count = 64,
    pred_iou_thresh: Share = 0.7,
    stability_score_thresh: Share = 0.4,
    stability_score_offset: Annotated[float, Parameter(validator=Number(gte=0, lt=32))] = 1.0,
    box_nms_thresh: Share = 0.9,
    mask_nms_thresh: Share = 0.7,
    crop_n_layers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    min_mask_region_area: Annotated[int, Parameter(validator=Number(gte=0))] = 32,
    max_masks: Count = 300,
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], allow_leading_hyphen=True, metavar="DIR|FILE|-"),
    ] = None,
    format: Annotated[Format | None, Parameter(name=["--format", "-f"])] = None,
    tolerance: Tolerance = 1.0,
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    weights: Weights = "default",
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> int:
    """Make masks of everything in photos.

    A grid of clicks is laid over the photo for each of several sizes of things; what the network is
    sure of is kept, once. Masks are written largest first, and they may lie in one another. The
    settings have the names of SAM's automatic mask generator.

    Args:
        photos: Pictures; `-` reads one from standard input, and the word `sample` is the bundled
            one. Or folders of pictures: then what is done is left out, so that a run can go on.
        points_per_side: Clicks along each side of the photo. More find smaller things, and the time
            grows with the square.
        points_per_batch: Clicks that are looked at together; fewer take less memory.
        pred_iou_thresh: Drop masks with a lower predicted IoU.
        stability_score_thresh: Drop masks that depend more on their threshold.
        stability_score_offset: How far that score moves the threshold, in logits.
        box_nms_thresh: Of first answers whose boxes have a higher IoU, look again at one only.
        mask_nms_thresh: Of masks with a higher IoU, keep the best one.
        crop_n_layers: Further grids with windows half as wide each time. One finds more small
            things and takes nearly twice the time.
        min_mask_region_area: Remove pieces, holes and masks of fewer pixels.
        max_masks: Keep so many masks at most.
        out: A folder, a file, or `-` for standard output; by default the current folder.
        format: As in `picosam2 segment`: a coloured overlay, JSON, COCO with RLE or polygons,
            numbered PNGs, outlines, labels, or a mask or cut-out of each object.
        overwrite: In a run over a folder, do again what is done.
    """
    from picosam2.cli._progress import progress
    from picosam2.cli.segment import Place, photo_names, read_photo, write_groups
    from picosam2.errors import PicoSAM2Error
    from picosam2.images import load_image
    from picosam2.predictor import Predictor
    from picosam2.tasks.everything import Everything
    from picosam2.tasks.everything import everything as find

    settings = Everything(
        points_per_side=points_per_side,
        points_per_batch=points_per_batch,
        pred_iou_thresh=pred_iou_thresh,
        stability_score_thresh=stability_score_thresh,
        stability_score_offset=stability_score_offset,
        box_nms_thresh=box_nms_thresh,
        mask_nms_thresh=mask_nms_thresh,
        crop_n_layers=crop_n_layers,
        min_mask_region_area=min_mask_region_area,
        max_masks=max_masks,
    )
    if any(photo.is_dir() for photo in photos):
        from picosam2.cli.bulk import Source, run

        return run(
            photos,
            Source(everything=settings, settings={"everything": vars(settings)}),
            out=out,
            format=format,
            tolerance=tolerance,
            overwrite=overwrite,
            weights=str(weights),
            runtime=runtime,
            threads=threads,
        )
    names = photo_names(photos)
    place = Place(names, out, format)
    predictor = Predictor(str(weights), runtime=runtime, threads=threads)
    skipped = []
    for name in names:
        try:
            picture = load_image(read_photo(name))
            with progress(name, "windows") as update:
                found = find(picture, predictor, settings, progress=update)
            write_groups(
                place, name, str(weights), predictor, picture, found, False, tolerance,
                prompts=False,
            )  # fmt: skip
        except PicoSAM2Error as error:
            if len(names) == 1:
                raise
            skipped.append(f"{name}: {error}")
    if skipped:
        print(f"picosam2: {len(skipped)} of {len(names)} photos were skipped:", file=sys.stderr)
        print(*(f"  {line}" for line in skipped), sep="\n", file=sys.stderr)
    return 2 if skipped else 0
