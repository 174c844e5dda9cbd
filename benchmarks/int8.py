"""INT8 weights against the FP32 ones they were made from: latency on one thread, size, error.

    python benchmarks/int8.py --weights default-int8 --against default

Two files take turns through the same runtime, on one crop of the sample image and on the windows
of one click in a batch. What counts is processor time, so that a busy machine gives the ratio of an
idle one; with several threads it is the sum of theirs. The ratio wants a processor with integer dot
products (VNNI, AMX or the like), which the first line names. `--profile` also prints where the time
goes, by operator, as onnxruntime's profiler sees it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import parser, ratio, report, take_turns, taken

from picosam2 import Predictor, geometry, sample
from picosam2.cli._exit_codes import run_script
from picosam2.images import normalize
from picosam2.io.sample_image import sample_objects
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.ort import import_onnxruntime
from picosam2.runtimes.weights import find_weights

FEATURES = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""What makes 8-bit products fast, as /proc/cpuinfo calls it."""


def main() -> None:
    """Take turns, print medians and ratios."""
    command = parser(__doc__)
    command.add_argument("--weights", default="default-int8", help="a shipped name or a file")
    command.add_argument("--against", default="default", help="the FP32 weights")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--rounds", type=int, default=60)
    command.add_argument("--repeat", type=int, default=5, help="runs in one turn")
    command.add_argument("--profile", action="store_true", help="print the time by operator")
    options = command.parse_args()
    paths = {"int8": find_weights(options.weights), "fp32": find_weights(options.against)}
    runtimes = {name: OnnxRuntime(path, threads=options.threads) for name, path in paths.items()}
    crop, ladder = crops(runtimes["fp32"])
    print(f"threads: {options.threads}; processor has {', '.join(features()) or 'none of these'}")
    if options.profile:
        for name, path in paths.items():
            print(profile(name, path, crop, options.threads))

    def turn(name: str, pixels: npt.NDArray[np.uint8]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(options.repeat):
                runtimes[name](pixels)

        return run

    seconds = take_turns(
        {
            f"{name} {kind}": turn(name, pixels)
            for kind, pixels in (("one crop", crop), ("a click", ladder))
            for name in paths
        },
        options.rounds,
        clock=time.process_time,
    )
    numbers = {
        f"{name} [ms]": 1000 * statistics.median(values) / options.repeat
        for name, values in seconds.items()
    }
    for kind in ("one crop", "a click"):
        numbers[f"int8 / fp32, {kind}"] = ratio(seconds[f"int8 {kind}"], seconds[f"fp32 {kind}"])
    numbers["int8 file [MB]"] = paths["int8"].stat().st_size / 1e6
    numbers["fp32 file [MB]"] = paths["fp32"].stat().st_size / 1e6
    pixels = np.concatenate([crop, ladder])
    difference = runtimes["int8"](pixels) - runtimes["fp32"](pixels)
    numbers["error of the logits (root mean square)"] = float(np.sqrt(np.mean(difference**2)))
    limits = {"int8 / fp32, one crop": ("<=", 0.75), "int8 file [MB]": ("<=", 1.4)}
    report(numbers, limits, taken(("onnxruntime", "numpy")), options.json)


def crops(runtime: OnnxRuntime) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The box window of the sample's first object, and all windows of a click on it."""
    predictor, image, sample_object = Predictor(runtime), sample(), sample_objects()[0]
    height, width = image.shape[:2]
    windows = [
        predictor.box_window(sample_object.box),
        *predictor.click_windows(sample_object.point, height, width),
    ]
    pixels = np.stack([geometry.crop(image, window, runtime.info.input_size) for window in windows])
    return pixels[:1], pixels[1:]


def features() -> list[str]:
    """Which of `FEATURES` this processor has, where the system tells."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    return [name for name in FEATURES if name in words]


def profile(name: str, path: Path, pixels: npt.NDArray[np.uint8], threads: int) -> str:
    """Microseconds of each operator and of the slowest nodes, medians of 20 runs."""
    with tempfile.TemporaryDirectory() as folder:
        onnxruntime = import_onnxruntime()
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
        image, *guidance = (entry.name for entry in session.get_inputs())
        feeds = {image: normalize(pixels)}
        feeds |= {name: np.zeros_like(feeds[image]) for name in guidance}
        for _ in range(23):
            session.run(["logits"], feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault(event["name"], []).append(event["dur"])
            kinds[event["name"]] = event["args"]["op_name"]
    medians = {node: statistics.median(values[3:]) for node, values in times.items()}
    by_kind: Counter[str] = Counter()
    for node, number in medians.items():
        by_kind[kinds[node]] += int(number)
    lines = [f"{name}: {sum(by_kind.values()):,} us in operators"]
    lines += [f"  {number:6,} us  {kind}" for kind, number in by_kind.most_common()]
    slowest = sorted(medians.items(), key=lambda item: -item[1])[:10]
    lines += [f"  {int(number):6,} us  node {node}" for node, number in slowest]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
