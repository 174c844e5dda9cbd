"""The network: a depthwise-separable U-Net on a square RGB crop (PicoSAM2, arXiv 2506.18807).

Shape suffixes: B batch, C channels, H and W rows and columns, K logit channels (one per prompt
kind the network can tell apart), S the crop's side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2.errors import ConfigError
from picosam2.geometry import CROP_SIZE
from picosam2.models import encoders as backbone


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What makes one variant of the network differ from another. The default is the paper's."""

    widths: tuple[int, ...] = (48, 96, 160, 256)
    """Channels of the encoder stages, finest first."""
    bottleneck: int = 320
    """Channels of the coarsest block."""
    decoder: tuple[int, ...] = (192, 128, 80, 40)
    """Channels of the decoder stages, coarsest first; as many as encoder stages, or fewer: then
    the logits are made on a coarser grid and enlarged, bilinearly."""
    input_size: int = CROP_SIZE
    """Side of the input crop in pixels; a multiple of 16, and of 2 for every halving inside."""
    logits: int = 1
    """Logit channels: 1 for every prompt alike, 2 for one of boxes and one of clicks."""
    stem: str = "none"
    """What comes before the first block; see `STEMS`."""
    encoder: str = "paper"
    """What the encoder stages are made of; see `ENCODERS`."""
    blocks: int = 1
    """Blocks in a row in each encoder stage of the paper's kind."""
    decoder_blocks: int = 1
    """Blocks in a row in each decoder stage."""
    kernel: int = 3
    """Side of the depthwise kernels; odd."""
    activation: str = "relu"
    """What follows every convolution of a block; see `ACTIVATIONS`."""
    down: str = "conv"
    """How the paper's kind of encoder halves the picture; see `DOWNS`."""
    dilation: int = 1
    """Of the bottleneck's depthwise kernel."""
    up: str = "nearest"
    """How the decoder doubles the picture: nearest or bilinear."""
    attention: str = "none"
    """What follows the bottleneck block; see `ATTENTIONS`."""
    heads: tuple[str, ...] = ()
    """Further outputs read off the bottleneck; see `HEADS`."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.decoder) <= len(self.widths):
            raise ConfigError(
                "`widths` and `decoder` need one number per stage, equally many, or fewer in "
                "`decoder` for coarser logits"
            )
        if min(*self.widths, *self.decoder, self.bottleneck, self.logits) < 1:
            raise ConfigError("every width of the network must be at least 1")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"`kernel` must be odd and at least 1, not {self.kernel}")
        if min(self.blocks, self.decoder_blocks, self.dilation) < 1:
            raise ConfigError("`blocks`, `decoder_blocks` and `dilation` must be at least 1")
        fixed = ENCODERS[self.encoder].widths
        if fixed and (
            (self.widths, self.stem, self.down, self.blocks) != (fixed, "none", "conv", 1)
        ):
            raise ConfigError(
                f"the encoder {self.encoder} has `widths` {list(fixed)}, and stem, downsampling "
                "and blocks of its own"
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
        return max(16, self._stride << len(self.widths))

    @property
    def output_size(self) -> int:
        """Side of the logits."""
        return self.input_size // self._stride

    @property
    def _stride(self) -> int:
        return STEMS[self.stem].stride * ENCODERS[self.encoder].stride


def block(inputs: int, outputs: int, config: ModelConfig, dilation: int = 1) -> nn.Sequential:
    """Depthwise convolution, then pointwise 1x1, each with batch norm and activation."""
    kernel, activation = config.kernel, ACTIVATIONS[config.activation]
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, 1, padding, dilation, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        activation(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        activation(inplace=True),
    )


def blocks_in_a_row(count: int, inputs: int, outputs: int, config: ModelConfig) -> nn.Sequential:
    """So many blocks one after the other, in one flat sequence of layers."""
    blocks = [block(outputs if index else inputs, outputs, config) for index in range(count)]
    return nn.Sequential(*chain(*blocks))


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) on the bottleneck, reduction 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, max(channels // 16, 8), 1)
        self.excite = nn.Conv2d(max(channels // 16, 8), channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled_BC11 = x_BCHW.mean((2, 3), keepdim=True)
        return x_BCHW * torch.sigmoid(self.excite(F.relu(self.squeeze(pooled_BC11))))


class MatMul(nn.Module):
    """A product of two activations; a module so that `costs` sees it."""

    def forward(self, a_BNK: Tensor, b_BKM: Tensor) -> Tensor:
        out: Tensor = a_BNK @ b_BKM
        return out


class SelfAttention(nn.Module):
    """One head of self-attention (Vaswani et al. 2017) over the places of the bottleneck, added.

    Queries and keys have an eighth of the channels. Where a place is, the padded convolutions
    before it have already told.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 8)
        self.query, self.key = (nn.Conv2d(channels, inner, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.match, self.mix = MatMul(), MatMul()
        self.scale = inner**-0.5

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query_BNC = self.query(x_BCHW).flatten(2).transpose(1, 2)
        weight_BNN = torch.softmax(
            self.match(query_BNC * self.scale, self.key(x_BCHW).flatten(2)), dim=-1
        )
        mixed_BCN: Tensor = self.mix(self.value(x_BCHW).flatten(2), weight_BNN.transpose(1, 2))
        return x_BCHW + mixed_BCN.reshape_as(x_BCHW)


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
    """Blocks, each stage followed by what halves the picture at the same width."""
    stages, downs = [], []
    for width in config.widths:
        stages.append(blocks_in_a_row(config.blocks, channels, width, config))
        downs.append(DOWNS[config.down](width))
        channels = width
    return stages, downs, channels


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


def _lite_encoder(lite: backbone.Lite) -> Encoder:
    """EfficientNet-Lite, whose stages shrink the picture themselves."""

    def make(_channels: int, _config: ModelConfig) -> EncoderParts:
        stages, last = backbone.lite_stages(lite)
        return stages, [*(nn.Identity() for _ in stages[1:]), last], lite.channels

    return Encoder(make, 2, lite.widths, partial(backbone.load_imagenet, lite))


ENCODERS = {
    "paper": Encoder(_paper_encoder),
    "efficientnet-lite0": _lite_encoder(backbone.LITE0),
    "efficientnet-lite2": _lite_encoder(backbone.LITE2),
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

DOWNS: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda width: nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
    "conv2": lambda width: nn.Conv2d(width, width, 2, stride=2, bias=False),
    "depthwise": lambda width: nn.Conv2d(
        width, width, 3, stride=2, padding=1, groups=width, bias=False
    ),
    "maxpool": lambda _width: nn.MaxPool2d(2),
    "avgpool": lambda _width: nn.AvgPool2d(2),
    "avgpool-conv1": lambda width: nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(width, width, 1, bias=False)
    ),
}
"""What halves the picture, by its width: the paper's dense 3x3, dense 2x2, depthwise 3x3, pools."""

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard-swish": nn.Hardswish,
    "silu": nn.SiLU,
}
"""Activations that the IMX500's converter takes."""

ATTENTIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _channels: nn.Identity(),
    "channel": ChannelAttention,
    "self": SelfAttention,
}
"""Attention on the bottleneck, by its channels."""

HEADS: dict[str, Callable[[int, int], nn.Module]] = {"iou": IoUHead}
"""Further outputs, by the bottleneck's channels and the number of logit channels."""

UPS = {
    "nearest": partial(F.interpolate, mode="nearest"),
    "bilinear": partial(F.interpolate, mode="bilinear", align_corners=False),
}

CHOICES: dict[str, Sequence[str]] = {
    "stem": tuple(STEMS),
    "encoder": tuple(ENCODERS),
    "activation": tuple(ACTIVATIONS),
    "down": tuple(DOWNS),
    "up": tuple(UPS),
    "attention": tuple(ATTENTIONS),
}
"""The settings that are names, and what they may be."""


class PicoSAM2(nn.Module):
    """The network. 1,262,818 parameters and 323.1 M convolution MACs as the paper has it."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        stem = STEMS[config.stem]
        self.stem = stem.make()
        stages, downs, channels = ENCODERS[config.encoder].make(stem.channels, config)
        self.encoder, self.down = nn.ModuleList(stages), nn.ModuleList(downs)
        self.bottleneck = block(channels, config.bottleneck, config, config.dilation)
        self.attention = ATTENTIONS[config.attention](config.bottleneck)
        channels = config.bottleneck
        self.decoder, self.skip = nn.ModuleList(), nn.ModuleList()
        for width, skipped in zip(config.decoder, reversed(config.widths), strict=False):
            self.decoder.append(blocks_in_a_row(config.decoder_blocks, channels, width, config))
            self.skip.append(nn.Conv2d(skipped, width, 1))
            channels = width
        self.head = nn.Conv2d(channels, config.logits, 1)
        self.enlarge = 2.0 ** (len(config.widths) - len(config.decoder))
        self.heads = nn.ModuleDict(
            {name: HEADS[name](config.bottleneck, config.logits) for name in config.heads}
        )

    def forward(self, image_B3SS: Tensor) -> dict[str, Tensor]:
        """Normalised crops (B, 3, S, S) float to {"logits": (B, K, S', S'), and the extra heads}.

        S' is S, or half of it with a stem or an encoder that starts at stride 2. A mask is
        logits > 0.
        """
        x_BCHW = self.stem(image_B3SS)
        skips = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            x_BCHW = encode(x_BCHW)
            skips.append(x_BCHW)
            x_BCHW = down(x_BCHW)
        coarse_BCHW = x_BCHW = self.attention(self.bottleneck(x_BCHW))
        double = UPS[self.config.up]
        for decode, skip in zip(self.decoder, self.skip, strict=True):
            x_BCHW = decode(double(x_BCHW, scale_factor=2.0)) + skip(skips.pop())
        logits_BKHW = self.head(x_BCHW)
        if self.enlarge > 1:
            logits_BKHW = UPS["bilinear"](logits_BKHW, scale_factor=self.enlarge)
        outputs = {"logits": logits_BKHW}
        outputs.update({name: head(coarse_BCHW) for name, head in self.heads.items()})
        return outputs
