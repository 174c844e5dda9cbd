"""From a person's own masks to weights, exports and a page: what `picosam2 finetune` does.

OUT.safetensors OUT.onnx OUT-int8.onnx   the weights
OUT.html                                 before and after, on images that were kept aside
OUT-work/                                until it is finished: prepared images, a checkpoint
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picosam2.errors import ConfigError, PicoSAM2Error, require

if TYPE_CHECKING:
    from picosam2._progress import Progress
    from picosam2.data.coco import AnnotatedImage
    from picosam2.models.network import PicoSAM2
    from picosam2.predictor import Predictor
    from picosam2.training.config import Recipe
    from picosam2.training.finetune import Clock, FinetuneConfig, OwnImages, Stop, Trained
    from picosam2.training.scorers import Fitted

_PACKAGES = ("torch", "safetensors", "onnx", "pycocotools", "cv2", "jinja2")
_FIXED_S = 25.0  # exports, fitting and the page, beside what depends on the images
_CLICKED = 150  # masks that the scorers are fitted on, about
_CROPS_OF_A_MASK = 40  # windows that the scorers look at for a mask
_CROPS_MEASURED = 14  # windows of a mask by box, click and two corrections
_LARGEST_RESERVE = 0.45  # of the whole time


@dataclass(frozen=True, kw_only=True)
class OwnScores:
    """IoU of every measured mask, 0..1, in the order of the images; one entry a mask."""

    box: tuple[float, ...]
    click: tuple[float, ...]
    corrected: tuple[float, ...]
    """After a click and two corrections."""
    images: tuple[int, ...]
    """Which image each mask is of."""
    annotations: tuple[int, ...]

    def columns(self) -> dict[str, tuple[float, ...]]:
        """By the name of the prompt."""
        return {"box": self.box, "click": self.click, "two corrections": self.corrected}


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What was written, and what it is worth."""

    weights: Path
    onnx: Path
    int8: Path
    page: Path
    before: OwnScores
    after: OwnScores
    int8_scores: OwnScores
    sample: Mapping[str, tuple[float, float]]
    """mIoU on the bundled sample scene before and after, by prompt."""
    trained_on: tuple[int, int]
    """Masks and images."""
    samples: int
    samples_per_s: float
    stopped: bool
    kept_share: float
    """How far the training was when the weights that were kept were measured."""
    averaging: float
    """The share of the new weights in the result, 0..1; the rest are those before."""
    seconds: Mapping[str, float]
    """By part of the work."""
    problems: tuple[str, ...] = field(default=())


