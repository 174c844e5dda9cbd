"""Training of the finder: a recipe and an image store in, weights out.

The run's folder is that of `trainer.train`. The encoder starts from ImageNet, or all of the finder
from another one; the encoder's batch norms, and all of its first stages, stay as they are: what
edges and textures are does not change.

Shape suffixes: B batch, N cells of a view, P cells that answer for an object, S the view's side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2 import geometry
from picosam2.data.augment import _normalise
from picosam2.data.detections import Detections
from picosam2.data.image_store import ImageStore
from picosam2.masks import box_iou
from picosam2.models.checkpoint import load_finder
from picosam2.models.devices import autocast
from picosam2.models.finder import Finder
from picosam2.models.views import REACH, cell_centers, decode, part_windows, thinned, whole_window
from picosam2.training.config import FinderRecipe, Recipe
from picosam2.training.finder_views import FinderBatch, FinderViews, boxes_by_image
from picosam2.training.frozen import freeze_batchnorm
from picosam2.training.trainer import (
    Processes,
    Trainer,
    TrainingError,
    TrainingStep,
    _Run,
    learning_rate,
    memory_format,
)

_LIMIT = 4.0  # of a log-distance
_THRESHOLDS = np.arange(0.5, 1.0, 0.05)


class FinderTrainer(Trainer):
    """A `Trainer` of a finder, whose batches are views of whole images."""

    def __init__(self, recipe: FinderRecipe, group: Processes, model: Finder) -> None:
        """Start from `model`."""
        super().__init__(cast(Recipe, recipe), group, cast(Any, model))
        self.finder = recipe.finder
        encoder = cast(Finder, self.model).encoder
        freeze_batchnorm(encoder)
        for stage in list(encoder)[: recipe.finder.frozen]:
            stage.requires_grad_(False)
        of_encoder = {id(parameter) for parameter in encoder.parameters()}
        groups: list[dict[str, Any]] = []
        for in_encoder, rate in ((True, recipe.finder.rate), (False, 1.0)):
            for flat, decay in ((False, recipe.train.weight_decay), (True, 0.0)):
                parameters = [
                    p
                    for p in self.model.parameters()
                    if p.requires_grad and (id(p) in of_encoder, p.ndim <= 1) == (in_encoder, flat)
                ]
                groups.append({"params": parameters, "weight_decay": decay, "rate": rate})
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.train.lr)
        centers, strides = cell_centers(recipe.model.input_size)
        self._centers_N2 = torch.from_numpy(centers).to(group.device)
        self._stride_N = torch.from_numpy(strides).to(group.device)

    def finder_step(self, batch: FinderBatch) -> dict[str, float]:
        """One optimizer step; its numbers.

        Raises:
            TrainingError: the loss or the gradient is not finite; nothing is changed then.
        """
        config = self.recipe.train
        batch = batch.to(self.group.device)
        rate = learning_rate(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        image_B3SS = batch.image_B3SS.contiguous(memory_format=memory_format(config))
        device = image_B3SS.device.type
        with autocast(device, config.precision):
            cells_B5N = self.model(image_B3SS)["cells"]
        parts = finder_losses(cells_B5N.float(), batch, self._centers_N2, self._stride_N)
        loss = parts["objectness"] + self.finder.boxes * parts["giou"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        learned = [p for p in self.model.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(learned, config.clip or math.inf)
        numbers = {"loss": loss, "grad_norm": norm, **parts}
        values = {name: float(value.detach()) for name, value in numbers.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise TrainingError(
                f"loss or gradient stopped being finite at step {self.step} (loss "
                f"{values['loss']}): lower `lr`, or train in fp32"
            )
        self.optimizer.step()
        self.step += 1
        self._update_average()
        self.loss = values["loss"]
        return {**values, "lr": rate}


def finder_losses(
    cells_B5N: Tensor, batch: FinderBatch, centers_N2: Tensor, stride_N: Tensor
) -> dict[str, Tensor]:
    """The parts of the loss of a batch, each a number.

    Objectness is learned by the quality focal loss (Li et al. 2020): its target is the IoU that the
    cell's own box has at the moment, times the certainty that it is an object's, and 0 for a cell
    without an object. Boxes are learned by GIoU, each as much as it is certain.
    """
    positive_BN = batch.positive_BN
    certainty_P = batch.certainty_BN[positive_BN]
    count = certainty_P.sum().clamp(min=1)
    logit_BN = cells_B5N[:, 0]
    target_BN = torch.zeros_like(logit_BN)
    reach_P4 = cells_B5N[:, 1:].permute(0, 2, 1)[positive_BN].clamp(-_LIMIT, _LIMIT).exp() * REACH
    place_P = positive_BN.nonzero()[:, 1]
    reach_P4 = reach_P4 * stride_N[place_P, None]
    center_P2 = centers_N2[place_P]
    boxes_P4 = torch.cat([center_P2 - reach_P4[:, :2], center_P2 + reach_P4[:, 2:]], 1)
    iou_P, giou_P = overlaps(boxes_P4, batch.boxes_BN4[positive_BN])
    target_BN[positive_BN] = iou_P.detach() * certainty_P
    each_BN = F.binary_cross_entropy_with_logits(logit_BN, target_BN, reduction="none")
    each_BN = each_BN * (torch.sigmoid(logit_BN) - target_BN).square()
    return {
        "objectness": (each_BN * batch.weight_BN).sum() / count,
        "giou": (certainty_P * (1 - giou_P)).sum() / count,
        "iou": (certainty_P * iou_P).sum().detach() / count,
    }


def overlaps(a_P4: Tensor, b_P4: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU (Rezatofighi et al. 2019), each (P,), of boxes x0, y0, x1, y1."""
    low, high = torch.maximum(a_P4[:, :2], b_P4[:, :2]), torch.minimum(a_P4[:, 2:], b_P4[:, 2:])
    both_P = (high - low).clamp(min=0).prod(1)
    union_P = (a_P4[:, 2:] - a_P4[:, :2]).prod(1) + (b_P4[:, 2:] - b_P4[:, :2]).prod(1) - both_P
    iou_P = both_P / union_P.clamp(min=1e-6)
    around = torch.maximum(a_P4[:, 2:], b_P4[:, 2:]) - torch.minimum(a_P4[:, :2], b_P4[:, :2])
    hull_P = around.prod(1).clamp(min=1e-6)
    return iou_P, iou_P - (hull_P - union_P) / hull_P


