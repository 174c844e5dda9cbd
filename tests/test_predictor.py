"""The predictor, with networks whose answers are known: what is chosen, joined, cut and pasted."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from helpers.fakes import FakeRuntime, disc, fixed_scores, random_scorer, reddish
from PIL import Image

from picosam2 import geometry, masks
from picosam2.errors import ImageError, PromptError, PromptWarning, WeightsError
from picosam2.geometry import CLICK_HALVES, OUTSIDE_LOGIT, Window
from picosam2.predictor import MULTIMASKS, Predictor
from picosam2.prompts import Box, Point, Prompt

HEIGHT, WIDTH = 240, 320
COUNT = len(CLICK_HALVES)
A = disc(HEIGHT, WIDTH, 100.5, 120.5, 30)
B = disc(HEIGHT, WIDTH, 165.5, 120.5, 28)


def image(*objects: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Red objects on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for mask in objects:
        pixels[mask, 0] = 255
    return pixels


def two() -> np.ndarray:
    """A and B; B is marked in green too, which `reddish` does not see."""
    pixels = image(A, B)
    pixels[B, 1] = 255
    return pixels


def flat(value: float) -> Any:
    return lambda crop, number: np.full((1, 96, 96), value)


def full_logits(logits: np.ndarray, window: Window) -> np.ndarray:
    return geometry.paste(logits.astype(np.float32), window, HEIGHT, WIDTH)


# --- boxes --------------------------------------------------------------------------------------


def test_a_box_is_one_window_and_its_paste() -> None:
    rng = np.random.default_rng(0)
    answer = rng.normal(0, 4, (1, 96, 96)).astype(np.float32)
    runtime = FakeRuntime(lambda crop, number: answer)
    (segmentation,) = Predictor(runtime)(two(), boxes=[(60, 80, 140, 160)])
    window = geometry.box_window(Box(60, 80, 140, 160))
    (crops_seen,) = runtime.calls
    np.testing.assert_array_equal(crops_seen, geometry.crop(two(), window)[None])
    assert segmentation.window == window
    expected = full_logits(answer[0], window)
    np.testing.assert_array_equal(segmentation.logits, expected)
    np.testing.assert_array_equal(segmentation.mask, expected > 0)
    assert segmentation.score == pytest.approx(masks.stability(answer[0]))
    assert segmentation.prompt == Prompt(box=Box(60, 80, 140, 160))


def test_flip_is_the_mean_with_the_mirrored_crops_answer() -> None:
    noise = np.random.default_rng(1).normal(0, 4, (1, 96, 96))

    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        return noise * crop[..., 0].mean() + np.arange(96) * crop[:, :20, 1].mean()

    runtime, pixels, box = FakeRuntime(answer), two(), Box(60, 80, 170, 160)
    (segmentation,) = Predictor(runtime, flip=True)(pixels, boxes=[(60, 80, 170, 160)])
    ((plain, mirrored),) = runtime.calls
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    mean = (answer(plain, 0) + answer(mirrored, 1)[..., ::-1]) / 2
    expected = full_logits(mean[0], geometry.box_window(box))
    np.testing.assert_allclose(segmentation.logits, expected, rtol=1e-4, atol=1e-3)


def test_flip_of_a_mirrored_image_is_the_mirrored_mask(tiny_onnx: Any) -> None:
    predictor = Predictor(tiny_onnx, flip=True)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    (first,) = predictor(pixels, boxes=[(60, 80, 140, 160)])
    (other,) = predictor(pixels[:, ::-1], boxes=[(WIDTH - 140, 80, WIDTH - 60, 160)])
    np.testing.assert_allclose(other.logits[:, ::-1], first.logits, atol=1e-3)


def test_pixels_that_no_window_saw_are_background() -> None:
    (segmentation,) = Predictor(FakeRuntime(flat(5)))(two(), boxes=[(60, 80, 140, 160)])
    window = segmentation.window
    assert window is not None
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[round(window.y0) : round(window.y1), round(window.x0) : round(window.x1)] = True
    np.testing.assert_array_equal(segmentation.mask, inside)
    assert segmentation.logits is not None
    assert (segmentation.logits[~inside] == OUTSIDE_LOGIT).all()


def test_a_box_finds_its_object() -> None:
    (segmentation,) = Predictor(FakeRuntime(reddish))(image(A), boxes=[(71, 91, 131, 151)])
    assert masks.iou(segmentation.mask, A) > 0.97


def test_the_box_scorer_scores_boxes() -> None:
    runtime = FakeRuntime(flat(5), scorers={"box": fixed_scores(0.37)})
    (segmentation,) = Predictor(runtime)(image(A), boxes=[(71, 91, 131, 151)])
    assert segmentation.score == pytest.approx(0.37)


def test_the_window_rules_of_the_weights_are_followed() -> None:
    runtime = FakeRuntime(flat(5), geometry={"box_growth": 1.5, "box_max_aspect": 2.0})
    (segmentation,) = Predictor(runtime)(image(A), boxes=[(50, 100, 150, 120)])
    assert segmentation.window == geometry.box_window(
        Box(50, 100, 150, 120), growth=1.5, max_aspect=2.0
    )
    runtime = FakeRuntime(flat(5), geometry={"box_max_aspect": None})
    (segmentation,) = Predictor(runtime)(image(A), boxes=[(50, 100, 150, 120)])
    assert segmentation.window == geometry.box_window(Box(50, 100, 150, 120))


def test_a_box_that_reaches_past_the_image_is_cut_with_a_warning() -> None:
    predictor = Predictor(FakeRuntime(flat(5)))
    with pytest.warns(PromptWarning, match="reaches past"):
        (segmentation,) = predictor(image(A), boxes=[(-20, 100, 40, 300)])
    assert segmentation.prompt.box == Box(0, 100, 40, HEIGHT)


# --- one click ----------------------------------------------------------------------------------


def test_a_click_tries_every_scale_in_one_batch_then_looks_again_at_the_best() -> None:
    scores = np.linspace(0.2, 0.5, COUNT)
    scores[2] = 0.9
    runtime = FakeRuntime(reddish, scorers={"click": fixed_scores(*scores)})
    (segmentation,) = Predictor(runtime)(image(A), points=[(100.5, 120.5)])
    first, second = runtime.calls
    windows = geometry.click_windows(Point(100.5, 120.5), HEIGHT, WIDTH)
    expected = np.stack([geometry.crop(image(A), window) for window in windows])
    np.testing.assert_array_equal(first, expected)
    # The second pass is the box window of what the third window said.
    coarse = full_logits(reddish(first[2])[0], windows[2])
    window = geometry.box_window(Box(*(masks.bbox(coarse > 0) or ())))
    np.testing.assert_array_equal(second, geometry.crop(image(A), window)[None])
    assert segmentation.window == window
    fine = full_logits(reddish(second[0])[0], window)
    # Where both passes see, their mean; the second alone beyond the first window's edge.
    seen = (coarse != OUTSIDE_LOGIT) & (fine != OUTSIDE_LOGIT)
    assert segmentation.logits is not None
    np.testing.assert_allclose(segmentation.logits[seen], (coarse + fine)[seen] / 2, atol=1e-5)
    np.testing.assert_array_equal(segmentation.logits[~seen], fine[~seen])
    assert segmentation.score == pytest.approx(0.9)


def test_the_scorers_choice_wins() -> None:
    """Each window answers with a disc of another size; the scorer alone decides."""

    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        return np.where(disc(96, 96, 48, 48, 10 + 4 * number), 9.0, -9.0)[None]

    windows = geometry.click_windows(Point(160.5, 120.5), HEIGHT, WIDTH)
    for best in range(COUNT):
        scores = np.full(COUNT, 0.3)
        scores[best] = 0.8
        predictor = Predictor(FakeRuntime(answer, scorers={"click": fixed_scores(*scores)}))
        (candidates,) = predictor.clicks(image(), [Point(160.5, 120.5)], refine=0)
        assert candidates[0].window == windows[best]
        assert candidates[0].score == pytest.approx(0.8)
        expected = full_logits(answer(image(), best)[0], windows[best]) > 0
        np.testing.assert_array_equal(candidates[0].mask(HEIGHT, WIDTH), expected)
        # Equal scores keep the order of the sizes.
        rest = [window for number, window in enumerate(windows) if number != best]
        assert [candidate.window for candidate in candidates[1:]] == rest


def test_a_click_looks_through_no_more_windows_than_the_scorer_wants() -> None:
    """The start is the third window; the fourth promises more, and no other does."""
    scorer = {**fixed_scores(0.1, 0.2, 0.6, 0.8, 0.3, 0.2), "start": 2}
    runtime = FakeRuntime(reddish, scorers={"click": scorer})
    predictor = Predictor(runtime)
    windows = predictor.click_windows(Point(100.5, 120.5), HEIGHT, WIDTH)
    (segmentation,) = predictor(image(A), points=[(100.5, 120.5)])
    first, second, third = runtime.calls
    np.testing.assert_array_equal(first, geometry.crop(image(A), windows[2])[None])
    np.testing.assert_array_equal(second, geometry.crop(image(A), windows[3])[None])
    assert len(third) == 1  # the second pass
    assert segmentation.score == pytest.approx(0.8)
    assert masks.iou(segmentation.mask, A) > 0.9


def test_the_best_of_several_masks_is_the_only_one_of_a_single_mask() -> None:
    """Whatever the other windows say, and whichever clicks come with it."""
    rng = np.random.default_rng(0)
    pixels = image()
    pixels[..., 0] = np.kron(rng.integers(0, 256, (12, 16)), np.ones((20, 20)))
    scorer = random_scorer(COUNT)
    runtime = FakeRuntime(reddish, scorers={"click": {**scorer.to_json(), "start": 3}})
    predictor = Predictor(runtime)
    points = rng.uniform((0, 0), (WIDTH, HEIGHT), (9, 2))
    together = predictor(pixels, points=points)
    several = predictor(pixels, points=points, multimask=True)
    looks = []
    for number, point in enumerate(points):
        runtime.calls.clear()
        (alone,) = predictor(pixels, points=[point])
        looks.append(sum(map(len, runtime.calls)))
        for other in (together[number], several[MULTIMASKS * number]):
            np.testing.assert_array_equal(alone.mask, other.mask)
            assert alone.score == pytest.approx(other.score, abs=1e-6)
            assert alone.window == other.window
    assert max(looks) < COUNT  # the second pass is among them


def test_an_empty_mask_makes_way_for_that_of_another_window() -> None:
    """The window that scores best holds nothing."""
    scorer = {**fixed_scores(0.1, 0.2, 0.6, 0.8, 0.3, 0.2), "start": 3}
    best = geometry.crop(image(A), Predictor(FakeRuntime(reddish)).click_windows(
        Point(100.5, 120.5), HEIGHT, WIDTH
    )[3])  # fmt: skip

    def answer(crop: np.ndarray, _: int) -> np.ndarray:
        return np.full((1, 96, 96), -9.0) if np.array_equal(crop, best) else reddish(crop)

    runtime = FakeRuntime(answer, scorers={"click": scorer})
    (segmentation,) = Predictor(runtime)(image(A), points=[(100.5, 120.5)])
    assert segmentation.score == pytest.approx(0.6)
    assert segmentation.mask.any()


def test_without_a_scorer_a_sure_mask_inside_its_window_wins() -> None:
    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        if number == 1:
            return np.where(disc(96, 96, 48, 48, 20), 9.0, -9.0)[None]
        if number == 2:  # unsure: the threshold decides
            return np.where(disc(96, 96, 48, 48, 20), 0.5, -0.5)[None]
        return np.full((1, 96, 96), 9.0 if number else -9.0)  # all of the window, or nothing

    predictor = Predictor(FakeRuntime(answer))
    (candidates,) = predictor.clicks(image(), [Point(160.5, 120.5)], refine=0)
    assert candidates[0].window == predictor.click_windows(Point(160.5, 120.5), HEIGHT, WIDTH)[1]
    assert candidates[0].score > 0.9
    assert all(candidate.score < 0.1 for candidate in candidates[1:])


@pytest.mark.parametrize("refine", [0, 1, 2, -1])
def test_how_many_candidates_get_the_second_pass(refine: int) -> None:
    runtime = FakeRuntime(reddish)
    (candidates,) = Predictor(runtime).clicks(image(A), [Point(100.5, 120.5)], refine=refine)
    assert len(candidates) == COUNT
    refined = COUNT if refine < 0 else refine
    assert sum(map(len, runtime.calls)) == COUNT + refined
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)


def test_a_click_finds_its_object_anywhere_in_the_image() -> None:
    for x, y in ((100.5, 120.5), (0.5, 0.5), (319.5, 239.5), (160.0, 0.0)):
        truth = disc(HEIGHT, WIDTH, x, y, 30)
        (segmentation,) = Predictor(FakeRuntime(reddish))(image(truth), points=[(x, y)])
        assert masks.iou(segmentation.mask, truth) > 0.93


def test_a_click_on_nothing_gives_an_empty_mask() -> None:
    (segmentation,) = Predictor(FakeRuntime(flat(-7)))(image(), points=[(100, 100)])
    assert not segmentation.mask.any()
    assert segmentation.score == 0
    assert segmentation.box is None


def test_two_channels_are_one_for_boxes_and_one_for_clicks() -> None:
    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        return np.stack((np.full((96, 96), 3.0), np.full((96, 96), -3.0)))

    predictor = Predictor(FakeRuntime(answer, channels=2))
    boxed, clicked = (
        predictor(image(), boxes=[(50, 50, 100, 100)])[0],
        predictor(image(), points=[(75, 75)])[0],
    )
    assert boxed.mask.any()
    assert not clicked.mask.any()
    assert Predictor(FakeRuntime(flat(3)))(image(), points=[(75, 75)])[0].mask.any()


def test_native_windows_have_the_images_own_pixels_and_no_second_pass() -> None:
    runtime = FakeRuntime(reddish, click_windows="native")
    (segmentation,) = Predictor(runtime)(image(A), points=[(100.5, 120.5)])
    (crops_seen,) = runtime.calls
    window = Window(52.5, 72.5, 148.5, 168.5)
    np.testing.assert_array_equal(crops_seen, geometry.crop(image(A), window)[None])
    assert segmentation.window == window


def test_the_click_windows_of_the_weights_are_followed() -> None:
    runtime = FakeRuntime(
        reddish, geometry={"click_halves": [0.1, 0.2]}, scorers={"click": fixed_scores(0.6, 0.4)}
    )
    (candidates,) = Predictor(runtime).clicks(image(A), [Point(100.5, 120.5)], refine=0)
    assert [c.window.width for c in candidates] == pytest.approx([64, 128])


def test_smaller_crops_and_coarser_logits() -> None:
    """A network on 64-pixel crops whose logits are 32 pixels wide."""
    runtime = FakeRuntime(lambda crop, _: reddish(crop[::2, ::2]), size=64)
    (segmentation,) = Predictor(runtime)(image(A), points=[(100.5, 120.5)])
    assert masks.iou(segmentation.mask, A) > 0.9


# --- several prompts ----------------------------------------------------------------------------


def test_many_prompts_together_are_each_what_it_is_alone() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform((0, 0), (WIDTH, HEIGHT), (13, 2))
    corners = rng.uniform((0, 0), (WIDTH - 60, HEIGHT - 60), (4, 2))
    boxes = np.hstack((corners, corners + rng.uniform(20, 60, (4, 2))))
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    predictor = Predictor(FakeRuntime(reddish))
    together = predictor(pixels, points=points, boxes=boxes)
    alone = [predictor(pixels, points=[point])[0] for point in points]
    alone += [predictor(pixels, boxes=[box])[0] for box in boxes]
    assert len(together) == 17
    for first, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.logits, other.logits)
        assert first.prompt == other.prompt
        assert first.score == other.score


def test_flipping_the_image_and_the_click_flips_the_mask() -> None:
    pixels = image(A)
    pixels[..., 1] = np.random.default_rng(0).integers(0, 99, (HEIGHT, WIDTH))
    predictor = Predictor(FakeRuntime(reddish))
    for axis, point in ((1, (WIDTH - 100.5, 120.5)), (0, (100.5, HEIGHT - 120.5))):
        here = predictor(pixels, points=[(100.5, 120.5)])[0]
        there = predictor(np.flip(pixels, axis), points=[point])[0]
        assert masks.iou(np.flip(there.mask, axis), here.mask) > 0.98
        assert there.score == pytest.approx(here.score, abs=0.02)


def test_moving_the_image_moves_the_mask() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    here = predictor(image(A), points=[(100.5, 120.5)])[0]
    there = predictor(np.roll(image(A), 37, 1), points=[(137.5, 120.5)])[0]
    np.testing.assert_array_equal(np.roll(here.mask, 37, 1), there.mask)


def test_no_prompts() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    assert predictor(image(), points=np.zeros((0, 2))) == []
    with pytest.raises(PromptError, match="no prompt"):
        predictor(image())


def test_multimask_gives_three_best_first() -> None:
    scores = np.linspace(0.2, 0.7, COUNT)
    runtime = FakeRuntime(reddish, scorers={"click": fixed_scores(*scores)})
    segmentations = Predictor(runtime)(image(A), points=[(100.5, 120.5), (50, 50)], multimask=True)
    assert len(segmentations) == 2 * MULTIMASKS
    for three in (segmentations[:3], segmentations[3:]):
        assert [each.score for each in three] == pytest.approx(scores[::-1][:3])
        assert len({each.prompt for each in three}) == 1
    boxed = Predictor(runtime)(image(A), boxes=[(71, 91, 131, 151)], multimask=True)
    assert len(boxed) == 1


# --- several points for one object --------------------------------------------------------------


def split_at_green(crop: np.ndarray, _number: int) -> np.ndarray:
    """Around a green middle what is green, else whatever is red."""
    return reddish(crop[..., [1, 0, 2]] if crop[48, 48, 1] > 128 else crop)


def only_the_middle(crop: np.ndarray, _number: int) -> np.ndarray:
    """Whatever has the color of the crop's middle."""
    return np.where(np.abs(crop - crop[48, 48].astype(float)).sum(2) < 99, 8.0, -8.0)[None]


