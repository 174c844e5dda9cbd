"""Networks of a few thousand parameters that stand for all kinds, by name."""

from __future__ import annotations

from pathlib import Path

from picosam2.models.encoders import ENCODERS, Lite, lite_encoder
from picosam2.models.network import ModelConfig

TINY_LITE = Lite(
    "a small EfficientNet-Lite", "none", (
        (1, 3, 1, 6, 1), (2, 3, 2, 6, 2), (2, 5, 2, 8, 1), (2, 3, 2, 8, 1), (2, 5, 1, 8, 1),
        (2, 5, 2, 12, 1),
    ), same=False,
)  # fmt: skip
ENCODERS["tiny-lite"] = lite_encoder(TINY_LITE)

CONFIGS = {
    "one channel": ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4)),
    "two channels": ModelConfig(
        widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2, input_size=64
    ),
    "half size": ModelConfig(  # logits of half the crop's side, as of the shipped `default`
        encoder="tiny-lite", widths=TINY_LITE.widths, bottleneck=8, decoder=(8, 8, 6, 4),
        logits=2, input_size=64,
    ),
}  # fmt: skip

GOLDEN = Path(__file__).parents[1] / "golden" / "runtimes"


def golden(name: str, ending: str) -> Path:
    """The file of a configuration that `golden/make_runtimes.py` made."""
    return GOLDEN / f"{name.replace(' ', '-')}{ending}"
