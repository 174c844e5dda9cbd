"""Augmentation: one affine grid for image and mask, fixed prompts, and changes that show."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from picosam2 import geometry
from picosam2.data import augment as module
from picosam2.data.augment import _QUANTIZATION, NO_AUGMENT, AugmentConfig, Cut, Draws, augment
from picosam2.data.store import BOX, CLICK
from picosam2.errors import ConfigError
from picosam2.evaluation.protocols import make_item
from picosam2.geometry import Window
from picosam2.images import MEAN, PAD_RGB, STD
from picosam2.prompts import Point

CONTEXT, SIZE = 160, 96
GEOMETRIC = AugmentConfig(color=0, gray=0, blur=0, jpeg=0, noise=0)
"""Everything that moves pixels, nothing that changes their color."""


def levels(image_B3SS: Tensor) -> Tensor:
    """Normalised images back on 0..255, (B, S, S, 3)."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (image_B3SS.permute(0, 2, 3, 1) * std + mean) * 255


def cut_of(
    context: np.ndarray,
    kind: int,
    config: AugmentConfig,
    *,
    half: tuple[float, float] = (80.0, 80.0),
    seed: int = 0,
    size: int = SIZE,
    image_B4: Tensor | None = None,
) -> Cut:
    """`augment` on contexts (B, C, C, 4) of one kind; `image_B4` are the images' edges."""
    count = len(context)
    return augment(
        torch.from_numpy(context),
        torch.tensor([half] * count),
        torch.full((count,), kind),
        Draws.of(count, torch.Generator().manual_seed(seed)),
        config,
        size,
        image_B4=image_B4,
    )


