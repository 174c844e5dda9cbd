"""Further training of finished weights on a person's own masks, within a given time.

A folder is prepared once with copies of the images, an image store and a crop store; the images of
one side of the split are kept for measuring. The learning rate follows the share of the time that
is used, so that a slow machine takes fewer steps and finishes as well. What other images show is
rehearsed (`training.rehearsal`), so that it is not forgotten. How much still is, the sample scene
says, whose objects are everyday ones: where it loses more than allowed, the result is a mean of the
new weights and those that the training began with (Wortsman et al. 2022, "Robust fine-tuning of
zero-shot models").
"""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from picosam2 import masks
from picosam2._files import atomic_write, sha256_file, write_json
from picosam2._progress import Progress
from picosam2._words import counted
from picosam2.data.coco import AnnotatedImage
from picosam2.data.image_store import ImageStore, ImageStoreConfig, prepare_images
from picosam2.data.split import dhash, split, spread
from picosam2.data.store import SourceFiles, StoreConfig, prepare
from picosam2.errors import CheckpointError, ConfigError, DataError, PicoSAM2Error
from picosam2.evaluation.run import evaluate
from picosam2.images import load_image
from picosam2.io.sample_image import sample, sample_objects
from picosam2.models.checkpoint import load_weights, read_tensors, write_tensors
from picosam2.models.devices import computes_bf16
from picosam2.models.network import PicoSAM2
from picosam2.predictor import Predictor
from picosam2.prompts import Box
from picosam2.runtimes.torch import TorchRuntime
from picosam2.training.config import Recipe, TrainConfig
from picosam2.training.frozen import freeze_batchnorm
from picosam2.training.guided import GuidedTrainer
from picosam2.training.rehearsal import Rehearsal
from picosam2.training.sessions import Sessions
from picosam2.training.trainer import Processes

MIN_MASKS, MIN_IMAGES = 8, 3
"""Fewer masks, or images with masks, are refused."""

CHECKPOINT = "checkpoint.safetensors"
"""The file in the folder of a fine-tuning that a stopped one goes on from."""

_LONG_SIDE, _OBJECT_SIDE = 1024, 192
"""Images are made smaller to this long side, if their median object keeps this one."""

_MASKS_OF_AN_IMAGE = 100
_CROPS_MASKS = 600  # about so many are enough to calibrate INT8 on
_SEEDS = 200  # of the split that are tried for one with about the right share
_SAVE_EVERY_S = 30.0
_REHEARSED = 12  # windows of a step
_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of `averaging`, in the order they are tried
_SCENE_SCALES = (1.0, 0.6, 0.35)
_BOX_FILTER = Image.Resampling.BOX
_CONTEXT = 288  # side of the crops that INT8 is calibrated on, as the shipped weights were


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How weights are trained further."""

    minutes: float = 10.0
    """Time for everything, reading and reporting included."""
    samples: int = 0
    """Train on so many samples, however long it takes; 0: as many as the time allows."""
    held_out: float = 0.2
    """About this share of the masks, whole images of them, is kept to measure on."""
    rehearsal: float = 2.0
    """Weight of the loss that keeps the answers to other images as they were; 0: none. See
    `training.rehearsal`."""
    averaging: float = 1.0
    """Largest share of the new weights in the result; the rest are the weights before."""
    forgetting: float = 0.7
    """The share is made smaller until the sample scene loses no more than so many points of IoU by
    box, 0 to 100, but not below a fifth of `averaging`."""
    scorer_averaging: float = 0.5
    """Share of the new numbers in the scorers; the rest are those before."""
    encoder_rate: float = 1.0
    """Learning rate of the encoder, as a multiple of the decoder's; 0 leaves it as it is."""
    measures: int = 3
    """How often the weights so far are measured; the best are kept."""
    measured: int = 60
    """About how many held-out masks they are measured on."""
    seed: int = 0
    """Of the training's draws."""
    recipe: tuple[str, ...] = ()
    """Changed settings of the recipe `finetune`, for instance `train.lr=0.001`. The network and the
    windows of boxes are those of the weights, the precision is the quicker one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ConfigError(
                f"a budget of {self.minutes:g} minutes leaves no time to train: give --minutes 10, "
                "for instance"
            )
        if min(self.samples, self.seed) < 0 or min(self.measures, self.measured) < 1:
            raise ConfigError("`samples` and `seed` must be 0 or more, the measures 1 or more")
        shares = (
            min(self.averaging, self.scorer_averaging),
            max(self.averaging, self.scorer_averaging),
        )
        if not (0 < self.held_out <= 0.6 and 0 <= shares[0] <= shares[1] <= 1):
            raise ConfigError(
                "`held_out` must be in (0, 0.6], `averaging` and `scorer_averaging` in [0, 1]"
            )
        if not 0 <= self.forgetting <= 100:
            raise ConfigError("`forgetting` must be from 0 to 100 points")
        if min(self.encoder_rate, self.rehearsal) < 0:
            raise ConfigError("`encoder_rate` and `rehearsal` must not be negative")


class Clock:
    """The seconds that a fine-tuning has taken so far, those of stopped runs before included."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin at zero, or where the checkpoint in `folder` was written."""
        path = None if folder is None else folder / CHECKPOINT
        used = float(read_tensors(path).info["seconds"]) if path and path.exists() else 0.0
        self._start = time.monotonic() - used

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self._start


