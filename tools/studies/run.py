"""Short equal trainings of several variants, measured side by side: how design decisions are made.

    python tools/studies/run.py tools/studies/box-window.toml --stores STORES --out OUT \
        --images val2017 --annotations instances_val2017.json

A study is a TOML file: `[base]` is a recipe, each `[variants.NAME]` says what differs from it (and
which of the stores under STORES it trains on), `measure` what is measured. Training goes on where
it was stopped; results that are there are kept. OUT/results.json and OUT/results.md are written
anew after every variant.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from picosam2.checkpoint import load_weights, read_tensors
from picosam2.data.readers import read_annotations
from picosam2.data.store import Store
from picosam2.distill.config import Recipe, from_table
from picosam2.distill.trainer import train
from picosam2.evaluate.run import evaluate
from picosam2.files import sha256_file, write_json, write_text
from picosam2.predictor import Predictor
from picosam2.torch_runtime import TorchRuntime


def main() -> None:
    """Run the study that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--stores", type=Path, required=True, help="folder of the stores")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--measure-only", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study = tomllib.loads(args.study.read_text())
    photos = read_annotations("coco", args.annotations, args.images).photos
    path = args.out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, variant in study["variants"].items():
        folder = args.out / name
        if not args.measure_only:
            store = Store(args.stores / variant.get("store", study["store"]))
            recipe = from_table(Recipe, merged(study["base"], variant), where=name)
            train(recipe, store, folder, resume=True)
        if not (folder / "weights.safetensors").exists():
            continue
        if name not in results:
            results[name] = measured(folder / "weights.safetensors", variant, study, photos)
            write_json(path, results)
            write_text(args.out / "results.md", table(results))
    print(table(results))


def merged(base: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """The base recipe with a variant's tables laid over it."""
    recipe = {key: dict(value) for key, value in base.items()}
    for key in ("model", "augment", "train", "distill"):
        recipe[key] = {**recipe.get(key, {}), **variant.get(key, {})}
    return recipe


def measured(
    weights: Path, variant: Mapping[str, Any], study: Mapping[str, Any], photos: Any
) -> dict[str, Any]:
    """mIoU by protocol and jitter, with the interval of the first."""
    augment = variant.get("augment", {})
    rules = {
        "box_growth": augment.get("box_growth", 1.2),
        "box_max_aspect": augment.get("box_max_aspect"),
    }
    facts = {**read_tensors(weights).info, "geometry": rules}
    model = load_weights(weights)
    predictor = Predictor(TorchRuntime(model, weights_sha256=sha256_file(weights), facts=facts))
    found: dict[str, Any] = {}
    for protocol, jitter in variant.get("measure", study["measure"]):
        result = evaluate(predictor, photos, protocol=protocol, jitter=jitter).to_json()
        key = f"{protocol} jitter {jitter:g}" if jitter else protocol
        found[key] = {
            name: result[name] for name in ("n", "miou", "miou_ci95", "by_size", "best_candidate")
        }
        print(weights.parent.name, key, round(result["miou"], 4), flush=True)
    return found


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, in percent; best candidate by truth in brackets."""
    keys = list(dict.fromkeys(key for found in results.values() for key in found))
    lines = ["| variant | " + " | ".join(keys) + " |", "|---|" + "---|" * len(keys)]
    for name, found in results.items():
        cells = []
        for key in keys:
            if key not in found:
                cells.append("")
                continue
            miou, best = found[key]["miou"], found[key]["best_candidate"]
            cells.append(f"{100 * miou:.1f}" + (f" ({100 * best:.1f})" if best > miou else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
