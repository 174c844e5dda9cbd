"""Which names of this machine a browser or a client may address a server by."""

from __future__ import annotations

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""The names of the loopback interface."""
