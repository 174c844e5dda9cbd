"""The run itself: images are segmented by threads that share one network.

ONNX Runtime, Pillow and NumPy let each other run, and each inference has one thread;
`benchmarks/bulk.py` compares the ways. Other threads encode and write the results, because each
file waits for the disk. What cannot be used is named at the end.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picosam2._progress import Progress
from picosam2.errors import ConfigError, PicoSAM2Error
from picosam2.images import load_image
from picosam2.io.encode import DRAWN, PER_OBJECT, Format, encode
from picosam2.io.extras import file_extras
from picosam2.io.prompt_files import PromptEntry
from picosam2.predictor import Predictor
from picosam2.results import Segmentation
from picosam2.runtimes.cpus import allowed_cpus
from picosam2.runtimes.finder import BoxFinder, opened_finder
from picosam2.runtimes.weights import find_weights
from picosam2.tasks.bulk.coco import coco_record
from picosam2.tasks.bulk.images import Job, check_paths, find_images, match_images
from picosam2.tasks.bulk.journal import CocoJournal, FolderJournal
from picosam2.tasks.bulk.prompts import PromptSource
from picosam2.tasks.everything import everything
from picosam2.tasks.output_plan import OutputPlan, relative_to_file

# Images for each thread, with those that wait and those that are written: enough to keep it busy,
# few enough for memory.
_AT_A_TIME = 3

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class BulkResult:
    """What a run over many images did.

    target: the file or folder with the results. images, masks: how many were made. done_before:
    images that an earlier run had finished. problems: a sentence for each thing left out.
    """

    target: Path
    images: int
    masks: int
    done_before: int
    problems: tuple[str, ...]


def check_many(
    paths: Sequence[Path],
    *,
    out: Path | None,
    format: Format | None,
    weights: str,
    runtime: str,
) -> None:
    """Check what `segment_many` can know of its arguments at once, before prompts are read.

    Raises:
        ConfigError, ImageError, WeightsError: as `segment_many`.
    """
    check_paths(paths)
    OutputPlan.for_many(out, format)
    find_weights(weights, runtime)


def segment_many(
    paths: Sequence[Path],
    source: PromptSource,
    *,
    out: Path | None = None,
    format: Format | None = None,
    tolerance: float = 1.0,
    overwrite: bool = False,
    weights: str = "default",
    runtime: str = "onnx",
    workers: int | None = None,
    flip: bool = False,
    progress: Progress | None = None,
) -> BulkResult:
    """Segment the images in folders and write the results, each in its file or all in one.

    Args:
        paths: folders of images, or images.
        source: what to segment in each.
        out: a folder, or a .json file for COCO; by default the current folder.
        format: by default overlay, or coco for a .json file.
        tolerance: how far outlines may lie from the mask's edge, in pixels.
        overwrite: do again what is done, and replace files that this command did not write.
        weights: shipped weights by name, or a file.
        runtime: what runs the network.
        workers: images at a time; by default as many as the process may use processors.
        flip: average the answers for each crop and its mirror image.
        progress: receives the number of finished images.

    Raises:
        ConfigError: the output does not suit the format, or belongs to another run.
        ImageError, DataError: there is no image, or none that the prompts name.
        WeightsError: the weights cannot be used.
    """
    plan = OutputPlan.for_many(out, format)
    images, unreadable = find_images(paths, plan)
    plan = plan.with_images(images)
    jobs, missing = match_images(images, source)
    predictor = Predictor(weights, runtime=runtime, threads=1, flip=flip)
    sha256 = predictor.runtime.info.weights_sha256
    settings = {"weights": sha256, "tolerance": tolerance} | ({"flip": True} if flip else {})
    finder = None
    if source.everything is not None and source.everything.method == "finder":
        finder = opened_finder(source.everything.finder, 1, runtime)
        settings["finder"] = finder.info.weights_sha256
    kind = CocoJournal if plan.file else FolderJournal
    problems = [*unreadable, *missing]
    done_before = masks = finished = 0
    with kind(plan, source, settings, overwrite=overwrite) as journal:
        work = _Work(
            predictor, {"name": weights, "sha256": sha256}, source, plan, tolerance, journal,
            finder,
        )  # fmt: skip
        results = _each(work, jobs, workers or allowed_cpus())
        for count, (job, result) in enumerate(results, 1):
            if isinstance(result, PicoSAM2Error):
                problems.append(f"{job.name}: {result}")
            else:
                problems += [f"{job.name}, {problem}" for problem in result.problems]
                if result.done_before:
                    done_before += 1
                else:
                    finished += 1
                    masks += result.masks
            if progress:
                progress(count, len(jobs))
        problems += journal.finish()
    return BulkResult(
        target=plan.target,
        images=finished,
        masks=masks,
        done_before=done_before,
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Segmented:
    """What became of an image."""

    problems: Sequence[str]
    masks: int = 0
    done_before: bool = False
    write: Callable[[], None] | None = None
    """Makes and writes its files, if there are any."""


@dataclass(frozen=True)
class _Work:
    """What a thread does with an image."""

    predictor: Predictor
    weights: Mapping[str, str]
    source: PromptSource
    plan: OutputPlan
    tolerance: float
    journal: CocoJournal | FolderJournal
    finder: BoxFinder | None

    def __call__(self, job: Job) -> _Segmented:
        """Segment an image, unless that is done already."""
        with _naming_long_names():
            problems = self.journal.finished(job)
            if problems is not None:
                return _Segmented(problems, done_before=True)
            self.journal.check_free(job)
        return self.segment(job)

    def segment(self, job: Job) -> _Segmented:
        image = load_image(job.path)
        height, width = image.shape[:2]
        if self.source.everything is not None:
            objects = everything(image, self.predictor, self.source.everything, finder=self.finder)
            entries = [PromptEntry(prompt=segmentation.prompt) for segmentation in objects]
            problems: list[str] = []
        else:
            entries, problems = self.source.prompts_for(job.key, height, width)
            prompts = [each.prompt for each in entries]
            objects = self.predictor(image, prompts=prompts) if prompts else []
        if isinstance(self.journal, CocoJournal):
            self.journal.add(
                coco_record(
                    job.name,
                    height,
                    width,
                    objects,
                    entries,
                    polygons=self.plan.format == "coco-polygons",
                    tolerance=self.tolerance,
                )
            )
            return _Segmented(problems, len(objects))
        size = height, width
        if self.plan.format in DRAWN:
            # Drawing takes much memory: no more images at a time than there are threads.
            files = self._files(job, image, objects, entries)
            write = partial(self.journal.write, job, size, entries, files)
        else:
            write = partial(self._encode_and_write, job, image, objects, entries)
        return _Segmented(problems, len(objects), write=write)

    def _encode_and_write(
        self,
        job: Job,
        image: Image,
        objects: Sequence[Segmentation],
        entries: Sequence[PromptEntry],
    ) -> None:
        assert isinstance(self.journal, FolderJournal)
        files = self._files(job, image, objects, entries)
        self.journal.write(job, (image.shape[0], image.shape[1]), entries, files)

    def _files(
        self,
        job: Job,
        image: Image,
        objects: Sequence[Segmentation],
        entries: Sequence[PromptEntry],
    ) -> dict[Path, bytes]:
        """The contents of the files for an image."""
        format = self.plan.format
        per_object = format in PER_OBJECT
        groups = [[segmentation] for segmentation in objects] if per_object else [list(objects)]
        labels = [each.label for each in entries]
        classes = self.source.yolo_classes
        extras = file_extras(job.path, rgba=format == "cutout") if format in DRAWN else None
        files = {}
        for path, group in zip(self.plan.paths(job.name, len(objects)), groups, strict=True):
            name = relative_to_file(job.path, path) if format == "labelme" else job.name
            files[path] = encode(
                format,
                name,
                image,
                group,
                prompts=self.source.everything is None,
                labels=None if per_object else labels,
                class_ids=[classes[each.category] for each in entries],
                tolerance=self.tolerance,
                weights=self.weights,
                extras=extras,
            )
        return files


def _each(
    work: _Work, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, _Segmented | PicoSAM2Error]]:
    """Every image's result as it comes; few images are in memory at a time."""
    waiting = iter(jobs)
    running: dict[Future[_Segmented], Job] = {}
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(workers) as writers:
        try:
            while True:
                while len(running) < _AT_A_TIME * workers and (job := next(waiting, None)):
                    running[pool.submit(work, job)] = job
                if not running:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done
                # What stops the run comes last, so that no image that is done is lost.
                for future in sorted(done, key=lambda each: each.exception() is not None):
                    job = running.pop(future)
                    error = future.exception()
                    if isinstance(error, PicoSAM2Error):
                        yield job, error
                        continue
                    result = future.result()
                    if result.write is None:
                        yield job, result
                    else:
                        running[writers.submit(_written, result)] = job
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            writers.shutdown(wait=True)


def _written(result: _Segmented) -> _Segmented:
    """Write the files of an image."""
    assert result.write is not None
    with _naming_long_names():
        result.write()
    return replace(result, write=None)


@contextmanager
def _naming_long_names() -> Iterator[None]:
    """Turn the system's error of a name that is too long into `ConfigError`."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ConfigError(
            "the name of its results would be too long: give the image a shorter name"
        ) from error
