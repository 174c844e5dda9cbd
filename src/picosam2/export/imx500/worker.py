"""Quantizes a network with Sony's Model Compression Toolkit. Runs inside the tools' environment.

This file is started as a script by `quantize.py`, with the environment's own Python: it may import
nothing of this package but what `_network` loads. A request in JSON comes on stdin; answers are
lines of JSON on what was stdout: {"progress": text, "done": n, "total": n}, and at the end
{"result": {...}} or {"error": text}. Whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, TextIO

BATCH = 8  # crops that go through the network at once


def main() -> int:
    """Run the request on stdin; return the exit code."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as `runtimes.ort`, which is not here
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        result = quantize(json.load(sys.stdin), ProgressLines(answers))
    except Exception as error:
        import traceback

        traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(json.dumps({"error": text}), file=answers, flush=True)
        return 1
    print(json.dumps({"result": result}), file=answers, flush=True)
    return 0


class ProgressLines:
    """Reports progress to the parent process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """`done` of `total` of `what`."""
        line = {"progress": what, "done": done, "total": total}
        print(json.dumps(line), file=self._stream, flush=True)


def quantize(request: dict[str, Any], progress: ProgressLines) -> dict[str, Any]:
    """Quantize, write both ONNX files, compare them, and return the result's facts.

    `request` holds the paths `package`, `weights`, `calibration` (N, S, S, 3) uint8, `converted`
    and `simulated` (files to write), `model` (the configuration), `gptq` (epochs, 0 for none),
    `weights_share` (of the 8-bit weights' bytes, 1 for no mixed precision) and `seed`.
    """
    import numpy as np
    import torch

    progress("loading the tools", 0)
    _adapt_torchvision()
    _adapt_onnx_export()
    import model_compression_toolkit as mct
    from edgemdt_tpc import get_target_platform_capabilities

    torch.manual_seed(request["seed"])
    np.random.seed(request["seed"] % 2**32)  # noqa: NPY002 - the toolkit draws from it
    network = _network(request)
    crops = np.load(request["calibration"], mmap_mode="r", allow_pickle=False)
    batches = -(-len(crops) // BATCH)

    def batches_of(what: str | None) -> Any:
        for number in range(batches):
            if what:
                progress(what, min(number * BATCH, len(crops)), len(crops))
            part = crops[number * BATCH : (number + 1) * BATCH]
            yield [np.ascontiguousarray(part.transpose(0, 3, 1, 2), np.float32)]

    chip = get_target_platform_capabilities(tpc_version="1.0", device_type="imx500")
    core = mct.core.CoreConfig()
    limit = None
    if request["weights_share"] < 1:
        core = mct.core.CoreConfig(
            mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig(
                num_of_images=min(32, len(crops))
            )
        )
        full = mct.core.pytorch_resource_utilization_data(
            network, lambda: batches_of(None), core_config=core, target_platform_capabilities=chip
        )
        limit = mct.core.ResourceUtilization(
            weights_memory=full.weights_memory * request["weights_share"]
        )
    common = {
        "target_resource_utilization": limit,
        "core_config": core,
        "target_platform_capabilities": chip,
    }
    if request["gptq"]:
        # Weighting by Hessians takes minutes and gained nothing that could be measured.
        epochs = request["gptq"]
        config = mct.gptq.get_pytorch_gptq_config(
            n_epochs=epochs, use_hessian_based_weights=False, use_hessian_sample_attention=False
        )
        model, _ = mct.gptq.pytorch_gradient_post_training_quantization(
            network, lambda: batches_of("tuning roundings"), gptq_config=config, **common
        )
    else:
        model, _ = mct.ptq.pytorch_post_training_quantization(
            network, lambda: batches_of("calibrating"), **common
        )
    names = network.output_names()
    sample = torch.from_numpy(next(batches_of(None))[0])
    expected = _run_torch(network, sample)
    quantized = _run_torch(model, sample)
    for kind, path in (("MCTQ", request["converted"]), ("FAKELY_QUANT", request["simulated"])):
        progress("writing", 0 if kind == "MCTQ" else 1, 2)
        mct.exporter.pytorch_export_model(
            deepcopy(model),  # exporting changes it
            save_model_path=path,
            repr_dataset=lambda: iter([[sample.numpy()]]),
            quantization_format=mct.exporter.QuantizationFormat[kind],
            onnx_opset_version=request["opset"],
            output_names=names,
        )
    progress("comparing", 0)
    converted = _run_mctq(request["converted"], sample.numpy())
    simulated = _run_plain(request["simulated"], sample.numpy())
    return {
        "versions": _versions(),
        "bits": _bits(model),
        "compared": len(sample),
        "outputs": {
            name: {
                "shape": list(quantized[i].shape[1:]),
                "step": _step(quantized[i]),
                "lowest": float(quantized[i].min()),
                "highest": float(quantized[i].max()),
                "rms_error": float(np.sqrt(np.mean((quantized[i] - expected[i]) ** 2))),
                "converted": _difference(converted[i], quantized[i]),
                "simulated": _difference(simulated[i], converted[i]),
            }
            for i, name in enumerate(names)
        },
    }


def _network(request: dict[str, Any]) -> Any:
    """The network of the request, from this package's `models`; nothing else of it is imported.

    Its folder is not put on the path, as the packages beside it are of another environment.
    """
    folder = Path(request["package"])
    spec = importlib.util.spec_from_file_location(
        "picosam2", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None  # noqa: PT018
    package = importlib.util.module_from_spec(spec)
    sys.modules["picosam2"] = package
    spec.loader.exec_module(package)

    import numpy as np
    import torch

    from picosam2.export.imx500.raw_input import RawInput
    from picosam2.models.network import read_config

    network = read_config(request["model"]).build()
    with np.load(request["weights"], allow_pickle=False) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return RawInput(network.eval()).eval()


def _adapt_torchvision() -> None:
    """Let torchvision be imported beside a torch that it was not built for.

    Its compiled part is then missing, and with it the operators that its Python part looks up when
    imported. The toolkit imports it; our network uses nothing of it.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        _KEPT.append(library)  # its definitions go when it does
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_KEPT: list[Any] = []


def _adapt_onnx_export() -> None:
    """Have the toolkit write ONNX the way it was made for: by tracing."""
    import torch

    export = torch.onnx.export

    def traced(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export(*arguments, **{**options, "dynamo": False})

    torch.onnx.export = traced


def _run_torch(model: Any, sample: Any) -> list[Any]:
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        outputs = model(sample.to(device))
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [output.cpu().numpy() for output in outputs]


def _run_mctq(path: str, sample: Any) -> list[Any]:
    """The file that is converted, in onnxruntime with the toolkit's own quantizers."""
    import mct_quantizers
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, mct_quantizers.get_ort_session_options(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {session.get_inputs()[0].name: sample}))


def _run_plain(path: str, sample: Any) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: sample}))


def _step(output: Any) -> float:
    """The distance between neighboring values of a quantized output."""
    import numpy as np

    gaps = np.diff(np.unique(output))
    return float(gaps.min()) if len(gaps) else 0.0


def _difference(actual: Any, expected: Any) -> dict[str, float]:
    """The largest and the root mean square difference, and the share of numbers that differ."""
    import numpy as np

    difference = np.abs(actual - expected)
    return {
        "largest": float(difference.max()),
        "rms": float(np.sqrt(np.mean(difference**2))),
        "share": float(np.mean(difference > 1e-6)),
    }


def _bits(model: Any) -> dict[str, int]:
    """How many layers have weights of so many bits."""
    counts: dict[str, int] = {}
    for module in model.modules():
        for quantizer in getattr(module, "weights_quantizers", {}).values():
            bits = str(quantizer.num_bits)
            counts[bits] = counts.get(bits, 0) + 1
    return counts


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "model-compression-toolkit", "mct-quantizers", "imx500-converter")
    return {name: version(name) for name in names}


if __name__ == "__main__":
    sys.exit(main())
