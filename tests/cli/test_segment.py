"""`picosam2 segment`: prompts, places, formats, and every image that people may have."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from picosam2.cli import _options as command
from picosam2.errors import PromptError
from picosam2.masks import rle_decode
from picosam2.prompts import Box, Point, Prompt

CLICK = ("--point", "20,10")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def image(here):
    """An image of 40 x 30 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(here / "photo.png")
    return "photo.png"


@pytest.fixture
def segment(cli, tiny_onnx):
    """`picosam2 segment` with tiny weights."""
    return lambda *words: cli("segment", *words, "--weights", tiny_onnx, "--threads", 1)


@pytest.fixture
def refuses(refused, tiny_onnx):
    return lambda *words: refused("segment", *words, "--weights", tiny_onnx, "--threads", 1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Prompts


def test_each_prompt_means_an_object():
    assert command.read_prompts(["1,2", "3,4,1"], ["5,6,7,8"], None) == [
        Prompt((Point(1, 2),)),
        Prompt((Point(3, 4),)),
        Prompt(box=Box(5, 6, 7, 8)),
    ]


def test_a_negative_point_makes_all_prompts_one_object():
    assert command.read_prompts(["1,2", "3,4,0"], ["0,0,7,8"], None) == [
        Prompt((Point(1, 2), Point(3, 4, False)), Box(0, 0, 7, 8))
    ]


def test_one_object_can_be_asked_for():
    assert command.read_prompts(["1,2", "3,4"], [], True) == [Prompt((Point(1, 2), Point(3, 4)))]


def test_separate_objects_can_be_asked_for():
    with pytest.raises(PromptError, match="only negative points"):
        command.read_prompts(["1,2", "3,4,0"], [], False)


def test_one_object_has_one_box():
    with pytest.raises(PromptError, match="one object has one box, not 2"):
        command.read_prompts(["1,2,0"], ["0,0,1,1", "0,0,2,2"], None)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (("--point", "40,10"), "the point 40,10 lies outside the image"),
        (("--point", "-1,10"), "the point -1,10 lies outside the image"),
        (("--point", "nan,10"), "must be a finite number, not nan"),
        (("--point", "1"), "'1' is not a point"),
        (("--point", "1,2,3"), "label must be 1 (on the object) or 0 (off it)"),
        (("--point", "1,2,0"), "only negative points"),
        (("--box", "5,5,5,9"), "has no area"),
        (("--box", "9,9,5,5"), "corners swapped: write left, top, right, bottom: 5,5,9,9"),
        (("--box", "50,50,60,60"), "the box 50,50,60,60 lies outside the image"),
        (("--box", "1,2,3"), "'1,2,3' is not a box"),
        ((), "nothing is pointed at"),
    ],
)
def test_a_prompt_that_makes_no_sense(refuses, image, here, prompt, message):
    assert message in refuses(image, *prompt)
    assert names(here) == [image]


def test_a_box_partly_outside_is_cut_with_a_warning(segment, image):
    done = segment(image, "--box", "-5,-5,20,20", "--format", "json")
    assert done.code == 0
    assert done.err == (
        "picosam2: the box -5,-5,20,20 reaches past the image of 40 x 30: cut to 0,0,20,20\n"
    )


# Formats and places


def test_an_overlay_of_all_objects_by_default(segment, image, here):
    done = segment(image, "--point", "20,10", "--box", "5,5,30,25")
    assert done.code == 0
    assert done.err == ""
    assert done.out.startswith("photo-overlay.png: 2 masks, scores ")
    with Image.open(here / "photo-overlay.png") as drawn:
        assert (drawn.size, drawn.mode) == ((40, 30), "RGB")


def test_one_mask_and_several(segment, image, here):
    assert segment(image, *CLICK, "--format", "mask").code == 0
    assert segment(image, *CLICK, "--point", "5,5", "-f", "mask", "-o", "masks").code == 0
    assert names(here) == ["masks", "photo-mask.png", "photo.png"]
    assert names(here / "masks") == ["photo-mask-1.png", "photo-mask-2.png"]
    with Image.open(here / "photo-mask.png") as mask:
        assert (mask.size, mask.mode) == ((40, 30), "L")
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_a_cutout_into_a_file(segment, image, here):
    assert segment(image, *CLICK, "-f", "cutout", "-o", here / "new" / "cut.png").code == 0
    with Image.open(here / "new" / "cut.png") as cut:
        assert cut.mode == "RGBA"


