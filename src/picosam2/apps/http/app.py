"""The web application: pictures and prompts in, masks out.

A client sends bytes and numbers. No path, address or file name of a client's is ever opened, and
every request is bounded: its bytes, pixels, prompts and time (`Limits`). The network runs in a few
worker threads, so that slow uploads and fast clicks do not wait for each other.

Pages of other sites cannot use the server through a visitor's browser: bodies need a content type
that browsers send across sites only with leave, none is given, and the Host header must be one of
the server's own names, which a rebound DNS name is not.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, cast

import anyio.to_thread
import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from picosam2.apps.hosts import LOCAL_NAMES
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.metrics import CONTENT_TYPE, Metrics
from picosam2.apps.http.openapi import document
from picosam2.apps.http.sessions import Sessions
from picosam2.errors import PicoSAM2Error, PromptError
from picosam2.images import load_image
from picosam2.io.formats import indexed_png
from picosam2.predictor import MULTIMASKS, Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import Segmentation, encode_picture, overlay

FORMATS = ("json", "mask", "overlay", "cutout")
"""What an answer can be."""

_LOG = logging.getLogger("picosam2.apps.http")
_OPTIONS = ("image", "prompts", "multimask", "format")
_MAX_AT_ONCE = 25_000_000  # pixels of logits, 4 bytes each, in one worker
_MAX_MASK_PIXELS = 200_000_000  # of the masks that are drawn in one picture, 1 byte each
_MAX_DECIMAL = 64  # characters of a coordinate pair in a query
_Result = TypeVar("_Result")


class RequestError(Exception):
    """A request that is answered with an error: a status and one sentence."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a request wants, once read and checked."""

    image: bytes | None
    prompts: tuple[Prompt, ...]
    multimask: bool
    format: Literal["json", "mask", "overlay", "cutout"]


def create_app(
    predictor: Predictor,
    limits: Limits | None = None,
    *,
    workers: int = 2,
    hosts: Collection[str] = LOCAL_NAMES,
) -> Starlette:
    """The ASGI application.

    Args:
        predictor: what answers; its runtime must allow calls from several threads.
        limits: bounds on requests.
        workers: how many requests use the network at once.
        hosts: the names in the Host header that are answered, without a port.
    """
    server = _Server(predictor, limits or Limits(), workers, frozenset(hosts))
    return Starlette(
        routes=[
            Route("/", server.index, methods=["GET"]),
            Route("/health", server.health, methods=["GET"]),
            Route("/metrics", server.metrics, methods=["GET"]),
            Route("/openapi.json", server.openapi, methods=["GET"]),
            Route("/v1/segment", server.segment, methods=["POST"]),
            Route("/v1/sessions", server.open_session, methods=["POST"]),
            Route("/v1/sessions/{session}/segment", server.segment_session, methods=["POST"]),
            Route("/v1/sessions/{session}", server.close_session, methods=["DELETE"]),
        ],
        exception_handlers={404: _not_found, 405: _wrong_method},
    )