def prompt(*points: tuple[float, float, int], box: tuple[float, ...] | None = None) -> Prompt:
    return Prompt(
        tuple(Point(x, y, bool(label)) for x, y, label in points), Box(*box) if box else None
    )


ON_A, ON_B, OFF_B = (100.5, 120.5, 1), (165.5, 120.5, 1), (165.5, 120.5, 0)


def test_a_candidate_that_holds_every_point_beats_a_better_scored_one() -> None:
    """Windows too small for both objects score better, but hold only one of the points."""
    scores = np.linspace(0.8, 0.45, COUNT)
    scorers = {"click": fixed_scores(*scores), "box": fixed_scores(0.05)}
    runtime = FakeRuntime(reddish, scorers=scorers)
    (segmentation,) = Predictor(runtime)(two(), prompts=[prompt(ON_A, ON_B)])
    assert segmentation.mask[120, 100]
    assert segmentation.mask[120, 165]
    assert masks.iou(segmentation.mask, A | B) > 0.9


@pytest.mark.parametrize(("fragment", "kept"), [(0.3, True), (0.88, False)])
def test_a_covered_negative_point_costs_a_little(fragment: float, kept: bool) -> None:
    """A mask that is a bit too large is cut, and not given up for a fragment that is not."""

    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        return only_the_middle(crop, number) if number == 0 else reddish(crop)

    scores = [fragment, *[0.1] * (COUNT - 2), 0.9]
    scorers = {"click": fixed_scores(*scores), "box": fixed_scores(0.05)}
    runtime = FakeRuntime(answer, scorers=scorers)
    (segmentation,) = Predictor(runtime)(image(A | B), prompts=[prompt(ON_A, (124.5, 124.5, 0))])
    assert not segmentation.mask[124, 124]
    assert (masks.area(segmentation.mask) > 0.5 * masks.area(A)) == kept


