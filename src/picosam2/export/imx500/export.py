"""From trained weights to a folder with `packerOut.zip`, in one call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from picosam2._files import scratch_folder, sha256_file, write_json, write_text
from picosam2._progress import Progress, part_of
from picosam2.data.coco import Annotations
from picosam2.data.store import Store
from picosam2.errors import ConfigError, WeightsError
from picosam2.evaluation.compare import compare
from picosam2.evaluation.protocols import PROTOCOLS
from picosam2.evaluation.run import evaluate
from picosam2.export.imx500.check import Check, check_file, refuse
from picosam2.export.imx500.convert import convert
from picosam2.export.imx500.environment import find_java, prepare
from picosam2.export.imx500.quantize import QuantizeConfig, quantize
from picosam2.export.imx500.report import (
    FILE,
    HOW_LATENCY,
    SAMPLE,
    STORE,
    TEXT,
    latency_ms,
    markdown,
)
from picosam2.export.int8.calibration import choose_crops, sample_crops
from picosam2.export.onnx import export_finder, export_onnx, weights_facts
from picosam2.models.checkpoint import load_weights
from picosam2.models.costs import stage_costs
from picosam2.models.finder import Finder
from picosam2.models.network import PicoSAM2, without_guidance
from picosam2.predictor import Predictor
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.torch import TorchRuntime

LOG, SIMULATED = "export.log", "simulated.onnx"

PREPROCESSING = (
    "The input is the image's own RGB, eight bits unsigned, one step a step: the sensor has to "
    "normalize nothing. Mean and deviation are in the network's first layer."
)


@dataclass(frozen=True, kw_only=True)
class MeasuredImages:
    """Images with masks to measure on; `dataset` is coco or lvis."""

    dataset: str
    annotations: Annotations


@dataclass(frozen=True, kw_only=True)
class SensorExport:
    """A folder that was written."""

    folder: Path
    report: dict[str, Any]
    """The content of `report.json`."""


def check_model(model: PicoSAM2 | Finder) -> Check:
    """Check a network that may not be trained yet; see `check`."""
    with scratch_folder() as folder:
        file = folder / "network.onnx"
        if isinstance(model, Finder):
            export_finder(model, file)
        else:
            export_onnx(model, file)
        return check_file(file)


def export_imx500(
    weights: Path,
    store: Path | None,
    out: Path,
    config: QuantizeConfig | None = None,
    *,
    name: str | None = None,
    tools: Path | None = None,
    measure: Sequence[MeasuredImages] = (),
    threads: int | None = None,
    progress: Progress | None = None,
) -> SensorExport:
    """Quantize a safetensors file with crops of a store, convert it and write the folder `out`.

    Without a store the crops are those of the bundled sample image (`sample_crops`), so that the
    shipped weights can be exported where their training images are not; the report says which.

    `name` is what the report calls the weights, `tools` the folder of the tools' environment; see
    `environment.prepare`. The quantized network is measured on every data set of `measure`, beside
    FP32.

    `out` appears when everything is done, and not before. A folder that an earlier export wrote is
    replaced.

    Raises:
        ToolsError: Java or the tools are missing and could not be had.
        ConvertError: the network does not fit or does not convert; the message names the layer.
        ConfigError: `out` holds something else.
        WeightsError: not weights of this project.
        StoreError: not a store, or nothing in it to calibrate on.
    """
    config = config or QuantizeConfig()
    if weights.suffix == ".onnx":
        raise WeightsError(f"{weights} cannot be quantized: give the safetensors file it is from")
    _refuse_other(out)
    # The sensor's only input is RGB: the branch for guidance is left out.
    model, facts = without_guidance(load_weights(weights)), weights_facts(weights)
    checked = check_model(model)
    refuse(checked)
    java = find_java()
    predictor = Predictor(TorchRuntime(model, facts=facts))
    opened = None if store is None else Store(store)
    # Before the tools, which may have to be fetched: a store can lack a view.
    crops = (
        sample_crops(predictor, config.samples, config.seed)
        if opened is None
        else choose_crops(opened, predictor, config.samples, config.seed)
    ).pixels
    environment = prepare(tools, progress)
    log = out.absolute().with_name(f"{out.name}-{LOG}")
    with _folder(out) as (made, work):
        log.unlink(missing_ok=True)
        quantized = quantize(
            model, facts, crops, made, config, environment, log=log, progress=progress
        )
        converted = convert(
            quantized.converted, work, environment, java, log=log, progress=progress
        )
        for file in converted.files:
            shutil.move(file, made / file.name)
        shutil.move(log, made / LOG)
        network = _network(model)
        report = {
            "kind": "imx500",
            "weights": {"name": name or weights.name, "sha256": sha256_file(weights)},
            "network": network,
            **converted.to_json(),
            "latency": {"ms": latency_ms(network["macs"]), "how": HOW_LATENCY},
            "preprocessing": PREPROCESSING,
            "quantization": {
                **quantized.facts,
                **asdict(config),
                "samples": len(crops),
                "crops": STORE if opened is not None else SAMPLE,
                "store": None if opened is None else opened.fingerprint,
            },
            "measured": _measure(model, facts, quantized.simulated, measure, threads, progress),
            "files": _files(made),
        }
        report["memory"] |= {"estimated": checked.total, "peak_layer": checked.peak.layer}
        report["versions"] = {**report["quantization"].pop("versions"), "Java": java.version}
        report = json.loads(json.dumps(report))  # as it is read again: lists, no tuples
        write_text(made / TEXT, markdown(report))
        write_json(made / FILE, report)
    return SensorExport(folder=out, report=report)


def _refuse_other(out: Path) -> None:
    """Raise `ConfigError` if `out` is there and no export's folder."""
    if out.exists() and not (out.is_dir() and ((out / FILE).is_file() or not any(out.iterdir()))):
        raise ConfigError(f"{out} holds something else than an export: choose another folder")


