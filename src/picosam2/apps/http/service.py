"""What the routes share: the predictor, the decoders of images, and turns on both."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from picosam2._words import counted
from picosam2.apps.http.bodies import LARGE_BODY, Bodies, Bytes, Held, Job
from picosam2.apps.http.decoding import Decoders
from picosam2.apps.http.errors import RequestError, larger, wrong_image
from picosam2.apps.http.given_masks import PromptRequest, with_mask
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.schemas import EverythingQuery
from picosam2.apps.http.turns import Stop, Turns, in_thread, while_connected
from picosam2.errors import PicoSAM2Error
from picosam2.images import stored_size
from picosam2.io.formats import indexed_png
from picosam2.io.formats.png import MAX_INDEXED
from picosam2.predictor import MULTIMASKS, Predictor
from picosam2.prompts import Prompt
from picosam2.results import Segmentation, encode_image, overlay
from picosam2.runtimes.finder import BoxFinder, opened_finder
from picosam2.runtimes.protocol import Runtime, RuntimeInfo
from picosam2.tasks.everything import Everything, everything

_Result = TypeVar("_Result")
_MAX_AT_ONCE = 25_000_000  # pixels of logits, 4 bytes each, in one worker
_MAX_MASK_PIXELS = 200_000_000  # of the masks that are drawn in one image, 1 byte each
_TOO_MANY = "these are too many masks for one image: ask for json"
_LARGE = 1_000_000  # pixels of an image; those below do not wait for those above
_MORE_IMAGES = 3  # beside one for each worker: those being decoded, and those that wait for a turn


class Service:
    """What the routes share: the predictor, the decoders, and turns on both."""

    def __init__(
        self, predictor: Predictor, limits: Limits, workers: int, threads: int | None = None
    ) -> None:
        """Run the network for `workers` requests at once, the finder with so many `threads`."""
        self._threads = threads
        self._runtime = _Stoppable(predictor.runtime)
        self._predictor, self._limits = Predictor(self._runtime), limits
        # An image keeps its turn until its masks are made, so that few are held at once.
        images = workers + _MORE_IMAGES
        self._images = Turns(images, limits.queue, limits.seconds)
        # Forms and base64 take room for copies.
        self._parsing = Turns(limits.body, limits.queue, limits.seconds)
        # Of large images there are as many as have together the pixels of so many of the largest.
        most = limits.pixels * max(workers // 2, 1)
        self._large = Turns(most, limits.queue, limits.seconds)
        self._network = Turns(workers, limits.queue, limits.seconds)
        self.bodies = Bodies(limits, self._network.is_idle)
        self._decoders = Decoders(limits, images)

    def close(self) -> None:
        """End the decoders."""
        self._decoders.close()

    def check_room(self) -> None:
        """Raise `RequestError` (503) if an image could not wait for its turn."""
        self._images.check_room()

    @asynccontextmanager
    async def image_turn(self, size: tuple[int, int] | None) -> AsyncIterator[None]:
        """Wait for a turn to decode an image of height and width `size`, and to work on it.

        An image whose size is not known counts as one of the largest.
        """
        pixels = self._limits.pixels if size is None else size[0] * size[1]
        async with AsyncExitStack() as turns:
            if pixels > _LARGE:
                await turns.enter_async_context(self._large.turn(pixels))
            await turns.enter_async_context(self._images.turn())
            yield

    async def read(
        self, request: Request, held: Held, parse: Callable[[Bytes], _Result]
    ) -> _Result:
        """What `parse` makes of a request's body."""
        body = await self.bodies.read(request, held)
        large = len(body) > LARGE_BODY
        async with self._parsing.turn(len(body)) if large else nullcontext():
            return await in_thread(lambda _: parse(body))

    async def decode(self, data: Bytes) -> npt.NDArray[np.uint8]:
        """The image of a file's bytes. Raises `ImageError`."""
        try:
            return await in_thread(lambda stop: self._decoders.decode(data, stop))
        except PicoSAM2Error as error:
            raise wrong_image(error) from error

    async def answer(
        self,
        request: Request,
        held: Held,
        data: Bytes,
        prompts: Callable[[int, int], Sequence[Prompt]],
        finish: Callable[[list[Segmentation]], dict[str, Any]],
    ) -> Response:
        """What `finish` makes, as JSON, of the masks of an image file's bytes.

        `prompts` gives the objects for the image's height and width.
        """

        def segment(image: npt.NDArray[np.uint8], stop: Stop) -> Response:
            chosen = tuple(prompts(*image.shape[:2]))
            job = Job(prompts=tuple(map(PromptRequest, chosen)), multimask=False, format="json")
            return JSONResponse(finish(list(self.segment(image, job, stop))))

        async def work() -> Response:
            async with self.image_turn(stored_size(data)):
                image = await self.decode(data)
                self.bodies.free(held)
                async with self._network.turn():
                    return await in_thread(lambda stop: segment(image, stop))

        return await while_connected(request, work())

    async def with_masks(self, job: Job, height: int, width: int) -> Job:
        """The same job with the masks read that come with it; an image's turn is had.

        Raises:
            RequestError, PromptError: they cannot be read, do not fit the image, or are too many.
        """
        count = sum(request.mask is not None for request in job.prompts)
        if not count:
            return job
        if count * height * width > self._limits.pixels:
            raise RequestError(
                400,
                f"{counted(count, 'mask')} of {width} x {height} pixels: all masks of a request "
                f"together may have {self._limits.pixels:,} pixels",
            )

        def read(stop: Stop) -> Job:
            decode = partial(self._decoders.decode, stop=stop)
            read = []
            for request in job.prompts:
                stop.check()
                read.append(with_mask(request, height, width, decode))
            return replace(job, prompts=tuple(read))

        return await in_thread(read)

    async def masks(self, image: npt.NDArray[np.uint8], job: Job) -> Response:
        """The answer to a request."""
        async with self._network.turn():
            return await in_thread(lambda stop: self._answer(image, job, stop))

    async def everything(self, image: npt.NDArray[np.uint8], query: EverythingQuery) -> Response:
        """The answer to a request for the masks of all objects."""
        if query.format == "mask" and query.max_masks > MAX_INDEXED:
            raise RequestError(
                400, f"an image of masks holds {MAX_INDEXED} of them: ask for fewer, or for json"
            )
        async with self._network.turn():
            return await in_thread(lambda stop: self._everything(image, query, stop))

    def _everything(
        self, image: npt.NDArray[np.uint8], query: EverythingQuery, stop: Stop
    ) -> Response:
        height, width = image.shape[:2]
        check = self._checked(stop, "this took too long: send a smaller image")
        finder = _StoppableFinder(opened_finder(threads=self._threads), check)
        with self._runtime.checking(check):
            results = everything(
                image, self._predictor, Everything(max_masks=query.max_masks), finder=finder
            )
        if query.format == "json":
            masks = [result.to_json() for result in results]
            return JSONResponse({"width": width, "height": height, "masks": masks})
        if len(results) * height * width > _MAX_MASK_PIXELS:
            raise RequestError(400, _TOO_MANY)
        return Response(_draw(image, results, query.format), media_type="image/png")

    def _checked(self, stop: Stop, too_long: str) -> Callable[[], None]:
        """What raises `RequestError` when the client is gone, or the time is over."""
        deadline = time.monotonic() + self._limits.seconds

        def check() -> None:
            stop.check()
            if time.monotonic() > deadline:
                raise RequestError(503, too_long + larger("--seconds"))

        return check

    def _answer(self, image: npt.NDArray[np.uint8], job: Job, stop: Stop) -> Response:
        height, width = image.shape[:2]
        results = self.segment(image, job, stop)
        if job.format == "json":
            masks = [result.to_json() for result in results]
            return JSONResponse({"width": width, "height": height, "masks": masks})
        if job.format == "cutout":
            if len(job.prompts) > 1 or job.multimask:
                raise RequestError(400, "a cutout shows one object: send one prompt")
            data = encode_image(next(results).cutout(), "PNG")
        else:
            count = len(job.prompts) * (MULTIMASKS if job.multimask else 1)
            if count * height * width > _MAX_MASK_PIXELS:
                raise RequestError(400, _TOO_MANY)
            data = _draw(image, list(results), job.format)
        return Response(data, media_type="image/png")

    def segment(self, image: npt.NDArray[np.uint8], job: Job, stop: Stop) -> Iterator[Segmentation]:
        """The masks, made a few at a time, so that memory does not grow with their number."""
        height, width = image.shape[:2]
        step = max(_MAX_AT_ONCE // (height * width), 1)
        check = self._checked(stop, "this took too long: send fewer prompts or clicks")
        for i in range(0, len(job.prompts), step):
            check()
            some = job.prompts[i : i + step]
            prompts = [request.prompt.clipped(height, width) for request in some]
            with self._runtime.checking(check):  # each click of a prompt is a pass of its own
                results = self._predictor(image, prompts=prompts, multimask=job.multimask)
            yield from results


class _Stoppable:
    """A runtime that asks before each pass whether its thread is to go on."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._local = threading.local()

    @property
    def info(self) -> RuntimeInfo:
        return self._runtime.info

    @contextmanager
    def checking(self, check: Callable[[], None]) -> Iterator[None]:
        """Within the block, `check` is called before each pass of this thread; it may raise."""
        self._local.check = check
        try:
            yield
        finally:
            del self._local.check

    def __call__(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        self._local.check()
        return self._runtime(crops) if guidance is None else self._runtime(crops, guidance)


class _StoppableFinder:
    """A finder that asks before each pass whether its thread is to go on."""

    def __init__(self, finder: BoxFinder, check: Callable[[], None]) -> None:
        self._finder, self._check = finder, check

    @property
    def input_size(self) -> int:
        return self._finder.input_size

    def __call__(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._check()
        return self._finder(views)


def _draw(
    image: npt.NDArray[np.uint8],
    results: Sequence[Segmentation],
    form: Literal["mask", "overlay"],
) -> bytes:
    """Masks, of which there may be none, as a PNG file's bytes."""
    if form == "overlay":
        return encode_image(overlay(image, results), "PNG")
    if len(results) == 1:
        return encode_image(results[0].mask_image(), "PNG")
    if not results:
        return encode_image(Image.new("L", (image.shape[1], image.shape[0])), "PNG")
    return indexed_png([result.mask for result in results])
