"""Runtimes and predictors in other processes: pickled, copied, spawned and forked."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picosam2 import Predictor, sample
from picosam2.errors import WeightsError
from picosam2.runtimes import reopen
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.reopen import PerProcess
from picosam2.runtimes.weights import find_weights

CLICK = [(353, 349)]


def rle(predictor: Predictor) -> dict[str, Any]:
    return predictor(sample(), points=CLICK)[0].rle()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "flip"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return Predictor("default-int8", threads=2, flip=request.param)


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickled])
def test_a_copied_predictor_gives_the_same_masks(
    copied: Callable[[Any], Any], predictor: Predictor
) -> None:
    assert rle(copied(predictor)) == rle(predictor)


def test_a_pickle_holds_no_network(predictor: Predictor) -> None:
    assert len(pickle.dumps(predictor)) < find_weights("default-int8").stat().st_size / 20


def test_a_copy_has_as_many_threads() -> None:
    assert copy.deepcopy(Predictor(threads=1)).runtime._threads == 1


def test_a_copy_keeps_the_image_that_was_set(predictor: Predictor) -> None:
    mine = copy.copy(predictor)
    mine.set_image(sample())
    masks, _, _ = pickled(mine).predict(point_coords=CLICK, point_labels=[1])
    np.testing.assert_array_equal(masks, mine.predict(point_coords=CLICK, point_labels=[1])[0])


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_another_process_gives_the_same_masks(method: str, predictor: Predictor) -> None:
    expected = rle(predictor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map_async(rle, [predictor]).get(120) == [expected]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_may_use_the_parents_predictor(predictor: Predictor) -> None:
    """Without a pickle between: the network's threads stay in the parent."""
    expected = rle(predictor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if rle(predictor) == expected else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked process hangs")
        time.sleep(0.02)
    assert ended == (child, 0)
    assert rle(predictor) == expected


def test_what_is_open_is_opened_anew_in_each_process_and_the_old_one_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[object] = []

    def start() -> object:
        opened.append(object())
        return opened[-1]

    mine = PerProcess(start)
    assert mine() is mine() is opened[0]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert mine() is mine() is opened[1]
    assert mine._inherited == opened[:1]


def test_weights_that_another_machine_lacks(tmp_path: Path) -> None:
    path = shutil.copy(find_weights("default-int8"), tmp_path / "mine.onnx")
    data = pickle.dumps(OnnxRuntime(path))
    path.unlink()
    with pytest.raises(WeightsError, match="put the file at the same place on every machine"):
        pickle.loads(data)


def test_weights_that_have_changed(tmp_path: Path) -> None:
    path = shutil.copy(find_weights("default-int8"), tmp_path / "mine.onnx")
    data = pickle.dumps(OnnxRuntime(path))
    shutil.copy(find_weights("paper"), path)
    with pytest.raises(WeightsError, match="other weights than those that were opened before"):
        pickle.loads(data)


def test_a_relative_path_holds_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(find_weights("default-int8"), tmp_path / "mine.onnx")
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(OnnxRuntime("mine.onnx"))
    monkeypatch.chdir("/")
    assert pickle.loads(data).info.name == "onnx"


def test_shipped_weights_are_found_where_the_other_process_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(Predictor("default-int8"))
    assert str(find_weights("default-int8").parent).encode() not in data
    moved = tmp_path / "weights"
    moved.mkdir()
    shutil.copy(find_weights("default-int8"), moved)
    monkeypatch.setattr(reopen, "_shipped_folder", lambda: moved)
    assert pickle.loads(data).runtime._path.parent == moved
