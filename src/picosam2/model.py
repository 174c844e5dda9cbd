"""The network: a depthwise-separable U-Net on a square RGB crop (PicoSAM2, arXiv 2506.18807).

Shape suffixes: B batch, C channels, H and W rows and columns, K logit channels (one per prompt
kind the network can tell apart), S the crop's side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2 import backbone
from picosam2.errors import ConfigError
from picosam2.geometry import CROP_SIZE


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What makes one variant of the network differ from another. The default is the paper's."""

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
    stem: str = "none"
    """What comes before the first block; see `STEMS`."""
    encoder: str = "paper"
    """What the encoder stages are made of; see `ENCODERS`."""
    attention: str = "none"
    """What follows the bottleneck block; see `ATTENTIONS`."""
    heads: tuple[str, ...] = ()
    """Further outputs read off the bottleneck; see `HEADS`."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.decoder) or not self.widths:
            raise ConfigError("`widths` and `decoder` need one number per stage, equally many")
        if min(*self.widths, *self.decoder, self.bottleneck, self.logits) < 1:
            raise ConfigError("every width of the network must be at least 1")
        for name, known in (("stem", STEMS), ("encoder", ENCODERS), ("attention", ATTENTIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}")
        fixed = ENCODERS[self.encoder].widths
        if fixed and (self.widths != fixed or self.stem != "none"):
            raise ConfigError(
                f"the encoder {self.encoder} has `widths` {list(fixed)} and a stem of its own"
            )
        if self.input_size < self.unit or self.input_size % self.unit:
            raise ConfigError(
                f"`input_size` must be a multiple of {self.unit}, not {self.input_size}"
            )
        if unknown := set(self.heads) - set(HEADS):
            raise ConfigError(f"unknown head {min(unknown)!r}; there are {', '.join(HEADS)}")

    @property
    def unit(self) -> int:
        """Crops must be a multiple of this many pixels a side."""
        stride = STEMS[self.stem].stride * ENCODERS[self.encoder].stride
        return max(16, stride << len(self.widths))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3x3, then pointwise 1x1, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) on the bottleneck, reduction 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, max(channels // 16, 8), 1)
        self.excite = nn.Conv2d(max(channels // 16, 8), channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled_BC11 = x_BCHW.mean((2, 3), keepdim=True)
        return x_BCHW * torch.sigmoid(self.excite(F.relu(self.squeeze(pooled_BC11))))


class IoUHead(nn.Module):
    """The predicted IoU of each logit channel, before the sigmoid: (B, K)."""

    def __init__(self, channels: int, logits: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, 64)
        self.out = nn.Linear(64, logits)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.hidden(x_BCHW.mean((2, 3)))))
        return out


def _paper_encoder(channels: int, config: ModelConfig) -> EncoderParts:
    """Blocks, each followed by a dense stride-2 convolution of the same width."""
    stages, downs = [], []
    for width in config.widths:
        stages.append(block(channels, width))
        downs.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        channels = width
    return stages, downs, channels


def _lite2_encoder(_channels: int, config: ModelConfig) -> EncoderParts:
    """EfficientNet-Lite2, whose stages shrink the picture themselves."""
    stages, last = backbone.lite2_stages()
    return stages, [*(nn.Identity() for _ in stages[1:]), last], backbone.CHANNELS


EncoderParts = tuple[Sequence[nn.Module], Sequence[nn.Module], int]
"""The stages, what leads from each to the next coarser one, and the channels after the last."""


@dataclass(frozen=True)
class Encoder:
    """What the encoder stages can be made of."""

    make: Callable[[int, ModelConfig], EncoderParts]
    """Makes it, from the stem's channels and the configuration."""
    stride: int = 1
    """Of its first stage."""
    widths: tuple[int, ...] = ()
    """The stages' channels, where they cannot be chosen."""
    pretrained: Callable[[Sequence[nn.Module]], None] | None = None
    """Fills stages and the last `down`, in this order, with weights learned on ImageNet."""


ENCODERS = {
    "paper": Encoder(_paper_encoder),
    "efficientnet-lite2": Encoder(_lite2_encoder, 2, backbone.WIDTHS, backbone.load_imagenet),
}


def _stride2_stem() -> nn.Module:
    """Halves the picture at once, so that a 192x192 crop costs what 96x96 does."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(True)
    )


@dataclass(frozen=True)
class Stem:
    """What comes before the first block: how it is made, its output channels, its stride."""

    make: Callable[[], nn.Module]
    channels: int
    stride: int


STEMS = {"none": Stem(nn.Identity, 3, 1), "stride2": Stem(_stride2_stem, 24, 2)}

ATTENTIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _channels: nn.Identity(),
    "channel": ChannelAttention,
}
"""Attention on the bottleneck, by its channels."""

HEADS: dict[str, Callable[[int, int], nn.Module]] = {"iou": IoUHead}
"""Further outputs, by the bottleneck's channels and the number of logit channels."""


class PicoSAM2(nn.Module):
    """The network. 1,262,818 parameters and 323.1 M convolution MACs as the paper has it."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        stem = STEMS[config.stem]
        self.stem = stem.make()
        stages, downs, channels = ENCODERS[config.encoder].make(stem.channels, config)
        self.encoder, self.down = nn.ModuleList(stages), nn.ModuleList(downs)
        self.bottleneck = block(channels, config.bottleneck)
        self.attention = ATTENTIONS[config.attention](config.bottleneck)
        channels = config.bottleneck
        self.decoder, self.skip = nn.ModuleList(), nn.ModuleList()
        for width, skipped in zip(config.decoder, reversed(config.widths), strict=True):
            self.decoder.append(block(channels, width))
            self.skip.append(nn.Conv2d(skipped, width, 1))
            channels = width
        self.head = nn.Conv2d(channels, config.logits, 1)
        self.heads = nn.ModuleDict(
            {name: HEADS[name](config.bottleneck, config.logits) for name in config.heads}
        )

    def forward(self, image_B3SS: Tensor) -> dict[str, Tensor]:
        """Normalised crops (B, 3, S, S) float to {"logits": (B, K, S, S), and the extra heads}.

        With a stem or an encoder that starts at stride 2, the logits have half the input's side.
        A mask is logits > 0.
        """
        x_BCHW = self.stem(image_B3SS)
        skips = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            x_BCHW = encode(x_BCHW)
            skips.append(x_BCHW)
            x_BCHW = down(x_BCHW)
        coarse_BCHW = x_BCHW = self.attention(self.bottleneck(x_BCHW))
        for decode, skip in zip(self.decoder, self.skip, strict=True):
            enlarged_BCHW = F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
            x_BCHW = decode(enlarged_BCHW) + skip(skips.pop())
        outputs = {"logits": self.head(x_BCHW)}
        outputs.update({name: head(coarse_BCHW) for name, head in self.heads.items()})
        return outputs
