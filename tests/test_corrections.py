"""Corrections and masks as prompts: every further click is one window of a guided network."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers.fakes import FakeRuntime, disc, fixed_scores, reddish

from picosam2 import geometry, guidance, masks
from picosam2.errors import PromptError
from picosam2.geometry import CLICK_HALVES, Window
from picosam2.guidance import DISK_RADIUS, MaskSoFar
from picosam2.masks import Region
from picosam2.predictor import MULTIMASKS, Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.refine import obeyed

HEIGHT, WIDTH = 240, 320
COUNT = len(CLICK_HALVES)
A = disc(HEIGHT, WIDTH, 100.5, 120.5, 30)
B = disc(HEIGHT, WIDTH, 165.5, 120.5, 28)
ON_A, ON_B, OFF = (100.5, 120.5, 1), (165.5, 120.5, 1), (110.5, 120.5, 0)


def pixels(*objects: np.ndarray) -> np.ndarray:
    """Red objects on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for mask in objects:
        image[mask, 0] = 255
    return image


def prompt(*points: tuple[float, float, int], box: Any = None, mask: Any = None) -> Prompt:
    return Prompt(points=points, box=box, mask=mask)  # type: ignore[arg-type]


def flat(value: float) -> Any:
    return lambda *_: np.full((1, 96, 96), value)