def test_the_box_around_several_points_is_tried() -> None:
    runtime = FakeRuntime(reddish, scorers={"click": fixed_scores(*[0.1] * COUNT)})
    Predictor(runtime)(two(), prompts=[prompt(ON_A, ON_B)])
    window = geometry.box_window(Box(100.5 - 16.25, 120.5 - 16.25, 165.5 + 16.25, 120.5 + 16.25))
    np.testing.assert_array_equal(runtime.calls[0], geometry.crop(two(), window)[None])


def test_a_positive_point_that_is_missed_is_joined_in() -> None:
    (segmentation,) = Predictor(FakeRuntime(only_the_middle))(two(), prompts=[prompt(ON_A, ON_B)])
    assert masks.iou(segmentation.mask, A | B) > 0.9


def test_a_negative_point_is_cut_out() -> None:
    predictor = Predictor(FakeRuntime(split_at_green))
    (whole,) = predictor(two(), prompts=[prompt(box=(71, 91, 194, 151))])
    assert masks.iou(whole.mask, A | B) > 0.9
    (cut,) = predictor(two(), prompts=[prompt(OFF_B, box=(71, 91, 194, 151))])
    (clicked,) = predictor(two(), prompts=[prompt(ON_A, OFF_B)])
    for actual in (cut, clicked):  # the smallest of the negative point's candidates
        assert not actual.mask[120, 165]
        assert masks.iou(actual.mask & A, A) > 0.9
        assert actual.area < whole.area


