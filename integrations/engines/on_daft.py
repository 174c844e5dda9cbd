"""Segment the images of Parquet files with Daft.

    python on_daft.py --input images.parquet --out masks/ --workers 8

Each row has a key, an image (bytes or a path) and its boxes, points or prompts. The result is
Parquet, too. Run again after an interruption, it leaves out the keys that are in --out already.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # or it reports to its makers

try:
    import daft
    import pyarrow
    import pyarrow.parquet
    from daft import DataType
    from daft.exceptions import DaftCoreException

    from picosam2 import PicoSAM2Error
    from picosam2.tasks.batch import PROMPTS, RESULTS, BatchSegmenter
except ModuleNotFoundError as error:
    print(
        f"{error.name} is not installed: run `pip install . pyarrow daft` "
        "in a copy of the repository",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

NUMBER = DataType.float64()
RESULT = DataType.struct(
    {
        "size": DataType.list(DataType.int64()),
        "rle": DataType.list(DataType.string()),
        "box": DataType.list(DataType.list(NUMBER)),
        "score": DataType.list(NUMBER),
        "error": DataType.string(),
    }
)
"""The columns of `BatchSegmenter`, as one column of Daft."""


def segment(
    rows: daft.DataFrame, *, key: str, workers: int, weights: str = "default", batch: int = 16
) -> daft.DataFrame:
    """The key and the results of each row: a frame that Daft computes when it is asked to."""
    names = ["image", *(name for name in PROMPTS if name in rows.column_names)]

    @daft.cls(max_concurrency=workers, use_process=True)
    class Segmenter:
        """One of the workers."""

        def __init__(self) -> None:
            self.segment = BatchSegmenter(weights)

        @daft.method.batch(return_dtype=RESULT, batch_size=batch)
        def __call__(self, *columns: daft.Series) -> list[dict[str, object]]:
            values = {name: column.to_pylist() for name, column in zip(names, columns, strict=True)}
            answer = self.segment(values)
            return [
                dict(zip(RESULTS, row, strict=True))
                for row in zip(*(answer[name] for name in RESULTS), strict=True)
            ]

    result = Segmenter()(*(daft.col(name) for name in names))
    rows = rows.select(key, result.alias("result"))
    return rows.select(key, *(daft.col("result").get(name).alias(name) for name in RESULTS))


def write(batches: Iterable[pyarrow.RecordBatch], folder: Path, rows: int) -> None:
    """Write results as they come, in files of so many rows; each is either whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting: list[pyarrow.RecordBatch] = []

    def flush() -> None:
        table = pyarrow.Table.from_batches(waiting)
        pyarrow.parquet.write_table(table, folder / "unfinished")
        (folder / "unfinished").replace(folder / f"{uuid.uuid4().hex}.parquet")
        waiting.clear()

    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= rows:
            flush()
    if waiting:
        flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, help="a Parquet file, or a folder of them")
    parser.add_argument("--out", required=True, help="the folder of results")
    parser.add_argument("--key", default="key", help="the column that tells rows apart")
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--rows", type=int, default=256, help="of a file of results")
    options = parser.parse_args()
    if min(options.workers, options.rows) < 1:
        parser.error("--workers and --rows must be 1 or more")
    try:
        segmenter = BatchSegmenter(options.weights, keep=[options.key])
        rows = daft.read_parquet(options.input)
        segmenter.prompt_columns(rows.column_names)
    except (PicoSAM2Error, OSError, DaftCoreException) as error:
        parser.error(f"--input {options.input}: {error}")
    if any(Path(options.out).glob("*.parquet")):
        done = daft.read_parquet(options.out).select(options.key)
        rows = rows.join(done, on=options.key, how="anti")
    results = segment(rows, key=options.key, workers=options.workers, weights=options.weights)
    write(results.to_arrow_iter(), Path(options.out), options.rows)
    print(f"segmented into {options.out}")


if __name__ == "__main__":
    main()
