"""Short equal trainings of several variants, measured side by side: how design decisions are made.

    python tools/studies/run.py tools/studies/box-window.toml --stores STORES --out OUT \
        --images val2017 --annotations instances_val2017.json

A study is a TOML file: `[base]` is a recipe, each `[variants.NAME]` says what differs from it (and
which of the stores under STORES it trains on), `measure` what is measured: protocol, jitter, and
where it is given, how many objects at most. Training goes on where it was stopped; results that are
there are kept. Networks are measured as the ONNX files that are written of them. OUT/results.json
and OUT/results.md are written anew after every variant; differences are against the study's first
variant, over the same objects.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from picosam2._config import from_table
from picosam2._files import write_json, write_text
from picosam2.cli._exit_codes import run_script
from picosam2.data.datasets import read_annotations
from picosam2.data.store import Store
from picosam2.evaluation.compare import compare
from picosam2.evaluation.run import evaluate
from picosam2.export.imx500.check import check_file
from picosam2.export.onnx import export_onnx, weights_facts
from picosam2.models.checkpoint import load_weights
from picosam2.models.costs import stage_costs
from picosam2.predictor import Predictor
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.training.config import Recipe
from picosam2.training.trainer import train, window_rules

sys.path.insert(0, str(Path(__file__).parent))
from variants import VariantConfig, VariantRecipe, iou_loss


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
    parser.add_argument("--only", metavar="NAME", nargs="+", help="these variants only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--into", type=Path, help="put the table into this page, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study = tomllib.loads(args.study.read_text())
    if unknown := set(args.only or ()) - set(study["variants"]):
        parser.error(f"the study has no variant {min(unknown)!r}")
    images = read_annotations("coco", args.annotations, args.images).images
    for seed in args.seeds:
        for name, variant in study["variants"].items():
            if args.only and name not in args.only:
                continue
            folder = args.out / (f"{name}-seed{seed}" if seed else name)
            recipe = from_table(VariantRecipe, merged(study["base"], variant, seed), where=name)
            if not args.measure_only:
                store = Store(args.stores / variant.get("store", study["store"]))
                train(recipe, store, folder, resume=True, further=iou_loss)
            if (folder / "weights.safetensors").exists():
                measure(folder, recipe, variant.get("measure", study["measure"]), images, args)
            write_results(args.out, study)
    results = (args.out / "results.md").read_text()
    print(results)
    if args.into:
        page = args.into.read_text()
        write_text(args.into, inserted(page, args.study.name, results))


def inserted(page: str, study: str, results: str) -> str:
    """A Markdown page with a study's table between the comments that name the study.

    Raises:
        ValueError: the page has no place for it.
    """
    begin, end = f"<!-- {study} -->\n", f"<!-- end of {study} -->\n"
    if page.count(begin) != 1 or end not in page.partition(begin)[2]:
        raise ValueError(f"the page has no lines {begin.strip()} and {end.strip()}")
    before, _, rest = page.partition(begin)
    return before + begin + "\n" + results + "\n" + end + rest.partition(end)[2]


def merged(base: Mapping[str, Any], variant: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The base recipe with a variant's tables laid over it."""
    recipe = {key: dict(value) for key, value in base.items()}
    for key in ("model", "augment", "train", "distill"):
        recipe[key] = {**recipe.get(key, {}), **variant.get(key, {})}
    recipe["train"] = {"seed": seed, **recipe["train"]}
    return recipe


