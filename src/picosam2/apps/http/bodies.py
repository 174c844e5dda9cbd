"""Reads what a client sends, within bounds, and turns it into an image's bytes and prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from picosam2.apps.http.errors import RequestError, busy, larger, wrong_image
from picosam2.apps.http.given_masks import PromptRequest
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.schemas import (
    Format,
    SegmentBody,
    SegmentKept,
    SegmentQuery,
    SessionBody,
    check_count,
    describe,
)
from picosam2.errors import ImageError, PromptError
from picosam2.images import CLIENT_FORMATS, check_start
from picosam2.prompts import Box, Point, Prompt

Bytes: TypeAlias = bytes | bytearray

_Model = TypeVar("_Model", bound=BaseModel)

_NO_IMAGE = "there is no image: send its bytes, or base64 in 'image'"
_KINDS = (
    "send an image as the body (-H 'Content-Type: image/jpeg' --data-binary @a.jpg), as a form "
    "(-F image=@a.jpg), or a JSON object as application/json"
)

LARGE_BODY = 1_000_000
"""Bytes beyond which a body gives way to others."""

_PAUSE = 0.005  # seconds after each part of it, a quarter of a megabyte at most

_START = 64  # bytes of an image that tell its format, and its size if it is PNG or WebP

# Of a JSON body: an empty list takes 3 bytes of text and 64 of memory.
_MAX_VALUES = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What a request asks for: objects, and the form of the answer."""

    prompts: tuple[PromptRequest, ...]
    multimask: bool
    format: Format


class Bodies:
    """Reads the bodies of one application's requests; together they stay within its limits."""

    def __init__(self, limits: Limits, is_idle: Callable[[], bool]) -> None:
        """Nothing is being read yet; `is_idle` says that no request is being worked on."""
        self._limits, self._is_idle = limits, is_idle
        self._held = 0  # bytes, of all requests

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Room for one request's body; it is given back at the end of the block."""
        held = Held()
        try:
            yield held
        finally:
            self.free(held)

    def free(self, held: Held) -> None:
        """Give back the room of a body that is no longer needed."""
        self._held -= held.size
        held.size = 0

    async def read(self, request: Request, held: Held) -> bytearray:
        """The body. A large one comes in slowly while other requests are worked on.

        Raises:
            RequestError: it is too large, too slow, or there is no room for it now; or it is an
                image that is refused by its first bytes, when the rest is not received.
            ClientDisconnect: the client went away.
        """
        limits = self._limits
        most = limits.body
        too_large = RequestError(
            413, f"the body is too large: send at most {most:,} bytes" + larger("--max-body-mb")
        )
        length = request.headers.get("content-length", "")
        if (
            length.isascii()
            and length.isdigit()
            and (len(length) > 15 or int(length) > limits.body)
        ):
            raise too_large
        body = bytearray()
        checked = not is_image(content_kind(request))
        try:
            async with asyncio.timeout(limits.seconds):
                async for part in request.stream():
                    if len(body) + len(part) > limits.body:
                        raise too_large
                    if self._held + len(part) > limits.bodies:
                        raise busy()
                    self._held += len(part)
                    held.size += len(part)
                    body += part
                    if not checked and len(body) >= _START:
                        check_image_start(body, limits)
                        checked = True
                    if len(body) > LARGE_BODY and not self._is_idle():
                        await asyncio.sleep(_PAUSE)
        except TimeoutError:
            message = "the body took too long to arrive" + larger("--seconds")
            raise RequestError(408, message) from None
        return body


@dataclass(eq=False)
class Held:
    """The bytes of a body that count as held."""

    size: int = 0


def check_image_start(data: Bytes, limits: Limits) -> None:
    """Raise `RequestError` if an image is refused by its first bytes."""
    try:
        check_start(
            bytes(data[:_START]), "the image", max_pixels=limits.pixels, formats=CLIENT_FORMATS
        )
    except ImageError as error:
        raise wrong_image(error) from None


