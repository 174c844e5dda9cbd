"""`picosam2 train`: a recipe and a store in, a run's folder with weights out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from picosam2.cli._targets import check_folders
from picosam2.errors import ConfigError

if TYPE_CHECKING:
    from picosam2.data.image_store import ImageStore
    from picosam2.data.store import Store
    from picosam2.models.network import PicoSAM2
    from picosam2.training.config import Recipe
    from picosam2.training.trainer import TrainingStep


def train(
    *,
    recipe: Annotated[str, Parameter(metavar="NAME|FILE")],
    store: Annotated[Path | None, Parameter(metavar="STORE")] = None,
    images: Annotated[Path | None, Parameter(metavar="STORE")] = None,
    out: Annotated[Path, Parameter(metavar="RUN")],
    set: Annotated[
        list[str] | None, Parameter(name="--set", negative=(), metavar="KEY=VALUE")
    ] = None,
    resume: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    init: Annotated[str | None, Parameter(metavar="NAME|FILE")] = None,
    lesson: Annotated[str | None, Parameter(metavar="NAME|FILE")] = None,
    teacher: Annotated[str | None, Parameter(metavar="CACHE|checkpoint:NAME|FILE")] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    resident: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    validate: bool = True,
    tensorboard: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Train weights by a recipe on a prepared store.

    A recipe with guidance (default-guided) learns corrections from simulated clicks on whole
    images, and the recipe finder learns where objects are (--images); the others learn from crops
    (--store).

    The run's folder gets the weights, a checkpoint, metrics.jsonl, curves.png and validation.png.
    `torchrun --nproc-per-node 2 -m picosam2 train ...` shares each batch among processes.

    Args:
        recipe: A packaged recipe (default, paper, debug) or a TOML file.
        store: What `picosam2 data prepare` made.
        images: What `picosam2 data images` made, for a recipe with guidance, which needs --init,
            and for the recipe finder.
        out: The run's folder.
        set: Change a setting of the recipe, for instance `train.lr=0.001`. Repeatable.
        resume: Go on with the run in that folder.
        init: Start from these weights instead of new ones. Of two logit channels, a recipe with one
            takes that of clicks. The recipe finder takes a finder's.
        lesson: With --images: weights whose answers to a first prompt are learned as well as the
            truth; those of --init by default.
        teacher: Learn from a teacher, too: the cache that `picosam2 teach` made for this store, or
            `checkpoint:NAME`, weights of this project that answer each batch's crops in the loop.
            The recipe finder takes a file of a detector's boxes.
        device: Where to compute; auto takes a GPU if there is one.
        resident: Keep the store's crops in the device's memory: quicker on a GPU, if they fit.
        validate: Measure on the store's validation images during the run.
        tensorboard: Also write events for TensorBoard.
    """
    from picosam2.cli._memory import keep_memory
    from picosam2.cli._progress import progress
    from picosam2.errors import require

    for module in ("torch", "safetensors", "pycocotools", "cv2", "matplotlib"):
        require(module, "train")
    from picosam2.data.image_store import ImageStore
    from picosam2.data.store import Store
    from picosam2.distillation.cache import TeacherCache
    from picosam2.distillation.in_loop import PREFIX, InLoopTeacher
    from picosam2.models.devices import torch_device
    from picosam2.runtimes.weights import find_weights
    from picosam2.training.config import changed_recipe, recipe_for_store, trains_finder
    from picosam2.training.trainer import train as run

    check_folders(out)
    start = None if init is None else find_weights(init, "torch")
    if tensorboard:
        require("torch.utils.tensorboard", "tensorboard")
    keep_memory()
    if trains_finder(recipe):
        if images is None or store is not None or lesson is not None or resident or tensorboard:
            raise ConfigError(
                f"the recipe {recipe} needs --images STORE, and no --store, --lesson, "
                "--resident or --tensorboard"
            )
        _train_finder(
            recipe, set or (), images, out, start, teacher, resume, torch_device(device), validate
        )
        return
    changes = set or ()
    chosen = changed_recipe(recipe, changes)
    if chosen.model.guidance:
        if images is None or start is None:
            raise ConfigError(f"the recipe {recipe} needs --images STORE and --init WEIGHTS")
        if store is not None or teacher is not None or resident or tensorboard:
            raise ConfigError(
                "a recipe with guidance takes no --store, --teacher, --resident or --tensorboard"
            )
        if device == "cuda":
            raise ConfigError("a training with simulated clicks runs on a processor: --device cpu")
        kept = None if lesson is None else find_weights(lesson, "torch")
        whole = ImageStore(images)
        chosen, lacking = recipe_for_store(chosen, recipe, changes, whole.source_names)
        _note_lacking(lacking)
        _train_guided(chosen, whole, out, start, kept, resume)
        return
    if store is None or images is not None or lesson is not None:
        raise ConfigError(f"the recipe {recipe} needs --store STORE, and no --images or --lesson")
    torch_device(device)
    taught: TeacherCache | InLoopTeacher | None = None
    if teacher is not None and teacher.startswith(PREFIX):
        taught = InLoopTeacher.load(teacher, device)
    opened = Store(store)
    chosen, lacking = recipe_for_store(chosen, recipe, changes, opened.source_names)
    if teacher is not None and taught is None:
        taught = TeacherCache(Path(teacher), opened)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    if first:
        _note_lacking(lacking)
    shown = _Shown(opened, chosen, out, validate and first)
    with progress("training", "steps") as update:

        def on_step(now: TrainingStep) -> None:
            note = f"loss {now.loss:.4f}, {now.samples_per_s:,.0f} samples/s{shown.note}"
            update(now.step, now.steps, note=note)
            shown.draw_if_due()

        weights = run(
            chosen,
            opened,
            out,
            resume=resume,
            init=start,
            teacher=taught,
            device=device,
            resident=resident,
            validate=shown.validate,
            tensorboard=tensorboard,
            on_step=on_step,
        )
    if first:
        shown.draw()
        print(f"{weights}{shown.note}")
        if recipe == "debug":
            print(
                "picosam2: the recipe debug shows that everything runs, and learns nothing: an "
                "mIoU of 0.000 is no fault",
                file=sys.stderr,
            )


