"""The training loop: a recipe and a store in, weights and a run folder out.

    RUN/recipe.json           the recipe as it was understood
    RUN/metrics.jsonl         a line every `log_every` steps and one a validation
    RUN/checkpoint.safetensors  everything needed to go on, replaced atomically
    RUN/weights.safetensors   the averaged weights of the last checkpoint
    RUN/curves.png            loss and mIoU so far
    RUN/validation.png        the same validation objects every time, with their masks

Steps are a pure function of the recipe's seed and the step number (`data.batches`), so a run that
was killed and resumed on the same machine gives the same weights as an unbroken one.

Shape suffixes: B batch, K logit channels, S side.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from picosam2._config import current_names
from picosam2._files import write_json, write_text
from picosam2.data.augment import Batch
from picosam2.data.batches import BatchLoader, Sampler, TeacherLookup, TeacherTargets
from picosam2.data.detections import Detections
from picosam2.data.store import CLICK, Store
from picosam2.distillation.cache import STEP, TeacherCache
from picosam2.distillation.in_loop import InLoopTeacher
from picosam2.errors import CheckpointError, ConfigError, PicoSAM2Error
from picosam2.models.checkpoint import load_weights, read_tensors, save_weights, write_tensors
from picosam2.models.devices import autocast, computes_bf16, torch_device
from picosam2.models.encoders import ENCODERS
from picosam2.models.network import ModelConfig, PicoSAM2, channel
from picosam2.training.config import FinderRecipe, Recipe, TrainConfig
from picosam2.training.depthwise import quicken_depthwise
from picosam2.training.losses import DistillConfig, supervised, teacher_term, teacher_weights
from picosam2.training.syncbn import synchronize_batchnorm

Validate = Callable[[PicoSAM2], dict[str, Any]]
"""Measures a model: names to numbers."""

FurtherLoss = Callable[[dict[str, Tensor], Batch, Tensor, Tensor], dict[str, Tensor]]
"""Terms to add to the loss, each (B,), by name: from the network's outputs, the batch, the logits
(B, S, S) that count and their target (B, S, S)."""


class TrainingError(PicoSAM2Error):
    """A number in training stopped being finite; going on would only hide it."""


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """The state of a training after a step."""

    step: int
    steps: int
    loss: float
    samples_per_s: float


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that `torchrun` started; alone without it."""

    rank: int
    world: int
    device: torch.device
    patient: dist.ProcessGroup | None = None
    """All processes, whose collectives do not time out; None if there is only one."""

    def wait(self) -> None:
        """Wait until every process has come here, however long it takes."""
        if self.patient is not None:
            dist.barrier(self.patient)

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes of a `torchrun`, if there are any. `device`: auto, cpu or cuda."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    name = torch_device(device)
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
        torch.backends.cudnn.benchmark = True  # shapes change once in a run, if at all
        torch.backends.cudnn.benchmark_limit = 3  # trying all algorithms takes a minute
    if world == 1:
        yield Processes(rank=0, world=1, device=torch.device(name))
        return
    dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
    try:
        patient = dist.new_group(backend="gloo", timeout=timedelta(days=365))
        yield Processes(rank=rank, world=world, device=torch.device(name), patient=patient)
    finally:
        dist.destroy_process_group()


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, from 0: linear warm-up, then cosine or constant."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    cosine = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)