class _Server:
    def __init__(
        self, predictor: Predictor, limits: Limits, workers: int, hosts: frozenset[str]
    ) -> None:
        self._predictor, self._limits, self._hosts = predictor, limits, hosts
        self._turn = asyncio.Semaphore(workers)
        self._waiting = 0
        self._sessions = Sessions(limits)
        self._metrics = Metrics()

    # -- what is answered --------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        """What this is."""
        return await self._answer(request, "/", self._index)

    async def health(self, request: Request) -> Response:
        """Whether it runs."""
        return await self._answer(request, "/health", self._health)

    async def metrics(self, request: Request) -> Response:
        """Counts, for Prometheus."""
        return await self._answer(request, "/metrics", self._count)

    async def openapi(self, request: Request) -> Response:
        """The description of all this."""
        return await self._answer(request, "/openapi.json", self._describe)

    async def segment(self, request: Request) -> Response:
        """A picture and prompts in one request."""
        return await self._answer(request, "/v1/segment", self._segment)

    async def open_session(self, request: Request) -> Response:
        """Keep a picture."""
        return await self._answer(request, "/v1/sessions", self._open)

    async def segment_session(self, request: Request) -> Response:
        """Prompts on a kept picture."""
        return await self._answer(request, "/v1/sessions/{session}/segment", self._segment_kept)

    async def close_session(self, request: Request) -> Response:
        """Forget a picture."""
        return await self._answer(request, "/v1/sessions/{session}", self._close)

    async def _answer(
        self, request: Request, route: str, work: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """The answer to a request, or an error as JSON; counted."""
        started = time.perf_counter()
        self._metrics.in_flight += 1
        try:
            self._check_host(request)
            response = await work(request)
        except RequestError as refused:
            response = _error(refused.status, refused.message, refused.headers)
        except PicoSAM2Error as error:
            response = _error(400, str(error))
        except ClientDisconnect:
            response = _error(400, "the client went away")
        except Exception:
            _LOG.exception("%s failed", route)
            response = _error(500, "the server made a mistake: its log says more")
        finally:
            self._metrics.in_flight -= 1
        self._metrics.took(route, response.status_code, time.perf_counter() - started)
        return response

    def _check_host(self, request: Request) -> None:
        name = request.headers.get("host", "")
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        if name.lower() not in self._hosts:
            raise RequestError(421, "this server does not go by that name: use its own address")

    # -- small answers -----------------------------------------------------------------------

    async def _index(self, request: Request) -> Response:
        return JSONResponse({"name": "picosam2", "openapi": "/openapi.json"})

    async def _health(self, request: Request) -> Response:
        return JSONResponse(
            {"status": "ok", "weights": self._predictor.runtime.info.weights_sha256}
        )

    async def _count(self, request: Request) -> Response:
        gauges: dict[str, tuple[str, float]] = {
            "sessions": ("Pictures kept.", len(self._sessions)),
            "session_pixels": ("Pixels of the pictures kept.", self._sessions.pixels),
        }
        if (memory := resident_memory()) is not None:
            gauges["resident_memory_bytes"] = ("Memory of the process.", memory)
        return Response(self._metrics.text(gauges), headers={"content-type": CONTENT_TYPE})

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(document(self._limits))

    # -- pictures and masks ------------------------------------------------------------------

    async def _segment(self, request: Request) -> Response:
        asked = await self._read(request)
        if asked.image is None:
            raise RequestError(400, "there is no picture: send its bytes, or base64 in 'image'")
        data = asked.image

        def work() -> Response:
            return self._masks(load_image(data, max_pixels=self._limits.pixels), asked)

        return await self._run(work)

    async def _open(self, request: Request) -> Response:
        asked = await self._read(request, prompts=False)
        if asked.image is None:
            raise RequestError(400, "there is no picture: send its bytes, or base64 in 'image'")
        load = partial(load_image, asked.image, max_pixels=self._limits.pixels)
        picture = await self._run(load)
        name = self._sessions.add(picture)
        height, width = picture.shape[:2]
        seconds = self._limits.session_seconds
        return JSONResponse(
            {"session": name, "width": width, "height": height, "expires_in": seconds},
            status_code=201,
            headers={"location": f"/v1/sessions/{name}"},
        )

    async def _segment_kept(self, request: Request) -> Response:
        picture = self._sessions.get(request.path_params["session"])
        if picture is None:
            raise RequestError(404, "there is no such session (any more): send the picture again")
        asked = await self._read(request)
        if asked.image is not None:
            raise RequestError(400, "this session has its picture: leave 'image' out")
        return await self._run(partial(self._masks, picture, asked))

    async def _close(self, request: Request) -> Response:
        if not self._sessions.drop(request.path_params["session"]):
            raise RequestError(404, "there is no such session (any more)")
        return Response(status_code=204)

    def _masks(self, picture: npt.NDArray[np.uint8], asked: _Asked) -> Response:
        """The answer itself; in a worker thread."""
        height, width = picture.shape[:2]
        found = self._found(picture, asked)
        if asked.format == "json":
            masks = [one.to_json() for one in found]
            return JSONResponse({"width": width, "height": height, "masks": masks})
        if asked.format == "cutout":
            if len(asked.prompts) > 1 or asked.multimask:
                raise RequestError(400, "a cutout shows one object: send one prompt")
            data = encode_picture(next(found).cutout(), "PNG")
        else:
            count = len(asked.prompts) * (MULTIMASKS if asked.multimask else 1)
            if count * height * width > _MAX_MASK_PIXELS:
                raise RequestError(400, "these are too many masks for one picture: ask for json")
            data = _picture(picture, [replace(one, logits=None) for one in found], asked.format)
        return Response(data, media_type="image/png")

    def _found(self, picture: npt.NDArray[np.uint8], asked: _Asked) -> Iterator[Segmentation]:
        """The masks, made a few at a time, so that memory does not grow with their number."""
        height, width = picture.shape[:2]
        deadline = time.monotonic() + self._limits.seconds
        step = max(_MAX_AT_ONCE // (height * width), 1)
        for i in range(0, len(asked.prompts), step):
            if time.monotonic() > deadline:
                raise RequestError(503, "this took too long: send fewer prompts")
            prompts = [cut_box(prompt, height, width) for prompt in asked.prompts[i : i + step]]
            yield from self._predictor(picture, prompts=prompts, multimask=asked.multimask)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        """Run something slow in a worker thread, once it is its turn."""
        if self._waiting >= self._limits.queue:
            raise RequestError(503, "the server is busy: try again soon", {"retry-after": "1"})
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise RequestError(
                503, "the server is busy: try again soon", {"retry-after": "1"}
            ) from None
        finally:
            self._waiting -= 1
        try:
            # A thread cannot be stopped; its turn lasts until it is done, client or no client.
            return await anyio.to_thread.run_sync(work)
        finally:
            self._turn.release()

    # -- reading a request -------------------------------------------------------------------

    async def _read(self, request: Request, *, prompts: bool = True) -> _Asked:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            body = await self._body(request)
            return self._from_json(await self._run(partial(_parse, body)), prompts)
        if kind.startswith("image/") or kind == "application/octet-stream":
            body = await self._body(request)
            return self._from_query(request, body or None, prompts)
        raise RequestError(
            415,
            "send a picture as image/jpeg, image/png, ..., or a JSON object as application/json",
        )

    async def _body(self, request: Request) -> bytes:
        """The body, never more of it than the limit."""
        limit = self._limits.body
        too_large = RequestError(413, f"the body is too large: send at most {limit:,} bytes")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > limit):
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise RequestError(408, "the body took too long to arrive") from None
        return b"".join(parts)

    def _from_json(self, value: Any, prompts: bool) -> _Asked:
        if not isinstance(value, dict):
            raise RequestError(400, "the body must be a JSON object")
        known = _OPTIONS if prompts else ("image",)
        if unknown := sorted(set(value) - set(known)):
            named = ascii(unknown[0][:40])
            raise RequestError(400, f"there is no key {named}: use {', '.join(known)}")
        image = value.get("image")
        if image is not None:
            if not isinstance(image, str):
                raise RequestError(400, "'image' must be a picture's bytes in base64")
            try:
                image = base64.b64decode(image, validate=True)
            except (binascii.Error, ValueError):
                raise RequestError(400, "'image' is not base64") from None
        if not prompts:
            return _Asked(image, (), False, "json")
        given = value.get("prompts")
        if not isinstance(given, list):
            raise RequestError(400, "'prompts' must be a list of objects with 'points' or 'box'")
        self._check_count(len(given), sum(_count_points(one) for one in given))
        multimask = value.get("multimask", False)
        if not isinstance(multimask, bool):
            raise RequestError(400, "'multimask' must be true or false")
        read = tuple(Prompt.from_json(one) for one in given)
        return _Asked(image, read, multimask, _format(value.get("format", "json")))

    def _from_query(self, request: Request, image: bytes | None, prompts: bool) -> _Asked:
        query = request.query_params
        known = ("point", "box", "multimask", "format") if prompts else ()
        if unknown := sorted(set(query) - set(known)):
            named = ascii(unknown[0][:40])
            raise RequestError(
                400, f"there is no parameter {named}: use {', '.join(known) or 'none'}"
            )
        if not prompts:
            return _Asked(image, (), False, "json")
        points, boxes = query.getlist("point"), query.getlist("box")
        self._check_count(len(points) + len(boxes), len(points))
        if any(len(text) > _MAX_DECIMAL for text in (*points, *boxes)):
            raise RequestError(400, "a coordinate has too many digits")
        multimask = query.get("multimask", "false")
        if multimask not in ("true", "false"):
            raise RequestError(400, "'multimask' must be true or false")
        read = [Prompt((Point.parse(text),)) for text in points]
        read += [Prompt(box=Box.parse(text)) for text in boxes]
        return _Asked(image, tuple(read), multimask == "true", _format(query.get("format", "json")))

    def _check_count(self, prompts: int, points: int) -> None:
        if not prompts:
            raise PromptError("there is no prompt: give at least one point or box")
        if prompts > self._limits.prompts:
            raise RequestError(
                400, f"{prompts} prompts are too many: send up to {self._limits.prompts}"
            )
        if points > self._limits.points:
            raise RequestError(
                400, f"{points} points are too many: send up to {self._limits.points}"
            )


def resident_memory() -> int | None:
    """Bytes of memory that this process has; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _parse(body: bytes) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not JSON") from None


def _count_points(value: Any) -> int:
    points = value.get("points") if isinstance(value, dict) else None
    return len(points) if isinstance(points, list) else 0


def _format(value: Any) -> Literal["json", "mask", "overlay", "cutout"]:
    if value not in FORMATS:
        raise RequestError(400, f"'format' must be one of {', '.join(FORMATS)}")
    return cast(Literal["json", "mask", "overlay", "cutout"], value)


def cut_box(prompt: Prompt, height: int, width: int) -> Prompt:
    """The prompt with its box cut to the picture; one that lies outside is left to the check."""
    box = prompt.box
    if box is None or box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height:
        return prompt
    cut = Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))
    return Prompt(prompt.points, cut)


def _picture(
    picture: npt.NDArray[np.uint8],
    found: Sequence[Segmentation],
    form: Literal["mask", "overlay"],
) -> bytes:
    """Masks as a PNG file's bytes."""
    if form == "overlay":
        return encode_picture(overlay(picture, found), "PNG")
    if len(found) > 1:
        return indexed_png([one.mask for one in found])
    return encode_picture(found[0].mask_image(), "PNG")


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=headers)


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(404, "there is nothing here: /openapi.json says what there is")


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = getattr(error, "headers", None)
    return _error(405, "that method means nothing here: /openapi.json says which does", headers)