def test_what_is_joined_in_must_not_bring_a_negative_point_back() -> None:
    """The missed point's own mask covers the negative one, which the best mask did not."""
    third = disc(HEIGHT, WIDTH, 40.5, 60.5, 15)
    pixels = two()
    pixels[third, 2] = 255

    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        if crop[48, 48, 1] > 128:  # on B: what is green
            return reddish(crop[..., [1, 0, 2]])
        if crop[48, 48, 2] > 128:  # on the third: that, and B
            third = reddish(crop[..., [2, 1, 0]])
            return np.maximum(third, reddish(crop[..., [1, 0, 2]]))
        return reddish(crop)  # on A: A and B

    request = prompt((40.5, 60.5, 1), ON_A, OFF_B)
    (segmentation,) = Predictor(FakeRuntime(answer))(pixels, prompts=[request])
    assert segmentation.mask[60, 40]
    assert segmentation.mask[120, 100]
    assert not segmentation.mask[120, 165]


def test_a_negative_point_never_removes_a_positive_one() -> None:
    """The network cannot tell A from B: cutting B would take A with it."""
    predictor = Predictor(FakeRuntime(reddish))
    (segmentation,) = predictor(two(), prompts=[prompt(ON_A, OFF_B, box=(71, 91, 194, 151))])
    assert segmentation.mask[120, 100]


