"""What is shown and recorded: the frame, the object on it, and where the sensor looks."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from picosam2._words import counted
from picosam2.apps.camera.session import CameraView
from picosam2.prompts import Prompt
from picosam2.results import Segmentation, overlay
from picosam2.tasks.tracking_outputs import draw


def draw_view(view: CameraView) -> Image.Image:
    """A frame (RGB) with the mask on it, and a thin line around the sensor's ROI."""
    tracked = view.tracked
    box = None if tracked is None else tracked.box
    if tracked is not None and box is not None:
        result = Segmentation(mask=tracked.mask, score=tracked.score, prompt=Prompt(box=box))
        canvas = overlay(view.pixels, [result], prompts=False)
    else:
        canvas = Image.fromarray(draw(view.pixels, () if tracked is None else (tracked,)))
    if view.state != "idle":
        window = view.window
        edges = window.x0, window.y0, window.x1 - 1, window.y1 - 1
        ImageDraw.Draw(canvas).rectangle(edges, outline=(255, 255, 255))
    return canvas


class RunCounts:
    """Counts what a run gave, for the line that is printed at its end."""

    def __init__(self) -> None:
        self.frames = self.answers = self.found = self.lost = 0
        self._kpi: list[tuple[float, float]] = []
        self._first = self._last = 0.0

    def add(self, view: CameraView) -> None:
        """Take in a frame."""
        if not self.frames:
            self._first = view.frame.time
        self._last = view.frame.time
        self.frames += 1
        self.answers += view.answered
        self.found += view.state == "found"
        self.lost += view.state == "lost"
        if view.frame.kpi is not None:
            self._kpi = [*self._kpi[-299:], view.frame.kpi]

    @property
    def rate(self) -> float:
        """Frames a second, by the sensor's clock; 0 before there are two."""
        took = self._last - self._first
        return (self.frames - 1) / took if took > 0 else 0.0

    @property
    def kpi(self) -> tuple[float, float] | None:
        """Median milliseconds of the network and of the output, as the sensor says; or None."""
        if not self._kpi:
            return None
        dnn, dsp = np.median(np.array(self._kpi), axis=0)
        return float(dnn), float(dsp)

    def summary(self, *, simulated: bool = False) -> str:
        """One line about all of it."""
        parts = [f"{counted(self.frames, 'frame')}, {counted(self.answers, 'answer')}"]
        parts.append(f"found in {self.found:,}, lost in {self.lost:,}")
        if self.kpi is not None:
            dnn, dsp = self.kpi
            parts.append(
                f"network {dnn:.2f} ms on this computer, simulated"
                if simulated
                else f"network {dnn:.2f} ms, output {dsp:.2f} ms by the sensor's clock"
            )
        return "; ".join(parts)
