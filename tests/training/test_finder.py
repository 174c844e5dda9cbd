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
from picosam2.data.detections import Detections, read_detections  # noqa: E402
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
    boxes_by_image,
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


NONE = np.zeros((0, 4), np.float32)


def sure(boxes: np.ndarray) -> np.ndarray:
    """The certainty of annotated objects."""
    return np.ones(len(boxes), np.float32)


@given(BOXES)
@settings(max_examples=80, deadline=None)
def test_cells_answer_for_objects_that_they_lie_in(
    rows: list[tuple[float, float, float, float]],
) -> None:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    chosen, positive, certainty, weight = targets(boxes, sure(boxes), NONE, SIZE, 0.25)
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
    assert np.array_equal(certainty, positive)
    assert set(weight[~positive].tolist()) <= {np.float32(0.25).item()}


def test_every_ordinary_object_has_a_cell() -> None:
    for side in (16, 20, 33, 64, 100, 200, 319):
        box = np.array([[0, 0, side, side]], np.float32)
        assert targets(box, sure(box), NONE, 320, 1.0)[1].any(), side


def test_of_nested_objects_both_have_cells() -> None:
    boxes = np.array([[40, 40, 280, 280], [150, 150, 180, 180]], np.float32)
    chosen, positive, *_ = targets(boxes, sure(boxes), NONE, 320, 1.0)
    answered = {tuple(box.tolist()) for box in chosen[positive]}
    assert answered == {tuple(box.tolist()) for box in boxes}


def test_what_may_be_an_object_yields_to_what_is_one() -> None:
    boxes = np.array([[40, 40, 280, 280], [120, 120, 200, 200]], np.float32)
    alone, *_ = targets(boxes, np.array([1, 0.5], np.float32), NONE, 320, 1.0)
    sides = (alone[:, 2] - alone[:, 0]).tolist()
    assert 80 in sides  # a ninth of the area: worth a cell although it may be none
    near = np.array([[40, 40, 280, 280], [50, 50, 270, 270]], np.float32)
    chosen, positive, certainty, _ = targets(near, np.array([1, 0.5], np.float32), NONE, 320, 1.0)
    assert positive.any()
    assert all(np.array_equal(box, near[0]) for box in chosen[positive])
    assert set(certainty[positive].tolist()) == {1.0}


def test_a_less_certain_object_has_a_lower_objectness_to_learn() -> None:
    box = np.array([[8, 8, 40, 36]], np.float32)
    centers, strides = map(torch.from_numpy, cell_centers(SIZE))
    cells = torch.zeros(1, OUTPUTS, cell_count(SIZE), requires_grad=True)
    steps = []
    for certainty in (1.0, 0.1):
        chosen, positive, share, weight = targets(
            box, np.array([certainty], np.float32), NONE, SIZE, 1.0
        )
        batch = FinderBatch(
            image_B3SS=torch.zeros(1, 3, SIZE, SIZE), boxes_BN4=torch.from_numpy(chosen)[None],
            positive_BN=torch.from_numpy(positive)[None],
            certainty_BN=torch.from_numpy(share)[None], weight_BN=torch.from_numpy(weight)[None],
        )  # fmt: skip
        loss = finder_losses(cells, batch, centers, strides)["objectness"]
        (gradient,) = torch.autograd.grad(loss, cells)
        steps.append(gradient[0, 0, torch.from_numpy(positive)])
    # Half is what the cells say now. Where the object is there for sure they are to say more,
    # as much as their boxes overlap it, and else less.
    assert float(steps[1].min()) > float(steps[0].max())
    assert float(steps[1].min()) > 0


def detections(path: Path, rows: list[dict[str, object]]) -> Detections:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_detections(path)