def test_a_negative_point_off_the_mask_changes_nothing() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    (plain,) = predictor(image(A), boxes=[(71, 91, 131, 151)])
    (same,) = predictor(image(A), prompts=[prompt((300, 20, 0), box=(71, 91, 131, 151))])
    np.testing.assert_array_equal(plain.mask, same.mask)
    assert plain.score == same.score


def test_a_box_and_a_point_that_its_mask_misses() -> None:
    predictor = Predictor(FakeRuntime(only_the_middle))
    (segmentation,) = predictor(two(), prompts=[prompt(ON_B, box=(71, 91, 131, 151))])
    assert masks.iou(segmentation.mask, A | B) > 0.9


def test_the_same_point_twice_is_that_point() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    (once,) = predictor(image(A), prompts=[prompt(ON_A)])
    (twice,) = predictor(image(A), prompts=[prompt(ON_A, ON_A)])
    np.testing.assert_array_equal(once.mask, twice.mask)


def test_the_smallest_mask_of_a_negative_point_is_cut_out() -> None:
    """Every window on B answers with a disc of a fifth of its width."""

    def answer(crop: np.ndarray, number: int) -> np.ndarray:
        on_b = crop[48, 48, 1] > 128
        return np.where(disc(96, 96, 48, 48, 19), 8.0, -8.0)[None] if on_b else reddish(crop)

    (segmentation,) = Predictor(FakeRuntime(answer))(two(), prompts=[prompt(ON_A, OFF_B)])
    width = CLICK_HALVES[0] * 2 * WIDTH
    lost = (A | B) & ~segmentation.mask
    assert lost[120, 165]
    assert lost.sum() < 2 * np.pi * (0.2 * width) ** 2 + 0.02 * (A | B).sum()


