"""Counting what a network costs, against numbers worked out by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from picosam2.models.costs import stage_costs
from picosam2.models.network import ModelConfig, PicoSAM2


def test_the_network_of_the_paper():
    costs = stage_costs(PicoSAM2())
    assert sum(one.parameters for one in costs) == 1_262_818
    assert round(sum(one.macs for one in costs) / 1e6, 1) == 323.1
    assert [one.name for one in costs[:2]] == ["encoder 1", "down 1"]
    assert costs[0].shape == (48, 96, 96)
    assert costs[-1].shape == (1, 96, 96)


def test_a_stage_by_hand():
    first = stage_costs(PicoSAM2(ModelConfig(widths=(8,), bottleneck=4, decoder=(6,))))[0]
    # Depthwise 3x3 on 3 channels and pointwise to 8, each with scale and shift of a batch norm.
    assert first.parameters == 3 * 9 + 2 * 3 + 3 * 8 + 2 * 8
    assert first.macs == 96 * 96 * (3 * 9 + 3 * 8)
    assert first.activations == 96 * 96 * (3 + 8)
    assert first.bytes(4) == 4 * first.bytes(1) == 4 * first.activations


def test_every_variant_adds_up():
    config = ModelConfig(
        stem="stride2", attention="channel", heads=("iou",), input_size=192, logits=2
    )
    model = PicoSAM2(config)
    costs = {one.name: one for one in stage_costs(model)}
    assert sum(one.parameters for one in costs.values()) == sum(
        p.numel() for p in model.parameters()
    )
    assert costs["stem"].shape == (24, 96, 96)
    assert costs["attention"].macs == 2 * 320 * 20
    assert costs["iou head"].shape == (2,)


def test_products_of_activations_are_counted():
    (attention,) = [
        one
        for one in stage_costs(PicoSAM2(ModelConfig(attention="self")))
        if one.name == "attention"
    ]
    # At 6x6: query, key and value, then every place with every other, twice.
    assert attention.macs == 36 * 320 * (40 + 40 + 320) + 36 * 36 * (40 + 320)
    assert attention.activations == 36 * (40 + 40 + 320) + 36 * 36 + 36 * 320


def test_pools_write_but_do_not_multiply():
    config = ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6,), down="maxpool", input_size=32)
    costs = {one.name: one for one in stage_costs(PicoSAM2(config))}
    assert (costs["down 1"].macs, costs["down 1"].parameters) == (0, 0)
    assert costs["down 1"].shape == (4, 16, 16)
    assert costs["down 1"].activations == 4 * 16 * 16
    assert costs["head"].shape == (1, 16, 16)  # before it is enlarged
    assert "decoder 2" not in costs


def test_the_model_is_only_read():
    model = PicoSAM2(ModelConfig(widths=(4,), bottleneck=4, decoder=(4,))).train()
    stage_costs(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
