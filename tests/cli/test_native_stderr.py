"""What libraries below Python write on stderr, when a command runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from picosam2.cli._native_stderr import native_stderr_bounded
from tests.helpers.hostile import noisy_fax


def test_one_line_of_it_is_shown() -> None:
    code = (
        "import os, sys\n"
        "from picosam2.cli._native_stderr import native_stderr_bounded\n"
        "with native_stderr_bounded():\n"
        "    print('ours', file=sys.stderr)\n"
        "    os.write(2, b'INFO: kernels for CPU\\n')\n"
        "    for _ in range(20000): os.write(2, b'bad \\x1b[31m row\\n')\n"
        "    print('ours again', file=sys.stderr)\n"
        "os.write(2, b'after\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert sorted(lines[:-1]) == [
        "ours",
        "ours again",
        "picosam2: a library reports: bad \\x1b[31m row (what else libraries report is left out)",
    ]
    assert lines[-1] == "after"


@pytest.mark.parametrize("closed", [True, False])
def test_without_a_stderr(closed: bool) -> None:
    code = (
        "import sys\n"
        "from picosam2.cli._native_stderr import native_stderr_bounded\n"
        f"sys.stderr = None if {closed} else __import__('io').StringIO()\n"
        "with native_stderr_bounded(): print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_errors_pass_and_nothing_stays_open() -> None:
    before = open_files()
    with pytest.raises(ZeroDivisionError), native_stderr_bounded():
        raise ZeroDivisionError
    assert open_files() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_noisy_decoder_of_training_images(workers: int, tmp_path: Path) -> None:
    """Also in the processes that read them."""
    annotation = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 90, 90], "area": 4000,
        "segmentation": [[10, 10, 99, 10, 99, 99]], "iscrowd": 0,
    }  # fmt: skip
    document = {
        "images": [{"id": 1, "file_name": "fax.tif", "height": 8000, "width": 4000}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "fax.tif").write_bytes(noisy_fax())
    (tmp_path / "x.json").write_text(json.dumps(document))
    words = ["data", "prepare", "--source", "x", tmp_path / "x.json", tmp_path, "--context", "64",
             "--workers", workers, "--out", tmp_path / "store"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "picosam2", *map(str, words)], capture_output=True, check=False
    )
    assert b"a library reports: Fax3" in done.stderr
    assert len(done.stderr) < 3000


def test_a_noisy_decoder(tmp_path: Path, tiny_onnx: Path) -> None:
    path = tmp_path / "fax.tif"
    path.write_bytes(noisy_fax())
    words = ["segment", path, "--point", "9,9", "--weights", tiny_onnx, "-o", tmp_path / "m.png"]
    done = subprocess.run(
        [sys.executable, "-m", "picosam2", *map(str, words)], capture_output=True, check=False
    )
    assert b"a library reports: Fax3" in done.stderr
    assert len(done.stderr) < 2000
