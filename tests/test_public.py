"""The public surface, and what importing it may cost."""

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
from picosam2.io.sample_image import sample_objects
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
    "finetune",
    "load_image",
    "overlay",
    "sample",
    "segment",
]

PACKAGE = Path(picosam2.__file__).parent
NEEDS_TORCH = {"runtimes.torch"}
LIGHT_ROOMS = ("masks", "io", "runtimes", "tasks")


def light_modules() -> list[str]:
    """The modules that the base install imports: those of the root, and of the rooms below."""
    files = [
        *PACKAGE.glob("*.py"),
        *(f for room in LIGHT_ROOMS for f in (PACKAGE / room).rglob("*.py")),
    ]
    names = {".".join(f.relative_to(PACKAGE).with_suffix("").parts) for f in files}
    return sorted(
        name.removesuffix(".__init__") for name in names - NEEDS_TORCH - {"__init__", "__main__"}
    )


# They stand on NumPy and Pillow; onnxruntime comes in when weights are opened.
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


def test_light_modules_import_only_numpy_and_pillow():
    names = light_modules()
    assert {"geometry", "masks.ops", "io.sample_image", "runtimes.onnx"} <= set(names)
    code = "\n".join(f"import picosam2.{name}" for name in names)
    packages, seconds = imported_by(code + "\nfrom picosam2 import *")
    print(f"all light modules, with starting Python: {seconds:.3f} s")
    assert not packages & HEAVY


def test_the_root_holds_few_modules():
    """The root is the path of a pixel; what else there is has a room."""
    modules = sorted(path.stem for path in PACKAGE.glob("*.py"))
    assert len(modules) <= 14, modules


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
    image, objects = picosam2.sample(), sample_objects()
    assert image.shape == (480, 640, 3)
    assert image.dtype == np.uint8
    assert len(objects) >= 5
    for item in objects:
        assert item.mask.shape == (480, 640)
        assert item.mask[int(item.point.y), int(item.point.x)]


def test_segment_in_one_call(tiny_onnx):
    segmentation = picosam2.segment(picosam2.sample(), points=[(353, 349)], weights=tiny_onnx)
    assert len(segmentation) == 1
    assert segmentation[0].mask.shape == (480, 640)
    assert segmentation[0].prompt.points == (Point(353, 349),)
