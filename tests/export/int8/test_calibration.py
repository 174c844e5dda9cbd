"""Calibration crops are what the predictor would cut, and ranges hold what they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.fakes import FakeRuntime
from helpers.progress import Recorded
from helpers.tiny import SMALL_STORE, make_store, scene
from hypothesis import given
from hypothesis import strategies as st

from picosam2 import geometry, masks
from picosam2.data.store import Store
from picosam2.errors import ConfigError, StoreError
from picosam2.export.int8.calibration import (
    BINS,
    METHODS,
    CalibrationConfig,
    Crops,
    Histogram,
    activations,
    choose_crops,
    observe,
    ranges,
    sample_crops,
)
from picosam2.images import normalize
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Predictor
from picosam2.prompts import Box
from picosam2.runtimes.onnx import OnnxRuntime


def predictor_of(channels: int = 2, size: int = 48, **facts) -> Predictor:
    return Predictor(FakeRuntime(lambda _c, _n: None, size=size, channels=channels, **facts))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("calibration"), 12)


def test_half_of_the_crops_are_clicks(store: Store) -> None:
    crops = choose_crops(store, predictor_of(), 8, 0)
    assert crops.pixels.shape == (8, 48, 48, 3)
    assert crops.pixels.dtype == np.uint8
    assert crops.channels.tolist().count(0) == crops.channels.tolist().count(1) == 4
    assert set(choose_crops(store, predictor_of(channels=1), 8, 0).channels) == {0}


def test_a_seed_chooses_them(store: Store) -> None:
    first, same, other = (choose_crops(store, predictor_of(), 6, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.pixels, same.pixels)
    np.testing.assert_array_equal(first.channels, same.channels)
    assert first.pixels.shape == other.pixels.shape
    assert (first.pixels != other.pixels).any()


def test_small_stores_give_what_they_have(store: Store) -> None:
    objects = len(np.unique(store.records["instance"][~store.records["validation"]]))
    crops = choose_crops(store, predictor_of(), 1000, 0)
    assert crops.channels.tolist().count(0) == objects
    assert crops.channels.tolist().count(1) == 2 * objects  # near and far


def test_crops_of_the_sample_image_need_no_store() -> None:
    crops = sample_crops(predictor_of(), 9, 0)
    assert crops.pixels.shape == (9, 48, 48, 3)
    assert crops.pixels.dtype == np.uint8
    assert crops.channels.tolist().count(BOX_CHANNEL) == 5
    assert crops.channels.tolist().count(CLICK_CHANNEL) == 4
    assert len({crop.tobytes() for crop in crops.pixels}) == 9
    np.testing.assert_array_equal(crops.pixels, sample_crops(predictor_of(), 9, 0).pixels)
    assert (crops.pixels != sample_crops(predictor_of(), 9, 1).pixels).any()


def test_weights_for_the_own_pixels_get_click_windows_of_the_sample_image_alone() -> None:
    native = predictor_of(channels=1, click_windows="native")
    windows = []
    honest = native.click_windows
    native.click_windows = lambda *a: windows.append(honest(*a)) or windows[-1]
    assert set(sample_crops(native, 6, 0).channels) == {0}
    assert [len(ladder) for ladder in windows] == [1] * 6


def rows_asked_of(store: Store, monkeypatch: pytest.MonkeyPatch, **options) -> np.ndarray:
    drawn: list[np.ndarray] = []
    honest = Store.gather

    def gather(self, rows, out=None):
        drawn.append(rows)
        return honest(self, rows, out)

    monkeypatch.setattr(Store, "gather", gather)
    choose_crops(store, predictor_of(), 40, 0, **options)
    return np.concatenate(drawn)


def test_training_and_validation_images_stay_apart(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = rows_asked_of(store, monkeypatch)
    assert not store.records["validation"][train].any()
    held_out = rows_asked_of(store, monkeypatch, held_out=True)
    assert store.records["validation"][held_out].all()
    assert len(train) == len(set(train.tolist()))


def test_they_are_the_predictors_own_windows(tmp_path: Path) -> None:
    """Against crops of the images themselves, through the windows of the true box and center."""
    store = make_store(tmp_path, 12, replace(SMALL_STORE, context=192))
    predictor = predictor_of(size=32)
    expected = []
    for number in range(12):
        image, mask = scene(number)
        windows = [predictor.box_window(Box(*masks.bbox(mask)))]
        windows += predictor.click_windows(masks.center_point(mask), *mask.shape)
        expected += [geometry.crop(image, window, 32).astype(float) for window in windows]
    actual = choose_crops(store, predictor, 1000, 0).pixels
    for crop in actual:
        errors = [np.abs(crop - each).mean() for each in expected]
        assert min(errors) < 4, min(errors)  # resampled twice
        assert np.median(errors) > 20  # which the others are not


def test_rungs_of_the_ladder_are_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicks are seen at different scales, and never wider than the context is."""
    windows = []
    honest = geometry.crop

    def crop(context, window, size):
        windows.append(window)
        return honest(context, window, size)

    monkeypatch.setattr(geometry, "crop", crop)
    crops = choose_crops(store, predictor_of(), 1000, 0)
    shares = [
        window.width / store.context
        for window, channel in zip(windows, crops.channels, strict=True)
        if channel == 1
    ]
    assert len(shares) > 10
    assert 0.2 <= min(shares) < 0.4
    assert 0.5 < max(shares) <= 1
    assert len({round(share, 2) for share in shares}) > 5


