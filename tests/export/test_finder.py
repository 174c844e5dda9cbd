"""Finders as ONNX files, in 32 and in 8 bits, and what their runtime refuses."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import golden
from helpers.tiny import write_coco

torch = pytest.importorskip("torch", reason="makes its own weights with torch")
onnx = pytest.importorskip("onnx", reason="exports its own weights with onnx")

from picosam2.cli.main import run  # noqa: E402
from picosam2.data.image_store import (  # noqa: E402
    ImageStore,
    ImageStoreConfig,
    prepare_images,
)
from picosam2.errors import ImageError, StoreError, WeightsError  # noqa: E402
from picosam2.export.int8.calibration import CalibrationConfig  # noqa: E402
from picosam2.export.int8.finder import (  # noqa: E402
    objectness_error,
    objectness_of,
    quantize_finder,
    sample_views,
    some_views,
)
from picosam2.export.litert_int8 import (  # noqa: E402
    LiteRtInt8Config,
    export_finder_litert_int8,
)
from picosam2.export.onnx import TOLERANCE, export_finder  # noqa: E402
from picosam2.images import normalize  # noqa: E402
from picosam2.models.checkpoint import load_weights, save_weights  # noqa: E402
from picosam2.models.finder import Finder, FinderConfig  # noqa: E402
from picosam2.models.views import OUTPUTS, cell_count  # noqa: E402
from picosam2.predictor import Predictor  # noqa: E402
from picosam2.runtimes.finder import (  # noqa: E402
    LiteRtFinder,
    OnnxFinder,
    OpenVinoFinder,
    opened_finder,
)

SIZE = 64


@pytest.fixture(scope="module")
def model() -> Finder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Finder(FinderConfig(width=8, input_size=SIZE)).eval()
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(40)
    return model


@pytest.fixture(scope="module")
def exported(model: Finder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finder") / "finder.onnx"
    made = export_finder(model, path, {"note": "made by a test"})
    assert made.largest_difference <= TOLERANCE
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder = tmp_path_factory.mktemp("images")
    sources = [write_coco(folder, 10)]
    prepare_images(sources, folder / "store", ImageStoreConfig(validation=0.3), workers=1)
    return ImageStore(folder / "store")


def views(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def test_the_file_gives_the_network_s_cells_for_any_batch(model: Finder, exported: Path) -> None:
    finder = OnnxFinder(exported, threads=1)
    assert finder.input_size == SIZE
    assert finder.info.facts["note"] == "made by a test"
    for count in (1, 3):
        cells = finder(views(count))
        assert cells.shape == (count, OUTPUTS, cell_count(SIZE))
        with torch.no_grad():
            expected = model(torch.from_numpy(normalize(views(count))))["cells"]
        assert cells == pytest.approx(expected.numpy(), abs=1e-3)
    again = pickle.loads(pickle.dumps(finder))
    assert np.array_equal(again(views(2)), finder(views(2)))
    with pytest.raises(ImageError):
        finder(views(1).astype(np.float32))


def test_a_finder_and_a_segmenter_are_not_mistaken(
    model: Finder, exported: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="is a finder, which gives boxes"):
        Predictor(exported)
    with pytest.raises(WeightsError, match="is no finder"):
        OnnxFinder(tiny_onnx)
    with pytest.raises(WeightsError, match="no weights at"):
        opened_finder("missing.onnx")
    saved = tmp_path / "finder.safetensors"
    save_weights(saved, model, {"kind": "finder"})
    with pytest.raises(WeightsError, match="is a finder, which gives boxes"):
        load_weights(saved)
    with pytest.raises(WeightsError, match=r"give an \.onnx or a \.tflite file"):
        opened_finder(str(saved))


def test_openvino_runs_the_same_file(exported: Path, tiny_onnx: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    opened = opened_finder(str(exported), 1, "openvino")
    assert isinstance(opened, OpenVinoFinder)
    shown = views(3)
    assert opened(shown) == pytest.approx(OnnxFinder(exported, threads=1)(shown), abs=1e-3)
    again = pickle.loads(pickle.dumps(opened))
    assert np.array_equal(again(shown), opened(shown))
    with pytest.raises(WeightsError, match="is no finder"):
        OpenVinoFinder(tiny_onnx)


def test_litert_refuses_what_is_no_finder() -> None:
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    with pytest.raises(WeightsError, match="is no finder"):
        LiteRtFinder(golden("two channels", ".tflite"))


@pytest.mark.slow
def test_litert_gives_the_same_cells(
    model: Finder, store: ImageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("litert_torch", reason="the converter is not installed")
    saved, file = tmp_path / "finder.safetensors", tmp_path / "finder.tflite"
    save_weights(saved, model, {"kind": "finder", "note": "made by a test"})
    assert run(["export", "litert", "--weights", str(saved), "--out", str(file)]) == 0
    assert "cells within" in capsys.readouterr().out
    finder = opened_finder(str(file), 1)
    assert isinstance(finder, LiteRtFinder)
    assert finder.info.facts["note"] == "made by a test"
    shown = views(3)
    with torch.no_grad():
        expected = model(torch.from_numpy(normalize(shown)))["cells"].numpy()
    assert finder(shown) == pytest.approx(expected, abs=TOLERANCE)
    assert np.array_equal(pickle.loads(pickle.dumps(finder))(shown), finder(shown))
    with pytest.raises(WeightsError, match="is a finder, which gives boxes"):
        Predictor(file)


@pytest.mark.slow
@pytest.mark.parametrize("with_store", [False, True])
def test_litert_in_integers_answers_nearly_alike(
    model: Finder, store: ImageStore, tmp_path: Path, *, with_store: bool
) -> None:
    pytest.importorskip("litert_torch", reason="the converter is not installed")
    file = tmp_path / "int8.tflite"
    made = export_finder_litert_int8(
        model, file, {}, LiteRtInt8Config(samples=6), store=store.path if with_store else None
    )
    assert made.views == 6
    assert made.objectness_error < 0.1
    finder = LiteRtFinder(file, threads=1)
    assert finder.info.facts["quantization"]["samples"] == 6
    shown = sample_views(SIZE, 4, 5)
    assert (
        objectness_error(objectness_of(finder, shown), objectness_of(TorchFinder(model), shown))
        < 0.1
    )


class TorchFinder:
    """A finder in PyTorch."""

    def __init__(self, model: Finder) -> None:
        self._model = model
        self.input_size = model.config.input_size

    def __call__(self, shown: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._model(torch.from_numpy(normalize(shown)))["cells"].numpy()


def test_views_of_the_sample_differ_and_repeat() -> None:
    shown = sample_views(SIZE, 6, 0)
    assert shown.shape == (6, SIZE, SIZE, 3)
    assert np.array_equal(shown, sample_views(SIZE, 6, 0))
    assert not np.array_equal(shown, sample_views(SIZE, 6, 1))
    assert len(np.unique(shown.reshape(6, -1), axis=0)) == 6


def test_a_finder_s_onnx_file_is_quantized_and_described_by_commands(
    exported: Path, store: ImageStore, tmp_path: Path
) -> None:
    small = tmp_path / "small.onnx"
    command = ["quantize", "--weights", str(exported), "--store", str(store.path), "--samples"]
    assert run([*command, "4", "--method", "minmax", "--out", str(small)]) == 0
    assert OnnxFinder(small).info.facts["quantization"]["method"] == "minmax"
    assert run(["info", "--weights", str(small)]) == 0


def test_int8_answers_nearly_alike(exported: Path, store: ImageStore, tmp_path: Path) -> None:
    small = tmp_path / "int8.onnx"
    made = quantize_finder(exported, store, small, CalibrationConfig(samples=6), threads=1)
    assert set(made.tried) == {"minmax", "entropy", "percentile"}
    assert small.stat().st_size < 0.4 * exported.stat().st_size
    plain, rounded = OnnxFinder(exported, threads=1), OnnxFinder(small, threads=1)
    shown = some_views(store, SIZE, 4, 0)
    difference = np.abs(plain(shown) - rounded(shown))
    assert difference.mean() < 0.1
    assert rounded.info.facts["quantization"]["method"] == made.method
    with pytest.raises(WeightsError, match="in 8 bits already"):
        quantize_finder(small, store, tmp_path / "again.onnx")


def test_quantizing_needs_held_out_images(exported: Path, tmp_path: Path) -> None:
    sources = [write_coco(tmp_path, 3)]
    prepare_images(sources, tmp_path / "store", ImageStoreConfig(validation=0), workers=1)
    with pytest.raises(StoreError, match="has no held-out images"):
        quantize_finder(exported, ImageStore(tmp_path / "store"), tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_saved_weights_go_through_the_command(
    model: Finder, store: ImageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "finder.safetensors"
    save_weights(saved, model, {"kind": "finder"})
    assert run(["export", "onnx", "--weights", str(saved), "--out", str(tmp_path / "a.onnx")]) == 0
    assert OnnxFinder(tmp_path / "a.onnx").input_size == SIZE
    assert run(["export", "imx500", "--weights", str(saved), "--out", str(tmp_path / "x")]) == 2
    assert "is a finder, which gives boxes and no masks" in capsys.readouterr().err
    command = ["quantize", "--weights", str(saved), "--store", str(store.path), "--samples", "4"]
    assert run([*command, "--method", "minmax", "--out", str(tmp_path / "b.onnx")]) == 0
    assert "4 views, by minmax" in capsys.readouterr().out
    assert OnnxFinder(tmp_path / "b.onnx").input_size == SIZE
