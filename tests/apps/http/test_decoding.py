"""The processes that decode clients' images: what they answer, and what ends them."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server is an extra")

from picosam2.apps.http import decode_worker, decoding
from picosam2.apps.http.decoding import Decoders
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.turns import AbandonedError, Stop
from picosam2.errors import ImageError
from picosam2.images import load_image
from picosam2.io.sample_image import sample_bytes
from tests.helpers.hostile import HOSTILE


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    pool = Decoders(Limits(decode_seconds=20), 2)
    yield pool
    pool.close()


def test_the_pixels_are_those_of_load_image(decoders: Decoders) -> None:
    for data in (sample_bytes(), encoded((3, 5), "PNG"), encoded((1, 1), "WEBP")):
        image = decoders.decode(data, Stop())
        np.testing.assert_array_equal(image, load_image(data))
        assert image.flags.writeable


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(decoders: Decoders, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        decoders.decode(HOSTILE[name][0](), Stop())
    assert "\n" not in str(caught.value)
    assert decoders.decode(sample_bytes(), Stop()).shape == (480, 640, 3)


def test_a_decoder_that_is_late_is_ended_and_started_again() -> None:
    pool = Decoders(Limits(decode_seconds=0.01), 1)
    try:
        for _ in range(2):
            with pytest.raises(ImageError, match=r"more than 0\.01 seconds"):
                pool.decode(encoded((3000, 3000), "PNG"), Stop())
    finally:
        pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's priority is its process's")
def test_a_slow_or_large_image_gives_way_and_the_next_one_does_not(monkeypatch) -> None:
    niceness = []

    def load(data: bytes, **_: object) -> np.ndarray:
        time.sleep(data[-1] / 10)
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(decode_worker, "load_image", load)
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    small, large = encoded((1, 1), "PNG"), encoded((2001, 2000), "PNG")
    for data in (small + b"\0", small + b"\5", large + b"\1", b"\1", small + b"\0"):
        decode_worker.decode(data, 100, 5)
    low = min(usual + decode_worker.SLOW, 19)
    assert niceness == [usual, low, low, low, usual]


@pytest.mark.skipif(sys.platform != "linux", reason="reads a thread's priority")
def test_decoders_give_way_to_the_server(decoders: Decoders) -> None:
    decoders.decode(sample_bytes(), Stop())
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    (process,) = decoders._started
    niceness = os.getpriority(os.PRIO_PROCESS, process._process.pid)
    assert niceness == min(usual + decoding.NICE, 19)


def test_images_one_after_the_other_need_one_process() -> None:
    pool = Decoders(Limits(), 5)
    try:
        for _ in range(6):
            pool.decode(sample_bytes(), Stop())
        assert len(pool._started) == 1
    finally:
        pool.close()


def test_a_client_that_is_gone_ends_its_decoder(decoders: Decoders) -> None:
    stop = Stop()
    decoders.decode(sample_bytes(), Stop())
    data = encoded((3000, 3000), "PNG", noise=True)
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    with pytest.raises((AbandonedError, ImageError)):
        decoders.decode(data, stop)
    assert time.monotonic() - started < 15
    assert decoders.decode(sample_bytes(), Stop()).shape == (480, 640, 3)
    with pytest.raises(AbandonedError):
        decoders.decode(sample_bytes(), stop)


def test_a_decoder_that_dies_is_replaced(decoders: Decoders) -> None:
    decoders.decode(sample_bytes(), Stop())
    for process in list(decoders._started):
        process._process.kill()
        process._process.wait()
    assert decoders.decode(sample_bytes(), Stop()).shape == (480, 640, 3)


def test_memory_has_a_bound() -> None:
    pool = Decoders(Limits(pixels=25_000_000, decode_seconds=60), 1)
    try:
        assert pool.decode(encoded((5000, 5000), "PNG", mode="RGBA"), Stop()).shape[0] == 5000
    finally:
        pool.close()


def encoded(size: tuple[int, int], kind: str, *, noise: bool = False, mode: str = "RGB") -> bytes:
    image = Image.new(mode, size[::-1], (10, 20, 30) if mode == "RGB" else (1, 2, 3, 100))
    if noise:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {"lossless": True}))
    return buffer.getvalue()
