"""The programs for Ray Data, Spark and Daft: two workers give what one process gives."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from picosam2.io.sample_image import sample_bytes
from picosam2.tasks.batch import BatchSegmenter

ENGINES = Path(__file__).parents[2] / "integrations" / "engines"
PACKAGES = {"on_ray": "ray", "on_spark": "pyspark", "on_daft": "daft"}

pytestmark = pytest.mark.slow


@contextmanager
def started(engine: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The program of an engine at work, from in.parquet to out/; nothing of it stays."""
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell",
    }
    command = [sys.executable, str(ENGINES / f"{engine}.py"), "--input", str(folder / "in.parquet")]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--out", str(folder / "out"), "--workers", "2", *options],
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def run(engine: str, folder: Path, *options: str) -> None:
    with started(engine, folder, *options) as process:
        assert process.wait(900) == 0, (folder / "log").read_text()[-3000:]


@pytest.fixture(params=sorted(PACKAGES))
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("pyarrow.parquet")
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"the Python package {PACKAGES[request.param]} is not installed")
    name: str = request.param
    return name


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "in.parquet")


def by_key(rows: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(rows) == len({row["key"] for row in rows})
    return {row["key"]: row for row in rows}


def read(folder: Path) -> dict[str, Any]:
    import pyarrow.parquet

    files = sorted((folder / "out").glob("*.parquet"))
    return by_key([row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()])


def masks(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a single process gives."""
    import pyarrow

    return by_key(BatchSegmenter(keep=["key"])(pyarrow.Table.from_pylist(rows)).to_pylist())


def test_two_workers_give_the_masks_of_one_process(engine: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "key": f"{number:03}",
            "image": [sample_bytes(), None, sample_bytes()[:2000]][number % 3],
            "boxes": [[310.0, 303.0, 396.0 - number, 394.0], [5.0, 5.0, 60.0, 40.0 + number]],
        }
        for number in range(6)
    ]
    write(tmp_path, rows)
    run(engine, tmp_path)
    assert read(tmp_path) == masks(rows)


def test_a_killed_run_is_continued(engine: str, tmp_path: Path) -> None:
    boxes = [[310.0, 303.0, 396.0, 394.0]] * 6
    rows = [
        {"key": f"{number:03}", "image": sample_bytes(), "boxes": [[n, 3.0, 90.0, 94.0], *boxes]}
        for number, n in enumerate(map(float, range(40)))
    ]
    write(tmp_path, rows)
    out = tmp_path / "out"
    with started(engine, tmp_path, "--rows", "4") as process:
        while not any(out.glob("*.parquet")):
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(2)  # workers that are not in the group end by themselves
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    done = read(tmp_path)
    assert 0 < len(done) < len(rows), "it was not killed in the middle"
    run(engine, tmp_path)
    assert read(tmp_path) == masks(rows)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        (["key", "image"], [], "no column of prompts or points or boxes"),
        (["key", "boxes"], [], "no column 'image'"),
        (["image", "boxes"], [], "no column 'key'"),
        (["key", "image", "boxes"], ["--weights", "nothing"], "no weights named nothing"),
        (["key", "image", "boxes"], ["--workers", "0"], "must be 1 or more"),
        (None, [], "in.parquet"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_starts(
    engine: str, columns: list[str] | None, options: list[str], sentence: str, tmp_path: Path
) -> None:
    if columns is not None:
        row = {"key": "a", "image": sample_bytes(), "boxes": [[1.0, 2.0, 30.0, 40.0]]}
        write(tmp_path, [{name: row[name] for name in columns}])
    with started(engine, tmp_path, *options) as process:
        assert process.wait(300) == 2
    log = (tmp_path / "log").read_text()
    assert sentence in log
    assert "Traceback" not in log
    assert not (tmp_path / "out").exists()
