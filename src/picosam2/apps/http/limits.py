"""How much a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from picosam2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what one client, and all of them together, can make the server do."""

    body: int = 20_000_000
    """Bytes of a request's body."""
    bodies: int = 100_000_000
    """Bytes of the bodies of all requests together, while they are received and worked on."""
    pixels: int = 25_000_000
    """Pixels of an image."""
    prompts: int = 64
    """Objects in one request."""
    points: int = 256
    """Points in one request, over all its objects."""
    sessions: int = 32
    """Images kept; beyond it the one that was used longest ago goes."""
    session_pixels: int = 100_000_000
    """Pixels kept, over all sessions; 3 bytes each."""
    session_seconds: float = 900.0
    """How long an image that nobody uses is kept."""
    seconds: float = 30.0
    """Longest time to receive a body, and to wait for an answer."""
    decode_seconds: float = 5.0
    """Longest time to decode an image."""
    header_seconds: float = 10.0
    """Longest time from the opening of a connection to the end of a request's headers."""
    reading_seconds: float = 30.0
    """Longest time in which a client takes nothing of its answer."""
    connections: int = 256
    """Open connections. Beyond it, the one goes whose request has been incomplete the longest."""
    unsent: int = 100_000_000
    """Bytes of answers that clients have not taken yet. Beyond it, the one goes that has waited the
    longest."""
    client_connections: int = 64
    """Open connections of one address other than this machine's."""
    queue: int = 64
    """Requests that wait for their turn; more are turned away with 503."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(f"the server's limit {field.name} must be above 0")
        if self.bodies < self.body:
            raise ConfigError("the server's limit bodies must be at least that of one body")
