"""Simulated users: windows and planes of prediction, clicks at errors, and repeatable draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.tiny import write_coco

from picosam2.data.augment import NO_AUGMENT
from picosam2.data.image_store import ImageStore, ImageStoreConfig, prepare_images
from picosam2.data.store import BOX, CLICK
from picosam2.errors import ConfigError
from picosam2.training.sessions import GuidedBatch, GuidedConfig, Sessions

SIZE, OUTPUT, BATCH = 64, 32, 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder = tmp_path_factory.mktemp("images")
    config = ImageStoreConfig(validation=0.2)
    prepare_images([write_coco(folder, 12)], folder / "store", config, workers=1)
    return ImageStore(folder / "store")


def sessions(store: ImageStore, config: GuidedConfig | None = None, seed: int = 0) -> Sessions:
    return Sessions(
        store, config or GuidedConfig(), NO_AUGMENT, size=SIZE, output=OUTPUT, batch=BATCH,
        seed=seed,
    )  # fmt: skip


def run(made: Sessions, steps: int, answer: float = 1.0) -> list[GuidedBatch]:
    """Batches of a network that answers everywhere with one logit."""
    batches = []
    for step in range(steps):
        batches.append(made.batch(step))
        made.answer(step, np.full((BATCH, OUTPUT, OUTPUT), answer, np.float32))
    return batches


def test_batches_repeat_with_the_seed_and_the_answers(store: ImageStore) -> None:
    first, again = (run(sessions(store), 6) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        for name in GuidedBatch.__dataclass_fields__:
            assert torch.equal(getattr(a, name), getattr(b, name)), name
    other = run(sessions(store, seed=1), 6)
    assert not torch.equal(first[0].image_B3SS, other[0].image_B3SS)


def test_unguided_passes_have_zero_guidance_and_guided_ones_some(store: ImageStore) -> None:
    kinds = set()
    for batch in run(sessions(store), 12):
        assert batch.image_B3SS.shape == batch.guidance_B3SS.shape == (BATCH, 3, SIZE, SIZE)
        assert 0 <= batch.guidance_B3SS.min() <= batch.guidance_B3SS.max() <= 1
        some = batch.guidance_B3SS.flatten(1).any(1)
        assert torch.equal(some, batch.guided_B)
        assert (batch.kind_B[batch.guided_B] == BOX).all()
        assert not (batch.taught_B & batch.guided_B).any()
        assert (batch.weight_BLL >= 1).all()
        kinds |= set(batch.kind_B[~batch.guided_B].tolist())
    assert kinds == {BOX, CLICK}


@pytest.mark.parametrize(("answer", "plane"), [(-4.0, 1), (4.0, 2)])
def test_clicks_correct_the_answer(store: ImageStore, answer: float, plane: int) -> None:
    """A network that misses everything gets positive clicks on the object, one that takes
    everything negative ones off it."""
    config = GuidedConfig(
        box=1.0, click=0.0, box_passes=(0.0, 0.0, 1.0), exact=1.0, jitter=0.0, forget=0.0
    )
    batches = run(sessions(store, config), 4, answer)
    for first, second in zip(batches[:2], batches[2:], strict=True):
        assert not first.guided_B.any()
        assert second.guided_B.all()
        clicks = second.guidance_B3SS[:, 1:]
        assert clicks[:, plane - 1].flatten(1).any(1).all()
        assert not clicks[:, 2 - plane].any()
        # The mask so far is what was answered, inside of the window that was answered in.
        assert (second.guidance_B3SS[:, 0].flatten(1).mean(1) > 0.5).all() == (answer > 0)
        covered = torch.nn.functional.interpolate(second.target_BLL[:, None], SIZE)[:, 0]
        share = (covered * clicks[:, plane - 1]).sum((1, 2)) / clicks[:, plane - 1].sum((1, 2))
        assert ((share > 0.5) == (plane == 1)).all()
        # The loss looks at the click.
        heavy = second.weight_BLL.flatten(1).argmax(1)
        disks = torch.nn.functional.adaptive_max_pool2d(clicks[:, plane - 1], OUTPUT).flatten(1)
        assert disks[torch.arange(BATCH), heavy].all()


def test_an_answer_becomes_what_prediction_makes_of_it(store: ImageStore) -> None:
    """Far from the click the mask before counts as much as the answer, and clicks are obeyed."""
    config = GuidedConfig(
        box=1.0, click=0.0, box_passes=(0.0, 0.0, 1.0), exact=1.0, jitter=0.0, forget=0.0
    )
    made = sessions(store, config)
    for step, answer in ((0, 4.0), (2, -1.0)):
        made.batch(step)
        made.answer(step, np.full((BATCH, OUTPUT, OUTPUT), answer, np.float32))
    mask, _, negative = made.batch(4).guidance_B3SS.unbind(1)
    assert (mask > 0.5).flatten(1).any(1).all()
    assert ((mask < 0.5) & (negative > 0)).flatten(1).any(1).all()

    sure = sessions(store, config)
    sure.batch(0)
    sure.answer(0, np.full((BATCH, OUTPUT, OUTPUT), 4.0, np.float32))
    sure.batch(2)
    sure.answer(2, np.full((BATCH, OUTPUT, OUTPUT), 4.0, np.float32))
    mask, _, negative = sure.batch(4).guidance_B3SS.unbind(1)
    assert ((mask < 0.5) & (negative > 0)).flatten(1).any(1).all(), "a click is not obeyed"


def test_exact_boxes_are_the_middle_of_their_windows(store: ImageStore) -> None:
    config = GuidedConfig(box=1.0, click=0.0, box_passes=(1.0,), exact=1.0)
    batch = sessions(store, config).batch(0)
    for target in batch.target_BLL.numpy() > 0.5:
        rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
        for places in (rows, columns):
            span = (places[0] + places[-1] + 1) / 2, places[-1] + 1 - places[0]
            assert span == pytest.approx((OUTPUT / 2, OUTPUT / NO_AUGMENT.box_growth), abs=1.2)


def test_clicks_are_in_the_middle_of_one_of_the_windows_of_prediction(store: ImageStore) -> None:
    config = GuidedConfig(box=0.0, click=1.0, click_passes=(1.0,))
    made = sessions(store, config)
    sizes = set()
    for batch in run(made, 6):
        middle = batch.target_BLL[:, OUTPUT // 2 - 1 : OUTPUT // 2 + 1, OUTPUT // 2 - 1 :][:, :, :2]
        assert (middle.amax((1, 2)) > 0).all()
        assert (batch.kind_B == CLICK).all()
        sizes |= {round(float(target.mean()), 3) for target in batch.target_BLL}
    assert len(sizes) > 6


def test_a_pass_without_a_new_click_may_see_more_around_the_mask(store: ImageStore) -> None:
    def covered(wider: float) -> list[float]:
        """The share of the window that the mask so far fills, in passes after a first click."""
        config = GuidedConfig(
            box=0.0, click=1.0, click_passes=(0.0, 1.0), again=1.0, forget=0.0, wider=wider
        )
        shares: list[float] = []
        for batch in run(sessions(store, config), 8)[2::4]:
            assert batch.guided_B.all()
            assert batch.guidance_B3SS[:, 1].any()
            assert not batch.guidance_B3SS[:, 2].any()
            shares += batch.guidance_B3SS[:, 0].flatten(1).mean(1).tolist()
        return shares

    usual, wide = covered(1.0), covered(2.0)
    assert min(usual) > 0.4
    assert 0.08 < min(wide) < 0.35
    assert max(wide) < max(usual) + 0.05


@pytest.mark.parametrize("again", [0.0, 1.0])
def test_sessions_astray_start_at_another_scale_and_learn_from_corrections_alone(
    store: ImageStore, again: float
) -> None:
    config = GuidedConfig(
        box=0.0, click=1.0, click_passes=(1.0,), again=again, astray=1.0, centre=1.0
    )
    before = 2 if again else 1  # passes before the first correction
    batches = run(sessions(store, config), 2 * (before + 1))
    for batch in batches[: 2 * before]:
        assert not batch.value_B.any()
        assert not batch.taught_B.any()
    for batch in batches[2 * before :]:
        assert (batch.value_B == 1).all()
        assert batch.guidance_B3SS[:, 2].any()  # the answer covers all that the window sees


def test_a_session_astray_starts_in_a_window_too_large_or_too_small(store: ImageStore) -> None:
    config = GuidedConfig(box=0.0, click=1.0, click_passes=(1.0,), astray=1.0, centre=1.0)
    made = sessions(store, config)
    for step in (0, 1):
        made.batch(step)
    for session in [session for half in made._halves for session in half if session]:
        rows, columns = np.nonzero(session.truth)
        side = max(np.ptp(rows), np.ptp(columns)) + 1  # the click is in the middle of it
        assert abs(np.log2(session.window.width / (1.5 * side))) > 0.7


def test_only_training_images_are_drawn(store: ImageStore) -> None:
    validation = [store.image(int(i)).tobytes() for i in np.flatnonzero(store.images["validation"])]
    made = sessions(store)
    seen = set()
    for step in range(20):
        made.batch(step)
        seen |= {session.image.tobytes() for session in made._halves[step % 2] if session}
        made.answer(step, np.full((BATCH, OUTPUT, OUTPUT), -4, np.float32))
    assert len(seen) == 12 - len(validation)
    assert not seen & set(validation)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"box": 0.7, "click": 0.4}, "together at most 1"),
        ({"box_passes": (0.5, 0.4)}, "must add up to 1"),
        ({"exact": 1.5}, "`exact`"),
        ({"astray": -0.1}, "`astray`"),
        ({"wider": 0.9}, "`wider` from 1 to 4"),
        ({"obey": -1.0}, "must not be negative"),
    ],
)
def test_impossible_settings(settings: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        GuidedConfig(**settings)


def test_unknown_sources(store: ImageStore) -> None:
    with pytest.raises(ConfigError, match="no source 'cats'"):
        Sessions(
            store, GuidedConfig(), NO_AUGMENT, size=SIZE, output=OUTPUT, batch=2, seed=0,
            sources={"cats": 2.0},
        )  # fmt: skip
    with pytest.raises(ConfigError, match="nothing in the store"):
        Sessions(
            store, GuidedConfig(), replace(NO_AUGMENT), size=SIZE, output=OUTPUT, batch=2, seed=0,
            sources={"shapes": 0.0},
        )  # fmt: skip
