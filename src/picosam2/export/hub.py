"""A folder for the Hugging Face Hub: weights in three forms, what they need to be run, and a card.

Shipped weights are copied; nothing but the base installation is needed for that. Weights of one's
own are exported as ONNX first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from picosam2._files import atomic_write, scratch_folder, sha256_file, write_text
from picosam2.errors import ConfigError, DataError, WeightsError, require
from picosam2.images import MEAN, PAD_RGB, STD
from picosam2.runtimes.hub import CONFIG, FILES, MODEL_TYPE
from picosam2.runtimes.onnx import read_weights
from picosam2.runtimes.protocol import RuntimeInfo
from picosam2.runtimes.weights import find_weights, shipped, shipped_files

CARD: Final = "README.md"
_TRAINED_ON: Final = (
    "coco", "minto", "ecssd", "pascal-s", "animals", "pantry", "ccp", "bsds", "food_via",
    "bottles_via", "balloon", "human290", "bags", "cow", "camvid", "pets", "horses", "pigs",
    "butterfly", "pennfudan", "julito", "classroom", "carpanel", "facade", "medwaste",
)  # fmt: skip
"""The sources of the shipped weights, as MODEL_CARD.md describes them."""

_GUIDED_ONLY: Final = frozenset(("pets", "horses", "pigs", "butterfly"))
"""Those that only weights with guidance were trained on."""

_DATASETS = {"coco": "COCO val2017, a part", "lvis": "LVIS v0.5 val, a part"}


def export_hub(
    weights: str,
    out: Path,
    *,
    quantized: str | None = None,
    results: Sequence[Path] = (),
) -> list[Path]:
    """Write the folder, and return its files.

    Args:
        weights: shipped weights by name, or a safetensors file.
        out: the folder; files of an earlier export are replaced, but for a card that was edited.
        quantized: the same weights in 8 bits: shipped ones by name, or an ONNX file.
        results: result files of `eval` or `report`; their scores of these weights go into the card.

    Raises:
        WeightsError: the weights cannot be used, or the files are not of the same weights.
        DataError: a result file cannot be read.
        ConfigError: `out` cannot be written, or its README.md is not as an earlier export wrote it.
        MissingExtraError: weights of one's own need the extra `train`.
    """
    source = find_weights(weights, "torch")
    if source.suffix.lower() != ".safetensors":
        raise WeightsError(f"{source} is no safetensors file: give what `picosam2 train` wrote")
    if quantized is None and f"{weights}-int8" in shipped():
        quantized = f"{weights}-int8"
    small = None if quantized is None else find_weights(quantized)
    runs = list(_runs(results))
    _check_card(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made a folder: {error.strerror or error}") from error
    with scratch_folder() as scratch:
        full = shipped_files(weights).get("onnx") or _exported(source, scratch)
        _, info = read_weights(full)
        digest = sha256_file(source)
        for path in filter(None, (full, small)):
            made_from = read_weights(path)[1].facts.get("source_sha256")
            if made_from != digest:
                raise WeightsError(f"{path} was not made from {source}: export it again")
        kinds = {"safetensors": source, "onnx": full, "int8": small}
        written = [
            _copied(path, out / FILES[kind]) for kind, path in kinds.items() if path is not None
        ]
    files = {path.relative_to(out).as_posix(): sha256_file(path) for path in written}
    known = set(files.values())
    card = _card(
        weights if weights in shipped() else source.stem,
        info,
        files,
        [run for run in runs if run["weights"]["sha256"] in known],
    )
    about = {
        CONFIG: _json({**_config(info), "files": files, "card": _sha256(card.encode())}),
        "preprocessor_config.json": _json(_preprocessor(info)),
        CARD: card,
    }
    for name, text in about.items():
        write_text(out / name, text)
    return [*written, *(out / name for name in about)]


def _check_card(folder: Path) -> None:
    """Refuse (`ConfigError`) a folder with a README.md that no export wrote, or that was edited."""
    if not (folder / CARD).exists():
        return
    try:
        known = json.loads((folder / CONFIG).read_bytes())["card"]
        same = bool(known == _sha256((folder / CARD).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ConfigError(
            f"{folder / CARD} was not written by this command, or was changed since: "
            "move it away, or choose another --out"
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _exported(source: Path, folder: Path) -> Path:
    for module in ("torch", "safetensors", "onnx"):
        require(module, "train")
    from picosam2.export.onnx import export_onnx, weights_facts
    from picosam2.models.checkpoint import load_weights

    return export_onnx(load_weights(source), folder / "model.onnx", weights_facts(source)).path


def _copied(source: Path, target: Path) -> Path:
    try:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _config(info: RuntimeInfo) -> dict[str, Any]:
    """The content of `config.json`: the network, and how prompts become windows."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["PicoSAM2"],
        "input_size": info.input_size,
        "output_size": info.output_size,
        "channels": info.channels,
        "guidance": info.guidance,
        "network": info.facts.get("model"),
        "geometry": info.facts.get("geometry"),
        "click_windows": info.facts.get("click_windows", "ladder"),
    }


