"""PicoSAM2 as a model of osam and labelme, held against the installed packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.fakes import FakeRuntime, disc, reddish

from picosam2.errors import MissingExtraError, PromptError
from picosam2.io.sample_image import sample
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt


@pytest.fixture
def osam() -> Iterator[object]:
    package = pytest.importorskip("osam", reason="osam is an extra")
    before = list(package.apis.registered_model_types)
    yield package
    package.apis.registered_model_types[:] = before
    package.apis.running_model = None


@pytest.fixture
def labelme_app(osam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("HOME", str(tmp_path))  # where labelme keeps its settings
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    app = pytest.importorskip("labelme.app", reason="labelme is an extra", exc_type=ImportError)
    monkeypatch.setattr(
        app.AiAssistedAnnotationWidget,
        "_available_models",
        list(app.AiAssistedAnnotationWidget._available_models),
    )
    monkeypatch.setattr(app, "load_config", app.load_config)
    return app


def whole(annotation: object, shape: tuple[int, ...]) -> np.ndarray:
    """An osam annotation's mask on the whole image."""
    mask = np.zeros(shape[:2], np.bool_)
    bounds = annotation.bounding_box
    mask[bounds.ymin : bounds.ymax + 1, bounds.xmin : bounds.xmax + 1] = annotation.mask
    return mask


