"""Segment the images of Parquet files with Ray Data.

    python on_ray.py --input images.parquet --out masks/ --workers 8

Each row has a key, an image (bytes or a path) and its boxes, points or prompts. The result is
Parquet, too. Run again after an interruption, it leaves out the keys that are in --out already.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it reports to its makers

try:
    import pyarrow
    import pyarrow.compute
    import pyarrow.dataset
    import pyarrow.parquet
    import ray

    from picosam2 import PicoSAM2Error
    from picosam2.tasks.batch import BatchSegmenter
except ModuleNotFoundError as error:
    print(
        f"{error.name} is not installed: run `pip install . pyarrow 'ray[data]'` "
        "in a copy of the repository",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

BATCH = 16
"""Images that a worker gets at a time."""


def segment(
    source: str, out: str, *, key: str, workers: int, weights: str = "default", rows: int = 256
) -> None:
    """Segment the rows whose keys are not in `out` yet.

    Args:
        source: a Parquet file, or a folder of them.
        out: the folder of results.
        key: the column that tells rows apart.
        workers: processes, one core each.
        weights: a shipped name or a path.
        rows: of a file of results. What is not in a file yet is done again after an interruption.
    """
    done = pyarrow.array(sorted(done_keys(Path(out), key)))
    data = ray.data.read_parquet(source)
    if len(done):

        def left(batch: pyarrow.Table) -> pyarrow.Table:
            known = pyarrow.compute.is_in(batch[key], value_set=done.cast(batch[key].type))
            return batch.filter(pyarrow.compute.invert(known))

        data = data.map_batches(left, batch_format="pyarrow", zero_copy_batch=True)
    # Blocks are what workers share out, and a file comes as one.
    data = data.repartition(target_num_rows_per_block=BATCH)
    # By Ray's count of cores. One is left for the tasks that read, or they would wait for ever.
    share = max(ray.cluster_resources()["CPU"] - 1, 0) / workers
    results = data.map_batches(
        BatchSegmenter,
        fn_constructor_kwargs={"weights": weights, "keep": [key]},
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=int(min(share, 1) * 100) / 100,
    )
    for table in results.iter_batches(batch_size=rows, batch_format="pyarrow"):
        write(table, Path(out))


def write(table: pyarrow.Table, folder: Path) -> None:
    """Write a file of results, which is either whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, folder / "unfinished")
    (folder / "unfinished").replace(folder / f"{uuid.uuid4().hex}.parquet")


def done_keys(folder: Path, key: str) -> set[object]:
    """The keys in a folder of Parquet files, if it is there."""
    keys: set[object] = set()
    for path in sorted(folder.glob("*.parquet")):
        try:
            keys.update(pyarrow.parquet.read_table(path, columns=[key])[key].to_pylist())
        except pyarrow.ArrowInvalid as error:
            raise SystemExit(f"{path} is cut off or no Parquet file: remove it ({error})") from None
    return keys


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
        segmenter.prompt_columns(pyarrow.dataset.dataset(options.input).schema.names)
    except (PicoSAM2Error, OSError, pyarrow.ArrowInvalid) as error:
        parser.error(f"--input {options.input}: {error}")
    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    segment(
        options.input,
        options.out,
        key=options.key,
        workers=options.workers,
        weights=options.weights,
        rows=options.rows,
    )
    print(f"segmented into {options.out}")


if __name__ == "__main__":
    main()
