"""Segment the images of Parquet files with Ray Data.

    python on_ray.py --input photos.parquet --out masks/ --workers 8

Each row has a key, an image (bytes or a path) and its boxes, points or prompts. The result is
Parquet, too. Run again after an interruption, it leaves out the keys that are in --out already.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it reports to its makers

import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet
import ray

from picosam2.tasks.batch import BatchSegmenter


def segment(
    source: str, out: str, *, key: str, workers: int, weights: str = "default", rows: int = 16
) -> None:
    """Segment the rows whose keys are not in `out` yet.

    Args:
        source: a Parquet file, or a folder of them.
        out: the folder of results.
        key: the column that tells rows apart.
        workers: processes, one core each.
        weights: a shipped name or a path.
        rows: of a batch, and of a file of results.
    """
    BatchSegmenter(weights)  # says at once if there are no such weights
    done = pyarrow.array(sorted(done_keys(Path(out), key)))
    # Blocks are what workers share out, and what an interruption does not lose.
    blocks = max(pyarrow.dataset.dataset(source).count_rows() // rows, workers)
    data = ray.data.read_parquet(source, override_num_blocks=blocks)
    if len(done):

        def left(batch: pyarrow.Table) -> pyarrow.Table:
            known = pyarrow.compute.is_in(batch[key], value_set=done.cast(batch[key].type))
            return batch.filter(pyarrow.compute.invert(known))

        data = data.map_batches(left, batch_format="pyarrow", zero_copy_batch=True)
    data.map_batches(
        BatchSegmenter,
        fn_constructor_kwargs={"weights": weights, "keep": [key]},
        batch_format="pyarrow",
        batch_size=rows,
        compute=ray.data.ActorPoolStrategy(size=workers),
        # By Ray's count: with a whole one each, nothing is left for reading and writing.
        num_cpus=0.5,
    ).write_parquet(out)


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
    options = parser.parse_args()
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    segment(
        options.input,
        options.out,
        key=options.key,
        workers=options.workers,
        weights=options.weights,
    )
    print(f"segmented into {options.out}")


if __name__ == "__main__":
    main()
