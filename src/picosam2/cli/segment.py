"""`picosam2 segment`: images and prompts in; overlays, masks or JSON out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from picosam2.cli._options import (
    Boxes,
    BoxesFormat,
    Flip,
    Out,
    OutputFormat,
    Points,
    RuntimeName,
    Threads,
    Tolerance,
    Weights,
    read_prompts,
)
from picosam2.cli._results import segment_folders, segment_named
from picosam2.errors import ConfigError


def segment(
    *images: Annotated[Path, Parameter(name="IMAGE", allow_leading_hyphen=True)],
    point: Points = None,
    box: Boxes = None,
    mask: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    one_object: Annotated[bool | None, Parameter(negative="--separate")] = None,
    prompts: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    boxes: Annotated[Path | None, Parameter(metavar="FILE|DIR")] = None,
    boxes_format: BoxesFormat | None = None,
    multimask: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    out: Out = None,
    format: Annotated[OutputFormat | None, Parameter(name=["--format", "-f"])] = None,
    tolerance: Tolerance = 1.0,
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    weights: Weights = "default",
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
    flip: Flip = False,
) -> int:
    """Make masks of the objects that points and boxes show in images.

    Coordinates are pixels from the top left. Each point and each box means one object, so three
    points give three masks; but once a point has LABEL 0 ("not this"), all points and the box
    together mean one object. Its first click (or the box) gives a mask, and every further click
    corrects the mask so far, in the order of the command line.

    With --mask the points correct a mask that is there already: LABEL 1 on what it lacks, 0 on what
    is too much in it. Without points the mask is made anew by its box, and weights without guidance
    always take no more of it than its box.

    Files are named after the image: `cat-overlay.png` shows all objects, `cat-mask.png` and
    `cat-cutout.png` have one object each (`cat-mask-1.png`, `cat-mask-2.png` if there are several),
    `cat.json` has all. An image that cannot be used is left out and named at the end; the exit code
    is 2 then.

    With a folder, --prompts or --boxes it is a run over many images, on all processors. It can be
    stopped and started again: images that are done with the same prompts, weights and settings are
    left out, the others are done again. COCO becomes one file:
    `picosam2 segment images/ --boxes detections.json --format coco --out masks.json`.

    Args:
        images: Images, or folders of them; `-` reads one from standard input, and the word `sample`
            is the bundled one.
        point: A click on the object (LABEL 1, or none) or on what does not belong to it (0).
            Repeatable.
        box: The object's left, top, right and bottom. Repeatable.
        mask: A mask to correct, as large as the image: a PNG, black off the object and white on it
            (with grays for its probability), or transparent off the object like a cut-out.
        one_object: All points and the box mean one object, or each means its own, whatever the
            labels.
        prompts: JSON or CSV with the points and boxes of many images: image, object, class, points
            or x, y and label, box or x0, y0, x1 and y1.
        boxes: A detector's or a label tool's boxes for many images: a COCO file of annotations or
            results, or a file or folder of YOLO or labelme.
        boxes_format: The format of --boxes, where its content does not show it.
        multimask: Three masks of different size for each object without a box or mask, best first.
        out: A folder, a file, or `-` for standard output; by default the current folder.
        format: The image with the masks drawn on it, the bare mask, the object cut out, or JSON
            with prompt, box, score, area, RLE and polygons; PNGs with the objects' numbers as
            colors (indexed) or in 16 bits (ids); outlines as svg; COCO with RLE or polygons; YOLO
            or labelme labels. By default overlay, or what suits a file's ending.
        overwrite: Do again what is done, and replace files that this command did not write.
    """
    if boxes_format is not None and boxes is None:
        raise ConfigError("--boxes-format says how a file of boxes is written: add --boxes FILE")
    if prompts is not None or boxes is not None or any(image.is_dir() for image in images):
        from picosam2.tasks.bulk.prompts import prompt_source
        from picosam2.tasks.bulk.run import check_many

        for used, name in ((multimask, "--multimask"), (mask is not None, "--mask")):
            if used:
                raise ConfigError(f"{name} is for images named one by one, with --point")
        from_file = prompts is not None or boxes is not None
        if one_object is not None and from_file and not (point or box):
            option = "--one-object" if one_object else "--separate"
            raise ConfigError(
                f"{option} says what --point and --box mean, and a file says which prompts are of "
                "one object: leave it out"
            )
        everywhere = read_prompts(point or (), box or (), one_object) if point or box else None
        check_many(images, out=out, format=format, weights=weights, runtime=runtime)
        return segment_folders(
            images,
            prompt_source(everywhere, prompts, boxes, boxes_format),
            out=out,
            format=format,
            tolerance=tolerance,
            overwrite=overwrite,
            weights=weights,
            runtime=runtime,
            workers=threads,
            flip=flip,
        )
    from picosam2.tasks.named import named_images

    named = named_images(list(map(str, images)), command="segment")
    if mask is not None and len(named) > 1:
        raise ConfigError(f"--mask is of one image, and {len(named)} are named: name that one")
    given_prompts = read_prompts(point or (), box or (), one_object, mask)
    return segment_named(
        named,
        lambda predictor, image, pixels: predictor(
            pixels, prompts=given_prompts, multimask=multimask
        ),
        out=out,
        format=format,
        tolerance=tolerance,
        overwrite=overwrite,
        weights=weights,
        runtime=runtime,
        threads=threads,
        flip=flip,
        separate=multimask,
        kept=() if mask is None else (mask,),
    )
