"""Context crops to training batches: whole batches at once in torch, on a CPU or a GPU.

Image and mask go through one affine map, which does the flip, the rotation, the jitter of the
prompt and the cut of the window in a single resampling. Color, blur, JPEG and noise follow on the
image alone.

All random numbers of a batch are drawn first, for the global batch, so that a batch is a function
of its seed alone: however many processes share it, each sample comes out the same.

Shape suffixes: B batch, C the context's side, S the crop's side, N points of an outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from picosam2._config import FORMER_NAME
from picosam2.data.store import BOX
from picosam2.errors import ConfigError
from picosam2.geometry import BOX_GROWTH, CROP_SIZE
from picosam2.images import MEAN, PAD_RGB, STD

_TRIES = 4  # places tried for a jittered click before it stays at the center
_UNIFORMS = 24
# Drawn last, so that the others stay what they were before there were these.
_LATER_UNIFORMS = 4
_LAST_UNIFORMS = 1
_PLACES = 3
_NORMALS = 2 * _TRIES
_SURELY_NOT = -16.0  # the teacher's logit where it saw nothing
_TILE = 128  # side of the noise field that samples take shifted copies of


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How much a sample is changed. All zero gives the plain window of each view."""

    flip: float = 0.5
    """Probability of a left-right flip."""
    rotate: float = 10.0
    """Largest rotation in degrees, of `rotate_share` of the samples."""
    rotate_share: float = 0.3
    """Share of the samples that are rotated."""
    box_jitter: float = 0.1
    """Each edge of the box moves by up to this share of its side."""
    box_exact: float = 0.0
    """Share of the samples whose box is exact instead."""
    box_growth: float = BOX_GROWTH
    """Window over box, as in prediction."""
    box_max_aspect: float = math.inf
    """Limit on the window's aspect, as in prediction."""
    click_spread: float = 0.15
    """Standard deviation of the click about the center point, as a share of the object's reach."""
    click_scale: tuple[float, float] = (0.4, 0.9)
    """Half-size of a click's window over the context's, drawn log-uniformly."""
    elsewhere: float = 0.0
    """Share of the clicks that are put anywhere in the context, on whatever is there. No annotation
    says what that is, so a teacher in the loop has to (`distillation.in_loop`)."""
    published_border: float = 0.0
    """Share of the clicks' windows that leave the image which are treated as the paper's data set
    does: moved back at the left and top, cut off at the right and bottom and then stretched. The
    others are padded, as in prediction. See `evaluation.protocols`."""
    color: float = field(default=0.3, metadata={FORMER_NAME: "colour"})
    """Strength of brightness, contrast, saturation and white-balance changes, 0 to 1."""
    gray: float = field(default=0.05, metadata={FORMER_NAME: "grey"})
    """Share of the samples turned gray."""
    blur: float = 0.1
    """Share of the samples blurred."""
    jpeg: float = 0.1
    """Share of the samples put through JPEG's quantization."""
    noise: float = 0.1
    """Share of the samples with sensor noise added."""
    neighbour: float = 0.0
    """Share of the samples that get the object of another one behind theirs, as a thing not meant
    (after "simple copy-paste", Ghiasi et al. 2021, where the pasted object is the one to find)."""

    def __post_init__(self) -> None:
        shares = ("flip", "rotate_share", "box_exact", "gray", "blur", "jpeg", "noise", "neighbour")
        for name in (*shares, "color", "published_border", "elsewhere"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be from 0 to 1")
        if not 0 <= self.rotate <= 90 or not 0 <= self.box_jitter < 0.5:
            raise ConfigError("`rotate` must be from 0 to 90 degrees, `box_jitter` below 0.5")
        if not (1 <= self.box_growth <= 2 and self.box_max_aspect >= 1 and self.click_spread >= 0):
            raise ConfigError(
                "`box_growth` must be from 1 to 2, `box_max_aspect` at least 1, "
                "`click_spread` at least 0"
            )
        low, high = self.click_scale
        if not 0 < low <= high <= 1:
            raise ConfigError("`click_scale` must be two rising numbers in (0, 1]")


NO_AUGMENT = AugmentConfig(
    flip=0, rotate=0, rotate_share=0, box_jitter=0, click_spread=0, click_scale=(0.6, 0.6),
    color=0, gray=0, blur=0, jpeg=0, noise=0, neighbour=0, published_border=0, elsewhere=0,
)  # fmt: skip
"""The plain windows: for validation on crops, and for the paper's recipe."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What one training step sees."""

    image_B3SS: Tensor
    """Normalised crops, float32."""
    target_BSS: Tensor
    """Share of each pixel that the object covers, float32, 0..1."""
    kind_B: Tensor
    """Kind of prompt, int64: the logit channel to train (`store.BOX`, `store.CLICK`)."""
    row_B: npt.NDArray[np.int64]
    """The store's rows."""
    teacher_BSS: Tensor | None = None
    """The teacher's logits on the same crops, float32; None without a teacher."""
    teacher_weight_B: Tensor | None = None
    """Weight of the teacher in each sample, float32, 0..1."""
    value_B: Tensor | None = None
    """Weight of each sample's loss, float32; None is 1 for all."""
    elsewhere_B: Tensor | None = None
    """Samples, bool, whose click is not on the object: `target_BSS` says nothing about them."""
    off_center_B: Tensor | None = None
    """Samples, bool, whose click is not the crop's center: a teacher of centered clicks misreads
    them."""


class Cut(NamedTuple):
    """The crops of a batch."""

    image_B3SS: Tensor
    """Normalised, float32."""
    target_BSS: Tensor
    """Share of each pixel that the object covers, float32, 0..1."""
    teacher_BSS: Tensor | None
    """The teacher's logits, float32, if it was given; -16 outside of the context."""
    elsewhere_B: Tensor
    """Samples, bool, whose click was put anywhere."""
    off_center_B: Tensor
    """Samples, bool, whose window was moved back or cut off at the image's border."""


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of some samples of a batch."""

    uniform_BU: Tensor
    normal_BN: Tensor
    tile_3TT: Tensor
    place_B3: Tensor
    """Whether a click is put anywhere, and where: uniform."""
    host_BU: npt.NDArray[np.float32]
    """`uniform_BU` where it was drawn: which samples to change is decided without asking a GPU."""

    @staticmethod
    def of(count: int, generator: torch.Generator) -> Draws:
        """Numbers for a global batch of `count` samples."""
        uniform_BU = torch.rand((count, _UNIFORMS), generator=generator)
        normal_BN = torch.randn((count, _NORMALS), generator=generator)
        tile_3TT = torch.randn((3, _TILE, _TILE), generator=generator)
        later_BU = torch.rand((count, _LATER_UNIFORMS), generator=generator)
        last_BU = torch.rand((count, _LAST_UNIFORMS), generator=generator)
        uniform_BU = torch.cat((uniform_BU, later_BU, last_BU), 1)
        place_B3 = torch.rand((count, _PLACES), generator=generator)
        return Draws(uniform_BU, normal_BN, tile_3TT, place_B3, uniform_BU.numpy())

    def part(self, start: int, stop: int) -> Draws:
        """The numbers of samples `start` to `stop`: one process's share."""
        return Draws(
            self.uniform_BU[start:stop], self.normal_BN[start:stop], self.tile_3TT,
            self.place_B3[start:stop], self.host_BU[start:stop],
        )  # fmt: skip

    def to(self, device: torch.device) -> Draws:
        """The numbers on another device."""
        return Draws(
            self.uniform_BU.to(device), self.normal_BN.to(device), self.tile_3TT.to(device),
            self.place_B3.to(device), self.host_BU,
        )  # fmt: skip


class _Uniforms:
    """Columns of a batch's uniform numbers, taken one after the other."""

    def __init__(self, draws: Draws) -> None:
        self._columns = zip(draws.uniform_BU.unbind(1), draws.host_BU.T, strict=True)

    def __next__(self) -> Tensor:
        return next(self._columns)[0]

    def host(self) -> npt.NDArray[np.float32]:
        """The next column, (B,), not on the GPU."""
        column_B: npt.NDArray[np.float32] = next(self._columns)[1]
        return column_B

    def below(self, share: float) -> list[int]:
        """The samples whose number in the next column is below `share`."""
        rows: list[int] = np.flatnonzero(self.host() < share).tolist()
        return rows


def augment(
    context_BCC4: Tensor,
    half_B2: Tensor,
    kind_B: Tensor,
    draws: Draws,
    config: AugmentConfig,
    size: int = CROP_SIZE,
    teacher_BCC: Tensor | None = None,
    image_B4: Tensor | None = None,
) -> Cut:
    """Cut and change one batch.

    Args:
        context_BCC4: context crops, uint8 R, G, B, mask coverage.
        half_B2: half-sizes (x, y) of the context windows in image pixels, float32.
        kind_B: kind of prompt of each view, int64.
        draws: the batch's random numbers.
        config: how much to change.
        size: side of the crops.
        teacher_BCC: a teacher's logits on the contexts, float32, cut like the rest.
        image_B4: the image's edges x0, y0, x1, y1 in image pixels from the context's center,
            float32; needed for `published_border` and `elsewhere`.
    """
    uniform = _Uniforms(draws)
    turn_B22 = _turns(uniform, config)
    covered_BCC = context_BCC4[..., 3].contiguous() > 127
    extent_B2N = _outline(covered_BCC)
    low_B2, high_B2 = _box(extent_B2N, half_B2, turn_B22, uniform, config)
    center_B2, window_B2 = (low_B2 + high_B2) / 2, (high_B2 - low_B2) / 2 * config.box_growth
    window_B2 = torch.maximum(window_B2, window_B2.flip(1) / config.box_max_aspect)
    scale_B1 = _log_uniform(next(uniform), *config.click_scale)[:, None]
    click_B2 = _click(covered_BCC, extent_B2N, scale_B1, draws.normal_BN, config.click_spread)
    is_box_B1 = (kind_B == BOX)[:, None]
    elsewhere_B1 = (draws.place_B3[:, :1] < config.elsewhere) & ~is_box_B1
    if config.elsewhere and image_B4 is not None:
        place_B2 = (draws.place_B3[:, 1:] * 2 - 1) * (1 - scale_B1)
        edges_B4 = image_B4 / half_B2.repeat(1, 2)
        place_B2 = torch.maximum(torch.minimum(place_B2, edges_B4[:, 2:]), edges_B4[:, :2])
        click_B2 = torch.where(elsewhere_B1, place_B2, click_B2)
    center_B2 = torch.where(is_box_B1, center_B2, _apply(turn_B22, click_B2 * half_B2))
    window_B2 = torch.where(is_box_B1, window_B2, scale_B1 * half_B2)
    off_center_B = torch.zeros_like(elsewhere_B1[:, 0])
    if config.published_border and image_B4 is not None:
        chosen_B1 = draws.uniform_BU[:, -1:] < config.published_border
        chosen_B1 &= ~is_box_B1 & ~elsewhere_B1
        planned_B2 = center_B2
        center_B2, window_B2 = _published(chosen_B1, center_B2, window_B2, turn_B22, image_B4)
        off_center_B = (center_B2 != planned_B2).any(1)

    # Crop coordinates o in [-1, 1] to context coordinates: u = (turn^-1 (center + window o)) / half
    back_B22 = turn_B22.transpose(1, 2) / half_B2[:, :, None]  # an isometry's inverse
    matrix_B22, offset_B2 = back_B22 * window_B2[:, None, :], _apply(back_B22, center_B2)
    resample = _warp if context_BCC4.device.type == "cpu" else _sample
    cut_B4SS = resample(context_BCC4, matrix_B22, offset_B2, size)
    image_B3SS = cut_B4SS[:, :3]
    teacher_BSS = None
    if teacher_BCC is not None:  # shifted, so that the zeros outside mean "surely not the object"
        grid_BSS2 = _grid(matrix_B22, offset_B2, size)
        shifted_B1CC = teacher_BCC[:, None] - _SURELY_NOT
        cut_B1SS = F.grid_sample(shifted_B1CC, grid_BSS2, align_corners=False)
        teacher_BSS = cut_B1SS[:, 0] + _SURELY_NOT
    target_BSS = cut_B4SS[:, 3] / 255
    image_B3SS = _photometric(image_B3SS, uniform, draws.tile_3TT, config)
    _put_behind(image_B3SS, target_BSS, uniform, config)
    return Cut(_normalise(image_B3SS), target_BSS, teacher_BSS, elsewhere_B1[:, 0], off_center_B)


def _warp(context_BCC4: Tensor, matrix_B22: Tensor, offset_B2: Tensor, size: int) -> Tensor:
    """`_sample` on a CPU, by OpenCV: in 32nds of a pixel, rounded to whole levels, and five times
    as fast as `F.grid_sample`.
    """
    side = context_BCC4.shape[1]
    shift_B2 = side / 2 * (matrix_B22.sum(2) * (1 / size - 1) + offset_B2 + 1) - 0.5
    affine_B23 = torch.cat((matrix_B22 * (side / size), shift_B2[:, :, None]), 2).numpy()
    contexts = context_BCC4.numpy()
    cut_BSS4 = np.empty((len(contexts), size, size, 4), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for context, affine, cut in zip(contexts, affine_B23, cut_BSS4, strict=True):
        cv2.warpAffine(context, affine, (size, size), cut, flags, borderValue=(*PAD_RGB, 0))
    return _planes(torch.from_numpy(cut_BSS4))


def _sample(context_BCC4: Tensor, matrix_B22: Tensor, offset_B2: Tensor, size: int) -> Tensor:
    """Bilinear samples of the contexts, (B, 4, S, S) float32; what lies outside is padding."""
    grid_BSS2 = _grid(matrix_B22, offset_B2, size)
    cut_B4SS = F.grid_sample(_planes(context_BCC4), grid_BSS2, align_corners=False)
    outside_BSS = 1 - _inside(grid_BSS2, context_BCC4.shape[1])
    padding_311 = cut_B4SS.new_tensor(PAD_RGB)[:, None, None]
    cut_B4SS[:, :3] += outside_BSS[:, None] * padding_311
    return cut_B4SS


def _planes(image_BSS4: Tensor) -> Tensor:
    """uint8 pixels (B, S, S, 4) to planes (B, 4, S, S) float32."""
    return image_BSS4.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _grid(matrix_B22: Tensor, offset_B2: Tensor, size: int) -> Tensor:
    """Context coordinates (B, S, S, 2) of the crop's pixel centers, as `F.affine_grid` gives."""
    place_S = (torch.arange(size, device=matrix_B22.device) * 2 + 1) / size - 1
    across_B2S = matrix_B22[:, :, :1] * place_S + offset_B2[:, :, None]
    down_B2S = matrix_B22[:, :, 1:] * place_S
    grid_B2SS = across_B2S[:, :, None, :] + down_B2S[:, :, :, None]
    return grid_B2SS.permute(0, 2, 3, 1)


def _inside(grid_BSS2: Tensor, side: int) -> Tensor:
    """The share (B, S, S) of each bilinear sample that pixels of a context of that side have."""
    pixel_BSS2 = (grid_BSS2 + 1) * (side / 2) - 0.5
    return ((pixel_BSS2 + 1).clamp(0, 1) * (side - pixel_BSS2).clamp(0, 1)).prod(3)


def _normalise(image_B3SS: Tensor) -> Tensor:
    mean = torch.tensor(MEAN, device=image_B3SS.device)[:, None, None] * 255
    scale = 1 / (torch.tensor(STD, device=image_B3SS.device)[:, None, None] * 255)
    return image_B3SS.sub_(mean).mul_(scale)


def _apply(matrix_B22: Tensor, vector_B2: Tensor) -> Tensor:
    return (matrix_B22 * vector_B2[:, None, :]).sum(2)


def _log_uniform(uniform_B: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(math.log(low) + uniform_B * (math.log(high) - math.log(low)))


def _turns(uniform: _Uniforms, config: AugmentConfig) -> Tensor:
    """The isometries (B, 2, 2) in image pixels: a flip, then a rotation."""
    flip_B = torch.where(next(uniform) < config.flip, -1.0, 1.0)
    chosen_B = next(uniform) < config.rotate_share
    angle_B = (next(uniform) * 2 - 1) * math.radians(config.rotate) * chosen_B
    cos_B, sin_B = torch.cos(angle_B), torch.sin(angle_B)
    rows = torch.stack((cos_B * flip_B, -sin_B), 1), torch.stack((sin_B * flip_B, cos_B), 1)
    return torch.stack(rows, 1)


def _outline(covered_BCC: Tensor) -> Tensor:
    """Corners of the first and last covered pixel of each row, (B, 2, 4C) in -1..1; else NaN.

    Whatever the turn, the object's bounding box is reached at one of these corners.
    """
    side = covered_BCC.shape[1]
    small = torch.uint8 if side < 256 else torch.int16  # a quarter of the memory of a float
    column_C = torch.arange(side, dtype=small, device=covered_BCC.device)
    ones_BCC = covered_BCC.view(torch.uint8)
    last_BC = (ones_BCC * (column_C + 1)).amax(2)
    first_BC = side - (ones_BCC * (side - column_C)).amax(2)
    edge_C = torch.arange(side + 1, device=covered_BCC.device) * (2 / side) - 1
    x_B4C = torch.cat((first_BC, first_BC, last_BC, last_BC), 1) * (2 / side) - 1
    y_4C = torch.cat((edge_C[:-1], edge_C[1:])).repeat(2)
    empty_B1N = (last_BC == 0).repeat(1, 4)[:, None]
    return torch.stack((x_B4C, y_4C.expand_as(x_B4C)), 1).masked_fill(empty_B1N, math.nan)


def _box(
    extent_B2N: Tensor,
    half_B2: Tensor,
    turn_B22: Tensor,
    uniform: _Uniforms,
    config: AugmentConfig,
) -> tuple[Tensor, Tensor]:
    """The turned object's box, jittered: its low and high corner (B, 2), in image pixels."""
    turned_B2N = turn_B22 @ (extent_B2N * half_B2[:, :, None])
    low_B2 = turned_B2N.nan_to_num(math.inf).amin(2)
    high_B2 = turned_B2N.nan_to_num(-math.inf).amax(2)
    empty_B1 = ~torch.isfinite(low_B2).all(1, keepdim=True)
    low_B2 = torch.where(empty_B1, -half_B2 / 2, low_B2)
    high_B2 = torch.where(empty_B1, half_B2 / 2, high_B2)
    inexact_B = (next(uniform) - config.box_exact).clamp_min(0) / max(1 - config.box_exact, 1e-6)
    amount_B1 = (inexact_B * config.box_jitter)[:, None]
    size_B2 = high_B2 - low_B2
    shifts = [torch.stack((next(uniform), next(uniform)), 1) * 2 - 1 for _ in range(2)]
    return low_B2 + shifts[0] * amount_B1 * size_B2, high_B2 + shifts[1] * amount_B1 * size_B2


def _click(
    covered_BCC: Tensor, extent_B2N: Tensor, scale_B1: Tensor, normal_BN: Tensor, spread: float
) -> Tensor:
    """A click on the object near its center point, (B, 2) in the context's -1..1.

    The first of a few random places that is on the object and leaves the window inside the context.
    """
    count, side = covered_BCC.shape[:2]
    reach_B2 = extent_B2N.nan_to_num(0.0).abs().amax(2)
    tries_BT2 = normal_BN.view(count, _TRIES, 2) * spread * reach_B2[:, None, :]
    index_BT2 = ((tries_BT2 + 1) * (side / 2)).long().clamp(0, side - 1)
    sample_B1 = torch.arange(count, device=covered_BCC.device)[:, None]
    on_object_BT = covered_BCC[sample_B1, index_BT2[..., 1], index_BT2[..., 0]]
    fits_BT = (tries_BT2.abs() <= 1 - scale_B1[:, :, None]).all(2)
    good_BT = on_object_BT & fits_BT
    chosen_B2 = tries_BT2[sample_B1[:, 0], good_BT.to(torch.uint8).argmax(1)]
    return torch.where(good_BT.any(1, keepdim=True), chosen_B2, 0.0)


def _published(
    chosen_B1: Tensor, center_B2: Tensor, window_B2: Tensor, turn_B22: Tensor, image_B4: Tensor
) -> tuple[Tensor, Tensor]:
    """Center and half-size (B, 2) of windows at the image's border, as the paper's data set has
    them: moved back at the left and top, cut off at the right and bottom.

    Turned images have no border that a window could be moved to: they are left as they are.
    """
    upright_B1 = turn_B22[:, 0, 1:].abs() < 1e-6
    flip_B1 = turn_B22[:, 0, :1] < 0
    first_B2, last_B2 = image_B4[:, :2], image_B4[:, 2:]
    flipped_first_B2 = torch.cat((-last_B2[:, :1], first_B2[:, 1:]), 1)
    flipped_last_B2 = torch.cat((-first_B2[:, :1], last_B2[:, 1:]), 1)
    first_B2 = torch.where(flip_B1, flipped_first_B2, first_B2)
    last_B2 = torch.where(flip_B1, flipped_last_B2, last_B2)
    low_B2 = torch.maximum(center_B2 - window_B2, first_B2)
    high_B2 = torch.minimum(low_B2 + 2 * window_B2, last_B2)
    chosen_B1 = chosen_B1 & upright_B1 & (high_B2 > low_B2).all(1, keepdim=True)
    return (
        torch.where(chosen_B1, (low_B2 + high_B2) / 2, center_B2),
        torch.where(chosen_B1, (high_B2 - low_B2) / 2, window_B2),
    )


def _photometric(
    image_B3SS: Tensor, uniform: _Uniforms, tile_3TT: Tensor, config: AugmentConfig
) -> Tensor:
    """Color for all, then blur, JPEG and noise for some. Values 0..255."""
    image_B3SS = _color(image_B3SS, uniform, config)
    for share, change in ((config.blur, _blur), (config.jpeg, _jpeg)):
        rows, strength_B = uniform.below(share), next(uniform)
        if rows:
            image_B3SS[rows] = change(image_B3SS[rows], strength_B[rows])
    rows, amount_B = uniform.below(config.noise), (2 + 10 * uniform.host()).tolist()
    left_B, top_B = ((-(uniform.host() * _TILE).astype(int)) % _TILE for _ in range(2))
    side = image_B3SS.shape[2]
    if rows:
        times = 1 + -(-side // _TILE)
        field = tile_3TT.repeat(1, times, times)
        for row in rows:
            x, y = left_B[row], top_B[row]
            image_B3SS[row] += field[:, y : y + side, x : x + side] * amount_B[row]
        image_B3SS.clamp_(0, 255)
    return image_B3SS


def _put_behind(
    image_B3SS: Tensor, target_BSS: Tensor, uniform: _Uniforms, config: AugmentConfig
) -> None:
    """Put the object of a sample's partner behind its own, moved and scaled, into `image_B3SS`.

    Partners are the samples 0 and 1, 2 and 3, and so on: processes that share a batch evenly never
    part them.
    """
    last = len(image_B3SS) - 1
    rows = [row for row in uniform.below(config.neighbour) if row ^ 1 <= last]
    scale_B = _log_uniform(next(uniform), 0.6, 1.6)
    move_B2 = torch.stack((next(uniform), next(uniform)), 1) * 1.6 - 0.8
    if not rows:
        return
    partners = [row ^ 1 for row in rows]
    seen_R4SS = torch.cat((image_B3SS[partners], target_BSS[partners, None]), 1)
    matrix_R22 = torch.diag_embed((1 / scale_B[rows])[:, None].expand(-1, 2))
    grid_RSS2 = _grid(matrix_R22, _apply(matrix_R22, -move_B2[rows]), image_B3SS.shape[2])
    moved_R4SS = F.grid_sample(seen_R4SS, grid_RSS2, align_corners=False)
    shown_R1SS = moved_R4SS[:, 3:] * (1 - target_BSS[rows])[:, None]
    image_B3SS[rows] = image_B3SS[rows].lerp(moved_R4SS[:, :3], shown_R1SS)


def _color(image_B3SS: Tensor, uniform: _Uniforms, config: AugmentConfig) -> Tensor:
    """Gain, contrast, saturation and white balance as one 3x3 matrix and offset a sample."""
    luma_3 = image_B3SS.new_tensor((0.299, 0.587, 0.114))
    strength = config.color

    def factor(scale: float) -> Tensor:
        return torch.exp((next(uniform) * 2 - 1) * strength * scale)

    gain_B, contrast_B, saturation_B = factor(1.0), factor(1.0), factor(2.0)
    balance_B3 = torch.stack([factor(0.4) for _ in range(3)], 1)
    saturation_B = torch.where(next(uniform) < config.gray, 0.0, saturation_B)
    eye = torch.eye(3, device=image_B3SS.device)
    mixed_B33 = saturation_B[:, None, None] * eye + (1 - saturation_B)[:, None, None] * luma_3
    matrix_B33 = mixed_B33 * (gain_B * contrast_B)[:, None, None] * balance_B3[:, :, None]
    gray_B = image_B3SS.mean((2, 3)) @ luma_3
    offset_B3 = (gain_B * (1 - contrast_B) * gray_B)[:, None] * balance_B3
    changed = torch.baddbmm(offset_B3[:, :, None], matrix_B33, image_B3SS.flatten(2))
    return changed.view_as(image_B3SS).clamp_(0, 255)


def _blur(image_B3SS: Tensor, strength_B: Tensor) -> Tensor:
    """Gaussian blur of 0.4 to 1.6 pixels, 7 pixels wide."""
    side = image_B3SS.shape[2]
    offset_4 = torch.arange(4, device=image_B3SS.device)
    weight_B4 = torch.exp(-(offset_4**2) / (2 * (0.4 + 1.2 * strength_B)[:, None] ** 2))
    weight_B4 /= 2 * weight_B4.sum(1, keepdim=True) - weight_B4[:, :1]
    weight_4B111 = weight_B4.T[:, :, None, None, None]
    for axis, margins in ((2, (0, 0, 3, 3)), (3, (3, 3, 0, 0))):
        padded = F.pad(image_B3SS, margins, mode="replicate")
        image_B3SS = image_B3SS * weight_4B111[0]
        for away in (1, 2, 3):
            pair = padded.narrow(axis, 3 - away, side) + padded.narrow(axis, 3 + away, side)
            image_B3SS.addcmul_(pair, weight_4B111[away])
    return image_B3SS


# Luminance quantization of ITU-T T.81, Annex K.1, used for all three channels.
_QUANTIZATION = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))


@cache
def _jpeg_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The DCT-II of 8x8 tiles (64, 64), the quantization table (64,), RGB to YCbCr and back (3, 3).

    Made once for a device.
    """
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None, :]
    dct = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    dct[0] /= math.sqrt(2)
    table = torch.tensor(_QUANTIZATION, dtype=torch.float32).flatten()
    to_ycc = torch.tensor(_TO_YCC)
    tables = torch.kron(dct, dct), table, to_ycc, torch.linalg.inv(to_ycc)
    dct2, table, to_ycc, to_rgb = (each.to(device) for each in tables)
    return dct2, table, to_ycc, to_rgb


def _jpeg(image_B3SS: Tensor, strength_B: Tensor) -> Tensor:
    """JPEG's blocking and ringing at qualities 85 down to 25 (no chroma subsampling)."""
    count, _, side, _ = image_B3SS.shape
    dct, table, to_ycc, to_rgb = _jpeg_tables(image_B3SS.device)
    quality_B = 85 - 60 * strength_B
    scale_B = torch.where(quality_B < 50, 50 / quality_B, 2 - quality_B / 50)
    steps = (table * scale_B[:, None]).clamp_min(1)[:, None]
    padded = F.pad(image_B3SS, (0, -side % 8, 0, -side % 8), mode="replicate")
    blocks = padded.shape[2] // 8
    ycc = (to_ycc @ (padded - 128).flatten(2)).view(count, 3, blocks, 8, blocks, 8)
    tiles = ycc.transpose(3, 4).reshape(count, -1, 64)
    coarse = (tiles @ dct.T).div_(steps).round_().mul_(steps)
    ycc = (coarse @ dct).view(count, 3, blocks, blocks, 8, 8).transpose(3, 4)
    rgb: Tensor = (to_rgb @ ycc.reshape(count, 3, -1)).view_as(padded) + 128
    return rgb[:, :, :side, :side].clamp(0, 255)
