"""A token that clients must send: the server's one password, for where others can reach it."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from picosam2.apps.http.errors import error_response
from picosam2.errors import ConfigError

VARIABLE = "PICOSAM2_TOKEN"
"""The environment variable that holds the token: other users of a machine see no environments."""

_TOKEN = re.compile(r"[!-~]{16,1000}")
_OPEN = ("/health",)  # asked by what watches the server, and says nothing of anybody's


def token_of(environment: Mapping[str, str]) -> str | None:
    """The token that an environment names, if any. `ConfigError` if nobody could send it."""
    token = environment.get(VARIABLE, "")
    if not token:
        return None
    if not _TOKEN.fullmatch(token):
        raise ConfigError(
            f"{VARIABLE} must be 16 or more letters, digits and signs of ASCII without a space: "
            "make one with `openssl rand -hex 16`"
        )
    return token


class TokenOnly:
    """ASGI middleware that answers only requests with the token, if there is one.

    It may come as `Authorization: Bearer TOKEN`, as the password of HTTP's basic authentication
    (Label Studio), or in a header `Token` (X-AnyLabeling).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Guard `app`; with None everybody is answered."""
        self._app, self._token = app, None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._token is not None and scope["path"] not in _OPEN:
            headers: list[tuple[bytes, bytes]] = scope["headers"]
            # Each is compared whole, in a time that says nothing about where they differ.
            if not any(hmac.compare_digest(each, self._token) for each in _sent(headers)):
                refused = error_response(
                    401,
                    "this server wants its token: send it as `Authorization: Bearer TOKEN`, as the "
                    "password of basic authentication, or in a header `Token`",
                    {"www-authenticate": "Bearer"},
                )
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _sent(headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """What a request's headers hold as a token."""
    for name, value in headers:
        if name == b"token":
            yield value
        elif name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield rest.strip()
            elif scheme.lower() == b"basic":
                try:
                    yield base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
                except binascii.Error:
                    continue
