"""The CVAT function, called as nuclio calls it, with the requests that CVAT sends."""

from __future__ import annotations

import base64
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.scripts import load_script

from picosam2 import Box, Point, Predictor, Prompt
from picosam2.io.sample_image import sample_bytes

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "cvat"
CLICK = [353.0, 349.0]
BOX = [[310.0, 303.0], [396.0, 394.0]]


@pytest.fixture(scope="module")
def function() -> Any:
    return load_script(FOLDER / "main.py")


@pytest.fixture(scope="module")
def context(function: Any) -> Any:
    context = types.SimpleNamespace(
        user_data=types.SimpleNamespace(),
        Response=lambda **values: types.SimpleNamespace(**values),
    )
    function.init_context(context)
    return context


def call(function: Any, context: Any, **body: Any) -> tuple[int, Any]:
    body = {"image": base64.b64encode(sample_bytes()).decode(), **body}
    answer = function.handler(context, types.SimpleNamespace(body=body))
    assert answer.content_type == "application/json"
    return answer.status_code, json.loads(answer.body)


def mask_of(points: list[int], height: int, width: int) -> np.ndarray:
    """CVAT's reading of a mask: run lengths of 0 and 1 in turn, row by row, in a box."""
    *runs, left, top, right, bottom = points
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    mask = np.zeros((height, width), bool)
    mask[top : bottom + 1, left : right + 1] = values.reshape(bottom - top + 1, right - left + 1)
    return mask


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"pos_points": [CLICK], "neg_points": [], "obj_bbox": None}, Prompt((Point(*CLICK),))),
        ({"pos_points": [], "neg_points": [], "obj_bbox": BOX}, Prompt(box=Box(*BOX[0], *BOX[1]))),
        (
            {"pos_points": [CLICK], "neg_points": [[5, 5]], "obj_bbox": BOX[::-1]},
            Prompt((Point(*CLICK), Point(5, 5, False)), box=Box(*BOX[0], *BOX[1])),
        ),
    ],
)
def test_prompts_become_a_mask(function: Any, context: Any, body: Any, prompt: Prompt) -> None:
    status, answer = call(function, context, **body)
    assert status == 200
    (shape,) = answer["shapes"]
    (expected,) = Predictor(threads=1)(sample_bytes(), prompts=[prompt])
    assert expected.area > 0
    np.testing.assert_array_equal(mask_of(shape["points"], *expected.mask.shape), expected.mask)


def test_base64_in_lines_and_as_a_data_url(function: Any, context: Any) -> None:
    plain = base64.b64encode(sample_bytes()).decode()
    lines = base64.encodebytes(sample_bytes()).decode()
    assert "\n" in lines.strip()
    answers = [
        call(function, context, image=text, pos_points=[CLICK])
        for text in (plain, lines, f"data:image/jpeg;base64,{plain}")
    ]
    assert answers[0][0] == 200
    assert answers == [answers[0]] * 3


@pytest.mark.parametrize("seed", range(3))
def test_any_mask_is_written_exactly(function: Any, seed: int) -> None:
    mask = np.random.default_rng(seed).random((20, 30)) < (0.5, 0.01, 1)[seed]
    np.testing.assert_array_equal(mask_of(function.mask_points(mask), 20, 30), mask)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"pos_points": []}, "neither a point nor a box"),
        ({"pos_points": [[1]]}, "list of x, y"),
        ({"pos_points": 7}, "list of x, y"),
        ({"neg_points": {"x": 1}}, "list of x, y"),
        ({"pos_points": [[10**400, 1]]}, "list of x, y"),
        ({"pos_points": [[float("nan"), 1]]}, "finite number"),
        ({"pos_points": [[900, 900]]}, "outside the image"),
        ({"obj_bbox": [[1, 2]]}, "two corners"),
        ({"image": None}, "no image"),
        ({"image": "?", "pos_points": [CLICK]}, "not base64"),
        ({"image": "data:image/png,x", "pos_points": [CLICK]}, "not base64"),
        ({"image": "aGFsbG8=", "pos_points": [CLICK]}, "not an image"),
    ],
)
def test_mistakes_are_sentences(function: Any, context: Any, body: Any, sentence: str) -> None:
    status, answer = call(function, context, **body)
    assert status == 400
    assert sentence in answer["error"]


@pytest.mark.parametrize("body", [b"{", "[" * 100_000, b"\xff", "7", None, [], b""])
def test_bodies_that_are_no_request(function: Any, context: Any, body: Any) -> None:
    answer = function.handler(context, types.SimpleNamespace(body=body))
    assert answer.status_code == 400
    assert json.loads(answer.body)["error"] in (
        "the body is not JSON",
        "there is no image: send base64 in 'image'",
    )


def test_the_function_file_names_the_handler() -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load((FOLDER / "function.yaml").read_text())
    assert document["metadata"]["annotations"]["type"] == "interactor"
    assert document["spec"]["handler"] == "main:handler"
