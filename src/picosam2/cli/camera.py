"""`picosam2 camera`: the Raspberry Pi AI Camera, with the network inside its sensor."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import Weights
from picosam2.cli._targets import check_files
from picosam2.errors import CameraError, ConfigError

if TYPE_CHECKING:
    import socket

    from picosam2.apps.camera.sensor import Devices
    from picosam2.apps.camera.session import CameraView, Session
    from picosam2.predictor import Predictor

HOST, PORT = "127.0.0.1", 8429


def camera(
    network: Annotated[Path | None, Parameter(name="NETWORK")] = None,
    *,
    point: Annotated[str | None, Parameter(allow_leading_hyphen=True, metavar="X,Y")] = None,
    box: Annotated[str | None, Parameter(allow_leading_hyphen=True, metavar="X0,Y0,X1,Y1")] = None,
    scale: Annotated[int | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    record: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    frames: Annotated[int | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    page: Annotated[bool, Parameter(negative="--no-page")] = True,
    host: str = HOST,
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = PORT,
    allow_host: Annotated[list[str] | None, Parameter(negative=(), metavar="NAME")] = None,
    size: Annotated[str, Parameter(metavar="WxH")] = "640x480",
    rate: Annotated[float, Parameter(validator=Number(gt=0, lte=120), metavar="FPS")] = 30,
    settle: Annotated[int, Parameter(validator=Number(gte=1), metavar="N")] = 8,
    weights: Weights = "default",
    simulate: Annotated[str | None, Parameter(metavar="IMAGE|CLIP")] = None,
) -> int:
    """Point at things in front of a Raspberry Pi AI Camera: the mask comes from its sensor.

    Opens a live view at http://127.0.0.1:8429, until Ctrl C. A click or a box there moves the part
    of the image that the network in the sensor sees, which is what a prompt is to this network;
    the object is then followed. NETWORK is the .rpk file that `imx500-package` made on the Pi from
    the packerOut.zip of `picosam2 export imx500`. The guide "camera" has every step.

    Without the camera: `picosam2 camera --simulate sample`, or an image or video of yours.

    Args:
        network: The network, packed for the sensor (.rpk).
        point: Click here at the start, in pixels of the frame.
        box: Or draw this box.
        scale: How large a click's object is, from 1. By default all sizes are tried, one after
            another, and the best is chosen.
        record: Write what is shown to a video (.mp4, .mov, .mkv, .webm). An extra: video.
        frames: Stop after this many frames.
        page: Serve the live view, or only do what the options say. The page is an extra: serve.
        host: The address to listen on. Only this machine reaches 127.0.0.1; there is no password,
            so think before you choose another.
        port: The port; 0 takes any.
        allow_host: A further name by which the page may be called. Repeatable.
        size: Width and height of the frames. 4:3 shows all that the sensor sees.
        rate: Frames a second.
        settle: Frames until the sensor surely looks through a new window, for networks that do not
            send their image along.
        weights: Shipped weights by name, or a file: those that NETWORK was made from.
        simulate: Do without the camera: look at an image, a video or `sample`, and run the weights
            on this computer, rounded to 8 bits as the sensor's output is.
    """
    from picosam2.apps.camera.sensor import check_frame_size
    from picosam2.apps.listener import listen
    from picosam2.io.video_files import read_size
    from picosam2.prompts import Box, Point, Prompt

    if (network is None) == (simulate is None):
        raise CameraError(
            "name the network for the sensor (network.rpk), or --simulate IMAGE without a sensor"
        )
    if point is not None and box is not None:
        raise ConfigError("begin with --point or with --box, not with both")
    click = None if point is None else Point.parse(point)
    rectangle = None if box is None else Box.parse(box)
    frame_size = read_size(size)
    check_frame_size(frame_size)
    if click is not None or rectangle is not None:
        first = Prompt(() if click is None else (click,), rectangle)
        first.clipped(*frame_size[::-1])  # outside of the frame it is refused
    if not page and (host != HOST or port != PORT or allow_host):
        raise ConfigError("--host, --port and --allow-host are for the page, not for --no-page")
    if not page and frames is None and record is None:
        raise ConfigError("--no-page has nothing to show: add --record FILE, or --frames N")
    if record is not None:
        from picosam2.io.video_files import check_video_name

        check_video_name(record)
        check_files(record, kept=[simulate])
    if page:
        from picosam2.errors import require

        for module in ("starlette", "uvicorn"):
            require(module, "serve")

    from picosam2.apps.camera.sensor import AiCamera, Devices
    from picosam2.apps.camera.session import Session
    from picosam2.apps.camera.view import RunCounts
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    with ExitStack() as stack:
        listener = stack.enter_context(listen(host, port)) if page else None
        devices = Devices.real() if simulate is None else None
        predictor = Predictor(weights, threads=1)
        if scale is not None:
            scales = len(predictor.click_windows(Point(0, 0), *frame_size[::-1]))
            if scale > scales:
                raise ConfigError(
                    f"there is no --scale {scale} with these weights: choose from 1 to {scales}"
                )
        if simulate is not None:
            # What is in the sensor then are the weights themselves.
            network = find_weights(weights)
            devices = _simulated(simulate, predictor, paced=page)
        assert network is not None
        source = stack.enter_context(
            AiCamera(network, predictor.runtime.info, size=frame_size, rate=rate, devices=devices)
        )
        session = Session(source, predictor, settle=settle)
        if scale is not None:
            session.scale = scale - 1
        if click is not None:
            session.point(click)
        if rectangle is not None:
            session.box(rectangle)
        counts = RunCounts()
        sinks: list[Callable[[CameraView], None]] = [counts.add]
        if record is not None:
            sinks.append(_recorder(stack, record, rate))
        if listener is not None:
            _serve(session, sinks, frames, listener, host, allow_host or (), simulate is not None)
        else:
            try:
                _run(session, sinks, frames, threading.Event())
            except KeyboardInterrupt:
                print("picosam2: stopped", file=sys.stderr)
        if session.note:
            print(f"picosam2: {session.note}", file=sys.stderr)
    where = f"{record}: " if record is not None else ""
    print(f"{where}{counts.summary(simulated=simulate is not None)}")
    return 0


def _run(
    session: Session,
    sinks: list[Callable[[CameraView], None]],
    frames: int | None,
    stop: threading.Event,
) -> None:
    """Frame after frame, until there were enough or it is told to stop."""
    count = 0
    while not stop.is_set() and count != frames:
        view = session.step()
        for sink in sinks:
            sink(view)
        count += 1


def _serve(
    session: Session,
    sinks: list[Callable[[CameraView], None]],
    frames: int | None,
    listener: socket.socket,
    host: str,
    names: list[str] | tuple[()],
    simulated: bool,
) -> None:
    """The page here, the camera in a thread of its own; until either ends."""
    import uvicorn

    from picosam2.apps.camera.page import Feed, create_app
    from picosam2.apps.hosts import LOCAL_NAMES, served_names, url_host
    from picosam2.apps.http.connections import guarded_protocol
    from picosam2.apps.http.limits import Limits

    name = url_host(host)
    feed = Feed()
    hosts = served_names(host, names)
    app = create_app(session, feed, hosts=hosts, simulated=simulated)
    config = uvicorn.Config(
        app,
        http=guarded_protocol(Limits()),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    stop, failed = threading.Event(), []

    def frames_come() -> None:
        try:
            _run(session, [*sinks, feed.publish], frames, stop)
        except BaseException as error:  # told to the user by the main thread
            failed.append(error)
        finally:
            feed.close()
            server.should_exit = True

    if name not in LOCAL_NAMES:
        print("picosam2: other machines may see this camera", file=sys.stderr)
    listener.listen(128)  # so that who reads the next line can call at once
    print(f"http://{name}:{listener.getsockname()[1]}\nCtrl C stops it.", flush=True)
    thread = threading.Thread(target=frames_come, name="camera", daemon=True)
    thread.start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        print()
    finally:
        stop.set()
        feed.close()
        thread.join(timeout=5)
    if failed:
        raise failed[0]


def _simulated(source: str, predictor: Predictor, *, paced: bool) -> Devices:
    """Stands for picamera2 and a sensor that sees an image or video."""
    from picosam2.apps.camera.simulated import SimulatedSensor, scene_of

    runtime = predictor.runtime
    sensor = SimulatedSensor(
        scene_of(source),
        lambda crop: runtime(crop[None])[0],
        side=runtime.info.input_size,
        paced=paced,
    )
    return sensor.devices


def _recorder(stack: ExitStack, path: Path, rate: float) -> Callable[[CameraView], None]:
    """Writes what is shown to a video, which is there once the stack is left, whole."""
    import numpy as np

    from picosam2._files import atomic_write
    from picosam2.apps.camera.view import draw_view
    from picosam2.io.video_files import VideoWriter

    writer = stack.enter_context(VideoWriter(stack.enter_context(atomic_write(path)), rate))
    begun: list[float] = []

    def write(view: CameraView) -> None:
        if not begun:
            begun.append(view.frame.time)
        writer.write(np.asarray(draw_view(view)), view.frame.time - begun[0])

    return write