class Stop:
    """Whether the person wants to stop early; a second Ctrl-C is not waited for."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Take the first Ctrl-C as a wish to stop. Only the main thread receives it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def ask(*_: object) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


# -- the images -----------------------------------------------------------------------------------


def check_enough(images: Sequence[AnnotatedImage]) -> None:
    """Refuse masks that are too few, or all the same.

    Raises:
        DataError: there are too few masks or images, or every mask is the same.
    """
    count = sum(len(image.instances) for image in images)
    if len(images) < MIN_IMAGES:
        raise DataError(
            f"there {_number(len(images), 'image')} with masks, and at least {MIN_IMAGES} are "
            "needed, since some are kept to measure on: label more images"
        )
    if count < MIN_MASKS:
        raise DataError(
            f"there {_number(count, 'mask')} in {counted(len(images), 'image')}, and at least "
            f"{MIN_MASKS} are needed: label more objects"
        )
    seen: set[tuple[Any, ...]] = set()
    for image in images:
        for instance in image.instances:
            try:
                encoded = masks.rle_encode(instance.mask())
            except PicoSAM2Error:
                continue
            seen.add((*encoded["size"], encoded["counts"]))
            if len(seen) > 1:
                return
    raise DataError(
        f"all {count} masks are the same: check what wrote the annotations"
        if seen
        else f"none of the {count} masks has a pixel in its image: check the annotations"
    )


def _number(count: int, name: str) -> str:
    return f"is only one {name}" if count == 1 else f"are only {counted(count, name)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnImages:
    """The person's images as they were prepared."""

    store: ImageStore
    crops: Path
    """A crop store of the same images with the same split."""
    measured: tuple[AnnotatedImage, ...]
    """Held-out images to measure on."""
    trained: tuple[AnnotatedImage, ...]
    """The images that are trained on."""
    problems: tuple[str, ...] = ()

    @property
    def masks(self) -> int:
        """Masks that are trained on."""
        return sum(len(image.instances) for image in self.trained)


def prepare_own(
    images: Sequence[AnnotatedImage],
    folder: Path,
    config: FinetuneConfig,
    *,
    progress: Progress | None = None,
) -> OwnImages:
    """Copy images and masks to `folder`, split them by image, and make both stores.

    Raises:
        DataError: too few images can be read, or all look the same.
    """
    work = folder / "images"
    document: dict[str, Any] = {
        "images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}],
    }  # fmt: skip
    hashes: list[int] = []
    counts: list[int] = []
    problems: list[str] = []
    for number, image in enumerate(images, 1):
        try:
            copied = _copy(image, work, number, document)
        except PicoSAM2Error as error:
            problems.append(f"{image.path.name}: {error}")
            continue
        hashes.append(copied[0])
        counts.append(copied[1])
        if progress:
            progress(number, len(images))
    if len(hashes) < MIN_IMAGES or sum(counts) < MIN_MASKS:
        usable = counted(sum(counts), "mask")
        raise DataError(
            f"only {counted(len(hashes), 'image')} with {usable} can be read: {problems[0]}"
            if problems
            else f"only {usable} with a pixel in the image: check the annotations"
        )
    annotations = folder / "annotations.json"
    write_json(annotations, document, indent=None)
    seed = _seed(hashes, counts, config.held_out)
    source = SourceFiles(annotations=annotations, images=work, name="own")
    prepare_images(
        [source], folder / "store",
        ImageStoreConfig(validation=config.held_out, seed=seed), workers=1,
    )  # fmt: skip
    limit = _crops_limit(hashes, counts, seed, config.held_out)
    are_many = not limit and sum(counts) > _CROPS_MASKS
    crops = StoreConfig(
        views=("box", "click-near"), context=_CONTEXT, validation=config.held_out, seed=seed,
        limit=limit, crops="jpeg" if are_many else "raw",
    )  # fmt: skip
    prepare([source], folder / "crops", crops, workers=1)
    store = ImageStore(folder / "store")
    held_out = store.held_out()
    of_an_image = sum(len(image.instances) for image in held_out) / len(held_out)
    return OwnImages(
        store=store,
        crops=folder / "crops",
        measured=spread(held_out, max(round(config.measured / of_an_image), 1)),
        trained=_training_images(store, annotations, work),
        problems=tuple(problems),
    )


