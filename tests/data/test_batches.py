"""Sampling and feeding: functions of seed and step, the asked-for shares, errors handed on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import SMALL_STORE, write_coco

from picosam2.data.augment import NO_AUGMENT, AugmentConfig
from picosam2.data.batches import BatchLoader, Resident, Sampler
from picosam2.data.store import Store, prepare
from picosam2.errors import ConfigError, StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two sources of 9 and 3 images, three views each."""
    folder = tmp_path_factory.mktemp("batches")
    sources = [write_coco(folder, 9, name="many"), write_coco(folder, 3, start=40, name="few")]
    prepare(sources, folder / "store", SMALL_STORE, workers=1)
    opened = Store(folder / "store")
    assert opened.source_names == ("few", "many")
    assert 0 < opened.records["validation"].sum() < len(opened) / 2
    return opened


def drawn(sampler: Sampler, steps: int = 200) -> np.ndarray:
    return np.concatenate([sampler.rows(step) for step in range(steps)])


def test_rows_are_a_pure_function_of_seed_and_step(store: Store) -> None:
    first, second = Sampler(store, 16, seed=4), Sampler(store, 16, seed=4)
    late = first.rows(50)
    for step in (3, 0, 50, 3):  # in any order, as often as you like
        np.testing.assert_array_equal(first.rows(step), second.rows(step))
    np.testing.assert_array_equal(first.rows(50), late)
    other = Sampler(store, 16, seed=5)
    assert any((first.rows(step) != other.rows(step)).any() for step in range(3))
    assert any((first.rows(step) != first.rows(step + 1)).any() for step in range(3))


@pytest.mark.parametrize("whole_epochs", [False, True])
def test_validation_is_never_drawn(store: Store, whole_epochs: bool) -> None:
    sampler = Sampler(store, 16, whole_epochs=whole_epochs)
    rows = drawn(sampler)
    assert not store.records["validation"][rows].any()
    training = np.flatnonzero(~store.records["validation"])
    assert set(rows) == set(training)
    assert len(sampler) == len(training)


def test_views_are_drawn_equally_or_as_asked(store: Store) -> None:
    def shares(**settings: Any) -> np.ndarray:
        rows = drawn(Sampler(store, 32, **settings))
        return np.bincount(store.records["view"][rows], minlength=3) / len(rows)

    np.testing.assert_allclose(shares(), [1 / 3] * 3, atol=0.02)
    wanted = {"box": 0.5, "click-near": 0.3, "click-far": 0.2}
    np.testing.assert_allclose(shares(views=wanted), [0.5, 0.3, 0.2], atol=0.02)
    np.testing.assert_allclose(shares(views={"box": 3, "click-far": 1}), [0.75, 0, 0.25], atol=0.02)


def test_shares_are_of_the_samples_however_many_rows_a_view_has(tmp_path: Path) -> None:
    """Half of the rows of one view are lost; its share is what it was."""
    prepare([write_coco(tmp_path, 9)], tmp_path / "store", SMALL_STORE, workers=1)
    store = Store(tmp_path / "store")
    lost = np.flatnonzero(store.records["view"] == 0)[::2]
    store.records["validation"][lost] = True
    rows = drawn(Sampler(store, 32))
    shares = np.bincount(store.records["view"][rows], minlength=3) / len(rows)
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.02)


def test_objects_of_a_source_are_drawn_more_often(store: Store) -> None:
    rows = drawn(Sampler(store, 32, sources={"few": 4.0}), 400)
    training = ~store.records["validation"]
    counts = Counter(store.records["source"][rows].tolist())
    each = [counts[s] / (training & (store.records["source"] == s)).sum() for s in (0, 1)]
    assert each[0] / each[1] == pytest.approx(4, rel=0.1)
    alone = drawn(Sampler(store, 32, sources={"few": 0.0}))
    assert set(store.records["source"][alone]) == {1}


def test_source_and_view_shares_together(store: Store) -> None:
    sampler = Sampler(store, 32, sources={"few": 4.0}, views={"box": 0.7, "click-near": 0.3})
    rows = drawn(sampler, 400)
    shares = np.bincount(store.records["view"][rows], minlength=3) / len(rows)
    np.testing.assert_allclose(shares, [0.7, 0.3, 0], atol=0.02)


@pytest.mark.parametrize("batch", [4, 7, 64])
def test_whole_epochs_have_every_row_once(store: Store, batch: int) -> None:
    """Also where an epoch ends in the middle of a batch, or a batch has several epochs."""
    sampler = Sampler(store, batch, whole_epochs=True, views={"box": 0.9, "click-far": 0.1})
    count = len(sampler)
    rows = drawn(sampler, 6 * count)
    epochs = rows[: len(rows) // count * count].reshape(-1, count)
    expected = np.sort(epochs[0])
    assert len(set(expected)) == count
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), expected)
    assert (epochs[0] != epochs[1]).any()
    assert set(store.records["view"][expected]) == {0, 2}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"views": {"round": 1.0}}, "no 'round'; it has box, click-near, click-far"),
        ({"sources": {"lvis": 1.0}}, "no 'lvis'; it has few, many"),
        ({"views": {"box": 0.0}}, "nothing in the store to train on"),
        ({"sources": {"few": 0.0, "many": 0.0}}, "nothing in the store to train on"),
    ],
)
def test_what_the_store_does_not_have(settings: dict[str, Any], says: str, store: Store) -> None:
    with pytest.raises(ConfigError, match=says):
        Sampler(store, 4, **settings)


