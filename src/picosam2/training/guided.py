"""Training with simulated users: a recipe, an image store and first weights in, weights out.

The run's folder is that of `trainer.train`. Batch norms stay as the starting weights have them. In
passes without guidance that those weights were made for, their own answers are learned as well as
the truth, so that one prompt alone is answered as before.

Shape suffixes: B batch, K logit channels, S the crop's side, L the logits' side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2._files import sha256_file
from picosam2.data.image_store import ImageStore
from picosam2.errors import ConfigError
from picosam2.models.checkpoint import load_weights
from picosam2.models.devices import autocast
from picosam2.models.folding import fold_batchnorm
from picosam2.models.network import PicoSAM2, channel
from picosam2.training.config import Recipe
from picosam2.training.frozen import freeze_batchnorm
from picosam2.training.losses import dice, teacher_term
from picosam2.training.sessions import GuidedBatch, Sessions
from picosam2.training.trainer import (
    Processes,
    Trainer,
    TrainingError,
    TrainingStep,
    _Run,
    learning_rate,
    memory_format,
    started_from,
)


class GuidedTrainer(Trainer):
    """A `Trainer` whose samples are what simulated users showed the network: crop and guidance."""

    def __init__(
        self,
        recipe: Recipe,
        group: Processes,
        model: PicoSAM2,
        teacher: PicoSAM2 | None = None,
        also: Callable[[PicoSAM2, int], Tensor] | None = None,
    ) -> None:
        """Start from `model`.

        In unguided passes the answers of `teacher` are learned too; without one, those of `model`
        as it is at the start. `also` gives a further loss, from the model and the step's number.
        """
        super().__init__(recipe, group, model)
        self._also = also
        freeze_batchnorm(self.model)
        self.teacher = fold_batchnorm(teacher or self.average).requires_grad_(False)
        self.teacher.to(memory_format=memory_format(recipe.train))  # type: ignore[call-overload]
        branch = {id(p) for n, p in self.model.named_parameters() if n.startswith("guidance.")}
        groups = []
        for group_of in self.optimizer.param_groups:
            own = [p for p in group_of["params"] if id(p) in branch]
            rest = [p for p in group_of["params"] if id(p) not in branch]
            decay = group_of["weight_decay"]
            groups += [{"params": rest, "weight_decay": decay, "rate": 1.0}]
            if own:
                groups += [{"params": own, "weight_decay": decay, "rate": recipe.guided.rate}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.train.lr)

    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.step, self.recipe.train)

    def guided_step(self, batch: GuidedBatch) -> tuple[dict[str, float], Tensor]:
        """One optimizer step: its numbers, and the answers (B, L, L) float32.

        Raises:
            TrainingError: the loss or the gradient is not finite; nothing is changed then.
        """
        config, guided = self.recipe.train, self.recipe.guided
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        layout = memory_format(config)
        image_B3SS = batch.image_B3SS.contiguous(memory_format=layout)
        guidance_B3SS = batch.guidance_B3SS.contiguous(memory_format=layout)
        device = image_B3SS.device.type
        with autocast(device, config.precision):
            outputs = self.model(image_B3SS, guidance_B3SS)
        logits_BLL = channel(outputs["logits"], batch.kind_B).float()
        each_BLL = F.binary_cross_entropy_with_logits(
            logits_BLL, batch.target_BLL, reduction="none"
        )
        losses = {
            "bce": (each_BLL * batch.weight_BLL).mean((1, 2)),
            "dice": dice(logits_BLL, batch.target_BLL),
        }
        total_B = config.bce * losses["bce"] + config.dice * losses["dice"]
        has_teacher_B = batch.taught_B
        if guided.teacher and has_teacher_B.any():
            with torch.no_grad(), autocast(device, config.precision):
                wanted = self.teacher(image_B3SS[has_teacher_B].contiguous(memory_format=layout))
            wanted_BLL = channel(wanted["logits"], batch.kind_B[has_teacher_B]).float()
            term = teacher_term(logits_BLL[has_teacher_B], wanted_BLL, self.recipe.distill)
            total_B = total_B.index_add(0, has_teacher_B.nonzero()[:, 0], guided.teacher * term)
        loss = (total_B * batch.value_B).mean()
        if self._also is not None:
            loss = loss + self._also(self.model, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or math.inf)
        with torch.no_grad():
            is_guided = batch.guided_B
            numbers = {
                "loss": loss, "grad_norm": norm,
                "dice": losses["dice"][~is_guided].mean(), "bce": losses["bce"].mean(),
                "guided_dice": losses["dice"][is_guided].mean(),
                "guided_share": is_guided.float().mean(),
            }  # fmt: skip
        values = {name: float(value.detach()) for name, value in numbers.items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            raise TrainingError(
                f"loss or gradient stopped being finite at step {self.step} (loss "
                f"{values['loss']}): lower `lr`, or train in fp32"
            )
        self.optimizer.step()
        self.step += 1
        self._update_average()
        self.loss = values["loss"]
        shown = {name: value for name, value in values.items() if math.isfinite(value)}
        return {**shown, "lr": rate}, logits_BLL.detach()


def train_guided(
    recipe: Recipe,
    store: ImageStore,
    out: Path,
    init: Path,
    *,
    lesson: Path | None = None,
    resume: bool = False,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> Path:
    """Train weights that take guidance, from the weights at `init`; the path of the result.

    Args:
        lesson: weights whose answers to a first prompt are learned as well as the truth; those at
            `init` by default.
        resume: go on from the checkpoint in `out`; simulated users begin with a new object.
        on_step: called after every step.

    Raises:
        ConfigError: the recipe's network takes no guidance.
        CheckpointError: `out` holds a run and `resume` is not set, or a run of something else.
        TrainingError: a number stopped being finite.
    """
    if not recipe.model.guidance:
        raise ConfigError("a guided training needs `guidance = true` in the recipe's [model]")
    config = recipe.train
    group = Processes(rank=0, world=1, device=torch.device("cpu"))
    answers = sha256_file(lesson or init)
    run = _Run(out, recipe, store.fingerprint, group, False, None, answers=answers)
    teacher = None if lesson is None else load_weights(lesson)
    trainer = GuidedTrainer(recipe, group, started_from(init, recipe.model), teacher)
    run.begin(trainer, resume)
    sessions = Sessions(
        store, recipe.guided, recipe.augment, size=recipe.model.input_size,
        output=recipe.model.output_size, batch=config.batch, seed=config.seed,
        sources=config.sources, by_image=recipe.guided.by_image,
    )  # fmt: skip
    totals: dict[str, Any] = {}
    clock, counted = time.perf_counter(), trainer.step
    with ThreadPoolExecutor(1, thread_name_prefix="picosam2-sessions") as pool:
        waiting = pool.submit(sessions.batch, trainer.step)
        while trainer.step < config.steps:
            step = trainer.step
            batch = waiting.result()
            if step + 1 < config.steps:  # of other users, who need no answer of this step
                waiting = pool.submit(sessions.batch, step + 1)
            metrics, logits_BLL = trainer.guided_step(batch)
            sessions.answer(step, logits_BLL.numpy())
            for name, value in metrics.items():
                totals.setdefault(name, []).append(value)
            step, last = trainer.step, trainer.step == config.steps
            if step % config.log_every == 0 or last:
                seconds = time.perf_counter() - clock
                means = {name: sum(values) / len(values) for name, values in totals.items()}
                speed = (step - counted) * config.batch / seconds
                run.log({"step": step, "samples": step * config.batch, **means,
                         "samples_per_s": round(speed, 1)})  # fmt: skip
                clock, counted, totals = time.perf_counter(), step, {}
            if on_step:
                on_step(TrainingStep(step=step, steps=config.steps, loss=metrics["loss"],
                                 samples_per_s=run.speed))  # fmt: skip
            if step % config.save_every == 0 or last:
                run.save(trainer)
    return run.weights