def _note_lacking(sources: Sequence[str]) -> None:
    if sources:
        print(
            "picosam2: the recipe weighs sources that the store lacks, which are left out: "
            f"{', '.join(sources)}",
            file=sys.stderr,
        )


def _train_guided(
    recipe: Recipe, images: ImageStore, out: Path, init: Path, lesson: Path | None, resume: bool
) -> None:
    """Train on whole images with simulated clicks."""
    from picosam2.cli._progress import progress
    from picosam2.training.figures import draw_curves
    from picosam2.training.guided import train_guided

    with progress("training", "steps") as update:

        def on_step(now: TrainingStep) -> None:
            note = f"loss {now.loss:.4f}, {now.samples_per_s:,.0f} samples/s"
            update(now.step, now.steps, note=note)

        weights = train_guided(
            recipe, images, out, init, lesson=lesson, resume=resume, on_step=on_step
        )
    draw_curves(out / "metrics.jsonl", out / "curves.png")
    print(weights)


def _train_finder(
    name: str,
    changes: Sequence[str],
    images: Path,
    out: Path,
    init: Path | None,
    teacher: str | None,
    resume: bool,
    device: str,
    validate: bool,
) -> None:
    """Train a finder on whole images."""
    from picosam2.cli._progress import progress
    from picosam2.data.detections import read_detections
    from picosam2.data.image_store import ImageStore
    from picosam2.training.config import changed_finder_recipe, finder_recipe_for_store
    from picosam2.training.finder import train_finder

    changed, opened = changed_finder_recipe(name, changes), ImageStore(images)
    recipe, lacking = finder_recipe_for_store(changed, name, changes, opened.source_names)
    _note_lacking(lacking)
    detections = None if teacher is None else read_detections(Path(teacher))
    with progress("training", "steps") as update:

        def on_step(now: TrainingStep) -> None:
            note = f"loss {now.loss:.4f}, {now.samples_per_s:,.0f} samples/s"
            update(now.step, now.steps, note=note)

        weights = train_finder(
            recipe,
            opened,
            out,
            init=init,
            detections=detections,
            resume=resume,
            device=device,
            validate=validate,
            on_step=on_step,
        )
    print(weights)


class _Shown:
    """What a run shows of itself beside its progress: measurements and figures."""

    def __init__(self, store: Store, recipe: Recipe, out: Path, wanted: bool) -> None:
        from picosam2.training.validation import Validation

        self.note = ""
        self._out, self._due = out, False
        self._validation = Validation(store, recipe, out / "validation.png") if wanted else None
        if self._validation is not None and not self._validation.images:
            print("picosam2: the store has no validation images to measure on", file=sys.stderr)
            self._validation = None
        self.validate = None if self._validation is None else self._measure

    def _measure(self, model: PicoSAM2) -> dict[str, Any]:
        assert self._validation is not None
        scores = self._validation(model)
        self.note = f", mIoU box {scores['box_miou']:.3f} click {scores['click_miou']:.3f}"
        self._due = True
        return scores

    def draw_if_due(self) -> None:
        """Draw the curves once the last measurement is in the metrics."""
        if self._due:
            self.draw()

    def draw(self) -> None:
        """Draw the curves of the metrics that were written."""
        from picosam2.training.figures import draw_curves

        self._due = False
        metrics = self._out / "metrics.jsonl"
        if metrics.exists():
            draw_curves(metrics, self._out / "curves.png")
