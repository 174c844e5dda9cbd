"""The live view in a browser: a stream of images out, clicks and boxes in.

A page rather than a window, because many Pis have no screen: it is served on 127.0.0.1, and from
another computer it is reached through `ssh -L`. Images are JPEGs in a multipart stream, which
every browser shows in an `<img>`. Nothing is drawn or encoded while nobody looks.

The network in the sensor answers prompts only. What there is to point at, a finder on this machine
says when the page asks: boxes, each of which is a prompt.

Pages of other sites get nothing: see `OwnHostOnly`.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Collection
from importlib import resources
from typing import Any

import anyio.to_thread
import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from picosam2.apps.camera.session import CameraView, Session
from picosam2.apps.camera.view import RunCounts, draw_view
from picosam2.apps.hosts import LOCAL_NAMES, OwnHostOnly
from picosam2.errors import PicoSAM2Error, PromptError
from picosam2.prompts import Prompt
from picosam2.results import encode_image
from picosam2.runtimes.finder import BoxFinder, opened_finder
from picosam2.tasks.finder import find_boxes

_BOUNDARY = "frame"
_MAX_BODY = 4096  # bytes of a command
_MOST_BOXES = 20  # more cannot be told apart on the view
_LEAST_OBJECTNESS = 0.3
_SAME_BOX = 0.5  # of boxes with a higher IoU the best is offered
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
    "script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Feed:
    """The last frame, for whoever looks. `publish` is called by the camera's thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._view: CameraView | None = None
        self._encoded: tuple[int, bytes] = (-1, b"")
        self._closed = False
        self.counts = RunCounts()

    @property
    def view(self) -> CameraView | None:
        """What the last frame was."""
        return self._view

    def publish(self, view: CameraView) -> None:
        """A new frame is there."""
        with self._changed:
            self._view = view
            self.counts.add(view)
            self._changed.notify_all()

    def close(self) -> None:
        """No more frames will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after(self, index: int, timeout: float = 1.0) -> tuple[int, bytes] | None:
        """The newest frame's number and JPEG, once it is not `index`; None once closed.

        After `timeout` seconds without one, the old frame again.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed or (self._view is not None and self._view.frame.index != index)
                ),
                timeout,
            )
            view = self._view
            if self._closed:
                return None
        if view is None:
            return index, b""
        with self._encoding:  # once for all who look
            if self._encoded[0] != view.frame.index:
                data = encode_image(draw_view(view), "JPEG")
                self._encoded = view.frame.index, data
            return self._encoded


def _shipped_finder() -> BoxFinder:
    return opened_finder(threads=1)


def create_app(
    session: Session,
    feed: Feed,
    *,
    hosts: Collection[str] = LOCAL_NAMES,
    simulated: bool = False,
    open_finder: Callable[[], BoxFinder] = _shipped_finder,
) -> Starlette:
    """The ASGI application.

    Args:
        session: what takes the clicks.
        feed: where its frames are published.
        hosts: the names in the Host header that are answered, without a port.
        simulated: whether to say on the page that there is no sensor.
        open_finder: opens what finds boxes, when the page first asks what there is.
    """
    page = _Page(session, feed, simulated, open_finder)
    return Starlette(
        routes=[
            Route("/", page.index, methods=["GET"]),
            Route("/stream", page.stream, methods=["GET"]),
            Route("/state", page.state, methods=["GET"]),
            Route("/objects", page.objects, methods=["GET"]),
            Route("/do", page.do, methods=["POST"]),
        ],
        middleware=[Middleware(OwnHostOnly, names=hosts)],
    )