def content_kind(request: Request) -> str:
    """The content type without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_image(kind: str) -> bool:
    """Whether a body of this content type is an image file."""
    return kind.startswith("image/") or kind == "application/octet-stream"


def read_segment(
    request: Request, body: Bytes, query: SegmentQuery, limits: Limits
) -> tuple[Bytes, Job]:
    """An image and prompts on it, from a request of any of the three kinds.

    Raises:
        RequestError, PromptError: it is none of them, or incomplete.
    """
    kind = content_kind(request)
    if is_image(kind):
        return _some(body), from_query(query, limits)
    if kind == "multipart/form-data":
        image, fields = _read_form(request, body)
        if request.url.query:
            fields = {**query.model_dump(exclude_unset=True), **fields}
        if "prompts" in fields:
            raise RequestError(400, "a form has its prompts in 'point' and 'box', not in 'prompts'")
        return image, from_query(_validate(SegmentQuery, fields, "field"), limits)
    if kind != "application/json":
        raise RequestError(415, _KINDS)
    read = parse(SegmentBody, body, limits)
    return _some(read.image), from_kept(read)


def read_image(request: Request, body: Bytes, limits: Limits) -> Bytes:
    """An image alone, from a request of any of the three kinds. Raises `RequestError`."""
    kind = content_kind(request)
    if is_image(kind):
        return _some(body)
    if kind == "multipart/form-data":
        image, fields = _read_form(request, body)
        if fields:
            raise RequestError(400, f"there is no field {next(iter(fields))[:40]!a}: use image")
        return image
    if kind != "application/json":
        raise RequestError(415, _KINDS)
    return _some(parse(SessionBody, body, limits).image)


def read_kept(request: Request, body: Bytes, limits: Limits) -> Job:
    """Prompts on an image that is kept, as JSON. Raises `RequestError`, `PromptError`."""
    if content_kind(request) != "application/json":
        raise RequestError(415, "send a JSON object as application/json")
    return from_kept(parse(SegmentKept, body, limits))


def parse(model: type[_Model], body: Bytes, limits: Limits) -> _Model:
    """A JSON body as a model. Raises `RequestError`, or `PromptError` of a prompt in it."""
    if sum(body.count(mark) for mark in b"[{,") > _MAX_VALUES:
        raise RequestError(
            400, f"the body has more than {_MAX_VALUES:,} values: send masks as PNG or as text"
        )
    try:
        return model.model_validate_json(body, context=limits)
    except ValidationError as error:
        raise RequestError(400, describe(error, model)) from None


def from_kept(read: SegmentKept) -> Job:
    """What a JSON body asks for."""
    if not read.prompts:
        raise PromptError("there is no prompt: give at least one point, box or mask")
    return Job(prompts=tuple(read.prompts), multimask=read.multimask, format=read.format)


def from_query(query: SegmentQuery, limits: Limits) -> Job:
    """What a query or a form asks for."""
    points, boxes = query.point, query.box
    if not points and not boxes:
        raise PromptError("there is no prompt: give at least one point or box")
    check_count(limits, len(points) + len(boxes), len(points))
    prompts = [Prompt((Point.parse(text),)) for text in points]
    prompts += [Prompt(box=Box.parse(text)) for text in boxes]
    return Job(
        prompts=tuple(map(PromptRequest, prompts)), multimask=query.multimask, format=query.format
    )


def _read_form(request: Request, body: Bytes) -> tuple[Bytes, dict[str, str | list[str]]]:
    """The image of a form, and its other fields."""

    async def parts() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(body), LARGE_BODY):
            yield bytes(body[at : at + LARGE_BODY])

    async def parse() -> dict[str, list[str | bytes]]:
        parser = MultiPartParser(
            request.headers, parts(), max_files=1, max_fields=1000, max_part_size=100_000
        )
        parser.spool_max_size = len(body) + 1  # nothing is written to the disk
        form = await parser.parse()
        try:
            return {
                name: [
                    value if isinstance(value, str) else await value.read()
                    for value in form.getlist(name)
                ]
                for name in form
            }
        finally:
            await form.close()

    try:
        form = asyncio.run(parse())  # the body is here: nothing is waited for
    except (MultiPartException, KeyError, UnicodeError) as error:
        raise RequestError(400, f"the form cannot be read: {error}") from None
    image = b"".join(value for value in form.pop("image", ()) if isinstance(value, bytes))
    fields: dict[str, str | list[str]] = {}
    for name, values in form.items():
        texts = [value for value in values if isinstance(value, str)]
        fields[name] = texts if name in ("point", "box") else "".join(texts[-1:])
    return _some(image), fields


def _validate(model: type[_Model], fields: dict[str, str | list[str]], kind: str) -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RequestError(400, describe(error, model, kind)) from None


def _some(image: Bytes) -> Bytes:
    if not image:
        raise RequestError(400, _NO_IMAGE)
    return image
