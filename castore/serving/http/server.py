"""Running the application by uvicorn, with bounds on what a client may hold."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
import socket
import ssl
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from castore.errors import CompositionError
from castore.serving.http.app import HttpApp
from castore.serving.http.requests import WATCHED
from castore.serving.listening import SOCKET_MODE, Address, SocketFile, socket_made
from castore.serving.tls import TlsFiles

_log: Final = logging.getLogger("castore.serving")

MOST_HEADER: Final = 16 << 10
CONNECTIONS: Final = 256
_SECONDS: Final = 30.0
"""How long a client may take for the head of a request, whole, or for any bytes of an answer."""


class BoundedProtocol(H11Protocol):
    """The protocol of uvicorn, which closes the connection of a client that does not go on.

    A request has to come to its end in time, and of an answer some bytes have to be taken.
    """

    seconds = _SECONDS
    _clock: asyncio.TimerHandle | None = None
    _unsent_clock: asyncio.TimerHandle | None = None
    _unsent = 0

    def __init__(self, config: uvicorn.Config, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, WATCHED: True}, _loop)

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that is whole ends the wait, more of one does not prolong it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_clock()
        elif self._clock is None:
            self._await_head()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what was sent."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """Wait no longer for that."""
        super().resume_writing()
        self._stop_unsent_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_clock()
        self._stop_unsent_clock()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._clock = self.loop.call_later(self.seconds, self._give_up)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _await_taking(self) -> None:
        self._stop_unsent_clock()
        self._unsent = self._count_unsent()
        self._unsent_clock = self.loop.call_later(self.seconds, self._look_at_unsent)

    def _look_at_unsent(self) -> None:
        # One that takes little takes something; closing would wait for one that takes nothing.
        if self._count_unsent() < self._unsent:
            self._await_taking()
        else:
            self.transport.abort()

    def _count_unsent(self) -> int:
        """Return how many bytes the client has not taken: those here, and those that the system has."""
        waiting = bytearray(4)
        # Where the system does not tell, it has none.
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
        return int(self.transport.get_write_buffer_size()) + int.from_bytes(waiting, sys.byteorder)

    def _stop_unsent_clock(self) -> None:
        if self._unsent_clock is not None:
            self._unsent_clock.cancel()
            self._unsent_clock = None

    def _give_up(self) -> None:
        self._clock = None
        if not self.transport.is_closing():
            self.transport.abort()


class _Certificates:
    """A context that has, at each handshake, the certificates that are in the files by then.

    Files that cannot be used, as when they are being replaced, leave those before them in use.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._state = files.state()
        self._newest = self.context = files.context()
        self.context.sni_callback = self._begin_handshake

    def _begin_handshake(self, connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        state = self._files.state()
        if state != self._state:
            self._state = state
            try:
                self._newest = self._files.context()
            except CompositionError as error:
                _log.error("the certificates stay as they are: %s", error)
            else:
                _log.info("the certificates were read anew")
        connection.context = self._newest


class _Server(uvicorn.Server):
    """Ends on a signal, as on a call: the signal is not raised once more, when all is done."""

    stopping: Callable[[], object] = staticmethod(lambda: None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell that it ends, and end."""
        self.stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that end a server, in the main thread; others begin no server by a signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class HttpServer:
    """A server for one application.

    Arguments:
        app: The application.
        tls: The certificates; without them nothing is encrypted.
        insecure: Whether other machines may connect without encryption.
        idle: How many seconds the head of a request may take, or a client take nothing of an answer.
        connections: How many connections there may be at once; more are answered with 503.

    Raises `CompositionError` for certificates that cannot be used.
    """

    def __init__(
        self,
        app: HttpApp,
        *,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        idle: float = _SECONDS,
        connections: int = CONNECTIONS,
    ) -> None:
        self._insecure = insecure
        self._secure = tls is not None
        config = uvicorn.Config(
            app,
            http=type("Protocol", (BoundedProtocol,), {"seconds": idle}),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=connections,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=MOST_HEADER,
        )
        config.load()
        if tls is not None:
            config.ssl = _Certificates(tls).context
        self._server = _Server(config)
        self._sockets: list[socket.socket] = []
        self._files: list[SocketFile] = []
        self.urls: list[str] = []
        """Where it is to be found."""

    def listen(self, address: Address, *, mode: int = SOCKET_MODE) -> None:
        """Listen at a place; raise `CompositionError` where that cannot be, or is not safe."""
        address.require_safe(encrypted=self._secure, insecure=self._insecure)
        try:
            self._bind(address, mode)
        except OSError as error:
            raise CompositionError(f"cannot listen at {address.target}: {error.strerror or error}") from error

    def take(self, listening: socket.socket) -> None:
        """Listen as well at a socket that somebody else has made, and keeps.

        Raises `CompositionError` where that is not safe.
        """
        address = Address.of_socket(listening)
        address.require_safe(encrypted=self._secure, insecure=self._insecure)
        if address.path is None:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(listening)
        self.urls.append(address.target if address.path else self._url_of(address.target))

    def _url_of(self, place: str) -> str:
        return f"{'https' if self._secure else 'http'}://{place}/"

    def _bind(self, address: Address, mode: int) -> None:
        if address.path is not None:
            with contextlib.ExitStack() as stack:
                made = stack.enter_context(socket.socket(socket.AF_UNIX))
                with socket_made(address.path, mode):
                    made.bind(str(address.path))
                self._files.append(SocketFile.of(address.path))
                made.listen(128)
                stack.pop_all()
            self._sockets.append(made)
            self.urls.append(f"unix:{address.path}")
            return
        port = int(address.target.rpartition(":")[2])
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        made = socket.create_server((address.host, port), family=family, backlog=128)
        # Those that are accepted have it from here: else a small answer waits for 40 ms, head before body.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(made)
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.urls.append(self._url_of(f"{host}:{made.getsockname()[1]}"))

    def run(
        self,
        ready: Callable[[], object] = lambda: None,
        reload: Callable[[], object] | None = None,
        stopping: Callable[[], object] = lambda: None,
    ) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; unix sockets that it has made are removed then.

        *ready* is called when it does, and never if it cannot; *reload* on SIGHUP; *stopping* when it takes
        no more requests, and finishes those that it has.
        """
        self._server.stopping = stopping

        async def serve() -> None:
            if reload is not None:
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
            serving = asyncio.ensure_future(self._server.serve(self._sockets))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            if self._server.started:
                ready()
            await serving

        try:
            asyncio.run(serve())
        finally:
            for made in self._files:
                made.remove()

    def stop(self) -> None:
        """End; answers under way are finished, within 10 s."""
        self._server.should_exit = True
