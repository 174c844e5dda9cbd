"""The camera: what is asked of picamera2, what is made of its answers, and what goes wrong."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picosam2 import geometry
from picosam2.apps.camera.sensor import SENSOR_SIZE, AiCamera, Devices
from picosam2.apps.camera.simulated import LOGIT_STEP, Rectangle, SimulatedSensor, eight_bit
from picosam2.errors import CameraError, ConfigError, PromptError
from picosam2.geometry import Window
from picosam2.runtimes.protocol import RuntimeInfo

INFO = RuntimeInfo(name="fake", input_size=96, channels=2, weights_sha256="0" * 64)
SCENE = np.random.default_rng(0).integers(0, 255, (304, 406, 3), np.uint8)


def ramp(_crop: np.ndarray) -> np.ndarray:
    """Logits that differ in every axis: a wrong order of them shows."""
    y, x = np.mgrid[:96, :96]
    return np.stack([y / 8 - 4, x / 8 - 4]).astype(np.float32)


@pytest.fixture
def network(tmp_path) -> Path:
    path = tmp_path / "network.rpk"
    path.write_bytes(b"9464")
    return path


def opened(network: Path, sensor: SimulatedSensor, info: RuntimeInfo = INFO, **how) -> AiCamera:
    return AiCamera(network, info, devices=sensor.devices, **how)


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_answers_come_dequantized_and_channels_first(network, layout):
    sensor = SimulatedSensor(lambda _: SCENE, ramp, layout=layout, first_answer=0, lag=0)
    with opened(network, sensor) as camera:
        frame = camera.read()
    assert frame.logits.shape == (2, 96, 96)
    assert frame.logits.dtype == np.float32
    np.testing.assert_allclose(frame.logits, eight_bit(ramp(SCENE)) * LOGIT_STEP)
    assert np.abs(frame.logits - ramp(SCENE)).max() <= LOGIT_STEP / 2


def test_frames_have_pixels_time_and_the_network_s_image(network):
    sensor = SimulatedSensor(lambda _: SCENE, ramp, first_answer=0, lag=0)
    sensor.kpi = 14.25, 0.5
    with opened(network, sensor, size=(406, 304), rate=20) as camera:
        frames = [camera.read() for _ in range(3)]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.05, 0.1])
    assert frames[0].kpi == (14.25, 0.5)
    np.testing.assert_array_equal(frames[0].pixels, SCENE)
    whole = geometry.crop(SCENE, Window(0, 0, 406, 304)).astype(float)
    assert np.corrcoef(frames[0].seen.ravel(), whole.ravel())[0, 1] > 0.99


def test_a_window_and_the_roi_are_the_same_place(network):
    """Half of the frame, in the sensor's own pixels; and what the network sees of it."""
    sensor = SimulatedSensor(lambda _: SCENE, ramp, first_answer=0, lag=0, roi_delay=0)
    with opened(network, sensor, size=(406, 304)) as camera:
        window = camera.look(Window(101.5, 76, 304.5, 228))
        frame = camera.read()
    assert sensor.roi == Rectangle(1014, 760, 2028, 1520)
    assert (window.x0, window.y0, window.x1, window.y1) == pytest.approx(
        (101.5, 76, 304.5, 228), abs=0.1
    )
    expected = geometry.crop(SCENE, window).astype(float)
    assert np.corrcoef(frame.seen.ravel(), expected.ravel())[0, 1] > 0.99