def memory_format(config: TrainConfig) -> torch.memory_format:
    """The memory layout of activations."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def compute_loss(
    model: nn.Module,
    batch: Batch,
    config: TrainConfig,
    distill: DistillConfig | None = None,
    further: FurtherLoss | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch's loss and its named parts, each a mean over the samples.

    With a teacher in the batch, the weight w of the teacher in a sample mixes its losses: w times
    the teacher's term and 1 - w times the supervised loss.
    """
    device = batch.image_B3SS.device.type
    with autocast(device, config.precision):
        outputs = model(batch.image_B3SS.contiguous(memory_format=memory_format(config)))
    logits_BSS = channel(outputs["logits"], batch.kind_B).float()
    # A network whose first convolution shrinks the image answers on a coarser grid.
    target_BSS = F.adaptive_avg_pool2d(batch.target_BSS, logits_BSS.shape[-1])
    losses = supervised(logits_BSS, target_BSS, balanced=config.balanced)
    total = torch.stack([getattr(config, n) * loss_B for n, loss_B in losses.items()]).sum(0)
    if batch.teacher_BSS is not None and batch.teacher_weight_B is not None:
        teacher_BSS = F.adaptive_avg_pool2d(batch.teacher_BSS, logits_BSS.shape[-1])
        term_B = teacher_term(logits_BSS, teacher_BSS, distill or DistillConfig())
        total = batch.teacher_weight_B * term_B + (1 - batch.teacher_weight_B) * total
        losses |= {"teacher": term_B, "teacher_weight": batch.teacher_weight_B}
    if further is not None:
        added = further(outputs, batch, logits_BSS, target_BSS)
        losses |= added
        total = total + sum(added.values())
    if batch.value_B is not None:
        total = total * batch.value_B
    return total.mean(), {name: loss_B.mean() for name, loss_B in losses.items()}


def new_model(recipe: Recipe) -> PicoSAM2:
    """New weights, drawn from torch's seed; the encoder's from ImageNet if the recipe says so."""
    model = recipe.model.build()
    fill = ENCODERS[recipe.model.encoder].pretrained
    if recipe.train.imagenet and fill:
        fill([*model.encoder, model.down[-1]])
    return model


def started_from(path: Path, config: ModelConfig) -> PicoSAM2:
    """The model in a weights file, to go on from as a network of `config`.

    A network with one logit channel takes over that of clicks from one with two, and one with
    guidance begins with a branch that adds nothing. Any other difference is left for the trainer
    to refuse.
    """
    model = load_weights(path, type(config))
    if config.guidance and not model.config.guidance:
        guided = replace(model.config, guidance=True).build().eval()
        guided.load_state_dict({**guided.state_dict(), **model.state_dict()})
        model = guided
    if (model.config.logits, config.logits) != (2, 1):
        return model
    single = replace(model.config, logits=1).build().eval()
    state = model.state_dict()
    for name in ("head.weight", "head.bias"):
        state[name] = state[name][CLICK : CLICK + 1]
    single.load_state_dict(state)
    return single


