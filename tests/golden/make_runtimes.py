"""Make the files of `golden/runtimes`: untrained weights of every kind of network, as safetensors,
LiteRT (also in integers) and ExecuTorch files.

    PYTHONPATH=tests python tests/golden/make_runtimes.py

They let the runtimes be tested where their converters, which are large, are not installed. Weights
that are there are kept, so that a new format of one file leaves the others as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from helpers.configs import CONFIGS, GOLDEN, golden

from picosam2.export.executorch import export_executorch
from picosam2.export.litert import export_litert
from picosam2.export.litert_int8 import FILE, quantized
from picosam2.export.onnx import weights_facts
from picosam2.models.checkpoint import load_weights, save_weights
from picosam2.models.network import PicoSAM2
from picosam2.runtimes.device_file import device_file, read_device_file


def main() -> None:
    """Write what is missing and convert it all."""
    GOLDEN.mkdir(exist_ok=True)
    for name, config in CONFIGS.items():
        weights = golden(name, ".safetensors")
        if not weights.is_file():
            torch.manual_seed(0)
            model = PicoSAM2(config)
            model.train()(torch.randn(8, 3, config.input_size, config.input_size))
            save_weights(weights, model, {"name": name, "scorers": {}})
        facts = weights_facts(weights)
        print(export_litert(load_weights(weights), golden(name, ".tflite"), facts))
        write_int8(golden(name, ".tflite"), golden(name, "-int8.tflite"), config.input_size)
        print(export_executorch(load_weights(weights), golden(name, ".pte"), facts))


def write_int8(source: Path, target: Path, side: int) -> None:
    """The same weights in integers, calibrated on the kind of noise that the tests show."""
    plain = read_device_file(source, "litert")
    crops = np.random.default_rng(5).integers(0, 256, (16, side, side, 3), np.uint8)
    facts = {**plain.facts, "quantization": {"crops": "noise"}}
    target.write_bytes(device_file(quantized(plain.model, crops), facts, FILE))
    print(target, target.stat().st_size)


if __name__ == "__main__":
    main()