def _crops_limit(hashes: Sequence[int], counts: Sequence[int], seed: int, share: float) -> int:
    """How many images to keep crops of, for about `_CROPS_MASKS` masks; 0: of all.

    Of all where the others would be needed to keep the same images aside: an image of theirs may
    look like some of these, and decide their side.
    """
    if sum(counts) <= _CROPS_MASKS:
        return 0
    limit = max(_CROPS_MASKS * len(hashes) // sum(counts), 20)
    chosen = spread(range(len(hashes)), limit)
    sides = split(hashes, seed, share)
    alone = split([hashes[index] for index in chosen], seed, share)
    return limit if any(alone) and alone == [sides[index] for index in chosen] else 0


def _copy(
    image: AnnotatedImage, work: Path, number: int, document: dict[str, Any]
) -> tuple[int, int]:
    """Copy one image, smaller if it is large for its objects; its hash and number of masks."""
    pixels = load_image(image.path)
    height, width = pixels.shape[:2]
    if (height, width) != (image.height, image.width):
        raise DataError(f"is {width}x{height}, and the annotations are for another size")
    kept = [mask for mask in map(_mask_of, image.instances) if mask is not None]
    kept = [
        kept[round(i)] for i in np.linspace(0, len(kept) - 1, min(len(kept), _MASKS_OF_AN_IMAGE))
    ]
    if not kept:
        raise DataError("no mask of it has a pixel")
    sides = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in map(_corners, kept)]
    scale = min(max(_LONG_SIDE / max(height, width), _OBJECT_SIDE / float(np.median(sides))), 1.0)
    name = f"{number:06d}{image.path.suffix.lower() if scale == 1 else '.png'}"
    with atomic_write(work / name) as temporary:
        if scale == 1:
            shutil.copyfile(image.path, temporary)
        else:
            height, width = max(round(height * scale), 1), max(round(width * scale), 1)
            smaller = Image.fromarray(pixels).resize((width, height), _BOX_FILTER)
            smaller.save(temporary, "PNG")
            pixels = np.asarray(smaller)
            kept = [mask for mask in (_smaller(mask, height, width) for mask in kept) if mask.any()]
    if not kept:
        raise DataError("no mask of it has a pixel")
    document["images"].append(
        {"id": number, "file_name": name, "height": height, "width": width, "source": "own"}
    )
    for mask in kept:
        x0, y0, x1, y1 = _corners(mask)
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1, "image_id": number, "category_id": 1,
                "iscrowd": 0, "area": int(mask.sum()), "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": masks.rle_encode(mask),
            }
        )  # fmt: skip
    return dhash(pixels), len(kept)


def _mask_of(instance: Any) -> masks.Mask | None:
    try:
        mask: masks.Mask = instance.mask()
    except PicoSAM2Error:
        return None
    return mask


def _corners(mask: masks.Mask) -> tuple[int, int, int, int]:
    return masks.bbox(mask) or (0, 0, 0, 0)


def _smaller(mask: masks.Mask, height: int, width: int) -> masks.Mask:
    covered = Image.fromarray(mask.view(np.uint8) * 255)
    smaller: masks.Mask = np.asarray(covered.resize((width, height), _BOX_FILTER)) > 127
    return smaller