def run(
    context: np.ndarray,
    kind: int,
    config: AugmentConfig = NO_AUGMENT,
    *,
    half: tuple[float, float] = (80.0, 80.0),
    seed: int = 0,
    size: int = SIZE,
    edges: tuple[float, float, float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """`augment` on contexts (B, C, C, 4) of one kind: levels (B, S, S, 3), coverage (B, S, S).

    `edges` are the image's, from the context's center.
    """
    count = len(context)
    edges_B4 = None if edges is None else torch.tensor([edges] * count)
    image, target, *_ = cut_of(
        context, kind, config, half=half, seed=seed, size=size, image_B4=edges_B4
    )
    assert image.shape == (count, 3, size, size)
    assert target.shape == (count, size, size)
    assert image.dtype == target.dtype == torch.float32
    return levels(image), target


@pytest.fixture
def finely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resample as a GPU does it: not in steps of a 32nd of a pixel, nor in whole levels."""
    monkeypatch.setattr(module, "_warp", module._sample)


def noise(count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, CONTEXT, CONTEXT, 3), np.uint8)


def with_mask(colors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Contexts (B, C, C, 4) with one mask (C, C) for all."""
    coverage = np.broadcast_to(mask[None, :, :, None] * np.uint8(255), (*colors.shape[:3], 1))
    return np.concatenate((colors, coverage), 3)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((CONTEXT, CONTEXT), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def ellipse(a: float, b: float, angle: float = 0.0) -> np.ndarray:
    """An ellipse with half-axes a and b about the context's center."""
    y, x = np.mgrid[:CONTEXT, :CONTEXT] + 0.5 - CONTEXT / 2
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def of_mask(mask: np.ndarray, count: int) -> np.ndarray:
    """Contexts whose red says what the mask says, and whose blue is 77 everywhere."""
    colors = np.zeros((count, CONTEXT, CONTEXT, 3), np.uint8)
    colors[..., 0] = mask * np.uint8(255)
    colors[..., 2] = 77
    return with_mask(colors, mask)


# --- the window ---------------------------------------------------------------------------------


def test_a_click_without_augmentation_is_the_window_about_the_center() -> None:
    colors, mask = noise(2), rectangle(40, 50, 99, 120)
    image, target = run(with_mask(colors, mask), CLICK)  # 0.6 of 160 pixels is 96
    cut = slice(32, 128)
    np.testing.assert_allclose(image.numpy(), colors[:, cut, cut], atol=0.02)
    np.testing.assert_allclose(target[0].numpy(), mask[cut, cut], atol=1e-4)


def slope() -> tuple[np.ndarray, np.ndarray]:
    """An image of 240x200 pixels that says where it is, and an object in the middle of it."""
    y, x = np.mgrid[:200, :240].astype(np.uint8)
    image = np.stack((x, y, np.full_like(x, 128)), 2)
    return image, np.ones((200, 240), bool)


@pytest.mark.parametrize(
    ("x", "y"), [(120, 100), (20, 100), (120, 18), (225, 100), (120, 190), (17, 185), (230, 17)]
)
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_window_at_the_border_is_the_published_one(x: int, y: int, flip: float) -> None:
    """Theirs are of whole pixels: half a pixel of difference is allowed for."""
    image, mask = slope()
    if flip:  # what is mirrored here is mirrored back by the augmentation
        image, mask, x_context = image[:, ::-1], mask[:, ::-1], 240 - x
    else:
        x_context = x
    context = geometry.point_window(Point(x_context, y), CONTEXT / 2)
    colors = geometry.crop(np.ascontiguousarray(image), context, CONTEXT)
    coverage = geometry.crop_mask(np.ascontiguousarray(mask), context, CONTEXT)
    four = np.concatenate((colors, np.rint(coverage * 255).astype(np.uint8)[..., None]), 2)
    config = replace(NO_AUGMENT, published_border=1.0, flip=flip)
    edges = (-x_context, -y, 240 - x_context, 200 - y)
    seen, target = run(four[None], CLICK, config, edges=edges)
    window = make_item("paper-point", at(x, y)).window
    assert window is not None
    expected = geometry.crop(slope()[0], window)
    np.testing.assert_allclose(seen[0].numpy()[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1.6)
    assert target[0, 2:-2, 2:-2].min() > 0.95  # there is no padding in it


def at(x: int, y: int) -> np.ndarray:
    """A mask of slope's size whose center point is (x, y)."""
    mask = np.zeros((200, 240), bool)
    mask[y - 2 : y + 2, x - 2 : x + 2] = True
    return mask


def test_clicks_elsewhere_lie_anywhere_in_the_image() -> None:
    """Crops of a context that says where it is: their middles spread over the image's part."""
    y, x = np.mgrid[:CONTEXT, :CONTEXT].astype(np.uint8)
    context = np.stack((x, y, np.full_like(x, 128)), 2)[None].repeat(200, 0)
    batch = with_mask(context, rectangle(70, 70, 90, 90))
    config = replace(NO_AUGMENT, elsewhere=0.75, click_scale=(0.5, 0.5))
    edges_B4 = torch.tensor([[-80.0, -20.0, 30.0, 80.0]] * 200)
    cut = cut_of(batch, CLICK, config, seed=3, image_B4=edges_B4)
    assert 0.65 < cut.elsewhere_B.float().mean() < 0.85
    middle_B2 = levels(cut.image_B3SS)[:, 47:49, 47:49, :2].mean((1, 2))
    moved_B2, centered_B2 = middle_B2[cut.elsewhere_B], middle_B2[~cut.elsewhere_B]
    assert (centered_B2 - 79.5).abs().max() < 1
    low_2, high_2 = moved_B2.amin(0), moved_B2.amax(0)
    # The window stays in the context (40..120), and the click in the image (x <= 110, y >= 60).
    assert (low_2 - torch.tensor([40.0, 60.0])).abs().max() < 4
    assert (high_2 - torch.tensor([110.0, 120.0])).abs().max() < 4


def test_it_is_said_which_clicks_are_off_the_center() -> None:
    """Those whose window leaves the image at an edge, if they are treated as the published ones."""
    context = with_mask(noise(100), rectangle(70, 70, 90, 90))
    edges_B4 = torch.tensor([[-80.0, -80.0, 30.0, 80.0]] * 50 + [[-80.0, -80.0, 80.0, 80.0]] * 50)
    config = replace(NO_AUGMENT, published_border=0.5)
    cut = cut_of(context, CLICK, config, seed=3, image_B4=edges_B4)
    assert 10 < cut.off_center_B[:50].sum() < 40
    assert not cut.off_center_B[50:].any()


def test_boxes_are_never_elsewhere() -> None:
    config = replace(NO_AUGMENT, elsewhere=1.0)
    context = with_mask(noise(2), rectangle(40, 50, 99, 120))
    plain, moved = (run(context, BOX, each) for each in (NO_AUGMENT, config))
    for before, after in zip(plain, moved, strict=True):
        assert torch.equal(before, after)


def test_so_many_windows_at_the_border_are_the_published_ones() -> None:
    contexts = np.repeat(with_mask(noise(), rectangle(60, 60, 100, 100)), 200, 0)
    config = replace(NO_AUGMENT, published_border=0.4)
    padded, _ = run(contexts, CLICK)
    for edges, share in (((-20.0, -80.0, 80.0, 80.0), 0.4), ((-80.0, -80.0, 80.0, 80.0), 0.0)):
        seen, _ = run(contexts, CLICK, config, edges=edges)
        moved = (seen - padded).abs().amax((1, 2, 3)) > 0.5
        assert abs(moved.float().mean().item() - share) < 0.1
    boxes, _ = run(contexts, BOX, config, edges=(-20.0, -80.0, 80.0, 80.0))
    torch.testing.assert_close(boxes, run(contexts, BOX)[0])


def test_a_box_without_augmentation_is_the_box_window() -> None:
    mask = rectangle(40, 40, 120, 120)  # 80 pixels, grown by 1.2: the middle 96
    image, target = run(with_mask(noise(), mask), BOX)
    np.testing.assert_allclose(image[0].numpy(), noise()[0, 32:128, 32:128], atol=0.02)
    np.testing.assert_allclose(target[0].numpy(), mask[32:128, 32:128], atol=1e-4)


@pytest.mark.parametrize("corners", [(30, 50, 100, 90), (61, 20, 119, 143), (70, 70, 91, 85)])
def test_a_box_window_is_that_of_prediction(
    corners: tuple[int, int, int, int], finely: None
) -> None:
    """Enlarging, the geometry's filter and the grid are both bilinear."""
    mask = rectangle(*corners)
    x0, y0, x1, y1 = corners
    image, target = run(with_mask(noise(), mask), BOX)
    center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
    window = Window(
        center_x - 0.6 * (x1 - x0), center_y - 0.6 * (y1 - y0),
        center_x + 0.6 * (x1 - x0), center_y + 0.6 * (y1 - y0),
    )  # fmt: skip
    if max(window.width, window.height) > SIZE:  # shrunk: prediction smooths, the grid does not
        expected = geometry.crop_mask(mask, window)
        assert np.abs(target[0].numpy() - expected).mean() < 0.02
        return
    np.testing.assert_allclose(image[0].numpy(), geometry.crop(noise()[0], window), atol=1.5)
    np.testing.assert_allclose(target[0].numpy(), geometry.crop_mask(mask, window), atol=0.01)


def test_the_limit_on_the_aspect_is_that_of_prediction() -> None:
    """The context of a box is in its own proportions: half-sizes in image pixels tell them."""
    mask = rectangle(44, 44, 116, 116)  # the box of a 2:1 object in a 2:1 context
    config = replace(NO_AUGMENT, box_max_aspect=1.0)
    _, target = run(with_mask(noise(), mask), BOX, config, half=(40.0, 20.0))
    columns = target[0].numpy().max(0) > 0.5
    rows = target[0].numpy().max(1) > 0.5
    assert columns.sum() == pytest.approx(80, abs=1)  # the longer side fills 1 / 1.2
    assert rows.sum() == pytest.approx(40, abs=1)  # the shorter is not stretched
    free = run(with_mask(noise(), mask), BOX, half=(40.0, 20.0))[1][0].numpy()
    assert (free.max(1) > 0.5).sum() == pytest.approx(80, abs=1)


def test_the_growth_is_that_of_the_recipe() -> None:
    for growth in (1.0, 1.6):
        config = replace(NO_AUGMENT, box_growth=growth)
        _, target = run(with_mask(noise(), rectangle(60, 60, 100, 100)), BOX, config)
        side = (target[0].numpy().max(0) > 0.5).sum()
        assert side == pytest.approx(96 / growth, abs=1)


def test_outside_the_context_is_padding() -> None:
    mask = rectangle(0, 0, 160, 160)
    image, target = run(with_mask(noise(), mask), BOX, replace(NO_AUGMENT, box_growth=2.0))
    border = image[0, :20].numpy()
    np.testing.assert_allclose(border, np.broadcast_to(PAD_RGB, border.shape), atol=0.01)
    assert target[0, :20].max() == 0


@pytest.mark.parametrize("size", [32, 64, 128])
def test_other_sizes_show_the_same_window(size: int) -> None:
    context = with_mask(np.full((1, 160, 160, 3), 9, np.uint8), ellipse(50, 40))
    _, target = run(context, BOX, size=size)
    _, usual = run(context, BOX)
    assert target.mean() == pytest.approx(float(usual.mean()), abs=0.01)


# --- image and mask stay together ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [BOX, CLICK])
def test_image_and_mask_go_through_the_same_grid(kind: int, finely: None) -> None:
    context = of_mask(ellipse(46, 24, 0.5), 48)
    config = replace(GEOMETRIC, rotate=25.0, rotate_share=1.0, click_spread=0.3)
    image, target = run(context, kind, config, half=(90.0, 60.0))
    # The same blend of object and padding, whatever was done: blue tells how much is padding.
    context_share = (PAD_RGB[2] - image[..., 2]) / (PAD_RGB[2] - 77)
    red = image[..., 0] - (1 - context_share) * PAD_RGB[0]
    np.testing.assert_allclose(red.numpy() / 255, target.numpy(), atol=0.01)
    assert target.std((1, 2)).min() > 0.05


def test_a_flip_mirrors_image_and_mask(finely: None) -> None:
    for kind in (BOX, CLICK):
        context = with_mask(noise(), ellipse(46, 24, 0.5))
        plain_image, plain = run(context, kind)
        image, target = run(context, kind, replace(NO_AUGMENT, flip=1.0))
        np.testing.assert_allclose(image.flip(2).numpy(), plain_image.numpy(), atol=0.05)
        np.testing.assert_allclose(target.flip(2).numpy(), plain.numpy(), atol=1e-3)


def test_a_cpu_resamples_as_a_gpu_does_but_for_32nds_of_a_pixel_and_whole_levels() -> None:
    context, half, kind = mixed(24)
    draws = Draws.of(24, torch.Generator().manual_seed(2))
    config = replace(GEOMETRIC, rotate=25.0, rotate_share=0.5, box_jitter=0.4)
    seen = []
    for resample in (module._warp, module._sample):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_warp", resample)
            image, target, *_ = augment(context, half, kind, draws, config)
        seen.append(torch.cat((levels(image), target[..., None] * 255), 3))
    away = (seen[0] - seen[1]).abs()
    assert away.max() < 2 * 255 / 64 + 0.5  # half a step along both axes, half a level
    assert 0.1 < away.mean() < 2  # of noise, where neighbors differ by 85 on the average
    assert (seen[0][..., 3] - seen[1][..., 3]).abs().mean() < 0.2


def test_about_half_are_flipped() -> None:
    context = of_mask(rectangle(80, 60, 120, 100), 150)
    _, target = run(context, CLICK, replace(NO_AUGMENT, flip=0.5), size=16)
    left = target[:, :, :8].sum((1, 2)) > target[:, :, 8:].sum((1, 2))
    assert 0.35 < left.float().mean() < 0.65


def test_the_box_of_a_turned_object_is_the_fixed_rectangle() -> None:
    """Whatever the turn, the object's own box fills the middle 1 / 1.2 of the crop."""
    config = replace(NO_AUGMENT, rotate=30.0, rotate_share=1.0, flip=0.5)
    for half in ((80.0, 80.0), (80.0, 50.0)):
        for mask in (ellipse(30, 15, 0.3), rectangle(60, 70, 100, 85), ellipse(20, 20)):
            _, target = run(of_mask(mask, 24), BOX, config, half=half)
            for each in target.numpy():
                for axis in (0, 1):
                    seen = np.flatnonzero(each.max(axis) > 0.5)
                    assert seen[0] == pytest.approx(8, abs=3.5)
                    assert seen[-1] + 1 == pytest.approx(88, abs=3.5)


def test_rotation_turns_by_up_to_so_many_degrees() -> None:
    """The principal axis of a long ellipse, in a square window, before and after."""
    config = replace(NO_AUGMENT, rotate=20.0, rotate_share=0.5)
    _, target = run(of_mask(ellipse(40, 8), 150), CLICK, config)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    angles = []
    for each in target.numpy():
        xx, yy, xy = (each * x * x).sum(), (each * y * y).sum(), (each * x * y).sum()
        angles.append(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))
    turned = np.abs(angles) > 0.5
    assert 0.35 < turned.mean() < 0.65
    assert np.abs(angles).max() <= 20.5
    assert np.abs(angles).max() > 15
    assert abs(np.mean(angles)) < 2


def test_box_jitter_moves_each_edge_by_up_to_its_share() -> None:
    config = replace(NO_AUGMENT, box_jitter=0.2)
    _, target = run(of_mask(rectangle(50, 60, 110, 100), 200), BOX, config)
    edges = []
    for each in target.numpy():
        columns, rows = (np.flatnonzero(each.max(axis) > 0.5) for axis in (0, 1))
        edges.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    spread = np.array(edges) / SIZE
    # Without jitter the object is at 1/12 .. 11/12 of the crop. An edge of the box that moves out
    # by 0.2 of the side (the other out too) leaves the object 1 / 1.4 of that, and so on.
    assert (spread[:, :2] >= 0).all()
    assert (spread[:, 2:] <= 1).all()
    assert spread[:, 0].std() > 0.03
    assert spread[:, 0].max() < 0.5 - 0.5 / 1.2 / 1.4 + 0.2 / 1.2 / 1.4 + 0.02
    assert abs((spread[:, 0] + spread[:, 2]).mean() - 1) < 0.02  # on neither side more


def test_so_many_boxes_are_exact_and_the_others_jittered_as_ever() -> None:
    context = of_mask(rectangle(50, 60, 110, 100), 200)
    _, plain = run(context, BOX)
    shares = []
    for exact in (0.0, 0.4):
        config = replace(NO_AUGMENT, box_jitter=0.2, box_exact=exact)
        _, target = run(context, BOX, config)
        moved = (target - plain).abs().mean((1, 2))
        shares.append((moved < 1e-4).float().mean())
        assert moved.max() > 0.05
    assert shares[0] < 0.02
    assert 0.3 < shares[1] < 0.5


# --- a neighbor behind -------------------------------------------------------------------------


def two_kinds(count: int) -> np.ndarray:
    """Contexts of turns of a red tall and a green wide thing on black."""
    tall, wide = rectangle(65, 40, 95, 120), rectangle(40, 65, 120, 95)
    contexts = []
    for channel, mask in ((0, tall), (1, wide)):
        colors = np.zeros((1, CONTEXT, CONTEXT, 3), np.uint8)
        colors[0, mask, channel] = 255
        contexts.append(with_mask(colors, mask)[0])
    return np.stack(contexts * (count // 2))


def test_a_neighbor_is_seen_behind_the_object_only() -> None:
    config = replace(NO_AUGMENT, neighbour=1.0)
    context = two_kinds(100)
    plain, of_plain = run(context, CLICK)
    image, target = run(context, CLICK, config)
    assert torch.equal(target, of_plain)  # what is asked for stays what it was
    inside = (target > 0.999)[..., None].expand_as(image)
    torch.testing.assert_close(image[inside], plain[inside], rtol=0, atol=0.01)
    foreign = torch.stack((image[0::2, ..., 1], image[1::2, ..., 0]))
    seen = (foreign > 250).float().mean((2, 3))
    assert (seen > 0.005).float().mean() > 0.8  # most are beside it, in part at least
    assert seen.std() > 0.02  # at other places, of other sizes
    assert image.min() > -0.01
    assert image.max() < 255.01


def test_partners_are_pairs_and_the_last_of_an_odd_batch_has_none() -> None:
    config = replace(NO_AUGMENT, neighbour=1.0)
    context = two_kinds(4)[:3]
    plain, _ = run(context, CLICK)
    image, _ = run(context, CLICK, config)
    assert (image - plain).abs().amax((1, 2, 3))[:2].min() > 200
    assert torch.equal(image[2], plain[2])


# --- clicks -------------------------------------------------------------------------------------


def ring() -> np.ndarray:
    """A C whose opening is on the right, through the context's center."""
    y, x = np.mgrid[:CONTEXT, :CONTEXT] + 0.5 - CONTEXT / 2
    away = np.hypot(x - 30, y)
    return (away > 20) & (away < 40) & ~((x > 30) & (abs(y) < 15))


@pytest.mark.parametrize("mask", [ellipse(40, 20, 0.7), ring(), rectangle(79, 79, 81, 81)])
def test_a_moved_click_stays_on_the_object_and_in_the_middle(mask: np.ndarray) -> None:
    config = replace(
        NO_AUGMENT, click_spread=0.6, click_scale=(0.3, 0.5), flip=0.5, rotate=20, rotate_share=1
    )
    _, target = run(of_mask(mask, 100), CLICK, config)
    middle = target[:, 47:49, 47:49].mean((1, 2))
    assert (middle > 0.2).all()  # near a corner of a pixel on the object its neighbors blend in
    assert (middle > 0.5).float().mean() > 0.9


def test_clicks_are_moved() -> None:
    """Red and green say which context pixel it is, so that the crop's center can be read."""
    colors = np.zeros((160, CONTEXT, CONTEXT, 3), np.uint8)
    colors[..., 0], colors[..., 1] = np.arange(CONTEXT)[None, :], np.arange(CONTEXT)[:, None]
    config = replace(NO_AUGMENT, click_spread=0.2, click_scale=(0.4, 0.4))
    image, _ = run(with_mask(colors, ellipse(60, 30)), CLICK, config)
    place = image[:, 47:49, 47:49, :2].mean((1, 2)).numpy() + 0.5 - CONTEXT / 2
    # A standard deviation of 0.2 of the object's reach, 60 pixels across and 30 down.
    assert place.std(0) == pytest.approx([12, 6], rel=0.2)
    assert np.abs(place.mean(0)).max() < 2.5
    assert (np.hypot(place[:, 0] / 60, place[:, 1] / 30) < 1.05).all()


def test_the_scales_of_clicks_are_log_uniform_within_their_range() -> None:
    colors = np.zeros((160, CONTEXT, CONTEXT, 3), np.uint8)
    colors[..., 0] = np.arange(CONTEXT)[None, :]
    config = replace(NO_AUGMENT, click_scale=(0.25, 0.8))
    image, _ = run(with_mask(colors, ellipse(30, 30)), CLICK, config)
    widths = (image[:, 48, 94, 0] - image[:, 48, 1, 0]).numpy() / 93 * 96 / CONTEXT
    assert widths.min() == pytest.approx(0.25, abs=0.03)
    assert widths.max() == pytest.approx(0.8, abs=0.03)
    place = np.log(widths / 0.25) / np.log(0.8 / 0.25)
    assert np.histogram(place, 4, (0, 1))[0].min() > 24


def test_a_view_without_a_mask_still_gives_a_crop() -> None:
    for kind in (BOX, CLICK):
        image, target = run(with_mask(noise(4), np.zeros((CONTEXT,) * 2, bool)), kind, GEOMETRIC)
        assert torch.isfinite(image).all()
        assert not target.any()


# --- draws --------------------------------------------------------------------------------------


STRONG = AugmentConfig(
    rotate=90, rotate_share=1, box_jitter=0.3, click_spread=1, click_scale=(0.1, 1.0),
    color=1, gray=0.5, blur=0.7, jpeg=0.7, noise=0.7,
)  # fmt: skip


def mixed(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts, half-sizes and kinds of a mixed batch."""
    context = torch.from_numpy(with_mask(noise(count), ellipse(40, 20, 0.4)))
    half = torch.rand((count, 2), generator=torch.Generator().manual_seed(1)) * 100 + 10
    return context, half, torch.arange(count) % 2


def test_a_process_gets_its_share_of_the_very_same_batch() -> None:
    context, half, kind = mixed(12)
    draws = Draws.of(12, torch.Generator().manual_seed(5))
    logits = torch.randn((12, CONTEXT, CONTEXT), generator=torch.Generator().manual_seed(6))
    whole = augment(context, half, kind, draws, STRONG, teacher_BCC=logits)
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        share = augment(
            context[part], half[part], kind[part], draws.part(part.start, part.stop), STRONG,
            teacher_BCC=logits[part],
        )  # fmt: skip
        for each, all_of_them in zip(share, whole, strict=True):
            torch.testing.assert_close(each, all_of_them[part], rtol=1e-4, atol=1e-4)


def test_the_teachers_logits_are_cut_like_the_mask(finely: None) -> None:
    context, half, kind = mixed(12)
    coverage = context[..., 3].float()
    draws = Draws.of(12, torch.Generator().manual_seed(5))
    plain = augment(context, half, kind, draws, STRONG)
    taught = augment(context, half, kind, draws, STRONG, teacher_BCC=coverage / 255 * 32 - 16)
    assert plain.teacher_BSS is None
    assert taught.teacher_BSS is not None
    assert torch.equal(plain.image_B3SS, taught.image_B3SS)
    torch.testing.assert_close(
        taught.teacher_BSS, taught.target_BSS * 32 - 16, rtol=1e-4, atol=1e-3
    )  # and so -16, surely not the object, outside of the context


def test_a_sample_does_not_depend_on_the_others() -> None:
    context, half, kind = mixed(6)
    draws = Draws.of(6, torch.Generator().manual_seed(5))
    before = augment(context, half, kind, draws, STRONG)[0][2]
    context[3:] = 0
    after = augment(context, half, kind, draws, STRONG)[0][2]
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_the_seed_decides_everything() -> None:
    context, half, kind = mixed(6)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))  # the global generator has no say
        draws = Draws.of(6, torch.Generator().manual_seed(seed))
        results.append(augment(context, half, kind, draws, STRONG))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


def test_the_input_is_not_changed() -> None:
    context, half, kind = mixed(4)
    kept = context.clone(), half.clone(), kind.clone()
    augment(context, half, kind, Draws.of(4, torch.Generator().manual_seed(0)), STRONG)
    for now, before in zip((context, half, kind), kept, strict=True):
        assert torch.equal(now, before)


def test_everything_at_once_stays_finite_and_in_range() -> None:
    context, half, kind = mixed(40)
    draws = Draws.of(40, torch.Generator().manual_seed(0))
    for size in (16, 96, 160):
        image, target, *_ = augment(context, half, kind, draws, STRONG, size)
        assert torch.isfinite(image).all()
        assert levels(image).min() >= -0.01
        assert levels(image).max() <= 255.01
        assert target.min() >= 0
        assert target.max() <= 1 + 1e-5


# --- colors ------------------------------------------------------------------------------------


def smooth(count: int = 1) -> np.ndarray:
    """Contexts without sharp edges."""
    coarse = np.random.default_rng(4).integers(30, 226, (8, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((CONTEXT, CONTEXT), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(image)[None], count, 0)


def changed(config: AugmentConfig, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plain crops and the changed ones, (B, S, S, 3) levels."""
    context = with_mask(colors, ellipse(40, 30))
    plain, target = run(context, CLICK)
    image, same = run(context, CLICK, config)
    torch.testing.assert_close(target, same)  # the mask is as it was
    return plain.numpy(), image.numpy()


def test_without_color_nothing_is_changed() -> None:
    plain, image = changed(NO_AUGMENT, noise(3))
    np.testing.assert_array_equal(plain, image)


def test_color_changes_brightness_both_ways_and_keeps_the_image() -> None:
    plain, image = changed(replace(NO_AUGMENT, color=0.3), smooth(60))
    ratio = image.mean((1, 2, 3)) / plain.mean((1, 2, 3))
    assert ratio.min() < 0.85
    assert ratio.max() > 1.15
    for before, after in zip(plain, image, strict=True):
        assert np.corrcoef(before[..., 1].ravel(), after[..., 1].ravel())[0, 1] > 0.9


def test_gray_is_gray() -> None:
    plain, image = changed(replace(NO_AUGMENT, gray=1.0), smooth(3))
    np.testing.assert_allclose(image[..., 0], image[..., 1], atol=0.02)
    np.testing.assert_allclose(image[..., 0], image[..., 2], atol=0.02)
    np.testing.assert_allclose(image[..., 0], plain @ (0.299, 0.587, 0.114), atol=0.1)
    _, some = changed(replace(NO_AUGMENT, gray=0.3), smooth(100))
    gray = np.abs(some[..., 0] - some[..., 2]).max((1, 2)) < 0.1
    assert 0.17 < gray.mean() < 0.43


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of (S, S, 3), column by column and row by row."""
    place = np.arange(len(image))
    kernel = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * sigma**2))
    kernel[np.abs(place[:, None] - place[None, :]) > 3] = 0
    kernel /= kernel.sum(1, keepdims=True)
    return np.einsum("ij,kl,jlc->ikc", kernel, kernel, image, optimize=True)


def test_blur_is_gaussian() -> None:
    plain, image = changed(replace(NO_AUGMENT, blur=1.0), noise(8))
    for before, after in zip(plain, image, strict=True):
        sigmas = np.linspace(0.4, 1.6, 49)
        errors = [np.abs(gaussian(before, sigma) - after)[8:-8, 8:-8].max() for sigma in sigmas]
        assert min(errors) < 5  # one of these widths it is
    assert image.std() < 0.8 * plain.std()


def test_blur_leaves_a_flat_image_alone() -> None:
    plain, image = changed(replace(NO_AUGMENT, blur=1.0), np.full((2, 160, 160, 3), 77, np.uint8))
    np.testing.assert_allclose(plain, image, atol=0.01)


def test_jpeg_is_what_a_jpeg_encoder_does() -> None:
    """Against libjpeg, with the same tables and no chroma subsampling."""
    plain, image = changed(replace(NO_AUGMENT, jpeg=1.0), smooth(6))
    for before, after in zip(plain, image, strict=True):
        errors = []
        for quality in range(25, 86):
            scale = 50 / quality if quality < 50 else 2 - quality / 50
            table = [max(round(v * scale), 1) for row in _QUANTIZATION for v in row]
            stream = io.BytesIO()
            Image.fromarray(np.rint(before).astype(np.uint8)).save(
                stream, "JPEG", qtables=[table, table], subsampling=0
            )
            errors.append(np.abs(np.asarray(Image.open(stream)) - after).mean())
        assert min(errors) < 1.6  # libjpeg rounds its colors and tables to whole numbers
        assert max(errors) > 1.3 * min(errors)


def test_jpeg_of_a_side_that_is_no_multiple_of_eight() -> None:
    context = with_mask(smooth(), ellipse(40, 30))
    image, _ = run(context, CLICK, replace(NO_AUGMENT, jpeg=1.0), size=52)
    plain, _ = run(context, CLICK, size=52)
    assert (image - plain).abs().mean() < 10


def test_noise_has_no_mean_and_differs_between_samples() -> None:
    plain, image = changed(
        replace(NO_AUGMENT, noise=1.0), np.full((40, 160, 160, 3), 128, np.uint8)
    )
    difference = image - plain
    sigma = difference.std((1, 2, 3))
    assert sigma.min() > 1.8
    assert sigma.max() < 12.5
    assert sigma.max() > 2 * sigma.min()
    assert np.abs(difference.mean((1, 2, 3))).max() < 0.5
    flat = difference.reshape(40, -1)
    similar = np.corrcoef(flat) - np.eye(40)
    assert np.abs(similar).max() < 0.1


@pytest.mark.parametrize("name", ["blur", "jpeg", "noise", "neighbour"])
def test_only_a_share_is_changed(name: str) -> None:
    plain, image = changed(replace(NO_AUGMENT, **{name: 0.25}), smooth(100))
    touched = np.abs(plain - image).max((1, 2, 3)) > 0.5
    assert 0.12 < touched.mean() < 0.38


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 1.5}, {"rotate": -1}, {"rotate": 91}, {"rotate_share": 2}, {"box_jitter": 0.5},
        {"box_growth": 0.9}, {"box_growth": 3}, {"box_max_aspect": 0.5}, {"click_spread": -1},
        {"click_scale": (0.0, 0.5)}, {"click_scale": (0.5, 1.5)}, {"color": -0.1}, {"gray": 2},
        {"blur": -1}, {"jpeg": 1.01}, {"noise": float("nan")}, {"box_growth": float("nan")},
        {"click_spread": float("nan")}, {"rotate": float("nan")}, {"box_jitter": float("nan")},
        {"box_max_aspect": float("nan")}, {"neighbour": 1.5}, {"box_exact": -0.1},
        {"published_border": 2},
        {"elsewhere": -0.1},
    ],
)  # fmt: skip
def test_impossible_settings(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(change))}`"):
        AugmentConfig(**change)


def test_every_setting_is_switched_off_in_no_augment() -> None:
    off = {f.name: getattr(NO_AUGMENT, f.name) for f in fields(NO_AUGMENT)}
    kept = {"box_growth": geometry.BOX_GROWTH, "click_scale": (0.6, 0.6)}
    assert off == {**dict.fromkeys(off, 0), "box_max_aspect": float("inf"), **kept}
