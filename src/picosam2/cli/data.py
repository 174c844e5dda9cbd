"""`picosam2 data`: fetch data sets, prepare a crop store, check it and look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from picosam2.cli._groups import TRAIN
from picosam2.cli._options import Annotations, NamedAnnotations, given_sources
from picosam2.cli._targets import check_files

app = App(
    name="data", help="Fetch data sets and prepare them for training.", group=TRAIN, sort_key=1
)

Store = Annotated[Path, Parameter(metavar="STORE")]


@app.command
def download(
    dataset: Literal["coco", "lvis"],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="DIR")],
    part: Annotated[list[str] | None, Parameter(negative=())] = None,
    mirror: Annotated[str | None, Parameter(metavar="URL")] = None,
    keep_archives: bool = True,
) -> None:
    """Fetch COCO 2017 or LVIS from their servers, check and unpack them.

    Run again, it goes on where it stopped and verifies what is there. LVIS has only annotations:
    its images are COCO's, so give both the same folder.

    Args:
        dataset: Which one: coco (about 20 GB) or lvis (about 400 MB).
        out: The folder to put it in.
        part: One part only, for instance `val`. Repeatable.
        mirror: Another server with the same paths.
        keep_archives: Keep the zip files after unpacking.
    """
    from picosam2.cli._progress import progress
    from picosam2.data.download import download as fetch

    with progress(f"fetching {dataset}", "bytes") as update:
        fetched = fetch(
            dataset,
            out,
            parts=part,
            base_url=mirror,
            keep_archives=keep_archives,
            progress=update,
        )
    for archive in fetched:
        print(
            f"{archive.part}: {archive.files:,} files in {archive.folder}, sha256 {archive.sha256}"
        )


@app.command
def prepare(
    *,
    coco: Annotations | None = None,
    lvis: Annotations | None = None,
    source: NamedAnnotations | None = None,
    out: Store,
    views: str = "box,click-near,click-far",
    context: int = 160,
    validation: float = 0.1,
    seed: int = 0,
    crops: Literal["raw", "jpeg"] = "raw",
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
) -> None:
    """Cut the objects of annotated images into a crop store, ready for training.

    Each source is an annotation file and the folder of its images, several in one call:
    `--coco instances_train2017.json train2017 --source pets pets.json pets/images`. Images are
    split into training and validation by their hash, so copies stay on one side. Run again
    after an interruption, it keeps the parts that are finished.

    Args:
        coco: A COCO annotation file and its images. Repeatable.
        lvis: An LVIS annotation file and the folder with COCO's images. Repeatable.
        source: Any other file in COCO's format, with a name that recipes can give a weight; a
            `source` field of an image in the file counts before it. Repeatable.
        out: The folder of the store.
        views: What to cut for each object, separated by commas: box, box-square, click-near,
            click-far, native (the paper's).
        context: Side of the crops in pixels; training cuts its windows from them.
        validation: Share of the images kept for validation.
        seed: Of the split.
        crops: How crops are kept: raw, or jpeg, which takes about a tenth of the disk and some
            processor time whenever they are read.
        limit: Use only so many images, at even distances in their order.
        workers: Processes; by default as many as there are cores.
    """
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.store import StoreConfig
    from picosam2.data.store import prepare as write

    sources = given_sources(coco, lvis, source, to="prepare")
    config = StoreConfig(
        views=tuple(name.strip() for name in views.split(",") if name.strip()),
        context=context,
        validation=validation,
        seed=seed,
        crops=crops,
        limit=limit or 0,
    )

    def announce(objects: int, size: int) -> None:
        print(f"{counted(objects, 'object')}: the crops take about {size / 1e9:,.2f} GB in {out}")

    with progress("preparing", "image reads") as update:
        made = write(sources, out, config, workers=workers, progress=update, announce=announce)
    problems = [f"{problem.where}: {problem.what}" for problem in made.problems]
    name_problems(problems, "images or annotations left out")
    there = counted(made.reused_shards, "part")
    again = f", {there} there already" if made.reused_shards else ""
    print(
        f"{out}: {counted(made.images, 'image')}, {counted(made.instances, 'object')}, "
        f"{counted(made.views, 'crop')}; {counted(made.crowds, 'crowd')} skipped{again}"
    )


@app.command
def images(
    *,
    coco: Annotations | None = None,
    lvis: Annotations | None = None,
    source: NamedAnnotations | None = None,
    out: Store,
    validation: float = 0.1,
    seed: int = 0,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
) -> None:
    """Keep whole images and their masks, decoded, for a training with simulated clicks.

    `picosam2 train --images` cuts any window from them. An image takes three bytes a pixel of disk.
    The split into training and validation is that of `prepare`. Run again after an interruption, it
    keeps the parts that are finished.

    Args:
        coco: A COCO annotation file and its images. Repeatable.
        lvis: An LVIS annotation file and the folder with COCO's images. Repeatable.
        source: Any other file in COCO's format, with a name that recipes can give a weight; a
            `source` field of an image in the file counts before it. Repeatable.
        out: The folder of the image store.
        validation: Share of the images kept for validation.
        seed: Of the split.
        workers: Processes; by default as many as there are cores.
    """
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.image_store import ImageStore, ImageStoreConfig, prepare_images

    sources = given_sources(coco, lvis, source, to="prepare")
    config = ImageStoreConfig(validation=validation, seed=seed)
    with progress("preparing", "image reads") as update:
        left_out = prepare_images(sources, out, config, workers=workers, progress=update)
    problems = [f"{problem.where}: {problem.what}" for problem in left_out]
    name_problems(problems, "images or annotations left out")
    store = ImageStore(out)
    held = int(store.images["validation"].sum())
    print(
        f"{out}: {counted(len(store.images), 'image')}, {held:,} of them for validation, "
        f"{counted(len(store), 'object')}"
    )


@app.command
def check(store: Store, /) -> None:
    """Read every byte of a store, with what it keeps for validation, and compare its checksums.

    Args:
        store: The folder of the store.
    """
    import numpy as np

    from picosam2.data.store import Store as Opened

    opened = Opened(store, verify=True)
    records = opened.records
    kept = sum(entry["validation"] for entry in opened.image_entries)
    views = np.bincount(records["view"], minlength=len(opened.view_names))
    objects = records["source"][records["view"] == 0]
    sources = np.bincount(objects, minlength=len(opened.source_names))
    rows = [(len(opened.image_entries), f"images, {kept:,} of them for validation")]
    rows += [
        (n, f"objects of {name}") for name, n in zip(opened.source_names, sources, strict=True)
    ]
    rows += [(n, f"crops {name}") for name, n in zip(opened.view_names, views, strict=True)]
    print(f"{store} is whole: every checksum is right")
    for number, what in rows:
        print(f"{number:>12,} {what}")


@app.command
def show(
    store: Store,
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FILE")],
    count: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 48,
    view: str | None = None,
    seed: int = 0,
) -> None:
    """Draw random crops of a store, their masks tinted, on one sheet.

    Args:
        store: The folder of the store.
        out: The image to write, .png or .jpg.
        count: How many crops.
        view: Only crops of this view.
        seed: Which crops are drawn.
    """
    from picosam2._words import counted
    from picosam2.data.contact_sheet import contact_sheet
    from picosam2.data.store import Store as Opened

    check_files(out)
    drawn = contact_sheet(Opened(store), out, count=count, view=view, seed=seed)
    print(f"{out}: {counted(drawn, 'crop')}")