def finetune(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    weights: str = "default",
    minutes: float = 10.0,
    resume: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    config: FinetuneConfig | None = None,
) -> Finetuned:
    """Train weights further on a person's own masks, and measure them on images kept aside.

    Ctrl-C ends the training early and keeps the best weights so far; `resume` goes on after that,
    or after a kill, with the same annotations and images.

    Args:
        annotations: a COCO file, or a folder of labelme or YOLO files.
        images: the folder of the images.
        out: the files' name without ending: `mine` writes mine.safetensors, mine.onnx,
            mine-int8.onnx and mine.html.
        weights: what to start from: shipped weights by name, or a safetensors file.
        minutes: how long everything may take.
        resume: go on with the run that was stopped.
        threads: of the processor; all by default.
        progress: receives the seconds so far, and the scores in its note.
        config: further settings; its `minutes` give way to `minutes`.

    Raises:
        ConfigError: no time, a name that cannot be written, or weights that take no guidance.
        DataError: the annotations cannot be used, or there are too few masks or images.
        MissingExtraError: the extra `train` is not installed.
    """
    for module in _PACKAGES:
        require(module, "train")
    import torch

    from picosam2.data.labeled_images import read_labeled_images
    from picosam2.runtimes.weights import find_weights
    from picosam2.training.finetune import Clock, FinetuneConfig, Stop, check_enough, prepare_own

    config = replace(config or FinetuneConfig(), minutes=minutes)
    files = _Files(Path(out))
    files.check(resume)
    init = find_weights(weights, "torch")
    recipe = _recipe(init, weights, config)
    read = read_labeled_images(Path(annotations), Path(images))
    check_enough(read.images)
    if threads is not None:
        torch.set_num_threads(threads)
    clock, stop = Clock(files.work), Stop()
    run = _Run(files, config, clock, progress)
    files.work.mkdir(parents=True, exist_ok=True)
    with run.part("preparing"):
        try:
            own = prepare_own(read.images, files.work, config, progress=run.shown)
        except PicoSAM2Error:
            if not resume:
                shutil.rmtree(files.work, ignore_errors=True)
            raise
    checks = [_sample_image(files.work)]
    with run.part("measuring before"):
        predictor = _predictor(init, files.work / "before.onnx", threads)
        started = clock.seconds
        before = measure_own(predictor, own.measured)
        of_a_crop = (clock.seconds - started) / (_CROPS_MEASURED * max(len(before.box), 1))
        sample_before = measure_own(predictor, checks)
    with run.part("training"):
        until = clock.seconds + _time_to_train(run, own, of_a_crop, len(before.box))
        trained = _train(recipe, run, own, init, until, resume, stop)
    facts = _facts(init, own, trained)
    with run.part("calibrating"):
        facts |= _fit_scorers(trained.model, facts, own, run, threads)
    with run.part("exporting"):
        _export(trained.model, facts, files, own, threads)
    with run.part("measuring after"):
        predictors = {name: _open(path, threads) for name, path in files.onnx_files().items()}
        after = measure_own(predictors["FP32"], own.measured)
        int8_scores = measure_own(predictors["INT8"], own.measured)
        sample_after = measure_own(predictors["FP32"], checks)
    result = Finetuned(
        weights=files.weights,
        onnx=files.onnx,
        int8=files.int8,
        page=files.page,
        before=before,
        after=after,
        int8_scores=int8_scores,
        sample={
            name: (_mean(sample_before.columns()[name]), _mean(sample_after.columns()[name]))
            for name in before.columns()
        },
        trained_on=(own.masks, len(own.trained)),
        samples=trained.samples,
        samples_per_s=trained.samples_per_s,
        stopped=trained.stopped,
        kept_share=trained.kept_step / max(trained.steps, 1),
        averaging=trained.averaging,
        seconds={**run.seconds, "in all": clock.seconds},
        problems=(*map(str, read.problems), *own.problems),
    )
    _write_page(result, own, {"before": predictor, "after": predictors["FP32"]})
    if not trained.stopped:
        shutil.rmtree(files.work, ignore_errors=True)
    return result