def test_multimask_gives_three_images(segment, image, here):
    done = segment(image, *CLICK, "--multimask", "--out", "m.jpg")
    assert len(done.out.splitlines()) == 3
    assert names(here) == ["m-1.jpg", "m-2.jpg", "m-3.jpg", "photo.png"]
    with Image.open(here / "m-1.jpg") as drawn:
        assert drawn.format == "JPEG"


def test_json_has_everything(segment, image, here, tiny_onnx):
    assert segment(image, *CLICK, "--box", "5,5,30,25", "--out", "result.json").code == 0
    document = json.loads((here / "result.json").read_text())
    assert list(document) == ["image", "size", "weights", "masks", "picosam2"]
    assert document["image"] == image
    assert document["size"] == [30, 40]
    assert document["weights"]["name"] == str(tiny_onnx)
    assert len(document["weights"]["sha256"]) == 64
    click, box = document["masks"]
    assert click["prompt"] == {"points": [[20, 10, 1]]}
    assert box["prompt"] == {"box": [5, 5, 30, 25]}
    assert {"box", "score", "area", "rle", "polygons"} <= set(click)
    assert rle_decode(click["rle"]).sum() == click["area"]


def test_flip_looks_at_the_mirrored_crop_too(cli, here):
    words = ("segment", "sample", "--box", "310,303,396,394", "--threads", 1)
    assert cli(*words, "--out", "once.json").code == 0
    assert cli(*words, "--out", "twice.json", "--flip").code == 0
    once, twice = (json.loads((here / name).read_text()) for name in ("once.json", "twice.json"))
    assert once["weights"] == twice["weights"]
    assert once["masks"][0]["rle"] != twice["masks"][0]["rle"]


def test_the_word_sample(segment, here):
    assert segment("sample", "--point", "353,349", "-f", "json").code == 0
    assert json.loads((here / "sample.json").read_text())["size"] == [480, 640]


def test_a_file_called_sample_comes_first(segment, image, here):
    (here / image).rename(here / "sample")
    assert segment("sample", *CLICK, "-f", "json").code == 0
    assert json.loads((here / "sample.json").read_text())["size"] == [30, 40]


def test_torch_gives_the_same_mask(cli, image, here, tiny_onnx, tiny_safetensors):
    for weights, runtime in ((tiny_onnx, "onnx"), (tiny_safetensors, "torch")):
        words = ("--weights", weights, "--runtime", runtime, "--out", f"{runtime}.json")
        assert cli("segment", image, *CLICK, *words).code == 0
    first, other = (json.loads((here / f"{r}.json").read_text()) for r in ("onnx", "torch"))
    assert first["masks"][0]["rle"] == other["masks"][0]["rle"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.bmp"), "x.bmp does not suit overlay: end it in .png or .jpg"),
        (("--out", "x.json", "-f", "mask"), "x.json does not suit mask: end it in .png"),
        (("--out", "photo.png"), "photo.png is one of the images: choose another --out"),
        (("--out", "photo.png/x.png"), "cannot be written"),
        (("--weights", "nowhere.onnx"), "there are no weights at nowhere.onnx"),
        (("--fromat", "mask"), "there is no option --fromat: see `picosam2 segment --help`"),
        (("--format", "mesk"), 'Invalid value "mesk" for --format'),
        (("--threads", "0"), "Must be >= 1"),
    ],
)
def test_a_mistake_is_one_sentence(refused, image, here, tiny_onnx, words, message):
    weights = () if "--weights" in words else ("--weights", tiny_onnx)
    assert message in refused("segment", image, *CLICK, *words, *weights)
    assert names(here) == [image]


def test_weights_by_a_name_that_is_not_shipped(refused, image):
    assert "no weights named giant" in refused("segment", image, *CLICK, "--weights", "giant")


