"""Sessions: one for each thread at work, kept for the next, and given back after an error."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from picosam2.errors import WeightsError
from picosam2.runtimes.protocol import RuntimeInfo
from picosam2.runtimes.session_pool import Session, SessionPoolRuntime

INFO = RuntimeInfo(name="fake", input_size=16, channels=1, weights_sha256="")
CROPS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)


def red(crop: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
    assert crop.shape == (1, 16, 16, 3)
    return crop[:, :, :, 0].astype(np.float32)


def test_crops_go_one_by_one_and_in_order() -> None:
    runtime = SessionPoolRuntime(INFO, lambda: red)
    np.testing.assert_array_equal(runtime(CROPS), CROPS[:, None, :, :, 0])
    assert runtime.info is INFO


def test_a_thread_alone_has_one_session() -> None:
    started = []
    runtime = SessionPoolRuntime(INFO, lambda: started.append(1) or red)
    for _ in range(5):
        runtime(CROPS)
    assert len(started) == 1


def test_no_two_threads_share_a_session() -> None:
    meet = threading.Barrier(3, timeout=30)
    started: list[Session] = []

    def start() -> Session:
        busy = threading.Lock()

        def run(crop: np.ndarray, guidance: np.ndarray | None) -> np.ndarray:
            assert busy.acquire(blocking=False), "two threads are in one session"
            meet.wait()  # all three are within theirs at once
            busy.release()
            return red(crop)

        started.append(run)
        return run

    runtime = SessionPoolRuntime(INFO, start)
    collected: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: collected.update({n: runtime(CROPS[n : n + 2])}))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 3
    for number, logits in collected.items():
        np.testing.assert_array_equal(logits, CROPS[number : number + 2, None, :, :, 0])
    assert sorted(collected) == [0, 1, 2]


def test_a_session_is_given_back_after_an_error() -> None:
    started = []

    def fails(crop: np.ndarray, guidance: np.ndarray | None) -> np.ndarray:
        raise RuntimeError("no memory")

    runtime = SessionPoolRuntime(INFO, lambda: started.append(1) or fails)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no memory"):
            runtime(CROPS)
    assert len(started) == 1


def test_what_is_wrong_with_the_file_shows_at_once() -> None:
    def start() -> Session:
        raise WeightsError("no")

    with pytest.raises(WeightsError):
        SessionPoolRuntime(INFO, start)