class _Files:
    """The files that are written, by the name that was given."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.weights, self.onnx = self._named(".safetensors"), self._named(".onnx")
        self.int8, self.page = self._named("-int8.onnx"), self._named(".html")
        self.work = self._named("-work")

    def _named(self, ending: str) -> Path:
        return self.out.with_name(f"{self.out.name}{ending}")

    def onnx_files(self) -> dict[str, Path]:
        return {"FP32": self.onnx, "INT8": self.int8}

    def check(self, resume: bool) -> None:
        """Refuse a name that cannot be written, and a run that is there or is not."""
        if self.out.suffix in (".safetensors", ".onnx", ".html"):
            raise ConfigError(
                f"{self.out} has an ending, and several files are written: give {self.out.stem}"
            )
        if self.out.is_dir():
            raise ConfigError(f"{self.out} is a folder: give a name in it, such as {self.out}/mine")
        begun = self.work.is_dir() and any(self.work.iterdir())
        if resume and not begun:
            raise ConfigError(f"there is no stopped run at {self.work}: leave out --resume")
        if begun and not resume:
            raise ConfigError(
                f"{self.work} holds a run that was stopped: add --resume, or remove that folder"
            )


class _Run:
    """The parts of the work: how long each took, and the progress in seconds."""

    def __init__(
        self, files: _Files, config: FinetuneConfig, clock: Clock, progress: Progress | None
    ) -> None:
        self.files, self.config, self.clock, self._progress = files, config, clock, progress
        self.seconds: dict[str, float] = {}
        self._name = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the work."""
        self._name, started = name, self.clock.seconds
        self.shown(0)
        yield
        self.seconds[name] = self.clock.seconds - started

    def shown(
        self, done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        """Progress of a part as progress in seconds of the whole."""
        if self._progress:
            whole = None if self.config.samples else round(60 * self.config.minutes)
            self._progress(round(self.clock.seconds), whole, what=self._name, note=note)


def _recipe(init: Path, name: str, config: FinetuneConfig) -> Recipe:
    """The recipe `finetune` for the network and the box windows of the weights at `init`."""
    from picosam2.models.checkpoint import load_weights, read_tensors
    from picosam2.runtimes.torch import TorchRuntime
    from picosam2.training.config import changed_recipe

    network = load_weights(init)
    model = network.config
    if not model.guidance or model.logits != 2:
        raise ConfigError(
            f"the weights {name} take no corrections, and cannot be fine-tuned: start from default"
        )
    runtime = TorchRuntime(network, facts=read_tensors(init).info)
    recipe, windows = changed_recipe("finetune", config.recipe), runtime.info.metadata.windows
    try:
        augment = replace(
            recipe.augment, box_growth=windows.box_growth, box_max_aspect=windows.box_max_aspect
        )
    except ConfigError as error:
        raise ConfigError(f"the weights {name} cannot be fine-tuned: {error}") from error
    return replace(recipe, model=model, augment=augment)


def _time_to_train(run: _Run, own: OwnImages, of_a_crop: float, measured: int) -> float:
    """The seconds that are left when those of the parts after the training are taken off."""
    clicked = min(own.masks, _CLICKED)
    reserve = _FIXED_S + of_a_crop * (
        _CROPS_OF_A_MASK * clicked + 4 * _CROPS_MEASURED * measured + 6 * 2 * own.masks
    )
    whole = 60 * run.config.minutes
    left = whole - run.clock.seconds
    return max(left - min(reserve, _LARGEST_RESERVE * whole), 0.1 * whole)


def _train(
    recipe: Recipe, run: _Run, own: OwnImages, init: Path, until: float, resume: bool, stop: Stop
) -> Trained:
    from picosam2.training.finetune import train_own

    return train_own(
        recipe, run.config, own, init, run.files.work,
        clock=run.clock, until=until, resume=resume, stop=stop, progress=run.shown,
    )  # fmt: skip


def _facts(init: Path, own: OwnImages, trained: Trained) -> dict[str, Any]:
    """What the weights say of themselves; nothing of the person's files."""
    from picosam2._files import sha256_file
    from picosam2.models.checkpoint import read_tensors

    return {
        **read_tensors(init).info,
        "finetune": {
            "from_sha256": sha256_file(init), "masks": own.masks, "images": len(own.trained),
            "samples": trained.samples, "kept_step": trained.kept_step,
            "averaging": trained.averaging,
        },
    }  # fmt: skip


def _fit_scorers(
    model: PicoSAM2, facts: dict[str, Any], own: OwnImages, run: _Run, threads: int | None
) -> dict[str, Any]:
    """The scorers that choose better on the person's images: those of before, or fitted further.

    They are fitted on the images that were trained on, so that the others can be measured on.
    """
    from picosam2.data.split import spread
    from picosam2.export.onnx import export_onnx
    from picosam2.training.scorers import ScorerConfig, adapt, collect, fit

    file = run.files.work / "after.onnx"
    export_onnx(model, file, facts)
    predictor = _open(file, threads)
    config = ScorerConfig(epochs=(30, 80, 200))  # the examples are few
    share = min(_CLICKED / max(own.masks, 1), 1.0)
    images = spread(own.trained, max(round(share * len(own.trained)), 2))
    before = predictor.runtime.info.metadata.scorers
    fitted: dict[str, Fitted] = {}
    for kind, examples in zip(("click", "box"), collect(predictor, images, config), strict=True):
        fitted[kind] = (
            adapt(examples, before[kind], config, averaging=run.config.scorer_averaging)
            if kind in before
            else fit(examples, config)
        )
    return {
        "geometry": predictor.runtime.info.facts["geometry"],
        "scorers": {kind: fit_result.scorer.to_json() for kind, fit_result in fitted.items()},
        "calibration": {kind: fit_result.report() for kind, fit_result in fitted.items()},
    }


def _export(
    model: PicoSAM2, facts: dict[str, Any], files: _Files, own: OwnImages, threads: int | None
) -> None:
    from picosam2.data.store import Store
    from picosam2.export.int8.calibration import CalibrationConfig
    from picosam2.export.int8.onnx_int8 import quantize
    from picosam2.export.onnx import export_onnx, weights_facts
    from picosam2.models.checkpoint import save_weights

    save_weights(files.weights, model, facts)
    export_onnx(model, files.onnx, weights_facts(files.weights))
    config = CalibrationConfig(samples=256, validation_images=1)
    quantize(files.onnx, Store(own.crops), files.int8, config, threads=threads)


def measure_own(predictor: Predictor, images: Sequence[AnnotatedImage]) -> OwnScores:
    """IoU by box, by a click at the center, and after two corrections of that."""
    from picosam2.evaluation.clicks import measure_clicks
    from picosam2.evaluation.run import evaluate

    boxes = evaluate(predictor, images, protocol="box")
    clicks = measure_clicks(predictor, images, start="click", clicks=3)
    return OwnScores(
        box=tuple(each.iou for each in boxes.measured),
        click=tuple(each.ious[0] for each in clicks.objects),
        corrected=tuple(each.ious[2] for each in clicks.objects),
        images=tuple(each.image_id for each in boxes.measured),
        annotations=tuple(each.annotation for each in boxes.measured),
    )


def _sample_image(folder: Path) -> AnnotatedImage:
    """The bundled sample as an annotated image: what it loses was forgotten."""
    from picosam2 import masks
    from picosam2.data.coco import AnnotatedImage, Instance
    from picosam2.io.sample_image import sample_bytes, sample_objects

    path = folder / "sample.jpg"
    path.write_bytes(sample_bytes())
    objects = sample_objects()
    height, width = objects[0].mask.shape
    instances = tuple(
        Instance(
            id=number, image_id=1, category_id=1, height=height, width=width,
            segmentation=masks.rle_encode(each.mask)["counts"].encode("ascii"),
            area=float(each.mask.sum()),
        )
        for number, each in enumerate(objects, 1)
    )  # fmt: skip
    return AnnotatedImage(
        id=1, path=path, height=height, width=width, source="sample", instances=instances
    )


def _predictor(weights: Path, file: Path, threads: int | None) -> Predictor:
    """A predictor of a safetensors file, by ONNX Runtime, which is quicker than torch."""
    from picosam2.export.onnx import export_onnx, weights_facts
    from picosam2.models.checkpoint import load_weights

    export_onnx(load_weights(weights), file, weights_facts(weights))
    return _open(file, threads)


def _open(path: Path, threads: int | None) -> Predictor:
    from picosam2.predictor import Predictor
    from picosam2.runtimes.onnx import OnnxRuntime

    return Predictor(OnnxRuntime(path, threads=threads))


def _write_page(result: Finetuned, own: OwnImages, models: Mapping[str, Predictor]) -> None:
    from picosam2._files import write_text
    from picosam2.reports.blocks import to_html
    from picosam2.reports.finetune_page import blocks
    from picosam2.reports.qualitative import comparison_image, of_images

    items = [
        {"annotation": number, "iou": iou}
        for number, iou in zip(result.after.annotations, result.after.box, strict=True)
    ]
    shown = comparison_image(of_images(items, own.measured, models))
    write_text(result.page, to_html(result.weights.stem, blocks(result, shown)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
