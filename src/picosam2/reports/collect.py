"""Gather the numbers of result files into one JSON document, `report.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from picosam2.errors import DataError
from picosam2.reports.beside import is_peer, pair, peer_facts

MODEL_FIELDS = ("name", "precision", "parameters", "macs", "bytes", "ms_per_crop", "runtime",
                "sha256", "model", "machine")  # fmt: skip
_ORDER = ("box", "click", "click-inside", "paper-roi", "paper-point")


def published() -> dict[str, Any]:
    """Scores and latencies that others have published, with their sources."""
    text = (resources.files("picosam2") / "reports" / "published.json").read_text("utf-8")
    figures: dict[str, Any] = json.loads(text)
    return figures


def collect(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of result files, without their objects: what `report.json` holds.

    Raises:
        DataError: there is no evaluation, or one lacks a number.
    """
    known = published()
    try:
        ours = [result for result in results if not is_peer(result)]
        theirs = [result for result in results if is_peer(result)]
        runs = [_run(result) for result in ours if result["kind"] == "evaluation"]
        if not runs:
            raise DataError("a report needs a result of `picosam2 eval`: pass at least one")
        runs.sort(key=lambda run: (run["dataset"], _ORDER.index(run["protocol"])))
        models: dict[str, dict[str, Any]] = {}
        for result in ours:
            weights = result.get("weights")
            if weights:
                kept = {key: weights[key] for key in MODEL_FIELDS if key in weights}
                kept["name"] = Path(str(weights["name"])).stem
                models.setdefault(weights["sha256"], kept)
        return {
            "kind": "report",
            "models": list(models.values()),
            "runs": runs,
            "robustness": [_named(each) for each in ours if each["kind"] == "robustness"],
            "clicks": [
                _named({key: value for key, value in each.items() if key != "objects"})
                for each in ours
                if each["kind"] == "clicks"
            ],
            "proposals": _proposals([each for each in results if each["kind"] == "proposals"]),
            "domains": [
                _domains(each, known["peers"]) for each in results if each["kind"] == "domains"
            ],
            "beside": pair(ours, theirs, known["peers"]),
            "times": [dict(each) for each in results if each["kind"] == "times"],
            "published": known,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"a result file lacks {error}: measure again with this version") from error


def _proposals(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results of `proposals`; what they are compared with stands once for the same weights."""
    known: set[tuple[Any, ...]] = set()
    listed = []
    for result in results:
        methods = {}
        for method, scores in result["methods"].items():
            named = (result["weights_sha256"], result["n"], method)
            if method == "everything" or named not in known:
                methods[method] = scores
            known.add(named)
        kept = {key: value for key, value in result.items() if key != "problems"}
        listed.append({**kept, "methods": methods})
    return listed


def _domains(result: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A result of `eval --domains` without its objects."""
    weights = result["weights"]
    peer = peer_facts(weights, known) if is_peer(result) else None
    name = peer["name"] if peer else Path(str(weights["name"])).stem
    protocols = {
        protocol: {
            **{key: scores[key] for key in ("miou", "miou_ci95", "baselines")},
            "sets": {
                name: {key: each[key] for key in ("n", "photos", "miou", "miou_ci95", "baselines")}
                for name, each in scores["sets"].items()
            },
        }
        for protocol, scores in result["protocols"].items()
    }
    return {
        "weights": {
            "name": name,
            "sha256": weights["sha256"],
        },
        "option": f"--peer {peer['option']}" if peer else f"--weights {name}",
        "protocols": protocols,
        "leaks": {
            name: {key: leak[key] for key in ("checked", "met")}
            for name, leak in result["leaks"].items()
        },
    }


def _named(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with the name of its weights, not their path: a report holds no paths."""
    weights = result["weights"]
    short = {key: weights[key] for key in ("precision", "bytes", "sha256") if key in weights}
    if weights:
        short["name"] = Path(str(weights["name"])).stem
    return {**result, "weights": short}


def _run(result: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {"items", "problems", "kind", "weights_sha256", "leak"}
    run = _named({key: value for key, value in result.items() if key not in left_out})
    leak = result["leak"]
    run["leak"] = None if leak is None else {k: leak[k] for k in ("checked", "met", "trained_on")}
    run["command"] = _command(run)
    return run


def _command(run: Mapping[str, Any]) -> str:
    """The command that measured a run; files and folders by their last part."""
    files = run.get("files", {"images": "IMAGES", "annotations": "ANNOTATIONS"})
    words = ["picosam2 eval", f"--weights {run['weights'].get('name', 'default')}"]
    words.append(f"--protocol {run['protocol']}")
    if run["dataset"] != "coco":
        words.append(f"--dataset {run['dataset']}")
    words.append(f"--images {files['images']} --annotations {files['annotations']}")
    words += [f"--{name} {run[name]}" for name in ("first", "limit") if run.get(name)]
    if run.get("flip"):
        words.append("--flip")
    if run["jitter"]:
        words.append(f"--jitter {run['jitter']:g}")
    if "grabcut" in run["baselines"]:
        words.append("--pixel-baselines")
    return " ".join(words)