# --- SAM 2's way --------------------------------------------------------------------------------


def test_sam_shapes() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    predictor.set_image(image(A))
    predicted, scores, low = predictor.predict(
        point_coords=np.array([[100.5, 120.5]]), point_labels=np.array([1])
    )
    assert (predicted.shape, predicted.dtype) == ((3, HEIGHT, WIDTH), bool)
    assert (scores.shape, scores.dtype) == ((3,), np.float32)
    assert (low.shape, low.dtype) == ((3, 256, 256), np.float32)
    assert (np.diff(scores) <= 0).all()
    first = predictor.predict(point_coords=[[100.5, 120.5]], multimask_output=False)
    assert [part.shape for part in first] == [(1, HEIGHT, WIDTH), (1,), (1, 256, 256)]
    (expected,) = predictor(image(A), points=[(100.5, 120.5)])
    np.testing.assert_array_equal(first[0][0], expected.mask)
    np.testing.assert_array_equal(first[0][0], predicted[0])
    boxed = predictor.predict(box=np.array([71, 91, 131, 151]))
    assert boxed[0].shape == (1, HEIGHT, WIDTH)
    row = predictor.predict(box=np.array([[71, 91, 131, 151]]), return_logits=True)
    assert row[0].dtype == np.float32
    np.testing.assert_array_equal(row[0] > 0, boxed[0])


def test_sam_low_resolution_logits_show_the_whole_image() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    predictor.set_image(image(A))
    _, _, low = predictor.predict(box=[71, 91, 131, 151])
    shrunk = np.asarray(Image.fromarray(A).resize((256, 256), Image.Resampling.NEAREST))
    assert masks.iou(low[0] > 0, shrunk) > 0.9


def test_sam_low_resolution_logits_of_a_small_object_can_be_fed_back() -> None:
    side = 2048
    small = disc(side, side, 1000.5, 900.5, 30)
    predictor = Predictor(FakeRuntime(reddish))
    predictor.set_image(image(small, height=side, width=side))
    _, _, low = predictor.predict(box=[970, 870, 1031, 931])
    back = np.asarray(Image.fromarray(low[0]).resize((side, side), Image.Resampling.BILINEAR)) > 0
    assert masks.iou(back, small) > 0.9
    (again,), _, _ = predictor.predict(mask_input=low)
    assert masks.iou(again, small) > 0.9


def test_sam_gives_three_masks_even_where_there_is_one_window() -> None:
    predictor = Predictor(FakeRuntime(reddish, click_windows="native"))
    predictor.set_image(image(A))
    predicted, scores, _ = predictor.predict(point_coords=[[100.5, 120.5]], point_labels=[1])
    assert predicted.shape[0] == scores.shape[0] == 3


