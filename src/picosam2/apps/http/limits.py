"""How much a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from picosam2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what one client, and all of them together, can make the server do."""

    body: int = 20_000_000
    """Bytes of a request's body."""
    pixels: int = 25_000_000
    """Pixels of a picture."""
    prompts: int = 64
    """Objects in one request."""
    points: int = 256
    """Points in one request, over all its objects."""
    sessions: int = 32
    """Pictures kept; beyond it the one that was used longest ago goes."""
    session_pixels: int = 100_000_000
    """Pixels kept, over all sessions; 3 bytes each."""
    session_seconds: float = 900.0
    """How long a picture that nobody uses is kept."""
    seconds: float = 30.0
    """Longest time to receive a body, and to wait for an answer."""
    queue: int = 64
    """Requests that wait for their turn; more are turned away with 503."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(f"the server's limit {field.name} must be above 0")
