"""`picosam2 camera` without a camera: simulated, recorded, refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHORT = ["--no-page", "--frames", "12"]


@pytest.fixture
def image(tmp_path) -> Path:
    pixels = np.full((150, 220, 3), (90, 140, 90), np.uint8)
    pixels[50:100, 80:140] = 200, 30, 30
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_is_looked_at(cli, image, tiny_onnx):
    words = ["--simulate", image, "--box", "200,150,400,350", "--weights", tiny_onnx]
    done = cli("camera", *words, *SHORT)
    assert done.code == 0, done.err
    assert re.match(r"12 frames, \d+ answers; found in \d+, lost in \d+; network ", done.out)
    assert "on this computer, simulated" in done.out


def test_what_is_shown_is_recorded(cli, image, tiny_onnx, tmp_path):
    pytest.importorskip("av", reason="video files need PyAV")
    from picosam2.io.video_files import open_frames

    out = tmp_path / "out.mp4"
    words = ["--simulate", image, "--point", "300,200", "--scale", "3", "--weights", tiny_onnx]
    done = cli("camera", *words, *SHORT, "--size", "320x240", "--rate", "25", "--record", out)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: 12 frames")
    with open_frames(out) as source:
        frames = list(source)
    assert len(frames) == 12
    assert frames[0].pixels.shape == (240, 320, 3)
    assert frames[-1].time == pytest.approx(11 / 25, abs=0.01)
    # A clip can be looked at as well, and begins again when it ends.
    again = cli("camera", "--simulate", out, "--weights", tiny_onnx, "--no-page", "--frames", "30")
    assert again.out.startswith("30 frames")


def test_a_box_that_reaches_past_the_frame_is_cut_and_told_once(cli, image, tiny_onnx):
    words = ["--simulate", image, "--box", "200,150,900,350", "--weights", tiny_onnx]
    done = cli("camera", *words, *SHORT)
    assert done.code == 0, done.err
    assert done.err.count("reaches past the image") == 1


def test_a_click_that_finds_nothing_is_told(cli, image, tiny_onnx):
    words = ["--simulate", image, "--point", "2,2", "--weights", tiny_onnx]
    done = cli("camera", *words, *SHORT)
    assert "too near the edge" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the network for the sensor"),
        (["net.rpk", "--simulate", "sample"], "name the network for the sensor"),
        (["net.rpk", "--no-page", "--frames", "3"], "python3-picamera2 imx500-all"),
        (["net.rpk", "--point", "900,5", *SHORT], "outside the image"),
        (["--simulate", "sample", "--no-page"], "--no-page has nothing to show"),
        (["--simulate", "sample", "--host", "0.0.0.0", *SHORT], "are for the page"),
        (["--simulate", "none.jpg", *SHORT], "none.jpg"),
        (["--simulate", "none.mp4", *SHORT], "none.mp4 is no video file"),
        (["--simulate", "sample", "--point", "5", *SHORT], "is not a point"),
        (["--simulate", "sample", "--point", "900,5", *SHORT], "outside the image"),
        (["--simulate", "sample", "--box", "700,5,800,90", *SHORT], "outside the image"),
        (["--simulate", "sample", "--scale", "7", "--point", "9,9", *SHORT], "from 1 to 6"),
        (["--simulate", "sample", "--point", "9,9", "--box", "1,1,9,9", *SHORT], "not with both"),
        (["--simulate", "sample", "--size", "big", *SHORT], "is no size"),
        (["--simulate", "sample", "--size", "9000x9000", *SHORT], "gives no frames of 9000x9000"),
        (["--simulate", "sample", "--record", "out.avi", *SHORT], "end it in .mp4"),
        (["--simulate", "sample", "--weights", "none", *SHORT], "no weights named none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input(refused, words, message, tiny_onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    if "--simulate" in words and "--weights" not in words:
        words = [*words, "--weights", tiny_onnx]
    assert message in refused("camera", *words)


def test_an_address_that_is_not_this_machine_s(refused, tiny_onnx):
    pytest.importorskip("uvicorn", reason="the page is an extra")
    words = ["--simulate", "sample", "--host", "192.0.2.1", "--weights", tiny_onnx]
    assert "cannot be listened on" in refused("camera", *words)


def test_nothing_is_left_of_a_recording_that_failed(refused, tiny_onnx, tmp_path):
    pytest.importorskip("av", reason="video files need PyAV")
    out = tmp_path / "out.mp4"
    words = ["--simulate", "sample", "--size", "16x16", "--record", out, "--weights", tiny_onnx]
    refused("camera", *words, *SHORT)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".mp4"]


def test_the_page_is_served_until_ctrl_c(image, tmp_path):
    pytest.importorskip("uvicorn", reason="the page is an extra")
    pytest.importorskip("av", reason="video files need PyAV")
    out = tmp_path / "out.mp4"
    # The shipped weights: random ones would say, now and then, that they found nothing in the box.
    words = ["camera", "--simulate", image, "--port", "0", "--record", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "picosam2", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # Shells let background jobs ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        request = urllib.request.Request(
            f"{address}/do",
            b'{"box": [200, 150, 400, 350]}',
            {"content-type": "application/json"},
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{address}/state", timeout=10) as answer:
                if b'"state":"idle"' in answer.read():
                    break
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{address}/stream", timeout=10) as stream:
            assert b"image/jpeg" in stream.read(200)
        process.send_signal(signal.SIGINT)
        output, problems = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, problems
    assert problems == ""
    assert f"{out}: " in output
    assert out.is_file()