class _Page:
    def __init__(
        self,
        session: Session,
        feed: Feed,
        simulated: bool,
        open_finder: Callable[[], BoxFinder],
    ) -> None:
        self._session, self._feed, self._simulated = session, feed, simulated
        self._open_finder = open_finder
        self._finding = threading.Lock()
        folder = resources.files("picosam2.apps.camera")
        self._html = (folder / "page.html").read_text("utf-8")

    async def index(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        return HTMLResponse(
            self._html.replace("{nonce}", nonce),
            headers={
                "content-security-policy": _POLICY.format(nonce=nonce),
                "cache-control": "no-store",
                "referrer-policy": "no-referrer",
                "x-content-type-options": "nosniff",
            },
        )

    async def stream(self, request: Request) -> Response:
        return StreamingResponse(
            self._images(),
            media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}",
            headers={"cache-control": "no-store", "x-content-type-options": "nosniff"},
        )

    async def _images(self) -> AsyncIterator[bytes]:
        index = -1
        while (newest := await anyio.to_thread.run_sync(self._feed.after, index)) is not None:
            fresh, data = newest
            if fresh != index and data:
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                yield f"{head}\r\n\r\n".encode() + data + b"\r\n"
            index = fresh

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._state(), headers={"cache-control": "no-store"})

    async def objects(self, request: Request) -> Response:
        """The boxes in which the newest frame seems to show an object, largest first."""
        view = self._feed.view
        if view is None:
            return _error(409, "no frame has come from the camera yet: ask again")
        if not self._finding.acquire(blocking=False):
            return _error(429, "the last question is being answered: ask again")
        pixels = view.frame.pixels
        try:
            boxes = await anyio.to_thread.run_sync(self._boxes, pixels)
        except PicoSAM2Error as error:
            return _error(503, str(error))
        finally:
            self._finding.release()
        height, width = pixels.shape[:2]
        return JSONResponse(
            {"boxes": boxes, "width": width, "height": height},
            headers={"cache-control": "no-store"},
        )

    def _boxes(self, pixels: npt.NDArray[np.uint8]) -> list[list[float]]:
        proposed = find_boxes(
            pixels, self._open_finder(), most=_MOST_BOXES, overlap=_SAME_BOX, parts=False
        )
        boxes = proposed.boxes[proposed.objectness >= _LEAST_OBJECTNESS].astype(float)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        kept: list[list[float]] = boxes[np.argsort(-areas)].round(1).tolist()
        return kept

    def _state(self) -> dict[str, Any]:
        view, counts = self._feed.view, self._feed.counts
        tracked = view.tracked if view is not None else None
        kpi = counts.kpi
        return {
            "state": view.state if view is not None else "starting",
            "step": view.step if view is not None else None,
            "score": round(tracked.score, 3) if tracked is not None and tracked.found else None,
            "note": self._session.note,
            "scale": self._session.scale,
            "scales": self._session.scales,
            "rate": round(counts.rate, 1),
            "dnn_ms": None if kpi is None else round(kpi[0], 2),
            "dsp_ms": None if kpi is None else round(kpi[1], 2),
            "simulated": self._simulated,
        }

    async def do(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _error(415, "send a JSON object as application/json")
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > _MAX_BODY:
                    return _error(413, f"a command has at most {_MAX_BODY:,} bytes")
        except ClientDisconnect:
            return _error(400, "the client went away")
        try:
            self._do(json.loads(body))
        except (ValueError, RecursionError):
            return _error(400, "the body is no JSON")
        except PicoSAM2Error as error:
            return _error(400, str(error))
        return JSONResponse(self._state())

    def _do(self, command: Any) -> None:
        """Do what the page asks for; the last case says what that may be."""
        session = self._session
        match command:
            case {"point": point, **rest} if not rest:
                session.point(Prompt.from_json({"points": [point]}).points[0])
            case {"box": corners, **rest} if not rest and corners is not None:
                box = Prompt.from_json({"box": corners}).clipped(*session.frame_size).box
                assert box is not None
                session.box(box)
            case {"scale": int() | None as scale, **rest} if not rest and scale is not True:
                session.scale = scale
            case {"forget": True, **rest} if not rest:
                session.forget()
            case _:
                raise PromptError(
                    'send {"point": [x, y]}, {"box": [x0, y0, x1, y1]}, {"scale": n} or '
                    '{"forget": true}'
                )


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)
