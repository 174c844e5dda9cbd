"""From a click to a followed mask: scales, delays, moving things, lost things, recorded answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from picosam2 import sample
from picosam2.apps.camera.sensor import AiCamera
from picosam2.apps.camera.session import CameraView, Session
from picosam2.apps.camera.simulated import LOGIT_STEP, SimulatedSensor
from picosam2.errors import ConfigError, PromptError
from picosam2.io.sample_image import sample_objects
from picosam2.masks import iou
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point
from picosam2.runtimes.weights import shipped
from tests.golden import make_camera as golden
from tests.helpers.clip import HEIGHT, WIDTH, Pose, make_clip
from tests.helpers.fakes import FakeRuntime, fixed_scores, reddish

OBJECTS = {each.name: each for each in sample_objects()}

needs_weights = pytest.mark.skipif("default" not in shipped(), reason="no weights are shipped yet")


def disc_scene(places: Callable[[int], tuple[float, float, float]]) -> Callable[[int], np.ndarray]:
    """A red disc (x, y, radius) on a ground with a pattern in gray, which is not red to anyone."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    ground = 90 + 40 * np.sin(x / 17) * np.sin(y / 23) + 25 * np.sin(x / 101 + y / 67)
    ground = np.repeat(ground[..., None], 3, 2)

    def scene(frame: int) -> np.ndarray:
        cx, cy, radius = places(frame)
        image = ground.copy()
        image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = (230, 20, 30)
        return image.astype(np.uint8)

    return scene


def disc(cx: float, cy: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (x - cx) ** 2 + (y - cy) ** 2 < radius**2


def box_of(cx: float, cy: float, radius: float) -> Box:
    return Box(cx - radius, cy - radius, cx + radius, cy + radius)


@pytest.fixture
def red() -> Predictor:
    """Finds what is red; of a click's six windows, the fourth is said to be the best."""
    scorer = {"click": fixed_scores(0.1, 0.2, 0.3, 0.9, 0.4, 0.2), "box": fixed_scores(0.8)}
    return Predictor(FakeRuntime(reddish, scorers=scorer))


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[Session, SimulatedSensor]]:
    """A session with a predictor over a scene, and its sensor."""
    network = tmp_path / "network.rpk"
    network.touch()

    def make(predictor, scene, *, network_runs=None, settle=8, **how):
        runs = network_runs or (lambda crop: predictor.runtime(crop[None])[0])
        how.setdefault("side", predictor.runtime.info.input_size)
        sensor = SimulatedSensor(scene, runs, **how)
        camera = AiCamera(network, predictor.runtime.info, devices=sensor.devices)
        return Session(camera, predictor, settle=settle), sensor

    return make


def until(session: Session, state: str, frames: int = 120) -> CameraView:
    for _ in range(frames):
        view = session.step()
        if view.state == state:
            return view
    raise AssertionError(f"still {view.state} after {frames} frames")


def run(session: Session, frames: int) -> list[CameraView]:
    return [session.step() for _ in range(frames)]


DELAYS = [
    {"roi_delay": 3, "lag": 1},
    {"roi_delay": 0, "lag": 0},
    {"roi_delay": 5, "lag": 2, "every": 2},
    {"roi_delay": 4, "lag": 2, "tensors": False},
    {"roi_delay": 20, "lag": 3},  # far longer than is expected: the images say so
]


@pytest.mark.parametrize("how", DELAYS, ids=str)
def test_a_box_gives_the_mask_at_its_place(red, begin, how):
    place = 400, 200, 40
    session, sensor = begin(red, disc_scene(lambda _: place), **how)
    assert {each.state for each in run(session, 4)} == {"idle"}
    session.box(box_of(*place))
    view = until(session, "found")
    assert iou(view.tracked.mask, disc(*place)) > 0.95
    assert view.tracked.score == pytest.approx(0.8)
    # 1.2 times the box, in the sensor's pixels.
    assert sensor.roi.width == pytest.approx(1.2 * 80 * 4056 / 640, abs=2)
    assert sensor.roi.height == pytest.approx(1.2 * 80 * 3040 / 480, abs=2)


@pytest.mark.parametrize("how", DELAYS, ids=str)
def test_no_mask_is_ever_at_a_wrong_place(red, begin, how):
    """Two discs; the user points at one, then at the other. Nothing in between is shown."""
    first, second = (150, 130, 35), (450, 330, 60)
    left, two = disc_scene(lambda _: first), disc_scene(lambda _: second)

    def scene(frame: int) -> np.ndarray:
        return np.where(disc(*second)[..., None], two(frame), left(frame))

    session, _ = begin(red, scene, **how)
    run(session, 3)
    session.box(box_of(*first))
    until(session, "found")
    session.box(box_of(*second))
    for view in run(session, 60):
        if view.tracked is not None and view.tracked.found:
            assert iou(view.tracked.mask, disc(*second)) > 0.9
    assert view.state == "found"