@pytest.mark.parametrize(
    ("points", "labels", "prompt"),
    [
        ([[353, 349]], [1], Prompt((Point(353, 349),))),
        ([[353, 349], [500, 250]], [1, 0], Prompt((Point(353, 349), Point(500, 250, False)))),
        ([[310, 303], [396, 394]], [2, 3], Prompt(box=Box(310, 303, 396, 394))),
    ],
)
def test_osam_gets_the_predictor_s_masks(osam, tiny_onnx: Path, points, labels, prompt):
    from picosam2.apps.labelme import NAME, register

    register(tiny_onnx, threads=1)
    requested = osam.types.Prompt(points=np.array(points, float), point_labels=np.array(labels))
    request = osam.types.GenerateRequest(model=NAME, image=sample(), prompt=requested)
    response = osam.apis.generate(request)
    (segmentation,) = Predictor(tiny_onnx, threads=1)(sample(), prompts=[prompt])
    if segmentation.box is None:
        assert response.annotations == []
    else:
        (annotation,) = response.annotations
        assert np.array_equal(whole(annotation, sample().shape), segmentation.mask)
        assert annotation.score == pytest.approx(segmentation.score)


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """Weights with guidance that keep the mask so far and follow the clicks."""

    def follow(_crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
        mask = np.maximum(planes[0], planes[1]) * (1 - planes[2])
        return ((mask - 0.5) * 16)[None]

    predictor = Predictor(FakeRuntime(reddish, size=48, correct=follow))
    monkeypatch.setattr("picosam2.apps.labelme.Predictor", lambda *_, **__: predictor)
    return predictor


def test_osam_refines_a_shape(osam, guided: Predictor):
    from picosam2.apps.labelme import NAME, register

    register()
    image = np.zeros((90, 120, 3), np.uint8)
    start = disc(90, 120, 60, 40, 20)
    y, x = np.nonzero(start)
    bounds = osam.types.BoundingBox(xmin=x.min(), ymin=y.min(), xmax=x.max(), ymax=y.max())
    part = start[y.min() : y.max() + 1, x.min() : x.max() + 1]
    shape = osam.types.Annotation(bounding_box=bounds, mask=part)
    points = osam.types.Prompt(points=np.array([[60.0, 25.0]]), point_labels=np.array([0]))
    request = osam.types.GenerateRequest(
        model=NAME, image=image, prompt=points, annotations=[shape]
    )
    (annotation,) = osam.apis.generate(request).annotations
    (expected,) = guided(image, prompts=[Prompt((Point(60, 25, False),), mask=start)])
    refined = whole(annotation, image.shape)
    assert np.array_equal(refined, expected.mask)
    assert refined[50, 60]
    assert not refined[25, 60]


def test_shapes_that_osam_cannot_refine(osam, guided: Predictor):
    from picosam2.apps.labelme import NAME, register

    model = register()()
    types = osam.types

    def ask(*shapes: object) -> object:
        image = np.zeros((90, 120, 3), np.uint8)
        return model.generate(
            types.GenerateRequest(model=NAME, image=image, annotations=list(shapes))
        )

    inside = types.BoundingBox(xmin=10, ymin=10, xmax=19, ymax=19)
    outside = types.BoundingBox(xmin=10, ymin=10, xmax=120, ymax=19)
    with pytest.raises(ValueError, match="one shape at a time, not 2"):
        ask(types.Annotation(bounding_box=inside), types.Annotation(bounding_box=inside))
    with pytest.raises(ValueError, match="outside the image of 120x90"):
        ask(types.Annotation(bounding_box=outside))
    with pytest.raises(ValueError, match="a bounding box or a mask"):
        ask(types.Annotation(text="apple"))
    with pytest.raises(PromptError, match="the mask is empty"):
        ask(types.Annotation(bounding_box=inside, mask=np.zeros((10, 10), bool)))
    assert ask(types.Annotation(bounding_box=inside)).annotations == []  # nothing red in it


def test_osam_knows_it_once_and_downloads_nothing(osam, tiny_onnx: Path):
    from picosam2.apps.labelme import register

    register(tiny_onnx)
    model = register(tiny_onnx)
    assert osam.apis.get_model_type_by_name("picosam2") is model
    assert [m.name for m in osam.apis.registered_model_types].count(model.name) == 1
    assert model.get_size() == tiny_onnx.stat().st_size
    model.pull()
    model.remove()
    assert tiny_onnx.is_file()


def test_what_osam_may_ask_that_has_no_answer(osam, tiny_onnx: Path):
    from picosam2.apps.labelme import register

    model = register(tiny_onnx, threads=1)()
    words = osam.types.GenerateRequest(
        model=model.name, image=sample(), prompt=osam.types.Prompt(texts=["apple"])
    )
    with pytest.raises(ValueError, match="knows no words"):
        model.generate(words)
    with pytest.raises(ValueError, match="send the image"):
        model.generate(osam.types.GenerateRequest(model=model.name))
    with pytest.raises(NotImplementedError):  # how labelme learns that there is no encoder
        model.encode_image(sample())


def test_labelme_s_own_session_gets_a_mask(labelme_app, tiny_onnx: Path):
    from labelme._automation import OsamSession

    from picosam2.apps.labelme import NAME, add_to_labelme

    add_to_labelme(tiny_onnx, threads=1)
    response = OsamSession(model_name=NAME).run(
        image=sample(),
        image_id="1",
        points=np.array([[310.0, 303.0], [640.0, 480.0]]),
        point_labels=np.array([2, 3]),
    )
    (segmentation,) = Predictor(tiny_onnx, threads=1)(sample(), boxes=[(310, 303, 640, 480)])
    assert sum(a.mask.sum() for a in response.annotations) == segmentation.area


def test_labelme_s_window_offers_it_and_has_chosen_it(labelme_app, tiny_onnx: Path):
    from PyQt5 import QtWidgets

    from picosam2.apps.labelme import NAME, TITLE, add_to_labelme

    add_to_labelme(tiny_onnx)
    add_to_labelme(tiny_onnx)
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["labelme"])
    window = labelme_app.MainWindow(config_file=None, config_overrides={})
    try:
        combo = window._ai_annotation._model_combo
        assert combo.currentText() == TITLE
        assert [combo.itemText(i) for i in range(combo.count())].count(TITLE) == 1
        assert window._canvas_widgets.canvas.get_ai_model_name() == NAME
    finally:
        window.close()
        application.processEvents()


def test_a_user_s_own_choice_is_kept(labelme_app, tiny_onnx: Path):
    from picosam2.apps.labelme import add_to_labelme

    add_to_labelme(tiny_onnx)
    config = labelme_app.load_config(None, {"ai": {"default": "Sam (speed)"}})
    assert config["ai"]["default"] == "Sam (speed)"


def test_without_labelme(monkeypatch, tiny_onnx: Path):
    from picosam2.apps.labelme import add_to_labelme

    monkeypatch.setitem(sys.modules, "labelme", None)
    with pytest.raises(MissingExtraError, match=r"\.\[labelme\]"):
        add_to_labelme(tiny_onnx)
