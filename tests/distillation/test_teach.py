"""distill.teach and cache: what is kept of a teacher, resuming, and what must be refused."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.teach_tiny import STRENGTH, TruthTeacher
from helpers.tiny import HEIGHT, SMALL_STORE, WIDTH, annotation, make_store, scene, write_coco
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from picosam2 import geometry
from picosam2._files import write_json
from picosam2.data.store import SourceFiles, Store, prepare
from picosam2.distillation.cache import LIMIT, STEP, UNSEEN, TeacherCache, quantize
from picosam2.distillation.protocol import Target, TeacherAnswer
from picosam2.distillation.report import describe, summarize, write_report
from picosam2.distillation.teach import teach
from picosam2.errors import ConfigError, DataError, StoreError
from picosam2.geometry import Window

SCRIPT = Path(__file__).parents[1] / "helpers" / "teach_tiny.py"
COUNT = 8  # images of one object each; three images a shard


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with annotations, images and their store. Not to be changed."""
    folder = tmp_path_factory.mktemp("place")
    make_store(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return Store(place / "store")


@pytest.fixture(scope="module")
def source(place: Path) -> SourceFiles:
    return SourceFiles(
        annotations=place / "shapes.json", images=place / "shapes-images", name="shapes"
    )


@pytest.fixture(scope="module")
def taught(store: Store, source: SourceFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of `TruthTeacher`. Not to be changed."""
    out = tmp_path_factory.mktemp("taught") / "cache"
    teach(TruthTeacher(), store, [source], out)
    return out


@pytest.fixture
def copied(taught: Path, tmp_path: Path) -> Path:
    """The same cache, to be changed."""
    return Path(shutil.copytree(taught, tmp_path / "cache"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Changed(TruthTeacher):
    """The truth, changed for some images by their number (from 0) in the order they are shown."""

    def __init__(self, changes: dict[int, Any]) -> None:
        super().__init__()
        self._changes = changes

    def __call__(self, image: np.ndarray, targets: list[Target]) -> list[TeacherAnswer]:
        change = self._changes.get(len(self.batches), lambda each: each)
        return [change(each) for each in super().__call__(image, targets)]


# --- eight bits ---------------------------------------------------------------------------------


@given(arrays(np.float32, (4, 5), elements=st.floats(-60, 60, width=32)))
def test_a_logit_is_kept_to_half_a_step(logits: np.ndarray) -> None:
    stored = quantize(logits)
    assert stored.dtype == np.int8
    assert (stored != UNSEEN).all()
    expected = np.clip(logits, -LIMIT * STEP, LIMIT * STEP)
    np.testing.assert_allclose(stored * STEP, expected, atol=STEP / 2 + 1e-6)


def test_what_is_not_seen_is_the_surest_background() -> None:
    stored = quantize(np.array([math.nan, -99, 99], np.float32))
    assert stored.tolist() == [UNSEEN, -LIMIT, LIMIT]
    assert UNSEEN * STEP == -16


# --- what is kept -------------------------------------------------------------------------------


def test_every_row_has_the_teachers_logits_on_its_own_window(taught: Path, store: Store) -> None:
    cache = TeacherCache(taught, store, verify=True)
    assert len(cache) == len(store) == 3 * COUNT
    rows = np.random.default_rng(0).permutation(len(store))
    logits = cache.gather(rows)
    assert logits.shape == (len(store), 64, 64)
    assert logits.dtype == np.int8
    for row, actual in zip(rows, logits, strict=True):
        record = store.records[row]
        _, mask = scene(int(record["instance"]) - 101)
        window = Window(*record["window"])
        exact = geometry.resample_logits(
            np.where(mask, STRENGTH, -STRENGTH).astype(np.float32),
            Window(0, 0, WIDTH, HEIGHT), window, 64, outside=math.nan,
        )  # fmt: skip
        np.testing.assert_array_equal(actual, quantize(exact))
        covered = store.gather(np.array([row]))[0, ..., 3] > 127
        assert ((actual > 0) == covered).mean() > 0.99
        centers = window.to_image(np.stack([np.arange(64) + 0.5] * 2, 1), 64)
        outside = ~(
            ((centers[:, 1] >= 0) & (centers[:, 1] < HEIGHT))[:, None]
            & ((centers[:, 0] >= 0) & (centers[:, 0] < WIDTH))[None]
        )
        np.testing.assert_array_equal(actual == UNSEEN, outside)


def test_gather_fills_what_it_is_given(taught: Path, store: Store) -> None:
    cache = TeacherCache(taught, store)
    rows = np.array([20, 0, 20])
    out = np.zeros((3, 64, 64), np.int8)
    assert cache.gather(rows, out) is out
    np.testing.assert_array_equal(out[0], out[2])
    np.testing.assert_array_equal(out, cache.gather(rows))


def test_records_are_aligned_with_the_stores(
    store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    def another_object(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, logits=-answer.logits, predicted_iou=1.5)

    teach(Changed({4: another_object}), store, [source], tmp_path / "c")
    records = TeacherCache(tmp_path / "c", store).records
    assert records.shape == store.records.shape
    assert records["valid"].all()
    wrong = store.records["photo"] == 5
    assert wrong.sum() == 3
    np.testing.assert_array_equal(records["iou"], np.where(wrong, 0, 1))
    np.testing.assert_array_equal(records["agrees"], ~wrong)
    np.testing.assert_allclose(records["predicted_iou"], np.where(wrong, 1, 0.75))  # clipped


def test_an_image_is_shown_once_with_all_of_its_objects(tmp_path: Path) -> None:
    written_source = write_coco(tmp_path, 4)
    document = json.loads(written_source.annotations.read_text())
    for number in range(5):  # five more on the second image
        _, mask = scene(50 + number)
        document["annotations"].append(annotation(500 + number, 2, mask))
    write_json(written_source.annotations, document)
    prepare([written_source], tmp_path / "store", SMALL_STORE, workers=1)
    teacher = TruthTeacher()
    store = Store(tmp_path / "store")
    teach(teacher, store, [written_source], tmp_path / "c")
    assert teacher.batches == [1, 6, 1, 1]
    assert (TeacherCache(tmp_path / "c", store).records["iou"] == 1).all()


def test_what_the_teacher_has_not_seen_is_marked(
    store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    """A teacher that looks through a window of its own, smaller than the context."""

    def narrow(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, window=Window(30, 20, 60, 50))

    teach(Changed(dict.fromkeys(range(COUNT), narrow)), store, [source], tmp_path / "c")
    cache = TeacherCache(tmp_path / "c", store)
    for row, actual in enumerate(cache.gather(np.arange(len(cache)))):
        window = Window(*store.records["window"][row])
        x, y = window.to_image(
            np.stack(np.meshgrid(*[np.arange(64) + 0.5] * 2), 2).reshape(-1, 2), 64
        ).T
        seen = (x >= 30) & (x < 60) & (y >= 20) & (y < 50)
        sure = np.minimum.reduce([abs(x - 30), abs(x - 60), abs(y - 20), abs(y - 50)]) > 1e-6
        np.testing.assert_array_equal((actual.ravel() != UNSEEN)[sure], seen[sure])


# --- numbers that are none ----------------------------------------------------------------------


def test_nan_from_a_teacher_is_counted_and_not_kept(
    store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    def broken(answer: TeacherAnswer) -> TeacherAnswer:
        logits = answer.logits.copy()
        logits[3, 3] = math.nan
        return replace(answer, logits=logits)

    def unsure(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, predicted_iou=math.nan)

    def endless(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, logits=answer.logits * math.inf)

    teach(Changed({1: broken, 2: unsure, 6: endless}), store, [source], tmp_path / "c")
    cache = TeacherCache(tmp_path / "c", store)
    bad = np.isin(store.records["photo"], [2, 3, 7])
    np.testing.assert_array_equal(cache.records["valid"], ~bad)
    np.testing.assert_array_equal(cache.records["agrees"], ~bad)
    assert not cache.records["iou"][bad].any()
    assert (cache.gather(np.flatnonzero(bad)) == UNSEEN).all()
    report = write_report(cache, store)
    assert (report["objects"], report["invalid"], report["disagreeing"]) == (COUNT, 3, 0)
    assert report["miou"] == 1.0
    assert "3 objects without a usable answer" in describe(report)


def test_nothing_but_nan(store: Store, source: SourceFiles, tmp_path: Path) -> None:
    def broken(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, logits=answer.logits * math.nan)

    teach(Changed(dict.fromkeys(range(COUNT), broken)), store, [source], tmp_path / "c")
    report = write_report(TeacherCache(tmp_path / "c", store), store)
    assert (report["invalid"], report["miou"], report["spearman"]) == (COUNT, None, None)
    assert "8 objects without a usable answer" in describe(report)


# --- images that are not what they were ---------------------------------------------------------


def test_images_that_changed_since_are_named(place: Path, store: Store, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(place / "shapes-images", images)
    (images / "002.png").write_text("not an image")
    Image.new("RGB", (20, 30)).save(images / "005.png")
    source = SourceFiles(annotations=place / "shapes.json", images=images, name="shapes")
    teacher = TruthTeacher()
    done = teach(teacher, store, [source], tmp_path / "c")
    assert len(teacher.batches) == COUNT - 2
    assert [problem.where for problem in done.problems] == ["image 002.png", "image 005.png"]
    assert "is 20x30, not 96x72 as stated" in done.problems[1].what
    cache = TeacherCache(tmp_path / "c", store)
    bad = np.isin(store.records["photo"], [3, 6])
    np.testing.assert_array_equal(cache.records["valid"], ~bad)
    summary = summarize(cache, store)
    assert (summary["photos"], summary["invalid"]) == (COUNT - 2, 2)
    assert len(summary["problems"]) == 2


def test_other_sources_are_refused(
    place: Path, store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    other = write_coco(tmp_path, 3, start=30)
    with pytest.raises(StoreError, match=r"the one with SHA-256 [0-9a-f]{12} is missing here"):
        teach(TruthTeacher(), store, [other], tmp_path / "c")
    with pytest.raises(StoreError, match=r"was not made from .*shapes.json: leave it"):
        teach(TruthTeacher(), store, [source, other], tmp_path / "c")
    with pytest.raises(DataError, match="there is no annotation file"):
        teach(TruthTeacher(), store, [replace(source, annotations=tmp_path / "x")], tmp_path / "c")
    with pytest.raises(StoreError, match="are not those of the annotations given"):
        teach(TruthTeacher(), store, [replace(source, name="others")], tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="was made from 8 images, and 0 are here"):
        teach(TruthTeacher(), store, [replace(source, images=tmp_path / "empty")], tmp_path / "c")


def test_sources_may_come_in_any_order(tmp_path: Path) -> None:
    first = write_coco(tmp_path, 4)
    two = write_coco(tmp_path, 3, start=20, name="more")
    prepare([first, two], tmp_path / "store", SMALL_STORE, workers=1)
    store = Store(tmp_path / "store")
    teach(TruthTeacher(), store, [two, first], tmp_path / "c")
    cache = TeacherCache(tmp_path / "c", store)
    assert (cache.records["iou"] == 1).all()
    assert summarize(cache, store)["miou_by_source"] == {"more": 1.0, "shapes": 1.0}


# --- resuming and sharing -----------------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_stopped(
    place: Path, store: Store, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    words = [place / "store", source.annotations, source.images, out, "--kill-at", 5]
    killed = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(StoreError, match="is unfinished: run the same `picosam2 teach` again"):
        TeacherCache(out, store)
    assert TeacherCache(out, store, unfinished=True).done.sum() == 9
    (out / ".shard-00001.logits-abc.npy").write_bytes(b"half")  # of a kill while it was written
    teacher = TruthTeacher()
    done = teach(teacher, store, [source], out)
    assert (done.kept, done.written) == (1, 2)
    assert len(teacher.batches) == COUNT - 3
    assert contents(out) == contents(taught)


def test_a_finished_cache_asks_nobody(copied: Path, store: Store, source: SourceFiles) -> None:
    teacher = TruthTeacher()
    before = contents(copied)
    done = teach(teacher, store, [source], copied)
    assert (done.kept, done.written, teacher.batches) == (3, 0, [])
    assert contents(copied) == before


def test_a_trial_of_a_few_parts(
    store: Store, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    reports: list[tuple[int, int | None, str]] = []

    def report(done: int, total: int | None = None, *, what: str | None = None, note: str) -> None:
        reports.append((done, total, note))

    out = tmp_path / "c"
    for expected in (1, 2):
        done = teach(TruthTeacher(), store, [source], out, limit_shards=1, progress=report)
        assert done.written == 1
        cache = TeacherCache(out, store, unfinished=True)
        assert len(cache.counted) == expected
    assert [report[:2] for report in reports] == [
        (1, 3), (2, 3), (3, 3), (4, 6), (5, 6), (6, 6)
    ]  # fmt: skip
    assert reports[2][2].endswith("images/s, 0:00:00 left")
    assert reports[5][2].endswith("images/s, 0:00:00 left")
    with pytest.raises(StoreError, match="cannot be read any more"):
        cache.gather(np.array([len(store) - 1]))
    assert summarize(cache, store)["objects"] == 6
    teach(TruthTeacher(), store, [source], out)
    assert contents(out) == contents(taught)


def test_processes_share_the_shards(
    store: Store, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    out, requests = tmp_path / "c", []
    for rank in (1, 0):
        teacher = TruthTeacher()
        teach(teacher, store, [source], out, rank=rank, world=2)
        requests.append(len(teacher.batches))
        half = out / f".shard-{1 - rank:05d}.logits-abc.npy"
        half.write_bytes(b"the other one is writing this")
        teach(teacher, store, [source], out, rank=rank, world=2)
        assert half.exists()
        half.unlink()
    assert requests == [3, 5]
    assert contents(out) == contents(taught)


# --- what is refused ----------------------------------------------------------------------------


def test_a_cache_of_another_teacher_store_or_threshold(
    copied: Path, store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    before = contents(copied)
    other = TruthTeacher(key="other")
    other.name = "truth:other"
    with pytest.raises(StoreError) as caught:
        teach(other, store, [source], copied)
    for name, teacher in (("truth:tiny", TruthTeacher()), ("truth:other", other)):
        assert f"{name} (box; {teacher.fingerprint[:12]})" in str(caught.value)
    with pytest.raises(StoreError, match=r"with --agree 0.5, not 0.7"):
        teach(TruthTeacher(), store, [source], copied, agree=0.7)
    another = make_store(tmp_path / "another", 4)
    with pytest.raises(StoreError) as caught:
        teach(TruthTeacher(), another, [source], copied)
    assert store.fingerprint[:12] in str(caught.value)
    assert f"{another.path} ({another.fingerprint[:12]})" in str(caught.value)
    with pytest.raises(StoreError) as caught:
        TeacherCache(copied, another)
    assert f"the cache {copied} was made for the store {store.fingerprint[:12]}" in str(
        caught.value
    )
    assert f"{another.path} is {another.fingerprint[:12]}" in str(caught.value)
    assert contents(copied) == before


def test_a_moved_model_is_the_same_teacher(copied: Path, store: Store, source: SourceFiles) -> None:
    teacher = TruthTeacher()
    teacher.name = "truth:elsewhere"
    assert teach(teacher, store, [source], copied).written == 0


def test_folders_that_are_no_caches(store: Store, source: SourceFiles, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a teacher cache: make one with `picosam2 teach`"):
        TeacherCache(tmp_path, store)
    (tmp_path / "file").write_text("x")
    (tmp_path / ".shard-00000.logits-abc.npy").write_text("of somebody else")
    with pytest.raises(StoreError, match="is not empty and holds no cache"):
        teach(TruthTeacher(), store, [source], tmp_path)
    assert (tmp_path / ".shard-00000.logits-abc.npy").exists()
    with pytest.raises(StoreError, match="cannot be a cache's folder"):
        teach(TruthTeacher(), store, [source], tmp_path / "file")
    with pytest.raises(ConfigError, match="`agree` must be from 0 to 1"):
        teach(TruthTeacher(), store, [source], tmp_path / "c", agree=1.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "has another format"),
        ('{"format": 0}', "has another format"),
        ('{"format": 1, "step": 0.125}', "does not say what it is made from"),
        (
            '{"format": 1, "step": 0.125, "store": "x", "fingerprint": "y", "teacher": {}}',
            "does not",
        ),
    ],
)
def test_damaged_plans(copied: Path, store: Store, text: str, says: str) -> None:
    (copied / "cache.json").write_text(text)
    with pytest.raises(StoreError, match=says):
        TeacherCache(copied, store)


def test_damaged_shards(copied: Path, store: Store, source: SourceFiles) -> None:
    whole = contents(copied)
    logits, records = copied / "shard-00001.logits.npy", copied / "shard-00001.records.npy"
    summary = copied / "shard-00001.json"
    for file, damage in (
        (logits, logits.read_bytes()[:-100]),
        (logits, b""),
        (logits, records.read_bytes()),
        (records, whole["shard-00002.records.npy"]),
        (summary, b"{}x"),
    ):
        before = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(StoreError, match=r"shard-00001 of the cache .* is damaged"):
            TeacherCache(copied, store, verify=True)
        file.write_bytes(before)
    changed = bytearray(logits.read_bytes())
    changed[-1] ^= 1
    logits.write_bytes(changed)
    TeacherCache(copied, store)  # a glance does not see it
    with pytest.raises(StoreError, match="the checksum of its logits differs"):
        TeacherCache(copied, store, verify=True)
    for file in (logits, records, summary):  # as the message says
        file.unlink()
    assert teach(TruthTeacher(), store, [source], copied).written == 1
    assert contents(copied) == whole


@contextmanager
def room_for(bytes: int) -> Iterator[None]:
    """No file can become larger; writing on is an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(
    store: Store, source: SourceFiles, taught: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    teach(TruthTeacher(), store, [source], out, limit_shards=1)
    before = contents(out)
    with room_for(20_000), pytest.raises(StoreError) as caught:
        teach(TruthTeacher(), store, [source], out)
    assert "make room and run the same command again; finished parts are kept" in str(caught.value)
    assert contents(out) == before
    teach(TruthTeacher(), store, [source], out)
    assert contents(out) == contents(taught)


# --- the report ---------------------------------------------------------------------------------


def test_the_report_counts_each_object_once(
    store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    def half(answer: TeacherAnswer) -> TeacherAnswer:
        """The left part of the mask only."""
        logits = answer.logits.copy()
        middle = int(np.nonzero((logits > 0).any(0))[0].mean())
        logits[:, middle:] = -20
        return replace(answer, logits=logits, predicted_iou=0.9)

    out = tmp_path / "c"
    teach(Changed({0: half, 1: half}), store, [source], out, agree=0.6)
    cache = TeacherCache(out, store)
    report = write_report(cache, store)
    assert json.loads((out / "report.json").read_text()) == report
    first = cache.records[store.records["view"] == 0]
    assert report["objects"] == COUNT
    assert report["disagreeing"] == 2
    assert report["miou"] == pytest.approx(first["iou"].mean())
    assert sum(report["histogram"]) == COUNT
    assert report["histogram"][-1] == COUNT - 2
    assert report["predicted_iou"] == pytest.approx((0.9 * 2 + 0.75 * 6) / 8)
    assert report["spearman"] == pytest.approx(-1, abs=0.2)
    assert report["miou_by_source"] == {"shapes": report["miou"]}
    assert (report["shards_done"], report["shards"], report["photos"]) == (3, 3, COUNT)
    error = report["quantization"]
    assert error["pixels"] == int((cache.gather(np.arange(len(cache))) != UNSEEN).sum())
    assert 0 < error["rms"] <= error["largest"] <= STEP / 2 + 1e-6
    assert 0 < error["clipped"] < 0.5  # the pixels at -20
    assert error["changed"] < 0.01
    for name in ("histogram", "best", "worst", "disputed"):
        with Image.open(out / f"{name}.png") as image:
            image.load()
    text = describe(report)
    assert "truth:tiny: 8 objects of 8 images, 3 of 3 parts" in text
    assert "2 masks under 0.6, taken for another object" in text
    assert text.count("\n  0.") == 10


def test_the_error_that_is_reported_is_the_error_made(
    store: Store, source: SourceFiles, tmp_path: Path
) -> None:
    """Logits that resampling leaves alone: a constant of 1.04 is kept as 1.0."""

    def level(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, logits=np.full_like(answer.logits, 1.04))

    teach(Changed(dict.fromkeys(range(COUNT), level)), store, [source], tmp_path / "c")
    error = summarize(TeacherCache(tmp_path / "c", store), store)["quantization"]
    assert error["rms"] == pytest.approx(0.04, abs=1e-5)
    assert error["largest"] == pytest.approx(0.04, abs=1e-5)
    assert error["clipped"] == error["changed"] == 0


def test_the_sheets_show_the_two_masks(store: Store, source: SourceFiles, tmp_path: Path) -> None:
    from picosam2.results import PALETTE

    def shifted(answer: TeacherAnswer) -> TeacherAnswer:
        return replace(answer, logits=np.roll(answer.logits, 8, 1))

    teach(Changed(dict.fromkeys(range(COUNT), shifted)), store, [source], tmp_path / "c")
    cache = TeacherCache(tmp_path / "c", store)
    write_report(cache, store)
    with Image.open(tmp_path / "c" / "worst.png") as image:
        sheet = np.asarray(image.convert("RGB")).astype(int)
    row = int(
        np.flatnonzero(store.records["view"] == 0)[
            cache.records["iou"][store.records["view"] == 0].argmin()
        ]
    )
    tile = sheet[4 : 4 + 64, 4 : 4 + 64]
    crop = store.gather(np.array([row]))[0].astype(int)
    true, taught = crop[..., 3] > 127, cache.gather(np.array([row]))[0] > 0
    free = np.zeros((64, 64), bool)
    free[24:] = True  # below the caption
    for mask, color in (
        (true & taught, PALETTE[2]),
        (true & ~taught, PALETTE[0]),
        (~true & taught, PALETTE[1]),
    ):
        where = mask & free
        assert where.any()
        expected = (crop[where][:, :3] + np.array(color)) / 2
        np.testing.assert_allclose(tile[where], expected, atol=1)
