"""Our own code beside the library that could replace it: what docs/decisions.md quotes.

    python benchmarks/decisions.py exif erode depthwise batchnorm hosts calibrator
    python benchmarks/decisions.py calibrators download unzip encoders

`depthwise` and `batchnorm` need the extra `train`, `erode` OpenCV, `hosts` the extra `serve`,
`download` and `unzip` the package pooch, `encoders` the extra `imagenet`, timm and torchvision.
Ratios are medians over rounds in which both ways take turns.
"""

from __future__ import annotations

import io
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from picosam2.cli._exit_codes import run_script

if TYPE_CHECKING:
    from picosam2.export.int8.calibration import Crops
    from picosam2.runtimes.protocol import Runtime


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 9) -> float:
    """The median of our processor time over theirs."""
    ratios = []
    for _ in range(rounds):
        spent = []
        for work in (ours, theirs):
            begin = time.process_time()
            work()
            spent.append(time.process_time() - begin)
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


def exif() -> None:
    """`images.load_image` and `ImageOps.exif_transpose` on all orientations and on damaged EXIF."""
    from PIL import Image, ImageOps

    from picosam2.images import load_image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for kind in ("PNG", "TIFF", "JPEG"):
        same = 0
        for orientation in range(1, 9):
            tags = Image.Exif()
            tags[0x0112] = orientation
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, kind, exif=tags)
            buffer.seek(0)
            theirs = np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("RGB"))
            same += np.array_equal(load_image(buffer.getvalue()), theirs)
        print(f"exif: {kind}: {same} of 8 orientations give the same pixels")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x05garbage")
    for name, work in (
        ("ours", lambda: load_image(buffer.getvalue())),
        ("exif_transpose", lambda: ImageOps.exif_transpose(Image.open(buffer))),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                work()
                print(f"exif: damaged EXIF, {name}: reads the image")
            except Exception as error:
                print(f"exif: damaged EXIF, {name}: {type(error).__name__}: {error}")


def erode() -> None:
    """`boundary.erode` and `cv2.erode`."""
    import cv2

    from picosam2.evaluation.boundary import erode as ours
    from picosam2.io.sample_image import sample, sample_objects
    from picosam2.predictor import Predictor

    rng = np.random.default_rng(0)
    same = 0
    for number in range(100):
        mask = cv2.blur(rng.random((60, 80)), (9, 9)) > 0.48
        radius = number % 5 + 1
        kernel = np.ones((2 * radius + 1,) * 2, np.uint8)
        theirs = cv2.erode(
            mask.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        same += np.array_equal(ours(mask, radius), theirs.astype(bool))
    print(f"erode: {same} of 100 masks are the same")
    mask = np.zeros((480, 640), np.bool_)
    mask[100:400, 100:500] = True
    pixels, kernel = mask.view(np.uint8), np.ones((33, 33), np.uint8)
    times = ratio(lambda: ours(mask, 16), lambda: cv2.erode(pixels, kernel))
    print(f"erode: radius 16, 640x480: ours / cv2's time {times:.1f}")
    predictor, image, box = Predictor("default", threads=1), sample(), sample_objects()[0].box
    whole = ratio(lambda: ours(mask, 16), lambda: predictor(image, boxes=[box]))
    print(f"erode: radius 16, 640x480: ours / a box prompt's time {whole:.2f}")
    folder = Path(cv2.__file__).parent
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    libraries = folder.parent / "opencv_python_headless.libs"
    size += sum(path.stat().st_size for path in libraries.rglob("*") if path.is_file())
    print(f"erode: OpenCV is {size / 1e6:.0f} MB on disk")


def depthwise() -> None:
    """Gradients of a depthwise convolution in bf16: ours, torch.nn.grad's, and autograd's own."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    for stride in (1, 2):
        _depthwise(stride, 96, 48)


def _depthwise(stride: int, channels: int, side: int) -> None:
    """The gradients at one stride."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from picosam2.training.depthwise import depthwise_gradients

    x = torch.randn(16, channels, side, side).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, 3, 3).bfloat16()
    out = F.conv2d(x, weight, None, stride, 1, 1, channels)
    gradient = torch.randn_like(out)
    how = (stride, stride), (1, 1), (1, 1)

    def ours(wanted: tuple[bool, bool, bool] = (True, True, False)) -> list[object]:
        return list(depthwise_gradients(gradient, x, weight, *how, wanted=wanted))

    def public() -> list[torch.Tensor]:
        kind = torch.float32 if stride > 1 else torch.bfloat16
        return [
            nn.grad.conv2d_input(
                x.shape, weight.to(kind), gradient.to(kind), stride, 1, 1, channels
            ).to(x.dtype),
            nn.grad.conv2d_weight(
                x.float(), weight.shape, gradient.float(), stride, 1, 1, channels
            ).to(x.dtype),
        ]

    def plain() -> object:
        a, b = x.detach().requires_grad_(), weight.detach().requires_grad_()
        result = F.conv2d(a, b, None, stride, 1, 1, channels)
        return torch.autograd.grad(result, (a, b), gradient)

    same = [torch.equal(a, b) for a, b in zip(ours(), public(), strict=False)]
    print(
        f"depthwise: stride {stride}: nn.grad gives the same input and weight gradients: "
        f"{same}; time, ours / nn.grad {ratio(ours, public):.2f}, "
        f"ours / autograd (with its forward pass) {ratio(ours, plain):.2f}"
    )


def batchnorm() -> None:
    """`nn.SyncBatchNorm` on a CPU."""
    import torch
    import torch.distributed as dist
    from torch import nn

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        nn.SyncBatchNorm(3).train()(torch.randn(2, 3, 4, 4))
        print("batchnorm: SyncBatchNorm runs on a CPU")
    except ValueError as error:
        print(f"batchnorm: SyncBatchNorm on a CPU: {error}")
    finally:
        dist.destroy_process_group()


def hosts() -> None:
    """What Starlette's `TrustedHostMiddleware` answers, also to a page of another site."""
    import asyncio

    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    app = TrustedHostMiddleware(PlainTextResponse("ok"), allowed_hosts=["localhost", "[::1]"])

    async def ask(host: str, origin: str = "http://localhost:8000") -> str:
        sent: list[dict] = []
        headers = [(b"host", host.encode()), (b"origin", origin.encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"",
                 "scheme": "http", "headers": headers}  # fmt: skip

        async def receive() -> dict:
            return {"type": "http.request", "body": b""}

        async def send(message: dict) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return f"{sent[0]['status']} {sent[1]['body'].decode()!r}"

    print(f"hosts: TrustedHostMiddleware, [::1]:8000: {asyncio.run(ask('[::1]:8000'))}")
    print(f"hosts: TrustedHostMiddleware, another host: {asyncio.run(ask('evil.example'))}")
    crossed = asyncio.run(ask("localhost:8000", "http://evil.example"))
    print(f"hosts: TrustedHostMiddleware, a request of another site's page: {crossed}")


def calibrator() -> None:
    """Peak memory of calibrating the shipped weights: ours and onnxruntime's."""
    for name in ("ours", "MinMax", "Percentile", "Entropy"):
        for crops in (16, 64):
            done = subprocess.run(
                [sys.executable, __file__, "--calibrate", name, str(crops)],
                capture_output=True,
                text=True,
            )
            last = (done.stdout.split() or done.stderr.splitlines()[-1:] or ["nothing"])[-1]
            print(f"calibrator: {name}, {crops} crops: peak {last} MB")


def calibrate(name: str, count: int) -> None:
    """Calibrate once and print the peak memory in MB."""
    from picosam2.runtimes.onnx import OnnxRuntime
    from picosam2.runtimes.weights import find_weights

    file = find_weights("default")
    _ranges(name, file, _crops(OnnxRuntime(file, threads=1), count, 0))
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _crops(runtime: Runtime, count: int, seed: int) -> Crops:
    """Crops of the sample image, none of which is a correction."""
    from dataclasses import replace

    from picosam2.export.int8.calibration import sample_crops
    from picosam2.predictor import Predictor

    crops = sample_crops(Predictor(runtime), count, seed)
    if not runtime.info.guidance:
        return crops
    return replace(crops, guidance=np.zeros_like(crops.pixels.transpose(0, 3, 1, 2)))


def _ranges(name: str, file: Path, crops: Crops) -> dict[str, tuple[float, float]]:
    """The range of each activation, by one of our methods or by one of onnxruntime's."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    from picosam2.export.int8.calibration import METHODS, observe, ranges
    from picosam2.images import normalize

    model = onnx.load(file)
    if name == "ours" or name in METHODS:
        return ranges(observe(model, crops, threads=1), "percentile" if name == "ours" else name)
    feeds = [{"image": normalize(crops.pixels[i : i + 1])} for i in range(len(crops.pixels))]
    for i, feed in enumerate(feeds):
        planes = crops.planes(i, i + 1)
        if planes is not None:
            feed["guidance"] = planes

    class Reader:
        def get_next(self) -> dict | None:
            return feeds.pop() if feeds else None

    with tempfile.TemporaryDirectory() as folder:
        made = create_calibrator(
            file,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod[name],
        )
        made.collect_data(Reader())
        limits = {key: value.range_value for key, value in made.compute_data().items()}
    return {key: (float(np.min(low)), float(np.max(high))) for key, (low, high) in limits.items()}


def calibrators() -> None:
    """What INT8 by the ranges of each calibrator changes in the masks of crops it has not seen."""
    import onnx

    from picosam2.export.int8.calibration import METHODS, activations
    from picosam2.export.int8.onnx_int8 import answers, compare, described, quantize_graph
    from picosam2.runtimes.onnx import OnnxRuntime
    from picosam2.runtimes.weights import find_weights

    file = find_weights("default")
    before = OnnxRuntime(file, threads=1)
    model = onnx.load(file)
    seen, unseen = (_crops(before, 64, seed) for seed in (0, 1))
    expected = answers(before, unseen)
    with tempfile.TemporaryDirectory() as folder:
        for name in (*METHODS, "MinMax", "Percentile", "Entropy"):
            limits = _ranges(name, file, seen)
            limits = {key: limits[key] for key in activations(model)}
            graph = quantize_graph(model, limits, seen)
            path = Path(folder) / "int8.onnx"
            onnx.save(described(graph, before.info.facts, {}), path)
            change = compare(expected, answers(OnnxRuntime(path, threads=1), unseen)).disagreement
            print(f"calibrators: {name}: 1 - IoU with FP32's masks {change:.4f}", flush=True)


def download() -> None:
    """Bytes served when a transfer of 8 MB breaks at 5 MB, then is asked for again."""
    import hashlib

    import pooch

    from picosam2.data.fetch import fetch

    data = np.random.default_rng(0).bytes(8_000_000)
    served: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = 0
            if wanted := self.headers.get("Range"):
                begin = int(wanted.removeprefix("bytes=").split("-")[0])
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            end = len(data) if served else 5_000_000
            self.wfile.write(data[begin:end])
            served.append(end - begin)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, digest = f"http://127.0.0.1:{server.server_port}/a.bin", hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory() as folder:

        def theirs() -> None:
            pooch.retrieve(url, f"sha256:{digest}", "a.bin", folder)

        def ours() -> None:
            fetch(url, Path(folder) / "b.bin", sha256=digest, retries=0)

        for name, work in ((f"pooch {pooch.__version__}", theirs), ("ours", ours)):
            served.clear()
            for _ in range(2):
                try:
                    work()
                    break
                except Exception as error:
                    print(f"download: {name}, first call: {type(error).__name__}")
            print(f"download: {name}: served {served}, in all {sum(served):,} bytes")
    server.shutdown()


def unzip() -> None:
    """An archive that unpacks to a thousand times its size, and a file that was damaged since."""
    import zipfile

    import pooch

    from picosam2.data.unzip import unpack

    def theirs(archive: Path, folder: Path) -> None:
        pooch.Unzip(extract_dir=str(folder.resolve()))(str(archive), "fetch", None)

    with tempfile.TemporaryDirectory() as folder:
        bomb, archive = Path(folder) / "bomb.zip", Path(folder) / "a.zip"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as writer:
            writer.writestr("zeros", bytes(5_000_000))
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
            writer.writestr("a.txt", "content")
        for name, work in ((f"pooch {pooch.__version__}", theirs), ("ours", unpack)):
            out = Path(folder) / name
            try:
                work(bomb, out / "bomb")
                size = (out / "bomb" / "zeros").stat().st_size
                print(f"unzip: {name}: {size / bomb.stat().st_size:,.0f} times the archive's size")
            except Exception as error:
                print(f"unzip: {name}: {type(error).__name__}")
            work(archive, out / "a")
            (out / "a" / "a.txt").write_text("damaged")
            work(archive, out / "a")
            print(f"unzip: {name}: a damaged file is now {(out / 'a' / 'a.txt').read_text()!r}")


def encoders() -> None:
    """EfficientNet-Lite with the same ImageNet weights, as timm has it and as we do."""
    import timm
    import torch

    from picosam2.models.encoders import LITE0, LITE2, lite_stages, load_imagenet

    image = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    # Ours pads Lite0 evenly and Lite2 as TensorFlow does: those are two families of timm's names.
    for lite, name in ((LITE0, "efficientnet_lite0"), (LITE2, "tf_efficientnet_lite2")):
        stages, last = lite_stages(lite)
        parts = [*stages, last]
        with torch.no_grad():
            load_imagenet(lite, parts)
        theirs = timm.create_model(name, features_only=True, pretrained=False, bn_eps=1e-3).eval()
        state = theirs.state_dict()
        values = [value for part in parts for value in part.state_dict().values()]
        for key, value in zip(state, values, strict=False):  # ours may end earlier
            state[key] = value
        theirs.load_state_dict(state)
        sizes = [sum(p.numel() for part in whole for p in part.parameters())
                 for whole in (parts, [theirs])]  # fmt: skip
        features = image
        differences = []
        with torch.no_grad():
            for stage, feature in zip(stages, theirs(image), strict=False):
                features = stage.eval()(features)
                differences.append(float((features - feature).abs().max()))
        print(f"encoders: timm {timm.__version__}, {name}: parameters ours {sizes[0]:,}, timm's "
              f"{sizes[1]:,}; largest differences at strides 2 to 16: {differences}")  # fmt: skip


MEASUREMENTS = {
    work.__name__: work
    for work in (
        exif,
        erode,
        depthwise,
        batchnorm,
        hosts,
        calibrator,
        calibrators,
        download,
        unzip,
        encoders,
    )
}


def main() -> None:
    """Run the measurements that are named; all of them if none is."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--calibrate", nargs=2, metavar=("NAME", "CROPS"))
    options = parser.parse_args()
    if options.calibrate:
        calibrate(options.calibrate[0], int(options.calibrate[1]))
        return
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"no measurement {', '.join(sorted(unknown))}: use {', '.join(MEASUREMENTS)}")
    for name in options.names or MEASUREMENTS:
        MEASUREMENTS[name]()


if __name__ == "__main__":
    run_script(main)
