"""Kills commands at random moments, runs them again, and compares with a run that was left alone.

Slow, and longer on demand: see README.md beside this file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="trains with torch")
pytest.importorskip("onnx", reason="exports with onnx")

from helpers.dense_tiny import write_images, write_source
from helpers.tiny import write_coco

from picosam2.data.store import SourceFiles

if not sys.platform.startswith("linux"):
    pytest.skip("reads /proc", allow_module_level=True)

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("PICOSAM2_KILLS", "12"))
SEED = int(os.environ.get("PICOSAM2_KILLS_SEED", "0"))
HELPERS = Path(__file__).parents[1] / "helpers"
PICOSAM2 = ("-m", "picosam2")
TRAINING = (
    "--recipe", "debug", "--device", "cpu", "--set", "train.samples=96", "--set", "train.batch=8",
    "--set", "train.validate_every=6", "--set", "train.log_every=2", "--set",
    "train.validation_photos=2", "--set", "train.save_every=2", "--set", "model.widths=[4, 8]",
    "--set", "model.input_size=32",
)  # fmt: skip
NOT_COMPARED = {
    "train": (
        "metrics.jsonl",
        "*.png",
        "summary.json",
    ),  # they hold seconds, and are drawn from them
}


@dataclass(frozen=True)
class Inputs:
    """What the commands work on."""

    annotations: Path
    images: Path
    store: Path
    patches: SourceFiles
    """Images for dense teaching, with some annotations."""
    loose: Path
    """... and without any."""
    safetensors: Path
    onnx: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_safetensors, tiny_onnx) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    source = write_coco(folder, 160)
    store = folder / "store"
    words = ["data", "prepare", "--source", "shapes", source.annotations, source.images]
    words += ["--context", "64", "--validation", "0.3", "--workers", "1", "--out", store]
    subprocess.run([sys.executable, *PICOSAM2, *map(str, words)], check=True, capture_output=True)
    patches = write_source(folder, 60)
    loose = write_images(folder / "loose", 40, start=60)
    return Inputs(
        source.annotations, source.images, store, patches, loose, tiny_safetensors, tiny_onnx
    )


def prepare(inputs: Inputs, out: Path) -> list[object]:
    source = ["--source", "shapes", inputs.annotations, inputs.images]
    options = ["--context", 64, "--validation", 0.3, "--workers", 2]
    return [*PICOSAM2, "data", "prepare", *source, *options, "--out", out / "store"]


def train(inputs: Inputs, out: Path) -> list[object]:
    words = [*PICOSAM2, "train", *TRAINING, "--store", inputs.store, "--out", out / "run"]
    return [*words, "--resume"] if (out / "run").exists() else words


def teach(inputs: Inputs, out: Path) -> list[object]:
    words = [inputs.store, inputs.annotations, inputs.images, out / "cache"]
    return [HELPERS / "teach_tiny.py", *words]


def teach_dense(inputs: Inputs, out: Path) -> list[object]:
    words = [inputs.patches.annotations, inputs.patches.images, inputs.loose, out / "dense"]
    return [HELPERS / "dense_tiny.py", *words]


def segment(inputs: Inputs, out: Path) -> list[object]:
    options = ["--weights", inputs.onnx, "--box", "20,20,70,60", "--format", "coco"]
    return [*PICOSAM2, "segment", inputs.images, *options, "--out", out / "masks"]


def quantize(inputs: Inputs, out: Path) -> list[object]:
    options = ["--samples", 64, "--validation-images", 4, "--threads", 1]
    words = ["quantize", "--weights", inputs.onnx, "--store", inputs.store, *options]
    return [*PICOSAM2, *words, "--out", out / "int8.onnx"]


def export(inputs: Inputs, out: Path) -> list[object]:
    words = ["export", "onnx", "--weights", inputs.safetensors]
    return [*PICOSAM2, *words, "--out", out / "network.onnx"]


COMMANDS: dict[str, Callable[[Inputs, Path], list[object]]] = {
    each.__name__: each for each in (prepare, train, teach, teach_dense, segment, quantize, export)
}


class Run:
    """A command in a session of its own, whose temporary files go into `out`.tmp."""

    def __init__(self, words: list[object], out: Path) -> None:
        temporary = out.with_suffix(".tmp")
        temporary.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def finish(self) -> str:
        """Wait for its end, which must be a good one; what it wrote on stderr."""
        _, messages = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, messages
        return messages

    def kill(self) -> bool:
        """Kill it; whether it was still running."""
        running = self.process.poll() is None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        return running

    def left(self) -> list[int]:
        """The processes of its session that still run."""
        collected = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _parent, _group, session = stat.read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has just ended
                continue
            if int(session) == self.process.pid and state != "Z":
                collected.append(int(stat.parent.name))
        return collected


def files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def moments(count: int, seconds: tuple[float, float], seed: int) -> Iterator[tuple[bool, float]]:
    """When to kill: half from the start on, half from the first file on; and seconds after that."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        from_file = number % 2 == 1
        yield from_file, rng.uniform(0, seconds[1] if from_file else seconds[0])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_run_is_taken_up_as_if_nothing_had_been(
    name: str, inputs: Inputs, tmp_path: Path
) -> None:
    command = COMMANDS[name]
    alone = tmp_path / "alone"
    alone.mkdir()
    started = time.monotonic()
    run = Run(command(inputs, alone), alone)
    while not any(alone.rglob("*")) and run.process.poll() is None:
        time.sleep(0.002)
    first = time.monotonic()
    run.finish()
    ended = time.monotonic()
    expected = files(alone)
    assert expected
    left_alone = files(alone.with_suffix(".tmp"))

    kills = 0
    share = -(-KILLS // len(COMMANDS))
    seed = SEED * len(COMMANDS) + list(COMMANDS).index(name)
    for number, (from_file, seconds) in enumerate(
        moments(10 * share, (ended - started, ended - first), seed)
    ):
        if kills == share:
            break
        out = tmp_path / f"killed-{number}"
        out.mkdir()
        run = Run(command(inputs, out), out)
        while from_file and not any(out.rglob("*")) and run.process.poll() is None:
            time.sleep(0.002)
        time.sleep(seconds)
        kills += run.kill()
        deadline = time.monotonic() + 10
        while (left := run.left()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == [], f"kill {number} leaves workers"
        Run(command(inputs, out), out).finish()
        actual = files(out)
        assert sorted(actual) == sorted(expected), f"kill {number}, after {seconds:.2f} s"
        skipped = NOT_COMPARED.get(name, ())
        different = [
            path for path, digest in actual.items()
            if digest != expected[path] and not any(Path(path).match(form) for form in skipped)
        ]  # fmt: skip
        assert different == [], f"kill {number}, after {seconds:.2f} s"
        assert sorted(files(out.with_suffix(".tmp"))) == sorted(left_alone), f"kill {number}"
        shutil.rmtree(out)
    assert kills == share
    print(f"{name}: {kills} kills")