def test_a_detectors_boxes_are_learned_beside_the_annotated_ones(
    store: ImageStore, recipe: FinderRecipe, tmp_path: Path
) -> None:
    names = store.source_names
    rows = np.flatnonzero(~store.images["validation"])
    annotated = boxes_by_image(store)[rows[0]][0].tolist()
    lines = [
        {
            "source": names[store.images[row]["source"]],
            "image_id": int(store.images[row]["id"]),
            "boxes": [[1, 1, 30, 30, 0.3], [*annotated, 0.9], [2, 2, 20, 20, 0.05]],
        }
        for row in rows
    ]
    taught = detections(tmp_path / "boxes.jsonl", lines)
    keywords = {"size": SIZE, "batch": 8, "seed": 0}
    config = FinderTraining(whole=1.0)
    plain = FinderViews(store, config, AugmentConfig(), **keywords).batch(0)
    more = FinderViews(store, config, AugmentConfig(), detections=taught, **keywords).batch(0)
    assert torch.equal(plain.image_B3SS, more.image_B3SS)
    assert set(torch.unique(plain.certainty_BN).tolist()) <= {0.0, 1.0}
    # The score 0.3 is half of what counts as sure; one of 0.05 is left out, and so is a box of what
    # is annotated.
    assert set(torch.unique(more.certainty_BN).tolist()) == {0.0, 0.5, 1.0}

    train_finder(recipe, store, tmp_path / "run", detections=taught, validate=False)
    with pytest.raises(CheckpointError, match="another teacher's"):
        train_finder(recipe, store, tmp_path / "run", resume=True, validate=False)
    lines[0]["image_id"] = 10**6
    with pytest.raises(ConfigError, match=r"has no image 1000000 of the source"):
        FinderViews(
            store, config, AugmentConfig(), detections=detections(tmp_path / "x", lines),
            **keywords,
        )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[]",
        '{"source": "a", "image_id": "x", "boxes": []}',
        '{"source": "a", "image_id": 1, "boxes": [[0, 0, 1, 1]]}',
        '{"source": "a", "image_id": 1, "boxes": [[0, 0, 0, 1, 0.5]]}',
        '{"source": "a", "image_id": 1, "boxes": [[0, 0, 1, NaN, 0.5]]}',
        '{"source": "a", "image_id": 1, "boxes": [[0, 0, 1, 1, 1.5]]}',
        '{"source": "a", "image_id": 1, "boxes": [[0, 0, 1, 1, -0.1]]}',
        '{"source": "a", "image_id": 1, "boxes": [["a", 0, 1, 1, 0.5]]}',
        '{"source": "a", "image_id": 1e999, "boxes": []}',
        "[" * 100_000,
    ],
)
def test_a_file_that_holds_no_boxes(line: str, tmp_path: Path) -> None:
    file = tmp_path / "boxes.jsonl"
    file.write_text('{"source": "a", "image_id": 0, "boxes": []}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"line 2 of .*boxes.jsonl does not hold an image's"):
        read_detections(file)


def test_files_of_boxes_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_detections(tmp_path / "none.jsonl")
    file = tmp_path / "boxes.jsonl"
    file.write_text(
        '{"source": "a", "image_id": 3, "boxes": [[0, 1, 2, 3, 0.1], [0, 1, 2, 3, 1]]}\n'
    )
    boxes = read_detections(file).of_image(("a", 3))
    assert boxes[:, 4].tolist() == [1.0, np.float32(0.1)]
    assert read_detections(file).of_image(("a", 4)).shape == (0, 5)
    file.write_text(file.read_text() * 2)
    with pytest.raises(ConfigError, match="image 3 of 'a' again"):
        read_detections(file)


def test_ignored_objects_are_neither_object_nor_background() -> None:
    ignored = np.array([[0, 0, 32, 32]], np.float32)
    _, positive, _, weight = targets(NONE, sure(NONE), ignored, SIZE, 1.0)
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
    placed, learned, ignored = view_boxes(boxes, Window(0, 0, 100, 100), 300, 300, 64)
    scale = 64 / 100
    cut = np.array([[10, 10, 50, 50], [80, 20, 100, 60], [95, 0, 100, 40], [60, 60, 63, 63]])
    assert placed[learned] == pytest.approx(cut[:2] * scale)
    assert placed[ignored] == pytest.approx(cut[2:] * scale)


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
    chosen, positive, certainty, weight = targets(box, sure(box), NONE, SIZE, 1.0)
    batch = FinderBatch(
        image_B3SS=torch.zeros(1, 3, SIZE, SIZE), boxes_BN4=torch.from_numpy(chosen)[None],
        positive_BN=torch.from_numpy(positive)[None],
        certainty_BN=torch.from_numpy(certainty)[None], weight_BN=torch.from_numpy(weight)[None],
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
        outputs = model(torch.zeros(1, 3, 384, 384))
    assert list(outputs) == model.output_names
    assert outputs["cells"].shape == (1, OUTPUTS, cell_count(384))
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

    larger = replace(still, model=replace(recipe.model, input_size=2 * SIZE))
    seen = train_finder(larger, store, tmp_path / "larger", init=first, validate=False)
    assert load_finder(seen).config.input_size == 2 * SIZE

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
    (placed, *_), *_ = view_boxes(box, window, height, width, SIZE)
    mask = store.mask(int(np.flatnonzero(store.objects["image"] == 0)[0]))
    seen = geometry.crop_mask(mask, window, SIZE) > 0.5
    assert masks.bbox(seen) == pytest.approx(placed, abs=1.01)
