"""One crop and one box prompt against the bare network: what everything around it costs.

    python benchmarks/latency.py --weights default --threads 2

Three ways take turns, on the same file with the same threads:
- the bare onnxruntime session on one crop that is normalized already,
- the runtime on the same crop as 8-bit pixels,
- a whole box prompt on a 640x480 array: crop, network, score, paste, as `picosam2 segment` does.
"""

from __future__ import annotations

import statistics

import numpy as np
from common import parser, ratio, report, take_turns, taken

from picosam2 import Predictor, geometry, sample
from picosam2.images import normalize
from picosam2.prompts import Box
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.ort import import_onnxruntime
from picosam2.runtimes.weights import find_weights

BOX = Box(310, 303, 396, 394)  # the mug of the sample image


def main() -> None:
    """Take turns, print medians and ratios."""
    command = parser(__doc__)
    command.add_argument("--weights", default="default", help="a shipped name or an ONNX file")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--rounds", type=int, default=60)
    command.add_argument("--repeat", type=int, default=5, help="runs in one turn")
    options = command.parse_args()
    path = find_weights(options.weights)
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    runtime = OnnxRuntime(path, threads=options.threads)
    predictor = Predictor(runtime)
    image = sample()
    assert image.shape == (480, 640, 3)
    crop = geometry.crop(image, predictor.box_window(BOX), runtime.info.input_size)[None]
    ready = normalize(crop)

    def again(once: object) -> object:
        def turn() -> None:
            for _ in range(options.repeat):
                once()  # type: ignore[operator]

        return turn

    seconds = take_turns(
        {
            "bare": again(lambda: session.run(["logits"], {name: ready})),
            "crop": again(lambda: runtime(crop)),
            "segment": again(lambda: predictor(image, boxes=[BOX])),
        },
        options.rounds,
    )
    np.testing.assert_allclose(runtime(crop), session.run(["logits"], {name: ready})[0], atol=1e-5)
    numbers = {
        f"{label} [ms]": 1000 * statistics.median(seconds[key]) / options.repeat
        for key, label in (
            ("bare", "bare session, one crop"),
            ("crop", "runtime, one crop"),
            ("segment", "box prompt on 640x480"),
        )
    }
    numbers["runtime / bare session"] = ratio(seconds["crop"], seconds["bare"])
    numbers["box prompt / runtime"] = ratio(seconds["segment"], seconds["crop"])
    limits = {"runtime / bare session": ("<=", 1.3), "box prompt / runtime": ("<=", 2.0)}
    report(numbers, limits, taken(("onnxruntime", "numpy", "pillow")), options.json)


if __name__ == "__main__":
    main()
