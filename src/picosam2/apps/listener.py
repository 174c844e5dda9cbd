"""Opens the sockets that the servers of this package listen on."""

from __future__ import annotations

import socket

from picosam2.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address, to be closed by a `with`.

    Raises:
        ConfigError: the address is not free, or not this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(f"{host}:{port} cannot be listened on: {error}") from error
    return listener