def test_foreign_weights(refused, image, here, tiny_onnx, tiny_safetensors):
    onnx = pytest.importorskip("onnx")
    (here / "text.onnx").write_text("not a network")
    (here / "short.onnx").write_bytes(tiny_onnx.read_bytes()[:3000])
    graph = onnx.load(tiny_onnx)
    del graph.metadata_props[:]
    onnx.save(graph, here / "foreign.onnx")
    onnx.helper.set_model_props(graph, {"picosam2": "{}"})
    onnx.save(graph, here / "silent.onnx")
    (here / "text.safetensors").write_text("not a network")
    (here / "short.safetensors").write_bytes(tiny_safetensors.read_bytes()[:3000])
    for name, message in {
        "text.onnx": "is no ONNX file that can be run",
        "short.onnx": "is no ONNX file that can be run",
        "foreign.onnx": "is not a PicoSAM2 model",
        "silent.onnx": "does not say what it needs to",
        "text.safetensors": "holds no PicoSAM2 weights",
        "short.safetensors": "holds no PicoSAM2 weights",
    }.items():
        assert message in refused("segment", image, *CLICK, "--weights", name)
    refusal = refused("segment", image, *CLICK, "--weights", tiny_onnx, "--runtime", "torch")
    assert "torch runs no .onnx file" in refusal


# Several images


def test_it_goes_on_after_a_bad_image(segment, image, here):
    (here / "notes.txt").write_text("not an image")
    done = segment("notes.txt", image, "gone.jpg", *CLICK, "--out", "out")
    assert done.code == 2
    assert names(here / "out") == ["photo-overlay.png"]
    first, *skipped = done.err.splitlines()
    assert first == "picosam2: 2 of 3 images left out:"
    assert [line.split(":")[0].strip() for line in skipped] == ["notes.txt", "gone.jpg"]


def test_a_point_outside_one_of_the_images(segment, image, here):
    Image.new("RGB", (8, 8)).save(here / "small.png")
    done = segment("small.png", image, *CLICK, "-f", "json")
    assert done.code == 2
    assert "small.png: the point 20,10 lies outside the image" in done.err
    assert names(here) == ["photo.json", "photo.png", "small.png"]


def test_two_images_never_go_to_one_file(refuses, image, here):
    (here / "other").mkdir()
    (here / "other" / image).write_bytes((here / image).read_bytes())
    message = refuses(image, f"other/{image}", *CLICK)
    assert f"{image} and other/{image} would both be written to photo-overlay.png" in message
    assert "named twice" in refuses(image, image, *CLICK)
    assert "give --out a folder" in refuses(image, "b.png", *CLICK, "--out", "one.png")


def test_no_image(refuses):
    assert "there is no image" in refuses(*CLICK)


def test_a_web_address(refuses):
    message = refuses("https://example.org/cat.jpg", *CLICK)
    assert "https://example.org/cat.jpg is a web address: download the image" in message


# Streams


def picosam2(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "picosam2", *map(str, words)], stderr=subprocess.PIPE, **options
    )


def test_from_standard_input_to_standard_output(image, here, tiny_onnx):
    process = picosam2(
        "segment", "-", *CLICK, "-f", "mask", "-o", "-", "--weights", tiny_onnx,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate((here / image).read_bytes())
    assert (process.returncode, err) == (0, b"")
    with Image.open(io.BytesIO(out)) as mask:
        assert (mask.format, mask.size, mask.mode) == ("PNG", (40, 30), "L")
    assert names(here) == [image]


def test_a_reader_that_goes_away_is_no_error(image, tiny_onnx):
    process = picosam2(
        "segment", image, *CLICK, "-f", "json", "-o", "-", "--weights", tiny_onnx,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
    process.stderr.close()


def test_json_of_several_images_is_a_line_each(segment, image):
    done = segment(image, "sample", *CLICK, "-f", "json", "-o", "-")
    assert [json.loads(line)["image"] for line in done.out.splitlines()] == [image, "sample"]


def test_standard_output_takes_one_image(refuses, image):
    assert "takes one image" in refuses(image, "sample", *CLICK, "-o", "-")
    message = refuses(image, *CLICK, "--point", "1,1", "-f", "mask", "-o", "-")
    assert "takes one image, not 2" in message


def test_an_image_is_not_shown_on_a_terminal(refused, image, tiny_onnx, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    message = refused("segment", image, *CLICK, "-o", "-", "--weights", tiny_onnx)
    assert "a terminal shows no image" in message


def test_interrupted(cli, tiny_onnx, monkeypatch):
    class Interrupted(io.BytesIO):
        def read(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted()))
    done = cli("segment", "-", *CLICK, "--weights", tiny_onnx)
    assert (done.code, done.out, done.err) == (130, "", "picosam2: interrupted\n")


# Images


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def jpeg():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text.jpg", b"this is no image at all", "text.jpg is not an image"),
        ("cut.jpg", jpeg()[:900], "cut.jpg is damaged or cut off"),
        ("empty.png", b"", "empty.png is empty"),
        ("bomb.png", png_that_claims(20_000, 10_000), "bomb.png"),
    ],
    ids=["text", "cut", "empty", "bomb"],
)
def test_what_is_no_image(refuses, here, name, data, message):
    (here / name).write_bytes(data)
    refusal = refuses(name, "--point", "1,1")
    assert message in refusal
    assert names(here) == [name]


