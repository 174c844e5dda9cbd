"""A sensor without the hardware: picamera2's interface over an image or a video.

For trying the camera's page on any computer, and for the tests. It has the names, arguments and
units of picamera2 (see `sensor.py` for where they are from), and what makes the real thing hard: a
ROI that holds only some frames later, answers that come with a later frame, frames without an
answer, 8-bit logits, an image for the network in other colors than the frame's. How many frames
the real sensor takes is not known to us: the numbers here are guesses.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry
from picosam2.apps.camera.sensor import SENSOR_SIZE, Devices
from picosam2.geometry import Window
from picosam2.images import load_image
from picosam2.io.video_files import VIDEO_ENDINGS, open_frames

Scene = Callable[[int], npt.NDArray[np.uint8]]
"""From a frame's number to what the whole sensor sees then, (H, W, 3) uint8, about 4:3."""

Network = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""From one crop (S, S, 3) uint8 to logits (K, S, S)."""

LOGIT_STEP = 1 / 8
"""One step of the sensor's 8-bit output, a power of two: logits within -16..16."""

_NAME, _TENSORS, _DIMENSIONS = 64, 16, 16  # of libcamera's CnnOutputTensorInfo
_TENSOR_INFO = f"<II{_DIMENSIONS}H"
_GAIN, _OFFSET = 0.7, 20.0  # of the network's image against the frame's


class Rectangle(NamedTuple):
    """As much of libcamera's as is used."""

    x: int
    y: int
    width: int
    height: int

    def bounded_to(self, other: Rectangle) -> Rectangle:
        """The part of it that is inside another."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.width, other.x + other.width)
        bottom = min(self.y + self.height, other.y + other.height)
        return Rectangle(x, y, max(right - x, 0), max(bottom - y, 0))


_WHOLE = Rectangle(0, 0, *SENSOR_SIZE)


def eight_bit(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """Logits on the sensor's grid of `LOGIT_STEP`, as the integers it sends."""
    sent: npt.NDArray[np.int8] = np.clip(np.rint(logits / LOGIT_STEP), -128, 127).astype(np.int8)
    return sent


