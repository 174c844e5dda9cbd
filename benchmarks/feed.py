"""Does the feeding keep the model busy? Crops a second of each part of training.

    python benchmarks/feed.py --annotations instances_train2017.json --images train2017

- feeding: batches read from a store and augmented, without the model;
- model: training steps of the recipe's network on one fixed batch;
- loop: training steps on batches as they come, which is the real thing;
- published: for every annotation open the image with PIL, decode all of the image's masks, cut the
  annotation's window with PIL - the way of the published code, in one process.

A store of the first images is made in a temporary folder. The four take turns.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from common import parser, ratio, report, take_turns, taken
from PIL import Image

from picosam2.cli._exit_codes import run_script
from picosam2.cli._memory import keep_memory
from picosam2.data.augment import Batch
from picosam2.data.batches import BatchLoader, Sampler, TeacherLookup
from picosam2.data.coco import AnnotatedImage
from picosam2.data.datasets import read_annotations
from picosam2.data.store import SourceFiles, Store, StoreConfig, prepare
from picosam2.errors import DataError
from picosam2.evaluation.protocols import make_item
from picosam2.geometry import CROP_SIZE
from picosam2.images import MEAN, STD
from picosam2.training.config import Recipe, load_recipe
from picosam2.training.trainer import Processes, Trainer

DEVICE = torch.device("cpu")


def batches(store: Store, recipe: Recipe, teacher: TeacherLookup | None = None) -> Iterator[Batch]:
    """Batches as training gets them, without end; with a teacher's answers, if given."""
    sampler = Sampler(store, recipe.train.batch, views=recipe.train.views)
    feed = BatchLoader(
        store, sampler, recipe.augment, size=lambda step: recipe.model.input_size,
        seed=0, stop=10**9, device=DEVICE, teacher=teacher,
    )  # fmt: skip
    yield from feed


def published(images: tuple[AnnotatedImage, ...]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A crop and its mask of one random annotation after another, opening its image for each."""
    pairs = [
        (annotated, index) for annotated in images for index in range(len(annotated.instances))
    ]
    order = np.random.default_rng(0).permutation(len(pairs))
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    size = (CROP_SIZE, CROP_SIZE)
    for annotated, index in (pairs[place] for place in cycle(order)):
        image = Image.open(annotated.path).convert("RGB")
        try:
            truths = [instance.mask() for instance in annotated.instances]
            window = make_item("paper-point", truths[index]).window
        except DataError:
            continue
        assert window is not None
        corners = (window.x0, window.y0, window.x1, window.y1)
        crop = image.crop(corners).resize(size, Image.Resampling.BILINEAR)
        mask = Image.fromarray(truths[index]).crop(corners).resize(size)
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1).contiguous()
        yield (pixels.float() / 255 - mean) / std, torch.from_numpy(np.array(mask)).float()


def times(count: int, once: Callable[[], object]) -> Callable[[], None]:
    """`once`, so many times."""

    def turn() -> None:
        for _ in range(count):
            once()

    return turn


def images_parser(description: str | None, count: int, rounds: int) -> ArgumentParser:
    """A parser with the options of a benchmark on annotated images, and their defaults."""
    command = parser(description)
    command.add_argument("--annotations", type=Path, required=True)
    command.add_argument("--images", type=Path, required=True)
    command.add_argument("--dataset", default="coco")
    command.add_argument("--count", type=int, default=count, help="how many images")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--rounds", type=int, default=rounds)
    return command


def images_of(options: Namespace) -> tuple[SourceFiles, tuple[AnnotatedImage, ...]]:
    """The source that the options name, and all of its images that have an object."""
    source = SourceFiles(
        annotations=options.annotations, images=options.images, dataset=options.dataset
    )
    annotated = read_annotations(source.dataset, source.annotations, source.images).images
    return source, tuple(image for image in annotated if image.instances)


def any_source(name: str) -> Recipe:
    """The recipe of that name, for stores that need not have its sources."""
    recipe = load_recipe(name)
    return replace(recipe, train=replace(recipe.train, sources={}))


def main() -> None:
    """Make a store, take turns, print crops a second and ratios."""
    command = images_parser(__doc__, count=64, rounds=5)
    command.add_argument("--recipe", default="unet")
    command.add_argument("--steps", type=int, default=4, help="training steps in one turn")
    options = command.parse_args()
    keep_memory()
    torch.set_num_threads(options.threads)
    recipe = any_source(options.recipe)
    source, images = images_of(options)
    images = images[: options.count]
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(source, images, Path(folder), recipe)
        fixed = next(batches(store, recipe))
        trainer = Trainer(recipe, Processes(rank=0, world=1, device=DEVICE))
        fed, real, slow = batches(store, recipe), batches(store, recipe), published(images)
        work = {"feeding": 8 * options.steps, "model": options.steps, "loop": options.steps}
        seconds = take_turns(
            {
                "feeding": times(work["feeding"], lambda: next(fed)),
                "model": times(work["model"], lambda: trainer.train_step(fixed)),
                "loop": times(work["loop"], lambda: trainer.train_step(next(real))),
                "published": times(32, lambda: next(slow)),
            },
            options.rounds,
        )
    crops = {name: count * recipe.train.batch for name, count in work.items()} | {"published": 32}
    each = {name: [s / crops[name] for s in seconds[name]] for name in seconds}
    numbers = {f"{name} [crops/s]": 1 / statistics.median(each[name]) for name in seconds}
    numbers["feeding / model"] = ratio(each["model"], each["feeding"])
    numbers["feeding / published"] = ratio(each["published"], each["feeding"])
    numbers["loop / model"] = ratio(each["model"], each["loop"])
    limits = {
        "feeding / model": (">=", 10.0),
        "feeding / published": (">=", 30.0),
        "loop / model": (">=", 0.9),
    }
    report(numbers, limits, taken(("torch", "numpy", "pillow")), options.json)


def make_store(
    source: SourceFiles, images: tuple[AnnotatedImage, ...], folder: Path, recipe: Recipe
) -> Store:
    """A store of these images alone, with the views that the recipe trains on."""
    document = json.loads(source.annotations.read_text())
    chosen = {image.id for image in images}
    document["images"] = [entry for entry in document["images"] if entry["id"] in chosen]
    document["annotations"] = [
        entry for entry in document["annotations"] if entry["image_id"] in chosen
    ]
    some = folder / "annotations.json"
    some.write_text(json.dumps(document))
    views = tuple(recipe.train.views) or StoreConfig().views
    config = StoreConfig(views=views, validation=0.0)
    if "native" not in views:  # as many pixels as a box window needs: docs/training.md
        config = replace(config, context=recipe.model.input_size * 3 // 2)
    prepare([replace(source, annotations=some)], folder / "store", config)
    return Store(folder / "store")


if __name__ == "__main__":
    run_script(main)
