"""Networks of a few thousand parameters that stand for all kinds, by name."""

from __future__ import annotations

from pathlib import Path

from picosam2.models.network import ModelConfig

CONFIGS = {
    "one channel": ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4)),
    "two channels": ModelConfig(
        widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2, input_size=64
    ),
    "everything": ModelConfig(
        widths=(4, 6, 8), bottleneck=8, decoder=(8, 6, 4), logits=2, input_size=64,
        stem="stride2", attention="channel", heads=("iou",),
    ),
}  # fmt: skip

GOLDEN = Path(__file__).parents[1] / "golden" / "runtimes"


def golden(name: str, ending: str) -> Path:
    """The file of a configuration that `golden/make_runtimes.py` made."""
    return GOLDEN / f"{name.replace(' ', '-')}{ending}"
