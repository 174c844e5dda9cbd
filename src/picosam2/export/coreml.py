"""Weights to a Core ML package (.mlpackage), which Apple's systems run.

The converter works on Linux too, but only a Mac can run what it makes, so the package is not
compared with PyTorch here: its input, output and metadata are checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from picosam2._files import scratch_folder
from picosam2.errors import ConfigError, require
from picosam2.export.device import PixelNetwork
from picosam2.export.onnx import ExportError, described
from picosam2.images import PAD_RGB
from picosam2.models.network import PicoSAM2, without_guidance
from picosam2.runtimes._silence import silenced
from picosam2.runtimes.metadata import METADATA_KEY

FILE = {
    "runtime": "coreml",
    "input": "image: a crop of SxS pixels, RGB",
    "output": "logits: (1, K, S', S') float32; a mask is logits > 0",
}


def export_coreml(
    model: PicoSAM2, path: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Path:
    """Write `model` as an ML program in float16 to the folder `path`, whole or not at all.

    The package takes one crop as an image and normalizes it itself. A branch for guidance is left
    out. The metadata is JSON under the key `picosam2` of the package's own metadata.

    Raises:
        MissingExtraError: the converter is not installed.
        ConfigError: `path` holds something else than such a package.
        ExportError: the package does not take and give what it should.
    """
    path = Path(path)
    if path.exists() and not (path / "Manifest.json").is_file():
        raise ConfigError(
            f"{path} holds something else than a Core ML package: choose another name"
        )
    model = without_guidance(model).eval()
    metadata = described(model, facts or {})
    metadata["preprocessing"] = {"order": "RGB", "range": [0, 255], "pad": PAD_RGB}
    metadata["file"] = FILE
    side, output = model.config.input_size, model.config.output_size
    with silenced():
        coreml = require("coremltools", "coreml")
        example = torch.zeros(1, 3, side, side)
        with torch.inference_mode():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                PixelNetwork(model), example
            )
        made = coreml.convert(
            traced,
            inputs=[
                coreml.ImageType(
                    name="image", shape=tuple(example.shape), color_layout=coreml.colorlayout.RGB
                )
            ],
            outputs=[coreml.TensorType(name="logits", dtype=np.float32)],
            minimum_deployment_target=coreml.target.iOS16,
            compute_precision=coreml.precision.FLOAT16,
            convert_to="mlprogram",
            skip_model_load=True,
        )
        made.user_defined_metadata[METADATA_KEY] = json.dumps(metadata, sort_keys=True)
        description = made.get_spec().description
        (pixels,), (answer,) = description.input, description.output
        image, logits = pixels.type.imageType, tuple(answer.type.multiArrayType.shape)
        if (image.height, image.width) != (side, side) or logits not in (
            (),
            (1, model.config.logits, output, output),
        ):
            raise ExportError(
                f"the package takes {image.height}x{image.width} pixels and gives {logits}: keep "
                "the old one and report this"
            )
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.absolute().parent, f".{path.stem[:64]}-") as folder:
            unfinished = folder / "network.mlpackage"
            made.save(str(unfinished))
            if path.exists():
                path.rename(folder / "before.mlpackage")
            unfinished.rename(path)
    return path
