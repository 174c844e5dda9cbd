"""What do compressed crops cost? Bytes, reading speed and mIoU of raw and of jpeg stores.

Two stores are made of the same images, one of each format. The shipped weights then segment the
box windows of the same objects from both; a paired bootstrap over objects gives the difference.

    python benchmarks/crop_formats.py --annotations instances_train2017.json --images train2017
"""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import torch

from picosam2.cli._exit_codes import run_script
from picosam2.data.augment import NO_AUGMENT, Draws, augment
from picosam2.data.crop_files import CROP_FORMATS
from picosam2.data.store import BOX, SourceFiles, Store, StoreConfig, prepare
from picosam2.models.checkpoint import load_weights
from picosam2.runtimes.weights import find_weights


def seconds(store: Store, rows: np.ndarray) -> float:
    """The time to read `rows` with one thread."""
    begin = time.perf_counter()
    store.gather(rows)
    return time.perf_counter() - begin


@torch.inference_mode()
def ious(store: Store, rows: np.ndarray, model: torch.nn.Module, size: int) -> np.ndarray:
    """The IoU of the network's masks with the true ones, in the plain windows of `rows`."""
    values = []
    for chunk in np.array_split(rows, max(1, len(rows) // 32)):
        windows = store.records["window"][chunk]
        half = torch.from_numpy((windows[:, 2:] - windows[:, :2]) / 2).float()
        draws = Draws.of(len(chunk), torch.Generator().manual_seed(0))
        kind = torch.from_numpy(store.kinds[chunk])
        batch = augment(
            torch.from_numpy(store.gather(chunk)), half, kind, draws, NO_AUGMENT, size, None
        )
        mask_BSS = model(batch.image_B3SS)["logits"][:, BOX] > 0
        truth_BSS = batch.target_BSS > 0.5
        if mask_BSS.shape != truth_BSS.shape:
            truth_BSS = torch.nn.functional.adaptive_avg_pool2d(
                batch.target_BSS, mask_BSS.shape[-1]
            ) > 0.5  # fmt: skip
        both = (mask_BSS & truth_BSS).sum((1, 2))
        values.append(both / (mask_BSS | truth_BSS).sum((1, 2)).clamp(min=1))
    return torch.cat(values).numpy()


def main() -> None:
    """Make the stores, measure, print."""
    command = ArgumentParser(description=__doc__)
    command.add_argument("--annotations", type=Path, required=True)
    command.add_argument("--images", type=Path, required=True)
    command.add_argument("--count", type=int, default=120)
    command.add_argument("--context", type=int, default=288)
    options = command.parse_args()
    source = SourceFiles(annotations=options.annotations, images=options.images)
    model = load_weights(find_weights("default", "torch")).eval()
    rng = np.random.default_rng(0)
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for crops in CROP_FORMATS:
            path = Path(folder) / crops
            config = StoreConfig(context=options.context, crops=crops, limit=options.count)
            prepare([source], path, config)
            store = Store(path)
            size = sum(file.stat().st_size for file in path.glob("shard-*.crops.*"))
            rows = rng.integers(0, len(store), 400)
            seconds(store, rows)  # the disk's part is not measured
            speed = len(rows) / seconds(store, rows)
            boxes = np.flatnonzero(store.records["view"] == store.view_names.index("box"))
            scores[crops] = ious(store, boxes, model, size=192)
            print(f"{crops}: {size / len(store):,.0f} bytes a crop, {speed:,.0f} crops/s read, "
                  f"mIoU {scores[crops].mean():.4f} of {len(boxes):,} box windows")  # fmt: skip
    difference = scores["jpeg"] - scores["raw"]
    draws = difference[rng.integers(0, len(difference), (2000, len(difference)))].mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    print(f"jpeg - raw: {difference.mean():+.4f} mIoU ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    run_script(main)
