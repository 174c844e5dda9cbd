"""The public surface, and the rings: what may be imported must stay light."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import pytest

import picosam2
from picosam2 import samples
from picosam2.prompts import Point

PUBLIC = [
    "Box",
    "PicoSAM2Error",
    "Point",
    "Predictor",
    "Prompt",
    "PromptWarning",
    "Segmentation",
    "Window",
    "load_image",
    "overlay",
    "sample",
    "segment",
]

# Every module beside these in the package itself belongs to ring 1; folders are ring 2 and 3.
RING_2 = {"backbone", "checkpoint", "costs", "model", "torch_runtime"}
RING_1 = sorted(
    path.stem
    for path in Path(picosam2.__file__).parent.glob("*.py")
    if path.stem not in RING_2 | {"__init__", "__main__"}
)

# Ring 1 stands on NumPy and Pillow; onnxruntime comes in when weights are opened.
HEAVY = {
    "torch", "onnx", "onnxruntime", "pycocotools", "matplotlib", "rich", "cyclopts", "safetensors",
    "scipy", "cv2", "openvino", "ai_edge_litert", "litert_torch", "executorch",
}  # fmt: skip


def imported_by(code: str) -> tuple[set[str], float]:
    """The top-level packages that a fresh Python has after `code`, and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    modules = json.loads(done.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in modules}, seconds


def test_the_surface_is_frozen():
    assert picosam2.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(picosam2))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_what_its_module_has(name):
    value = getattr(picosam2, name)
    assert value is getattr(import_module(value.__module__), name)
    assert value.__doc__


def test_the_version_is_the_package_s():
    assert picosam2.__version__ == metadata.version("picosam2")


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = picosam2.Predicter


def test_importing_the_package_imports_nothing_else():
    packages, seconds = imported_by("import picosam2")
    print(f"import picosam2, with starting Python: {seconds:.3f} s")
    assert not packages & (HEAVY | {"numpy", "PIL"})


def test_ring_1_imports_only_numpy_and_pillow():
    code = "\n".join(f"import picosam2.{name}" for name in RING_1)
    packages, seconds = imported_by(code + "\nfrom picosam2 import *")
    print(f"all of ring 1, with starting Python: {seconds:.3f} s")
    assert not packages & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["segment", "--help"], ["train", "--help"], ["data", "--help"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments):
    code = f"from picosam2.cli.main import run\nassert run({arguments!r}) == 0"
    packages, seconds = imported_by(code)
    print(f"picosam2 {' '.join(arguments)}, with starting Python: {seconds:.3f} s")
    assert not packages & (HEAVY - {"rich", "cyclopts"} | {"numpy", "PIL"})


def test_the_sample():
    picture, objects = samples.sample(), samples.sample_objects()
    assert picture.shape == (480, 640, 3)
    assert picture.dtype == np.uint8
    assert len(objects) >= 5
    for one in objects:
        assert one.mask.shape == (480, 640)
        assert one.mask[int(one.point.y), int(one.point.x)]


def test_segment_in_one_call(tiny_onnx):
    found = picosam2.segment(picosam2.sample(), points=[(353, 349)], weights=tiny_onnx)
    assert len(found) == 1
    assert found[0].mask.shape == (480, 640)
    assert found[0].prompt.points == (Point(353, 349),)
