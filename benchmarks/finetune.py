"""Fine-tuning on sets of other fields: one half of each is trained on, the other half measured.

    python benchmarks/finetune.py --domains DIR --out RESULTS --masks 100 --samples 3000
    python benchmarks/finetune.py --domains DIR --out RESULTS --table

Each set is split by image into two halves. `picosam2.finetune` gets the first so many masks of one
half, as a COCO file; its own held-out part is taken from them. What it wrote is measured on the
other half, which it never saw, beside the weights before; with --coco also on images of that file:
what was forgotten. A combination that is measured already is passed over, so a stopped run goes on.
`--minutes` gives a time, as a user would; `--samples` a number of samples, which is the same work
on every machine. --table prints what RESULTS holds as the tables of docs/finetune.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import taken

import picosam2
from picosam2 import masks
from picosam2.apps.finetune import OwnScores, measure_own
from picosam2.cli._exit_codes import run_script
from picosam2.cli._memory import keep_memory
from picosam2.data.coco import AnnotatedImage, read_coco
from picosam2.data.split import split, spread
from picosam2.data.store import hash_images
from picosam2.errors import ConfigError
from picosam2.evaluation.domains import Domain, read_domains
from picosam2.evaluation.metrics import interval, interval_of_means
from picosam2.training.finetune import FinetuneConfig

PROMPTS = ("box", "click", "two corrections")


def halves(domain: Domain) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """The images to train on and those to measure on, split by what they show."""
    hashes = hash_images([image.path for image in domain.images])
    counts = np.array([len(image.instances) for image in domain.images])
    tried = [np.array(split(hashes, seed, 0.5)) for seed in range(50)]
    kept = min(tried, key=lambda side: abs(int(counts[side].sum()) - counts.sum() / 2))
    first = [image for image, held in zip(domain.images, kept, strict=True) if not held]
    return first, [image for image, held in zip(domain.images, kept, strict=True) if held]


def write_annotations(images: Sequence[AnnotatedImage], count: int, path: Path) -> int:
    """A COCO file of the first `count` masks, of whole images but for the last; their number."""
    document: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    order = np.random.default_rng(0).permutation(len(images))
    for image in (images[place] for place in order):
        some = image.instances[: count - len(document["annotations"])]
        if not some:
            break
        document["images"].append(
            {
                "id": image.id, "file_name": image.path.name, "height": image.height,
                "width": image.width,
            }
        )  # fmt: skip
        for instance in some:
            mask = instance.mask()
            x0, y0, x1, y1 = masks.bbox(mask) or (0, 0, 0, 0)
            document["annotations"].append(
                {
                    "id": instance.id, "image_id": image.id, "category_id": 1, "iscrowd": 0,
                    "area": int(mask.sum()), "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": masks.rle_encode(mask),
                }
            )  # fmt: skip
    path.write_text(json.dumps(document))
    return len(document["annotations"])


def plain(scores: OwnScores) -> dict[str, Any]:
    """Scores as JSON has them."""
    return {**scores.columns(), "images": scores.images}


def measured(
    weights: str | Path, images: Sequence[AnnotatedImage], threads: int | None
) -> dict[str, Any]:
    """The scores of weights on the objects of `images`."""
    return plain(measure_own(picosam2.Predictor(weights, threads=threads), images))


def finetune_one(
    options: argparse.Namespace, domain: Domain, count: int, config: FinetuneConfig
) -> None:
    """Fine-tune on one set with so many masks, measure, and write the result."""
    out = options.out / f"{options.name}-{domain.name}-{count}"
    result_file = out.with_suffix(".json")
    if result_file.exists():
        return
    first, second = halves(domain)
    annotations = out.with_name(f"{out.name}-annotations.json")
    used = write_annotations(first, count, annotations)
    shutil.rmtree(out.with_name(f"{out.name}-work"), ignore_errors=True)
    started, cpu = time.perf_counter(), time.process_time()
    result = picosam2.finetune(
        annotations, first[0].path.parent, out, minutes=config.minutes, config=config,
        threads=options.threads,
    )  # fmt: skip
    record: dict[str, Any] = {
        "set": domain.name, "masks": used, "name": options.name, "settings": options.set,
        "samples": result.samples, "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1), "parts": dict(result.seconds),
        "kept_share": result.kept_share, "averaging": result.averaging,
        "where": taken(("torch", "onnxruntime")),
        "own": {"before": plain(result.before), "after": plain(result.after)},
        "measured": {"before": before(options, domain, second),
                     "after": measured(result.onnx, second, options.threads),
                     "int8": measured(result.int8, second, options.threads)},
    }  # fmt: skip
    if options.coco:
        images = coco_images(options)
        record["coco"] = {
            "before": before(options, None, images),
            "after": measured(result.onnx, images, options.threads),
        }
    result_file.write_text(json.dumps(record) + "\n")
    annotations.unlink()
    print(summary(record), flush=True)


def before(
    options: argparse.Namespace, domain: Domain | None, images: Sequence[AnnotatedImage]
) -> dict[str, Any]:
    """The shipped weights' scores, which are measured once."""
    name = domain.name if domain else f"coco-{len(images)}"
    file = options.out / f"before-{name}.json"
    if not file.exists():
        file.write_text(json.dumps(measured("default", images, options.threads)))
    record: dict[str, Any] = json.loads(file.read_text())
    return record