def _seed(hashes: Sequence[int], counts: Sequence[int], share: float) -> int:
    """The seed whose split keeps about `share` of the masks, and leaves images on both sides."""
    weights = np.array(counts, float)
    least = 2 if len(counts) >= 8 else 1
    best: tuple[float, int] | None = None
    for seed in range(_SEEDS):
        kept = np.array(split(hashes, seed, share))
        if kept.sum() < least or (~kept).sum() < least:
            continue
        off = abs(float(weights[kept].sum() / weights.sum()) - share)
        if best is None or off < best[0]:
            best = off, seed
    if best is None:
        raise DataError(
            "the images look all the same, so none can be kept to measure on: label images of "
            "other scenes"
        )
    return best[1]


def _training_images(
    store: ImageStore, annotations: Path, work: Path
) -> tuple[AnnotatedImage, ...]:
    from picosam2.data.coco import read_coco

    kept = {entry["file_name"] for entry in store.image_entries if entry["validation"]}
    read = read_coco(annotations, work)
    return tuple(i for i in read.images if i.instances and i.path.name not in kept)


# -- the training ---------------------------------------------------------------------------------


class TimedTrainer(GuidedTrainer):
    """A `GuidedTrainer` whose learning rate follows the share of the time that is used."""

    share = 0.0

    def __init__(
        self,
        recipe: Recipe,
        model: PicoSAM2,
        encoder_rate: float,
        also: Callable[[PicoSAM2, int], Tensor] | None = None,
    ) -> None:
        """Start from `model`; its encoder learns `encoder_rate` times as fast as the rest."""
        alone = Processes(rank=0, world=1, device=torch.device("cpu"))
        super().__init__(recipe, alone, model, also=also)
        encoder = {
            id(p) for n, p in self.model.named_parameters() if n.startswith(("encoder.", "down."))
        }
        groups = []
        for group in self.optimizer.param_groups:
            for chosen, rate in ((True, group["rate"] * encoder_rate), (False, group["rate"])):
                some = [p for p in group["params"] if (id(p) in encoder) == chosen]
                if some:
                    decay = group["weight_decay"] if rate else 0.0
                    groups.append({"params": some, "weight_decay": decay, "rate": rate})
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.train.lr)

    def rate(self) -> float:
        """Linear in the first steps, then a cosine of the share of the time."""
        config = self.recipe.train
        warm = min((self.step + 1) / max(config.warmup, 1), 1.0)
        cosine = (1 + math.cos(math.pi * min(self.share, 1.0))) / 2
        return config.lr * warm * (config.final_lr + (1 - config.final_lr) * cosine)


def quicker_precision(model: PicoSAM2, batch: int = 4) -> str:
    """bf16 or fp32, whichever takes less time on this processor: many compute bf16 slowly."""
    if not computes_bf16("cpu"):
        return "fp32"
    probe = deepcopy(model).train()
    freeze_batchnorm(probe)
    side = model.config.input_size
    image_B3SS = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    seconds = {}
    for precision in ("bf16", "fp32"):
        for _ in range(2):  # the first one chooses kernels
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = probe(image_B3SS, torch.zeros_like(image_B3SS))["logits"]
            logits.float().square().mean().backward()
            seconds[precision] = time.perf_counter() - started
    return min(seconds, key=lambda name: seconds[name])


