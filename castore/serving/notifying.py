"""Telling systemd, or what does as it does, how a server is (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> bool:
    """Send a state, such as `READY=1`, to whoever has started this program; return whether he listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
    ):
        # A leading `@` stands for a name that is in no folder.
        out.connect("\0" + address[1:] if address[0] == "@" else address)
        out.sendall(state.encode())
        return True
    return False