def follows(crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """The mask so far, with disks of positive clicks joined and of negative ones cut out."""
    logits = np.where(planes[0] > 0.5, 8.0, -8.0)
    logits[planes[1] > 0] = 8
    logits[planes[2] > 0] = -8
    return logits[None]


def guided(answer: Any = reddish, correct: Any = follows, **facts: Any) -> FakeRuntime:
    return FakeRuntime(answer, correct=correct, **facts)


def points_of(*points: tuple[float, float, int]) -> tuple[Point, ...]:
    return tuple(Point(x, y, bool(label)) for x, y, label in points)


def test_every_further_click_is_one_window_from_the_answer_before() -> None:
    runtime = guided()
    clicks = (ON_A, (200.5, 60.5, 1), (90.5, 120.5, 0))
    (segmentation,) = Predictor(runtime)(pixels(A), prompts=[prompt(*clicks)])
    first = Predictor(guided())(pixels(A), points=[ON_A[:2]])[0]
    assert [len(crops) for crops in runtime.calls] == [COUNT, 1, 1, 1]
    second_pass, first_planes, second_planes = runtime.planes
    assert second_pass[0].any()
    assert second_pass[1].any()  # the first click
    assert not second_pass[2].any()
    assert first_planes[0].any()
    assert not first_planes[2].any()
    disk = second_planes[2].sum()  # of the one negative click
    assert disk > 0
    for planes in (first_planes, second_planes):  # of two positive ones
        assert planes[1].sum() == pytest.approx(2 * disk, rel=0.3)
    assert segmentation.mask[60, 200]
    assert not segmentation.mask[120, 90]
    assert masks.iou(segmentation.mask, first.mask) > 0.85
    # The same by hand.
    predictor = Predictor(guided())
    points = points_of(*clicks)
    mask = np.where(first.logits > 0, 255, 0).astype(np.uint8)
    by_hand = predictor.correct(pixels(A), mask, points[:2])
    assert by_hand.window != segmentation.window
    assert masks.iou(by_hand.region.on_image(HEIGHT, WIDTH), first.mask) > 0.9


def test_the_first_positive_click_starts_and_earlier_negative_ones_correct() -> None:
    runtime = guided()
    (segmentation,) = Predictor(runtime)(pixels(A), prompts=[prompt(OFF, ON_A)])
    assert [len(crops) for crops in runtime.calls] == [COUNT, 1, 1]
    assert segmentation.mask[120, 100]
    assert not segmentation.mask[120, 110]
    assert segmentation.prompt.points == points_of(OFF, ON_A)


def test_a_box_is_answered_first_and_its_clicks_correct() -> None:
    runtime = guided()
    box = (71, 91, 131, 151)
    (segmentation,) = Predictor(runtime)(pixels(A), prompts=[prompt(OFF, box=box)])
    assert [len(crops) for crops in runtime.calls] == [1, 1]
    np.testing.assert_array_equal(
        runtime.calls[0][0], geometry.crop(pixels(A), geometry.box_window(Box(*box)))
    )
    assert not segmentation.mask[120, 110]
    assert masks.iou(segmentation.mask, A) > 0.9


def test_a_box_alone_is_what_it_is_without_guidance() -> None:
    plain, runtime = Predictor(FakeRuntime(reddish)), guided()
    request = prompt(box=(71, 91, 131, 151))
    (first,), (other,) = (p(pixels(A), prompts=[request]) for p in (plain, Predictor(runtime)))
    np.testing.assert_array_equal(first.logits, other.logits)
    assert first.score == other.score
    assert not runtime.planes


def test_a_correction_changes_what_is_far_from_its_click_only_where_the_network_is_sure() -> None:
    """The network gives up B, which is far from the click beside A."""

    def forgets(logit: float) -> Any:
        def answer(crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
            logits = follows(crop, planes)
            logits[0][:, 96 * 2 // 3 :] = -logit
            return logits

        return answer

    both = A | B
    click = (60.5, 120.5, 0)
    for logit, kept in ((2.0, True), (30.0, False)):
        predictor = Predictor(guided(correct=forgets(logit)))
        (answer,) = predictor(pixels(A, B), prompts=[prompt(click, mask=both)])
        assert answer.mask[120, 165] == kept
        assert answer.mask[120, 100]


def test_the_mask_of_a_click_alone_does_not_hold_its_first_correction_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[Point] = []
    settled = guidance.settled

    def spy(*args: Any) -> np.ndarray:
        held.append(args[-1])
        return settled(*args)

    monkeypatch.setattr(guidance, "settled", spy)
    second, third = (200.5, 60.5, 1), (90.5, 120.5, 0)
    box = (71, 91, 131, 151)
    for request, counts in (
        (prompt(ON_A), 0),
        (prompt(ON_A, second), 0),
        (prompt(ON_A, second, third), 1),
        (prompt(OFF, box=box), 1),
        (prompt(OFF, mask=A), 1),
    ):
        held.clear()
        Predictor(guided())(pixels(A), prompts=[request])
        assert len(held) == counts


def test_a_mask_that_clicks_have_emptied_does_not_hold_the_next_answer_back() -> None:
    predictor = Predictor(guided(correct=lambda *_: np.full((1, 96, 96), 2.0)))
    nothing = np.zeros((HEIGHT, WIDTH), np.uint8)
    answer = predictor.correct(pixels(A), nothing, points_of(ON_A))
    assert (answer.region.logits > 0).all()


def test_the_second_pass_of_a_click_knows_the_first_mask_and_the_click() -> None:
    scores = np.linspace(0.2, 0.7, COUNT)
    runtime = guided(scorers={"click": fixed_scores(*scores)})
    (segmentation,) = Predictor(runtime)(pixels(A), points=[ON_A[:2]])
    assert [len(crops) for crops in runtime.calls] == [COUNT, 1]
    (planes,) = runtime.planes
    first = Predictor(FakeRuntime(reddish, scorers={"click": fixed_scores(*scores)}))
    (candidates,) = first.clicks(pixels(A), points_of(ON_A), refine=0)
    window = geometry.box_window(candidates[0].box)
    assert segmentation.window == window
    seen = MaskSoFar.of_region(candidates[0].region, HEIGHT, WIDTH)
    np.testing.assert_array_equal(
        planes, guidance.planes(window, planes.shape[1], seen, points_of(ON_A))
    )
    assert segmentation.score == pytest.approx(0.7, abs=1e-3)  # of the first pass


def test_a_large_window_tells_the_second_pass_the_same_on_coarser_cells() -> None:
    height, width = 1500, 2700
    image = np.zeros((height, width, 3), np.uint8)
    image[disc(height, width, 1350.5, 750.5, 500), 0] = 255
    runtime = guided()
    (segmentation,) = Predictor(runtime)(image, points=[(1350.5, 750.5)])
    (planes,) = runtime.planes
    first = Predictor(FakeRuntime(reddish)).clicks(image, points_of((1350.5, 750.5, 1)), refine=0)
    fine = MaskSoFar.of_region(first[0][0].region, height, width)
    coarse = first[0][0].mask_so_far(height, width)
    assert (fine.step, coarse.step) == (1, 3)
    expected = guidance.planes(segmentation.window, 96, fine, points_of((1350.5, 750.5, 1)))
    assert np.abs(planes - expected).mean() < 0.005
    assert coarse.box is not None
    assert fine.box is not None
    for name in ("x0", "y0", "x1", "y1"):
        assert abs(getattr(coarse.box, name) - getattr(fine.box, name)) <= 3


def test_a_click_alone_is_obeyed() -> None:
    empty = guided(correct=flat(-8.0))
    (segmentation,) = Predictor(empty)(pixels(A), points=[ON_A[:2]])
    x, y, _ = ON_A
    assert segmentation.mask[int(y), int(x)]
    assert segmentation.score > 0


def test_corrected_prompts_among_others_are_what_they_are_alone() -> None:
    requests = [
        prompt(ON_B), prompt(ON_A, (200.5, 60.5, 1)), prompt(box=(71, 91, 131, 151)),
        prompt(OFF, box=(71, 91, 131, 151)), prompt((9, 9, 1), mask=A),
    ]  # fmt: skip
    predictor = Predictor(guided())
    together = predictor(pixels(A, B), prompts=requests)
    for item, each in zip(together, requests, strict=True):
        (alone,) = predictor(pixels(A, B), prompts=[each])
        np.testing.assert_array_equal(item.logits, alone.logits)
        assert item.prompt == each
        assert item.score == alone.score


def test_a_mask_is_corrected_by_the_clicks_that_it_contradicts() -> None:
    soft = np.where(A, 0.9, 0.1)
    for mask in (A, soft):
        runtime = guided()
        clicks = [ON_A, (10.5, 10.5, 0), ON_B, (100.5, 130.5, 1)]
        (segmentation,) = Predictor(runtime)(pixels(), prompts=[prompt(*clicks, mask=mask)])
        assert [len(crops) for crops in runtime.calls] == [1, 1]  # two are known already
        assert runtime.planes[0][0].max() == pytest.approx(float(mask.max()), abs=0.01)
        assert segmentation.mask[120, 165]
        assert masks.iou(segmentation.mask & A, A) > 0.9
    runtime = guided()
    Predictor(runtime)(pixels(), prompts=[prompt(ON_A, ON_A, mask=A)])
    assert len(runtime.calls) == 1  # the last click counts in any case


def test_a_mask_alone_is_its_box_and_so_is_any_mask_without_guidance() -> None:
    box = masks.bbox(A)
    for runtime in (guided(), FakeRuntime(reddish)):
        (result,) = Predictor(runtime)(pixels(A), prompts=[Prompt(mask=A)])
        (boxed,) = Predictor(runtime)(pixels(A), boxes=[box])
        np.testing.assert_array_equal(result.logits, boxed.logits)
        assert result.prompt == Prompt(mask=A)
    plain = Predictor(FakeRuntime(reddish))
    (result,) = plain(pixels(A | B), prompts=[prompt(ON_B, mask=A)])
    (boxed,) = plain(pixels(A | B), prompts=[prompt(ON_B, box=box)])
    np.testing.assert_array_equal(result.mask, boxed.mask)
    (replaced,) = plain(pixels(A | B), prompts=[prompt(box=(140, 90, 190, 150), mask=A)])
    (boxed,) = plain(pixels(A | B), boxes=[(140, 90, 190, 150)])
    np.testing.assert_array_equal(replaced.mask, boxed.mask)


def test_an_empty_mask_beside_a_click_is_no_mask() -> None:
    empty = np.zeros((HEIGHT, WIDTH), bool)
    for runtime in (guided(), FakeRuntime(reddish)):
        (segmentation,) = Predictor(runtime)(pixels(A), prompts=[prompt(ON_A, mask=empty)])
        (plain,) = Predictor(runtime)(pixels(A), points=[ON_A[:2]])
        np.testing.assert_array_equal(segmentation.logits, plain.logits)


def test_an_empty_mask_beside_several_clicks_is_no_mask() -> None:
    empty = np.zeros((HEIGHT, WIDTH), bool)
    clicks = [(100, 120, 1), (150, 150, 0), (90, 110, 1)]
    (segmentation,) = Predictor(guided())(pixels(A), prompts=[prompt(*clicks, mask=empty)])
    (plain,) = Predictor(guided())(pixels(A), prompts=[prompt(*clicks)])
    np.testing.assert_array_equal(segmentation.logits, plain.logits)


def test_a_mask_of_another_size_is_refused() -> None:
    for runtime in (guided(), FakeRuntime(reddish)):
        with pytest.raises(PromptError, match="the mask has 240 x 320 pixels and the image 320 x"):
            Predictor(runtime)(pixels(), prompts=[prompt(ON_A, mask=A.T)])


def test_a_hundred_clicks() -> None:
    rng = np.random.default_rng(0)
    places = rng.permutation(HEIGHT * WIDTH)[:100]
    clicks = [(p % WIDTH + 0.5, p // WIDTH + 0.5, int(i % 2 == 0)) for i, p in enumerate(places)]
    runtime = guided()
    (segmentation,) = Predictor(runtime)(pixels(A), prompts=[prompt(*clicks)])
    assert len(runtime.planes) == 100  # the second pass of the first click, and the others
    x, y, label = clicks[-1]
    assert segmentation.mask[int(y), int(x)] == bool(label)


def test_three_masks_are_each_corrected() -> None:
    scores = np.linspace(0.2, 0.7, COUNT)
    runtime = guided(scorers={"click": fixed_scores(*scores), "box": fixed_scores(0.4)})
    request = prompt(ON_A, OFF)
    segmentations = Predictor(runtime)(pixels(A), prompts=[request], multimask=True)
    assert len(segmentations) == MULTIMASKS
    assert len(runtime.planes) == 1 + MULTIMASKS  # the best one's second pass, and the corrections
    (single,) = Predictor(runtime)(pixels(A), prompts=[request])
    np.testing.assert_array_equal(segmentations[0].mask, single.mask)
    assert not any(each.mask[120, 110] for each in segmentations)


def test_the_score_is_that_of_the_corrected_mask() -> None:
    runtime = guided(scorers={"box": fixed_scores(0.37)})
    (segmentation,) = Predictor(runtime)(pixels(A), prompts=[prompt(ON_A, OFF)])
    assert segmentation.score == pytest.approx(0.37)
    runtime = guided(correct=flat(0.5))
    (unsure,) = Predictor(runtime)(pixels(A), prompts=[prompt(ON_A, OFF)])
    (sure,) = Predictor(guided())(pixels(A), prompts=[prompt(ON_A, OFF)])
    assert unsure.score == 0  # what `masks.stability` says of the answer
    assert sure.score == 1


def test_the_score_of_an_empty_mask_is_zero() -> None:
    scorers = {"click": fixed_scores(*[0.9] * COUNT), "box": fixed_scores(0.9)}
    box = (71, 91, 131, 151)
    runtimes = [
        guided(flat(-9), flat(-9), scorers=scorers),
        FakeRuntime(flat(-9), scorers=scorers),
    ]
    for runtime in runtimes:
        for request in (
            prompt(box=box), prompt(ON_A), prompt(ON_A, ON_B, OFF), prompt(OFF, box=box),
            Prompt(mask=A), prompt(box=box, mask=A),
        ):  # fmt: skip
            for actual in Predictor(runtime)(pixels(), prompts=[request], multimask=True):
                assert (actual.score == 0) == (actual.area == 0) == (actual.box is None)
        predictor = Predictor(runtime)
        predictor.set_image(pixels())
        for keywords in ({"box": box}, {"point_coords": [ON_A[:2]]}):
            actual, scores, _ = predictor.predict(**keywords)
            assert not actual.any()
            assert not scores.any()


def test_a_mask_that_a_click_empties_has_no_score_and_can_be_won_back() -> None:
    """The network says nothing but what a positive click says."""
    scorers = {"box": fixed_scores(0.9)}

    def positive(_crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
        return np.where(planes[1] > 0, 8.0, -8.0)[None]

    runtime = guided(correct=positive, scorers=scorers)
    for start in ({"mask": A}, {"box": (71, 91, 131, 151)}):
        (emptied,) = Predictor(runtime)(pixels(A), prompts=[prompt(OFF, **start)])
        assert not emptied.area
        assert emptied.score == 0
        (again,) = Predictor(runtime)(pixels(A), prompts=[prompt(OFF, (90.5, 120.5, 0), **start)])
        assert again.score == 0
        (back,) = Predictor(runtime)(pixels(A), prompts=[prompt(OFF, (90.5, 125.5, 1), **start)])
        assert back.mask[125, 90]
        assert back.score == pytest.approx(0.9)


def test_a_second_pass_that_finds_nothing_has_no_score() -> None:
    def once(crop: np.ndarray, number: int) -> np.ndarray:
        """Sees A but for the second pass of the smallest window."""
        blind = len(runtime.calls) == 2 and number == 0
        return np.full((1, 96, 96), -99.0) if blind else reddish(crop)

    runtime = FakeRuntime(once, scorers={"click": fixed_scores(*[0.9] * COUNT)})
    (candidates,) = Predictor(runtime).clicks(pixels(A), [Point(*ON_A[:2])], refine=-1)
    assert [c.score > 0 for c in candidates] == [True] * (COUNT - 1) + [False]
    assert [c.region.area > 0 for c in candidates] == [True] * (COUNT - 1) + [False]


def test_low_resolution_logits_are_fed_back_as_users_of_sam_2_write_it() -> None:
    """The mask of a first call comes back through `mask_input`, with all clicks so far."""
    predictor = Predictor(guided())
    predictor.set_image(pixels(A))
    _, scores, low = predictor.predict(point_coords=[ON_A[:2]], point_labels=[1])
    best = int(scores.argmax())
    masks, _, again = predictor.predict(
        point_coords=[ON_A[:2], OFF[:2]],
        point_labels=[1, 0],
        mask_input=low[best][None],
        multimask_output=False,
    )
    assert masks.shape == (1, HEIGHT, WIDTH)
    assert again.shape == (1, 256, 256)
    assert masks[0, 120, 90]
    assert not masks[0, 120, 110]
    assert (masks[0] & A).sum() > 0.8 * A.sum()


def test_a_correction_on_a_large_image_takes_no_plane_of_its_size() -> None:
    """A small object of an image of 12 megapixels: only its surroundings are drawn and pasted."""
    small = pixels(A)
    image = np.zeros((3000, 4000, 3), np.uint8)
    image[1000 : 1000 + small.shape[0], 2000 : 2000 + small.shape[1]] = small
    predictor = Predictor(guided())
    pyramid = geometry.Pyramid(image)
    mask = MaskSoFar.of_region(Region(2040, 1080, np.full((70, 90), 3, np.float32)), 3000, 4000)
    point = Point(ON_A[0] + 2000, ON_A[1] + 1000)
    predictor.correct(pyramid, mask, [point])
    tracemalloc.start()
    corrected = predictor.correct(pyramid, mask, [point])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert corrected.region.area
    assert peak < 4_000_000


def test_a_click_is_obeyed_by_a_disk_of_its_own() -> None:
    """The same as on the whole grid, also where the disk leaves the region."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (60, 80)).astype(np.float32)
    region = Region(10, 20, logits)
    window = Window(-300, 0, 700, 500)
    points = [Point(11, 21), Point(89.5, 79.5, False), Point(40.25, 50.75), Point(45, 52, False)]
    got = obeyed(region, window, points)
    expected = logits.copy()
    rows, columns = np.mgrid[20:80, 10:90] + 0.5
    radius_x, radius_y = DISK_RADIUS * window.width, DISK_RADIUS * window.height
    for p in points:
        if (expected[int(p.y) - 20, int(p.x) - 10] > 0) == p.positive:
            continue
        disk = ((columns - p.x) / radius_x) ** 2 + ((rows - p.y) / radius_y) ** 2 <= 1
        change = np.maximum if p.positive else np.minimum
        expected[disk] = change(expected[disk], 1 if p.positive else -1)
    assert not np.array_equal(expected, logits)
    np.testing.assert_array_equal(got.logits, expected)
    np.testing.assert_array_equal(region.logits, logits)
