"""The AI Camera through picamera2: frames with the network's answers out, windows in.

What is known of picamera2 is from its source at
https://github.com/raspberrypi/picamera2 (picamera2/devices/imx500/imx500.py, request.py and
picamera2.py, releases of 2024 and 2025):

    IMX500(network_file, camera_id="")          before Picamera2 is made; RuntimeError without one
        .camera_num, .config["input_tensor_size"] (width, height), .config["roi"]
        .set_inference_roi_abs((left, top, width, height))   pixels of the full sensor, 4056 x 3040
        .get_outputs(metadata, add_batch=False)  arrays of float32, or None with this frame
        .get_kpi_info(metadata)                  (dnn, dsp) milliseconds, or None
        .input_tensor_image(tensor)              (H, W, 3) uint8 of metadata["CnnInputTensor"]
        .show_network_fw_progress_bar()
    Picamera2(camera_num)
        .create_preview_configuration(main={}, ..., buffer_count=4, controls={}, ...)
        .start(config, show_preview=False), .stop(), .close()
        .capture_request() -> .make_array("main"), .get_metadata(), .release()

picamera2 comes with Raspberry Pi OS, not from PyPI, and only there.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import CameraError, ConfigError, PromptError
from picosam2.geometry import Window, sensor_window
from picosam2.runtimes.protocol import RuntimeInfo

SENSOR_SIZE = 4056, 3040
"""Width and height of the whole sensor in pixels: the units of its ROI."""

_BUFFERS = 12  # what picamera2's own examples ask for: inference data is held with the frames
_SILENT = 300  # frames without any answer before that is called an error
_INSTALL = "sudo apt install -y python3-picamera2 imx500-all"


@dataclass(frozen=True, eq=False)
class SensorFrame:
    """One frame, and the answer that came with it, if one did.

    index: counted from 0.
    time: seconds of the sensor's clock.
    pixels: (H, W, 3) uint8 RGB.
    logits: (K, S, S) float32, or None.
    seen: the image (S, S, 3) uint8 that the network saw, or None.
    kpi: what the sensor says it spent on the network and on its output, milliseconds, or None.
    """

    index: int
    time: float
    pixels: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32] | None
    seen: npt.NDArray[np.uint8] | None
    kpi: tuple[float, float] | None


@dataclass(frozen=True)
class Devices:
    """The two classes of picamera2 that are used, or what stands for them."""

    imx500: Callable[[str], Any]
    picamera2: Callable[[int], Any]

    @staticmethod
    def real() -> Devices:
        """picamera2's own. `CameraError` if it is not installed."""
        try:
            imx500 = importlib.import_module("picamera2.devices.imx500").IMX500
            picamera2 = importlib.import_module("picamera2").Picamera2
        # A picamera2 that was built for another NumPy raises ValueError.
        except (ImportError, ValueError, AttributeError) as error:
            raise CameraError(
                f"picamera2 cannot be used ({error}): on a Raspberry Pi, `{_INSTALL}`, and run "
                "in a virtual environment made with --system-site-packages; elsewhere, "
                "--simulate IMAGE"
            ) from error
        return Devices(imx500, picamera2)


def check_frame_size(size: tuple[int, int]) -> None:
    """Raise `ConfigError` unless the sensor gives frames of this width and height."""
    if min(size) < 32 or size[0] > SENSOR_SIZE[0] or size[1] > SENSOR_SIZE[1]:
        raise ConfigError(
            f"the sensor gives no frames of {size[0]}x{size[1]}: choose from 32x32 to "
            f"{SENSOR_SIZE[0]}x{SENSOR_SIZE[1]}"
        )


