"""The words for places that can be connected to."""

from __future__ import annotations

from typing import Final

LONGEST_SOCKET_PATH: Final = 107
"""How many bytes the path of a unix socket has at most."""


def split_host_port(text: str) -> tuple[str, int | None]:
    """Return the host and the port of `host:port`, `[::1]:port`, or a host alone.

    Raises `ValueError` for a port that is none, or a host with other brackets.
    """
    host, port = text, None
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no host and port: write `[::1]:8000`")
        host, port = inside, rest[1:] or None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    elif ":" in text:
        raise ValueError(f"{text!r} is no host and port: an IPv6 address stands in brackets, as `[::1]:8000`")
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{port!r} is no port: one is a number up to 65535")
    return host, int(port)
