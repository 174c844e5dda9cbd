"""Which requests a server on this machine answers: those addressed to it, by no page elsewhere.

The one check of the Host header for `picosam2 serve`, the camera's page and the demo. It refuses
what a web page elsewhere can make a visitor's browser send: a name of the page's own that has been
pointed at this machine (DNS rebinding), and requests that the browser marks as cross-site.

Starlette's `TrustedHostMiddleware` is not used: it answers in plain text without saying what to do,
and checks no origin (docs/decisions.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""The names of the loopback interface."""

_PLAIN_NAME = re.compile(r"[\w.:\[\]-]{1,100}", re.ASCII)


def url_host(host: str) -> str:
    """An address as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def served_names(host: str, further: Iterable[str] = ()) -> list[str]:
    """The names that a server on address `host` answers to; `further` are `--allow-host`'s."""
    return [name.lower() for name in (*LOCAL_NAMES, url_host(host), *further)]


def refusal(
    headers: Mapping[str, str], names: Collection[str], address: str | None = None
) -> tuple[int, str] | None:
    """Why a request is not answered, as a status and one sentence; None if it is answered.

    Args:
        headers: the request's headers, in lower case.
        names: the names that the server answers to, without ports.
        address: the server's end of the connection. A request to the address that it came in on is
            answered: pages elsewhere can borrow a name, but not an address.
    """
    own = {*names, *(() if address is None else (url_host(address),))}
    name = _without_port(headers.get("host", ""))
    if name not in own:
        shown = name if _PLAIN_NAME.fullmatch(name) else "NAME"
        return 421, (
            f"this server does not answer to the name {shown!r}: use its own address, or start it "
            f"with --allow-host {shown}"
        )
    origin = headers.get("origin", "")
    elsewhere = origin != "" and _host_of(origin) not in own
    if elsewhere or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return 403, "this server answers no pages of other sites: call it from a program or proxy"
    return None


def _host_of(origin: str) -> str:
    """The host that an `Origin` names; nothing if it is no address."""
    try:
        return _without_port(urlsplit(origin).netloc)
    except ValueError:  # for instance half an IPv6 address
        return ""


class OwnHostOnly:
    """ASGI middleware that answers only what `refusal` has nothing against."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """Guard `app`, which answers to `names`, without ports."""
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            headers = {key.decode("latin-1"): value.decode("latin-1")
                       for key, value in scope["headers"]}  # fmt: skip
            server = scope.get("server")
            refused = refusal(headers, self._names, server[0] if server else None)
            if refused is not None:
                status, message = refused
                body = json.dumps({"error": message}).encode()
                kind = [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                ]
                await send({"type": "http.response.start", "status": status, "headers": kind})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    if not host.endswith("]"):
        host = host.rpartition(":")[0] or host
    return host.lower()