def coco_images(options: argparse.Namespace) -> tuple[AnnotatedImage, ...]:
    """Some images of the COCO file, at even distances."""
    annotations, images = options.coco
    read = read_coco(annotations, images)
    return spread([image for image in read.images if image.instances], options.coco_images)


def mean(scores: dict[str, Any], prompt: str) -> float:
    """mIoU in per cent."""
    return 100 * float(np.mean(scores[prompt]))


def summary(record: dict[str, Any]) -> str:
    """One result on one line."""
    parts = [
        f"{record['name']} {record['set']} {record['masks']} masks {record['samples']} samples"
    ]
    for part in ("measured", "coco"):
        if part in record:
            parts += [
                f"{part} {prompt} {mean(record[part]['before'], prompt):.1f} -> "
                f"{mean(record[part]['after'], prompt):.1f}"
                for prompt in PROMPTS
            ]
    parts.append(f"{record['seconds']:.0f} s, {record['cpu_seconds']:.0f} s of processor")
    return ", ".join(parts)


def table(folder: Path) -> None:
    """Print what was measured: a row for every name and number of masks, means over the sets."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    results = [record for record in results if "measured" in record]
    groups = sorted({(record["name"], int(record["masks"] // 10 * 10)) for record in results})
    for name, about in groups:
        some = [f for f in results if f["name"] == name and f["masks"] // 10 * 10 == about]
        print(f"\n{name}, about {about} masks, {len(some)} sets, settings {some[0]['settings']}")
        for part in ("measured", "coco"):
            if not all(part in record for record in some):
                continue
            for prompt in PROMPTS:
                values = {
                    when: [mean(record[part][when], prompt) for record in some]
                    for when in some[0][part]
                }
                gains = [
                    (
                        100 * (np.array(f[part]["after"][prompt]) - f[part]["before"][prompt]),
                        np.array(f[part]["before"]["images"]),
                    )
                    for f in some
                ]
                if part == "measured":
                    low, high = interval_of_means(gains)
                else:  # of the same objects, whatever the set was
                    images = gains[0][1]
                    if any(not np.array_equal(each, images) for _, each in gains):
                        raise ConfigError(f"{folder} holds results of different COCO objects")
                    low, high = interval(np.mean([gain for gain, _ in gains], 0), images)
                cells = ", ".join(f"{when} {np.mean(of):.1f}" for when, of in values.items())
                each = " ".join(f"{a - b:+.1f}" for a, b in
                                zip(values["after"], values["before"], strict=True))  # fmt: skip
                gain = np.mean(values["after"]) - np.mean(values["before"])
                print(f"  {part:<9} {prompt:<16} {cells}: {gain:+.1f} ({low:+.1f} to {high:+.1f}); "
                      f"by set {each}")  # fmt: skip
        print("  seconds", [round(f["seconds"]) for f in some], "of processor",
              [round(f["cpu_seconds"]) for f in some])  # fmt: skip


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domains", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="of the sets; all by default")
    parser.add_argument("--masks", nargs="+", type=int, default=[100])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--name", default="finetune", help="of this variant, in the files' names")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE",
        help="of the recipe (train.lr=0.001) or of FinetuneConfig (averaging=0.5)",
    )  # fmt: skip
    parser.add_argument("--coco", nargs=2, type=Path, metavar=("FILE", "DIR"))
    parser.add_argument("--coco-images", type=int, default=124)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    keep_memory()  # as the command does
    options.out.mkdir(parents=True, exist_ok=True)
    if options.table:
        table(options.out)
        return
    config = FinetuneConfig(minutes=options.minutes, samples=options.samples)
    kinds = {field.name: type(getattr(config, field.name)) for field in fields(config)}
    changes = [entry.partition("=") for entry in options.set]
    config = replace(
        config,
        recipe=tuple(f"{key}={value}" for key, _, value in changes if key not in kinds),
        **{key: kinds[key](value) for key, _, value in changes if key in kinds},
    )
    for domain in read_domains(options.domains):
        if options.sets is None or domain.name in options.sets:
            for count in options.masks:
                finetune_one(options, domain, count, config)


if __name__ == "__main__":
    run_script(main)
