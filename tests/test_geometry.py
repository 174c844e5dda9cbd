"""geometry: the golden file, an independent resampler, and what must hold for any window."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.scripts import load_script
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from picosam2 import geometry, masks
from picosam2.errors import PromptError
from picosam2.geometry import Window
from picosam2.images import PAD_RGB
from picosam2.prompts import Box, Point

GOLDEN = Path(__file__).with_name("golden")


maker = load_script(GOLDEN / "make_geometry.py")
FILE = json.loads((GOLDEN / "geometry.json").read_text())
NOW = json.loads(maker.text())

coordinate = st.floats(-300, 500, allow_nan=False).map(lambda v: round(v * 16) / 16)
side = st.floats(0.5, 400).map(lambda v: max(round(v * 16), 1) / 16)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    x, y, width, height = draw(coordinate), draw(coordinate), draw(side), draw(side)
    return Window(x, y, x + width, y + height)


def noise(seed: int, height: int = 47, width: int = 66) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def triangle(low: float, high: float, size: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (size, limit) of an image's pixels, and (size,) of the padding: dense, in floats."""
    scale = (high - low) / size
    reach = max(scale, 1.0)
    first, last = math.floor(low - reach) - 1, math.ceil(high + reach) + 1
    pixels = np.arange(min(first, 0), max(last, limit))
    samples = low + (np.arange(size) + 0.5) * scale
    weights = np.maximum(1 - np.abs(pixels + 0.5 - samples[:, None]) / reach, 0)
    weights /= weights.sum(1, keepdims=True)
    inside = (pixels >= 0) & (pixels < limit)
    return weights[:, inside], weights[:, ~inside].sum(1)


def dense_crop(image: np.ndarray, window: Window, size: int) -> np.ndarray:
    """`geometry.crop` written out as two matrix products in double precision."""
    down, beyond_y = triangle(window.y0, window.y1, size, image.shape[0])
    across, beyond_x = triangle(window.x0, window.x1, size, image.shape[1])
    strip = np.einsum("ij,hjc->hic", across, image.astype(float))
    strip += beyond_x[None, :, None] * np.array(PAD_RGB)
    return np.einsum("ij,jwc->iwc", down, strip) + beyond_y[:, None, None] * np.array(PAD_RGB)


