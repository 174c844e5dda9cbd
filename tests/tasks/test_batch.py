"""Batches of rows: the columns, what cannot be used, and real worker processes."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picosam2 import Point, Predictor, Prompt, sample
from picosam2.errors import ConfigError, WeightsError
from picosam2.io.sample_image import sample_bytes
from picosam2.masks import rle_decode
from picosam2.runtimes.weights import find_weights
from picosam2.tasks.batch import RESULTS, BatchSegmenter

CLICK, BOX = [353, 349], [310, 303, 396, 394]
WEIGHTS = "default-int8"


@pytest.fixture(scope="module")
def segmenter() -> BatchSegmenter:
    return BatchSegmenter(WEIGHTS)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(WEIGHTS, threads=1)


def row(answer: dict[str, list[Any]], number: int = 0) -> dict[str, Any]:
    return {name: answer[name][number] for name in answer}


def test_a_row_has_what_the_predictor_gives(
    segmenter: BatchSegmenter, predictor: Predictor
) -> None:
    prompt = {"points": [[*CLICK, 1], [200, 100, 0]], "box": BOX}
    answer = segmenter(
        {"image": [sample_bytes()], "boxes": [[BOX]], "points": [[CLICK]], "prompts": [[prompt]]}
    )
    assert list(answer) == list(RESULTS)
    got = row(answer)
    expected = predictor(
        sample(),
        prompts=[Prompt((Point(*CLICK), Point(200, 100, False)), BOX)],
        points=[CLICK],
        boxes=[BOX],
    )
    assert got["rle"] == [each.rle()["counts"] for each in expected]
    assert got["score"] == [each.score for each in expected]
    boxes = [each.box for each in expected]
    assert got["box"] == [[b.x0, b.y0, b.x1, b.y1] for b in boxes if b is not None]
    assert got["error"] is None
    mask = rle_decode({"size": got["size"], "counts": got["rle"][0]})
    np.testing.assert_array_equal(mask, expected[0].mask)


@pytest.mark.parametrize("form", ["bytes", "path", "text", "struct", "struct with a path"])
def test_forms_of_an_image(form: str, segmenter: BatchSegmenter, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(sample_bytes())
    cell = {
        "bytes": sample_bytes(),
        "path": path,
        "text": str(path),
        "struct": {"bytes": sample_bytes(), "path": None},
        "struct with a path": {"bytes": None, "path": str(path)},
    }[form]
    got = row(segmenter({"image": [cell], "points": [[CLICK]]}))
    assert got["error"] is None
    assert got["size"] == [480, 640]


@pytest.mark.parametrize(
    "cell",
    [
        [BOX],
        [tuple(BOX)],
        BOX,
        np.array([BOX], np.float32),
        np.array(BOX),
        np.array([np.array(BOX, np.float64)], dtype=object),
    ],
)
def test_forms_of_boxes(cell: Any, segmenter: BatchSegmenter) -> None:
    got = row(segmenter({"image": [sample_bytes()], "boxes": [cell]}))
    assert got["error"] is None
    assert len(got["rle"]) == 1


@pytest.mark.parametrize("cell", [None, [], np.zeros((0, 4)), float("nan")])
def test_a_row_without_prompts_has_no_masks_and_no_error(
    cell: Any, segmenter: BatchSegmenter
) -> None:
    got = row(segmenter({"image": [sample_bytes()], "boxes": [cell]}))
    assert got == {"size": [480, 640], "rle": [], "box": [], "score": [], "error": None}


def damaged() -> bytes:
    return sample_bytes()[:2000]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (None, "there is no image: the row's cell is empty"),
        (float("nan"), "the row's cell is empty"),
        ({"bytes": None, "path": None}, "the row's cell is empty"),
        (b"", "is empty"),
        (b"no image at all, but text", "not an image"),
        (damaged(), "damaged or cut off"),
        ("nowhere.jpg", "nowhere.jpg"),
        (7, "cannot be made from int"),
    ],
)
def test_a_bad_image_is_a_row_with_an_error(cell: Any, why: str, segmenter: BatchSegmenter) -> None:
    answer = segmenter({"image": [cell, sample_bytes()], "points": [[CLICK], [CLICK]]})
    bad, good = row(answer), row(answer, 1)
    assert why in bad.pop("error")
    assert set(bad.values()) == {None}
    assert good["error"] is None
    assert len(good["rle"]) == 1


def test_a_bad_prompt_leaves_its_place_empty(segmenter: BatchSegmenter) -> None:
    boxes = [BOX, [900, 900, 950, 950], [5, 5, 5, 9], BOX, "left"]
    got = row(segmenter({"image": [sample_bytes()], "boxes": [boxes]}))
    assert [each is None for each in got["rle"]] == [False, True, True, False, True]
    assert got["rle"][0] == got["rle"][3]
    assert [each is None for each in got["score"]] == [each is None for each in got["box"]]
    first, second, third = got["error"].split("; ")
    assert first.startswith("boxes 2: the box 900,900,950,950 lies outside the image")
    assert second.startswith("boxes 3: the box 5,5,5,9 has no area")
    assert third == "boxes 5: it is a list of numbers, not str"


@pytest.mark.parametrize(
    ("column", "cell", "why"),
    [
        ("boxes", "1,2,3,4", "the column 'boxes' holds lists, not str"),
        ("points", [[float("nan"), 1]], "points 1: a point's x must be a finite number"),
        ("points", [[1, 2, 0]], "points 1: a prompt has only negative points"),
        ("prompts", [{"point": [1, 2]}], "prompts 1: a prompt has no key 'point'"),
        ("prompts", [[1, 2]], "prompts 1: a prompt must be an object"),
    ],
)
def test_prompts_that_make_no_sense(
    column: str, cell: Any, why: str, segmenter: BatchSegmenter
) -> None:
    got = row(segmenter({"image": [sample_bytes()], column: [cell]}))
    assert why in got["error"]


def test_boxes_that_reach_past_the_image_are_cut_without_a_warning(
    segmenter: BatchSegmenter,
) -> None:
    got = row(segmenter({"image": [sample_bytes()], "boxes": [[[600, 400, 700, 500]]]}))
    assert got["error"] is None


def test_an_empty_batch(segmenter: BatchSegmenter) -> None:
    assert segmenter({"image": [], "boxes": []}) == {name: [] for name in RESULTS}


def test_kept_columns_come_first() -> None:
    keep = BatchSegmenter(WEIGHTS, keep=["key", "split"])
    batch = {"image": [b""], "key": ["a"], "boxes": [[BOX]], "split": [3]}
    answer = keep(batch)
    assert list(answer) == ["key", "split", *RESULTS]
    assert (answer["key"], answer["split"]) == (["a"], [3])
    assert BatchSegmenter(keep="key").keep == ("key",)


def test_columns_that_are_missing(segmenter: BatchSegmenter) -> None:
    with pytest.raises(ConfigError, match="no column 'image': there are 'photo', 'boxes'"):
        segmenter({"photo": [], "boxes": []})
    with pytest.raises(ConfigError, match="no column of prompts or points or boxes"):
        segmenter({"image": []})
    with pytest.raises(ConfigError, match="no column 'key'"):
        BatchSegmenter(keep=["key"])({"image": [], "boxes": []})
    with pytest.raises(ConfigError, match="a batch is columns by name"):
        segmenter([sample_bytes()])


def test_what_can_be_known_before_any_batch(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights named nothing"):
        BatchSegmenter("nothing")
    with pytest.raises(WeightsError, match="no weights at"):
        BatchSegmenter(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match="'error' is a column of the results"):
        BatchSegmenter(keep=["error"])


def test_nothing_is_opened_before_the_first_batch_nor_pickled_after_it() -> None:
    segmenter = BatchSegmenter(WEIGHTS)
    assert segmenter._predictor is None
    before = len(pickle.dumps(segmenter))
    segmenter({"image": [b""], "boxes": [[BOX]]})
    assert segmenter._predictor is not None
    assert len(pickle.dumps(segmenter)) == before < 1000
    assert pickle.loads(pickle.dumps(segmenter))._predictor is None


def test_a_path_of_weights_holds_in_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(find_weights(WEIGHTS), tmp_path / "mine.onnx")
    monkeypatch.chdir(tmp_path)
    segmenter = BatchSegmenter("mine.onnx")
    monkeypatch.chdir("/")
    assert row(segmenter({"image": [sample_bytes()], "points": [[CLICK]]}))["error"] is None


def images() -> list[bytes]:
    """Variants of the sample, as JPEG files."""
    made = []
    for number in range(6):
        stream = io.BytesIO()
        turned = Image.fromarray(sample()).rotate(90 * (number % 4), expand=True)
        turned.resize((400 + 40 * number, 300 + 30 * number)).save(stream, "JPEG")
        made.append(stream.getvalue())
    return made


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_worker_processes_give_the_masks_of_one(
    method: str, segmenter: BatchSegmenter, recwarn: pytest.WarningsRecorder
) -> None:
    batches = [
        {"image": [data, None], "boxes": [[[40, 40, 300, 260]]] * 2, "points": [[[200, 150]]] * 2}
        for data in images()
    ]
    expected = [segmenter(batch) for batch in batches]
    recwarn.clear()
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(segmenter, batches, timeout=120)) == expected


def test_pandas(segmenter: BatchSegmenter) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"image": [sample_bytes(), None], "boxes": [np.array([BOX]), [BOX]], "key": [7, 8]},
        index=[10, 20],
    )
    answer = BatchSegmenter(WEIGHTS, keep=["key"])(frame)
    plain = segmenter({"image": [sample_bytes(), None], "boxes": [[BOX], [BOX]]})
    assert list(answer.index) == [10, 20]
    assert list(answer["key"]) == [7, 8]
    assert {name: list(answer[name]) for name in RESULTS} == plain


def test_arrow_and_parquet(segmenter: BatchSegmenter, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    batch = {
        "image": [sample_bytes(), None, sample_bytes()],
        "boxes": [[BOX, None], [BOX], None],
        "prompts": [[{"points": [CLICK], "box": None}], [], None],
        "key": ["a", "b", "c"],
    }
    parquet.write_table(pyarrow.table(batch), tmp_path / "in.parquet")
    table = BatchSegmenter(WEIGHTS, keep=["key"])(parquet.read_table(tmp_path / "in.parquet"))
    parquet.write_table(table, tmp_path / "out.parquet")
    read = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    plain = segmenter({name: batch[name] for name in ("image", "boxes", "prompts")})
    assert read.pop("key") == ["a", "b", "c"]
    assert read == plain
    assert read["error"][0] == "boxes 2: it is a list of numbers, not NoneType"
