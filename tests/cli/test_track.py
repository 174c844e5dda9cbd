"""`picosam2 track`: video files, raw frames and cameras in; a video, masks or JSON out."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picosam2.masks import rle_decode
from tests.helpers.clip import Pose, make_clip

COUNT = 6


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A few frames (6, 120, 161, 3), of an odd width."""
    clip = make_clip("apple", [Pose(110 + 4 * i, 90, 0.5) for i in range(COUNT)])
    return np.ascontiguousarray(clip.frames[:, 30:150, 40:201])


@pytest.fixture
def video(frames, tmp_path) -> Path:
    pytest.importorskip("av", reason="video files need PyAV")
    from picosam2.io.video_files import VideoWriter

    path = tmp_path / "in" / "clip.mp4"
    path.parent.mkdir()
    with VideoWriter(path, 12.5) as writer:
        for i, frame in enumerate(frames):
            writer.write(frame, i / 12.5)
    return path


@pytest.fixture
def stdin(frames, monkeypatch):
    """Standard input with the frames as bare bytes."""

    class Stdin:
        buffer = io.BytesIO(frames.tobytes())

    monkeypatch.setattr(sys, "stdin", Stdin())


def test_a_file_is_read_as_it_was_written(video, frames):
    from picosam2.io.video_files import open_frames

    with open_frames(video) as source:
        assert source.rate == pytest.approx(12.5)
        assert not source.live
        read = list(source)
    assert [frame.index for frame in read] == list(range(COUNT))
    assert [frame.time for frame in read] == pytest.approx([i / 12.5 for i in range(COUNT)])
    assert read[0].pixels.shape == (120, 162, 3)  # made even by a column
    difference = np.abs(read[0].pixels[:, :161].astype(int) - frames[0])
    assert difference.mean() < 4


def test_an_overlay_video(cli, video, tiny_onnx, tmp_path):
    out = tmp_path / "out.mp4"
    done = cli("track", video, "--point", "70,60", "--out", out, "--weights", tiny_onnx)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: {COUNT} frames; object 1: found in ")
    from picosam2.io.video_files import open_frames

    with open_frames(out) as source:
        assert len(list(source)) == COUNT
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".mp4"] == ["out.mp4"]


def test_masks_for_every_frame(cli, video, tiny_onnx, tmp_path):
    out = tmp_path / "masks"
    words = ["--box", "50,40,90,80", "--box", "10,10,40,40", "--weights", tiny_onnx]
    assert cli("track", video, *words, "--frame", "2", "--out", out).code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"{i:06d}.png" for i in range(COUNT)]
    with Image.open(out / "000000.png") as first:
        assert first.mode == "P"
        assert not np.asarray(first).any()  # tracking begins later
    with Image.open(out / "000002.png") as third:
        assert set(np.unique(np.asarray(third))) <= {0, 1, 2}


def test_json_has_the_form_of_coco_vid(cli, stdin, frames, tiny_onnx, tmp_path):
    out = tmp_path / "out.json"
    words = ["--size", "161x120", "--rate", "10", "--weights", tiny_onnx]
    done = cli("track", "-", "--point", "70,60", "--out", out, *words)
    assert done.code == 0, done.err
    document = json.loads(out.read_text())
    (video,), (annotation,) = document["videos"], document["annotations"]
    assert (video["width"], video["height"], video["length"]) == (161, 120, COUNT)
    assert video["fps"] == 10
    for key in ("segmentations", "bboxes", "areas", "scores"):
        assert len(annotation[key]) == COUNT
    for rle, area, box in zip(
        annotation["segmentations"], annotation["areas"], annotation["bboxes"], strict=True
    ):
        assert (rle is None) == (area is None) == (box is None)
        if rle is not None:
            assert rle_decode(rle).sum() == area


def test_a_folder_of_frames_is_a_video(cli, stdin, frames, tiny_onnx, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames, 6):  # 10 comes after 9, not after 1
        Image.fromarray(frame).save(folder / f"frame {number}.png")
    words = ["--point", "70,60", "--rate", "10", "--weights", tiny_onnx]
    made = []
    for source, more in ((folder, []), ("-", ["--size", "161x120"])):
        out = tmp_path / f"{len(made)}.json"
        done = cli("track", source, *words, *more, "--out", out)
        assert done.code == 0, done.err
        made.append(json.loads(out.read_text())["annotations"])
    assert made[0] == made[1]


