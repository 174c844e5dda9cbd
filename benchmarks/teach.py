"""Does teaching encode images, not annotations? Encoder runs and time of both ways, in one run.

    python benchmarks/teach.py --annotations instances_train2017.json --images train2017

- teach: `picosam2 teach` from images to a finished cache: each image is opened and encoded once,
  its prompts are decoded in batches, the logits resampled, kept in 8 bits and written;
- published: for every annotation open the image, encode it and decode one prompt, as a teacher
  inside the training step does. Nothing is written.

The teacher is a SAM 2 with the layers of `hiera-tiny` and random weights, so nothing is fetched. It
sees `--side` pixels; the real one sees 1,024, where encoding takes a larger share of the time.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import torch
import transformers
from common import ratio, report, take_turns, taken
from feed import images_of, images_parser, make_store

from picosam2 import masks
from picosam2.data.store import SourceFiles
from picosam2.distillation.protocol import Target, TeacherConfig
from picosam2.distillation.sam import SamTeacher
from picosam2.distillation.teach import teach
from picosam2.evaluation.sam import FAMILIES, TransformersSam
from picosam2.images import load_image
from picosam2.prompts import Box
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


def main() -> None:
    """Take turns, print encoder runs, seconds and ratios."""
    command = images_parser(__doc__, count=12, rounds=3)  # images from all over the file
    command.add_argument("--side", type=int, default=256, help="the teacher's input, pixels")
    command.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
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

        runs = {}
        for name, way in (("teach", whole), ("published", published)):
            encoded.clear()
            way()
            runs[name] = len(encoded)
        seconds = take_turns({"teach": whole, "published": published}, options.rounds)
    numbers = {
        "masks an image, of the whole file": sum(len(p.instances) for p in usable) / len(usable),
        **{f"encoder runs an image, {name}": runs[name] / len(images) for name in runs},
        "encoder runs, published / teach": runs["published"] / runs["teach"],
        **{f"{name} [s an image]": min(times) / len(images) for name, times in seconds.items()},
        "time, published / teach": ratio(seconds["published"], seconds["teach"]),
    }
    limits = {"encoder runs, published / teach": (">=", 5.0)}
    report(numbers, limits, taken(("torch", "transformers", "numpy")), options.json)


if __name__ == "__main__":
    main()
