"""The programs for Ray Data, Spark and Daft: two workers give what one process gives."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from picosam2.io.sample_image import sample_bytes
from picosam2.tasks.batch import BatchSegmenter

ENGINES = Path(__file__).parents[2] / "integrations" / "engines"
PACKAGES = {"on_ray": "ray", "on_spark": "pyspark", "on_daft": "daft"}

pytestmark = pytest.mark.slow


def run(engine: str, source: Path, out: Path) -> None:
    command = [sys.executable, ENGINES / f"{engine}.py"]
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[2] pyspark-shell",
    }
    ended = subprocess.run(
        [*command, "--input", source, "--out", out, "--workers", "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.parametrize("engine", sorted(PACKAGES))
def test_two_workers_give_the_masks_of_one_process_and_do_nothing_twice(
    engine: str, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    if importlib.util.find_spec(PACKAGES[engine]) is None:
        pytest.skip(f"the Python package {PACKAGES[engine]} is not installed")
    rows: list[dict[str, Any]] = [
        {
            "key": f"{number:03}",
            "image": [sample_bytes(), None, sample_bytes()[:2000]][number % 3],
            "boxes": [[310.0, 303.0, 396.0 - number, 394.0], [5.0, 5.0, 60.0, 40.0 + number]],
        }
        for number in range(6)
    ]

    def read() -> dict[str, Any]:
        table = parquet.read_table(tmp_path / "out")
        assert len(table) == len(set(table["key"].to_pylist()))
        return {row["key"]: row for row in table.to_pylist()}

    expected = BatchSegmenter(keep=["key"])(pyarrow.Table.from_pylist(rows))
    source = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows[:4]), source)
    run(engine, source, tmp_path / "out")
    assert read() == {row["key"]: row for row in expected.to_pylist()[:4]}
    written = set((tmp_path / "out").rglob("*.parquet"))
    parquet.write_table(pyarrow.Table.from_pylist(rows), source)
    run(engine, source, tmp_path / "out")
    assert read() == {row["key"]: row for row in expected.to_pylist()}
    assert written <= set((tmp_path / "out").rglob("*.parquet"))
