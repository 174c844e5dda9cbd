"""The networks of the sensor's study, which lie beside it: `tools/studies/variants.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "studies"))

from variants import (
    ACTIVATIONS,
    ATTENTIONS,
    DOWNS,
    HEADS,
    STEMS,
    UPS,
    Variant,
    VariantConfig,
    iou_loss,
)

__all__ = [
    "ACTIVATIONS", "ATTENTIONS", "DOWNS", "HEADS", "STEMS", "UPS", "Variant", "VariantConfig",
    "iou_loss",
]  # fmt: skip
