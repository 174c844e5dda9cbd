"""Traits of drawn masks, causes of constructed mistakes, and shares that add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fakes import FakeRuntime, disc, reddish
from helpers.tiny import make_store, write_coco
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("torch", reason="evaluation needs torch")

from picosam2.data.coco import AnnotatedImage, read_coco
from picosam2.data.store import Store, StoreConfig, prepare
from picosam2.errors import StoreError
from picosam2.evaluation import analysis
from picosam2.evaluation.analysis import Case, analyse, rows
from picosam2.evaluation.boundary import closed, opened
from picosam2.evaluation.causes import CAUSES, TRAITS, cause_of, traits_of
from picosam2.evaluation.protocols import true_box
from picosam2.geometry import CROP_SIZE, box_window
from picosam2.predictor import Predictor

SIZE = 100


def rectangle(x0: int, y0: int, x1: int, y1: int, size: int = SIZE) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def traits(truth: np.ndarray) -> dict[str, float]:
    return traits_of(truth, box_window(true_box(truth)), CROP_SIZE)


def cause(truth: np.ndarray, mask: np.ndarray, *others: np.ndarray) -> str:
    return cause_of(truth, mask, others, box_window(true_box(truth)), CROP_SIZE)


# --- traits -------------------------------------------------------------------------------------


def test_a_plain_rectangle() -> None:
    assert traits(rectangle(10, 20, 70, 50)) == {
        "size": 30, "aspect": 2, "border": 0, "thin": 0, "holes": 0, "parts": 0, "fill": 1,
    }  # fmt: skip


@pytest.mark.parametrize("place", [(0, 5), (5, 0), (SIZE - 30, 5), (5, SIZE - 30)])
def test_the_images_border(place: tuple[int, int]) -> None:
    x, y = place
    assert traits(rectangle(x, y, x + 30, y + 30))["border"] == 1
    assert traits(rectangle(35, 35, 65, 65))["border"] == 0


def test_holes_are_shares_of_the_area() -> None:
    ring = rectangle(10, 10, 50, 50) & ~rectangle(20, 20, 30, 30)
    assert traits(ring)["holes"] == pytest.approx(100 / 1500)
    bay = ring & ~rectangle(20, 25, 60, 27)  # no longer closed
    assert traits(bay)["holes"] == 0
    at_border = rectangle(0, 10, 40, 50) & ~rectangle(0, 20, 10, 30)
    assert traits(at_border)["holes"] == 0


def test_parts_are_what_the_largest_is_not() -> None:
    two = rectangle(10, 10, 40, 40) | rectangle(60, 10, 70, 20)
    assert traits(two)["parts"] == pytest.approx(0.1)
    touching = rectangle(10, 10, 40, 40) | rectangle(40, 40, 50, 50)  # by a corner
    assert traits(touching)["parts"] == 0


def test_thin_is_thin_on_the_networks_grid() -> None:
    pole = rectangle(10, 10, 50, 50) | rectangle(29, 50, 31, 90)  # 2 of 40 pixels: 4 of the grid's
    assert traits(pole)["thin"] == pytest.approx(80 / 1680, abs=0.01)
    thick = rectangle(10, 10, 50, 50) | rectangle(26, 50, 34, 90)
    assert traits(thick)["thin"] == 0
    assert traits(disc(SIZE, SIZE, 50, 50, 35))["thin"] < 0.02
    assert traits(np.eye(1000, dtype=np.bool_))["thin"] == 1  # the grid shows nothing of it


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40))
def test_every_rectangle_has_its_sides(x: int, y: int, width: int, height: int) -> None:
    values = traits(rectangle(x, y, x + width, y + height))
    assert values["size"] == min(width, height)
    assert values["aspect"] == max(width, height) / min(width, height)
    assert values["fill"] == 1
    assert values["holes"] == values["parts"] == 0
    assert values["thin"] < 0.01  # enlarging rounds the corners
    assert values["border"] == (x == 0 or y == 0 or x + width == SIZE or y + height == SIZE)


@given(arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_any_mask_has_a_class_of_each_trait(mask: np.ndarray) -> None:
    mask[0, 0] = True
    values = traits(mask)
    for name, value in values.items():
        assert TRAITS[name].class_of(value) in TRAITS[name].classes
    assert all(0 <= values[name] <= 1 for name in ("thin", "parts", "fill"))
    assert values["holes"] >= 0


def test_bounds_begin_a_class() -> None:
    for trait in TRAITS.values():
        assert len(trait.classes) == len(trait.bounds) + 1
        for index, bound in enumerate(trait.bounds):
            assert trait.class_of(bound) == trait.classes[index + 1]
            assert trait.class_of(bound * (1 - 1e-6)) == trait.classes[index]


@given(arrays(np.bool_, (12, 15)), st.integers(0, 3))
def test_opening_and_closing(mask: np.ndarray, radius: int) -> None:
    small, large = opened(mask, radius), closed(mask, radius)
    assert (small <= mask).all()
    assert (mask <= large).all()
    np.testing.assert_array_equal(opened(small, radius), small)
    np.testing.assert_array_equal(closed(large, radius), large)
    side = 2 * radius + 1
    expected = np.zeros_like(mask)
    for y in range(12 - side + 1):
        for x in range(15 - side + 1):
            if mask[y : y + side, x : x + side].all():
                expected[y : y + side, x : x + side] = True
    np.testing.assert_array_equal(small, expected)


# --- causes -------------------------------------------------------------------------------------

SQUARE = rectangle(20, 20, 60, 60)
RING = SQUARE & ~rectangle(30, 30, 50, 50)
TWO = SQUARE | rectangle(70, 20, 95, 45)
FORK = rectangle(20, 60, 90, 90) | rectangle(35, 10, 37, 60) | rectangle(70, 10, 72, 60)
LETTER = rectangle(10, 10, 90, 90) & ~rectangle(48, 10, 51, 80)  # with a narrow gap from the top


@pytest.mark.parametrize(
    ("expected", "truth", "mask", "others"),
    [
        ("none", SQUARE, SQUARE, []),
        ("empty", SQUARE, SQUARE & False, []),
        ("neighbor", SQUARE, rectangle(60, 20, 90, 60), [rectangle(60, 20, 90, 60)]),
        ("neighbor", rectangle(20, 20, 60, 40), SQUARE, [SQUARE]),  # the whole, not the part
        ("neighbor", SQUARE, rectangle(20, 20, 75, 60), [rectangle(60, 0, 90, 90)]),
        # A pixel of the outline lies on the neighbor wherever one is beside it: no matter.
        ("too much", SQUARE, rectangle(20, 20, 61, 60), [rectangle(60, 0, 90, 90)]),
        ("too much", SQUARE, rectangle(20, 20, 75, 60), []),
        ("elsewhere", SQUARE, rectangle(50, 50, 90, 90), []),
        ("holes", RING, SQUARE, []),
        ("too much", RING, rectangle(20, 20, 98, 60), []),
        ("parts", TWO, SQUARE, []),
        ("thin", FORK, rectangle(20, 60, 90, 90), []),
        ("thin", LETTER, rectangle(10, 10, 90, 90), []),
        ("thin", np.eye(1000, dtype=np.bool_), rectangle(0, 0, 1000, 1000, 1000), []),
        ("tiny", rectangle(20, 20, 60, 35), rectangle(20, 20, 60, 45), []),
        ("too much", rectangle(20, 20, 60, 36), rectangle(20, 20, 60, 46), []),
        ("too little", SQUARE, rectangle(20, 20, 60, 40), []),
        ("mixed", SQUARE, rectangle(30, 20, 70, 60), []),
    ],
)
def test_causes(
    expected: str, truth: np.ndarray, mask: np.ndarray, others: list[np.ndarray]
) -> None:
    assert cause(truth, mask, *others) == expected


@given(arrays(np.bool_, (3, 20, 24)))
def test_any_mask_has_one_cause(drawn: np.ndarray) -> None:
    truth, mask, other = drawn
    truth[5, 5] = True
    seen = cause(truth, mask, other)
    assert seen in CAUSES
    assert (seen == "none") == np.array_equal(truth, mask)


# --- over many objects --------------------------------------------------------------------------


def case(iou: float, **more: Any) -> Case:
    return Case(
        **{
            "annotation": 1, "photo": 1, "file": "a.jpg", "source": "a", "iou": iou, "recall": 1,
            "precision": 1, "cause": "mixed", "traits": {}, **more,
        }
    )  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 0.99), st.sampled_from("abc")), min_size=1, max_size=30))
def test_shares_add_up(seen: list[tuple[float, str]]) -> None:
    cases = [case(iou) for iou, _ in seen]
    table = rows(cases, [name for _, name in seen], "abc")
    assert sum(row.n for row in table) == len(cases)
    assert sum(row.share for row in table) == pytest.approx(1)
    assert sum(row.loss for row in table) == pytest.approx(1)
    mean = sum(row.share * row.miou for row in table)
    assert mean == pytest.approx(np.mean([iou for iou, _ in seen]))


def test_where_nothing_is_lost() -> None:
    (row,) = rows([case(1.0), case(1.0)], ["a", "a"], ["a", "b"])
    assert (row.n, row.miou, row.share, row.loss) == (2, 1, 1, 0)


@pytest.fixture
def images(tmp_path: Path) -> tuple[AnnotatedImage, ...]:
    source = write_coco(tmp_path, 6)
    return read_coco(source.annotations, source.images).images


@pytest.mark.parametrize("protocol", ["box", "click"])
def test_every_object_is_looked_at(protocol: str, images: tuple[AnnotatedImage, ...]) -> None:
    result = analyse(Predictor(FakeRuntime(reddish)), images, protocol=protocol)
    measured = result.evaluation.measured
    assert [case.annotation for case in result.cases] == [case.annotation for case in measured]
    for case in result.cases:
        assert 0 <= case.iou <= min(case.recall, case.precision) <= 1
        assert list(case.traits) == list(TRAITS)
    for table in (*result.by_trait().values(), result.by_cause()):
        assert sum(row.n for row in table) == 6
        assert sum(row.loss for row in table) == pytest.approx(1)
    assert sum(result.lost().values()) == sum(case.iou < 0.5 for case in result.cases)


def test_tiles_are_of_the_worst(
    images: tuple[AnnotatedImage, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "WORST", 2)
    result = analyse(Predictor(FakeRuntime(reddish)), images)
    assert len(result.worst) == 2
    assert set(result.tiles) == {case.annotation for case in result.worst}
    assert max(case.iou for case in result.worst) <= sorted(case.iou for case in result.cases)[2]
    side = analysis.TILE
    assert all(tile.shape == (side, side, 3) for tile in result.tiles.values())


def test_a_part_of_the_images_is_of_all_sources(images: tuple[AnnotatedImage, ...]) -> None:
    assert analysis.spread_objects(images, None) == images
    assert analysis.spread_objects(images, 3) == (images[0], images[2], images[5])
    assert analysis.spread_objects(images, 1) == images[:1]


def test_what_a_store_keeps(tmp_path: Path) -> None:
    kept = make_store(tmp_path / "a").held_out()
    assert all(image.instances and image.path.is_file() for image in kept)
    config = StoreConfig(context=64, validation=0)
    prepare([write_coco(tmp_path, 2)], tmp_path / "none", config, workers=1)
    with pytest.raises(StoreError, match="keeps no images for validation"):
        Store(tmp_path / "none").held_out()
