"""Which window an answer belongs to, with and without the network's own image."""

from __future__ import annotations

import numpy as np
import pytest

from picosam2 import geometry, sample
from picosam2.apps.camera.roi import RoiWatch, likeness
from picosam2.geometry import Window

HERE, THERE, ELSEWHERE = (
    Window(300, 290, 410, 400),
    Window(150, 260, 290, 400),
    Window(440, 200, 560, 300),
)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return sample()


def seen(frame: np.ndarray, window: Window) -> np.ndarray:
    """A window as the sensor makes it: darker, flatter, red and blue changed."""
    crop = geometry.crop(frame, window)[..., ::-1]
    return (255 * (crop / 255) ** 1.6 * 0.6 + 15).astype(np.uint8)


def test_an_image_is_most_like_its_own_window(frame):
    for window in (HERE, THERE, ELSEWHERE):
        collected = [
            likeness(frame, each, seen(frame, window)) for each in (HERE, THERE, ELSEWHERE)
        ]
        assert max(collected) == collected[(HERE, THERE, ELSEWHERE).index(window)]
        assert max(collected) > 0.9


def test_one_shade_is_like_nothing(frame):
    gray = np.full((96, 96, 3), 90, np.uint8)
    assert likeness(frame, HERE, gray) == 0
    assert likeness(np.full_like(frame, 90), HERE, seen(frame, HERE)) == 0


def test_answers_are_of_the_old_window_until_the_image_changes(frame):
    watch = RoiWatch(THERE, settle=4)
    assert watch.window_of([frame], None) == THERE
    watch.move(HERE)
    for _ in range(10):  # longer than `settle`: what is seen counts, not what was expected
        watch.tick()
        assert watch.window_of([frame], seen(frame, THERE)) == THERE
        assert not watch.settled
    watch.tick()
    assert watch.window_of([frame], seen(frame, HERE)) == HERE
    assert watch.settled
    assert watch.delay == 11
    watch.tick()  # never back again
    assert watch.window_of([frame], seen(frame, THERE)) == HERE


@pytest.mark.parametrize("image", [None, np.full((96, 96, 3), 90, np.uint8)])
def test_what_cannot_be_told_is_thrown_away_until_it_is_sure(frame, image):
    watch = RoiWatch(THERE, settle=4)
    watch.move(HERE)
    collected = []
    for _ in range(6):
        watch.tick()
        collected.append(watch.window_of([frame], image))
    assert collected == [None, None, None, HERE, HERE, HERE]


def test_a_torn_window_is_neither(frame):
    """The four registers are written one by one: a frame may have some of either window."""
    watch = RoiWatch(THERE, settle=8)
    watch.move(HERE)
    watch.tick()
    torn = Window(HERE.x0, THERE.y0, HERE.x0 + 140, THERE.y0 + 40)
    assert max(likeness(frame, each, seen(frame, torn)) for each in (HERE, THERE)) < 0.6
    assert watch.window_of([frame], seen(frame, torn)) is None


def test_a_window_that_was_never_answered_may_still_come(frame):
    watch = RoiWatch(THERE, settle=8)
    watch.move(ELSEWHERE)
    watch.tick()
    watch.move(HERE)
    collected = []
    for window in (THERE, ELSEWHERE, HERE):
        watch.tick()
        collected.append(watch.window_of([frame], seen(frame, window)))
    assert collected == [THERE, ELSEWHERE, HERE]


def test_near_windows_that_look_the_same_are_told_by_the_usual_delay(frame):
    watch = RoiWatch(THERE, settle=8)
    watch.move(HERE)
    for window in (THERE, THERE, HERE):
        watch.tick()
        watch.window_of([frame], seen(frame, window))
    assert watch.delay == 3
    near = Window(HERE.x0 + 1, HERE.y0, HERE.x1 + 1, HERE.y1)
    watch.move(near)
    collected = []
    for window in (HERE, HERE, near, near):
        watch.tick()
        collected.append(watch.window_of([frame], seen(frame, window)))
    assert collected == [HERE, HERE, near, near]


def test_the_frame_of_an_answer_is_found_by_its_image(frame):
    """Things move from frame to frame; the network's image is two frames old."""
    frames = [np.roll(frame, -7 * i, 1) for i in range(12)]
    watch = RoiWatch(HERE)
    for i in range(4, 12):
        newest = frames[i : i - 4 : -1]
        watch.tick()
        assert watch.window_of(newest, seen(frames[i - 2], HERE)) == HERE
    assert watch.lag == 2


def test_a_sensor_that_does_not_move_is_noticed(frame):
    watch = RoiWatch(THERE, settle=3)
    watch.move(HERE)
    for _ in range(15):
        watch.tick()
        watch.window_of([frame], seen(frame, THERE))
    assert not watch.stuck
    watch.tick()
    assert watch.stuck
    watch.move(HERE)
    assert not watch.stuck