def _preprocessor(info: RuntimeInfo) -> dict[str, Any]:
    """How a crop becomes the network's input, in the words of transformers."""
    side = {"height": info.input_size, "width": info.input_size}
    return {
        "image_processor_type": "PicoSAM2",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "pad_value": list(PAD_RGB),
    }


def _runs(results: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """The evaluations in result files and reports."""
    for path in results:
        try:
            document = json.loads(path.read_text("utf-8"))
            runs = document["runs"] if document["kind"] == "report" else [document]
            for run in runs:
                float(run["miou"]), int(run["n"]), str(run["protocol"]), str(run["dataset"])
                str(run["weights"]["sha256"])
            yield from runs
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path} is no result of `picosam2 eval --json` nor a report.json: {error!r}"
            ) from error


def _card(
    name: str,
    info: RuntimeInfo,
    files: Mapping[str, str],
    runs: Sequence[Mapping[str, Any]],
) -> str:
    """The model card. Its head is JSON, which is YAML too."""
    head: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "picosam2",
        "pipeline_tag": "mask-generation",
        "tags": ["segmentation", "promptable", "onnx", "edge"],
        "metrics": ["mean_iou"],
    }
    if name in shipped():
        head["datasets"] = [
            source for source in _TRAINED_ON if info.guidance or source not in _GUIDED_ONLY
        ]
    kinds = {files[file]: kind for kind, file in FILES.items() if file in files}
    if runs:
        head["model-index"] = [{"name": name, "results": [_result(run, kinds) for run in runs]}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    body = (resources.files("picosam2") / "export" / "hub_card.md").read_text("utf-8")
    return "\n".join(["---", *lines, "---", ""]) + body.format(
        name=name,
        side=info.input_size,
        output=info.output_size,
        files="\n".join(f"| `{file}` | `{digest}` |" for file, digest in files.items()),
        scores=_scores(runs, kinds),
    )


def _result(run: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """One evaluation, as the hub's model index has it."""
    return {
        "task": {"type": "mask-generation"},
        "dataset": {
            "name": _DATASETS.get(run["dataset"], run["dataset"]),
            "type": run["dataset"],
            "args": {"objects": run["n"], "protocol": run["protocol"]},
        },
        "metrics": [
            {
                "type": "mean_iou",
                "name": f"mIoU by {run['protocol']}, {kinds[run['weights']['sha256']]}",
                "value": round(run["miou"], 4),
            }
        ],
    }


def _scores(runs: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> str:
    if not runs:
        return "None were given when this card was written.\n"
    rows = ["| weights | data | protocol | objects | mIoU |", "|---|---|---|---|---|"]
    rows += [
        f"| {kinds[run['weights']['sha256']]} | {_DATASETS.get(run['dataset'], run['dataset'])} "
        f"| {run['protocol']} | {run['n']} | {run['miou']:.3f} |"
        for run in runs
    ]
    return "\n".join(rows) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
