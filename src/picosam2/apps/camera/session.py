"""From a click to a mask that is followed, one frame of the sensor at a time.

A click knows no scale, and the sensor looks through one window at a time: the click's windows are
looked through one after another, and the scorer chooses when all have answered, as it does in the
`Predictor`. Or the user has said the size; then there is only that window. The chosen mask's own
box is the next window, as it is for a box that was drawn, and from then on the object is followed:
every answer goes to a `Follower`, and the ROI moves with the mask.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2.apps.camera.roi import FRAMES, SETTLE, RoiWatch, overlap
from picosam2.apps.camera.sensor import AiCamera, SensorFrame
from picosam2.errors import ConfigError, PromptError
from picosam2.geometry import Window
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.tasks.tracking import Follower, Tracked

State: TypeAlias = Literal["idle", "looking", "found", "lost"]

_NEAR = 0.92  # IoU of two windows below which the ROI is moved: a step costs some frames


@dataclass(frozen=True, eq=False)
class CameraView:
    """What there is to show of one frame.

    pixels: the frame (H, W, 3) uint8 RGB that the last answer was of: a little older than `frame`.
    state: "idle" if nothing was pointed at, "looking" until the first mask, "found" or "lost".
    tracked: the object, as of the last answer; None before there is one.
    window: where the sensor was told to look, in pixels of the frame.
    answered: whether an answer of a known window came with this frame.
    step: which of how many windows of a click is being looked through; None if not looking.
    """

    frame: SensorFrame
    pixels: npt.NDArray[np.uint8]
    state: State
    tracked: Tracked | None
    window: Window
    answered: bool
    step: tuple[int, int] | None


class Session:
    """One user at a camera. `point`, `box`, `forget` and `scale` may be used from other threads."""

    def __init__(self, camera: AiCamera, predictor: Predictor, *, settle: int = SETTLE) -> None:
        """Begin with nothing pointed at.

        Args:
            camera: a camera that runs the predictor's weights.
            predictor: knows their windows and scorers; its own network is not used.
            settle: frames after which an answer must be of a new ROI; see `RoiWatch`.
        """
        self._camera, self._predictor = camera, predictor
        self._watch = RoiWatch(camera.frame_window, settle)
        self._lock = threading.Lock()
        self._next_prompt: Prompt | None = None
        self._forget = False
        self._scale: int | None = None
        self._job: _Ladder | _First | Follower | None = None
        self._tracked: Tracked | None = None
        self._frames: deque[npt.NDArray[np.uint8]] = deque(maxlen=FRAMES)
        self._since = 0  # frames since the followed object was seen
        self.note = ""
        """Why the last prompt led to nothing; empty if it did not."""

    # -- what a user does --------------------------------------------------------------------

    def point(self, point: Point) -> None:
        """Click on an object, in pixels of the frame. `PromptError` outside of the frame."""
        self._ask(Prompt(points=(point,)))

    def box(self, box: Box) -> None:
        """Draw a box around an object. `PromptError` if it is wholly outside of the frame."""
        self._ask(Prompt(box=box))

    def forget(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            self._next_prompt, self._forget = None, True

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames, pixels."""
        return self._camera.height, self._camera.width

    @property
    def scales(self) -> int:
        """How many sizes of window a click may have."""
        return len(self._ladder(Point(self._camera.width / 2, self._camera.height / 2)))

    @property
    def scale(self) -> int | None:
        """The size of a click's window, 0 for the smallest; None tries all of them."""
        return self._scale

    @scale.setter
    def scale(self, scale: int | None) -> None:
        if scale is not None and not 0 <= scale < self.scales:
            raise ConfigError(f"there is no scale {scale}: choose from 0 to {self.scales - 1}")
        self._scale = scale

    # -- what the camera does ----------------------------------------------------------------

    def step(self) -> CameraView:
        """Wait for the next frame, and do what there is to do with it."""
        frame = self._camera.read()
        self._frames.appendleft(frame.pixels)
        self._watch.tick()
        self._since += 1
        self._begin()
        window = None
        if frame.logits is not None:
            window = self._watch.window_of(tuple(self._frames), frame.seen)
        # What the network saw is a little older than what came with its answer.
        pixels = self._frames[min(self._watch.lag, len(self._frames) - 1)]
        if self._watch.stuck:  # the sensor may not have heard
            self._look(self._watch.window)
        if window is not None and frame.logits is not None and self._job is not None:
            self._take(pixels, window, frame.logits)
        return CameraView(
            frame=frame,
            pixels=pixels,
            state=self._state(),
            tracked=self._tracked,
            window=self._watch.window,
            answered=window is not None,
            step=self._job.progress if isinstance(self._job, _Ladder) else None,
        )

    def _state(self) -> State:
        if self._tracked is not None:
            return self._tracked.state
        return "idle" if self._job is None else "looking"

    def _ask(self, prompt: Prompt) -> None:
        with self._lock:
            self._next_prompt = prompt.within(self._camera.height, self._camera.width)

    def _begin(self) -> None:
        """Turn to what the user has asked for since the last frame."""
        with self._lock:
            prompt, forget = self._next_prompt, self._forget
            self._next_prompt, self._forget = None, False
        if forget or prompt is not None:
            self._job, self._tracked, self.note = None, None, ""
        if prompt is None:
            return
        try:
            if prompt.box is not None:
                self._first(prompt.box, None)
                return
            windows = self._ladder(prompt.points[0])
            self._job = _Ladder(windows if self._scale is None else (windows[self._scale],))
            self._look(self._job.wanted())
        except PromptError as error:
            self._job, self.note = None, str(error)

    def _take(
        self, frame: npt.NDArray[np.uint8], window: Window, logits: npt.NDArray[np.float32]
    ) -> None:
        """An answer, and the window it is of."""
        if isinstance(self._job, Follower):
            self._tracked = self._job.see(frame, window, logits, self._since)
            self._since = 0
            if self._watch.settled:
                self._follow(self._job)
            return
        if not self._watch.settled:  # it is still of the window before the prompt
            return
        if isinstance(self._job, _Ladder):
            self._job.add(frame, window, _channel(logits, CLICK_CHANNEL))
            if self._job.done:
                self._choose(self._job)
            else:
                self._look(self._job.wanted())
        elif isinstance(self._job, _First):
            mask = _mask(frame, window, _channel(logits, BOX_CHANNEL))
            seen = frame
            if not mask.any() and self._job.before is not None:
                seen, mask = self._job.before
            if not mask.any():
                self._job, self.note = None, "nothing is found there: point at it again"
                return
            self._job = Follower(self._predictor, seen, mask)
            self._since = 0
            if seen is frame:
                self._tracked = self._job.see(frame, window, logits)
            self._follow(self._job)

    def _choose(self, ladder: _Ladder) -> None:
        """All windows of a click have answered."""
        height, width = self._camera.height, self._camera.width
        best = 0
        if len(ladder.windows) > 1:
            scores = self._predictor.click_scores(ladder.logits(), ladder.looked, height, width)
            best = int(np.argmax(scores))
        frame = ladder.frames[best]
        mask = _mask(frame, ladder.looked[best], ladder.logits()[best])
        if not mask.any():
            self._job, self.note = None, "nothing is found there: point at it again"
            return
        # It may have moved since the chosen window was looked through.
        rough = Follower(self._predictor, frame, mask)
        place = rough.place(self._frames[0])
        assert place is not None  # only what is lost is nowhere
        try:
            self._first(place, (frame, mask))
        except PromptError:  # too near the edge for a window of its own
            self._job = rough

    def _first(
        self, box: Box, before: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None
    ) -> None:
        self._look(self._predictor.box_window(box))
        self._job = _First(before)

    def _follow(self, follower: Follower) -> None:
        """Move the ROI to where the object will be when the sensor has moved."""
        place = follower.place(self._frames[0], ahead=self._watch.delay - self._watch.lag)
        if place is None:
            return
        window = self._predictor.box_window(place)
        if overlap(window, self._watch.window) < _NEAR:
            try:
                self._look(window)
            except PromptError:  # it leaves the frame: stay where it was seen last
                return

    def _look(self, window: Window) -> None:
        taken = self._camera.look(window)
        # At the frame's edge the larger windows of a click are all shrunk to the same one.
        if taken != self._watch.window or not self._watch.settled:
            self._watch.move(taken)

    def _ladder(self, point: Point) -> Sequence[Window]:
        height, width = self._camera.height, self._camera.width
        return self._predictor.click_windows(point, height, width)


