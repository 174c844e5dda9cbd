"""A teacher goes through the images of a store, and its answers become a cache.

Every image is opened once and shown to the teacher once, with all of its objects; each answer is
resampled to the context window of every view of its object. The work is cut like the store: a
finished shard is never computed again, and processes take shards by their number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem, Instance
from picosam2.data.store import SourceFiles, Store
from picosam2.distillation.cache import (
    LIMIT,
    RECORD,
    STEP,
    UNSEEN,
    claim,
    make_plan,
    quantize,
    shard_file,
    write_shard,
)
from picosam2.distillation.protocol import Target, Teacher, TeacherAnswer
from picosam2.errors import ConfigError, DataError, PicoSAM2Error, StoreError
from picosam2.geometry import Window
from picosam2.images import load_image
from picosam2.prompts import Box

AGREE = 0.5
"""From this IoU with the truth on, a teacher has answered about the right object."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `teach` did in this process."""

    written: int
    """Shards written now."""
    kept: int
    """Shards that were there already."""
    problems: tuple[EntryProblem, ...]
    """Images that could not be shown to the teacher now, though the store was made from them."""


def teach(
    teacher: Teacher,
    store: Store,
    sources: Sequence[SourceFiles],
    out: Path,
    *,
    agree: float = AGREE,
    limit_shards: int | None = None,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> Result:
    """Write what `teacher` says of the objects of `store` to the cache folder `out`.

    Args:
        teacher: who is asked.
        store: the store to teach, made from `sources`; see `Store.shard_images`.
        sources: the annotation files and image folders that the store was made from.
        out: the cache's folder; finished shards in it are kept.
        agree: IoU with the truth from which an answer counts as one about the right object.
        limit_shards: stop after so many new shards.
        rank: this process writes the shards with these numbers, modulo `world`.
        world: number of processes.
        progress: is called after every image.

    Raises:
        StoreError: `out` holds another cache, the sources are not the store's, or the disk is full.
    """
    if not 0 <= agree <= 1:
        raise ConfigError(f"`agree` must be from 0 to 1, not {agree:g}")
    claim(out, make_plan(teacher, store, agree), store, rank=rank, world=world)
    parts = store.shard_images(sources)
    mine = range(rank, len(parts), world)
    finished = [index for index in mine if shard_file(out, index, "json").exists()]
    waiting = [index for index in mine if index not in finished][:limit_shards]
    counter = ImageCounter(
        sum(len(parts[index]) for index in finished),
        sum(len(parts[index]) for index in waiting),
        progress,
    )
    problems: list[EntryProblem] = []
    for index in waiting:
        start = int(store.ends[index - 1]) if index else 0
        shard = _Shard(store, start, int(store.ends[index]), agree)
        for annotated, objects in _with_rows(parts[index], shard.of_store, store):
            if objects:
                _teach_image(teacher, annotated, objects, shard)
            counter.advance()
        write_shard(out, index, shard.logits, shard.records, shard.counted.to_json())
        problems += shard.counted.problems
    return Result(written=len(waiting), kept=len(finished), problems=tuple(problems))


class ImageCounter:
    """Reports how many images are done, how fast it goes and how long the rest will take."""

    def __init__(self, done: int, waiting: int, progress: Progress | None) -> None:
        self._before, self._now, self._waiting = done, 0, waiting
        self._progress, self._started = progress, time.monotonic()

    def advance(self) -> None:
        """One more image is done."""
        self._now += 1
        if self._progress is None:
            return
        rate = self._now / max(time.monotonic() - self._started, 1e-9)
        left = timedelta(seconds=round((self._waiting - self._now) / rate))
        self._progress(
            self._before + self._now,
            self._before + self._waiting,
            note=f"{rate:,.1f} images/s, {left} left",
        )


@dataclass(kw_only=True)
class _Counted:
    """What is counted while a shard is taught."""

    photos: int = 0
    """Shown to the teacher."""
    instances: int = 0
    """That it was asked about."""
    invalid: int = 0
    """Instances without a usable answer."""
    seen: int = 0
    """Pixels stored, of all rows, that the teacher has seen."""
    clipped: int = 0
    """... of them beyond the largest number that can be stored."""
    changed: int = 0
    """... of them on the other side of 0 than the logit was."""
    squares: float = 0.0
    """Sum of the squared errors of those that were not clipped, in logits."""
    largest: float = 0.0
    """The largest of these errors."""
    problems: list[EntryProblem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Shard:
    """The rows of one shard while they are filled."""

    def __init__(self, store: Store, start: int, end: int, agree: float) -> None:
        side = store.context
        self.of_store = store.records[start:end]
        self.views = len(store.views)
        self.logits = np.full((end - start, side, side), UNSEEN, np.int8)
        self.records = np.zeros(end - start, RECORD)
        self.counted = _Counted()
        self._agree = agree

    def put(self, row: int, answer: TeacherAnswer, truth: masks.Mask) -> None:
        """Keep what was taught of the instance whose first view is `row`."""
        self.counted.instances += 1
        if not (np.isfinite(answer.logits).all() and math.isfinite(answer.predicted_iou)):
            self.counted.invalid += 1
            return
        iou = geometry.paste_region(answer.logits, answer.window, *truth.shape).iou(truth)
        expected = min(max(answer.predicted_iou, 0.0), 1.0)
        height, width = truth.shape
        for place in range(row, row + self.views):
            window = Window(*self.of_store["window"][place].tolist())
            self.logits[place] = self._small(answer, window, height, width)
            self.records[place] = (expected, iou, True, iou >= self._agree)

    def _small(
        self, answer: TeacherAnswer, window: Window, height: int, width: int
    ) -> npt.NDArray[np.int8]:
        """The logits on a context window in 8 bits; the error this makes is added up."""
        side, counted = self.logits.shape[1], self.counted
        exact = geometry.resample_logits(
            answer.logits, answer.window, window, side, outside=math.nan
        )
        on_image = np.zeros((side, side), np.bool_)
        on_image[geometry.inside(window, height, width, side)] = True
        exact[~on_image] = math.nan
        stored = quantize(exact)
        seen = stored != UNSEEN
        exact, kept = exact[seen], stored[seen]
        inside = np.abs(exact) <= (LIMIT + 0.5) * STEP
        error = np.abs(kept[inside] * np.float32(STEP) - exact[inside])
        counted.seen += len(exact)
        counted.clipped += len(exact) - len(error)
        counted.changed += int(np.count_nonzero((exact > 0) != (kept > 0)))
        counted.squares += float(np.square(error).sum(dtype=np.float64))
        counted.largest = max(counted.largest, float(error.max(initial=0.0)))
        return stored


def _with_rows(
    images: Sequence[AnnotatedImage], records: npt.NDArray[np.void], store: Store
) -> Iterator[tuple[AnnotatedImage, list[tuple[Instance, int]]]]:
    """Each image of a shard with those of its objects that are in the store, and their first rows.

    The store has the rows in the order of the annotations, without what could not be used.
    """
    views, row = len(store.views), 0
    keys = [
        (store.source_names[source], image, instance)
        for source, image, instance in zip(
            records["source"].tolist(),
            records["photo"].tolist(),
            records["instance"].tolist(),
            strict=True,
        )
    ]
    for image in images:
        rows = []
        for instance in image.instances:
            if row < len(keys) and keys[row] == (image.source, image.id, instance.id):
                rows.append((instance, row))
                row += views
        yield image, rows
    if row != len(keys):
        raise StoreError(
            f"the objects of {store.path} are not those of the annotations given: give the "
            "sources, with their names, that `data prepare` was given"
        )


def _teach_image(
    teacher: Teacher,
    annotated: AnnotatedImage,
    objects: Sequence[tuple[Instance, int]],
    shard: _Shard,
) -> None:
    """Show the teacher one image; its objects stay without an answer if that cannot be done."""
    try:
        image = load_image(annotated.path)
        if image.shape[:2] != (annotated.height, annotated.width):
            height, width = image.shape[:2]
            raise DataError(
                f"is {width}x{height}, not {annotated.width}x{annotated.height} as stated"
            )
        truths = [instance.mask() for instance, _ in objects]
    except PicoSAM2Error as error:
        shard.counted.problems.append(
            EntryProblem(where=f"image {annotated.path.name}", what=str(error))
        )
        shard.counted.instances += len(objects)
        shard.counted.invalid += len(objects)
        return
    targets = [
        Target(box=Box(*(masks.bbox(truth) or ())), point=masks.center_point(truth), mask=truth)
        for truth in truths
    ]
    shard.counted.photos += 1
    answers = teacher(image, targets)
    for (_, row), answer, truth in zip(objects, answers, truths, strict=True):
        shard.put(row, answer, truth)
