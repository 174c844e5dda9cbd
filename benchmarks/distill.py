"""What does a teacher cost a training step? Steps without one and with two kinds, in one run.

    python benchmarks/distill.py --annotations instances_train2017.json --images train2017

- supervised: a step of the training loop, its batch read and augmented as in training;
- taught: the same with a teacher's cache, whose logits are read, cut and learned from;
- in the loop: the same with `default-int8`, which answers the crops of the step itself.

The cache is made with the shipped network, through `picosam2 teach`'s own code.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from common import ratio, report, take_turns, taken
from feed import DEVICE, any_source, batches, images_of, images_parser, make_store, times

from picosam2.cli._exit_codes import run_script
from picosam2.cli._memory import keep_memory
from picosam2.data.batches import TeacherLookup
from picosam2.data.store import SourceFiles, Store
from picosam2.distillation.cache import TeacherCache
from picosam2.distillation.in_loop import InLoopTeacher
from picosam2.distillation.protocol import TeacherConfig
from picosam2.distillation.teach import teach
from picosam2.distillation.teachers import open_teacher
from picosam2.training.config import Recipe
from picosam2.training.trainer import Processes, Trainer, teacher_lookup

IN_LOOP = "checkpoint:default-int8"


def steps(
    store: Store,
    recipe: Recipe,
    teacher: TeacherLookup | None = None,
    in_loop: InLoopTeacher | None = None,
) -> Iterator[None]:
    """Training steps, without end."""
    trainer = Trainer(recipe, Processes(rank=0, world=1, device=DEVICE), teacher=in_loop)
    for batch in batches(store, recipe, teacher):
        trainer.train_step(batch)
        yield


def main() -> None:
    """Make a store and its cache, take turns, print crops a second and the ratio."""
    command = images_parser(__doc__, count=24, rounds=5)
    command.add_argument("--steps", type=int, default=4, help="training steps in one turn")
    options = command.parse_args()
    keep_memory()
    torch.set_num_threads(options.threads)
    recipe = any_source("unet-distill")
    source, images = images_of(options)
    images = images[: options.count]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = make_store(source, images, folder, recipe)
        taught = SourceFiles(annotations=folder / "annotations.json", images=source.images)
        teacher = open_teacher("checkpoint:default", TeacherConfig(device="cpu"))
        teach(teacher, store, [taught], folder / "cache")
        answers = teacher_lookup(TeacherCache(folder / "cache", store), recipe.distill)
        ways = {
            "supervised": steps(store, recipe),
            "taught": steps(store, recipe, answers),
            "in the loop": steps(store, recipe, in_loop=InLoopTeacher.load(IN_LOOP, "cpu")),
        }
        turns: dict[str, Callable[[], None]] = {
            name: times(options.steps, way.__next__) for name, way in ways.items()
        }
        seconds = take_turns(turns, options.rounds)
    crops = options.steps * recipe.train.batch
    numbers = {
        f"{name} [crops/s]": crops / statistics.median(spent) for name, spent in seconds.items()
    }
    numbers["taught / supervised, time"] = ratio(seconds["taught"], seconds["supervised"])
    numbers["in the loop / supervised, time"] = ratio(seconds["in the loop"], seconds["supervised"])
    limits = {"taught / supervised, time": ("<=", 1.1)}
    report(numbers, limits, taken(("torch", "numpy")), options.json)


if __name__ == "__main__":
    run_script(main)
