"""`picosam2 teach`: ask a teacher about every object of a store, or about what nobody annotated."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import Annotations, NamedAnnotations, given_sources
from picosam2.cli._targets import check_folders, check_image_folders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from picosam2._progress import Progress
    from picosam2.data.detections import Detections
    from picosam2.data.store import SourceFiles
    from picosam2.distillation.protocol import TeacherConfig
    from picosam2.runtimes.finder import BoxFinder


def teach(
    *,
    teacher: Annotated[str, Parameter(metavar="KIND:WHERE")],
    store: Annotated[Path | None, Parameter(metavar="STORE")] = None,
    dense: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    coco: Annotations | None = None,
    lvis: Annotations | None = None,
    source: NamedAnnotations | None = None,
    images: Annotated[list[Path] | None, Parameter(negative=(), metavar="DIR")] = None,
    only: Annotated[list[str] | None, Parameter(negative=(), metavar="SOURCE")] = None,
    exclude: Annotated[list[Path] | None, Parameter(negative=(), metavar="DIR")] = None,
    out: Annotated[Path, Parameter(metavar="DIR")],
    prompt: Literal["box", "point", "both"] = "box",
    choose: Literal["predicted", "truth"] = "predicted",
    agree: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.5,
    confidence: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.45,
    boxes: Annotated[int, Parameter(validator=Number(gte=1))] = 48,
    detections: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["bf16", "fp32"] = "bf16",
    limit_shards: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
) -> None:
    """Write a teacher's masks, for training to learn from.

    With --store the teacher segments every object of a store, and its logits become a cache. The
    images and annotations are those that `picosam2 data prepare` was given; the store keeps none of
    their paths.

    With --dense it segments what nobody annotated: a finder proposes boxes in whole images,
    and the masks that the teacher is sure of are written in COCO's format, for `picosam2 data
    prepare`.

    Either way an image is shown once, with all of its objects, and with --dense its mirror image,
    too. Run again after an interruption, it keeps the parts that are finished. `torchrun
    --nproc-per-node 2 -m picosam2 teach ...` shares the parts among processes.

    Args:
        teacher: The teacher: `sam2:FOLDER` or `sam2:HUB-ID` for SAM 2 (likewise sam, edgetam),
            `checkpoint:NAME|FILE` for weights of this project, `onnx:FOLDER` for SAM as
            encoder.onnx and decoder.onnx.
        store: What `picosam2 data prepare` made.
        dense: Segment what nobody annotated.
        coco: A COCO annotation file and its images. Repeatable.
        lvis: An LVIS annotation file and the folder with COCO's images. Repeatable.
        source: Any other file in COCO's format, with its name. Repeatable.
        images: With --dense: a folder of images without annotations. Repeatable.
        only: With --dense: look only at images of this source, as the images' field `source` says,
            or else the name of their annotation file. Repeatable.
        exclude: With --dense: a folder with the images of an evaluated set. Images that look like
            one of them are left out, and named. Repeatable.
        out: The folder of the result.
        prompt: With --store: what the teacher is shown of an object. With --dense it is its box.
        choose: With --store: which of a teacher's several masks counts, the one with the
            highest predicted IoU or the one that is nearest to the truth.
        agree: With --store: IoU with the truth below which the teacher is taken to have meant
            another object.
        confidence: With --dense: masks of a lower confidence are left out.
        boxes: With --dense: so many boxes are looked at in an image, at most.
        detections: With --dense: a file of another detector's boxes, instead of the finder's.
        device: Where the teacher runs; auto takes a GPU if there is one.
        precision: What the teacher computes with.
        limit_shards: With --store: stop after so many parts; the same command without it goes on.
    """
    from picosam2.cli._memory import keep_memory
    from picosam2.distillation.protocol import TeacherConfig
    from picosam2.errors import ConfigError, require

    of_store = {
        "--prompt": prompt != "box",
        "--choose": choose != "predicted",
        "--agree": agree != 0.5,
        "--limit-shards": limit_shards is not None,
    }
    of_dense = {
        "--images": bool(images),
        "--only": bool(only),
        "--exclude": bool(exclude),
        "--confidence": confidence != 0.45,
        "--boxes": boxes != 48,
        "--detections": detections is not None,
    }
    if dense == (store is not None):
        raise ConfigError(
            "give either --store STORE, to ask about its objects, or --dense, to ask about what "
            "nobody annotated"
        )
    _refuse(of_store if dense else of_dense, "--store" if dense else "--dense")
    if dense and not (coco or lvis or source or images):
        raise ConfigError(
            "there is nothing to teach about: add --images DIR, --coco FILE DIR, --lvis or --source"
        )
    for module in ("torch", "safetensors", "pycocotools", "matplotlib"):
        require(module, "train")
    keep_memory()
    config = TeacherConfig(prompt=prompt, choose=choose, device=device, precision=precision)
    only_folders = images and not (coco or lvis or source)
    sources = [] if only_folders else given_sources(coco, lvis, source, to="teach about")
    if store is not None:
        _teach_store(teacher, config, store, sources, out, agree, limit_shards)
    else:
        _teach_dense(
            teacher, config, sources, images or (), only or (), exclude or (), out, confidence,
            boxes, detections,
        )  # fmt: skip


def _refuse(options: Mapping[str, bool], goes_with: str) -> None:
    """Refuse (`ConfigError`) the first of some options that is given."""
    from picosam2.errors import ConfigError

    for name, is_given in options.items():
        if is_given:
            raise ConfigError(f"{name} goes with {goes_with}: leave it out")


def _processes() -> tuple[int, int]:
    """This process's number and how many there are, from `torchrun`."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _teach_store(
    teacher: str,
    config: TeacherConfig,
    store: Path,
    sources: Sequence[SourceFiles],
    out: Path,
    agree: float,
    limit_shards: int | None,
) -> None:
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.store import Store
    from picosam2.distillation.cache import TeacherCache
    from picosam2.distillation.report import describe, write_report
    from picosam2.distillation.teach import teach as run
    from picosam2.distillation.teachers import open_teacher

    rank, world = _processes()
    check_folders(out)
    opened = Store(store)
    opened_teacher = open_teacher(teacher, config)
    with progress("teaching", "images") as update:
        shown: Progress | None = update if rank == 0 else None
        done = run(
            opened_teacher,
            opened,
            sources,
            out,
            agree=agree,
            limit_shards=limit_shards,
            rank=rank,
            world=world,
            progress=shown,
        )
    problems = [f"{problem.where}: {problem.what}" for problem in done.problems]
    name_problems(problems, "images that could not be shown to the teacher")
    print(f"{out}: {counted(done.written, 'part')} written, {done.kept:,} there already")
    cache = TeacherCache(out, opened, unfinished=True)
    # The process that sees everything finished tells of it; one alone tells of what there is.
    if world == 1 or cache.done.all():
        print(describe(write_report(cache, opened)))


def _teach_dense(
    teacher: str,
    config: TeacherConfig,
    sources: Sequence[SourceFiles],
    images: Sequence[Path],
    only: Sequence[str],
    exclude: Sequence[Path],
    out: Path,
    confidence: float,
    boxes: int,
    detections: Path | None,
) -> None:
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.detections import read_detections
    from picosam2.distillation.dense import (
        check_dense_folder,
        image_files,
        source_names,
        teach_dense,
    )
    from picosam2.distillation.dense_masks import DenseConfig
    from picosam2.distillation.dense_report import write_dense_report
    from picosam2.distillation.teachers import open_teacher
    from picosam2.runtimes.finder import opened_finder

    rank, world = _processes()
    check_folders(out)
    check_image_folders(*images, *exclude)
    check_dense_folder(out)
    source_names(sources, images)
    for folder in images:
        image_files(folder)
    settings = DenseConfig(confidence=confidence, boxes=boxes)
    finder: BoxFinder | Detections
    if detections is None:
        finder = opened = opened_finder()
        boxes_from = opened.info.weights_sha256
    else:
        finder = read_detections(detections)
        boxes_from = finder.fingerprint
    opened_teacher = open_teacher(teacher, config)
    with progress("teaching", "images") as update:
        shown: Progress | None = update if rank == 0 else None
        done = teach_dense(
            opened_teacher,
            finder,
            sources,
            images,
            out,
            settings,
            finder_sha256=boxes_from,
            only=only,
            exclude=exclude,
            rank=rank,
            world=world,
            progress=shown,
        )
    print(f"{out}: {counted(done.written, 'part')} written, {done.kept:,} there already")
    if not done.finished:
        return  # the process that sees everything finished tells of it
    problems = [f"{problem.where}: {problem.what}" for problem in done.problems]
    name_problems(problems, "images or annotations left out")
    write_dense_report(done, out)
    which = "; for `picosam2 data prepare`:" if done.files else ""
    print(f"{counted(done.masks, 'new mask')} in {counted(done.images, 'image')}{which}")
    for files in done.files:
        words = ["--source", str(files.name), str(files.annotations), str(files.images)]
        print(f"    {shlex.join(words)}")
    if done.curve:
        print("confidence  IoU with the annotation  masks (held-out images)")
    for part in done.curve:
        print(f"{part.confidence:10.2f}  {part.iou:23.3f}  {part.count:5d}")