@given(
    x=st.floats(10, 630),
    y=st.floats(10, 470),
    width=st.floats(1, 900),
    height=st.floats(1, 900),
)
def test_a_roi_keeps_its_center_and_stays_inside(tmp_path_factory, x, y, width, height):
    path = tmp_path_factory.getbasetemp() / "any.rpk"
    path.touch()
    sensor = SimulatedSensor(lambda _: SCENE, ramp, roi_delay=0)
    camera = opened(path, sensor)
    wanted = Window(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    window = camera.look(wanted)
    sensor.expose()
    left, top, wide, high = sensor.roi
    assert 0 <= left < left + wide <= SENSOR_SIZE[0]
    assert 0 <= top < top + high <= SENSOR_SIZE[1]
    assert min(wide, high) >= 95
    pixel = 640 / SENSOR_SIZE[0]
    assert window.center == pytest.approx((x, y), abs=pixel)
    assert window.width == pytest.approx(wide * pixel)


def test_a_cropped_view_is_still_placed_right(network):
    """16:9 frames show a part of the sensor: `ScalerCrop` says which."""
    sensor = SimulatedSensor(lambda _: SCENE, ramp, roi_delay=0)
    expose = sensor.expose

    def cropped():
        image, metadata = expose()
        return image[38:266], metadata | {"ScalerCrop": (0, 380, 4056, 2280)}

    sensor.expose = cropped
    with opened(network, sensor, size=(640, 360)) as camera:
        camera.read()
        window = camera.look(Window(160, 90, 480, 270))
        camera.read()
    assert sensor.roi == Rectangle(1014, 950, 2028, 1140)
    assert (window.x0, window.y1) == pytest.approx((160, 270), abs=0.2)


@pytest.mark.parametrize("place", [(5, 100), (635, 100), (100, 3), (100, 477)])
def test_a_roi_too_near_the_edge(network, place):
    sensor = SimulatedSensor(lambda _: SCENE, ramp)
    x, y = place
    with opened(network, sensor) as camera, pytest.raises(PromptError, match="too near the edge"):
        camera.look(Window(x - 30, y - 30, x + 30, y + 30))


@pytest.mark.parametrize("place", [(-20, 100), (700, 100), (100, 481)])
def test_a_roi_outside_of_the_frame(network, place):
    sensor = SimulatedSensor(lambda _: SCENE, ramp)
    x, y = place
    with (
        opened(network, sensor) as camera,
        pytest.raises(PromptError, match=r"center .* must lie inside the 640x480 frame"),
    ):
        camera.look(Window(x - 10, y - 10, x + 10, y + 10))


def test_a_driver_that_refuses_the_roi(network, monkeypatch):
    """picamera2 only prints it: its own note of the ROI stays as it was."""
    sensor = SimulatedSensor(lambda _: SCENE, ramp)
    with opened(network, sensor) as camera:
        monkeypatch.setattr(type(camera._sensor), "set_inference_roi_abs", lambda *_: None)
        with pytest.raises(CameraError, match="does not take the ROI"):
            camera.look(Window(100, 100, 200, 200))


def test_the_camera_is_given_back(network):
    sensor = SimulatedSensor(lambda _: SCENE, ramp)
    with opened(network, sensor) as camera:
        device = camera._camera
        assert device.running
    assert not device.running


# -- bad input -----------------------------------------------------------------------------


def test_no_picamera2(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError, match="python3-picamera2 imx500-all") as caught:
        AiCamera(network, INFO)
    assert "--simulate" in str(caught.value)


def test_no_network_file(tmp_path):
    sensor = SimulatedSensor(lambda _: SCENE, ramp)
    with pytest.raises(CameraError, match=r"imx500-package -i packerOut\.zip"):
        opened(tmp_path / "none.rpk", sensor)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("IMX500: Requested camera dev-node not found"),
        StopIteration(),  # picamera2 looks for the camera's number with next()
        PermissionError(13, "Permission denied", "/sys/kernel/debug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_ai_camera(network, error):
    def missing(_file):
        raise error

    with pytest.raises(CameraError, match="check that it is connected") as caught:
        AiCamera(network, INFO, devices=Devices(missing, missing))
    assert (str(error) or "StopIteration") in str(caught.value)


def test_a_camera_that_does_not_start_is_closed(network):
    closed = []

    class Broken:
        def __init__(self, _number):
            pass

        def create_preview_configuration(self, **_):
            raise RuntimeError("Camera in use")

        def stop(self):
            closed.append("stop")

        def close(self):
            closed.append("close")

    sensor = SimulatedSensor(lambda _: SCENE, ramp)
    with pytest.raises(CameraError, match="Camera in use"):
        AiCamera(network, INFO, devices=Devices(sensor.devices.imx500, Broken))
    assert closed == ["stop", "close"]


def test_a_network_of_another_input_size(network):
    sensor = SimulatedSensor(lambda _: SCENE, ramp, side=320)
    with pytest.raises(CameraError, match="takes images of 320x320, not 96x96"):
        opened(network, sensor)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([np.zeros((96, 96, 21), np.float32)], "gives 96x96x21, not 2x96x96"),
        ([np.zeros((100, 4), np.float32), np.zeros(100, np.float32)], "gives 100x4 and 100"),
        ([], "gives nothing"),
    ],
)
def test_a_network_of_another_output(network, outputs, message):
    sensor = SimulatedSensor(lambda _: SCENE, ramp, first_answer=0, lag=0)
    with opened(network, sensor) as camera:
        camera._sensor = SimpleNamespace(get_outputs=lambda _: outputs, config={})
        with pytest.raises(CameraError, match=message):
            camera.read()


def test_logits_of_half_the_inputs_side(network):
    info = replace(INFO, output_size=48)
    sensor = SimulatedSensor(lambda _: SCENE, lambda crop: ramp(crop)[:, ::2, ::2], lag=0)
    with opened(network, sensor, info) as camera:
        while (result := camera.read().logits) is None:
            pass
        assert result.shape == (2, 48, 48)


def test_one_channel_may_come_without_its_axis(network):
    info = RuntimeInfo(name="fake", input_size=96, channels=1, weights_sha256="0" * 64)
    sensor = SimulatedSensor(lambda _: SCENE, ramp, first_answer=0, lag=0)
    with opened(network, sensor, info) as camera:
        camera._sensor.get_outputs = lambda _: [np.ones((96, 96), np.float32)]
        assert camera.read().logits.shape == (1, 96, 96)


@pytest.mark.parametrize(
    ("first", "message"), [(10_000, "no answer has come"), (0, "no more answers")]
)
def test_a_sensor_that_falls_silent(network, first, message):
    sensor = SimulatedSensor(lambda _: SCENE, ramp, first_answer=first)
    with opened(network, sensor, size=(64, 48)) as camera:
        for _ in range(5):
            camera.read()
        sensor.first_answer = 10_000
        with pytest.raises(CameraError, match=message):
            deque((camera.read() for _ in range(400)), maxlen=0)


@pytest.mark.parametrize("size", [(0, 480), (16, 16), (5000, 3000)])
def test_a_size_that_makes_no_sense(network, size):
    with pytest.raises(ConfigError, match="gives no frames of"):
        opened(network, SimulatedSensor(lambda _: SCENE, ramp), size=size)