class Trainer:
    """Model, averaged model and optimizer of one run; `step` is one optimizer step."""

    def __init__(
        self,
        recipe: Recipe,
        group: Processes,
        model: PicoSAM2 | None = None,
        further: FurtherLoss | None = None,
        teacher: InLoopTeacher | None = None,
    ) -> None:
        """Start from `model`, or from new weights drawn with the recipe's seed."""
        config = recipe.train
        torch.manual_seed(config.seed)
        self.recipe, self.group, self._further = recipe, group, further
        self._teacher = teacher
        model = model if model is not None else new_model(recipe)
        if model.config != recipe.model:
            raise ConfigError(
                "the weights to start from are of another network than the recipe's [model]: "
                "make both the same"
            )
        self.model = model.to(group.device).train()
        self.model.to(memory_format=memory_format(config))  # type: ignore[call-overload]
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        if group.device.type == "cpu" and config.precision == "bf16" and computes_bf16("cpu"):
            quicken_depthwise(self.model)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=config.lr,
        )
        self.step = 0
        self.loss = 0.0
        self._wrapped: nn.Module = self.model
        if group.world > 1:
            synchronize_batchnorm(self.model)
            self._wrapped = DistributedDataParallel(self.model, broadcast_buffers=False)
        if config.compile:
            self._wrapped = torch.compile(self._wrapped)  # type: ignore[assignment]

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; its loss, parts, gradient norm and learning rate.

        Raises:
            TrainingError: the loss or the gradient is not finite; nothing is changed then.
        """
        config = self.recipe.train
        rate = learning_rate(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._teacher is not None:
            batch = self._teacher(batch, self.recipe.distill.share)
        loss, parts = compute_loss(self._wrapped, batch, config, self.recipe.distill, self._further)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or math.inf)
        measures = torch.stack([loss, *parts.values(), norm]).detach()
        if self.group.world > 1:  # as the gradient, these are means over all processes
            dist.all_reduce(measures)
            measures /= self.group.world
        values = measures.tolist()
        if not all(math.isfinite(value) for value in values):
            raise TrainingError(
                f"loss or gradient stopped being finite at step {self.step} (loss {values[0]}): "
                "lower `lr`, or train in fp32"
            )
        self.optimizer.step()
        self.step += 1
        self._update_average()
        self.loss = values[0]
        return {"loss": values[0], **dict(zip(parts, values[1:-1], strict=True)),
                "grad_norm": values[-1], "lr": rate}  # fmt: skip

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average of weights and statistics, quicker in the first steps.

        It is torch's; `AveragedModel` around it has one decay for all steps and other names.
        """
        decay = min(self.recipe.train.ema, (1 + self.step) / (10 + self.step))
        kept, new = self.average.state_dict(), self.model.state_dict()
        floats = [name for name in kept if kept[name].is_floating_point()]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([kept[name] for name in floats], [new[name] for name in floats], self.step)
        for name in kept.keys() - set(floats):
            kept[name].copy_(new[name])

    def state(self) -> dict[str, Tensor]:
        """Every tensor needed to go on."""
        names = [name for name, _ in self.model.named_parameters()]
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in zip(names, self.model.parameters(), strict=True):
            for key, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{key}.{name}"] = value
        return state

    def load_state(self, state: dict[str, Tensor], step: int) -> None:
        """Go on from `state` at `step`. `CheckpointError` if it is another network's."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

        try:
            self.model.load_state_dict(part("model."))
            self.average.load_state_dict(part("average."))
            for name, parameter in self.model.named_parameters():
                if not parameter.requires_grad:
                    continue
                self.optimizer.state[parameter] = {
                    key: state[f"optimizer.{key}.{name}"].to(
                        parameter.device if key != "step" else "cpu"
                    )
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the checkpoint is of another network: {error}") from error
        self.step = step


def train(
    recipe: Recipe,
    store: Store,
    out: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    teacher: TeacherCache | InLoopTeacher | None = None,
    device: str = "auto",
    resident: bool = False,
    validate: Validate | None = None,
    tensorboard: bool = False,
    on_step: Callable[[TrainingStep], None] | None = None,
    further: FurtherLoss | None = None,
) -> Path:
    """Train a recipe on a store into the folder `out`; the path of the weights.

    Args:
        resume: go on from the checkpoint in `out`, which must be of the same recipe and store;
            only `samples` may be larger than it was: the run is extended.
        init: weights to start from instead of new ones; see `started_from`.
        teacher: the cached logits of a teacher, or one in the loop, to learn from by the recipe's
            `distill`.
        resident: keep the crops in the device's memory; for a GPU, if they fit.
        validate: measures the averaged model every `validate_every` steps and at the end.
        tensorboard: also write TensorBoard events (needs the extra).
        on_step: called after every step.
        further: terms to add to the loss, for networks that have further outputs.

    Raises:
        CheckpointError: `out` holds a run and `resume` is not set, or a run of something else.
        TrainingError: a number stopped being finite.
        ConfigError: the recipe puts clicks elsewhere and no teacher in the loop says what is there.
    """
    config = recipe.train
    cache = teacher if isinstance(teacher, TeacherCache) else None
    in_loop = teacher if isinstance(teacher, InLoopTeacher) else None
    if recipe.augment.elsewhere and in_loop is None:
        raise ConfigError(
            "`augment.elsewhere` puts clicks where nothing is annotated: name a teacher that says "
            "what is there (--teacher checkpoint:NAME)"
        )
    with processes(device) as group:
        if config.batch % group.world:
            raise ConfigError(
                f"a batch of {config.batch} cannot be shared by {group.world} processes: "
                "make `batch` a multiple of them"
            )
        run = _Run(out, recipe, store.fingerprint, group, tensorboard, teacher)
        trainer = Trainer(recipe, group, started_from(init, recipe.model) if init else None,
                          further, in_loop)  # fmt: skip
        run.begin(trainer, resume)

        def measure() -> None:
            """Validate, while the other processes wait for as long as it takes."""
            if validate and group.first and not run.has_validation(trainer.step):
                run.log({"step": trainer.step, "samples": trainer.step * config.batch,
                         "validation": validate(trainer.average)})  # fmt: skip
            group.wait()

        def is_due(step: int) -> bool:
            every = bool(config.validate_every) and step % config.validate_every == 0
            return step > 0 and (every or step == config.steps)

        if is_due(trainer.step):
            measure()  # the run was perhaps killed while it measured
        sampler = Sampler(
            store, config.batch, views=config.views, sources=config.sources,
            whole_epochs=config.whole_epochs, seed=config.seed,
        )  # fmt: skip
        feed = BatchLoader(
            store, sampler, recipe.augment, size=recipe.crop_size, seed=config.seed,
            start=trainer.step, stop=config.steps, rank=group.rank, world=group.world,
            device=group.device, resident=resident,
            teacher=None if cache is None else teacher_lookup(cache, recipe.distill),
        )  # fmt: skip
        clock, counted = time.perf_counter(), trainer.step
        with closing(iter(feed)) as batches:
            for batch in batches:
                metrics = trainer.train_step(batch)
                step, last = trainer.step, trainer.step == config.steps
                if step % config.log_every == 0 or last:
                    seconds = time.perf_counter() - clock
                    speed = (step - counted) * config.batch / seconds
                    run.log({"step": step, "samples": step * config.batch, **metrics,
                             "samples_per_s": round(speed, 1)})  # fmt: skip
                    clock, counted = time.perf_counter(), step
                if on_step and group.first:
                    on_step(TrainingStep(step=step, steps=config.steps, loss=metrics["loss"],
                                     samples_per_s=run.speed))  # fmt: skip
                if step % config.save_every == 0 or is_due(step):
                    run.save(trainer)
                if is_due(step):
                    started = time.perf_counter()
                    measure()
                    clock += time.perf_counter() - started
        return run.weights


def teacher_lookup(teacher: TeacherCache, config: DistillConfig) -> TeacherLookup:
    """Look up a teacher's logits for rows of the store, with weights as `config` sets them."""
    weights = teacher_weights(teacher.records, config)

    def look_up(rows: npt.NDArray[np.int64]) -> TeacherTargets:
        logits = torch.from_numpy(teacher.gather(rows)).float() * STEP
        return TeacherTargets(logits, torch.from_numpy(weights[rows]))

    return look_up