def test_without_the_rules_masks_would_be_at_a_wrong_place(red, begin, monkeypatch):
    """What the tests above guard against does happen if the last ROI is taken for granted."""
    monkeypatch.setattr(
        "picosam2.apps.camera.roi.RoiWatch.window_of",
        lambda self, *_: setattr(self, "settled", True) or self.window,
    )
    first, second = (150, 130, 35), (450, 330, 60)
    session, _ = begin(red, disc_scene(lambda _: first))
    run(session, 3)
    session.box(box_of(*first))
    until(session, "found")
    session.box(box_of(*second))  # nothing is there
    wrong = [s for s in run(session, 6) if s.tracked is not None and s.tracked.found]
    assert any(iou(each.tracked.mask, disc(*first)) == 0 for each in wrong)


def test_a_click_tries_all_scales_and_the_scorer_chooses(red, begin):
    place = 320, 240, 60
    session, _ = begin(red, disc_scene(lambda _: place))
    run(session, 3)
    session.point(Point(320, 240))
    view = run(session, 60)
    steps = [each.step for each in view if each.step is not None]
    assert list(dict.fromkeys(steps)) == [(n, 6) for n in range(1, 7)]
    widths = [each.window.width for each in view if each.step is not None]
    expected = [2 * half * 640 for half in (0.02, 0.0375, 0.075, 0.15, 0.3)]
    assert sorted(set(np.round(widths)))[:5] == pytest.approx(expected, abs=1)
    assert max(widths) == pytest.approx(480, abs=1)  # the largest is shrunk to the frame
    assert iou(view[-1].tracked.mask, disc(*place)) > 0.95


def test_a_click_of_a_given_scale_takes_one_window(red, begin):
    session, _ = begin(red, disc_scene(lambda _: (320, 240, 60)))
    assert session.scales == 6
    session.scale = 4
    run(session, 3)
    session.point(Point(320, 240))
    view = run(session, 30)
    assert {each.step for each in view if each.step is not None} == {(1, 1)}
    assert iou(view[-1].tracked.mask, disc(320, 240, 60)) > 0.95
    for wrong in (-1, 6):
        with pytest.raises(ConfigError, match="choose from 0 to 5"):
            session.scale = wrong


def test_a_click_near_the_edge_does_not_wait_for_windows_that_are_the_same(red, begin):
    place = 25, 240, 24
    session, _ = begin(red, disc_scene(lambda _: place))
    run(session, 3)
    session.point(Point(25, 240))
    view = run(session, 40)
    assert view[-1].state == "found"
    assert iou(view[-1].tracked.mask, disc(*place)) > 0.9
    assert max(each.window.width for each in view if each.step is not None) < 51


def test_nothing_there(red, begin):
    session, _ = begin(red, disc_scene(lambda _: (100, 100, 30)))
    run(session, 3)
    for ask in (lambda: session.box(box_of(400, 300, 30)), lambda: session.point(Point(400, 300))):
        ask()
        run(session, 60)
        assert session.note == "nothing is found there: point at it again"
        assert session.step().state == "idle"
    session.box(box_of(100, 100, 30))
    until(session, "found")
    assert session.note == ""


def test_forget(red, begin):
    session, _ = begin(red, disc_scene(lambda _: (100, 100, 30)))
    session.box(box_of(100, 100, 30))
    until(session, "found")
    session.forget()
    view = session.step()
    assert view.state == "idle"
    assert view.tracked is None


@pytest.mark.parametrize("how", DELAYS[:4], ids=str)
def test_a_moving_thing_is_followed(red, begin, how):
    def place(frame: int) -> tuple[float, float, float]:
        t = max(frame - 30, 0)
        return 120 + 3.0 * t, 150 + 1.2 * t, 40 + 0.15 * t

    session, sensor = begin(red, disc_scene(place), **how)
    run(session, 3)
    session.box(box_of(*place(0)))
    until(session, "found")
    overlaps = []
    while sensor.frame < 110:
        view = session.step()
        if view.answered and sensor.frame > 30:
            assert view.state == "found", sensor.frame
            # The mask is of the image that the network saw, and so is what is view.
            truth = disc(*place(view.frame.index - sensor.lag))
            overlaps.append(iou(view.tracked.mask, truth))
    assert len(overlaps) > 10
    assert np.mean(overlaps) > 0.8


