"""`picosam2 everything`: the masks of all objects of an image, without being pointed at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import Out, OutputFormat, RuntimeName, Threads, Tolerance, Weights
from picosam2.cli._results import segment_folders, segment_named

if TYPE_CHECKING:
    from picosam2.predictor import Predictor
    from picosam2.results import Segmentation
    from picosam2.tasks.named import Image, NamedImage

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]


def everything(
    *images: Annotated[Path, Parameter(name="IMAGE", allow_leading_hyphen=True)],
    method: Literal["finder", "grid"] = "finder",
    finder: Annotated[str, Parameter(metavar="NAME|FILE")] = "finder",
    max_boxes: Count = 120,
    objectness_thresh: Share = 0.22,
    second_looks: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    points_per_side: Count = 24,
    points_per_batch: Count = 64,
    pred_iou_thresh: Share | None = None,
    stability_score_thresh: Share = 0.4,
    stability_score_offset: Annotated[float, Parameter(validator=Number(gte=0, lt=32))] = 1.0,
    box_nms_thresh: Share | None = None,
    mask_nms_thresh: Share | None = None,
    crop_n_layers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    min_mask_region_area: Annotated[int, Parameter(validator=Number(gte=0))] = 32,
    max_masks: Count = 300,
    out: Out = None,
    format: Annotated[OutputFormat | None, Parameter(name=["--format", "-f"])] = None,
    tolerance: Tolerance = 1.0,
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    weights: Weights = "default-int8",
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> int:
    """Make masks of all objects in images, without prompts.

    A finder sees the whole image and says which boxes hold an object; or a grid of clicks is laid
    over the image for each of several sizes of objects. Masks of which the network is sure are
    kept, each once. They are written largest first, and they may lie in one another. The settings
    have the names of SAM's automatic mask generator.

    Args:
        images: Images; `-` reads one from standard input, and the word `sample` is the bundled one.
            Or folders of images: then those that are done are left out, so that a run can go on.
        method: What finds objects: the finder, or a grid of clicks.
        finder: The finder's weights: the name of those that ship, or a file.
        max_boxes: Look at so many boxes of the finder, at most.
        objectness_thresh: Of the finder: beyond the best 50, look at no boxes of a lower
            objectness.
        second_looks: Of the finder: look at so many of the best masks once more, by their own
            boxes, where these differ from the finder's.
        points_per_side: Of the grid: clicks along each side of the image. More find smaller
            objects, and the time grows with the square.
        points_per_batch: Clicks or boxes that go through the network together; fewer take less
            memory.
        pred_iou_thresh: Drop masks with a lower predicted IoU; by default 0.4, or 0.7 of the grid.
        stability_score_thresh: Drop masks that depend more on their threshold.
        stability_score_offset: How far that score moves the threshold, in logits.
        box_nms_thresh: Of boxes with a higher IoU, look at one only; by default 0.7, or 0.9 of
            the grid.
        mask_nms_thresh: Of masks with a higher IoU, keep the best one; by default 0.75, or 0.7 of
            the grid.
        crop_n_layers: For small objects, further layers of smaller parts that the finder looks at,
            or further grids of windows half as wide each time.
        min_mask_region_area: Remove pieces, holes and masks of fewer pixels.
        max_masks: Keep so many masks at most.
        out: A folder, a file, or `-` for standard output; by default the current folder.
        format: As in `picosam2 segment`: an overlay in colors, JSON, COCO with RLE or polygons,
            numbered PNGs, outlines, labels, or a mask or cut-out of each object.
        overwrite: Do again what is done, and replace files that this command did not write.
    """
    from picosam2.cli._progress import progress
    from picosam2.cli._text import one_line
    from picosam2.tasks.everything import Everything
    from picosam2.tasks.everything import everything as find

    settings = Everything(
        method=method,
        finder=finder,
        max_boxes=max_boxes,
        objectness_thresh=objectness_thresh,
        second_looks=second_looks,
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
    settings.refuse_unused()
    if any(image.is_dir() for image in images):
        from picosam2.tasks.bulk.prompts import PromptSource

        return segment_folders(
            images,
            PromptSource.all_objects(settings),
            out=out,
            format=format,
            tolerance=tolerance,
            overwrite=overwrite,
            weights=weights,
            runtime=runtime,
            workers=threads,
        )
    from picosam2.runtimes.finder import opened_finder
    from picosam2.tasks.named import named_images

    opened = opened_finder(finder, threads, runtime) if method == "finder" else None

    def objects_of(predictor: Predictor, image: NamedImage, pixels: Image) -> list[Segmentation]:
        with progress(one_line(image.text), "windows") as update:
            return find(pixels, predictor, settings, finder=opened, progress=update)

    return segment_named(
        named_images(list(map(str, images)), command="everything"),
        objects_of,
        out=out,
        format=format,
        tolerance=tolerance,
        overwrite=overwrite,
        weights=weights,
        runtime=runtime,
        threads=threads,
        prompts=False,
    )
