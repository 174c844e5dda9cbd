"""The Gradio page: its handlers, called as Gradio calls them, and a running page by its client."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.scripts import load_script

from picosam2 import Point, Prompt, overlay, sample
from picosam2.io.sample_image import sample_bytes

APP = Path(__file__).parents[2] / "integrations" / "gradio" / "app.py"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gradio's own
        pytest.importorskip("gradio")
    return load_script(APP)


def select(x: int, y: int) -> Any:
    import gradio

    return gradio.SelectData(None, {"index": [x, y], "value": None})


def test_every_click_counts(app: ModuleType) -> None:
    drawn, clicks, text = app.click(sample(), app.ON, [], select(353, 349))
    (expected,) = app.predictor(sample(), points=[(353.5, 349.5)])
    np.testing.assert_array_equal(drawn, overlay(sample(), [expected]))
    assert clicks == [[353.5, 349.5, 1]]
    assert text == f"{expected.area:,} pixels, score {expected.score:.2f}"

    drawn, clicks, _ = app.click(sample(), app.OFF, clicks, select(320, 310))
    prompt = Prompt((Point(353.5, 349.5), Point(320.5, 310.5, False)))
    (expected,) = app.predictor(sample(), prompts=[prompt])
    np.testing.assert_array_equal(drawn, overlay(sample(), [expected]))
    assert clicks == [[353.5, 349.5, 1], [320.5, 310.5, 0]]

    _, clicks, _ = app.undo(sample(), clicks)
    assert clicks == [[353.5, 349.5, 1]]
    assert app.undo(sample(), clicks) == (None, [], "")
    assert app.undo(None, []) == (None, [], "")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gradio's, where no page is open
def test_a_click_that_cannot_be_used_is_not_kept(app: ModuleType) -> None:
    _, clicks, text = app.click(sample(), app.OFF, [], select(353, 349))
    assert clicks == []
    assert "only negative points" in text
    _, clicks, text = app.click(sample(), app.OFF, [[353.5, 349.5, 1]], select(353, 349))
    assert clicks == [[353.5, 349.5, 1]]
    assert "as on the object and as off it" in text


@pytest.mark.filterwarnings("ignore")
def test_a_running_page(app: ModuleType, tmp_path: Path) -> None:
    client = pytest.importorskip("gradio_client")
    image = tmp_path / "sample.jpg"
    image.write_bytes(sample_bytes())
    page = app.build()
    _, url, _ = page.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False
    )
    try:
        caller = client.Client(url, verbose=False, download_files=str(tmp_path))
        drawn, text = caller.predict(
            client.handle_file(str(image)), [[353.5, 349.5, 1]], api_name="/segment"
        )
    finally:
        page.close()
    (expected,) = app.predictor(sample(), points=[(353.5, 349.5)])
    assert text == f"{expected.area:,} pixels, score {expected.score:.2f}"
    assert Path(drawn).is_file()