def test_a_thing_that_leaves_is_lost_and_found_again(red, begin):
    def place(frame: int) -> tuple[float, float, float]:
        if 60 <= frame < 90:
            return -200, -200, 40
        return (200, 240, 40) if frame < 60 else (450, 200, 40)

    session, sensor = begin(red, disc_scene(place))
    session.box(box_of(200, 240, 40))
    until(session, "found")
    states = {}
    while sensor.frame < 140:
        view = session.step()
        states[view.frame.index] = view
    assert all(states[i].state == "lost" for i in range(63, 90))
    assert not states[80].tracked.mask.any()
    assert states[139].state == "found"
    assert iou(states[139].tracked.mask, disc(450, 200, 40)) > 0.9


def test_a_thing_that_leaves_over_the_edge_does_no_harm(red, begin):
    def place(frame: int) -> tuple[float, float, float]:
        return 500 + 4 * max(frame - 20, 0), 240, 40

    session, sensor = begin(red, disc_scene(place))
    session.box(box_of(500, 240, 40))
    until(session, "found")
    while sensor.frame < 110:
        view = session.step()
    assert view.state == "lost"


@pytest.mark.parametrize("point", [(-1, 5), (640, 5), (5, 480)])
def test_a_click_outside_of_the_frame(red, begin, point):
    session, _ = begin(red, disc_scene(lambda _: (100, 100, 30)))
    with pytest.raises(PromptError, match="outside the image"):
        session.point(Point(*point))


def test_a_click_too_near_the_edge_is_a_note(red, begin):
    session, _ = begin(red, disc_scene(lambda _: (100, 100, 30)))
    session.point(Point(3, 240))
    view = session.step()
    assert view.state == "idle"
    assert "too near the edge" in session.note


def test_a_sensor_that_loses_the_command_is_told_again(red, begin):
    session, sensor = begin(red, disc_scene(lambda _: (400, 200, 40)))
    run(session, 3)
    heard, sensor.move = sensor.move, lambda _roi: None
    session.box(box_of(400, 200, 40))
    assert {each.state for each in run(session, 30)} == {"looking"}
    sensor.move = heard
    view = until(session, "found")
    assert iou(view.tracked.mask, disc(400, 200, 40)) > 0.95


# -- with the shipped weights, and what they answered once ----------------------------------


class Recorded:
    """Gives back the answers of `tests/golden/camera.npz`, by the ROI that they belong to."""

    def __init__(self) -> None:
        with np.load(golden.RECORDED, allow_pickle=False) as kept:
            rois, answers = kept["rois"], kept["answers"]
        assert answers.dtype == np.int8
        self.answers = {tuple(map(int, r)): a for r, a in zip(rois, answers, strict=True)}
        self.sensor: SimulatedSensor | None = None

    def __call__(self, _crop: np.ndarray) -> np.ndarray:
        roi = tuple(self.sensor.roi)
        if roi == (0, 0, 4056, 3040):
            return np.full((2, 96, 96), -8, np.float32)
        assert roi in self.answers, f"{roi}: run python -m tests.golden.make_camera again"
        return self.answers[roi] * np.float32(LOGIT_STEP)


@needs_weights
@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("name", [golden.CLICKED, golden.BOXED])
def test_recorded_answers_give_the_object(begin, name, layout):
    recorded = Recorded()
    image = sample()
    session, recorded.sensor = begin(
        Predictor("default", threads=1), lambda _: image, network_runs=recorded, layout=layout
    )
    session.step()
    wanted = OBJECTS[name]
    if name == golden.CLICKED:
        session.point(wanted.point)
    else:
        session.box(wanted.box)
    run(session, golden.STEPS)
    view = session.step()
    assert view.state == "found"
    assert iou(view.tracked.mask, wanted.mask) > 0.85


@needs_weights
def test_the_shipped_weights_follow_an_object_through_a_clip(begin):
    """At a twentieth of its size a frame, five frames late."""
    clip = make_clip("apple", [Pose(90 + 4 * max(i - 30, 0), 300, 0.9) for i in range(100)])
    predictor = Predictor("default", threads=1)
    session, sensor = begin(predictor, lambda i: clip.frames[min(i, 99)])
    session.box(clip.box(0))
    overlaps = []
    while sensor.frame < 100:
        view = session.step()
        if view.state == "found" and view.answered:
            overlaps.append(iou(view.tracked.mask, clip.masks[view.frame.index - 1]))
    assert len(overlaps) > 85
    assert np.mean(overlaps) > 0.85
