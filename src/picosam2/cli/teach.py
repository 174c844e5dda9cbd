"""`picosam2 teach`: ask a teacher about every object of a store, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import Annotations, NamedAnnotations, given_sources
from picosam2.cli._targets import check_folders

if TYPE_CHECKING:
    from picosam2._progress import Progress


def teach(
    *,
    teacher: Annotated[str, Parameter(metavar="KIND:WHERE")],
    store: Annotated[Path, Parameter(metavar="STORE")],
    coco: Annotations | None = None,
    lvis: Annotations | None = None,
    source: NamedAnnotations | None = None,
    out: Annotated[Path, Parameter(metavar="CACHE")],
    prompt: Literal["box", "point", "both"] = "box",
    choose: Literal["predicted", "truth"] = "predicted",
    agree: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.5,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["bf16", "fp32"] = "bf16",
    limit_shards: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
) -> None:
    """Keep what a teacher says of every object of a store, for training to learn from.

    The teacher sees each whole image once, with all of its objects. The images and annotations are
    those that `picosam2 data prepare` was given; the store keeps none of their paths. Run again
    after an interruption, it keeps the parts that are finished. `torchrun --nproc-per-node 2 -m
    picosam2 teach ...` shares the parts among processes.

    Args:
        teacher: Who is asked: `sam2:FOLDER` or `sam2:HUB-ID` for SAM 2 (likewise sam, edgetam),
            `checkpoint:NAME|FILE` for weights of this project, `onnx:FOLDER` for SAM as
            encoder.onnx and decoder.onnx.
        store: What `picosam2 data prepare` made.
        coco: A COCO annotation file and its images. Repeatable.
        lvis: An LVIS annotation file and the folder with COCO's images. Repeatable.
        source: Any other file in COCO's format, with its name. Repeatable.
        out: The folder of the cache.
        prompt: What the teacher is shown of an object.
        choose: Which of a teacher's several masks counts: the one it believes in most, or the one
            that is nearest to the truth.
        agree: IoU with the truth below which the teacher is taken to have meant another object.
        device: Where the teacher runs; auto takes a GPU if there is one.
        precision: What the teacher computes with.
        limit_shards: Stop after so many parts; the same command without it goes on.
    """
    from picosam2.cli._memory import keep_memory
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.errors import require

    for module in ("torch", "safetensors", "pycocotools", "matplotlib"):
        require(module, "train")
    from picosam2.data.store import Store
    from picosam2.distillation.cache import TeacherCache
    from picosam2.distillation.protocol import TeacherConfig
    from picosam2.distillation.report import describe, write_report
    from picosam2.distillation.teach import teach as run
    from picosam2.distillation.teachers import open_teacher

    keep_memory()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    sources = given_sources(coco, lvis, source, to="teach about")
    check_folders(out)
    opened = Store(store)
    config = TeacherConfig(prompt=prompt, choose=choose, device=device, precision=precision)
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
    name_problems(problems, f"{len(problems):,} images could not be shown to the teacher")
    print(f"{out}: {done.written:,} parts written, {done.kept:,} were there already")
    cache = TeacherCache(out, opened, unfinished=True)
    # The process that sees everything finished tells of it; one alone tells of what there is.
    if world == 1 or cache.done.all():
        print(describe(write_report(cache, opened)))
