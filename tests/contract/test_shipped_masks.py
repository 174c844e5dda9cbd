"""The masks of the shipped weights are those recorded in `tests/golden/masks.json`.

On the processor that recorded them they are the same to the bit. Others add floating-point numbers
in another order, which may turn a pixel whose logit is nearly zero: five in a mask are allowed.
An x86 processor without VNNI rounds 8-bit sums elsewhere: two in a thousand of a mask may turn.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from picosam2 import masks
from picosam2.predictor import Predictor
from picosam2.runtimes.onnx import _overflows
from picosam2.runtimes.weights import shipped
from tests.golden import make_masks

RECORDED = json.loads(make_masks.FILE.read_text())


@pytest.mark.parametrize("weights", make_masks.WEIGHTS)
def test_masks_are_as_recorded(weights: str) -> None:
    if weights not in shipped():
        pytest.skip(f"no weights {weights} are shipped yet")
    recorded = RECORDED[weights]
    predictor = Predictor(weights, threads=1)
    assert predictor.runtime.info.weights_sha256 == recorded["sha256"], (
        "other weights are shipped now: run python tests/golden/make_masks.py"
    )
    answers = make_masks.answers(predictor)
    assert answers.keys() == recorded["masks"].keys()
    for name, segmentation in answers.items():
        expected = recorded["masks"][name]
        size = list(segmentation.mask.shape)
        mask = masks.rle_decode({"size": size, "counts": expected["counts"]})
        allowed = max(5, 0.002 * mask.sum()) if weights.endswith("-int8") and _overflows() else 5
        assert np.count_nonzero(mask != segmentation.mask) <= allowed, name
        assert segmentation.score == pytest.approx(expected["score"], abs=1e-3), name