@contextmanager
def _folder(out: Path) -> Iterator[tuple[Path, Path]]:
    """A folder that becomes `out` at the end, and one to work in; on an error both go.

    The folder to work in is in the system's temporary files, where paths are plain.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name[:64]}-"
    with scratch_folder(out.parent, prefix) as made:
        with scratch_folder() as work:
            yield made, work
        if out.exists():
            with scratch_folder(out.parent, prefix) as old:
                out.rename(old / out.name)
                made.rename(out)
        else:
            made.rename(out)


def _network(model: PicoSAM2) -> dict[str, Any]:
    stages = stage_costs(model)
    return {
        **asdict(model.config),
        "parameters": sum(stage.parameters for stage in stages),
        "macs": sum(stage.macs for stage in stages),
    }


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of everything in the folder."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.iterdir())
    }


def _measure(
    model: PicoSAM2,
    facts: Mapping[str, Any],
    simulated: Path,
    data: Sequence[MeasuredImages],
    threads: int | None,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """mIoU of the quantized network and of FP32, on the same objects, by every protocol."""
    if not data:
        return []
    rows = []
    with scratch_folder() as folder:
        plain = folder / "fp32.onnx"
        export_onnx(model, plain, facts)
        predictors = [Predictor(OnnxRuntime(file, threads=threads)) for file in (plain, simulated)]
        for measured in data:
            count = sum(len(image.instances) for image in measured.annotations.images)
            for protocol in PROTOCOLS:
                what = f"measuring {protocol}, {measured.dataset}"
                fp32, int8 = (
                    evaluate(
                        predictor,
                        measured.annotations.images,
                        protocol=protocol,
                        dataset=measured.dataset,
                        progress=part_of(
                            progress, name=what, before=index * count, whole=2 * count
                        ),
                    ).to_json()
                    for index, predictor in enumerate(predictors)
                )
                compared = compare(fp32, int8)
                rows.append(
                    {
                        "protocol": protocol,
                        "dataset": measured.dataset,
                        "n": compared.n,
                        "photos": compared.photos,
                        "fp32": compared.a,
                        "int8": compared.b,
                        "difference": compared.difference,
                        "low": compared.low,
                        "high": compared.high,
                    }
                )
    return rows