def test_sam_points_and_labels() -> None:
    predictor = Predictor(FakeRuntime(split_at_green))
    predictor.set_image(two())
    predicted, _, _ = predictor.predict(
        point_coords=np.array([ON_A[:2], OFF_B[:2]], np.float32),
        point_labels=np.array([1, 0]),
        multimask_output=False,
    )
    (same,) = predictor(two(), prompts=[prompt(ON_A, OFF_B)])
    np.testing.assert_array_equal(predicted[0], same.mask)
    assert not predicted[0][120, 165]


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int64"])
def test_sam_tensors(kind: str) -> None:
    torch = pytest.importorskip("torch")
    predictor = Predictor(FakeRuntime(reddish))
    predictor.set_image(image(A, B))
    dtype = getattr(torch, kind)
    grad = {"requires_grad": dtype.is_floating_point}
    points = torch.tensor([[100, 120]], dtype=dtype, **grad)
    expected = predictor.predict(point_coords=[[100, 120]])[0]
    for coordinates in (points, [points[0]]):
        for labels in (torch.ones(1, dtype=dtype, **grad), [torch.ones((), dtype=dtype)]):
            predicted, _, low = predictor.predict(point_coords=coordinates, point_labels=labels)
            np.testing.assert_array_equal(predicted, expected)
    box = torch.tensor([71, 91, 131, 151], dtype=dtype, **grad)
    mask = torch.from_numpy(low[:1]).to(dtype).requires_grad_(grad["requires_grad"])
    np.testing.assert_array_equal(
        predictor.predict(box=box, mask_input=mask)[0], predictor.predict(box=box.tolist())[0]
    )


def test_sam_batches_are_one_object_each() -> None:
    predictor = Predictor(FakeRuntime(reddish))
    predictor.set_image(image(A, B))
    points = [[[100.5, 120.5]], [[165.5, 120.5]]]
    masks, scores, low = predictor.predict(point_coords=points, point_labels=[[1], [1]])
    assert (masks.shape, scores.shape) == ((2, 3, HEIGHT, WIDTH), (2, 3))
    assert low.shape == (2, 3, 256, 256)
    for together, point in zip(masks, points, strict=True):
        np.testing.assert_array_equal(together, predictor.predict(point_coords=point)[0])
    boxes = np.array([[71, 91, 131, 151], [138, 93, 194, 149]])
    masks, _, _ = predictor.predict(box=boxes, multimask_output=False)
    assert masks.shape == (2, 1, HEIGHT, WIDTH)
    shares = boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    again, _, _ = predictor.predict(box=shares, multimask_output=False, normalize_coords=False)
    np.testing.assert_array_equal(masks, again)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "neither a point nor a box"),
        ({"point_coords": [[1, 2], [3, 4]], "point_labels": [1]}, "2 points with 1 label"),
        ({"point_coords": [[1, 2, 3]]}, r"array \(N, 2\)"),
        ({"point_coords": [1, 2, 3]}, r"array \(N, 2\)"),
        ({"point_coords": "here"}, r"array \(N, 2\)"),
        ({"point_coords": [[1, 2]], "point_labels": [-1]}, "label must be 1"),
        ({"point_coords": [[1, 2]], "point_labels": [0]}, "only negative points"),
        ({"point_coords": [[np.nan, 2]]}, "finite"),
        ({"point_coords": [[WIDTH, 2]]}, "outside the image"),
        ({"point_labels": [1]}, "0 points with 1 label: give one for each"),
        ({"box": [1, 2, 3]}, r"array \(4,\)"),
        ({"box": [[1, 2, 3, 4], [5, 6, 7, 8]], "point_coords": [[1, 2]]}, "not of 1 and 2"),
        ({"box": [[[1, 2, 3, 4]]]}, r"not of shape \(1, 1, 4\)"),
        ({"point_coords": [[[[1, 2]]]]}, r"not of shape \(1, 1, 1, 2\)"),
        ({"mask_input": [1.0, 2.0]}, r"mask_input must be an array \(S, S\)"),
        ({"mask_input": np.full((4, 4), np.nan)}, "finite"),
        ({"mask_input": np.full((4, 4), -9.0)}, "the mask is empty"),
        ({"box": [5, 5, 1, 9]}, "swapped"),
        ({"box": [5, 5, 5, 9]}, "no area"),
    ],
)
def test_sam_mistakes(arguments: dict[str, Any], says: str) -> None:
    predictor = Predictor(FakeRuntime(reddish))
    with pytest.raises(PromptError, match="set_image first"):
        predictor.predict(**arguments)
    predictor.set_image(image(A))
    with pytest.raises(PromptError, match=says):
        predictor.predict(**arguments)
    predictor.reset_image()
    with pytest.raises(PromptError, match="set_image first"):
        predictor.predict(box=[1, 2, 3, 4])


