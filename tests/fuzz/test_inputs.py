"""Damaged images, weights files and HTTP requests, and odd prompts: a result, or one of our errors.

What `test_files.py` is for files of prompts and stores; the inputs are numbered like its own.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.mutate import VALUES, WORDS, mutate_bytes, mutate_json
from fuzz.test_files import check, numbers
from helpers.fakes import FakeRuntime, disc, reddish
from PIL import Image, features

from picosam2.errors import PromptWarning
from picosam2.images import load_image
from picosam2.io.mask_file import read_mask_file
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt, as_prompts

MOST_MEMORY = 1.5e9  # bytes
HEIGHT, WIDTH = 60, 80


def run(kind: str, make: Callable[[random.Random], None], count: int) -> None:
    before = peak_memory()
    for number in numbers(count):
        draw = random.Random(f"{kind} {number}")
        check(number, partial(make, draw), decoding=kind in ("image", "mask", "weights"))
    # Tests that ran before in this process may have taken more.
    assert peak_memory() <= max(before, MOST_MEMORY)


def peak_memory() -> float:
    """The most memory that this process has had so far, bytes; 0 where it is not known."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


# --- images -------------------------------------------------------------------------------------


@cache
def image_files() -> tuple[bytes, ...]:
    """A small image in every format that is read, in several kinds of each."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.dstack([3 * x, 4 * y, (x * y) % 256]).astype(np.uint8)
    color = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (color, "JPEG", {"exif": turned}),
        (color, "JPEG", {"progressive": True}),
        (color.convert("CMYK"), "JPEG", {}),
        (color, "PNG", {}),
        (color.convert("RGBA"), "PNG", {"dpi": (72, 72)}),
        (color.convert("P"), "PNG", {"transparency": 3}),
        (color.convert("1"), "PNG", {}),
        (Image.fromarray(pixels[..., 0] * np.uint16(257)), "PNG", {}),
        (color, "WEBP", {}),
        (color.convert("RGBA"), "WEBP", {"lossless": True}),
        (color, "GIF", {"save_all": True, "append_images": [color.rotate(90)]}),
        (color, "BMP", {}),
        (color.convert("P"), "BMP", {}),
        (color, "TIFF", {"compression": "tiff_lzw"}),
        (color, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (color.convert("1"), "TIFF", {"compression": "group4"}),
        (color, "PPM", {}),
        (Image.fromarray(pixels[..., 1] * np.uint16(257)), "PPM", {}),
    ]
    if features.check("avif"):
        kinds.append((color, "AVIF", {}))
    files = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return tuple(files)


def an_image(draw: random.Random) -> None:
    data = mutate_bytes(draw.choice(image_files()), draw)
    if draw.random() < 0.1:
        data = data[: draw.randrange(len(data) + 1)]
    pixels = load_image(io.BytesIO(data) if draw.random() < 0.2 else data)
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.dtype == np.uint8


# --- masks --------------------------------------------------------------------------------------


@cache
def mask_files() -> tuple[bytes, ...]:
    mask = disc(HEIGHT, WIDTH, 40, 30, 15).astype(np.uint8)
    images = [
        Image.fromarray(mask * np.uint8(255)),
        Image.fromarray(mask).convert("P"),
        Image.fromarray(mask.astype(np.uint16)),
        Image.fromarray(np.dstack([mask * np.uint8(200)] * 4)),
        Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).astype(np.uint8).reshape(
            HEIGHT, WIDTH)),
    ]  # fmt: skip
    files = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files.append(buffer.getvalue())
    return tuple(files)


def a_mask(draw: random.Random, path: Path) -> None:
    path.write_bytes(mutate_bytes(draw.choice((*mask_files(), image_files()[0])), draw))
    mask = read_mask_file(path)
    assert mask.ndim == 2
    assert mask.dtype in (np.bool_, np.float32)
    Prompt(points=[(1, 2)], mask=mask)


# --- prompts ------------------------------------------------------------------------------------

PREDICTOR = Predictor(FakeRuntime(reddish))
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
IMAGE[10:40, 20:60, 0] = 255
MASK = disc(HEIGHT, WIDTH, 40, 30, 15)
ARRAYS: tuple[Any, ...] = (
    np.zeros((0, 2)), np.ones((3, 2)), np.ones((2, 4)) * [[1, 2, 30, 40]], np.ones((2, 1, 2)),
    np.array([5, 6]), np.array([5, 6, 1]), np.array([np.nan, 1]), np.array(["5", "6"]),
    np.array([[5, 6]], ">f4"), np.array([[5, 6]], np.uint8), np.array([[5 + 1j, 6]]),
    np.array([{}, None], object), MASK, MASK.astype(float), MASK * 7, MASK[:9], MASK[None],
    np.full((HEIGHT, WIDTH), np.nan), np.zeros((HEIGHT, WIDTH), bool), np.array(3), np.zeros(0),
    (5, 6), [(5, 6), (7, 8, 0)], [(5, 6, 1), (5, 6, 0)], (1, 2, 30, 40), [[1, 2], [3]], {5: 6},
    Point(5, 6), Box(1, 2, 30, 40), Prompt(box=(1, 2, 30, 40)), object(), b"5,6", "5,6", 1e300,
    [(200, 1)], [(-1, 3)], [(WIDTH, HEIGHT)], [(WIDTH - 1e-9, 3)], range(2), iter([(5, 6)]),
)  # fmt: skip


def a_value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if kind < 0.35:
        value = draw.choice(ARRAYS)
        return value if hasattr(value, "__next__") else copy.copy(value)
    if kind < 0.6:
        return copy.deepcopy(draw.choice(VALUES))
    if kind < 0.85 or depth > 2:
        return [draw.choice((draw.uniform(-5, 90), draw.randint(-2, 90)))
                for _ in range(draw.randint(0, 5))]  # fmt: skip
    return [a_value(draw, depth + 1) for _ in range(draw.randint(0, 3))]


def a_prompt(draw: random.Random) -> None:
    kind = draw.randrange(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptWarning)
        if kind == 0:
            as_prompts(a_value(draw), a_value(draw))
        elif kind == 1:
            parse = draw.choice((Point.parse, Box.parse))
            parse(",".join(draw.choice((*WORDS[:-1], "5", "6.5", "-0")) for _ in range(4)))
        elif kind == 2:
            Prompt.from_json(draw.choice((a_value(draw), {"points": a_value(draw)},
                                          {"box": a_value(draw), "points": None})))  # fmt: skip
        elif kind == 3:
            prompt = Prompt(points=a_value(draw), box=a_value(draw), mask=a_value(draw))
            json.dumps(prompt.to_json(), allow_nan=False)
        else:
            points, boxes = (a_value(draw) if draw.random() < 0.7 else None for _ in range(2))
            prompts = a_value(draw) if kind == 6 else None
            results = PREDICTOR(IMAGE, points=points, boxes=boxes, prompts=prompts,
                                multimask=draw.random() < 0.3)  # fmt: skip
            for result in results:
                assert result.mask.shape == (HEIGHT, WIDTH)
                assert 0 <= result.score <= 1


# --- weights ------------------------------------------------------------------------------------


def a_weights_file(draw: random.Random, original: Path, folder: Path) -> None:
    """Bytes that are damaged, or metadata that say something else; the file is opened and run."""
    from picosam2.runtimes.weights import read_facts

    data, path = original.read_bytes(), folder / f"weights{original.suffix}"
    if original.suffix != ".safetensors" and draw.random() < 0.6:
        try:
            facts = dict(json.loads(mutate_json(read_facts(original), draw)))
            data = sealed(original, facts)
        except (ValueError, TypeError):  # no longer JSON, or no document
            return
    else:
        data = mutate_bytes(data, draw)
        if draw.random() < 0.2:
            data = data[: draw.randrange(len(data) + 1)]
    path.write_bytes(data)
    use_weights(path)


def sealed(original: Path, facts: dict[str, Any]) -> bytes:
    """The bytes of a weights file with other metadata and the hash that belongs to it."""
    from picosam2.runtimes.device_file import device_file, read_device_file
    from picosam2.runtimes.onnx_file import with_metadata
    from picosam2.runtimes.weights import DEVICE_FILES

    if original.suffix == ".onnx":
        return with_metadata(original.read_bytes(), facts)
    model = read_device_file(original, DEVICE_FILES[original.suffix]).model
    file = facts.pop("file", {})
    return device_file(model, facts, file if isinstance(file, dict) else {"runtime": file})


def use_weights(path: Path) -> None:
    """Open and run a file; only read what it says of itself where its runtime is not installed."""
    from picosam2.runtimes.protocol import RuntimeInfo
    from picosam2.runtimes.weights import DEVICE_FILES, load_runtime, read_facts

    runtime_name = DEVICE_FILES.get(path.suffix, "onnx")
    if not find_spec(PACKAGES.get(runtime_name, "onnxruntime")):
        RuntimeInfo.of_file(runtime_name, path, read_facts(path))
        return
    runtime = load_runtime(path, threads=1)
    side = runtime.info.input_size
    logits = runtime(np.zeros((1, side, side, 3), np.uint8))
    assert logits.shape[0] == 1
    Predictor(runtime)(IMAGE, points=[(30, 20)])


# --- HTTP ---------------------------------------------------------------------------------------

PATHS = ("/v1/segment", "/v1/sessions", "/v1/sessions/x/segment", "/health", "/metrics",
         "/v1/predict", "/predict", "/setup", "/v1/models", "/v1/models/x/info")  # fmt: skip
TYPES = ("image/jpeg", "image/png", "application/json", "multipart/form-data", "text/plain", "",
         "multipart/form-data; boundary=x", "application/json; charset=utf-7")  # fmt: skip
QUERIES = ("point=30,20", "box=20,10,40,30", "format=mask", "format=overlay", "point=1", "point=",
           "multimask=1", "multimask=maybe", "box=1,1,1,1", "x=y", "point=nan,1",
           "point=%00,%FF")  # fmt: skip


def a_request(draw: random.Random, client: Any) -> None:
    image = base64.b64encode(image_files()[3]).decode()
    document: Any = {"image": image, "prompts": [{"points": [[30, 20]]}, {"box": [2, 1, 4, 3]}],
                     "multimask": False, "format": "json", "model": "picosam2",
                     "params": {"marks": [{"type": "point", "data": [3, 4], "label": 1}]},
                     "tasks": [{"data": {"image": "a.jpg"}}], "label_config": "<View/>",
                     "context": {"result": []}}  # fmt: skip
    kind = draw.random()
    if kind < 0.4:
        content = mutate_bytes(draw.choice(image_files()), draw)
    elif kind < 0.9:
        content = mutate_json(document, draw).encode("utf-8", "surrogatepass")
    else:
        content = draw.randbytes(draw.randint(0, 300))
    query = "&".join(draw.choice(QUERIES) for _ in range(draw.randint(0, 3)))
    answer = client.request(
        draw.choice(("POST", "POST", "POST", "POST", "GET", "PUT", "DELETE")),
        f"{draw.choice(PATHS)}?{query}",
        content=content,
        headers={"content-type": draw.choice(TYPES)},
    )
    assert answer.status_code < 500, answer.text[:300]
    assert len(answer.content) < 1_000_000
    if answer.status_code >= 400 and "json" in answer.headers.get("content-type", ""):
        assert len(answer.text) < 2000


@pytest.fixture(scope="module")
def client(tiny_onnx: Path) -> Iterator[Any]:
    pytest.importorskip("starlette", reason="the server is an extra")
    pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
    from starlette.testclient import TestClient

    from picosam2.apps.http.app import create_app
    from picosam2.apps.http.limits import Limits

    limits = Limits(body=100_000, pixels=100_000, prompts=4, points=6)
    app = create_app(Predictor(tiny_onnx, threads=1), limits)
    with TestClient(app, base_url="http://127.0.0.1:8428") as opened:
        # The first request waits for the processes that decode images to begin.
        opened.post("/v1/segment?point=30,20", content=image_files()[3])
        yield opened


GOLDEN = Path(__file__).parents[1] / "golden" / "runtimes"
PACKAGES = {"litert": "ai_edge_litert", "executorch": "executorch"}


def all_weights(tiny_onnx: Path, tiny_safetensors: Path) -> list[Path]:
    device_files = (GOLDEN / f"one-channel{ending}" for ending in (".tflite", ".pte"))
    return [tiny_onnx, tiny_safetensors, *device_files]


def fuzz_weights(files: list[Path], folder: Path, count: int) -> None:
    run("weights", lambda draw: a_weights_file(draw, draw.choice(files), folder), count)


def test_some_damaged_images() -> None:
    run("image", an_image, 300)


def test_some_damaged_masks(tmp_path: Path) -> None:
    run("mask", lambda draw: a_mask(draw, tmp_path / "m.png"), 150)


def test_some_odd_prompts() -> None:
    run("prompt", a_prompt, 300)


def test_some_damaged_weights(tiny_onnx: Path, tiny_safetensors: Path, tmp_path: Path) -> None:
    fuzz_weights(all_weights(tiny_onnx, tiny_safetensors), tmp_path, 60)


def test_some_odd_requests(client: Any) -> None:
    run("request", partial(a_request, client=client), 100)


@pytest.mark.slow
def test_many_damaged_images() -> None:
    run("image", an_image, 4_000)


@pytest.mark.slow
def test_many_damaged_masks(tmp_path: Path) -> None:
    run("mask", lambda draw: a_mask(draw, tmp_path / "m.png"), 1_000)


@pytest.mark.slow
def test_many_odd_prompts() -> None:
    run("prompt", a_prompt, 3_000)


@pytest.mark.slow
def test_many_damaged_weights(tiny_onnx: Path, tiny_safetensors: Path, tmp_path: Path) -> None:
    fuzz_weights(all_weights(tiny_onnx, tiny_safetensors), tmp_path, 500)


@pytest.mark.slow
def test_many_odd_requests(client: Any) -> None:
    run("request", partial(a_request, client=client), 1_500)
