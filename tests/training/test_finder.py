"""The finder's training: views and their targets, the loss, and a run from store to weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import write_coco
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="trains with torch")

from picosam2 import geometry, masks  # noqa: E402
from picosam2.data.augment import AugmentConfig  # noqa: E402
from picosam2.data.image_store import (  # noqa: E402
    ImageStore,
    ImageStoreConfig,
    prepare_images,
)
from picosam2.errors import CheckpointError, ConfigError, WeightsError  # noqa: E402
from picosam2.geometry import Window  # noqa: E402
from picosam2.models.checkpoint import load_finder, load_weights  # noqa: E402
from picosam2.models.finder import Finder, FinderConfig  # noqa: E402
from picosam2.models.views import OUTPUTS, REACH, cell_centers, cell_count  # noqa: E402
from picosam2.runtimes.weights import find_weights  # noqa: E402
from picosam2.training.config import (  # noqa: E402
    FinderRecipe,
    TrainConfig,
    load_finder_recipe,
    load_recipe,
    recipes,
    trains_finder,
)
from picosam2.training.finder import finder_losses, overlaps, train_finder  # noqa: E402
from picosam2.training.finder_views import (  # noqa: E402
    FinderBatch,
    FinderTraining,
    FinderViews,
    targets,
    view_boxes,
)

SIZE = 64
BOXES = st.lists(
    st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(5, 60)] * 2).map(
        lambda b: (b[0], b[1], min(b[0] + b[2], SIZE), min(b[1] + b[3], SIZE))
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder = tmp_path_factory.mktemp("finder")
    sources = [write_coco(folder, 8), write_coco(folder, 4, start=20, name="others")]
    prepare_images(sources, folder / "store", ImageStoreConfig(validation=0.3), workers=1)
    return ImageStore(folder / "store")


@pytest.fixture(scope="module")
def recipe() -> FinderRecipe:
    return FinderRecipe(
        model=FinderConfig(width=8, input_size=SIZE),
        train=TrainConfig(
            samples=8, batch=2, warmup=1, log_every=1, save_every=2, validate_every=0,
            precision="fp32",
        ),
    )  # fmt: skip


@given(BOXES)
@settings(max_examples=80, deadline=None)
def test_cells_answer_for_objects_that_they_lie_in(
    rows: list[tuple[float, float, float, float]],
) -> None:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    chosen, positive, weight = targets(boxes, np.zeros((0, 4), np.float32), SIZE, 0.25)
    centers, strides = cell_centers(SIZE)
    assert len(chosen) == len(positive) == len(weight) == cell_count(SIZE)
    for place in np.flatnonzero(positive):
        assert any(np.array_equal(chosen[place], box) for box in boxes)
        x0, y0, x1, y1 = chosen[place]
        x, y = centers[place]
        assert x0 < x < x1
        assert y0 < y < y1
        assert abs(x - (x0 + x1) / 2) < 1.5 * strides[place]
    assert set(weight[positive].tolist()) <= {1.0}
    assert set(weight[~positive].tolist()) <= {np.float32(0.25).item()}


def test_every_ordinary_object_has_a_cell() -> None:
    none = np.zeros((0, 4), np.float32)
    for side in (16, 20, 33, 64, 100, 200, 319):
        box = np.array([[0, 0, side, side]], np.float32)
        assert targets(box, none, 320, 1.0)[1].any(), side


def test_of_nested_objects_both_have_cells() -> None:
    boxes = np.array([[40, 40, 280, 280], [150, 150, 180, 180]], np.float32)
    chosen, positive, _ = targets(boxes, np.zeros((0, 4), np.float32), 320, 1.0)
    answered = {tuple(box.tolist()) for box in chosen[positive]}
    assert answered == {tuple(box.tolist()) for box in boxes}


def test_ignored_objects_are_neither_object_nor_background() -> None:
    ignored = np.array([[0, 0, 32, 32]], np.float32)
    _, positive, weight = targets(np.zeros((0, 4), np.float32), ignored, SIZE, 1.0)
    centers, _ = cell_centers(SIZE)
    assert not positive.any()
    assert np.array_equal(weight == 0, (centers < 32).all(1))


def test_objects_at_the_edge_of_a_view_are_cut_or_ignored() -> None:
    boxes = np.array(
        [
            [10, 10, 50, 50],
            [80, 20, 110, 60],
            [95, 0, 195, 40],
            [200, 0, 250, 50],
            [60, 60, 63, 63],
        ],
        np.float32,
    )
    learned, ignored = view_boxes(boxes, Window(0, 0, 100, 100), 300, 300, 64)
    scale = 64 / 100
    assert learned == pytest.approx(np.array([[10, 10, 50, 50], [80, 20, 100, 60]]) * scale)
    assert ignored == pytest.approx(np.array([[95, 0, 100, 40], [60, 60, 63, 63]]) * scale)


def test_views_are_a_function_of_seed_and_step(store: ImageStore) -> None:
    def views(seed: int) -> FinderViews:
        return FinderViews(
            store, FinderTraining(background={"shapes": 1.0}), AugmentConfig(), size=SIZE, batch=4,
            seed=seed,
        )  # fmt: skip

    first, again, other = views(0).batch(3), views(0).batch(3), views(1).batch(3)
    assert torch.equal(first.image_B3SS, again.image_B3SS)
    assert torch.equal(first.boxes_BN4, again.boxes_BN4)
    assert not torch.equal(first.image_B3SS, other.image_B3SS)
    assert first.image_B3SS.shape == (4, 3, SIZE, SIZE)
    assert set(torch.unique(first.weight_BN).tolist()) <= {0.0, np.float32(0.1).item(), 1.0}


def test_views_of_unknown_sources(store: ImageStore) -> None:
    for changes in ({"sources": {"nobody": 1.0}}, {"config": FinderTraining(background={"x": 1})}):
        keywords = {"config": FinderTraining(), "sources": None} | changes
        with pytest.raises(ConfigError, match="has no source"):
            FinderViews(
                store, keywords["config"], AugmentConfig(), size=SIZE, batch=1, seed=0,
                sources=keywords["sources"],
            )  # fmt: skip
    with pytest.raises(ConfigError, match="nothing in the store"):
        FinderViews(store, FinderTraining(), AugmentConfig(), size=SIZE, batch=1, seed=0,
                    sources={"shapes": 0, "others": 0})  # fmt: skip


@given(
    st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(1, 50)] * 2),
    st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(1, 50)] * 2),
)
@settings(max_examples=60, deadline=None)
def test_overlaps_agree_with_the_project_s_iou(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    first, other = (np.array([x, y, x + w, y + h]) for x, y, w, h in (a, b))
    iou, giou = overlaps(torch.tensor(first)[None], torch.tensor(other)[None])
    assert float(iou[0]) == pytest.approx(masks.box_iou(first, other[None])[0], abs=1e-6)
    assert -1 <= float(giou[0]) <= float(iou[0]) + 1e-9


def test_a_right_answer_has_the_smallest_loss() -> None:
    box = np.array([[8, 8, 40, 36]], np.float32)
    chosen, positive, weight = targets(box, np.zeros((0, 4), np.float32), SIZE, 1.0)
    batch = FinderBatch(
        image_B3SS=torch.zeros(1, 3, SIZE, SIZE), boxes_BN4=torch.from_numpy(chosen)[None],
        positive_BN=torch.from_numpy(positive)[None], weight_BN=torch.from_numpy(weight)[None],
    )  # fmt: skip
    centers, strides = map(torch.from_numpy, cell_centers(SIZE))
    cells = torch.full((1, OUTPUTS, cell_count(SIZE)), -12.0)
    place = torch.from_numpy(positive)
    reach = torch.cat([centers - batch.boxes_BN4[0, :, :2], batch.boxes_BN4[0, :, 2:] - centers], 1)
    cells[0, 0, place] = 12.0
    cells[0, 1:, place] = (reach[place] / (REACH * strides[place, None])).log().T
    parts = finder_losses(cells, batch, centers, strides)
    assert float(parts["giou"]) == pytest.approx(0, abs=1e-4)
    assert float(parts["objectness"]) < 1e-3
    assert float(parts["iou"]) == pytest.approx(1, abs=1e-4)
    for change in (-3.0, 3.0):
        worse = cells.clone()
        worse[0, 2] += change
        assert float(finder_losses(worse, batch, centers, strides)["giou"]) > 0.2
    alarm = cells.clone()
    alarm[0, 0] = 5.0  # an object everywhere
    assert float(finder_losses(alarm, batch, centers, strides)["objectness"]) > 1


def test_the_network_is_small_and_says_what_it_gives() -> None:
    model = Finder(FinderConfig()).eval()
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 320, 320))
    assert list(outputs) == model.output_names
    assert outputs["cells"].shape == (1, OUTPUTS, cell_count(320))
    for bad in ({"width": 0}, {"input_size": 100}, {"input_size": 0}):
        with pytest.raises(ConfigError):
            FinderConfig(**bad)


def test_a_run_leaves_weights_and_goes_on(
    store: ImageStore, recipe: FinderRecipe, tmp_path: Path
) -> None:
    weights = train_finder(recipe, store, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert all(0 <= value <= 1 for value in lines[-1]["validation"].values())
    model = load_finder(weights)
    assert model.config == recipe.model
    with pytest.raises(CheckpointError, match="add --resume"):
        train_finder(recipe, store, tmp_path / "run")
    longer = replace(recipe, train=replace(recipe.train, samples=12))
    train_finder(longer, store, tmp_path / "run", resume=True, validate=False)
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
    with pytest.raises(WeightsError):
        load_weights(weights)


@pytest.mark.parametrize("left", ["none", "half"])
def test_weights_that_a_kill_left_behind_are_made_from_the_checkpoint(
    left: str, store: ImageStore, recipe: FinderRecipe, tmp_path: Path
) -> None:
    weights = train_finder(recipe, store, tmp_path / "run", validate=False)
    whole = weights.read_bytes()
    if left == "half":
        weights.write_bytes(whole[: len(whole) // 2])
    else:
        weights.unlink()
    assert train_finder(recipe, store, tmp_path / "run", resume=True, validate=False) == weights
    assert weights.read_bytes() == whole


def test_a_run_starts_from_another_one(
    store: ImageStore, recipe: FinderRecipe, tmp_path: Path
) -> None:
    first = train_finder(recipe, store, tmp_path / "first", validate=False)
    still = replace(recipe, train=replace(recipe.train, lr=1e-12, final_lr=0.0, seed=5))
    again = train_finder(still, store, tmp_path / "again", init=first, validate=False)
    kept, learned = load_finder(again).state_dict(), load_finder(first).state_dict()
    fixed = [name for name in kept if "running" not in name and "num_batches" not in name]
    assert fixed
    assert all(torch.allclose(kept[name], learned[name], atol=1e-5) for name in fixed)

    wider = replace(recipe, model=replace(recipe.model, width=recipe.model.width + 8))
    with pytest.raises(ConfigError, match="another network"):
        train_finder(wider, store, tmp_path / "wider", init=first, validate=False)
    with pytest.raises(WeightsError):
        train_finder(recipe, store, tmp_path / "none", init=find_weights("paper", "torch"))


def test_the_packaged_recipe() -> None:
    assert recipes(FinderRecipe) == ["finder"]
    assert "finder" not in recipes()
    assert trains_finder("finder")
    assert load_finder_recipe("finder").train.imagenet
    with pytest.raises(ConfigError, match="trains a finder, and a segmenter is needed"):
        load_recipe("finder")
    with pytest.raises(ConfigError, match="trains a segmenter, and a finder is needed"):
        load_finder_recipe("default")


@pytest.mark.parametrize(
    "changes",
    [{"whole": 2}, {"smallest": 0}, {"background": {"a": -1}}, {"rate": -1}, {"elsewhere": 1.5}],
)
def test_impossible_settings(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        FinderTraining(**changes)


def test_the_crop_of_a_view_shows_its_boxes_where_they_are_said_to_be(store: ImageStore) -> None:
    image = store.image(0)
    height, width = image.shape[:2]
    window = Window(0, 0, max(height, width), max(height, width))
    box = store.objects["box"][store.objects["image"] == 0].astype(np.float32)
    (placed, *_), _ = view_boxes(box, window, height, width, SIZE)
    mask = store.mask(int(np.flatnonzero(store.objects["image"] == 0)[0]))
    seen = geometry.crop_mask(mask, window, SIZE) > 0.5
    assert masks.bbox(seen) == pytest.approx(placed, abs=1.01)