def costs_of(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What a variant's network costs, from folder/costs.json or into it; needs no training."""
    path, config = folder / "costs.json", json.loads(json.dumps(asdict(recipe.model)))
    if path.exists() and (known := json.loads(path.read_text()))["model"] == config:
        return dict(known)
    model = recipe.model.build().eval()
    with tempfile.TemporaryDirectory() as temporary:
        sensor = check_file(export_onnx(model, Path(temporary) / "model.onnx").path)
    stages = stage_costs(model)
    costs = {
        "model": config,
        "parameters": sum(stage.parameters for stage in stages),
        "macs": sum(stage.macs for stage in stages),
        "sensor_bytes": sensor.total,
        "sensor_problems": [str(problem) for problem in sensor.problems],
    }
    write_json(path, costs)
    return costs


def measure(
    folder: Path, recipe: Recipe, protocols: Any, images: Any, args: argparse.Namespace
) -> None:
    """Write the result file of every protocol that has none in `folder` yet."""
    weights, graph = folder / "weights.safetensors", folder / "model.onnx"
    facts = {**weights_facts(weights), "geometry": window_rules(recipe)}
    export_onnx(load_weights(weights, VariantConfig), graph, facts)
    predictor = Predictor(OnnxRuntime(graph, threads=args.threads))
    for protocol, jitter, *limit in protocols:
        key = f"{protocol} jitter {jitter:g}" if jitter else protocol
        path = folder / f"{key}.json"
        if not path.exists():
            result = evaluate(
                predictor,
                images,
                protocol=protocol,
                jitter=jitter,
                limit=limit[0] if limit else None,
            )
            write_json(path, result.to_json())
            print(folder.name, key, round(result.to_json()["miou"], 4), flush=True)


def write_results(out: Path, study: Mapping[str, Any]) -> None:
    """Gather scores under `out`, and the costs of every variant, in results.json and results.md."""
    results: dict[str, Any] = {}
    keys = list(
        dict.fromkeys(
            f"{protocol} jitter {jitter:g}" if jitter else protocol
            for variant in study["variants"].values()
            for protocol, jitter, *_ in variant.get("measure", study["measure"])
        )
    )
    first = out / next(iter(study["variants"]))
    for name, variant in study["variants"].items():
        recipe = from_table(VariantRecipe, merged(study["base"], variant, 0), where=name)
        seeds: list[dict[str, Any]] = []
        for folder in sorted([out / name, *out.glob(f"{name}-seed*")]):
            files = {key: folder / f"{key}.json" for key in keys}
            there = {key: json.loads(p.read_text()) for key, p in files.items() if p.exists()}
            if not there:
                continue
            number = folder.name.removeprefix(name).removeprefix("-seed")
            seeds.append({"seed": int(number or 0)})
            for key, scores in there.items():
                kept = ("n", "miou", "miou_ci95", "by_size", "best_candidate")
                seeds[-1][key] = {part: scores[part] for part in kept}
                other = first.with_name(first.name + (f"-seed{number}" if number else ""))
                if (base := other / f"{key}.json").exists() and other != folder:
                    change = compare(json.loads(base.read_text()), scores)
                    seeds[-1][key] |= {
                        "difference": change.difference,
                        "difference_ci95": [change.low, change.high],
                    }
        results[name] = {"costs": costs_of(out / name, recipe), "seeds": seeds}
    write_json(out / "results.json", results)
    write_text(out / "results.md", table(results, keys))


def table(results: Mapping[str, Any], keys: list[str]) -> str:
    """The results as a Markdown table, in percent; best candidate by truth in brackets.

    A variant with several seeds has their mean; one that was not trained has costs only.
    """
    head = ["variant", "input", "parameters", "MACs, M", "sensor, MiB", "seeds"]
    for key in keys:
        head += [key, f"{key}: difference"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, result in results.items():
        costs, seeds = result["costs"], result["seeds"]
        cells = [
            name,
            str(costs["model"]["input_size"]),
            f"{costs['parameters']:,}",
            f"{costs['macs'] / 1e6:.0f}",
            f"{costs['sensor_bytes'] / 2**20:.2f}",
            str(len(seeds)),
        ]
        for key in keys:
            there = [seed[key] for seed in seeds if key in seed]
            cells += [_score(there), _difference(there)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _score(seeds: list[dict[str, Any]]) -> str:
    if not seeds:
        return ""
    miou = statistics.mean(seed["miou"] for seed in seeds)
    best = statistics.mean(seed["best_candidate"] for seed in seeds)
    return f"{100 * miou:.1f}" + (f" ({100 * best:.1f})" if best > miou else "")


def _difference(seeds: list[dict[str, Any]]) -> str:
    """Of the mean over seeds; the interval, of the objects, only where there is one seed."""
    there = [seed for seed in seeds if "difference" in seed]
    if not there:
        return ""
    text = f"{100 * statistics.mean(seed['difference'] for seed in there):+.1f}"
    if len(there) == 1:
        low, high = there[0]["difference_ci95"]
        text += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text


if __name__ == "__main__":
    run_script(main)
