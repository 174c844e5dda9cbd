"""The mean of weights that were trained on from one another ("model soup", Wortsman et al. 2022).

    python tools/studies/average.py RUN/weights.safetensors FINISH/weights.safetensors --out MEAN
    python tools/studies/average.py default GUIDED/weights.safetensors --shares 0.3 0.7 --out MEAN

Tensors that some of the weights lack, as a branch for guidance, count as zeros there.
MEAN/weights.safetensors is what `picosam2 calibrate` takes, like a run's own; what it says of
itself is what the last of the weights do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from picosam2.cli._exit_codes import run_script
from picosam2.models.checkpoint import load_weights, read_tensors, save_weights
from picosam2.models.network import without_guidance
from picosam2.runtimes.weights import find_weights


def main() -> None:
    """Average the weights that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", metavar="NAME|FILE")
    parser.add_argument("--shares", type=float, nargs="+", help="of each; equal without it")
    parser.add_argument("--half", action="store_true", help="keep the mean in 16 bits")
    parser.add_argument("--out", type=Path, required=True, metavar="MEAN")
    args = parser.parse_args()
    paths = [find_weights(name, "torch") for name in args.weights]
    shares = args.shares or [1 / len(paths)] * len(paths)
    if len(shares) != len(paths) or abs(sum(shares) - 1) > 1e-6:
        parser.error("give one share for each of the weights; they add up to 1")
    models = [load_weights(path) for path in paths]
    if any(without_guidance(m).config != without_guidance(models[0]).config for m in models):
        parser.error("the weights are of different networks")
    states = [model.state_dict() for model in models]
    mean = {
        name: sum(
            share * state.get(name, torch.zeros_like(tensor))
            for share, state in zip(shares, states, strict=True)
        )
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[-1].items()
    }
    models[-1].load_state_dict(mean)
    args.out.mkdir(parents=True, exist_ok=True)
    made = args.out / "weights.safetensors"
    save_weights(made, models[-1], read_tensors(paths[-1]).info, half=args.half)
    print(made)


if __name__ == "__main__":
    run_script(main)