def train_finder(
    recipe: FinderRecipe,
    store: ImageStore,
    out: Path,
    *,
    init: Path | None = None,
    detections: Detections | None = None,
    resume: bool = False,
    device: str = "cpu",
    validate: bool = True,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> Path:
    """Train a finder by a recipe on an image store into the folder `out`; the path of the weights.

    Args:
        init: the weights of a finder to start from instead of new ones; it may have seen views of
            another size.
        detections: a detector's boxes, learned beside the annotated ones.
        resume: go on from the checkpoint in `out`.
        validate: measure `box_recall` during the run, as often as the recipe says, and at the end.
        on_step: called after every step.

    Raises:
        CheckpointError: `out` holds a run and `resume` is not set, or a run of something else.
        ConfigError: `init` is another network than the recipe's.
        WeightsError: `init` is no finder's weights.
        MissingExtraError: the package with the ImageNet weights is not installed.
        TrainingError: a number stopped being finite.
    """
    config = recipe.train
    group = Processes(rank=0, world=1, device=torch.device(device))
    run = _Run(out, recipe, store.fingerprint, group, False, detections)
    torch.manual_seed(config.seed)
    model = recipe.model.build() if init is None else load_finder(init)
    if init is not None:  # weights fit views of any size
        model.config = replace(model.config, input_size=recipe.model.input_size)
    if init is None and config.imagenet:
        model.load_imagenet()
    trainer = FinderTrainer(recipe, group, model)
    run.begin(trainer, resume)
    views = FinderViews(
        store, recipe.finder, recipe.augment, size=recipe.model.input_size, batch=config.batch,
        seed=config.seed, sources=config.sources, detections=detections,
    )  # fmt: skip

    def measure() -> None:
        recall = box_recall(cast(Finder, trainer.average), store, config.validation_photos)
        run.log({"step": trainer.step, "samples": trainer.step * config.batch,
                 "validation": recall})  # fmt: skip

    if validate and trainer.step == config.steps and not run.has_validation(trainer.step):
        measure()  # it was stopped after its last step, before this
    totals: dict[str, list[float]] = {}
    clock, counted = time.perf_counter(), trainer.step
    with ThreadPoolExecutor(1, thread_name_prefix="picosam2-views") as pool:
        waiting = pool.submit(views.batch, trainer.step)
        while trainer.step < config.steps:
            batch = waiting.result()
            if trainer.step + 1 < config.steps:
                waiting = pool.submit(views.batch, trainer.step + 1)
            for name, value in trainer.finder_step(batch).items():
                totals.setdefault(name, []).append(value)
            step, last = trainer.step, trainer.step == config.steps
            if step % config.log_every == 0 or last:
                seconds = time.perf_counter() - clock
                means = {name: sum(values) / len(values) for name, values in totals.items()}
                speed = (step - counted) * config.batch / seconds
                run.log({"step": step, "samples": step * config.batch, **means,
                         "samples_per_s": round(speed, 1)})  # fmt: skip
                clock, counted, totals = time.perf_counter(), step, {}
            due = config.validate_every and step % config.validate_every == 0
            if step % config.save_every == 0 or due or last:
                run.save(trainer)
            if validate and (due or last):
                measure()
            if on_step:
                on_step(TrainingStep(step=step, steps=config.steps, loss=trainer.loss,
                                     samples_per_s=run.speed))  # fmt: skip
    return run.weights


@torch.inference_mode()
def box_recall(model: Finder, store: ImageStore, limit: int = 0) -> dict[str, float]:
    """Average recall of boxes (IoU .50:.05:.95) on the store's validation images, by source.

    Args:
        limit: images of each source, at most; 0 takes all.

    Returns:
        "SOURCE@10" and "SOURCE@100", of the ten and the hundred best boxes of an image.
    """
    boxes = boxes_by_image(store)
    size = model.config.input_size
    device = next(model.parameters()).device
    recalls: dict[str, list[float]] = {}
    for source, name in enumerate(store.source_names):
        mine = store.images["validation"] & (store.images["source"] == source)
        rows = [row for row in np.flatnonzero(mine) if len(boxes[row])]
        for row in rows[: limit or None]:
            height, width = (int(store.images[row][side]) for side in ("height", "width"))
            windows = [whole_window(height, width), *part_windows(height, width)]
            crops = np.stack([geometry.crop(store.image(int(row)), w, size) for w in windows])
            pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float().contiguous()
            cells_B5N = model(_normalise(pixels.to(device)))["cells"].cpu().numpy()
            proposed, _ = decode(cells_B5N, windows, height, width, size, 0.01)
            proposed = proposed[thinned(proposed, 0.8, 100)]
            for count in (10, 100):
                best = np.zeros(len(boxes[row]))
                for box in proposed[:count]:
                    best = np.maximum(best, box_iou(box, boxes[row]))
                recalls.setdefault(f"{name}@{count}", []).extend(
                    (best[:, None] >= _THRESHOLDS).mean(1).tolist()
                )
    return {name: sum(values) / len(values) for name, values in recalls.items()}
