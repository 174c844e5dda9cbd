"""What a click, a box, a correction and a folder cost beside the bare network: all ratios at once.

    python benchmarks/latency.py
    python benchmarks/latency.py --clock process --rounds 15   # on a machine that does other work
    python benchmarks/latency.py --profile click.txt           # where a click's time goes
    python benchmarks/latency.py --only-clicks                 # for a sampling profiler

Ways take turns on one thread, on the sample image (640x480) and its eight objects:
- the bare onnxruntime session on one crop that is normalized already,
- the runtime on one crop of 8-bit pixels ("network" below), and on six crops, together and alone,
- a box prompt: crop, network, score, paste, as `picosam2 segment` does,
- a click: the windows that the scorer wants, and the second pass,
- a correction: a given mask and one click that contradicts it.

Then a folder run of one worker, whose images are read, prompted with two boxes and written as mask
files, beside the sum of reading them, of the network on as many crops, and of writing the files;
the largest memory of a process that answers one click on an image of 24 megapixels; a correction on
it; and an overlay of 48 megapixels. A "ratio" is the median over the rounds.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import parser, ratio, report, take_turns, taken
from memory import API, measured
from PIL import Image

from picosam2 import Predictor, geometry, load_image, overlay, sample
from picosam2.cli._exit_codes import run_script
from picosam2.images import normalize
from picosam2.io.encode import encode
from picosam2.io.sample_image import sample_objects
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import encode_image
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.ort import import_onnxruntime
from picosam2.runtimes.weights import find_weights
from picosam2.tasks.bulk.prompts import PromptSource
from picosam2.tasks.bulk.run import segment_many

BOX = Box(310, 303, 396, 394)  # the mug of the sample image
LARGE, LARGER = (6000, 4000), (8000, 6000)
FOLDER_BOXES = (BOX, Box(120, 180, 180, 260))
LIMITS = {
    "click / (7 x network)": 1.25,
    "click / box prompt": 5.0,
    "box prompt / network": 1.25,
    "correction / box prompt": 1.3,
    "folder run / (decode + network + encode)": 1.15,
    "one click on 24 megapixels, largest memory [MB]": 450.0,
    "overlay of 48 megapixels [s]": 2.0,
}


class Counted:
    """A runtime that counts the crops it is given."""

    def __init__(self, runtime: OnnxRuntime) -> None:
        self._runtime, self.info, self.crops = runtime, runtime.info, 0

    def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
        self.crops += len(crops)
        return self._runtime(crops, guidance)


def repeated(times: int, once: Callable[[], object]) -> Callable[[], None]:
    """Does something so many times."""

    def turn() -> None:
        for _ in range(times):
            once()

    return turn


def folder_ratio(
    runtime: OnnxRuntime, weights: str, images: int, rounds: int, clock: Callable[[], float]
) -> float:
    """A folder run / (decode + network + encode), of as many images."""
    predictor = Predictor(runtime)
    boxes = list(FOLDER_BOXES)
    crops = np.stack(
        [
            geometry.crop(sample(), predictor.box_window(box), runtime.info.input_size)
            for box in boxes
        ]
    )
    masks = predictor(sample(), boxes=boxes)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        paths = [root / "images" / f"{number}.jpg" for number in range(images)]
        for path in paths:
            Image.fromarray(sample()).save(path, quality=90)
        source = PromptSource.same([Prompt(box=box) for box in boxes])
        runs = 0

        def parts() -> None:
            nonlocal runs
            runs += 1
            for number, path in enumerate(paths):
                load_image(path)
                runtime(crops)
                for place, mask in enumerate(masks):
                    data = encode("mask", path.name, sample_pixels, [mask])
                    (root / f"part-{runs}-{number}-{place}.png").write_bytes(data)

        def run() -> None:
            nonlocal runs
            runs += 1
            out = root / f"out-{runs}"
            done = segment_many(
                [root / "images"], source, out=out, format="mask", weights=weights, workers=1
            )
            assert done.masks == len(boxes) * images, done

        sample_pixels = sample()
        seconds = take_turns({"run": run, "parts": parts}, rounds, clock)
    return ratio(seconds["run"], seconds["parts"])


def large_numbers(predictor: Predictor, weights: str, threads: int) -> dict[str, float]:
    """What a click, a correction and an overlay of large images take."""
    numbers = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jpg"
        scale = LARGE[0] / sample().shape[1]
        large = Image.fromarray(sample()).resize(LARGE, Image.Resampling.BICUBIC)
        large.save(path, quality=92)
        x, y = BOX.center.x * scale, BOX.center.y * LARGE[1] / sample().shape[0]
        numbers["one click on 24 megapixels, largest memory [MB]"] = measured(
            API,
            images=[str(path)],
            points=[[x, y]],
            boxes=[],
            expected=1,
            weights=weights,
            threads=threads,
        )
        pixels = np.asarray(large)
    predictor.set_image(pixels)
    started = time.process_time()
    predictor.predict(point_coords=[[x, y]], multimask_output=False)
    numbers["first click on 24 megapixels, processor time [ms]"] = 1000 * (
        time.process_time() - started
    )
    (first,) = predictor(pixels, points=[(x, y)])
    pyramid = geometry.Pyramid(pixels)
    prompt = Prompt((Point(x, y, False),), mask=first.mask)
    predictor.candidates(pyramid, [prompt])
    started = time.process_time()
    predictor.candidates(pyramid, [prompt])
    numbers["correction on 24 megapixels, processor time [ms]"] = 1000 * (
        time.process_time() - started
    )
    larger = np.asarray(Image.fromarray(sample()).resize(LARGER, Image.Resampling.BILINEAR))
    scale = LARGER[0] / sample().shape[1]
    box = Box(*(scale * edge for edge in (BOX.x0, BOX.y0, BOX.x1, BOX.y1)))
    result = predictor(larger, boxes=[box])
    started = time.process_time()
    encode_image(overlay(larger, result), "PNG")
    numbers["overlay of 48 megapixels [s]"] = time.process_time() - started
    return numbers


def main() -> None:
    """Take turns, print medians and ratios."""
    command = parser(__doc__)
    command.add_argument("--weights", default="default-int8", help="a shipped name or an ONNX file")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--rounds", type=int, default=40)
    command.add_argument("--images", type=int, default=60, help="of the folder run")
    command.add_argument("--clock", choices=("wall", "process"), default="wall")
    command.add_argument("--small", action="store_true", help="leave out folder and large images")
    command.add_argument("--profile", type=Path, metavar="FILE", help="only profile clicks")
    command.add_argument("--only-clicks", action="store_true", help="only click for 20 seconds")
    options = command.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    path = find_weights(options.weights)
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    runtime = OnnxRuntime(path, threads=options.threads)
    predictor = Predictor(runtime)
    image, objects = sample(), sample_objects()
    side = runtime.info.input_size
    points = [thing.point for thing in objects]
    if options.profile:
        profile(predictor, image, points, options.profile)
        return
    if options.only_clicks:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for point in points:
                predictor(image, points=[point])
        return
    windows = predictor.click_windows(points[0], *image.shape[:2])
    crops = np.stack([geometry.crop(image, window, side) for window in windows])
    crop = geometry.crop(image, predictor.box_window(BOX), side)[None]
    feed = {"image": normalize(crop)}
    if runtime.info.guidance:
        feed["guidance"] = np.zeros((1, 3, side, side), np.float32)
    name = next(node.name for node in session.get_inputs() if node.name != "guidance")
    feed[name] = feed.pop("image")
    counted = Counted(runtime)
    for point in points:
        Predictor(counted)(image, points=[point])
    (mask,) = predictor(image, boxes=[BOX])
    correction = Prompt((Point(BOX.center.x, BOX.center.y, False),), mask=mask.mask)
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: session.run(["logits"], feed),
        "network": lambda: runtime(crop),
        "box": lambda: predictor(image, boxes=[BOX]),
        "together": lambda: runtime(crops),
        "alone": lambda: [runtime(crops[i : i + 1]) for i in range(len(crops))],
        "click": lambda: [predictor(image, points=[point]) for point in points],
    }
    if runtime.info.guidance:
        ways["correction"] = lambda: predictor(image, prompts=[correction])
    count = {"bare": 6, "network": 6, "box": 6, "correction": 6}
    turns = {way: repeated(count.get(way, 1), once) for way, once in ways.items()}
    seconds = take_turns(turns, options.rounds, clock)
    each = {way: [t / count.get(way, 1) for t in measured] for way, measured in seconds.items()}
    each["click"] = [t / len(points) for t in each["click"]]
    numbers = {
        f"{label} [ms]": 1000 * statistics.median(each[way])
        for way, label in (
            ("bare", "bare session, one crop"),
            ("network", "network, one crop"),
            ("box", "box prompt on 640x480"),
            ("click", "click on 640x480, mean of 8 objects"),
            ("correction", "correction on 640x480"),
        )
        if way in each
    }
    numbers["windows of a click, with the second pass"] = counted.crops / len(points)
    numbers["network / bare session"] = ratio(each["network"], each["bare"])
    numbers["six crops together / one by one"] = ratio(each["together"], each["alone"])
    numbers["click / (7 x network)"] = ratio(each["click"], [7 * t for t in each["network"]])
    numbers["click / box prompt"] = ratio(each["click"], each["box"])
    numbers["box prompt / network"] = ratio(each["box"], each["network"])
    if "correction" in each:
        numbers["correction / box prompt"] = ratio(each["correction"], each["box"])
    if not options.small:
        numbers["folder run / (decode + network + encode)"] = folder_ratio(
            runtime, options.weights, options.images, max(options.rounds // 4, 1), clock
        )
        numbers |= large_numbers(predictor, options.weights, options.threads)
    limits = {label: ("<=", limit) for label, limit in LIMITS.items() if label in numbers}
    print(f"weights {options.weights}, {options.threads} thread(s), {options.clock} clock")
    report(numbers, limits, taken(("onnxruntime", "numpy", "pillow")), options.json)


def profile(predictor: Predictor, image: np.ndarray, points: list[Point], file: Path) -> None:
    """Write where the time of clicks goes, by function, and print the first lines."""
    predictor(image, points=points[:1])
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for _ in range(20):
        for point in points:
            predictor(image, points=[point])
    profiler.disable()
    with file.open("w") as stream:
        pstats.Stats(profiler, stream=stream).sort_stats("tottime").print_stats(60)
    print("".join(file.read_text().splitlines(keepends=True)[:30]))


if __name__ == "__main__":
    run_script(main)