def test_a_missing_image(refuses):
    assert "gone.jpg does not exist" in refuses("gone.jpg", *CLICK)


def odd_images():
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (20, 30), np.uint8)
    color = rng.integers(0, 256, (20, 30, 3), np.uint8)
    deep = rng.integers(0, 65536, (20, 30), np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "one.png": (Image.new("RGB", (1, 1)), {}, (1, 1)),
        "gray.png": (Image.fromarray(gray), {}, (20, 30)),
        "cmyk.jpg": (Image.fromarray(color).convert("CMYK"), {}, (20, 30)),
        "deep.png": (Image.fromarray(deep), {}, (20, 30)),
        "alpha.png": (Image.fromarray(color).convert("RGBA"), {}, (20, 30)),
        "turned.jpg": (Image.fromarray(color), {"exif": turned}, (30, 20)),
    }


@pytest.mark.parametrize("name", odd_images())
def test_odd_images_work(segment, here, name):
    pixels, options, size = odd_images()[name]
    pixels.save(here / name, **options)
    done = segment(name, "--point", "0.5,0.5", "--out", "result.json")
    assert (done.code, done.err) == (0, "")
    document = json.loads((here / "result.json").read_text())
    assert document["size"] == list(size)
    assert segment(name, "--point", "0.5,0.5").code == 0


# What is there already


@pytest.mark.parametrize("form", ["json", "coco", "coco-polygons", "labelme"])
def test_a_document_made_by_hand_is_not_replaced(segment, refuses, image, here, form):
    by_hand = here / "photo.json"
    by_hand.write_text('{"shapes": []}')
    assert "photo.json is there" in refuses(image, *CLICK, "--format", form)
    assert by_hand.read_text() == '{"shapes": []}'
    assert segment(image, *CLICK, "--format", form, "--overwrite").code == 0
    # Its own result it replaces, until somebody has edited that.
    assert segment(image, "--point", "5,5", "--format", form).code == 0
    document = json.loads(by_hand.read_text())
    document["mine"] = True
    by_hand.write_text(json.dumps(document))
    assert "was changed since" in refuses(image, *CLICK, "--format", form)


@pytest.mark.parametrize(("form", "name"), [("svg", "photo.svg"), ("yolo", "photo.txt")])
def test_other_labels_are_not_replaced(segment, refuses, image, here, form, name):
    (here / name).write_text("by hand")
    assert f"{name} is there" in refuses(image, *CLICK, "--format", form)
    assert (here / name).read_text() == "by hand"
    assert segment(image, *CLICK, "--format", form, "--overwrite").code == 0


def test_a_labelme_file_elsewhere_names_its_image(segment, image, here):
    assert segment(image, *CLICK, "--format", "labelme", "--out", "labels/").code == 0
    assert json.loads((here / "labels/photo.json").read_text())["imagePath"] == "../photo.png"
    assert segment(image, *CLICK, "--format", "labelme").code == 0
    assert json.loads((here / "photo.json").read_text())["imagePath"] == "photo.png"


def test_names_cannot_control_the_terminal(cli, here, tiny_onnx):
    name = "a\x1b[2Jb\nc.png"
    Image.new("RGB", (40, 30)).save(here / name)
    (here / "bad\x1b[31m.png").write_bytes(b"no")
    done = cli("segment", name, "bad\x1b[31m.png", *CLICK, "--weights", tiny_onnx)
    assert done.code == 2
    assert "\x1b" not in done.out + done.err
    assert "a\\x1b[2Jb\\nc-overlay.png" in done.out
    done = cli("segment", here, *CLICK, "--out", here / "o", "--weights", tiny_onnx)
    assert "\x1b" not in done.out + done.err
    assert "bad\\x1b[31m.png" in done.err
