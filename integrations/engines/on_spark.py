"""Segment the images of Parquet files with Spark.

    spark-submit on_spark.py --input images.parquet --out masks/

Each row has a key, an image (bytes or a path) and its boxes, points or prompts. The result is
Parquet, too. Run again after an interruption, it leaves out the keys that are in --out already.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import pandas
    from pyspark.errors import AnalysisException
    from pyspark.sql import DataFrame, SparkSession

    from picosam2 import PicoSAM2Error
    from picosam2.tasks.batch import PROMPTS, BatchSegmenter
except ModuleNotFoundError as error:
    print(
        f"{error.name} is not installed: run `pip install . pandas pyarrow pyspark` "
        "in a copy of the repository",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

RESULTS = (
    "size array<int>, rle array<string>, box array<array<double>>, "
    "score array<double>, error string"
)
"""The columns of `BatchSegmenter`, in Spark's words."""


def segment(rows: DataFrame, *, key: str, weights: str = "default") -> DataFrame:
    """The key and the results of each row: a frame that Spark computes when it is asked to."""
    segmenter = BatchSegmenter(weights, keep=[key])

    def work(frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        return map(segmenter, frames)

    kind = rows.schema[key].dataType.simpleString()
    columns = [key, "image", *(name for name in PROMPTS if name in rows.columns)]
    return rows.select(columns).mapInPandas(work, f"`{key}` {kind}, {RESULTS}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, help="a Parquet file, or a folder of them")
    parser.add_argument("--out", required=True, help="the folder of results")
    parser.add_argument("--key", default="key", help="the column that tells rows apart")
    parser.add_argument("--workers", type=int, default=1, help="at least so many parts of the work")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--rows", type=int, default=256, help="of a part, a file of results")
    options = parser.parse_args()
    if min(options.workers, options.rows) < 1:
        parser.error("--workers and --rows must be 1 or more")
    spark = (
        SparkSession.builder.appName("picosam2")
        # Batches of images: the default of 10,000 rows would fill the memory.
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "16")
        # The results of a part are kept when it is done, and not only when all parts are.
        .config("spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version", "2")
        .getOrCreate()
    )
    try:
        segmenter = BatchSegmenter(options.weights, keep=[options.key])
        rows = spark.read.parquet(options.input)
        segmenter.prompt_columns(rows.columns)
    except (PicoSAM2Error, AnalysisException) as error:
        parser.error(f"--input {options.input}: {error}")
    if any(Path(options.out).glob("*.parquet")):
        done = spark.read.parquet(options.out).select(options.key)
        rows = rows.join(done, options.key, "left_anti")
    rows = rows.repartition(max(rows.count() // options.rows, options.workers))
    results = segment(rows, key=options.key, weights=options.weights)
    results.write.mode("append").parquet(options.out)
    spark.stop()
    print(f"segmented into {options.out}")


if __name__ == "__main__":
    main()