def window_rules(recipe: Recipe | FinderRecipe) -> dict[str, float | None]:
    """The window rules of a recipe, which prediction has to follow; null is no limit."""
    limit = recipe.augment.box_max_aspect
    return {
        "box_growth": recipe.augment.box_growth,
        "box_max_aspect": limit if math.isfinite(limit) else None,
    }


class _Run:
    """The run's folder. Only the first process writes."""

    def __init__(
        self,
        out: Path,
        recipe: Recipe | FinderRecipe,
        store: str,
        group: Processes,
        tensorboard: bool,
        teacher: TeacherCache | InLoopTeacher | Detections | None,
        *,
        answers: str | None = None,
    ) -> None:
        """`answers` is the SHA-256 of weights whose answers are learned, too."""
        self.out, self.recipe, self.store, self.group = out, recipe, store, group
        self.answers = answers
        self.teacher: dict[str, Any] | None = None
        if isinstance(teacher, InLoopTeacher):
            self.teacher = {"in_loop": teacher.fingerprint}
        elif isinstance(teacher, Detections):
            self.teacher = {"boxes": teacher.fingerprint}
        elif teacher is not None:  # but for its name, which may be a path and so nobody's business
            known = {key: value for key, value in teacher.teacher.items() if key != "name"}
            self.teacher = {**known, "cache": teacher.fingerprint}
        self.checkpoint = out / "checkpoint.safetensors"
        self.weights = out / "weights.safetensors"
        self.metrics = out / "metrics.jsonl"
        self.speed = 0.0
        self._board = _tensorboard(out) if tensorboard and group.first else None

    def begin(self, trainer: Trainer, resume: bool) -> None:
        """Claim the folder, or go on from what is in it."""
        settings = _plain(self.recipe)
        if resume and self.checkpoint.exists():
            saved = read_tensors(self.checkpoint)
            if not _is_same(
                _complete(saved.info.get("recipe"), settings, type(self.recipe)()), settings
            ):
                raise CheckpointError(
                    f"{self.checkpoint} was made by another recipe: choose another --out"
                )
            if saved.info.get("store") != self.store:
                raise CheckpointError(
                    f"{self.checkpoint} was trained on another store: choose another --out"
                )
            if saved.info.get("teacher") != self.teacher:
                raise CheckpointError(
                    f"{self.checkpoint} was taught by another teacher's cache, or by none: give "
                    "the same --teacher, or choose another --out"
                )
            # Older checkpoints do not say.
            if saved.info.get("answers", self.answers) != self.answers:
                raise CheckpointError(
                    f"{self.checkpoint} learned other weights' answers: give the same --init or "
                    "--lesson, or choose another --out"
                )
            trainer.load_state(saved.tensors, int(saved.info["step"]))
            if self.group.first:
                self._forget_after(trainer.step)
                if self._step_of_weights() != trainer.step:  # killed between the two files
                    save_weights(self.weights, trainer.average, self._info(trainer, settings))
        elif self.checkpoint.exists() or self.metrics.exists():
            if not resume:
                raise CheckpointError(
                    f"{self.out} holds a run: add --resume, or choose another --out"
                )
            self._forget_after(0)  # it was stopped before its first checkpoint
        self._settings = settings
        if self.group.first:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / "recipe.json", settings)

    def _step_of_weights(self) -> Any:
        """The step that the weights' file is of; None if it is missing or damaged."""
        try:
            return read_tensors(self.weights).info.get("step")
        except CheckpointError:
            return None

    def has_validation(self, step: int) -> bool:
        """Whether the metrics hold a validation of that step."""
        if not self.metrics.exists():
            return False
        lines = self.metrics.read_text().splitlines()
        return any(_step_of(line) == step and '"validation"' in line for line in lines)

    def _forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be taken again."""
        if self.metrics.exists():
            lines = self.metrics.read_text().splitlines(keepends=True)
            write_text(self.metrics, "".join(x for x in lines if _step_of(x) <= step))

    def log(self, line: dict[str, Any]) -> None:
        """Append one line of metrics."""
        self.speed = line.get("samples_per_s", self.speed)
        if not self.group.first:
            return
        with self.metrics.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if self._board:
            for name, value in {**line, **line.get("validation", {})}.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, line["step"])
            self._board.flush()

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint, then the averaged weights; `begin` repairs what a kill leaves."""
        if not self.group.first:
            return
        info = self._info(trainer, self._settings)
        write_tensors(self.checkpoint, trainer.state(), info)
        save_weights(self.weights, trainer.average, info)

    def _info(self, trainer: Trainer, settings: dict[str, Any]) -> dict[str, Any]:
        """The metadata of both files."""
        return {
            "recipe": settings,
            "store": self.store,
            **({"kind": "finder"} if isinstance(self.recipe, FinderRecipe) else {}),
            "step": trainer.step,
            "geometry": window_rules(self.recipe),
            "teacher": self.teacher,
            **({} if self.answers is None else {"answers": self.answers}),
            "click_windows": "native" if set(self.recipe.train.views) == {"native"} else "ladder",
        }


def _complete(recipe: Any, settings: dict[str, Any], default: Recipe | FinderRecipe) -> Any:
    """A checkpoint's recipe with this version's settings.

    Those that did not exist yet are at their defaults; those that no longer exist are left out.
    """
    if not isinstance(recipe, dict):
        return recipe
    defaults = _plain(default)
    complete = {}
    for table, current in settings.items():
        kept = current_names(getattr(default, table), recipe.get(table, {}))
        complete[table] = {key: kept.get(key, defaults[table].get(key)) for key in current}
    return complete


def _is_same(before: Any, settings: dict[str, Any]) -> bool:
    """Whether a checkpoint's recipe is the one to go on with, which may have more samples."""
    if not isinstance(before, dict) or not isinstance(samples := before["train"]["samples"], int):
        return False
    more = max(samples, settings["train"]["samples"])
    return {**before, "train": {**before["train"], "samples": more}} == settings


def _plain(recipe: Recipe | FinderRecipe) -> dict[str, Any]:
    """A recipe as JSON can hold it."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)).replace("Infinity", '"inf"'))
    return plain


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # half a line, written when the run was killed


def _tensorboard(out: Path) -> Any:
    from picosam2.errors import require

    return require("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(out / "tensorboard"))
