"""The mean of weights that were trained on from one another ("model soup", Wortsman et al. 2022).

    python tools/studies/average.py RUN/weights.safetensors FINISH/weights.safetensors --out MEAN

MEAN/weights.safetensors is what `picosam2 calibrate` takes, like a run's own; what it says of
itself is what the last of the weights do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from picosam2.models.checkpoint import load_weights, read_tensors, save_weights


def main() -> None:
    """Average the weights that the command line names, equally."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, metavar="MEAN")
    args = parser.parse_args()
    models = [load_weights(path) for path in args.weights]
    if any(model.config != models[0].config for model in models):
        parser.error("the weights are of different networks")
    states = [model.state_dict() for model in models]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[-1].items()
    }
    models[-1].load_state_dict(mean)
    args.out.mkdir(parents=True, exist_ok=True)
    save_weights(args.out / "weights.safetensors", models[-1], read_tensors(args.weights[-1]).info)


if __name__ == "__main__":
    main()
