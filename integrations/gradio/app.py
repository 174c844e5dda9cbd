"""A page on which a click on an image gives a mask: for a Space of Hugging Face, or at home.

pip install . -r integrations/gradio/requirements.txt
python integrations/gradio/app.py

The package is not on PyPI: a Space needs a wheel of it (`pip wheel --no-deps .`) beside this file,
and the wheel's name in place of `picosam2` in requirements.txt.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # or it reports to its makers

try:
    import gradio as gr
    import numpy as np

    from picosam2 import PicoSAM2Error, Predictor, Prompt, overlay
except ModuleNotFoundError as error:
    print(
        f"{error.name} is not installed: run "
        "`pip install . -r integrations/gradio/requirements.txt` in a copy of the repository",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

ON, OFF = "on the object", "not on it"

Clicks = list[list[float]]
"""x, y and label (1 or 0) of each click, in pixels of the image."""

predictor = Predictor()


def click(image: np.ndarray, kind: str, clicks: Clicks, event: gr.SelectData) -> tuple[Any, ...]:
    """The answer after one more click, which `event` places in a pixel of the image."""
    x, y = event.index
    return answer(image, [*clicks, [x + 0.5, y + 0.5, int(kind == ON)]], before=clicks)


def undo(image: np.ndarray | None, clicks: Clicks) -> tuple[Any, ...]:
    """The answer without the last click."""
    return answer(image, clicks[:-1], before=clicks)


def answer(
    image: np.ndarray | None, clicks: Clicks, *, before: Clicks
) -> tuple[np.ndarray | None, Clicks, str]:
    """The image with the mask drawn, the clicks that count, and a line of text.

    `before` are the clicks that count if these cannot be used.
    """
    if image is None or not clicks:
        return None, [], ""
    try:
        (result,) = predictor(image, prompts=[Prompt(points=clicks)])
    except PicoSAM2Error as error:
        gr.Warning(str(error))
        return gr.skip(), before, str(error)
    text = f"{result.area:,} pixels, score {result.score:.2f}"
    return np.asarray(overlay(image, [result])), clicks, text


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="PicoSAM2") as page:
        gr.Markdown("# PicoSAM2\nClick on an object. Click again to correct the mask.")
        clicks = gr.State([])
        kind = gr.Radio([ON, OFF], value=ON, label="A click is")
        with gr.Row():
            image = gr.Image(label="Image", type="numpy", sources=["upload", "clipboard"])
            drawn = gr.Image(label="Mask", interactive=False)
        text = gr.Textbox(label="Result", interactive=False)
        with gr.Row():
            back, clear = gr.Button("Undo"), gr.Button("Clear")
        shown = [drawn, clicks, text]
        image.select(click, [image, kind, clicks], shown, api_name=False)
        image.change(lambda: (None, [], ""), None, shown, api_name=False)
        clear.click(lambda: (None, [], ""), None, shown, api_name=False)
        back.click(undo, [image, clicks], shown, api_name=False)
        # The same without a mouse, for programs: an image, and clicks as rows of x, y, label.
        rows, button = gr.JSON(visible=False), gr.Button(visible=False)
        button.click(
            lambda image, rows: answer(image, rows, before=[])[::2],
            [image, rows],
            [drawn, text],
            api_name="segment",
        )
    return page


if __name__ == "__main__":
    build().launch()