# --- odd images ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (70, 1), (2, 3)])
def test_tiny_images(height: int, width: int) -> None:
    pixels = image(np.ones((height, width), bool), height=height, width=width)
    predictor = Predictor(FakeRuntime(reddish))
    (clicked,) = predictor(pixels, points=[(0.5, 0.5)])
    (boxed,) = predictor(pixels, boxes=[(0, 0, width, height)])
    assert clicked.mask.shape == boxed.mask.shape == (height, width)
    assert clicked.mask[0, 0]
    assert boxed.mask.all()


def test_a_box_around_part_of_a_pixel() -> None:
    predictor = Predictor(FakeRuntime(flat(4)))
    tracemalloc.start()
    (segmentation,) = predictor(image(A), boxes=[(100.25, 120.25, 100.2501, 120.75)])
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert segmentation.mask.sum() == 1
    assert segmentation.mask[120, 100]


@pytest.mark.slow
def test_a_huge_image() -> None:
    height, width = 2400, 3200
    truth = disc(height, width, 2400, 1000, 600)
    (segmentation,) = Predictor(FakeRuntime(reddish))(
        image(truth, height=height, width=width), points=[(2400, 1000)]
    )
    assert masks.iou(segmentation.mask, truth) > 0.97


def test_many_prompts_do_not_pile_up_their_candidates() -> None:
    pixels = image(height=300, width=300)
    predictor = Predictor(FakeRuntime(flat(-3)))
    points = np.random.default_rng(0).uniform(0, 300, (40, 2))
    tracemalloc.start()
    segmentations = predictor(pixels, points=points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = sum(
        each.mask.nbytes + each.logits.nbytes for each in segmentations if each.logits is not None
    )
    assert peak < 1.5 * kept + 40e6


def test_any_image_will_do(tmp_path: Any) -> None:
    predictor = Predictor(FakeRuntime(reddish))
    Image.fromarray(image(A)).save(tmp_path / "photo.png")
    (path,) = predictor(tmp_path / "photo.png", points=[(100.5, 120.5)])
    (array,) = predictor(image(A), points=[(100.5, 120.5)])
    (pil,) = predictor(Image.fromarray(image(A)), points=[(100.5, 120.5)])
    np.testing.assert_array_equal(path.mask, array.mask)
    np.testing.assert_array_equal(pil.mask, array.mask)
    with pytest.raises(ImageError):
        predictor(tmp_path / "none.png", points=[(1, 1)])


def test_the_image_is_not_changed() -> None:
    pixels = two()
    Predictor(FakeRuntime(split_at_green))(pixels, prompts=[prompt(ON_A, OFF_B)])
    np.testing.assert_array_equal(pixels, two())


# --- weights that make no sense -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"scorers": {"click": fixed_scores(0.5, 0.5)}}, "compares 2 windows where there are"),
        ({"scorers": {"box": fixed_scores(0.5, 0.5)}}, "compares 2 windows where there are 1"),
        ({"scorers": {"click": {"features": []}}}, "scorer that cannot be used"),
        ({"scorers": [1]}, "metadata makes no sense: 'scorers' must be an object"),
        ({"geometry": "wide"}, "'geometry' must be an object"),
        ({"geometry": {"box_growth": "wide"}}, "'box_growth' must be a number"),
        ({"geometry": {"box_growth": 0.5}}, "at least as large as its box"),
        ({"geometry": {"box_growth": float("nan")}}, "at least as large as its box"),
        ({"geometry": {"click_halves": []}}, "must be a list of 1 to 64 numbers"),
        ({"geometry": {"click_halves": [0.1, -0.2]}}, "need sizes above 0"),
        ({"geometry": {"click_halves": [0.1, 5120]}}, "and 100 at most"),
        ({"geometry": {"click_halves": [0.1, 0.3, 0.2]}}, "must grow from one to the next"),
        ({"geometry": {"click_halves": [0.1, 0.1]}}, "must grow from one to the next"),
        ({"geometry": {"box_growth": 1e300}}, "100 times at most"),
        ({"geometry": {"click_halves": 5}}, "must be a list of 1 to 64 numbers"),
    ],
)
def test_facts_that_make_no_sense(facts: dict[str, Any], says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        Predictor(FakeRuntime(reddish, **facts))


def test_results_can_be_written_as_json() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (segmentation,) = Predictor(FakeRuntime(reddish))(image(A), points=[(100.5, 120.5)])
        json.dumps(segmentation.to_json(), allow_nan=False)
