"""Images a second of Ray Data, Spark and Daft, and of `picosam2 segment` on the same cores.

    pip install . 'ray[data]' pyspark daft pyarrow pandas
    python benchmarks/engines.py

Every way segments the same images (the bundled sample in several sizes, as JPEG files) with the
same boxes. Each is its own program, run on a few images and on many: the rate is the difference in
images over the difference in time, so that no start of Java or of a cluster counts. The memory is
the largest of a process in which the network is open, with everything in it (VmHWM of Linux). The
processor's time is that of these workers and that of all else that a way runs (its scheduler, what
reads and writes), by the same difference: where both together fill all cores, more workers cannot
be faster.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet
from common import parser, report, taken
from PIL import Image

from picosam2 import sample
from picosam2.cli._exit_codes import run_script
from picosam2.io.sample_image import sample_objects

ENGINES = Path(__file__).resolve().parents[1] / "integrations" / "engines"
MARK = "PICOSAM2_BENCHMARK"
"""An environment variable that every process of a way inherits."""

LIMIT = 1.6


@dataclass(frozen=True)
class Inputs:
    """The same images twice, in a folder with a file of prompts and in a Parquet file."""

    count: int
    folder: Path
    prompts: Path
    parquet: Path


def make(root: Path, count: int) -> Inputs:
    """Write `count` images with the boxes of the sample's objects."""
    folder = root / f"images-{count}"
    folder.mkdir()
    rows, prompts = [], []
    for number in range(count):
        scale = (1, 1.5, 2)[number % 3]
        stream = io.BytesIO()
        image = Image.fromarray(sample())
        image.resize((int(640 * scale), int(480 * scale))).save(stream, "jpeg", quality=90)
        name = f"{number:05}.jpg"
        (folder / name).write_bytes(stream.getvalue())
        boxes = [
            [scale * edge for edge in (each.box.x0, each.box.y0, each.box.x1, each.box.y1)]
            for each in sample_objects()
        ]
        rows.append({"key": name, "image": stream.getvalue(), "boxes": boxes})
        prompts += [{"image": name, "box": box} for box in boxes]
    made = Inputs(count, folder, root / f"prompts-{count}.json", root / f"in-{count}.parquet")
    made.prompts.write_text(json.dumps(prompts))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), made.parquet)
    return made


@dataclass
class Usage:
    """What a program took, by all of its processes."""

    seconds: float = 0.0
    peak: float = 0.0
    """Megabytes of its largest process with a network."""
    workers: float = 0.0
    """The processor's seconds of the processes with a network."""
    others: float = 0.0
    """Those of all its other processes."""


def run(way: str, workers: int, inputs: Inputs, out: Path) -> Usage:
    """Run a program to its end."""
    mark = f"{os.getpid()}-{out.name}"
    environment = {
        **os.environ,
        MARK: mark,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"--master local[{workers}] pyspark-shell",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DAFT_ANALYTICS_ENABLED": "0",
    }
    if way == "segment":
        words = ["-m", "picosam2", "segment", inputs.folder, "--prompts", inputs.prompts]
        words += ["--format", "coco", "--out", out, "--threads", workers]
    else:
        words = [ENGINES / f"on_{way}.py", "--input", inputs.parquet, "--out", out]
        words += ["--workers", workers]
    with TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], env=environment, stdout=log, stderr=log
        )
        seen: dict[str, tuple[bool, float, float]] = {}
        while process.poll() is None:
            seen.update(processes(mark))
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        usage = Usage(time.perf_counter() - started)
        for network, peak, seconds in seen.values():
            if network:
                usage.peak = max(usage.peak, peak)
                usage.workers += seconds
            else:
                usage.others += seconds
        if process.returncode:
            log.seek(0)
            sys.exit(f"{way} ended with {process.returncode}:\n{log.read()[-3000:]}")
    check(way, inputs, out)
    return usage


def processes(mark: str) -> dict[str, tuple[bool, float, float]]:
    """The processes of a way, by their numbers.

    Returns:
        For each whether ONNX Runtime is in it, the most megabytes it has had, and the seconds of
        the processor that it has taken.
    """
    states: dict[str, tuple[bool, float, float]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() not in (process / "environ").read_bytes():
                continue
            network = "onnxruntime" in (process / "maps").read_text()
            status = (process / "status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
            ticks = (process / "stat").read_text().rpartition(") ")[2].split()[11:13]
            seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError):
            continue  # it has ended
        states[process.name] = network, peak, seconds
    return states


def check(way: str, inputs: Inputs, out: Path) -> None:
    """Stop where a way has left something out."""
    boxes = len(sample_objects()) * inputs.count
    if way == "segment":
        made = len(json.loads(out.read_text())["annotations"])
    else:
        rows = [
            row
            for file in out.glob("*.parquet")
            for row in pyarrow.parquet.read_table(file).to_pylist()
        ]
        made = sum(len(row["rle"]) for row in rows)
        assert {row["error"] for row in rows} == {None}
    assert made == boxes, f"{way} made {made} masks of {boxes}"


def main() -> None:
    """Run every way on few and on many images."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=400)
    arguments.add_argument("--few", type=int, default=80, help="images of the run to compare with")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--ways", nargs="+", default=["segment", "ray", "daft", "spark"])
    options = arguments.parse_args()
    rates: dict[tuple[str, int], list[float]] = {}
    numbers: dict[str, float] = {}
    peaks: dict[str, float] = {}
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with TemporaryDirectory() as name:
        root = Path(name)
        few, many = make(root, options.few), make(root, options.images)
        for turn in range(options.rounds):
            for way in options.ways:
                for workers in options.workers:
                    ending = ".json" if way == "segment" else ""
                    short, long = (
                        run(
                            way,
                            workers,
                            inputs,
                            root / f"{way}-{workers}-{turn}-{inputs.count}{ending}",
                        )
                        for inputs in (few, many)
                    )
                    if workers == 1:
                        peaks[way] = max(peaks.get(way, 0.0), short.peak, long.peak)
                    images = many.count - few.count
                    rate = images / (long.seconds - short.seconds)
                    rates.setdefault((way, workers), []).append(rate)
                    times.setdefault((way, workers), []).append(
                        (
                            (long.workers - short.workers) / images,
                            (long.others - short.others) / images,
                        )
                    )
                    print(
                        f"{way}, {workers}: {short.seconds:.1f} and {long.seconds:.1f} s",
                        flush=True,
                    )
    for (way, workers), each in rates.items():
        kind = "threads" if way == "segment" else "workers"
        numbers[f"{way}, {workers} {kind}, images/s"] = statistics.median(each)
        inside, beside = map(statistics.median, zip(*times[way, workers], strict=True))
        numbers[f"{way}, {workers} {kind}, processor ms an image in them"] = 1000 * inside
        numbers[f"{way}, {workers} {kind}, processor ms an image beside"] = 1000 * beside
    for way, peak in peaks.items():
        numbers[f"{way}, 1 worker, MB"] = peak
    limits = {}
    for way in options.ways:
        pair = rates.get((way, 2)), rates.get((way, 1))
        if pair[0] and pair[1]:
            ratio = statistics.median(pair[0]) / statistics.median(pair[1])
            numbers[f"{way}, two / one"] = ratio
            if way == "ray":
                limits[f"{way}, two / one"] = (">=", LIMIT)
    report(numbers, limits, taken(("ray", "pyspark", "daft", "onnxruntime")), options.json)


if __name__ == "__main__":
    run_script(main)