@dataclass(frozen=True, eq=False)
class _First:
    """The first look through a box window; `before` is the frame and mask of a click, if any."""

    before: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None


class _Ladder:
    """The windows of a click, looked through one after another."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows
        self.frames: list[npt.NDArray[np.uint8]] = []
        self.looked: list[Window] = []
        self._logits: list[npt.NDArray[np.float32]] = []

    @property
    def done(self) -> bool:
        return len(self.looked) == len(self.windows)

    @property
    def progress(self) -> tuple[int, int]:
        return len(self.looked) + 1, len(self.windows)

    def wanted(self) -> Window:
        return self.windows[len(self.looked)]

    def add(
        self, frame: npt.NDArray[np.uint8], window: Window, logits: npt.NDArray[np.float32]
    ) -> None:
        self.frames.append(frame)
        self.looked.append(window)
        self._logits.append(logits)

    def logits(self) -> npt.NDArray[np.float32]:
        return np.stack(self._logits)


def _channel(logits: npt.NDArray[np.float32], channel: int) -> npt.NDArray[np.float32]:
    """One map (S, S) of an answer (K, S, S)."""
    chosen: npt.NDArray[np.float32] = logits[min(channel, len(logits) - 1)]
    return chosen


def _mask(
    frame: npt.NDArray[np.uint8], window: Window, logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    height, width = frame.shape[:2]
    mask: npt.NDArray[np.bool_] = geometry.paste(logits, window, height, width) > 0
    return mask