def mean_weights(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """`share` of the weights `after` and the rest of those `before`, tensor by tensor."""
    return {
        name: torch.lerp(before[name], value.to(before[name].dtype), share)
        if value.is_floating_point()
        else value.clone()
        for name, value in after.items()
    }


class SampleScene:
    """The objects of the sample scene at several sizes and mirrored: what weights still know."""

    def __init__(self) -> None:
        """Draw the scene."""
        self._shown: list[tuple[npt.NDArray[np.uint8], masks.Mask, Box]] = []
        image, things = sample(), sample_objects()
        for scale in _SCENE_SCALES:
            height, width = (round(scale * side) for side in image.shape[:2])
            small = np.asarray(Image.fromarray(image).resize((width, height), _BOX_FILTER))
            for thing in things:
                mask = _smaller(thing.mask, height, width)
                for pixels, truth in ((small, mask), (small[:, ::-1], mask[:, ::-1])):
                    self._shown.append((pixels, truth, Box(*_corners(truth))))

    def score(self, predictor: Predictor) -> float:
        """Mean IoU by box, in points of a hundred."""
        ious = []
        for image, truth, box in self._shown:
            (answer,) = predictor.boxes(image, [box])
            ious.append(answer.region.iou(truth))
        return 100 * float(np.mean(ious))


@dataclass(kw_only=True, eq=False)
class Best:
    """The best weights so far, by the mean of box and click on held-out masks."""

    state: dict[str, Tensor] = field(default_factory=dict)
    score: float = -1.0
    step: int = 0
    averaging: float = 0.0
    """The share of the new weights in them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What a training gave."""

    model: PicoSAM2
    steps: int
    """Of the training in all."""
    kept_step: int
    """After which the weights that were kept were measured."""
    averaging: float
    """The share of the new weights in them."""
    samples: int
    samples_per_s: float
    stopped: bool
    """Whether it was stopped before its time was over."""
    history: tuple[Mapping[str, float], ...]
    """What was measured on the way: step, box and click."""


def train_own(
    recipe: Recipe,
    config: FinetuneConfig,
    own: OwnImages,
    init: Path,
    folder: Path,
    *,
    clock: Clock,
    until: float,
    resume: bool = False,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the weights at `init` further until the clock shows `until` seconds.

    `folder` takes a checkpoint every half a minute and goes on from it with `resume`. `progress`
    receives steps, and in `note` the scores so far. After a request to `stop`, what is
    there is measured and the best is returned.

    Raises:
        CheckpointError: the checkpoint in `folder` is of other images, weights or settings.
        TrainingError: a number stopped being finite.
    """
    stop = stop or Stop()
    start = load_weights(init)
    facts = read_tensors(init).info
    before = {name: value.clone() for name, value in start.state_dict().items()}
    quick = replace(recipe.train, precision=quicker_precision(start))
    also = _rehearsal(start, config, quick) if config.rehearsal else None
    trainer = TimedTrainer(replace(recipe, train=quick), start, config.encoder_rate, also)
    best = Best()
    history: list[dict[str, float]] = []
    run = _Checkpoint(folder / CHECKPOINT, recipe, config, own.store.fingerprint, init)
    began = clock.seconds
    if resume and run.path.exists():
        began, history = run.load(trainer, best)
    train = recipe.train
    sessions = Sessions(
        own.store, recipe.guided, recipe.augment, size=recipe.model.input_size,
        output=recipe.model.output_size, batch=train.batch, seed=train.seed + config.seed,
    )  # fmt: skip
    scene = SampleScene()
    least = scene.score(_predictor(recipe, before, facts)) - config.forgetting
    first, clocked, saved, measuring = trainer.step, clock.seconds, clock.seconds, 0.0
    due = [(number + 1) / config.measures for number in range(config.measures)]
    due = [share for share in due if share > (history[-1]["share"] if history else 0.0)]

    def averaged() -> tuple[dict[str, Tensor], float]:
        """The mean with the largest share of the new weights that forgets no more than allowed."""
        for part in _SHARES:
            share = part * config.averaging
            state = mean_weights(before, trainer.average.state_dict(), share)
            if scene.score(_predictor(recipe, state, facts)) >= least:
                break
        return state, share

    def measure() -> None:
        nonlocal measuring
        started = time.monotonic()
        state, share = averaged()
        scores = _measure(_predictor(recipe, state, facts), own.measured)
        history.append({"step": trainer.step, "share": trainer.share, **scores})
        score = (scores["box"] + scores["click"]) / 2
        if score > best.score:
            best.state, best.score, best.step = state, score, trainer.step
            best.averaging = share
        measuring += time.monotonic() - started

    def share_used() -> float:
        if config.samples:
            return trainer.step * train.batch / config.samples
        return (clock.seconds - began) / max(until - began, 1e-3)

    with ThreadPoolExecutor(1, thread_name_prefix="picosam2-sessions") as pool, stop.on_interrupt():
        trainer.share = share_used()
        waiting = pool.submit(sessions.batch, trainer.step)
        # One step at least, however little time there is.
        while (trainer.share < 1 or trainer.step == 0) and not stop.requested:
            step = trainer.step
            batch = waiting.result()
            waiting = pool.submit(sessions.batch, step + 1)
            _, logits_BLL = trainer.guided_step(batch)
            sessions.answer(step, logits_BLL.numpy())
            trainer.share = share_used()
            if len(due) > 1 and trainer.share >= due[0]:
                due.pop(0)
                measure()
                trainer.share = share_used()
            if clock.seconds - saved >= _SAVE_EVERY_S:
                run.save(trainer, best, began, history, clock)
                saved = clock.seconds
            if progress:
                progress(trainer.step, note=_note(history, trainer.loss))
        waiting.cancel()
        seconds = clock.seconds - clocked - measuring
        if trainer.step > first or not history:
            measure()
        if trainer.step:
            run.save(trainer, best, began, history, clock)
    model = recipe.model.build().eval()
    model.load_state_dict(best.state)
    steps = trainer.step
    return Trained(
        model=model,
        steps=steps,
        kept_step=best.step,
        averaging=best.averaging,
        samples=steps * train.batch,
        samples_per_s=(steps - first) * train.batch / max(seconds, 1e-9),
        stopped=stop.requested,
        history=tuple(history),
    )


def _rehearsal(
    model: PicoSAM2, config: FinetuneConfig, train: TrainConfig
) -> Callable[[PicoSAM2, int], Tensor]:
    """The further loss of a training that rehearses what `model` answers now."""
    rehearsal = Rehearsal(
        model, batch=_REHEARSED, seed=train.seed + config.seed, precision=train.precision
    )
    return lambda learning, step: config.rehearsal * rehearsal(learning, step)


def _note(history: Sequence[Mapping[str, float]], loss: float) -> str:
    if not history:
        return f"loss {loss:.3f}"
    last = history[-1]
    return f"box {100 * last['box']:.1f}, click {100 * last['click']:.1f} so far"


def _predictor(recipe: Recipe, state: Mapping[str, Tensor], facts: dict[str, Any]) -> Predictor:
    model = recipe.model.build().eval()
    model.load_state_dict(state)
    return Predictor(TorchRuntime(model, facts=facts))


def _measure(predictor: Predictor, images: Sequence[AnnotatedImage]) -> dict[str, float]:
    return {
        protocol: float(evaluate(predictor, images, protocol=protocol).column("iou").mean())
        for protocol in ("box", "click")
    }


class _Checkpoint:
    """The file that a stopped training goes on from."""

    def __init__(
        self, path: Path, recipe: Recipe, config: FinetuneConfig, fingerprint: str, init: Path
    ) -> None:
        self.path = path
        same = replace(config, minutes=1.0, samples=0)  # a run may be given more time
        self._made_by = {
            "recipe": repr(recipe), "config": repr(same), "store": fingerprint,
            "weights": sha256_file(init),
        }  # fmt: skip

    def save(
        self,
        trainer: TimedTrainer,
        best: Best,
        began: float,
        history: list[dict[str, float]],
        clock: Clock,
    ) -> None:
        """Write everything that is needed to go on, atomically."""
        info = {
            "made_by": self._made_by, "step": trainer.step, "share": trainer.share, "began": began,
            "history": history,
            "best": {"score": best.score, "step": best.step, "averaging": best.averaging},
        }  # fmt: skip
        state = trainer.state() | {f"best.{name}": value for name, value in best.state.items()}
        write_tensors(self.path, state, info | {"seconds": clock.seconds})

    def load(self, trainer: TimedTrainer, best: Best) -> tuple[float, list[dict[str, float]]]:
        """Go on from the file: when the training began, and what was measured."""
        saved = read_tensors(self.path)
        if saved.info.get("made_by") != self._made_by:
            raise CheckpointError(
                f"{self.path.parent} was made from other images, weights or settings: leave out "
                "--resume after removing it, or choose another --out"
            )
        trainer.load_state(saved.tensors, int(saved.info["step"]))
        best.state = {
            name.removeprefix("best."): value
            for name, value in saved.tensors.items()
            if name.startswith("best.")
        }
        best.score = float(saved.info["best"]["score"])
        best.step = int(saved.info["best"]["step"])
        best.averaging = float(saved.info["best"]["averaging"])
        return float(saved.info["began"]), list(saved.info["history"])
