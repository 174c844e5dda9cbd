"""The network: a depthwise-separable U-Net on a square RGB crop (PicoSAM2, arXiv 2506.18807).

Shape suffixes: B batch, C channels, H and W rows and columns, K logit channels (one per prompt
kind the network can tell apart), S the crop's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2._config import from_table
from picosam2.errors import ConfigError
from picosam2.geometry import CROP_SIZE
from picosam2.models.encoders import ENCODERS, block

GUIDANCE_PLANES = 3
"""Planes of guidance: the mask so far, positive clicks, negative clicks."""

_GUIDANCE_WIDTH = 12  # channels inside the branch: 708 parameters and 1.9 % of the MACs


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What makes one network differ from another. The default is the paper's."""

    encoder: str = "paper"
    """What the encoder stages are made of; see `ENCODERS`."""
    widths: tuple[int, ...] = (48, 96, 160, 256)
    """Channels of the encoder stages, finest first."""
    bottleneck: int = 320
    """Channels of the coarsest block."""
    decoder: tuple[int, ...] = (192, 128, 80, 40)
    """Channels of the decoder stages, coarsest first; as many as encoder stages."""
    input_size: int = CROP_SIZE
    """Side of the input crop in pixels; a multiple of 16, and of 2 for every halving inside."""
    logits: int = 1
    """Logit channels: 1 for every prompt alike, 2 for one of boxes and one of clicks."""
    guidance: bool = False
    """Whether the network also takes guidance, a mask so far and clicks: see `guidance.planes`."""

    def __post_init__(self) -> None:
        self.check_stages()
        if min(*self.widths, *self.decoder, self.bottleneck, self.logits) < 1:
            raise ConfigError("every width of the network must be at least 1")
        if self.encoder not in ENCODERS:
            raise ConfigError(f"`encoder` must be one of {', '.join(ENCODERS)}")
        fixed = ENCODERS[self.encoder].widths
        if fixed and self.widths != fixed:
            raise ConfigError(f"the encoder {self.encoder} has `widths` {list(fixed)}")
        if self.input_size < self.unit or self.input_size % self.unit:
            raise ConfigError(
                f"`input_size` must be a multiple of {self.unit}, not {self.input_size}"
            )
        if self.guidance and self.stride != 2:
            raise ConfigError(
                "`guidance` needs an encoder whose first convolution has stride 2: use "
                "efficientnet-lite0"
            )

    def check_stages(self) -> None:
        """Refuse stages that do not fit together."""
        if not self.widths or len(self.widths) != len(self.decoder):
            raise ConfigError("`widths` and `decoder` need one number per stage, equally many")

    @property
    def unit(self) -> int:
        """Crops must be a multiple of this many pixels a side."""
        return max(16, self.stride << len(self.widths))

    @property
    def stride(self) -> int:
        """How many crop pixels a logit is wide."""
        return ENCODERS[self.encoder].stride

    @property
    def output_size(self) -> int:
        """Side of the logits."""
        return self.input_size // self.stride

    def build(self) -> PicoSAM2:
        """The network, its weights drawn from torch's random numbers."""
        return PicoSAM2(self)


def guidance_branch(outputs: int) -> nn.Sequential:
    """Guidance planes (B, 3, S, S) to what they add beside the first convolution, at stride 2.

    No bias anywhere and a last layer that starts at zero: guidance of zeros adds nothing, and a
    branch that has not learned yet adds nothing to any guidance.
    """
    first = nn.Conv2d(GUIDANCE_PLANES, _GUIDANCE_WIDTH, 3, stride=2, padding=1, bias=False)
    last = nn.Conv2d(_GUIDANCE_WIDTH, outputs, 1, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.ReLU6(True), last)


def channel(output_BK: Tensor, kind_B: Tensor) -> Tensor:
    """Each sample's channel of an output (B, K, ...): its kind of prompt's, or the only one."""
    if output_BK.shape[1] == 1:
        return output_BK[:, 0]
    return output_BK[torch.arange(len(kind_B), device=kind_B.device), kind_B]


