"""ONNX Runtime, OpenVINO and others report to nobody, unless the user says that they may."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import picosam2

SRC = Path(picosam2.__file__).parent
RUN = """
import os, sys
import picosam2
masks = picosam2.segment(picosam2.sample(), points=[(353, 349)])
assert masks[0].area > 0
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def in_home(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "HOME": str(home), "USERPROFILE": str(home), **variables},
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", RUN),
        ("-m", "picosam2", "segment", "sample.jpg", "--point", "353,349", "--out", "out.png"),
    ],
    ids=["python", "command"],
)
def test_a_run_leaves_the_home_folder_untouched(arguments: tuple[str, ...], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    from picosam2.io.sample_image import sample_bytes

    (tmp_path / "sample.jpg").write_bytes(sample_bytes())
    in_home(home, *arguments)
    assert list(home.rglob("*")) == []


def test_who_allows_it_is_obeyed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import os\n"
        "from picosam2.runtimes.ort import import_onnxruntime\n"
        "import_onnxruntime(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert in_home(home, "-c", code).stdout == "1\n"
    assert in_home(home, "-c", code, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"


OPENVINO = """
import sys
import picosam2
from picosam2 import Predictor
masks = Predictor(runtime="openvino")(picosam2.sample(), points=[(353, 349)])
assert masks[0].area > 0
assert not any("openvino_telemetry" in name for name in sys.modules)
"""


def test_openvino_leaves_the_home_folder_untouched(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    home = tmp_path / "home"
    home.mkdir()
    in_home(home, "-c", OPENVINO, CI="")  # it reports from no CI
    assert list(home.rglob("*")) == []


LABELME = """
import numpy as np
from picosam2.apps.labelme import register
model = register()()
import osam, picosam2
prompt = osam.types.Prompt(points=np.array([[353, 349]]), point_labels=np.array([1]))
request = osam.types.GenerateRequest(
    model="picosam2:latest", image=picosam2.sample(), prompt=prompt
)
assert model.generate(request).annotations
"""


def test_label_tools_that_import_it_themselves_leave_the_home_folder_untouched(
    tmp_path: Path,
) -> None:
    pytest.importorskip("osam", reason="osam is an extra")
    home = tmp_path / "home"
    home.mkdir()
    in_home(home, "-c", LABELME)
    assert list(home.rglob("*")) == []


MODULES = """
import importlib, os, pkgutil, sys
import picosam2.errors
import picosam2
for module in pkgutil.walk_packages(picosam2.__path__, "picosam2."):
    if module.name != "picosam2.__main__":
        try:
            importlib.import_module(module.name)
        except (ImportError, picosam2.errors.MissingExtraError):  # an extra is not installed
            pass
assert "onnxruntime" not in sys.modules or os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""


def test_no_module_imports_it_through_another_package(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    in_home(home, "-c", MODULES)
    assert not list(home.rglob("*onnxruntime*"))


def test_everything_imports_it_in_one_place() -> None:
    collected = {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        if re.search(r"^\s*(import onnxruntime|from onnxruntime)", path.read_text(), re.MULTILINE)
    }
    # The worker runs in the tools' own environment, without this package, and does the same.
    assert collected == {"export/imx500/worker.py"}
    assert "ORT_DISABLE_TELEMETRY" in (SRC / "export/imx500/worker.py").read_text()


@pytest.mark.parametrize(
    ("program", "package", "variable"),
    [
        ("gradio/app.py", "gradio", "GRADIO_ANALYTICS_ENABLED"),
        ("engines/on_ray.py", "ray", "RAY_USAGE_STATS_ENABLED"),
        ("engines/on_daft.py", "daft", "DAFT_ANALYTICS_ENABLED"),
    ],
)
def test_programs_beside_the_package_keep_others_from_reporting(
    program: str, package: str, variable: str
) -> None:
    """The variable is set, unless the user has set it, before the package is imported."""
    text = (Path(__file__).parents[2] / "integrations" / program).read_text()
    before, *after = re.split(rf"(?m)^ *import {package}\b", text, maxsplit=1)
    assert f'os.environ.setdefault("{variable}", ' in before
    assert after
