"""Rehearsal: drawn images, a loss of changed answers, and less forgetting for it."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from helpers.tiny import guided_config

pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("cv2", reason="the extra `train` is not installed")

import torch

from picosam2.data.store import BOX, CLICK
from picosam2.models.network import PicoSAM2
from picosam2.training.rehearsal import Rehearsal, dead_leaves


@pytest.fixture
def model() -> PicoSAM2:
    torch.manual_seed(0)
    return guided_config().build().eval()


def changed(model: PicoSAM2, by: float) -> PicoSAM2:
    """The model with every weight moved."""
    other = deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return other


def test_drawn_images_are_of_many_shapes_and_all_different() -> None:
    images = [dead_leaves(np.random.default_rng(seed)) for seed in range(3)]
    for image in images:
        assert image.shape == (480, 640, 3)
        assert image.dtype == np.uint8
        assert image.std() > 10
        edges = np.abs(np.diff(image.astype(int), axis=1)).max(2) > 20
        assert 0.002 < edges.mean() < 0.6
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images[2], dead_leaves(np.random.default_rng(2)))


def test_answers_as_before_cost_nothing_and_others_do(model: PicoSAM2) -> None:
    rehearsal = Rehearsal(model, batch=6, seed=0)
    assert rehearsal(model, 0).item() == pytest.approx(0, abs=1e-4)
    little, much = (rehearsal(changed(model, by), 0).item() for by in (0.01, 0.1))
    assert 0 < little < much


def test_what_it_asks_for_does_not_follow_the_training(model: PicoSAM2) -> None:
    rehearsal = Rehearsal(model, batch=4, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    assert rehearsal(model, 0).item() > 1e-3


def test_windows_are_a_function_of_seed_and_step(model: PicoSAM2) -> None:
    first, second = (Rehearsal(model, batch=5, seed=4) for _ in range(2))
    for step in (0, 7):
        (image, kind), (same, same_kind) = first._windows(step), second._windows(step)
        assert image.shape == (5, 3, model.config.input_size, model.config.input_size)
        assert torch.equal(image, same)
        assert torch.equal(kind, same_kind)
    assert not torch.equal(first._windows(0)[0], first._windows(1)[0])
    assert set(first._windows(0)[1].tolist()) == {BOX, CLICK}


def test_a_rehearsed_training_forgets_less(model: PicoSAM2) -> None:
    """Everything is to become the object; the answers on other windows stay nearer to before."""
    lost = {}
    image = torch.randn(4, 3, *2 * (model.config.input_size,))
    for weight in (0.0, 5.0):
        learning = deepcopy(model)
        rehearsal = Rehearsal(learning, batch=6, seed=0)
        optimizer = torch.optim.SGD(learning.parameters(), 0.02)
        for step in range(12):
            loss = -learning(image)["logits"].mean()
            loss = loss + weight * rehearsal(learning, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            lost[weight] = np.mean([rehearsal(learning, step).item() for step in range(50, 54)])
    assert lost[5.0] < 0.7 * lost[0.0]
