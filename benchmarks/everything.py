"""Everything mode by the finder against the grid of clicks: time and memory of whole images.

    python benchmarks/everything.py --images val2017

The two methods take turns on the same images, all included: reading the file, finding, masks. What
counts is processor time on one thread, so that a busy machine gives the ratio of an idle one; the
seconds on the clock are printed, too. `--memory` measures, in processes of their own, the peak of
resident memory (VmHWM of Linux) on the bundled sample enlarged to 24 megapixels.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from common import parser, ratio, report, take_turns, taken
from PIL import Image

from picosam2 import Predictor, sample
from picosam2.cli._exit_codes import run_script
from picosam2.runtimes.finder import opened_finder
from picosam2.tasks.everything import METHODS, Everything, everything

SECONDS, MEGABYTES = 0.6, 700.0
LARGE = (6000, 4000)

PEAK = """
import json, sys
from picosam2 import Predictor
from picosam2.tasks.everything import Everything, everything
inputs = json.loads(sys.stdin.read())
results = everything(
    inputs["image"], Predictor(inputs["weights"], threads=1),
    Everything(method=inputs["method"], finder=inputs["finder"]),
)
status = open("/proc/self/status").read()
print("PEAK", len(results), int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
"""


def main() -> None:
    """Take turns, print medians, ratio and peaks."""
    command = parser(__doc__)
    command.add_argument("--images", type=Path, metavar="DIR", help="by default the bundled sample")
    command.add_argument("--count", type=int, default=8, help="so many of the images")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--weights", default="default-int8", help="a shipped name or a file")
    command.add_argument("--finder", default="finder", help="the shipped name or a file")
    command.add_argument("--memory", action="store_true", help="measure memory, too")
    options = command.parse_args()
    predictor = Predictor(options.weights, threads=1)
    finder = opened_finder(options.finder, 1)
    with TemporaryDirectory() as folder:
        bundled = Path(folder) / "sample.jpg"
        Image.fromarray(sample()).save(bundled, quality=90)
        images = sorted(options.images.glob("*.jpg"))[: options.count] if options.images else []
        images = images or [bundled]

        def turn(method: str) -> Callable[[], None]:
            settings = Everything(method=method)

            def run() -> None:
                for image in images:
                    everything(image, predictor, settings, finder=finder)

            return run

        started = time.perf_counter()
        for image in images:
            everything(image, predictor, Everything(method="finder"), finder=finder)
        clock = (time.perf_counter() - started) / len(images)
        seconds = take_turns(
            {method: turn(method) for method in METHODS}, options.rounds, clock=time.process_time
        )
        numbers = {
            f"{method}, an image [s of one core]": statistics.median(values) / len(images)
            for method, values in seconds.items()
        }
        numbers["finder, an image [s on the clock, first round]"] = clock
        numbers["grid / finder"] = ratio(seconds["grid"], seconds["finder"])
        limits = {"finder, an image [s of one core]": ("<=", SECONDS)}
        if options.memory:
            large = Path(folder) / "large.jpg"
            Image.fromarray(sample()).resize(LARGE).save(large, quality=90)
            for method in METHODS:
                name = f"{method}, peak at 24 megapixels [MB]"
                numbers[name] = _peak(large, method, options.weights, options.finder)
            limits["finder, peak at 24 megapixels [MB]"] = ("<=", MEGABYTES)
    print(f"{len(images)} images, {options.rounds} rounds")
    report(numbers, limits, taken(("onnxruntime",)), options.json)


def _peak(image: Path, method: str, weights: str, finder: str) -> float:
    """The peak of a process that finds everything in an image, in MB."""
    inputs = {"image": str(image), "method": method, "weights": weights, "finder": finder}
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        input=json.dumps(inputs), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    _, _, peak = done.stdout.split("PEAK")[1].partition(" ")[2].partition(" ")
    return float(peak)


if __name__ == "__main__":
    run_script(main)