def test_native_weights_see_the_images_own_pixels(tmp_path: Path, store: Store) -> None:
    native = predictor_of(channels=1, size=32, click_windows="native")
    with pytest.raises(StoreError, match=r"lacks the view native .* --views native"):
        choose_crops(store, native, 4, 0)
    config = replace(SMALL_STORE, views=("native",))
    crops = choose_crops(make_store(tmp_path, 12, config), native, 6, 0)
    expected = []
    for number in range(12):
        image, mask = scene(number)
        window = geometry.point_window(masks.center_point(mask), 16)
        expected.append(geometry.crop(image, window, 32).astype(float))
    for crop in crops.pixels:
        assert min(np.abs(crop - each).mean() for each in expected) < 2


@pytest.mark.parametrize(
    ("views", "missing"), [(("box",), "click-near"), (("click-far",), "box"), (("native",), "box")]
)
def test_a_store_without_the_views(views, missing: str, tmp_path: Path) -> None:
    store = make_store(tmp_path, 8, replace(SMALL_STORE, views=views))
    with pytest.raises(StoreError, match=f"lacks the view {missing} .* --views box,click-near"):
        choose_crops(store, predictor_of(), 4, 0)


def test_a_store_without_validation_images(tmp_path: Path) -> None:
    store = make_store(tmp_path, 4, replace(SMALL_STORE, validation=0.0))
    with pytest.raises(StoreError, match="--validation"):
        choose_crops(store, predictor_of(), 4, 0, held_out=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "magic"}, "no method 'magic': use auto, minmax, entropy, percentile"),
        ({"samples": 1}, "at least 2"),
        ({"seed": -1}, "at least 0"),
        ({"validation_images": -1}, "at least 0"),
    ],
)
def test_settings_that_make_no_sense(change, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CalibrationConfig(**change)


# --- ranges -------------------------------------------------------------------------------------


def histogram(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, BINS)
    return Histogram(float(edges[0]), float(edges[-1]), counts)


def test_what_is_observed(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    size = OnnxRuntime(tiny_onnx).info.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (20, size, size, 3), np.uint8)
    progress = Recorded()
    crops = Crops(pixels, np.zeros(len(pixels), np.int64))
    result = observe(model, crops, threads=1, progress=progress)
    assert progress.counts[-1] == (40, 40)
    assert list(result) == activations(model)
    assert [value for value in result if value in ("image", "logits")] == ["image", "logits"]
    batch = normalize(pixels)
    assert result["image"].low == batch.min()
    assert result["image"].high == batch.max()
    logits = OnnxRuntime(tiny_onnx)(pixels)
    np.testing.assert_allclose(
        (result["logits"].low, result["logits"].high), (logits.min(), logits.max()), atol=1e-5
    )
    for value in result.values():
        assert value.counts.sum() > 0
    share = np.cumsum(result["image"].counts) / result["image"].counts.sum()
    assert result["image"].at(np.searchsorted(share, 0.5)) == pytest.approx(
        np.median(batch), abs=0.05
    )


def test_what_is_not_rounded(tiny_onnx: Path) -> None:
    graph = onnx.load(tiny_onnx).graph
    names = set(activations(onnx.load(tiny_onnx)))
    for node in graph.node:
        reads_only_relu = [n.op_type for n in graph.node if node.output[0] in n.input] == ["Relu"]
        rounded = node.op_type not in ("Constant", "Resize") and not reads_only_relu
        assert (node.output[0] in names) == rounded, node.op_type


def test_min_max_holds_everything() -> None:
    values = np.array([-3.0, 0.5, 9.0])
    assert ranges({"a": histogram(values)}, "minmax") == {"a": (-3.0, 9.0)}


def test_zero_is_always_inside() -> None:
    values = np.random.default_rng(0).uniform(2, 3, 10_000)
    for method in METHODS:
        low, high = ranges({"a": histogram(values)}, method)["a"]
        assert low == 0
        assert 2.5 < high <= 3
    low, high = ranges({"a": histogram(-values)}, "percentile")["a"]
    assert (low < -2.9, high) == (True, 0)


def test_a_percentile_cuts_what_is_rare() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 1_000_000), [60, -40]])
    low, high = ranges({"a": histogram(values)}, "percentile")["a"]
    expected = np.percentile(values, [0.005, 99.995])
    np.testing.assert_allclose((low, high), expected, atol=0.1)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_a_relus_zeros_do_not_count(method: str) -> None:
    rng = np.random.default_rng(0)
    values = np.abs(np.concatenate([np.zeros(900_000), rng.normal(0, 1, 100_000), [30.0]]))
    low, high = ranges({"a": histogram(values)}, method)["a"]
    assert low == 0
    assert 2 < high < 6


def test_entropy_keeps_what_is_even() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 1_000_000)
    low, high = ranges({"a": histogram(values)}, "entropy")["a"]
    assert low < -0.95
    assert high > 0.95


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    st.sampled_from(sorted(METHODS)),
)
def test_ranges_are_ranges(values: list[float], method: str) -> None:
    low, high = min(values), max(max(values), min(values) + 1e-6)
    counts = np.histogram(values, BINS, (low, high + 1e-6))[0]
    found_low, found_high = ranges({"a": Histogram(low, high + 1e-6, counts)}, method)["a"]
    assert found_low <= 0 <= found_high
    assert found_low < found_high
    assert found_low >= min(low, 0)
    assert found_high <= max(high + 1e-6, 0) + 1e-9
