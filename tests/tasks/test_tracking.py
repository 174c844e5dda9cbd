"""Following objects: what is found, what is lost, and that lost things are not made up."""

from __future__ import annotations

import numpy as np
import pytest

from picosam2 import geometry
from picosam2.errors import ImageError, PromptError
from picosam2.geometry import CROP_SIZE, Window
from picosam2.masks import iou
from picosam2.predictor import Predictor
from picosam2.runtimes.protocol import RuntimeInfo
from picosam2.runtimes.weights import shipped
from picosam2.tasks.tracking import Follower, Tracked, Tracker
from tests.helpers.clip import Clip, Pose, journey, make_clip

HEIGHT, WIDTH = 120, 160
RED, BLUE, GROUND = (200, 30, 30), (20, 40, 200), (90, 140, 90)


class ColorRuntime:
    """Stands for a network that finds whatever is not ground, red or not."""

    info = RuntimeInfo(name="color", input_size=CROP_SIZE, channels=1, weights_sha256="0" * 64)

    def __init__(self) -> None:
        self.crops = 0

    def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
        self.crops += len(crops)
        distance = np.abs(crops.astype(np.float32) - np.array(GROUND, np.float32)).sum(-1)
        return ((distance - 80) / 10)[:, None].clip(-8, 8)


class Everywhere(ColorRuntime):
    """Stands for a network that finds the middle of every window, as real ones do."""

    def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
        self.crops += len(crops)
        logits = np.full((len(crops), 1, CROP_SIZE, CROP_SIZE), -8, np.float32)
        logits[:, :, 12:-12, 12:-12] = 8
        return logits


