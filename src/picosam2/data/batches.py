"""Which views a step trains on, and getting their pixels ready ahead of time.

The views and the random numbers of a step are a pure function of (seed, step): resuming needs no
state, and processes that share a batch agree on it without exchanging messages.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picosam2.data.augment import AugmentConfig, Batch, Draws, augment
from picosam2.data.store import Store
from picosam2.errors import ConfigError
from picosam2.runtimes.cpus import allowed_cpus


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """A teacher's answers for some rows of the store."""

    logits_BCC: Tensor
    """Its logits on their context crops, float32."""
    weight_B: Tensor
    """Its weight in the loss of each, float32, 0..1."""


TeacherLookup = Callable[[npt.NDArray[np.int64]], TeacherTargets]
"""Gives a teacher's answers for rows (B,) int64."""


class Sampler:
    """Rows of the store's training part for every step."""

    def __init__(
        self,
        store: Store,
        batch: int,
        *,
        views: dict[str, float] | None = None,
        sources: dict[str, float] | None = None,
        whole_epochs: bool = False,
        seed: int = 0,
    ) -> None:
        """Prepare drawing `batch` rows a step; see `TrainConfig` for the meaning of the rest.

        Raises:
            ConfigError: a view or source the store does not have, or nothing left to train on.
        """
        for weights, known in ((views, store.view_names), (sources, store.source_names)):
            if unknown := set(weights or {}) - set(known):
                raise ConfigError(
                    f"the store has no {min(unknown)!r}; it has {', '.join(known) or 'nothing'}"
                )
        shares = np.array([(views or dict.fromkeys(store.view_names, 1.0)).get(name, 0.0)
                           for name in store.view_names])  # fmt: skip
        by_source = np.array([(sources or {}).get(name, 1.0) for name in store.source_names])
        weights = by_source[store.records["source"]] * ~store.records["validation"]
        # A share is of the samples, however many rows a view has.
        totals = np.bincount(store.records["view"], weights, minlength=len(shares))
        weights = weights * (shares / np.maximum(totals, 1e-12))[store.records["view"]]
        self._rows = np.flatnonzero(weights > 0)
        if not len(self._rows):
            raise ConfigError("nothing in the store to train on: check `views` and `sources`")
        self._cumulative = np.cumsum(weights[self._rows])
        self._batch, self._whole_epochs, self._seed = batch, whole_epochs, seed

    def __len__(self) -> int:
        """How many different rows there are to draw from."""
        return len(self._rows)

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """The different rows there are to draw from, rising."""
        return self._rows

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """The rows (B,) of a step, from 0."""
        rows: npt.NDArray[np.int64]
        if self._whole_epochs:
            rows = self._rows[self._permuted(step)]
            return rows
        draws = np.random.default_rng((self._seed, step)).random(self._batch)
        places = np.searchsorted(self._cumulative, draws * self._cumulative[-1], side="right")
        rows = self._rows[np.minimum(places, len(self._rows) - 1)]
        return rows

    def _permuted(self, step: int) -> npt.NDArray[np.int64]:
        count = len(self._rows)
        places = np.arange(step * self._batch, (step + 1) * self._batch)
        order = np.empty(self._batch, np.int64)
        for epoch in range(places[0] // count, places[-1] // count + 1):
            here = places // count == epoch
            permutation = np.random.default_rng((self._seed, epoch)).permutation(count)
            order[here] = permutation[places[here] % count]
        return order


class Resident:
    """The crops of rows that may be drawn, kept in a GPU's memory: a batch costs no reading.

    One H200 trains on more crops a second than a processor can copy (docs/training.md).
    """

    def __init__(self, store: Store, rows: npt.NDArray[np.int64], device: torch.device) -> None:
        """Read the crops of `rows` (N,), rising, to `device`: N * C * C * 4 bytes.

        Raises:
            ConfigError: the device has not so much memory.
        """
        side = store.context
        shape = len(rows), side, side, 4
        try:
            self._crops_NCC4 = torch.empty(shape, dtype=torch.uint8, device=device)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's allocator raises it
            raise ConfigError(
                f"the crops take {math.prod(shape) / 1e9:,.1f} GB, more than {device} has free: "
                "leave out --resident"
            ) from error
        self._place = np.full(len(store), -1, np.int64)
        self._place[rows] = np.arange(len(rows))
        chunk = max(1, 2**28 // (side * side * 4))

        def read(start: int) -> None:
            crops = torch.from_numpy(store.gather(rows[start : start + chunk]))
            self._crops_NCC4[start : start + chunk] = crops

        with ThreadPoolExecutor(allowed_cpus(), thread_name_prefix="picosam2-resident") as pool:
            list(pool.map(read, range(0, len(rows), chunk)))

    def gather(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """The crops (B, C, C, 4) uint8 of rows (B,)."""
        places = torch.from_numpy(self._place[rows])
        return self._crops_NCC4[places.to(self._crops_NCC4.device)]


class BatchLoader:
    """Batches for the steps `start` to `stop`, made by threads while the model computes.

    `size` gives the crops' side at each step; `rank` and `world` give this process its contiguous
    share of every global batch; `teacher` adds a teacher's answers for the samples. `resident`
    keeps the crops in the memory of `device`. `workers` threads make batches, of which at most
    `ahead` are in the making or waiting.
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        config: AugmentConfig,
        *,
        size: Callable[[int], int],
        seed: int,
        start: int = 0,
        stop: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
        teacher: TeacherLookup | None = None,
        resident: bool = False,
        workers: int = 2,
        ahead: int = 4,
    ) -> None:
        self._store, self._sampler, self._config = store, sampler, config
        self._size, self._seed, self._start, self._stop = size, seed, start, stop
        self._rank, self._world = rank, world
        self._device = device or torch.device("cpu")
        self._teacher = teacher
        self._resident = Resident(store, sampler.known, self._device) if resident else None
        self._workers, self._ahead = workers, ahead

    def __iter__(self) -> Generator[Batch]:
        """The batches in order. Closing the iterator stops the threads."""
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="picosam2-feed")
        waiting: deque[Future[Batch]] = deque()
        steps = iter(range(self._start, self._stop))
        try:
            while True:
                for step in islice(steps, self._ahead - len(waiting)):
                    waiting.append(pool.submit(self._batch, step))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _share(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        size = len(rows) // self._world
        return rows[self._rank * size : (self._rank + 1) * size]

    def _batch(self, step: int) -> Batch:
        rows = self._share(self._sampler.rows(step))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        count = len(rows)
        draws = Draws.of(count * self._world, generator)
        draws = draws.part(self._rank * count, (self._rank + 1) * count).to(self._device)
        records = self._store.records[rows]
        windows = records["window"]
        half = torch.from_numpy((windows[:, 2:] - windows[:, :2]) / 2).float()
        center = (windows[:, 2:] + windows[:, :2]) / 2
        far = np.stack((records["width"], records["height"]), 1)
        image = torch.from_numpy(np.concatenate((-center, far - center), 1)).float()
        kind = torch.from_numpy(self._store.kinds[rows]).to(self._device)
        if self._resident:
            context = self._resident.gather(rows)
        else:
            context = torch.from_numpy(self._store.gather(rows)).to(self._device, non_blocking=True)
        targets = self._teacher(rows) if self._teacher else None
        cut = augment(
            context, half.to(self._device), kind, draws, self._config, self._size(step),
            None if targets is None else targets.logits_BCC.to(self._device, non_blocking=True),
            image.to(self._device),
        )  # fmt: skip
        return Batch(
            image_B3SS=cut.image_B3SS, target_BSS=cut.target_BSS, teacher_BSS=cut.teacher_BSS,
            kind_B=kind, row_B=rows,
            teacher_weight_B=None if targets is None else targets.weight_B.to(self._device),
            elsewhere_B=cut.elsewhere_B, off_center_B=cut.off_center_B,
        )  # fmt: skip