class SimulatedSensor:
    """What the devices share: the scene, the network, the ROI and the time."""

    def __init__(
        self,
        scene: Scene,
        network: Network,
        *,
        side: int = geometry.CROP_SIZE,
        roi_delay: int = 3,
        lag: int = 1,
        layout: Literal["HWC", "CHW"] = "HWC",
        every: int = 1,
        tensors: bool = True,
        paced: bool = False,
        first_answer: int = 2,
    ) -> None:
        """A sensor that looks at a scene.

        Args:
            scene: what it sees.
            network: what runs in it.
            side: of the network's input, pixels.
            roi_delay: frames after which a new ROI holds.
            lag: frames after which an answer comes.
            layout: whether the output's channels are last or first.
            every: one frame in so many has an answer.
            tensors: whether the network's image can be had.
            paced: frames come in real time; else as fast as they are made.
            first_answer: frames before the first answer.
        """
        self.scene, self.network, self.side = scene, network, side
        self.layout, self.every, self.tensors, self.paced = layout, every, tensors, paced
        self.roi_delay, self.lag, self.first_answer = roi_delay, lag, first_answer
        self.roi = _WHOLE
        self.kpi: tuple[float, float] | None = None
        """Milliseconds to report; None reports what the network took on this computer."""
        self.frame = 0
        self._coming: list[tuple[int, Rectangle]] = []
        self._answers: dict[int, dict[str, Any]] = {}

    @property
    def devices(self) -> Devices:
        """To give to `AiCamera`."""
        return Devices(
            lambda network_file: SimulatedImx500(self, network_file),
            lambda camera_num: SimulatedPicamera2(self, camera_num),
        )

    def move(self, roi: Rectangle) -> None:
        """A new ROI has been set."""
        self._coming.append((self.frame + self.roi_delay, roi))

    def expose(self) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Take the next image: all that the sensor sees, and the metadata that go with it."""
        for due, roi in self._coming:
            if due <= self.frame:
                self.roi = roi
        self._coming = [answer for answer in self._coming if answer[0] > self.frame]
        image = self.scene(self.frame)
        if self.frame >= self.first_answer and self.frame % self.every == 0:
            self._answers[self.frame + self.lag] = self._answer(image)
        metadata = {"ScalerCrop": tuple(_WHOLE), **self._answers.pop(self.frame, {})}
        self.frame += 1
        return image, metadata

    def _answer(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        height, width = image.shape[:2]
        across, down = width / SENSOR_SIZE[0], height / SENSOR_SIZE[1]
        x, y, w, h = self.roi
        window = Window(x * across, y * down, (x + w) * across, (y + h) * down)
        crop = geometry.crop(image, window, self.side)
        started = time.perf_counter()
        logits = self.network(crop)
        took = (time.perf_counter() - started) * 1000
        values = eight_bit(logits).astype(np.float32) * np.float32(LOGIT_STEP)
        if self.layout == "HWC":
            values = np.moveaxis(values, 0, 2)
        info = struct.pack(f"<{_NAME}sI", b"picosam2", 1)
        padded = values.shape + (0,) * (_DIMENSIONS - values.ndim)
        info += struct.pack(_TENSOR_INFO, values.size, values.ndim, *padded)
        info += bytes(struct.calcsize(_TENSOR_INFO) * (_TENSORS - 1))
        metadata: dict[str, Any] = {
            # libcamera sends the first dimension fastest.
            "CnnOutputTensor": values.ravel(order="F").tolist(),
            "CnnOutputTensorInfo": info,
            "CnnKpiInfo": tuple(round(1000 * seconds) for seconds in self.kpi or (took, 0.0)),
        }
        if self.tensors:
            dim = np.clip(crop * _GAIN + _OFFSET, 0, 255).astype(np.uint8)
            metadata["CnnInputTensor"] = np.moveaxis(dim, 2, 0)[::-1].tobytes()
        return metadata


class SimulatedImx500:
    """`picamera2.devices.imx500.IMX500`."""

    def __init__(self, sensor: SimulatedSensor, network_file: str) -> None:
        self._sensor = sensor
        side = sensor.side
        self.camera_num = 0
        self.config: dict[str, Any] = {
            "network_file": network_file,
            "input_tensor_size": (side, side),
        }
        self.set_inference_roi_abs(tuple(_WHOLE))

    def set_inference_roi_abs(self, roi: tuple[int, ...]) -> None:
        """Cut to the sensor without a word, as picamera2 does."""
        taken = Rectangle(*roi).bounded_to(_WHOLE)
        self.config["roi"] = taken
        self._sensor.move(taken)

    def get_outputs(
        self, metadata: dict[str, Any], add_batch: bool = False
    ) -> list[npt.NDArray[np.float32]] | None:
        """The output tensors of a frame, or None."""
        values = metadata.get("CnnOutputTensor")
        if not values:
            return None
        flat = np.fromiter(values, dtype=np.float32)
        info = metadata["CnnOutputTensorInfo"]
        (count,) = struct.unpack_from("<I", info, _NAME)
        arrays, start = [], 0
        for number in range(count):
            place = _NAME + 4 + number * struct.calcsize(_TENSOR_INFO)
            size, dimensions, *shape = struct.unpack_from(_TENSOR_INFO, info, place)
            array = flat[start : start + size].reshape(shape[:dimensions], order="F")
            arrays.append(array[None] if add_batch else array)
            start += size
        return arrays

    @staticmethod
    def get_kpi_info(metadata: dict[str, Any]) -> tuple[float, float] | None:
        """(dnn, dsp) milliseconds; metadata have microseconds."""
        kpi = metadata.get("CnnKpiInfo")
        return None if kpi is None else (kpi[0] / 1000, kpi[1] / 1000)

    def input_tensor_image(self, input_tensor: bytes) -> npt.NDArray[np.uint8]:
        """(H, W, 3) of the planar tensor."""
        side = self._sensor.side
        planes = np.frombuffer(input_tensor, np.uint8).reshape(3, side, side)
        return np.moveaxis(planes[::-1], 0, 2)

    def show_network_fw_progress_bar(self) -> None:
        """Nothing is uploaded here."""


class SimulatedPicamera2:
    """`picamera2.Picamera2`."""

    def __init__(self, sensor: SimulatedSensor, camera_num: int = 0) -> None:
        self._sensor = sensor
        self._size, self._period, self._started = (640, 480), 1 / 30, 0.0
        self.running = False

    def create_preview_configuration(
        self, main: dict[str, Any], *, buffer_count: int = 4, controls: dict[str, Any]
    ) -> dict[str, Any]:
        """Only the arguments that are used; the real one has more."""
        return {"main": main, "buffer_count": buffer_count, "controls": controls}

    def start(self, config: dict[str, Any], show_preview: bool = False) -> None:
        """Frames come from now on."""
        self._size = tuple(config["main"]["size"])
        self._period = 1 / config["controls"]["FrameRate"]
        self._sensor.tensors &= bool(config["controls"].get("CnnEnableInputTensor"))
        self._started, self.running = time.monotonic(), True

    def stop(self) -> None:
        """No more frames."""
        self.running = False

    def close(self) -> None:
        """Give the camera back."""

    def capture_request(self) -> SimulatedRequest:
        """The next frame."""
        sensor = self._sensor
        due = sensor.frame * self._period
        if sensor.paced:
            time.sleep(max(self._started + due - time.monotonic(), 0))
        image, metadata = sensor.expose()
        metadata["SensorTimestamp"] = round(due * 1e9)
        view = Image.fromarray(image)
        if view.size != self._size:
            view = view.resize(self._size, Image.Resampling.BILINEAR)
        return SimulatedRequest(np.asarray(view), metadata)


class SimulatedRequest:
    """`picamera2.CompletedRequest`: everything about one frame."""

    def __init__(self, pixels: npt.NDArray[np.uint8], metadata: dict[str, Any]) -> None:
        self._pixels, self._metadata = pixels, metadata

    def make_array(self, name: str) -> npt.NDArray[np.uint8]:
        """(H, W, 3)."""
        return self._pixels

    def get_metadata(self) -> dict[str, Any]:
        """By name."""
        return self._metadata

    def release(self) -> None:
        """The frame is not needed any more."""


def scene_of(source: str) -> Scene:
    """What a sensor sees: a walk over an image, or a video again and again.

    `sample` is the bundled image. Raises `ImageError` if it cannot be read, `MissingExtraError`
    for a video without PyAV.
    """
    if Path(source).suffix.lower() in VIDEO_ENDINGS:
        return _ClipScene(source)
    if source == "sample":
        from picosam2.io.sample_image import sample

        return walk(sample())
    return walk(load_image(source))


def walk(image: npt.NDArray[np.uint8], share: float = 0.8, period: int = 600) -> Scene:
    """A camera that sways slowly over an image, of which it sees a `share`: once in `period`."""
    height, width = image.shape[:2]
    across = min(width, height * SENSOR_SIZE[0] / SENSOR_SIZE[1]) * share
    down = across * SENSOR_SIZE[1] / SENSOR_SIZE[0]
    size = max(round(across), 32), max(round(down), 24)
    still = Image.fromarray(image)

    def scene(frame: int) -> npt.NDArray[np.uint8]:
        turn = 2 * math.pi * frame / period
        x = (width - across) * (0.5 + 0.5 * math.sin(turn))
        y = (height - down) * (0.5 + 0.5 * math.sin(2 * turn))
        box = x, y, x + across, y + down
        return np.asarray(still.resize(size, Image.Resampling.BILINEAR, box=box))

    return scene


class _ClipScene:
    """A video that begins again when it ends; frames are asked for in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames = self._read()
        self._next: npt.NDArray[np.uint8] | None = next(self._frames)

    def __call__(self, frame: int) -> npt.NDArray[np.uint8]:
        pixels, self._next = self._next, None
        return next(self._frames) if pixels is None else pixels

    def _read(self) -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            with open_frames(self._name) as source:
                for frame in source:
                    yield _four_to_three(frame.pixels)


def _four_to_three(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The middle of an image, with the sensor's aspect."""
    height, width = image.shape[:2]
    across = min(width, round(height * SENSOR_SIZE[0] / SENSOR_SIZE[1]))
    down = min(height, round(width * SENSOR_SIZE[1] / SENSOR_SIZE[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return image[top : top + down, left : left + across]
