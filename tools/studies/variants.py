"""Networks that only the study of the sensor varies: everything that no shipped recipe has.

docs/in-sensor-design.md has what came of each. `VariantConfig` stands where `ModelConfig` does: in
a `Recipe`, in `load_weights` and in `read_config`.

Shape suffixes as in `picosam2.models.network`; N places, M places, K inner size of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2.data.augment import Batch
from picosam2.errors import ConfigError
from picosam2.models.encoders import ENCODERS
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.training.config import Recipe
from picosam2.training.trainer import channel


@dataclass(frozen=True, kw_only=True)
class VariantConfig(ModelConfig):
    """A network of the study. The default is the paper's; `decoder` may have fewer stages than the
    encoder, then the logits are made on a coarser grid and enlarged, bilinearly."""

    stem: str = "none"
    """What comes before the first block; see `STEMS`."""
    blocks: int = 1
    """Blocks in a row in each encoder stage of the paper's kind."""
    decoder_blocks: int = 1
    """Blocks in a row in each decoder stage."""
    kernel: int = 3
    """Side of the depthwise kernels; odd."""
    activation: str = "relu"
    """What follows every convolution of a block; see `ACTIVATIONS`."""
    down: str = "conv"
    """How the paper's kind of encoder halves the image; see `DOWNS`."""
    dilation: int = 1
    """Of the bottleneck's depthwise kernel."""
    up: str = "nearest"
    """How the decoder doubles its input: nearest or bilinear."""
    attention: str = "none"
    """What follows the bottleneck block; see `ATTENTIONS`."""
    heads: tuple[str, ...] = ()
    """Further outputs read off the bottleneck; see `HEADS`."""

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}")
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"`kernel` must be odd and at least 1, not {self.kernel}")
        if min(self.blocks, self.decoder_blocks, self.dilation) < 1:
            raise ConfigError("`blocks`, `decoder_blocks` and `dilation` must be at least 1")
        if self.encoder != "paper" and (self.stem, self.down, self.blocks) != ("none", "conv", 1):
            raise ConfigError(
                f"the encoder {self.encoder} has a stem, downsampling and blocks of its own"
            )
        if unknown := set(self.heads) - set(HEADS):
            raise ConfigError(f"unknown head {min(unknown)!r}; there are {', '.join(HEADS)}")

    def check_stages(self) -> None:
        """Refuse stages that do not fit together."""
        if not 1 <= len(self.decoder) <= len(self.widths):
            raise ConfigError("`decoder` needs one number per stage of `widths`, or fewer")

    @property
    def stride(self) -> int:
        """How many crop pixels a logit is wide."""
        return STEMS[self.stem].stride * super().stride

    def build(self) -> PicoSAM2:
        """The network, its weights drawn from torch's random numbers."""
        return Variant(self)


@dataclass(frozen=True, kw_only=True)
class VariantRecipe(Recipe):
    """A recipe whose network is one of the study."""

    model: VariantConfig = field(default_factory=VariantConfig)


def block(inputs: int, outputs: int, config: VariantConfig, dilation: int = 1) -> nn.Sequential:
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


def blocks_in_a_row(count: int, inputs: int, outputs: int, config: VariantConfig) -> nn.Sequential:
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
        """Every channel times a share of its own."""
        pooled_BC11 = x_BCHW.mean((2, 3), keepdim=True)
        return x_BCHW * torch.sigmoid(self.excite(F.relu(self.squeeze(pooled_BC11))))


class MatMul(nn.Module):
    """A product of two activations; a module so that `stage_costs` sees what it writes."""

    def forward(self, a_BNK: Tensor, b_BKM: Tensor) -> Tensor:
        """The products (B, N, M)."""
        out: Tensor = a_BNK @ b_BKM
        return out


class SelfAttention(nn.Module):
    """One head of self-attention (Vaswani et al. 2017) over the places of the bottleneck, added.

    Queries and keys have an eighth of the channels. It has no encoding of places: the padded
    convolutions before it have put them into the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 8)
        self.query, self.key = (nn.Conv2d(channels, inner, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.match, self.mix = MatMul(), MatMul()
        self.scale = inner**-0.5

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The features with what every place took from the others."""
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
        """From the bottleneck's features."""
        out: Tensor = self.out(F.relu(self.hidden(x_BCHW.mean((2, 3)))))
        return out


@dataclass(frozen=True)
class Stem:
    """What comes before the first block: how it is made, its output channels, its stride."""

    make: Callable[[], nn.Module]
    channels: int
    stride: int


def _stride2_stem() -> nn.Module:
    """Halves the image at once, so that a 192x192 crop costs what 96x96 does."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(True)
    )


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
"""What halves the image, by its width: the paper's dense 3x3, dense 2x2, depthwise 3x3, pools."""

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

CHOICES = {
    "stem": tuple(STEMS),
    "activation": tuple(ACTIVATIONS),
    "down": tuple(DOWNS),
    "up": tuple(UPS),
    "attention": tuple(ATTENTIONS),
}
"""The settings that are names, and what they may be."""


class Variant(PicoSAM2):
    """A network of the study. Its parameters have the names of `PicoSAM2`'s."""

    config: VariantConfig

    def __init__(self, config: VariantConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        stem = STEMS[config.stem]
        self.stem = stem.make()
        if config.encoder == "paper":
            stages, downs, channels = [], [], stem.channels
            for width in config.widths:
                stages.append(blocks_in_a_row(config.blocks, channels, width, config))
                downs.append(DOWNS[config.down](width))
                channels = width
        else:
            stages, downs, channels = ENCODERS[config.encoder].make(config.widths)
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
        """Normalized crops (B, 3, S, S) float32 to {"logits": (B, K, S', S'), and the heads}."""
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

    @property
    def output_names(self) -> list[str]:
        """The names of what `forward` gives, in order."""
        return ["logits", *self.heads]

    def stages(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts of the network by name, in the order they run."""
        yield "stem", self.stem
        for name, stage in super().stages():
            yield name, stage
            if name == "bottleneck":
                yield "attention", self.attention
        for name, head in self.heads.items():
            yield f"{name} head", head


def iou_loss(
    outputs: dict[str, Tensor], batch: Batch, logits_BSS: Tensor, target_BSS: Tensor
) -> dict[str, Tensor]:
    """The loss of the head `iou`: squared error of the predicted IoU, (B,), by its name.

    The truth is the IoU of the masks logits > 0 and target > 0.5; it takes no gradient.
    """
    if "iou" not in outputs:
        return {}
    mask_BSS, object_BSS = logits_BSS.detach() > 0, target_BSS > 0.5
    both_B = (mask_BSS & object_BSS).sum((1, 2))
    either_B = (mask_BSS | object_BSS).sum((1, 2))
    predicted_B = torch.sigmoid(channel(outputs["iou"], batch.kind_B).float())
    return {"iou": (predicted_B - both_B / either_B.clamp_min(1)) ** 2}
