"""prompts: what is read, what is refused and in which words, and what happens at the border."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2.errors import PromptError, PromptWarning
from picosam2.prompts import Box, Point, Prompt, as_prompts, given_prompts

coordinates = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
points = st.builds(Point, coordinates, coordinates, st.booleans())
sizes = st.floats(0.01, 1e5)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), coordinates, coordinates, sizes, sizes
)
several = st.lists(points, max_size=3, unique_by=lambda p: (p.x // 1, p.y // 1)).map(tuple)
prompts = st.builds(Prompt, several, boxes)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("120,80", Point(120, 80)),
        (" 1.5 , 2 ", Point(1.5, 2)),
        ("3,4,1", Point(3, 4)),
        ("3,4,0", Point(3, 4, positive=False)),
        ("-3,4e1", Point(-3, 40)),
    ],
)
def test_a_point_is_parsed(text: str, point: Point) -> None:
    assert Point.parse(text) == point


@pytest.mark.parametrize(
    "text", ["", "1", "1,2,3,4", "a,b", "1;2", "1,2,", "1,2,2", "nan,1", "1,inf"]
)
def test_text_that_is_no_point(text: str) -> None:
    with pytest.raises(PromptError, match=r"X,Y|finite|label"):
        Point.parse(text)


def test_a_box_is_parsed() -> None:
    box = Box.parse("10, 20.5, 110, 60.5")
    assert box == Box(10, 20.5, 110, 60.5)
    assert (box.width, box.height, box.area) == (100, 40, 4000)
    assert box.center == Point(60, 40.5)
    assert box.as_xywh() == (10, 20.5, 100, 40)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1 2 3 4"])
def test_text_that_is_no_box(text: str) -> None:
    with pytest.raises(PromptError, match="X0,Y0,X1,Y1"):
        Box.parse(text)


def test_swapped_corners_are_put_right_in_the_message() -> None:
    for corners in [(200, 160, 40, 30), (40, 160, 200, 30), (200, 30, 40, 160)]:
        with pytest.raises(PromptError, match=r"swapped.*: 40,30,200,160$"):
            Box(*corners)


def test_a_box_without_area() -> None:
    with pytest.raises(PromptError, match="no area: move its left and right"):
        Box(5, 1, 5, 9)
    with pytest.raises(PromptError, match="no area: move its top and bottom"):
        Box(1, 5, 9, 5)


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), -float("inf"), "1", None, True, 10**400]
)
def test_coordinates_are_finite_numbers(bad: Any) -> None:
    for make in (lambda: Point(bad, 1), lambda: Point(1, bad), lambda: Box(0, 0, bad, 1)):
        with pytest.raises(PromptError, match="number"):
            make()


def test_numbers_become_plain_floats() -> None:
    point = Point(np.float32(1.5), np.int64(2), np.True_)
    assert [type(value) for value in dataclasses.astuple(point)] == [float, float, bool]
    assert type(Box(np.int32(1), 2, 3, np.float16(4)).y1) is float


def test_labels() -> None:
    assert Point(1, 2, 0).positive is False
    for bad in (2, -1, "1", None, 0.5):
        with pytest.raises(PromptError, match="label"):
            Point(1, 2, bad)  # type: ignore[arg-type]


def test_a_prompt_says_what_is_meant() -> None:
    with pytest.raises(PromptError, match="neither"):
        Prompt()
    with pytest.raises(PromptError, match="only negative"):
        Prompt(points=(Point(1, 2, positive=False),))
    assert Prompt(points=(Point(1, 2, positive=False),), box=Box(0, 0, 9, 9)).box is not None
    assert Prompt(points=[Point(1, 2)]).points == (Point(1, 2),)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="not a point"):
        Prompt(points=("here",))  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="not a box"):
        Prompt(box="here")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["float64", "float16", ">f4", ">i4", "uint8"])
def test_rows_of_numbers_are_points_and_boxes(kind: str) -> None:
    expected = Prompt(points=(Point(3, 4), Point(5, 6, False)), box=Box(1, 2, 30, 40))
    rows, box = np.array([[3, 4, 1], [5, 6, 0]], kind), np.array([1, 2, 30, 40], kind)
    assert Prompt(points=rows, box=box) == expected  # type: ignore[arg-type]
    assert Prompt(points=list(rows), box=list(box)) == expected  # type: ignore[arg-type]
    assert Prompt(points=[(3, 4), (5, 6, 0)], box=[1, 2, 30, 40]) == expected  # type: ignore[arg-type]
    assert as_prompts(boxes=[box]) == [Prompt(box=Box(1, 2, 30, 40))]


def test_tensors_of_any_kind_are_points_and_boxes() -> None:
    torch = pytest.importorskip("torch")
    for kind in (torch.bfloat16, torch.float32, torch.int64):
        row = torch.tensor([1, 2, 30, 40]).to(kind)
        if kind is not torch.int64:
            row.requires_grad_()
        expected = [Prompt(box=Box(1, 2, 30, 40))]
        assert as_prompts(boxes=row) == as_prompts(boxes=[row]) == expected
        assert as_prompts(boxes=row[None]) == as_prompts(boxes=[list(row)]) == expected
    soft = torch.full((4, 6), 0.25, dtype=torch.bfloat16, requires_grad=True)
    prompt = Prompt(points=[(1, 1)], mask=soft)  # type: ignore[arg-type]
    assert prompt.mask is not None
    assert prompt.mask.dtype == np.float32
    assert (prompt.mask == 0.25).all()


MASK = np.zeros((6, 8), bool)
MASK[2:4, 3:7] = True


@pytest.mark.parametrize("mask", [MASK, MASK * np.uint8(255), MASK.astype(int), MASK * 1.0])
def test_a_mask_is_a_prompt(mask: np.ndarray) -> None:
    mask = mask.copy()
    prompt = Prompt(mask=mask)
    assert prompt.mask is not None
    np.testing.assert_array_equal(prompt.mask, MASK)
    assert prompt.mask.dtype in (np.bool_, np.float32)
    assert prompt.has_mask
    mask[:] = 0  # the caller's own
    assert prompt.has_mask
    assert not prompt.mask.flags.writeable
    assert dataclasses.replace(prompt, points=(Point(1, 1),)).mask is not None
    assert prompt.clipped(6, 8) is prompt
    with pytest.raises(PromptError, match="the mask has 8 x 6 pixels and the image 6 x 8"):
        prompt.clipped(8, 6)


def test_prompts_with_masks_are_values_too() -> None:
    soft = np.where(MASK, 0.7, 0.2)
    first, same, other = Prompt(mask=MASK), Prompt(mask=MASK.copy()), Prompt(mask=~MASK)
    assert first == same
    assert hash(first) == hash(same)
    assert first != other
    assert first != Prompt(mask=MASK * 1.0)
    assert Prompt(mask=soft) == Prompt(mask=soft.astype(np.float32))
    assert Prompt(points=[(1, 1)], mask=MASK) != Prompt(points=[(1, 1)])  # type: ignore[arg-type]
    assert first != "mask"


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (~MASK & MASK, "the mask is empty"),
        (MASK * 0.5, "the mask is empty"),
        (np.full((3, 3), np.nan), "finite numbers, not NaN"),
        (np.full((3, 3), np.inf), "finite numbers"),
        (MASK * 8.0 - 4, "within 0..1, not -4 to 4"),
        (MASK[None], "not of shape"),
        (np.zeros((0, 4), bool), "not of shape"),
        (MASK.astype(complex), "of bool or of numbers"),
        ([["a", "b"]], "of bool or of numbers"),
        ([[1, 2], [3]], "must be an array"),
    ],
)
def test_masks_that_cannot_be_a_prompt(mask: Any, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        Prompt(mask=mask)


def test_an_empty_mask_is_no_prompt_but_may_stand_beside_one() -> None:
    empty = np.zeros((6, 8), bool)
    assert not Prompt(points=[(1, 1)], mask=empty).has_mask  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="the mask is empty: add a point on the object"):
        Prompt(points=[(1, 1, 0)], mask=empty)  # type: ignore[arg-type]
    assert Prompt(points=[(1, 1, 0)], mask=MASK).has_mask  # type: ignore[arg-type]


def test_a_pixel_is_on_the_object_or_off_it() -> None:
    with pytest.raises(PromptError, match=r"the pixel of the point 3\.9,4\.1 is clicked as on"):
        Prompt(points=[(3, 4, 1), (3.9, 4.1, 0)])  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="leave one of them out"):
        Prompt(points=[(3, 4, 0), (9, 9), (3, 4)], box=Box(0, 0, 9, 9))  # type: ignore[arg-type]
    assert len(Prompt(points=[(3, 4, 1), (4, 4, 0)]).points) == 2  # type: ignore[arg-type]


def test_prompts_are_values() -> None:
    assert len({Prompt(points=(Point(1, 2),)), Prompt(points=(Point(1.0, 2.0),))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(1, 2).x = 3  # type: ignore[misc]


@settings(max_examples=50)
@given(prompts)
def test_json_round_trip(prompt: Prompt) -> None:
    assert Prompt.from_json(json.loads(json.dumps(prompt.to_json(), allow_nan=False))) == prompt


@settings(max_examples=50)
@given(points, boxes)
def test_text_round_trip(point: Point, box: Box) -> None:
    assert Point.parse(str(point)) == point
    assert Box.parse(str(box)) == box


def test_json_form() -> None:
    prompt = Prompt(points=(Point(1, 2), Point(3, 4, positive=False)))
    assert prompt.to_json() == {"points": [[1.0, 2.0, 1], [3.0, 4.0, 0]]}
    assert Prompt(box=Box(1, 2, 3, 4)).to_json() == {"box": [1.0, 2.0, 3.0, 4.0]}
    assert Prompt.from_json({"points": [[1, 2]], "box": None}) == Prompt(points=(Point(1, 2),))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "object"),
        (None, "object"),
        ({}, "neither"),
        ({"point": [1, 2]}, "no key 'point'"),
        ({"points": 3}, "list"),
        ({"points": "1,2"}, "list"),
        ({"points": [1, 2]}, "not a point"),
        ({"points": [[1, 2, 3, 4]]}, "not 4: give"),
        ({"points": [["a", 2]]}, "number"),
        ({"points": [[1, None]]}, "number"),
        ({"box": [1, 2, 3]}, "not 3: give"),
        ({"box": {"x0": 1}}, "list"),
        ({"box": [3, 2, 1, 4]}, "swapped"),
    ],
)
def test_json_that_is_no_prompt(value: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompt.from_json(value)


def test_points_within_the_image() -> None:
    inside = Prompt(points=(Point(0, 0), Point(639.99, 479.5)))
    assert inside.within(480, 640) is inside
    for x, y in [(640, 1), (-0.1, 1), (1, 480), (1, -3)]:
        with pytest.raises(PromptError, match="outside the image: x must be from 0 to 639 and y"):
            Prompt(points=(Point(1, 1), Point(x, y, positive=False))).within(480, 640)


def test_boxes_within_the_image() -> None:
    inside = Prompt(box=Box(0, 0, 640, 480))
    assert inside.within(480, 640) is inside
    for corners in [(640, 0, 700, 9), (-9, 0, 0, 9), (0, 480, 9, 500), (0, -9, 9, 0)]:
        with pytest.raises(PromptError, match=r"box .* lies outside"):
            Prompt(box=Box(*corners)).within(480, 640)
    with pytest.warns(PromptWarning, match="cut to 0,10,640,480") as record:
        cut = Prompt(points=(Point(5, 11),), box=Box(-5, 10, 650, 500)).within(480, 640)
    assert record[0].filename == __file__
    assert cut == Prompt(points=(Point(5, 11),), box=Box(0, 10, 640, 480))


def test_clipping_says_nothing_and_checks_the_same() -> None:
    prompt = Prompt(points=(Point(5, 11),), box=Box(-5, 10, 650, 500))
    assert prompt.clipped(480, 640) == Prompt(prompt.points, Box(0, 10, 640, 480))
    inside = Prompt(box=Box(0, 0, 640, 480))
    assert inside.clipped(480, 640) is inside
    for outside in (Prompt((Point(640, 1),)), Prompt(box=Box(640, 0, 700, 9))):
        with pytest.raises(PromptError, match="outside the image"):
            outside.clipped(480, 640)


def test_clipping_in_threads_leaves_the_warning_filters_alone() -> None:
    interval, filters = sys.getswitchinterval(), list(warnings.filters)
    sys.setswitchinterval(1e-6)
    prompt = Prompt(box=Box(-5, 10, 650, 500))
    try:
        with ThreadPoolExecutor(8) as pool:
            cut = set(pool.map(lambda _: prompt.clipped(480, 640), range(2000)))
    finally:
        sys.setswitchinterval(interval)
    assert cut == {Prompt(box=Box(0, 10, 640, 480))}
    assert warnings.filters == filters


def test_rounding_past_the_image_is_cut_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Prompt(box=Box(-0.4, 0, 640.01, 9)).within(480, 640).box == Box(0, 0, 640, 9)


def test_arrays_make_one_prompt_a_row() -> None:
    expected = [Prompt(points=(Point(1, 2),)), Prompt(points=(Point(3, 4),))]
    rows = [[1, 2], [3, 4]]
    for value in (np.array(rows), np.array(rows, np.float32), rows, [(1, 2), np.array([3, 4])]):
        assert as_prompts(points=value) == expected
    assert as_prompts(points=np.array([[1, 2, 1], [3, 4, 1]])) == expected
    assert as_prompts(points=iter([Point(1, 2), Prompt(points=(Point(3, 4),))])) == expected
    corners = [[1, 2, 3, 4], [5, 6, 7, 8]]
    expected = [Prompt(box=Box(1, 2, 3, 4)), Prompt(box=Box(5, 6, 7, 8))]
    for value in (np.array(corners), corners, [Box(1, 2, 3, 4), (5, 6, 7, 8)]):
        assert as_prompts(boxes=value) == expected
    assert as_prompts([[1, 2]], corners) == [Prompt(points=(Point(1, 2),)), *expected]


def test_what_turns_into_an_array() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.array([[1.0, 2.0]])

    assert as_prompts(points=Tensor()) == [Prompt(points=(Point(1, 2),))]  # type: ignore[arg-type]


def test_a_single_one_needs_no_list() -> None:
    expected = [Prompt(points=(Point(1, 2),))]
    for value in ((1, 2), [1, 2], np.array([1, 2]), (1, 2, 1), Point(1, 2), expected[0]):
        assert as_prompts(points=value) == expected
    for value in ((1, 2, 3, 4), np.array([1.0, 2, 3, 4]), Box(1, 2, 3, 4)):
        assert as_prompts(boxes=value) == [Prompt(box=Box(1, 2, 3, 4))]


def test_nothing_to_do_and_nothing_given() -> None:
    assert as_prompts(points=[]) == []
    assert as_prompts(boxes=np.zeros((0, 4))) == []
    with pytest.raises(PromptError, match="no prompt"):
        as_prompts()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"points": "1,2"}, "Point.parse"),
        ({"points": 5}, "rows of numbers"),
        ({"points": np.array(5)}, "rows of numbers"),
        ({"points": ["1,2"]}, "not a point"),
        ({"points": [[1]]}, "not 1: give"),
        ({"points": [[[1, 2], [3, 4]]]}, "number"),
        ({"points": [[1, 2, 0]]}, "only negative"),
        ({"points": [[1, 2, 7]]}, "label"),
        ({"points": np.array([[1, np.nan]])}, "finite"),
        ({"points": np.zeros((2, 9))}, "not 9: give"),
        ({"points": [Box(1, 2, 3, 4)]}, "not a point"),
        ({"boxes": [[1, 2]]}, "not 2: give"),
        ({"boxes": [Point(1, 2)]}, "not a box"),
        ({"boxes": [[0, 0, 0, 4]]}, "no area"),
    ],
)
def test_rows_that_are_no_prompts(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        as_prompts(**keywords)
    assert "\n" not in str(caught.value)


def test_messages_stay_short() -> None:
    with pytest.raises(PromptError) as caught:
        as_prompts(points=["x" * 10_000])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "prompts", [[(1, 2)], (1, 2), np.ones((2, 2)), "1,2", {"points": [[1, 2]]}, 5, [None]]
)
def test_prompts_that_are_none(prompts):
    with pytest.raises(PromptError, match="prompts must be"):
        given_prompts(prompts)


def test_one_prompt_or_several_or_none():
    prompt = Prompt(((1, 2),))
    assert given_prompts(None) == given_prompts(()) == []
    assert given_prompts(prompt) == given_prompts(iter([prompt])) == [prompt]


@pytest.mark.parametrize("parse", [Point.parse, Box.parse])
def test_a_long_text_is_cut_in_the_message(parse):
    with pytest.raises(PromptError) as refusal:
        parse("9" * 5000 + ",x")
    assert len(str(refusal.value)) < 200
