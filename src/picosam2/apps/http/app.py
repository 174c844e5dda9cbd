"""The web application: images and prompts in, masks out.

A client sends bytes and numbers. No path, address or file name of a client's is ever opened, and
every request is bounded: its bytes, pixels, prompts and time (`Limits`). Images are decoded in
processes that can be stopped, and the network runs in a few threads, so that slow uploads, hostile
images and fast clicks do not wait for each other.

Web pages of other sites cannot use the server through a visitor's browser: see `OwnHostOnly`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picosam2.apps.hosts import LOCAL_NAMES, OwnHostOnly
from picosam2.apps.http import anylabeling, label_studio
from picosam2.apps.http.bodies import read_image, read_kept, read_segment
from picosam2.apps.http.errors import RequestError, error_response
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.metrics import CONTENT_TYPE, Metrics
from picosam2.apps.http.schemas import (
    AllMasks,
    Error,
    EverythingQuery,
    Health,
    Index,
    Masks,
    SegmentBody,
    SegmentKept,
    SegmentQuery,
    Session,
    SessionBody,
    describe_mistake,
)
from picosam2.apps.http.service import Service
from picosam2.apps.http.sessions import Sessions
from picosam2.apps.http.token import TokenOnly
from picosam2.apps.http.turns import while_connected
from picosam2.errors import PicoSAM2Error
from picosam2.images import stored_size
from picosam2.predictor import Predictor

_LOG = logging.getLogger("picosam2.apps.http")


def create_app(
    predictor: Predictor,
    limits: Limits | None = None,
    *,
    workers: int = 2,
    threads: int | None = None,
    hosts: Collection[str] = LOCAL_NAMES,
    images: Path | None = None,
    token: str | None = None,
) -> FastAPI:
    """The ASGI application.

    Args:
        predictor: what answers; its runtime must allow calls from several threads.
        limits: bounds on requests.
        workers: how many requests use the network at once.
        threads: of the finder for one of them; by default as many as the process may use.
        hosts: the names in the Host header that are answered, without a port.
        images: the folder in which Label Studio's tasks name images; None for data URLs only.
        token: what every request but GET /health must bring; None if nothing.
    """
    limits = limits or Limits()
    sessions = Sessions(limits)
    metrics = Metrics(sessions)
    service = Service(predictor, limits, workers, threads)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="PicoSAM2",
        version=version("picosam2"),
        description="Point at things in an image, get their masks. Coordinates are pixels from the "
        "top left of the image as it is shown (EXIF turned).",
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(_Counted, metrics=metrics),
            Middleware(OwnHostOnly, names=hosts),
            Middleware(TokenOnly, token=token),
        ],
        exception_handlers={
            404: _not_found,
            405: _wrong_method,
            RequestError: _refused,
            PicoSAM2Error: _mistake,
            RequestValidationError: _wrong_query,
            ClientDisconnect: _gone,
        },
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
    )

    @app.get("/", response_model=Index)
    async def index() -> Response:
        """What this is."""
        return JSONResponse({"name": "picosam2", "openapi": "/openapi.json"})

    @app.get("/health", response_model=Health)
    async def health() -> Response:
        """Whether the server runs, and with which weights."""
        return JSONResponse({"status": "ok", "weights": predictor.runtime.info.weights_sha256})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Counts, for Prometheus."""
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.post("/v1/segment", responses=_MASKS, openapi_extra=_body(SegmentBody))
    async def segment(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
        """Masks of an image that comes with the request, prompts in the query or the body."""
        with service.bodies.holding() as held:
            service.check_room()
            data, job = await service.read(
                request, held, lambda body: read_segment(request, body, query, limits)
            )

            async def work() -> Response:
                async with service.image_turn(stored_size(data)):
                    image = await service.decode(data)
                    read = await service.with_masks(job, *image.shape[:2])
                    service.bodies.free(held)
                    return await service.masks(image, read)

            return await while_connected(request, work())

    @app.post("/v1/everything", responses=_ALL_MASKS, openapi_extra=_body(SessionBody))
    async def all_masks(request: Request, query: Annotated[EverythingQuery, Query()]) -> Response:
        """Masks of all objects of an image that comes with the request."""
        with service.bodies.holding() as held:
            service.check_room()
            data = await service.read(request, held, lambda body: read_image(request, body, limits))

            async def work() -> Response:
                async with service.image_turn(stored_size(data)):
                    image = await service.decode(data)
                    service.bodies.free(held)
                    return await service.everything(image, query)

            return await while_connected(request, work())

    @app.post(
        "/v1/sessions",
        status_code=201,
        responses={201: {"model": Session}},
        openapi_extra=_body(SessionBody),
    )
    async def open_session(request: Request) -> Response:
        """Keep an image, to click on it many times."""
        if request.url.query:
            name = next(iter(request.query_params), "")
            raise RequestError(400, f"there is no parameter {name[:40]!a}: use none")
        with service.bodies.holding() as held:
            service.check_room()
            data = await service.read(request, held, lambda body: read_image(request, body, limits))

            async def work() -> npt.NDArray[np.uint8]:
                async with service.image_turn(stored_size(data)):
                    return await service.decode(data)

            image = await while_connected(request, work())
        session = sessions.add(image)
        height, width = image.shape[:2]
        return JSONResponse(
            {
                "session": session,
                "width": width,
                "height": height,
                "expires_in": limits.session_seconds,
            },
            status_code=201,
            headers={"location": f"/v1/sessions/{session}"},
        )

    @app.post("/v1/sessions/{session}/segment", responses=_MASKS, openapi_extra=_body(SegmentKept))
    async def segment_session(request: Request, session: str) -> Response:
        """Masks of an image that is kept."""
        image = sessions.get(session)
        if image is None:
            raise RequestError(404, "there is no such session (any more): send the image again")
        with service.bodies.holding() as held:
            job = await service.read(request, held, lambda body: read_kept(request, body, limits))

            async def work() -> Response:
                if not any(prompt_request.mask is not None for prompt_request in job.prompts):
                    return await service.masks(image, job)
                async with service.image_turn(image.shape[:2]):
                    read = await service.with_masks(job, *image.shape[:2])
                    service.bodies.free(held)
                    return await service.masks(image, read)

            return await while_connected(request, work())

    @app.post("/v1/sessions/{session}/everything", responses=_ALL_MASKS)
    async def all_masks_of_session(
        request: Request, session: str, query: Annotated[EverythingQuery, Query()]
    ) -> Response:
        """Masks of all objects of an image that is kept."""
        image = sessions.get(session)
        if image is None:
            raise RequestError(404, "there is no such session (any more): send the image again")
        return await while_connected(request, service.everything(image, query))

    @app.delete("/v1/sessions/{session}", status_code=204)
    async def close_session(session: str) -> Response:
        """Forget an image."""
        if not sessions.drop(session):
            raise RequestError(404, "there is no such session (any more)")
        return Response(status_code=204)

    label_studio.add_routes(app, service, limits, predictor.runtime.info.weights_sha256, images)
    anylabeling.add_routes(app, service, limits)
    _describe_limits(app, limits)
    return app


class _Counted:
    """ASGI middleware that counts requests, and answers those on which the server fails."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, note)
        except Exception:
            _LOG.exception("a request failed")
            if not status:
                response = error_response(500, "the server made a mistake: its log says more")
                await response(scope, receive, note)
        finally:
            self._metrics.in_flight.dec()
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.count(route, status, time.perf_counter() - started)


# -- mistakes ----------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error.status, error.message, error.headers)


async def _mistake(request: Request, error: Exception) -> Response:
    return error_response(400, str(error))


async def _wrong_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistake = dict(error.errors()[0])
    mistake["loc"] = mistake["loc"][1:]
    model = EverythingQuery if request.url.path.endswith("/everything") else SegmentQuery
    names = list(model.model_fields)
    return error_response(400, describe_mistake(mistake, names, "parameter"))


async def _gone(request: Request, error: Exception) -> Response:
    return error_response(400, "the client went away")


async def _not_found(request: Request, error: Exception) -> Response:
    return error_response(404, "there is nothing here: /openapi.json says what there is")


async def _wrong_method(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "that method means nothing here: /openapi.json says which does"
    return error_response(405, message, error.headers)


# -- the OpenAPI document ------------------------------------------------------------------------

_MASKS: dict[int | str, dict[str, Any]] = {
    200: {"model": Masks, "content": {"image/png": {}}, "description": "The masks."}
}


_ALL_MASKS: dict[int | str, dict[str, Any]] = {
    200: {"model": AllMasks, "content": {"image/png": {}}, "description": "The masks."}
}


def _body(model: type[SegmentKept] | type[SessionBody]) -> dict[str, Any]:
    """The request body in OpenAPI's form: the model as JSON, and an image if it has one."""
    content: dict[str, Any] = {
        "application/json": {
            "schema": model.model_json_schema(ref_template="#/components/schemas/{model}")
        }
    }
    if "image" in model.model_fields:
        binary = {"schema": {"type": "string", "format": "binary"}}
        form = {"type": "object", "properties": {"image": binary["schema"]}, "required": ["image"]}
        content |= {
            "image/*": binary,
            "application/octet-stream": binary,
            "multipart/form-data": {"schema": form},
        }
    return {"requestBody": {"required": True, "content": content}}


def _describe_limits(app: FastAPI, limits: Limits) -> None:
    """Add the limits to the document, and move the models of bodies to where all models are."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        models = document["components"]["schemas"]
        for path in document["paths"].values():
            for operation in path.values():
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    models.update(content["schema"].pop("$defs", {}))
        document["x-limits"] = {
            "body_bytes": limits.body,
            "pixels": limits.pixels,
            "prompts": limits.prompts,
            "points": limits.points,
            "sessions": limits.sessions,
            "seconds": limits.seconds,
        }
        return document

    app.openapi = openapi  # type: ignore[method-assign]
