"""What is answered to a request that cannot be served."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from picosam2.errors import PicoSAM2Error

_LONGEST = 400  # characters of a message; what a client sent is never sent back whole


class RequestError(Exception):
    """A request that is answered with an error: a status and one sentence."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with `status`, {"error": message} and further headers."""
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """{"error": message}."""
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ..."
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def larger(option: str) -> str:
    """What to add to a message about a limit: the option of `picosam2 serve` that moves it."""
    return f" (or start the server with a larger {option})"


def wrong_image(error: PicoSAM2Error) -> RequestError:
    """An image is refused."""
    message = str(error)
    if "the limit is" in message:
        message += larger("--max-megapixels")
    return RequestError(400, message)


def busy() -> RequestError:
    """There is too much to do already."""
    return RequestError(503, "the server is busy: try again soon", {"retry-after": "1"})
