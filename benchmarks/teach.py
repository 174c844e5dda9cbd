"""Does teaching encode images, not annotations? Encoder runs and time of both ways, in one run.

    python benchmarks/teach.py --annotations instances_train2017.json --images train2017

- teach: `picosam2 teach` from images to a finished cache: each image is opened and encoded once,
  its prompts are decoded in batches, the logits resampled, kept in 8 bits and written;
- published: for every annotation open the image, encode it and decode one prompt, as a teacher
  inside the training step does. Nothing is written;
- dense: `picosam2 teach --dense` on the same images: each is opened once, and encoded twice, as it
  is and mirrored.

Dense teaching is also timed with the shipped weights as the teacher and the shipped finder, in
processor time, so that it holds for one core whatever else runs.

The other teacher is a SAM 2 with the layers of `hiera-tiny` and random weights, so nothing is
fetched. It sees `--side` pixels; the real one sees 1,024, where encoding takes a larger share of
the time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
import transformers
from common import ratio, report, take_turns, taken
from feed import images_of, images_parser, make_store

from picosam2 import masks
from picosam2.cli._exit_codes import run_script
from picosam2.data.store import SourceFiles
from picosam2.distillation import dense
from picosam2.distillation.dense import teach_dense
from picosam2.distillation.dense_masks import DenseConfig
from picosam2.distillation.protocol import Target, Teacher, TeacherAnswer, TeacherConfig
from picosam2.distillation.sam import SamTeacher
from picosam2.distillation.teach import teach
from picosam2.distillation.teachers import CheckpointTeacher
from picosam2.evaluation.sam import FAMILIES, TransformersSam
from picosam2.images import load_image
from picosam2.prompts import Box
from picosam2.runtimes.finder import opened_finder
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.weights import find_weights
from picosam2.training.config import load_recipe


def random_sam2(side: int) -> Any:
    """A Sam2Model with the default layers, `hiera-tiny`'s, for images of `side` pixels."""
    vision = transformers.Sam2VisionConfig(
        backbone_config={"model_type": "sam2_hiera_det_model", "image_size": [side, side]},
        backbone_feature_sizes=[[side // step, side // step] for step in (4, 8, 16)],
    )
    prompt = transformers.Sam2PromptEncoderConfig(image_size=side)
    torch.manual_seed(0)
    return transformers.Sam2Model(
        transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompt)
    )


class CountingTeacher:
    """Another teacher, whose prompts are counted."""

    def __init__(self, teacher: Teacher) -> None:
        self.name, self.fingerprint, self.settings = (
            teacher.name, teacher.fingerprint, teacher.settings,
        )  # fmt: skip
        self._teacher, self.prompts = teacher, 0

    def __call__(self, image: Any, targets: Sequence[Target]) -> list[TeacherAnswer]:
        self.prompts += len(targets)
        return self._teacher(image, targets)


def main() -> None:
    """Take turns, print encoder runs, seconds and ratios."""
    command = images_parser(__doc__, count=12, rounds=3)  # images from all over the file
    command.add_argument("--side", type=int, default=256, help="the teacher's input, pixels")
    command.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    command.add_argument("--weights", default="default-int8", help="the teacher of the dense times")
    command.add_argument("--boxes", type=int, default=48, help="boxes an image of the dense ways")
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    source, usable = images_of(options)
    images = usable[:: max(len(usable) // options.count, 1)][: options.count]
    model = random_sam2(options.side)
    encoded: list[int] = []
    model.vision_encoder.register_forward_hook(lambda *_: encoded.append(1))
    sam = TransformersSam(model, FAMILIES["sam2"], precision=options.precision)
    teacher = SamTeacher(sam, TeacherConfig())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = make_store(source, images, folder, load_recipe("unet"))
        taught = SourceFiles(annotations=folder / "annotations.json", images=source.images)
        number = count()

        def whole() -> None:
            teach(teacher, store, [taught], folder / f"cache-{next(number)}")

        def published() -> None:
            for annotated in images:
                for instance in annotated.instances:
                    image, truth = load_image(annotated.path), instance.mask()
                    box = Box(*(masks.bbox(truth) or ()))
                    teacher(image, [Target(box=box, point=masks.center_point(truth))])

        finder, config = opened_finder(threads=options.threads), DenseConfig(boxes=options.boxes)
        runtime = OnnxRuntime(find_weights(options.weights), threads=options.threads)
        ours = CountingTeacher(CheckpointTeacher(runtime, name=options.weights))

        def densely(by: Teacher) -> int:
            out = folder / f"dense-{next(number)}"
            return teach_dense(by, finder, [taught], [], out, config).masks

        def dense_sam() -> None:
            densely(teacher)

        read: list[Path] = []

        def counted_load(path: Path) -> Any:
            read.append(path)
            return load_image(path)

        dense.load_image = counted_load
        new, boxes = densely(ours), ours.prompts / 2  # in the image and in its mirror image
        reads = len(read)
        runs = {}
        for name, way in (("teach", whole), ("published", published), ("dense", dense_sam)):
            encoded.clear()
            way()
            runs[name] = len(encoded)
        seconds = take_turns({"teach": whole, "published": published}, options.rounds)
        dense_seconds = take_turns(
            {"dense": lambda: densely(ours)}, options.rounds, clock=time.process_time
        )["dense"]
    numbers = {
        "masks an image, of the whole file": sum(len(p.instances) for p in usable) / len(usable),
        **{f"encoder runs an image, {name}": runs[name] / len(images) for name in runs},
        "encoder runs, published / teach": runs["published"] / runs["teach"],
        **{f"{name} [s an image]": min(times) / len(images) for name, times in seconds.items()},
        "time, published / teach": ratio(seconds["published"], seconds["teach"]),
        "times an image is read, dense": reads / len(images),
        f"boxes an image, dense, {options.weights}": boxes / len(images),
        "new masks an image, dense": new / len(images),
        "boxes a second of one core, dense": boxes / min(dense_seconds),
        "new masks a second of one core, dense": new / min(dense_seconds),
    }
    limits = {
        "encoder runs, published / teach": (">=", 5.0),
        "encoder runs an image, dense": ("<=", 2.0),
        "times an image is read, dense": ("<=", 1.0),
    }
    report(numbers, limits, taken(("torch", "transformers", "numpy")), options.json)


if __name__ == "__main__":
    run_script(main)
