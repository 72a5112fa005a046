"""Sockets that systemd, or what does as it does, has made before a server runs (sd_listen_fds(3)).

So a service is started by its first client, and no client is refused while it starts anew. uvicorn takes such
a socket as it is. gRPC takes none: there each connection is passed on to a socket of the server's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from castore.errors import CompositionError
from castore.threads.pool import start_thread
from castore.threads.waiting import Flag

PLACE: Final = "systemd"
"""What stands for these sockets in the place of an address."""

_FIRST: Final = 3
"""The first descriptor that is handed over."""
_MOST: Final = 256
_PIECE: Final = 256 << 10
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def are_handed_over() -> bool:
    """Tell whether there are such sockets, for this very process."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def places_to_listen(given: Sequence[str], default: str) -> tuple[list[socket.socket], list[str]]:
    """Return the sockets that are handed over, and the addresses, of what somebody gave as places.

    Where nothing is given, the sockets are meant if there are any, else *default*. Raises as
    `sockets_handed_over` does.
    """
    places = list(given) or [PLACE if are_handed_over() else default]
    sockets = sockets_handed_over() if PLACE in places else []
    return sockets, [place for place in places if place != PLACE]


def sockets_handed_over() -> list[socket.socket]:
    """Return the sockets, of which no other program that is started from here is told.

    Raises `CompositionError` if there are none, or something is none that listens.
    """
    if not are_handed_over():
        raise CompositionError(
            f"systemd has handed over no socket; give a place to listen at, or leave out `--listen {PLACE}`"
            " unless there is a socket unit"
        )
    told = os.environ["LISTEN_FDS"]
    for name in _VARIABLES:
        os.environ.pop(name, None)
    if not (told.isascii() and told.isdecimal() and int(told) <= _MOST):
        raise CompositionError(f"LISTEN_FDS is {told!r}, which is no number of sockets")
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(_socket_at(_FIRST + number)) for number in range(int(told))]
        stack.pop_all()
    return found


def _socket_at(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise CompositionError(f"descriptor {descriptor}, from systemd, is no socket ({error})") from error
    listens = found.type == socket.SOCK_STREAM and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listens:
        found.close()
        raise CompositionError(
            f"descriptor {descriptor}, from systemd, is no socket that listens: in the socket unit say"
            " `ListenStream=`, and no `Accept=yes`"
        )
    return found


class Relay:
    """Passes the connections that come at a socket on to another one, and all bytes of both sides.

    Arguments:
        listening: The socket, which is closed here in the end, and stays with whoever has made it.

    Attributes:
        path: Where the other socket is to be, in a folder that nobody else can enter.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._folder = TemporaryDirectory(prefix="castore")
        self.path = Path(self._folder.name) / "socket"
        self._began, self._ended = Flag(), Flag()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._end: asyncio.Event | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take connections from now on; raise `CompositionError` if no thread can be had for that."""
        if not start_thread(lambda: asyncio.run(self._serve()), "castore_relay", waited_for=False):
            raise CompositionError("no thread can be had to listen")
        self._began.wait()

    def take_no_more(self) -> None:
        """Leave connections that come to whoever comes next; those that there are go on."""
        if self._loop is not None and self._server is not None:
            server = self._server
            self._loop.call_soon_threadsafe(server.close)

    def close(self) -> None:
        """End all."""
        if self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._ended.wait(5.0)
        self._listening.close()
        self._folder.cleanup()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._server = await asyncio.start_server(self._connected, sock=self._listening, limit=_PIECE)
        self._began.set()
        await self._end.wait()
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._ended.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # A task that is cancelled in the end would be told of as if nobody had wanted that.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                there, back = await asyncio.open_unix_connection(self.path, limit=_PIECE)
                try:
                    await _until_first(_pass_on(reader, back), _pass_on(there, writer))
                finally:
                    back.close()
            finally:
                writer.close()
                self._connections.discard(task)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()


async def _until_first(*directions: object) -> None:
    """Go on until one side has ended, as HTTP/2 does: what it has sent before is sent on."""
    tasks = [asyncio.ensure_future(each) for each in directions]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