def image(*things: tuple[float, float, float, tuple[int, int, int]]) -> np.ndarray:
    """A frame with discs (x, y, radius, color) on a plain ground, with a little noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    frame = np.empty((HEIGHT, WIDTH, 3))
    frame[:] = GROUND
    for cx, cy, radius, color in things:
        frame[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = color
    return np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)


def disc(cx: float, cy: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (x - cx) ** 2 + (y - cy) ** 2 < radius**2


def box(cx: float, cy: float, radius: float) -> tuple[float, float, float, float]:
    return cx - radius, cy - radius, cx + radius, cy + radius


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(Predictor(ColorRuntime()))


def test_a_moving_growing_thing_is_followed(tracker):
    first = tracker.start(image((30, 40, 12, RED)), boxes=[box(30, 40, 12)])[0]
    assert first.found
    assert iou(first.mask, disc(30, 40, 12)) > 0.9
    for i in range(1, 20):
        place = (30 + 4 * i, 40 + 2 * i, 12 + 0.5 * i)
        tracked = tracker.update(image((*place, RED)))[0]
        assert tracked.state == "found"
        assert iou(tracked.mask, disc(*place)) > 0.85
        assert 0 < tracked.score <= 1
        assert 0 < tracked.likeness <= 1
        assert tracked.area == tracked.mask.sum()


def test_a_jump_within_the_window_is_caught_in_the_same_frame(tracker):
    tracker.start(image((60, 60, 15, RED)), boxes=[box(60, 60, 15)])
    tracked = tracker.update(image((72, 60, 15, RED)))[0]
    assert iou(tracked.mask, disc(72, 60, 15)) > 0.9


def test_what_is_gone_is_lost_and_stays_lost():
    tracker = Tracker(Predictor(Everywhere()))
    tracker.start(image((60, 60, 15, RED)), boxes=[box(60, 60, 15)])
    for _ in range(10):
        gone = tracker.update(image())[0]
        assert gone.state == "lost"
        assert not gone.found
        assert gone.area == 0
        assert gone.box is None
        assert gone.score == 0
        assert gone.mask.shape == (HEIGHT, WIDTH)


def test_another_thing_is_not_taken_for_it(tracker):
    tracker.start(image((60, 60, 15, RED), (110, 60, 15, BLUE)), boxes=[box(60, 60, 15)])
    for _ in range(5):
        assert tracker.update(image((70, 60, 15, BLUE)))[0].state == "lost"


def test_what_comes_back_is_found_again_elsewhere(tracker):
    tracker.start(image((30, 40, 14, RED)), boxes=[box(30, 40, 14)])
    for _ in range(4):
        assert not tracker.update(image((30, 40, 20, BLUE)))[0].found
    results = [tracker.update(image((120, 80, 14, RED)))[0] for _ in range(3)]
    assert results[-1].found
    assert iou(results[-1].mask, disc(120, 80, 14)) > 0.85


def test_several_objects_share_a_batch_and_keep_their_order(tracker):
    frame = image((40, 60, 12, RED), (110, 60, 12, BLUE))
    tracker.start(frame, boxes=[box(40, 60, 12), box(110, 60, 12)])
    runtime = tracker.predictor.runtime
    before = runtime.crops
    red, blue = tracker.update(image((43, 60, 12, RED), (107, 60, 12, BLUE)))
    assert runtime.crops - before == 2
    assert iou(red.mask, disc(43, 60, 12)) > 0.85
    assert iou(blue.mask, disc(107, 60, 12)) > 0.85


def test_a_lost_object_costs_nothing_where_its_colors_are_not(tracker):
    tracker.start(image((60, 60, 15, RED)), boxes=[box(60, 60, 15)])
    tracker.update(image())
    before = tracker.predictor.runtime.crops
    tracker.update(image())
    assert tracker.predictor.runtime.crops == before


def test_an_empty_first_mask_is_lost_from_the_start(tracker):
    assert tracker.start(image(), boxes=[box(60, 60, 15)])[0].state == "lost"
    assert tracker.update(image())[0].state == "lost"


@pytest.mark.parametrize("shape", ["specks", "line"])
def test_the_colors_of_a_thin_or_scattered_first_mask_are_known(shape):
    frame = np.full((480, 640, 3), GROUND, np.uint8)
    mask = np.zeros((480, 640), bool)
    if shape == "specks":
        mask[100:103, 100:103] = mask[400:403, 500:503] = True
    else:
        mask[np.arange(50, 450), np.arange(100, 500)] = True
    frame[mask] = RED
    # Colors of no pixel would be a mean of nothing, which is a warning.
    assert Follower(Predictor(ColorRuntime()), frame, mask).place(frame).area > 0


def test_starting_again_forgets(tracker):
    tracker.start(image((60, 60, 15, RED)), boxes=[box(60, 60, 15)])
    tracker.start(image((90, 60, 15, BLUE)), points=[(90, 60)])
    results = tracker.update(image((90, 60, 15, BLUE)))
    assert len(results) == 1
    assert iou(results[0].mask, disc(90, 60, 15)) > 0.85


def test_mistakes_are_told(tracker):
    with pytest.raises(PromptError, match="call start"):
        tracker.update(image())
    with pytest.raises(PromptError, match="outside"):
        tracker.start(image(), points=[(500, 5)])
    with pytest.raises(PromptError, match="no prompt"):
        tracker.start(image())
    with pytest.raises(ImageError, match=r"\(H, W, 3\) of uint8"):
        tracker.start(image().astype(float), points=[(5, 5)])
    tracker.start(image((60, 60, 15, RED)), points=[(60, 60)])
    with pytest.raises(ImageError, match="one size"):
        tracker.update(image()[:50])


# --- with the real weights ----------------------------------------------------------------------

needs_weights = pytest.mark.skipif(
    "default" not in shipped(), reason="the trained weights do not come with this build"
)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(threads=1)


def follow(predictor: Predictor, clip: Clip) -> list[Tracked]:
    tracker = Tracker(predictor)
    tracked = tracker.start(clip.frames[0], boxes=[clip.box(0)])
    for frame in clip.frames[1:]:
        tracked += tracker.update(frame)
    return tracked


@needs_weights
@pytest.mark.parametrize("name", ["apple", "banana", "tennis ball", "mug"])
def test_a_journey_out_of_the_frame(predictor, name):
    gone = 10
    clip = make_clip(
        name,
        journey(50) + [Pose(2000, 2000)] * gone,
        lying={"blue book": (500, 90), "bottle": (330, 160)},
    )
    tracked = follow(predictor, clip)
    seen = clip.share > 0.5
    overlaps = np.array(
        [iou(each.mask, truth) for each, truth in zip(tracked, clip.masks, strict=True)]
    )
    assert overlaps[seen].mean() > 0.75
    assert not any(each.found for each in tracked[-gone:])


@needs_weights
def test_behind_another_thing_and_back(predictor):
    poses = [Pose(90 + 9 * i, 330, 0.8) for i in range(55)]
    clip = make_clip("apple", poses, hiding={"potted plant": (330, 330)})
    tracked = follow(predictor, clip)
    hidden = clip.share < 0.05
    assert hidden.any()
    assert not any(each.found for each, no in zip(tracked, hidden, strict=True) if no)
    assert all(each.found for each in tracked[:8])
    overlaps = [
        iou(each.mask, truth) for each, truth in zip(tracked[-5:], clip.masks[-5:], strict=True)
    ]
    assert np.mean(overlaps) > 0.8


def answer(frame: np.ndarray, window: Window) -> np.ndarray:
    """What a sensor with `ColorRuntime` in it says of a window."""
    return ColorRuntime()(geometry.crop(frame, window)[None])[0]


def test_a_follower_is_given_its_windows():
    follower = Follower(Predictor(ColorRuntime()), image((60, 60, 15, RED)), disc(60, 60, 15))
    for i in range(1, 16):
        frame = image((60 + 2 * i, 60, 15, RED))
        window = Window(40 + 2 * i, 40, 80 + 2 * i, 80)
        tracked = follower.see(frame, window, answer(frame, window))
        assert tracked.found
        assert iou(tracked.mask, disc(60 + 2 * i, 60, 15)) > 0.9
    now, later = follower.place(frame), follower.place(frame, ahead=5)
    assert now.center.x == pytest.approx(90, abs=2)
    assert later.center.x - now.center.x == pytest.approx(10, abs=1.5)


def test_frames_between_answers_are_not_speed():
    follower = Follower(Predictor(ColorRuntime()), image((40, 60, 15, RED)), disc(40, 60, 15))
    for i in range(1, 6):
        frame = image((40 + 8 * i, 60, 15, RED))
        window = Window(20 + 8 * i, 40, 60 + 8 * i, 80)
        follower.see(frame, window, answer(frame, window), elapsed=4)
    now, later = follower.place(frame), follower.place(frame, ahead=5)
    assert later.center.x - now.center.x == pytest.approx(10, abs=4)


def test_what_a_late_window_cuts_off_is_still_part_of_the_object():
    frame = image((80, 60, 15, RED))
    follower = Follower(Predictor(ColorRuntime()), frame, disc(80, 60, 15))
    window = Window(50, 42, 86, 78)  # ends before the disc does
    tracked = follower.see(frame, window, answer(frame, window))
    assert tracked.found
    assert tracked.box.x1 <= 87
    assert follower.place(frame).center.x == pytest.approx(80, abs=1.5)


def test_a_follower_needs_something_to_follow():
    with pytest.raises(PromptError, match="empty mask"):
        Follower(Predictor(ColorRuntime()), image(), np.zeros((HEIGHT, WIDTH), np.bool_))