class AiCamera:
    """A running camera with a network in its sensor. Use it in a `with` statement."""

    def __init__(
        self,
        network: str | os.PathLike[str],
        info: RuntimeInfo,
        *,
        size: tuple[int, int] = (640, 480),
        rate: float = 30.0,
        devices: Devices | None = None,
    ) -> None:
        """Load a network into the sensor and start the camera. The first time takes minutes.

        Args:
            network: the .rpk file that `imx500-package` made.
            info: of the weights that the network was made from.
            size: width and height of the frames, pixels. 4:3 shows all that the sensor sees.
            rate: frames a second.
            devices: picamera2's classes, or what stands for them.

        Raises:
            CameraError: no picamera2, no such camera, or the file holds another network.
            ConfigError: a size that makes no sense.
        """
        check_frame_size(size)
        self._network = Path(network)
        if not self._network.is_file():
            raise CameraError(
                f"there is no network at {network}: on the Pi, `imx500-package -i packerOut.zip "
                "-o FOLDER` makes FOLDER/network.rpk"
            )
        self.width, self.height = size
        self._info = info
        self._silent = self._index = 0
        self._heard = False
        self._view = Window(0, 0, *SENSOR_SIZE)
        devices = devices or Devices.real()
        self._camera: Any = None
        try:
            # picamera2 wants them in this order.
            self._sensor = devices.imx500(str(self._network))
            self._check_input()
            self._camera = devices.picamera2(self._sensor.camera_num)
            config = self._camera.create_preview_configuration(
                # picamera2 names formats by the bytes' significance: these arrays are R, G, B.
                main={"size": size, "format": "BGR888"},
                controls={"FrameRate": rate, "CnnEnableInputTensor": True},
                buffer_count=_BUFFERS,
            )
            self._sensor.show_network_fw_progress_bar()
            self._camera.start(config, show_preview=False)
        except CameraError:
            self.close()
            raise
        except Exception as error:  # picamera2, libcamera and the file's parser have many kinds
            self.close()
            reason = str(error) or type(error).__name__
            raise CameraError(
                f"the AI Camera cannot be started with {network} ({reason}): check that it is "
                f"connected (`rpicam-hello --list-cameras` names imx500), that `{_INSTALL}` has "
                "been run, and that no other program uses it"
            ) from error

    def __enter__(self) -> AiCamera:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the camera."""
        if self._camera is not None:
            self._camera.stop()
            self._camera.close()
            self._camera = None

    @property
    def frame_window(self) -> Window:
        """All of the frame: where the sensor looks before it is told otherwise."""
        return Window(0, 0, self.width, self.height)

    def read(self) -> SensorFrame:
        """Wait for the next frame.

        Raises `CameraError` if the network's output is not that of the weights, or never comes.
        """
        request = self._camera.capture_request()
        try:
            metadata = request.get_metadata()
            pixels = np.ascontiguousarray(request.make_array("main")[..., :3])
        finally:
            request.release()
        # The part of the sensor that the frames show, in the ROI's own units.
        if crop := metadata.get("ScalerCrop"):
            x, y, width, height = crop
            self._view = Window(x, y, x + width, y + height)
        outputs = self._sensor.get_outputs(metadata)
        logits = None if outputs is None else self._logits(outputs)
        self._check_heard(logits is not None)
        tensor = metadata.get("CnnInputTensor")
        seen = None
        if logits is not None and tensor is not None:
            seen = np.asarray(self._sensor.input_tensor_image(tensor), np.uint8)
        frame = SensorFrame(
            index=self._index,
            time=metadata.get("SensorTimestamp", 0) / 1e9,
            pixels=pixels,
            logits=logits,
            seen=seen,
            kpi=self._sensor.get_kpi_info(metadata),
        )
        self._index += 1
        return frame

    def look(self, window: Window) -> Window:
        """Move the sensor's ROI to a window of the frame, (x, y) in pixels of the frame.

        The ROI must lie inside the frame, so the window is shrunk about its center as
        `geometry.sensor_window` does; it is whole pixels of the sensor, and at least as many as
        the network takes in. Returns the window that it really is.

        Raises `PromptError` if the window's center is outside of the frame, or so near its edge
        that too little is left; `CameraError` if the sensor refuses.
        """
        side, view = self._info.input_size, self._view
        scale_x, scale_y = view.width / self.width, view.height / self.height
        smallest = side / min(scale_x, scale_y)
        inside = sensor_window(window, self.height, self.width).at_least(smallest)
        if min(inside.x0, inside.y0, self.width - inside.x1, self.height - inside.y1) < -1e-6:
            raise PromptError(
                f"that is too near the edge of the frame: the sensor needs {side} of its own pixels"
            )
        left = round(view.x0 + inside.x0 * scale_x)
        top = round(view.y0 + inside.y0 * scale_y)
        right = round(view.x0 + inside.x1 * scale_x)
        bottom = round(view.y0 + inside.y1 * scale_y)
        roi = left, top, right - left, bottom - top
        self._sensor.set_inference_roi_abs(roi)
        # picamera2 cuts a ROI to the sensor, and only prints it if the driver refuses.
        taken = self._sensor.config.get("roi")
        if taken is None or (taken.x, taken.y, taken.width, taken.height) != roi:
            raise CameraError(f"the sensor does not take the ROI {roi}: start the camera again")
        return Window(
            (left - view.x0) / scale_x,
            (top - view.y0) / scale_y,
            (right - view.x0) / scale_x,
            (bottom - view.y0) / scale_y,
        )

    def _check_input(self) -> None:
        size = self._sensor.config.get("input_tensor_size")
        side = self._info.input_size
        if size is not None and tuple(size) != (side, side):
            raise self._foreign(f"takes images of {size[0]}x{size[1]}, not {side}x{side}")

    def _check_heard(self, answered: bool) -> None:
        self._heard |= answered
        self._silent = 0 if answered else self._silent + 1
        if self._silent > _SILENT:
            often = "no more answers come" if self._heard else "no answer has come"
            raise CameraError(
                f"{often} from the network in the sensor ({_SILENT} frames): start again, and if "
                f"that does not help pack {self._network} again"
            )

    def _logits(self, outputs: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """The network's output as (K, S', S'): channels come first or last, as packed."""
        side, channels = self._info.output_size, self._info.channels
        shapes = [np.shape(output) for output in outputs]
        if len(outputs) == 1:
            logits = np.asarray(outputs[0], np.float32)
            if logits.shape[:1] == (1,) and logits.ndim == 4:
                logits = logits[0]
            if logits.ndim == 2 and channels == 1:
                logits = logits[None]
            if logits.shape == (side, side, channels):
                logits = np.ascontiguousarray(np.moveaxis(logits, 2, 0))
            if logits.shape == (channels, side, side):
                return logits
        reason = " and ".join("x".join(map(str, shape)) for shape in shapes) or "nothing"
        raise self._foreign(f"gives {reason}, not {channels}x{side}x{side}")

    def _foreign(self, what: str) -> CameraError:
        return CameraError(
            f"{self._network} holds another network ({what}): pack the packerOut.zip of these "
            "weights, or name its own with --weights"
        )
