"""Where torch computes, and in which numbers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="devices are torch's")

from picosam2.models.devices import autocast, computes_bf16  # noqa: E402


@pytest.mark.parametrize(
    ("capability", "quick"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)]
)
def test_a_processor_that_is_slow_in_bf16_computes_in_fp32(
    capability: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert computes_bf16("cpu") == quick
    assert computes_bf16("cuda:0")
    layer = torch.nn.Linear(2, 2)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast("cpu", precision):
            assert layer(torch.zeros(1, 2)).dtype == (kind if quick else torch.float32)
