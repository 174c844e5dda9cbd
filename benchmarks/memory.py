"""The largest memory of large images with many boxes, and of many prompts on a small image.

    python benchmarks/memory.py

Each case runs in a process of its own, whose peak of resident memory (VmHWM of Linux) is taken with
everything in it: the interpreter, the libraries, the weights and the results, which are all kept
until the end. Images are the bundled sample, also enlarged to 4000x3000; boxes are those of its
objects, moved by up to a tenth of their size.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from common import parser, report, taken
from PIL import Image

from picosam2 import sample
from picosam2.cli._exit_codes import run_script
from picosam2.io.sample_image import sample_objects

BOXES, PROMPTS = 60, 1000
LARGE, SMALL = (4000, 3000), (640, 480)
LIMIT_LARGE, LIMIT_SMALL = 600.0, 500.0  # MB

PEAK = """
def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
"""

COMMAND = """
from picosam2.cli.main import run
code = run(inputs["words"])
assert code == 0, code
print("\\nPEAK", peak())
"""

API = """
from picosam2 import Predictor
predictor = Predictor(inputs["weights"], threads=inputs["threads"])
results = []
for image in inputs["images"]:
    results += predictor(image, points=inputs["points"], boxes=inputs["boxes"])
assert len(results) == inputs["expected"]
assert any(result.area for result in results)
print("\\nPEAK", peak())
"""


def measured(code: str, **inputs: object) -> float:
    """The peak of a process, in MB."""
    text = f"import json, sys\ninputs = json.loads(sys.stdin.read())\n{PEAK}{code}"
    done = subprocess.run(
        [sys.executable, "-c", text],
        input=json.dumps(inputs), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.rpartition("PEAK")[2])


def boxes(count: int, size: tuple[int, int]) -> list[list[float]]:
    """So many boxes of the sample's objects at that size, each moved a little."""
    draw = random.Random(0)
    scale = size[0] / SMALL[0]
    made = []
    for number in range(count):
        box = sample_objects()[number % len(sample_objects())].box
        x = draw.uniform(-0.1, 0.1) * box.width
        y = draw.uniform(-0.1, 0.1) * box.height
        moved = max(box.x0 + x, 0), max(box.y0 + y, 0), box.x1 + x, box.y1 + y
        x0, y0, x1, y1 = moved
        x1, y1 = min(x1, SMALL[0]), min(y1, SMALL[1])
        made.append([scale * value for value in (x0, y0, x1, y1)])
    return made


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--weights", default="default", help="shipped name or file")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument(
        "--formats", nargs="+", default=["overlay", "json", "coco"], help="of the command"
    )
    options = arguments.parse_args()
    common = {"weights": options.weights, "threads": options.threads}
    numbers: dict[str, float] = {}
    limits: dict[str, tuple[str, float]] = {}

    def add(name: str, limit: float, number: float) -> None:
        print(f"{name}: {number:.0f} MB", file=sys.stderr, flush=True)  # kept if the run is stopped
        numbers[f"{name}, MB"], limits[f"{name}, MB"] = number, ("<=", limit)

    with TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        paths = [folder / f"{index}.jpg" for index in range(2)]
        enlarged = Image.fromarray(sample()).resize(LARGE, Image.Resampling.BICUBIC)
        for path in paths:
            enlarged.save(path, quality=92)
        prompts = Path(name) / "boxes.json"
        prompts.write_text(json.dumps(
            [{"image": path.name, "box": box} for path in paths for box in boxes(BOXES, LARGE)]
        ))  # fmt: skip
        for form in options.formats:
            out = Path(name) / ("coco.json" if form.startswith("coco") else form)
            words = ["segment", folder, "--prompts", prompts, "--format", form, "--out", out,
                     "--weights", options.weights, "--threads", options.threads]  # fmt: skip
            peak = measured(COMMAND, words=[str(word) for word in words])
            add(f"2 images of 12 MP, 60 boxes each, segment to {form}", LIMIT_LARGE, peak)
        peak = measured(
            API, images=[str(path) for path in paths], boxes=boxes(BOXES, LARGE), points=[],
            expected=2 * BOXES, **common,
        )  # fmt: skip
        add("2 images of 12 MP, 60 boxes each, Python", LIMIT_LARGE, peak)
        small = Path(name) / "small.png"
        Image.fromarray(sample()).save(small)
        draw = random.Random(0)
        points = [[draw.uniform(0, SMALL[0]), draw.uniform(0, SMALL[1])] for _ in range(PROMPTS)]
        peak = measured(
            API, images=[str(small)], boxes=[], points=points, expected=PROMPTS, **common
        )
        add("1 image of 640x480, 1,000 clicks, Python", LIMIT_SMALL, peak)
        peak = measured(
            API, images=[str(small)], boxes=boxes(PROMPTS, SMALL), points=[], expected=PROMPTS,
            **common,
        )  # fmt: skip
        add("1 image of 640x480, 1,000 boxes, Python", LIMIT_SMALL, peak)
        words = ["segment", small, "--out", Path(name) / "small.json",
                 "--weights", options.weights, "--threads", options.threads]  # fmt: skip
        for x, y in points:
            words += ["--point", f"{x},{y}"]
        peak = measured(COMMAND, words=[str(word) for word in words])
        add("1 image of 640x480, 1,000 clicks, segment to json", LIMIT_SMALL, peak)
    report(numbers, limits, taken(("numpy", "pillow", "onnxruntime")), options.json)


if __name__ == "__main__":
    run_script(main)
