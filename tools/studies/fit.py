"""Does a network fit too little or too much? IoU on training objects beside held-out ones.

    python tools/studies/fit.py --store STORE --weights default RUN/weights.safetensors

IoU of mask and truth on the plain crops of a view of the store (`--view`), for the same random
objects of its training and its validation part; of all sources, and of `--source` alone. The last
column is the difference on the held-out objects to the first weights, and its standard error.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from picosam2.cli._exit_codes import run_script
from picosam2.data.augment import NO_AUGMENT, Draws, augment
from picosam2.data.store import Store
from picosam2.models.checkpoint import load_weights
from picosam2.models.devices import autocast
from picosam2.models.network import PicoSAM2, channel
from picosam2.runtimes.weights import find_weights

BATCH = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", required=True, help="shipped names or files")
    parser.add_argument("--view", default="box")
    parser.add_argument("--source", default="coco")
    parser.add_argument("--objects", type=int, default=1200, help="of each part, at most")
    parser.add_argument("--size", type=int, help="side of the crops, if not the network's")
    parser.add_argument("--cut", type=float, default=0.0, help="logits above it are the mask")
    parser.add_argument("--jitter", type=float, default=0.0, help="of the boxes, a share of a side")
    args = parser.parse_args()
    store = Store(args.store)
    records = store.records
    of_view = records["view"] == store.view_names.index(args.view)
    of_source = np.array([name == args.source for name in store.source_names])[records["source"]]
    first: dict[str, npt.NDArray[np.float64]] = {}
    print("| weights | objects | training | held out | held out, difference |")
    print("|---|---|--:|--:|--:|")
    for name in args.weights:
        model = load_weights(find_weights(name, "torch"))
        for kind, wanted in (("all", of_view), (args.source, of_view & of_source)):
            cells = []
            for part in (~records["validation"], records["validation"]):
                rows = np.flatnonzero(wanted & part)
                count = min(len(rows), args.objects)
                chosen = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
                values = 100 * ious(model, store, chosen, args.size, args.jitter, args.cut)
                cells.append(f"{values.mean():.1f} ({count})" if count else "- (0)")
            more = values - first.setdefault(kind, values)
            spread = more.std() / len(more) ** 0.5 if len(more) else 0.0
            cells.append(f"{more.mean():+.2f} ± {spread:.2f}" if len(more) else "-")
            label = Path(name).parent.name if "/" in name else name
            print(f"| {label} | {kind} | " + " | ".join(cells) + " |", flush=True)


def ious(
    model: PicoSAM2,
    store: Store,
    rows: npt.NDArray[np.int64],
    size: int | None = None,
    jitter: float = 0.0,
    cut: float = 0.0,
) -> npt.NDArray[np.float64]:
    """The IoU (N,) of mask and truth of rows (N,), on plain crops; boxes are jittered the same."""
    config = replace(NO_AUGMENT, box_jitter=jitter)
    values: list[float] = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        windows, kind = store.records["window"][some], torch.from_numpy(store.kinds[some])
        crops = augment(
            torch.from_numpy(store.gather(some)),
            torch.from_numpy((windows[:, 2:] - windows[:, :2]) / 2).float(),
            kind,
            Draws.of(len(some), torch.Generator().manual_seed(start)),
            config,
            size or model.config.input_size,
        )
        with torch.inference_mode(), autocast("cpu", "bf16"):
            logits = channel(model(crops.image_B3SS)["logits"], kind)
        covered = F.adaptive_avg_pool2d(crops.target_BSS, logits.shape[-1])
        mask, truth = logits > cut, covered > 0.5
        either = (mask | truth).sum((1, 2)).clamp_min(1)
        values += ((mask & truth).sum((1, 2)) / either).tolist()
    return np.array(values)


if __name__ == "__main__":
    run_script(main)
