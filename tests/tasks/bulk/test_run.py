"""A run over many images computes the next ones while results are written, and few at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.color import flat_scene, write_color_onnx
from PIL import Image

from picosam2.errors import ConfigError
from picosam2.io.encode import Format
from picosam2.prompts import Point, Prompt
from picosam2.tasks.bulk import run as bulk_run
from picosam2.tasks.bulk.journal import FolderJournal
from picosam2.tasks.bulk.prompts import PromptSource
from picosam2.tasks.bulk.run import BulkResult, segment_many

pytest.importorskip("onnx")

COUNT = 8


@pytest.fixture
def run(tmp_path: Path) -> Any:
    weights = write_color_onnx(tmp_path / "color.onnx")
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        Image.fromarray(flat_scene()[0]).save(tmp_path / "images" / f"{number}.png")

    def call(format: Format = "mask") -> BulkResult:
        source = PromptSource.same([Prompt((Point(80, 84),))])
        return segment_many(
            [tmp_path / "images"],
            source,
            out=tmp_path / "out",
            format=format,
            weights=str(weights),
            workers=1,
        )

    return call


def test_images_are_read_while_results_wait_for_the_disk(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, load = FolderJournal.write, bulk_run.load_image
    read, second = [], threading.Event()
    unwritten, most = 0, 0

    def slow_write(self: FolderJournal, *args: Any) -> None:
        nonlocal unwritten
        assert second.wait(30), "nothing is read while the first result is written"
        write(self, *args)
        unwritten -= 1

    def counted_load(path: Any) -> Any:
        nonlocal unwritten, most
        read.append(path)
        unwritten += 1
        most = max(most, unwritten)
        if len(read) > 1:
            second.set()
        return load(path)

    monkeypatch.setattr(FolderJournal, "write", slow_write)
    monkeypatch.setattr(bulk_run, "load_image", counted_load)
    result = run()
    assert (result.images, result.masks, result.problems) == (COUNT, COUNT, ())
    assert len(read) == COUNT
    assert most <= bulk_run._AT_A_TIME


@pytest.mark.parametrize(("format", "beside"), [("mask", True), ("json", True), ("overlay", False)])
def test_masks_are_encoded_beside_the_next_image_and_drawings_are_not(
    run: Any, monkeypatch: pytest.MonkeyPatch, format: Format, beside: bool
) -> None:
    encode, load = bulk_run.encode, bulk_run.load_image
    threads: dict[str, set[int]] = {"load": set(), "encode": set()}

    def watched(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            threads[name].add(threading.get_ident())
            return function(*args, **options)

        return call

    monkeypatch.setattr(bulk_run, "load_image", watched("load", load))
    monkeypatch.setattr(bulk_run, "encode", watched("encode", encode))
    assert run(format).images == COUNT
    assert (threads["load"] != threads["encode"]) == beside


def test_what_cannot_be_written_is_named_and_the_others_are_done(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = FolderJournal.write

    def failing_write(self: FolderJournal, job: Any, *args: Any) -> None:
        if job.name == "3.png":
            raise ConfigError("it cannot be written")
        write(self, job, *args)

    monkeypatch.setattr(FolderJournal, "write", failing_write)
    result = run()
    assert result.images == COUNT - 1
    assert result.problems == ("3.png: it cannot be written",)
    assert len(list((tmp_path / "out").glob("*.png"))) == COUNT - 1


def test_a_full_disk_stops_the_run(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = FolderJournal.write

    def full(self: FolderJournal, job: Any, *args: Any) -> None:
        if job.name == "3.png":
            raise OSError(28, "No space left on device")
        write(self, job, *args)

    monkeypatch.setattr(FolderJournal, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    monkeypatch.setattr(FolderJournal, "write", write)
    again = run()
    assert again.done_before >= 2
    assert again.images + again.done_before == COUNT