def dense_paste(logits: np.ndarray, window: Window, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The logits at the centers of columns `xs` and rows `ys`, the edge repeated outwards."""

    def along(low: float, high: float, pixels: np.ndarray, size: int) -> np.ndarray:
        step = size / (high - low)
        reach = max(step, 1.0)
        places = (pixels + 0.5 - low) * step
        far = math.ceil(2 * reach) + 2
        cells = np.arange(-far, size + far)
        weights = np.maximum(1 - np.abs(cells + 0.5 - places[:, None]) / reach, 0)
        weights /= weights.sum(1, keepdims=True)
        out = np.zeros((len(pixels), size))
        np.add.at(out, (slice(None), np.clip(cells, 0, size - 1)), weights)
        return out

    rows, columns = logits.shape
    down = along(window.y0, window.y1, ys, rows)
    across = along(window.x0, window.x1, xs, columns)
    return down @ logits @ across.T


# --- the golden file ----------------------------------------------------------------------------


def test_the_golden_file_is_about_this_geometry() -> None:
    for key in ("about", "constants", "images", "masks", "logits"):
        assert FILE[key] == NOW[key], f"{key} changed: run python tests/golden/make_geometry.py"
    assert {k: len(v) for k, v in FILE.items() if isinstance(v, list)} == {
        k: len(v) for k, v in NOW.items() if isinstance(v, list)
    }


@pytest.mark.parametrize("section", ["point_window", "click_windows", "box_window"])
def test_golden_windows(section: str) -> None:
    for kept, now in zip(FILE[section], NOW[section], strict=True):
        np.testing.assert_allclose(now["expected"], kept["expected"], rtol=1e-9, atol=1e-9)


def test_golden_sensor_windows() -> None:
    for kept, now in zip(FILE["sensor_window"], NOW["sensor_window"], strict=True):
        assert (kept["expected"] is None) == (now["expected"] is None)
        if kept["expected"] is not None:
            np.testing.assert_allclose(now["expected"], kept["expected"], rtol=1e-9, atol=1e-9)


def test_golden_points() -> None:
    for case in FILE["to_crop"]:
        window = Window(*case["window"])
        there = window.to_crop(np.array(case["image_points"]), case["size"])
        np.testing.assert_allclose(there, case["crop_points"], atol=1e-9)
        back = window.to_image(np.array(case["crop_points"]), case["size"])
        np.testing.assert_allclose(back, case["image_points"], atol=1e-9)


@pytest.mark.parametrize("index", range(len(FILE["crop"])), ids=lambda i: FILE["crop"][i]["name"])
def test_golden_crops(index: int) -> None:
    kept, now = FILE["crop"][index], NOW["crop"][index]
    assert {k: kept[k] for k in kept if k != "expected"} == {
        k: now[k] for k in now if k != "expected"
    }
    assert np.abs(_pixels(kept) - _pixels(now)).max() <= 1
    image = maker.image(FILE["images"][kept["image"]])
    dense = dense_crop(image, Window(*kept["window"]), kept["size"])
    assert np.abs(_pixels(kept) - dense.ravel()).max() <= 1.01


def _pixels(case: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(maker.base64.b64decode(case["expected"]), np.uint8).astype(int)


def test_golden_crop_masks() -> None:
    for kept, now in zip(FILE["crop_mask"], NOW["crop_mask"], strict=True):
        assert np.abs(_pixels(kept) - _pixels(now)).max() <= 1


def test_golden_pastes() -> None:
    for kept, now in zip(FILE["paste"], NOW["paste"], strict=True):
        for key in ("x", "y", "width_px", "height_px"):
            assert kept[key] == now[key]
        np.testing.assert_allclose(now["expected"], kept["expected"], atol=1e-3)
        if not kept["expected"]:
            continue
        xs = np.arange(kept["x"], kept["x"] + kept["width_px"])
        ys = np.arange(kept["y"], kept["y"] + kept["height_px"])
        window = Window(*kept["window"]).at_least(1.0)
        dense = dense_paste(maker.logits(FILE["logits"][kept["logits"]]), window, xs, ys)
        np.testing.assert_allclose(np.ravel(dense), kept["expected"], atol=1e-3)


# --- crop ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(window=windows(), seed=seeds, tall=st.booleans(), size=st.sampled_from([5, 16, 33]))
def test_crop_is_the_triangle_filter(window: Window, seed: int, tall: bool, size: int) -> None:
    image = noise(seed % 7, *((66, 23) if tall else (31, 52)))
    difference = geometry.crop(image, window, size) - dense_crop(image, window, size)
    assert np.abs(difference).max() <= 1.01  # two roundings of half a level each


@settings(max_examples=40, deadline=None)
@given(window=windows(), dx=st.integers(-40, 40), dy=st.integers(-40, 40))
def test_moving_image_and_window_together_changes_nothing(window: Window, dx: int, dy: int) -> None:
    """The image lies on a canvas of padding; where on it does not matter to the crop."""
    image = noise(3, 30, 44)
    crops = []
    for x, y in ((50, 50), (50 + dx, 50 + dy)):
        canvas = np.empty((130, 144, 3), np.uint8)
        canvas[...] = PAD_RGB
        canvas[y : y + 30, x : x + 44] = image
        moved = Window(window.x0 + x, window.y0 + y, window.x1 + x, window.y1 + y)
        crops.append(geometry.crop(canvas, moved, 24).astype(int))
    # The crop of the bare image: padding that is part of the image or not is the same.
    crops.append(geometry.crop(image, window, 24).astype(int))
    for other in crops[1:]:
        assert np.abs(crops[0] - other).max() <= 1


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(0, 40),
    y=st.integers(0, 30),
    width=st.floats(0.5, 60),
    height=st.floats(0.5, 60),
    f=st.integers(0, 63).map(lambda n: n / 64),
)
def test_translation_by_whole_pixels_is_exact(
    x: int, y: int, width: float, height: float, f: float
) -> None:
    width, height = round(width * 64) / 64, round(height * 64) / 64
    image = noise(5, 200, 220)
    moved = np.roll(image, (y, x), (0, 1))
    here = Window(70 + f, 70 + f, 70 + f + width, 70 + f + height)
    there = Window(here.x0 + x, here.y0 + y, here.x1 + x, here.y1 + y)
    np.testing.assert_array_equal(geometry.crop(image, here, 19), geometry.crop(moved, there, 19))


@settings(max_examples=40, deadline=None)
@given(window=windows(), vertical=st.booleans())
def test_flipping_image_and_window_flips_the_crop(window: Window, vertical: bool) -> None:
    image = noise(9)
    height, width = image.shape[:2]
    if vertical:
        flipped = Window(window.x0, height - window.y1, window.x1, height - window.y0)
    else:
        flipped = Window(width - window.x1, window.y0, width - window.x0, window.y1)
    axis = 0 if vertical else 1
    there = geometry.crop(np.flip(image, axis), flipped, 24).astype(int)
    assert np.abs(np.flip(there, axis) - geometry.crop(image, window, 24)).max() <= 1


def test_an_unscaled_window_copies_pixels() -> None:
    image = noise(1, 40, 50)
    np.testing.assert_array_equal(geometry.crop(image, Window(7, 5, 31, 29), 24), image[5:29, 7:31])


@settings(max_examples=40, deadline=None)
@given(window=windows())
def test_what_lies_outside_is_padding_exactly(window: Window) -> None:
    image = np.full((31, 52, 3), 250, np.uint8)
    size = 24
    crop = geometry.crop(image, window, size)
    centers = (np.arange(size) + 0.5) / size
    x, y = window.x0 + centers * window.width, window.y0 + centers * window.height
    reach_x = max(window.width / size, 1) + 0.01
    reach_y = max(window.height / size, 1) + 0.01
    columns = (x + reach_x < 0) | (x - reach_x > 52)
    rows = (y + reach_y < 0) | (y - reach_y > 31)
    outside = rows[:, None] | columns[None, :]
    np.testing.assert_array_equal(crop[outside], np.broadcast_to(PAD_RGB, crop.shape)[outside])
    # Never stretched: a pixel whose filter lies inside the image shows the image alone.
    whole_x = (x - reach_x > 0.5) & (x + reach_x < 51.5)
    whole_y = (y - reach_y > 0.5) & (y + reach_y < 30.5)
    assert (crop[whole_y[:, None] & whole_x[None, :]] == 250).all()


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(0, 65), y=st.integers(0, 46), half=st.floats(6, 300), size=st.sampled_from([95])
)
def test_a_click_is_the_center_of_its_crop(x: int, y: int, half: float, size: int) -> None:
    """A white pixel, even in the corner of the image, is brightest in the middle of the crop."""
    image = np.zeros((47, 66, 3), np.uint8)
    image[y, x] = 255
    window = geometry.point_window(Point(x + 0.5, y + 0.5), half)
    crop = geometry.crop(image, window, size).astype(float)
    crop[(crop == PAD_RGB).all(2)] = 0
    middle = window.to_crop(np.array([[x + 0.5, y + 0.5]]), size)
    np.testing.assert_allclose(middle, size / 2)
    bare = crop - geometry.crop(np.zeros_like(image), window, size)
    bare = np.where(bare > 0, bare, 0).sum(2)
    assert bare[size // 2, size // 2] == bare.max()


@pytest.mark.parametrize(
    "window",
    [
        Window(-5e5, -5e5, 5e5, 5e5),
        Window(-3e6, 3, -2e6, 90),
        Window(1e9, 1e9, 1e9 + 50, 1e9 + 50),
        Window(-1e15, 0, -1e15 + 64, 40),
        Window(10, 10, 10 + 1e-9, 10.5),
    ],
)
def test_absurd_windows_take_little_memory(window: Window) -> None:
    image = noise(2, 48, 64)
    tracemalloc.start()
    crop = geometry.crop(image, window)
    pasted = geometry.paste(np.ones((96, 96), np.float32), window, 48, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert crop.shape == (96, 96, 3)
    assert pasted.shape == (48, 64)
    assert peak < 40e6


def test_a_long_narrow_image_takes_its_own_memory() -> None:
    image = np.zeros((60, 30_000, 3), np.uint8)
    tracemalloc.start()
    for window in geometry.click_windows(Point(15_000, 30), 60, 30_000):
        geometry.crop(image, window)
        geometry.crop(image.transpose(1, 0, 2), window)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * image.nbytes


def test_a_window_millions_of_times_the_image_is_refused() -> None:
    with pytest.raises(PromptError, match="too large for the image"):
        geometry.crop(noise(0), Window(-1e12, -1e12, 1e12, 1e12))


def test_a_mask_and_a_crop_agree() -> None:
    rows, columns = np.mgrid[:50, :60]
    mask = (rows - 20) ** 2 + (columns - 30) ** 2 < 150
    window = Window(3.5, -4.25, 55, 44)
    image = np.repeat(mask[:, :, None] * np.uint8(255), 3, 2)
    crop = geometry.crop(image, window)
    covered = geometry.crop_mask(mask, window)
    assert covered.dtype == np.float32
    seen = covered[15:80, 15:80]  # away from the border, where one pads with gray, one with nothing
    np.testing.assert_array_equal(np.rint(seen * 255), crop[15:80, 15:80, 0])
    area = covered.sum() * window.width * window.height / 96**2
    assert area == pytest.approx(mask.sum(), rel=0.01)


# --- paste --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(window=windows(), seed=seeds)
def test_paste_is_the_triangle_filter_with_repeated_edges(window: Window, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, (12, 12)).astype(np.float32)
    region = geometry.paste_region(logits, window, 40, 60)
    window = window.at_least(1.0)
    inside_x = (np.arange(60) + 0.5 >= window.x0) & (np.arange(60) + 0.5 < window.x1)
    inside_y = (np.arange(40) + 0.5 >= window.y0) & (np.arange(40) + 0.5 < window.y1)
    xs, ys = np.flatnonzero(inside_x), np.flatnonzero(inside_y)
    assert region.logits.size == len(xs) * len(ys)
    if not region.logits.size:
        return
    assert (region.x, region.y) == (xs[0], ys[0])
    expected = dense_paste(logits, window, xs, ys)
    np.testing.assert_allclose(region.logits, expected, atol=2e-3)


def test_paste_fills_the_rest() -> None:
    full = geometry.paste(np.full((8, 8), 3.0, np.float32), Window(2, 3, 10, 9), 20, 30)
    assert full.dtype == np.float32
    assert (full[3:9, 2:10] == 3).all()
    full[3:9, 2:10] = geometry.OUTSIDE_LOGIT
    assert (full == geometry.OUTSIDE_LOGIT).all()


def blob(seed: int, height: int, width: int, extent: float) -> np.ndarray:
    """A smooth, star-shaped object about `extent` pixels across."""
    rng = np.random.default_rng(seed)
    cx, cy = rng.uniform(0.2, 0.8, 2) * (width, height)
    y, x = np.mgrid[:height, :width] + 0.5
    angle = np.arctan2(y - cy, x - cx)
    radius = np.full(angle.shape, extent / 2)
    for k in (1, 2, 3):
        radius += extent * 0.08 * rng.uniform(-1, 1) * np.cos(k * angle + rng.uniform(0, 6.3))
    squash = rng.uniform(0.6, 1.0)
    return (x - cx) ** 2 + ((y - cy) / squash) ** 2 <= radius**2


@settings(max_examples=50, deadline=None)
@given(seed=seeds, extent=st.floats(45, 400))
def test_a_mask_survives_the_round_trip(seed: int, extent: float) -> None:
    mask = blob(seed, 300, 400, extent)
    bounds = masks.bbox(mask)
    assert bounds is not None
    assume(min(bounds[2] - bounds[0], bounds[3] - bounds[1]) > 32)
    window = geometry.box_window(Box(*bounds))
    logits = (geometry.crop_mask(mask, window) - 0.5) * 16
    assert masks.iou(mask, geometry.paste(logits, window, 300, 400) > 0) >= 0.98


def test_a_round_trip_reaching_past_the_image() -> None:
    """The window of an object at the border reaches past the image on two sides."""
    y, x = np.mgrid[:120, :160] + 0.5
    mask = (x - 150) ** 2 + (y - 4) ** 2 < 40**2
    window = geometry.box_window(Box(*(masks.bbox(mask) or ())))
    assert window.x1 > 160
    assert window.y0 < 0
    logits = (geometry.crop_mask(mask, window) - 0.5) * 16
    assert masks.iou(mask, geometry.paste(logits, window, 120, 160) > 0) >= 0.98


# --- windows ------------------------------------------------------------------------------------


@given(windows(), seeds, st.integers(1, 40))
def test_logits_seen_through_their_own_window_are_the_same(
    window: Window, seed: int, size: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 8, (size, size)).astype(np.float32)
    seen = geometry.resample_logits(logits, window, window, size)
    np.testing.assert_allclose(seen, logits, atol=1e-3)


@given(windows(), st.integers(0, 70), st.integers(0, 50), seeds)
def test_a_target_of_whole_pixels_is_a_piece_of_the_image(
    source: Window, x: int, y: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 8, (12, 17)).astype(np.float32)
    target = Window(x, y, x + 24, y + 24)
    seen = geometry.resample_logits(logits, source, target, 24, outside=-9)
    image = geometry.paste(logits, source, 90, 110, outside=-9)
    np.testing.assert_allclose(seen, image[y : y + 24, x : x + 24], atol=1e-2)


@given(windows(), windows(), st.integers(1, 30))
def test_only_pixels_whose_center_lies_in_the_source_are_seen(
    source: Window, target: Window, size: int
) -> None:
    # A source thinner than a target pixel is taken as one pixel wide, as `paste` does.
    assume(source.width >= target.width / size)
    assume(source.height >= target.height / size)
    seen = geometry.resample_logits(np.full((5, 7), 3, np.float32), source, target, size)
    centers = target.to_image(np.stack([np.arange(size) + 0.5] * 2, 1), size)
    across = (centers[:, 0] >= source.x0) & (centers[:, 0] < source.x1)
    down = (centers[:, 1] >= source.y0) & (centers[:, 1] < source.y1)
    near_x = np.minimum(abs(centers[:, 0] - source.x0), abs(centers[:, 0] - source.x1))
    near_y = np.minimum(abs(centers[:, 1] - source.y0), abs(centers[:, 1] - source.y1))
    # Rounding decides for centers that lie on an edge.
    sure = (near_y > 1e-6 * target.height)[:, None] & (near_x > 1e-6 * target.width)[None]
    expected = np.where(down[:, None] & across[None], 3, geometry.OUTSIDE_LOGIT)
    np.testing.assert_allclose(seen[sure], expected[sure], atol=1e-4)


@given(seeds, st.floats(0.2, 1), st.integers(20, 60))
def test_a_slope_stays_a_slope_when_enlarged(seed: int, share: float, size: int) -> None:
    """Bilinear resampling keeps linear functions, away from the repeated edge."""
    rng = np.random.default_rng(seed)
    gx, gy, level = rng.normal(0, 1, 3)
    source = Window(10, 20, 90, 80)
    cells = source.to_image(np.stack([np.arange(20) + 0.5] * 2, 1), 20)
    logits = (level + gx * cells[None, :, 0] + gy * cells[:, None, 1]).astype(np.float32)
    target = Window(20, 30, 20 + 60 * share, 30 + 40 * share)
    seen = geometry.resample_logits(logits, source, target, size)
    places = target.to_image(np.stack([np.arange(size) + 0.5] * 2, 1), size)
    expected = level + gx * places[None, :, 0] + gy * places[:, None, 1]
    np.testing.assert_allclose(seen, expected, atol=1e-2)


def test_shrinking_is_antialiased() -> None:
    """Stripes of one pixel become gray rather than one of the two."""
    logits = np.zeros((96, 96), np.float32)
    logits[:, ::2] = 8
    seen = geometry.resample_logits(logits, Window(0, 0, 96, 96), Window(0, 0, 96, 96), 12)
    np.testing.assert_allclose(seen[:, 2:-2], 4, atol=0.3)


@pytest.mark.parametrize("side", [96, 160])
def test_a_shape_in_an_images_logits_is_the_shape_in_the_crop(side: int) -> None:
    rows, columns = np.mgrid[:240, :320] + 0.5
    distance = np.hypot(columns - 150, rows - 110)
    image, target = Window(0, 0, 320, 240), Window(60, 30, 260, 190)
    seen = geometry.resample_logits((50 - distance).astype(np.float32), image, target, side)
    expected = geometry.crop_mask(distance < 50, target, side) > 0.5
    assert masks.iou(seen > 0, expected) > 0.99


@given(windows(), st.integers(1, 90), st.integers(1, 90), st.integers(1, 30))
def test_what_of_a_crop_is_inside(window: Window, height: int, width: int, size: int) -> None:
    rows, columns = geometry.inside(window, height, width, size)
    centers = window.to_image(np.stack([np.arange(size) + 0.5] * 2, 1), size)
    for actual, place, limit in ((columns, centers[:, 0], width), (rows, centers[:, 1], height)):
        expected = (place >= 0) & (place < limit)
        marked = np.zeros(size, bool)
        marked[actual] = True
        sure = np.minimum(abs(place), abs(place - limit)) > 1e-6
        np.testing.assert_array_equal(marked[sure], expected[sure])


@settings(max_examples=40, deadline=None)
@given(x=coordinate, y=coordinate, width=side, height=side, growth=st.floats(1, 2))
def test_a_box_is_always_the_same_rectangle_of_its_window(
    x: float, y: float, width: float, height: float, growth: float
) -> None:
    window = geometry.box_window(Box(x, y, x + width, y + height), growth=growth)
    corners = window.to_crop(np.array([[x, y], [x + width, y + height]]))
    margin = 96 * (1 - 1 / growth) / 2
    np.testing.assert_allclose(corners, [[margin, margin], [96 - margin, 96 - margin]], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(width=side, height=side, limit=st.floats(1, 8))
def test_the_aspect_limit_widens_the_shorter_side_only(
    width: float, height: float, limit: float
) -> None:
    window = geometry.box_window(Box(10, 20, 10 + width, 20 + height), growth=1.2, max_aspect=limit)
    assert window.center == pytest.approx((10 + width / 2, 20 + height / 2))
    sides = window.width, window.height
    assert max(sides) == pytest.approx(1.2 * max(width, height))
    assert min(sides) == pytest.approx(max(1.2 * min(width, height), max(sides) / limit))


def test_click_windows_share_their_center_and_rise() -> None:
    ladder = geometry.click_windows(Point(3, 470), 480, 640)
    assert all(w.center == pytest.approx((3, 470)) for w in ladder)
    assert [w.width for w in ladder] == sorted(w.width for w in ladder)
    assert all(w.width == pytest.approx(w.height) for w in ladder)
    assert ladder[-1].width > 640
    half = [w.scaled(0.5) for w in ladder]
    small = geometry.click_windows(Point(3, 470), 240, 320)
    assert [w.width for w in half] == pytest.approx([w.width for w in small])


@settings(max_examples=60, deadline=None)
@given(window=windows(), height=st.integers(1, 300), width=st.integers(1, 400))
def test_a_sensor_window_lies_inside_and_keeps_center_and_aspect(
    window: Window, height: int, width: int
) -> None:
    x, y = window.center
    if not (0 < x < width and 0 < y < height):
        with pytest.raises(PromptError, match="must lie inside"):
            geometry.sensor_window(window, height, width)
        return
    result = geometry.sensor_window(window, height, width)
    slack = 1e-9 * max(width, height)
    assert result.x0 >= -slack
    assert result.y0 >= -slack
    assert result.x1 <= width + slack
    assert result.y1 <= height + slack
    assert result.center == pytest.approx((x, y))
    assert result.width / result.height == pytest.approx(window.width / window.height)
    assert result.width <= window.width + slack
    shrunk = result.width < window.width * (1 - 1e-9)
    touches = min(result.x0, result.y0, width - result.x1, height - result.y1) <= slack
    assert touches if shrunk else result == window


@pytest.mark.parametrize(
    ("corners", "says"),
    [
        ((0, 0, 0, 5), "positive"),
        ((5, 0, 1, 5), "positive"),
        ((0, math.nan, 1, 5), "finite"),
        ((0, 0, math.inf, 5), "finite"),
        ((-1e308, 0, 1e308, 5), "finite"),
    ],
)
def test_impossible_windows(corners: tuple[float, ...], says: str) -> None:
    with pytest.raises(PromptError, match=says):
        Window(*corners)


def test_a_window_without_a_size_is_refused() -> None:
    with pytest.raises(PromptError):
        geometry.point_window(Point(5, 5), 0)


# --- large images -------------------------------------------------------------------------------


@pytest.fixture
def in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MAX_AT_ONCE", 1000)


@pytest.mark.parametrize(
    "corners", [(10, 20, 260, 190), (-50, -70, 250.5, 400.25), (3, 4, 9, 220), (5, 6, 280, 11)]
)
def test_pasting_in_strips_gives_the_same(
    corners: tuple[float, ...], in_strips: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (48, 48)).astype(np.float32)
    strips = geometry.paste_region(logits, Window(*corners), 200, 300)
    monkeypatch.undo()
    whole = geometry.paste_region(logits, Window(*corners), 200, 300)
    assert (strips.x, strips.y) == (whole.x, whole.y)
    np.testing.assert_array_equal(strips.values, whole.values)


@given(
    st.integers(0, 99), coordinate, coordinate, side, side, st.integers(1, 90), st.integers(1, 90)
)
@settings(max_examples=60, deadline=None)
def test_a_mask_lies_in_its_positive_columns(
    seed: int, x: float, y: float, width: float, height: float, rows: int, columns: int
) -> None:
    """Pasting these columns alone gives the mask's box and the same logits."""
    rng = np.random.default_rng(seed)
    logits = np.where(rng.random((12, 12)) < 0.1, 3, -4).astype(np.float32)
    window = Window(x / 4, y / 4, x / 4 + width, y / 4 + height)
    whole = geometry.paste_region(logits, window, rows, columns)
    some = geometry.positive_columns(logits, window, columns)
    if some is None:
        assert not whole.mask.any()
        return
    part = geometry.paste_region(logits, window, rows, columns, some)
    assert part.box == whole.box
    offset = part.x - whole.x
    np.testing.assert_array_equal(
        part.values, whole.values[:, offset : offset + part.values.shape[1]]
    )


def test_a_large_paste_takes_little_more_than_its_logits() -> None:
    logits = np.full((96, 96), 3, np.float32)
    tracemalloc.start()
    region = geometry.paste_region(logits, Window(0, 0, 4000, 3000), 3000, 4000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert region.values.nbytes == 4 * 12_000_000
    assert peak < 1.2 * region.values.nbytes


def test_a_pyramid_gives_nearly_the_same_crops() -> None:
    """Of a smooth image; windows that shrink it little come from the image itself."""
    rows, columns = np.mgrid[:1501, :2001]
    waves = 128 + 90 * np.sin(columns / 90) * np.cos(rows / 70)
    image = np.stack((waves, 255 - waves, columns / 8), 2).astype(np.uint8)
    pyramid = geometry.Pyramid(image)
    for window in (Window(100, 50, 650, 600), Window(100, 50, 670, 1400)):
        direct = geometry.crop(image, window, 96)
        np.testing.assert_array_equal(geometry.crop(pyramid, window, 96), direct)
    assert pyramid.level(Window(0, 0, 500, 500), 96)[0] is image
    for window in (Window(-100, -50, 1500, 1500), Window(300, 200, 1500, 1500)):
        direct, near = geometry.crop(image, window, 96), geometry.crop(pyramid, window, 96)
        assert pyramid.level(window, 96)[0] is not image
        difference = np.abs(direct.astype(int) - near)
        assert difference.mean() < 0.5
        # At the image's edge the padding is mixed in with another weight.
        assert np.quantile(difference, 0.98) <= 2


def test_the_levels_of_a_pyramid_are_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1031, 777, 3), dtype=np.uint8)
    half, window = geometry.Pyramid(image).level(Window(0, 0, 400, 600), 64)
    assert half.shape == (516, 389, 3)
    assert window == Window(0, 0, 200, 300)
    even = image[:1030, :776].reshape(515, 2, 388, 2, 3).astype(int).sum((1, 3))
    np.testing.assert_array_equal(half[:515, :388], (even + 2) // 4)
    np.testing.assert_array_equal(half[515, 388], image[1030, 776])
    tiny = geometry.Pyramid(np.zeros((1, 3, 3), np.uint8))
    assert geometry.crop(tiny, Window(-5000, -5000, 5000, 5000), 64).shape == (64, 64, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_in_one_step_is_the_same_as_axis_by_axis(
    turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (150, 211, 3), np.uint8)
    image = np.ascontiguousarray(image.swapaxes(0, 1)) if turned else image
    height, width = image.shape[:2]
    windows = []
    for _ in range(60):
        (x0, x1), (y0, y1) = (
            np.sort(rng.uniform(2, side - 2, 2)).tolist() for side in (width, height)
        )
        windows.append(Window(x0, y0, x1, y1))
    at_once = [geometry.crop(image, window, 96) for window in windows]
    monkeypatch.setattr(geometry._Span, "is_inside", False)
    for window, crop in zip(windows, at_once, strict=True):
        assert np.array_equal(crop, geometry.crop(image, window, 96)), window