class PicoSAM2(nn.Module):
    """The network. 1,262,818 parameters and 323.1 M convolution MACs as the paper has it."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        stages, downs, channels = ENCODERS[config.encoder].make(config.widths)
        self.encoder, self.down = nn.ModuleList(stages), nn.ModuleList(downs)
        if config.guidance:
            convolution = next(self.encoder[0].children())
            assert isinstance(convolution, nn.Conv2d)
            self.guidance = guidance_branch(convolution.out_channels)
        self.bottleneck = block(channels, config.bottleneck)
        channels = config.bottleneck
        self.decoder, self.skip = nn.ModuleList(), nn.ModuleList()
        for width, skipped in zip(config.decoder, reversed(config.widths), strict=True):
            self.decoder.append(block(channels, width))
            self.skip.append(nn.Conv2d(skipped, width, 1))
            channels = width
        self.head = nn.Conv2d(channels, config.logits, 1)

    def forward(self, image_B3SS: Tensor, guidance_B3SS: Tensor | None = None) -> dict[str, Tensor]:
        """Normalized crops (B, 3, S, S) float32 to {"logits": (B, K, S', S') float32}.

        S' is S, or half of it with an encoder that starts at stride 2. A mask is logits > 0.
        `guidance_B3SS`, float32 in 0..1, is what `guidance.planes` draws, for a network that takes
        it. Without it, or where it is all zeros, the answer is that to the image alone.
        """
        if guidance_B3SS is not None and not self.config.guidance:
            raise ConfigError("this network takes no guidance: use weights that were trained on it")
        x_BCHW = image_B3SS
        skips = []
        for number, (encode, down) in enumerate(zip(self.encoder, self.down, strict=True)):
            if number == 0 and guidance_B3SS is not None:
                x_BCHW = self._guided(x_BCHW, guidance_B3SS)
            else:
                x_BCHW = encode(x_BCHW)
            skips.append(x_BCHW)
            x_BCHW = down(x_BCHW)
        x_BCHW = self.bottleneck(x_BCHW)
        for decode, skip in zip(self.decoder, self.skip, strict=True):
            doubled_BCHW = F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
            x_BCHW = decode(doubled_BCHW) + skip(skips.pop())
        return {"logits": self.head(x_BCHW)}

    def _guided(self, image_B3SS: Tensor, guidance_B3SS: Tensor) -> Tensor:
        """The first stage, with the guidance added after its first batch norm.

        There, and not before it, statistics and folding are those of the image alone.
        """
        convolution, norm, *rest = self.encoder[0].children()
        x_BCHW: Tensor = norm(convolution(image_B3SS)) + self.guidance(guidance_B3SS)
        for layer in rest:
            x_BCHW = layer(x_BCHW)
        return x_BCHW

    @property
    def output_names(self) -> list[str]:
        """The names of what `forward` gives, in order."""
        return ["logits"]

    def stages(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts of the network by name, in the order they run."""
        for number, (encode, down) in enumerate(zip(self.encoder, self.down, strict=True), 1):
            yield f"encoder {number}", encode
            yield f"down {number}", down
        yield "bottleneck", self.bottleneck
        for number, (decode, skip) in enumerate(zip(self.decoder, self.skip, strict=True), 1):
            yield f"decoder {number}", decode
            yield f"skip {number}", skip
        yield "head", self.head


def without_guidance(model: PicoSAM2) -> PicoSAM2:
    """The same network on images alone: what a sensor runs, whose only input is RGB."""
    if not model.config.guidance:
        return model
    plain = replace(model.config, guidance=False).build().train(model.training)
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain


RETIRED: Mapping[str, Any] = {
    "stem": "none", "blocks": 1, "decoder_blocks": 1, "kernel": 3, "activation": "relu",
    "down": "conv", "dilation": 1, "up": "nearest", "attention": "none", "heads": [],
}  # fmt: skip
"""Settings that networks had before, at what every network is now."""


def read_config(table: Any, kind: type[ModelConfig] = ModelConfig) -> ModelConfig:
    """The configuration in a weights file's description, also of an older version.

    Args:
        table: what the file says under "model".
        kind: the configuration's class.

    Raises:
        ConfigError: it is no configuration, or one of a network that is no longer built.
    """
    if not isinstance(table, Mapping):
        return from_table(kind, table, where="model")
    known = {field.name for field in fields(kind)}
    kept = {}
    for name, value in table.items():
        if name in known or name not in RETIRED:
            kept[name] = value
        elif value != RETIRED[name]:
            raise ConfigError(
                f"its network has `{name}` = {value!r}, which this version no longer builds: train "
                "it again, or use the version that it was trained with"
            )
    return from_table(kind, kept, where="model")
