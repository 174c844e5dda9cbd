"""Counting what a network costs, against numbers worked out by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from picosam2.models.costs import stage_costs
from picosam2.models.network import ModelConfig, PicoSAM2


def test_the_network_of_the_paper():
    costs = stage_costs(PicoSAM2())
    assert sum(stage.parameters for stage in costs) == 1_262_818
    assert round(sum(stage.macs for stage in costs) / 1e6, 1) == 323.1
    assert [stage.name for stage in costs[:2]] == ["encoder 1", "down 1"]
    assert costs[0].shape == (48, 96, 96)
    assert costs[-1].shape == (1, 96, 96)


def test_a_stage_by_hand():
    first = stage_costs(PicoSAM2(ModelConfig(widths=(8,), bottleneck=4, decoder=(6,))))[0]
    # Depthwise 3x3 on 3 channels and pointwise to 8, each with scale and shift of a batch norm.
    assert first.parameters == 3 * 9 + 2 * 3 + 3 * 8 + 2 * 8
    assert first.macs == 96 * 96 * (3 * 9 + 3 * 8)
    assert first.activations == 96 * 96 * (3 + 8)
    assert first.bytes(4) == 4 * first.bytes(1) == 4 * first.activations


def test_the_model_is_only_read():
    model = PicoSAM2(ModelConfig(widths=(4,), bottleneck=4, decoder=(4,))).train()
    stage_costs(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