# --- feeding ------------------------------------------------------------------------------------


def feed(store: Store, config: AugmentConfig | None = None, **settings: Any) -> BatchLoader:
    keywords = {"size": lambda step: 32, "seed": 0, "stop": 3, **settings}
    return BatchLoader(store, Sampler(store, 8), config or AugmentConfig(), **keywords)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "picosam2-feed" in thread.name]


def test_batches_hold_what_the_sampler_drew(store: Store) -> None:
    sampler = Sampler(store, 8)
    batches = list(feed(store, NO_AUGMENT))
    assert len(batches) == 3
    for step, batch in enumerate(batches):
        rows = sampler.rows(step)
        np.testing.assert_array_equal(batch.row_B, rows)
        assert batch.kind_B.tolist() == store.kinds[rows].tolist()
        assert batch.image_B3SS.shape == (8, 3, 32, 32)
        assert batch.target_BSS.shape == (8, 32, 32)
        middle = batch.target_BSS[:, 14:18, 14:18].mean((1, 2))
        assert (middle > 0.9).all()  # discs: their middle is on the object


def test_the_size_may_change_from_step_to_step(store: Store) -> None:
    sizes = [batch.image_B3SS.shape[2] for batch in feed(store, size=lambda step: 16 * (step + 1))]
    assert sizes == [16, 32, 48]


def test_starting_later_gives_the_same_batches(store: Store) -> None:
    whole = list(feed(store, stop=4))
    late = list(feed(store, start=2, stop=4))
    for first, other in zip(whole[2:], late, strict=True):
        assert torch.equal(first.image_B3SS, other.image_B3SS)
        assert torch.equal(first.target_BSS, other.target_BSS)


def test_processes_share_the_batch_of_one(store: Store) -> None:
    whole = list(feed(store))
    parts = [list(feed(store, rank=rank, world=2)) for rank in (0, 1)]
    for each, first, second in zip(whole, *parts, strict=True):
        for name in ("image_B3SS", "target_BSS", "kind_B"):
            joined = torch.cat((getattr(first, name), getattr(second, name)))
            torch.testing.assert_close(joined, getattr(each, name), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(np.concatenate((first.row_B, second.row_B)), each.row_B)


def test_resident_crops_give_the_same_batches(store: Store) -> None:
    known = Sampler(store, 8).known
    assert not store.records["validation"][known].any()
    assert (np.diff(known) > 0).all()
    kept = Resident(store, known, torch.device("cpu"))
    np.testing.assert_array_equal(kept.gather(known[::-3]).numpy(), store.gather(known[::-3]))
    for first, other in zip(feed(store), feed(store, resident=True), strict=True):
        for name in ("image_B3SS", "target_BSS", "kind_B"):
            assert torch.equal(getattr(first, name), getattr(other, name))


def test_more_crops_than_the_memory_holds(store: Store) -> None:
    count = 2**60 // (store.context**2 * 4)
    rows = np.broadcast_to(np.int64(0), (count,))
    with pytest.raises(ConfigError, match=r"GB, more than cpu has free: leave out --resident"):
        Resident(store, rows, torch.device("cpu"))


def test_another_seed_is_another_augmentation(store: Store) -> None:
    first, other = next(iter(feed(store))), next(iter(feed(store, seed=1)))
    assert not torch.equal(first.image_B3SS, other.image_B3SS)


def test_nothing_to_do(store: Store) -> None:
    assert list(feed(store, start=3, stop=3)) == []
    assert not readers()


def test_an_error_of_the_reader_is_raised_where_batches_are_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = store.gather

    def breaks(rows: np.ndarray) -> np.ndarray:
        if (rows == Sampler(store, 8).rows(1)).all():
            raise StoreError("the disk is gone")
        return honest(rows)

    monkeypatch.setattr(store, "gather", breaks)
    taken: list[Any] = []
    with pytest.raises(StoreError, match="the disk is gone"):
        taken.extend(feed(store))
    assert len(taken) == 1
    assert not readers()


def test_leaving_early_stops_the_reader(store: Store) -> None:
    batches = iter(feed(store, stop=10_000, ahead=2))
    next(batches)
    assert readers()
    batches.close()
    assert not readers()


def test_it_reads_ahead_but_not_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, read = store.gather, []

    def counts(rows: np.ndarray) -> np.ndarray:
        read.append(len(rows))
        return honest(rows)

    monkeypatch.setattr(store, "gather", counts)
    batches = iter(feed(store, stop=1000, ahead=3))
    next(batches)
    deadline = time.monotonic() + 10
    while len(read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(read) == 3  # the one taken, and two that were asked for with it
    next(batches)
    next(batches)
    while len(read) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(read) == 5
    batches.close()


def test_the_settings_reach_the_augmentation(store: Store) -> None:
    gray = next(iter(feed(store, replace(NO_AUGMENT, gray=1.0)))).image_B3SS
    colored = next(iter(feed(store, NO_AUGMENT))).image_B3SS
    assert not torch.equal(gray, colored)
