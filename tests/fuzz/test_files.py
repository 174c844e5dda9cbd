"""Damaged prompt files and stores: one of our errors, or a result; never anything else.

The documented command runs these and those of test_inputs.py, 20,000 (tests/fuzz/README.md):

    pytest tests/fuzz -m slow

Without it a few hundred of the same inputs run with every suite. An input is a function of its
number, so that one that fails can be run alone: `PICOSAM2_FUZZ=1234 pytest tests/fuzz -m slow`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.mutate import mutate_bytes, mutate_json, mutate_text
from helpers.tiny import SMALL_STORE, make_store, write_coco

from picosam2.cli._native_stderr import native_stderr_bounded
from picosam2.data.coco import read_coco
from picosam2.data.store import Store, StoreConfig, prepare
from picosam2.errors import ConfigError, PicoSAM2Error
from picosam2.io.formats import EntryProblem
from picosam2.io.prompt_files import read_boxes, read_prompt_file
from picosam2.masks import rle_encode
from picosam2.tasks.bulk.coco import read_records

LONGEST_S = 5.0

MASK = np.zeros((60, 80), bool)
MASK[10:30, 20:50] = True

COCO: Any = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 60, "width": 80},
        {"id": 2, "file_name": "sub/b.jpg", "height": 60, "width": 80, "source": "x"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 600, "score": 0.5,
         "bbox": [20, 10, 30, 20], "segmentation": [[20, 10, 50, 10, 50, 30, 20, 30]]},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": rle_encode(MASK)},
        {"id": 3, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": None,
         "segmentation": {"size": [60, 80], "counts": [600, 60, 4140]}},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}  # fmt: skip
RESULTS: Any = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}] * 2
PROMPTS: Any = [
    {"image": "a.jpg", "points": [[3, 4], [5, 6, 0]], "class": "cat", "object": 7},
    {"image": "sub/b.png", "box": [1, 2, 3, 4]},
]
LABELME: Any = {
    "imageHeight": 60,
    "imageWidth": 80,
    "imagePath": "a.jpg",
    "shapes": [
        {"label": "cup", "shape_type": "rectangle", "points": [[1, 2], [9, 8]], "group_id": 1},
        {"label": "pen", "shape_type": "circle", "points": [[4, 4], [9, 9]], "group_id": 1},
        {"label": "mat", "points": [[4, 4], [9, 9], [30, 4]]},
        {"label": "dot", "shape_type": "point", "points": [[4, 4]]},
    ],
}
CSV = "image,object,class,x,y,label,x0,y0,x1,y1\na.jpg,7,cat,3,4,1,,,,\nb.png,,,,,,1,2,3,4\n"
YOLO = "2 .5 .5 .5 .5 .75\n0 0 0 1 0 1 1 .5 .5\n1 .1 .1 .2 .1 .2 .3 .9 7\n"


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def use(path: Path, form: Any = None) -> None:
    """Read a prompt file as a run does: all of its images, and every problem as a sentence."""
    file = read_prompt_file(path) if form == "prompts" else read_boxes(path, form)
    problems: list[EntryProblem] = list(file.problems)
    for name in file.images:
        try:
            result = file.read(name, 60, 80)
        except PicoSAM2Error:
            continue
        problems += result.problems
        for entry in result.entries:
            assert entry.category in file.categories
            entry.label.encode()
    file.match(["a.jpg", "sub/b.jpg", "c.png"])
    assert all(len(str(problem)) < 2000 for problem in problems)


def a_prompt_file(draw: random.Random, folder: Path) -> None:
    kind = draw.randrange(6)
    if kind == 0:
        use(write(folder / "p.json", mutate_json(PROMPTS, draw)), "prompts")
    elif kind == 1:
        use(write(folder / "p.csv", mutate_text(CSV, draw)), "prompts")
    elif kind == 2:
        use(write(folder / "c.json", mutate_json(draw.choice((COCO, RESULTS)), draw)), "coco")
    elif kind == 3:
        use(write(folder / "a.txt", mutate_text(YOLO, draw)), draw.choice(
            ("yolo", "yolo-boxes", "yolo-polygons")))  # fmt: skip
    elif kind == 4:
        use(write(folder / "a.json", mutate_json(LABELME, draw)), "labelme")
    else:
        document = draw.choice((COCO, LABELME, PROMPTS))
        data = mutate_bytes(json.dumps(document).encode(), draw)
        (folder / "x.json").write_bytes(data)
        use(folder / "x.json")


def an_annotation_file(draw: random.Random, folder: Path) -> None:
    (folder / "a.jpg").touch()
    path = write(folder / "c.json", mutate_json(COCO, draw))
    for image in read_coco(path, folder).images:
        for instance in image.instances:
            try:
                mask = instance.mask()
            except PicoSAM2Error:
                continue
            assert mask.shape == (image.height, image.width)


def a_record(draw: random.Random, folder: Path) -> None:
    """The file of a COCO run that is not whole yet."""
    mask = {"id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": rle_encode(MASK)}
    record = {"name": "a.jpg", "height": 6, "width": 8, "masks": [mask]}
    lines: list[Any] = [{"settings": {"a": 1}}, record]
    text = "".join(mutate_json(line, draw) + "\n" for line in lines)
    with suppress(ConfigError):
        read_records(write(folder / "masks.json.part", text))


INPUTS: dict[str, tuple[Callable[[random.Random, Path], None], int]] = {
    "prompt file": (a_prompt_file, 5_500),
    "annotation file": (an_annotation_file, 2_500),
    "record": (a_record, 1_000),
}


def check(number: int, make: Callable[[], None], *, decoding: bool = False) -> None:
    """Make an input and use it; `decoding` as commands do that decode images and run weights."""
    begin = time.monotonic()
    with stderr_past_python(native_stderr_bounded if decoding else nullcontext) as written:
        try:
            make()
        except PicoSAM2Error as error:
            text = str(error)
            assert len(text) < 2000, f"input {number}: a message of {len(text)} characters"
        except Exception as error:
            message = f"input {number}: {type(error).__name__}: {error}"
            raise AssertionError(message[:2000]) from error
    took = time.monotonic() - begin
    assert took < LONGEST_S, f"input {number} took {took:.1f} s"
    foreign = [line for line in written if not line.startswith("picosam2: ")]
    assert not foreign, f"input {number}: on stderr {foreign[0][:300]}"
    assert len(written) < 2, f"input {number}: {len(written)} lines on stderr"


@contextmanager
def stderr_past_python(
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[list[str]]:
    """The lines that are written to file descriptor 2 within the block, or to `sys.stderr`."""
    lines: list[str] = []
    real, before = os.dup(2), sys.stderr
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            with open(2, "w", encoding="utf-8", closefd=False) as own:
                sys.stderr = own
                with within():
                    yield lines
        finally:
            sys.stderr = before
            os.dup2(real, 2)
            os.close(real)
        file.seek(0)
        lines += file.read().decode("utf-8", "replace").splitlines()


def numbers(count: int) -> list[int]:
    only = os.environ.get("PICOSAM2_FUZZ")
    return [int(only)] if only else list(range(count))


def run(kind: str, folder: Path, count: int) -> None:
    make, _ = INPUTS[kind]
    for number in numbers(count):
        here = folder / "input"
        here.mkdir()
        check(number, partial(make, random.Random(f"{kind} {number}"), here))
        shutil.rmtree(here)


@pytest.mark.parametrize("stream", ["descriptor", "python"])
def test_what_an_input_writes_on_stderr_is_noticed(stream: str) -> None:
    def make() -> None:
        if stream == "python":
            print("foreign", file=sys.stderr)
        else:
            os.write(2, b"foreign\n")

    with pytest.raises(AssertionError, match="input 7: on stderr foreign"):
        check(7, make)


@pytest.mark.parametrize("kind", INPUTS)
def test_some_damaged_files(kind: str, tmp_path: Path) -> None:
    run(kind, tmp_path, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", INPUTS)
def test_many_damaged_files(kind: str, tmp_path: Path) -> None:
    run(kind, tmp_path, INPUTS[kind][1])


# --- stores -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = StoreConfig(context=32, validation=0.3, photos_per_shard=3, crops=request.param)
    return make_store(tmp_path_factory.mktemp("fuzz"), 6, config).path


def damage_store(store: Path, folder: Path, count: int) -> None:
    files = sorted(path for path in store.rglob("*") if path.is_file())
    for number in numbers(count):
        draw = random.Random(f"store {number}")
        path = draw.choice(files)
        kept = path.read_bytes()
        if path.suffix == ".json" and draw.random() < 0.7:
            path.write_text(mutate_json(json.loads(kept), draw))
        else:
            path.write_bytes(mutate_bytes(kept, draw))

        def use_store() -> None:
            opened = Store(store)
            opened.gather(np.arange(len(opened)))
            _ = opened.image_entries, opened.kinds
            for image in opened.held_out():
                assert image.instances

        changed = path.read_bytes() != kept
        check(number, use_store)
        try:
            Store(store, verify=True)
        except PicoSAM2Error:
            pass
        except Exception as error:
            raise AssertionError(f"input {number}: {error!r}") from error
        else:
            same = path.suffix == ".json" and path.name.startswith("shard-")
            assert not changed or same or path.name == "store.json", f"input {number}: unseen"
        path.write_bytes(kept)
    Store(store, verify=True)


def test_some_damaged_stores(store: Path, tmp_path: Path) -> None:
    damage_store(store, tmp_path, 60)


@pytest.mark.slow
def test_many_damaged_stores(store: Path, tmp_path: Path) -> None:
    damage_store(store, tmp_path, 500)


def test_preparing_over_a_damaged_manifest(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 3)
    prepare([source], tmp_path / "store", SMALL_STORE, workers=1)
    manifest = tmp_path / "store" / "store.json"
    kept = json.loads(manifest.read_text())
    for number in range(60):
        manifest.write_text(mutate_json(kept, random.Random(f"manifest {number}")))

        def again() -> None:
            prepare([source], tmp_path / "store", SMALL_STORE, workers=1)

        check(number, again)