def test_masks_replace_nothing_unless_that_is_wanted(
    cli, refused, frames, tiny_onnx, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("frames", "masks"):
        Path(name).mkdir()
        for number in range(3 if name == "frames" else 5):
            Image.fromarray(frames[number]).save(Path(name, f"{number:06d}.png"))
    Path("masks/notes.png").write_bytes(b"mine")
    Path("link").symlink_to("frames")
    before = {path: path.read_bytes() for path in Path().rglob("*.png")}
    words = ["--point", "70,60", "--weights", tiny_onnx, "--format", "masks", "--out"]
    for out in ("frames", "link", "masks/../frames"):
        message = refused("track", "frames", *words, out, "--overwrite")
        assert "is the folder with the frames" in message
    assert "holds numbered PNG files already" in refused("track", "frames", *words, "masks")
    assert {path: path.read_bytes() for path in Path().rglob("*.png")} == before
    assert cli("track", "frames", *words, "masks", "--overwrite").code == 0
    names = sorted(path.name for path in Path("masks").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png", "notes.png"]
    assert Path("masks/notes.png").read_bytes() == b"mine"
    with Image.open("masks/000000.png") as mask:
        assert mask.mode == "P"


def test_masks_are_not_lost_to_a_run_that_fails(refused, video, tiny_onnx, tmp_path):
    out = tmp_path / "masks"
    out.mkdir()
    for number in range(COUNT + 2):
        (out / f"{number:06d}.png").write_bytes(b"before")
    words = ("track", video, "--out", out, "--overwrite", "--weights", tiny_onnx, "--point")
    assert "outside the image" in refused(*words, "9999,9999")
    assert len(list(out.iterdir())) == COUNT + 2


def test_only_so_many_frames(cli, video, tiny_onnx, tmp_path):
    words = ["--point", "70,60", "--weights", tiny_onnx, "--frames", "3"]
    assert cli("track", video, *words, "--out", tmp_path / "m").code == 0
    assert len(list((tmp_path / "m").iterdir())) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.mp4", "--out", "o.mp4"], "none.mp4 is no video file"),
        (["-", "--out", "o.mp4"], "need --size WxH"),
        (["-", "--out", "o.mp4", "--size", "640"], "write width x height"),
        (["-", "--out", "o.mp4", "--size", "0x9"], "no size of a frame"),
        (["987654", "--out", "o.mp4"], "there is no camera 987654"),
        (["VIDEO", "--out", "o.gif"], "end it in .mp4 or .webm"),
        (["VIDEO", "--out", "o.txt", "-f", "json"], "end it in .json"),
        (["VIDEO", "--out", "o.mp4", "-f", "masks"], "give it no ending"),
        (["VIDEO", "--out", "o.json", "--size", "4x4"], "need --size: leave it out"),
        (["VIDEO", "--out", "o.json", "--frame", "6"], "has 6 frames, counted from 0"),
        (["VIDEO", "--out", "VIDEO"], "is the video itself"),
        (["JUNK", "--out", "o.json"], "is no video that can be read"),
    ],
)
def test_mistakes_are_told(refused, video, tiny_onnx, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 100)
    places = {"VIDEO": video, "JUNK": tmp_path / "junk.mp4"}
    before = set(tmp_path.rglob("*"))
    words = [places.get(word, word) for word in words]
    assert message in refused("track", *words, "--point", "70,60", "--weights", tiny_onnx)
    assert set(tmp_path.rglob("*")) == before  # nothing half-written is left


def test_a_point_is_needed(refused, video, tmp_path):
    assert "--point X,Y" in refused("track", video, "--out", tmp_path / "o.json")


@pytest.mark.parametrize(
    ("size", "message"),
    [(120 * 161 * 3 + 5, "ends within a frame"), (0, "stdin gave no frames: if a program writes")],
)
def test_a_stream_that_ends_too_early(refused, tiny_onnx, tmp_path, monkeypatch, size, message):
    class Stdin:
        buffer = io.BytesIO(bytes(size))

    monkeypatch.setattr(sys, "stdin", Stdin())
    words = ["--size", "161x120", "--weights", tiny_onnx, "--out", tmp_path / "o.json"]
    assert message in refused("track", "-", "--point", "70,60", *words)


def test_without_pyav(refused, video, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    message = refused("track", video, "--point", "1,1", "--out", tmp_path / "o.json")
    assert "pip install '.[video]' in a copy of the repository" in message
