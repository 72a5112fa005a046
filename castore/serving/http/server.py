"""Running the application by uvicorn, with bounds on what a client may hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from castore.errors import CompositionError
from castore.serving.http.app import HttpApp
from castore.serving.listening import Address

MOST_HEADER: Final = 16 << 10
CONNECTIONS: Final = 256
_SECONDS: Final = 30.0
"""How long the head of a request may take to come, whole."""


class BoundedProtocol(H11Protocol):
    """The protocol of uvicorn, which closes a connection whose request does not come to its end."""

    head_seconds = _SECONDS
    _clock: asyncio.TimerHandle | None = None

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

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_clock()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._clock = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        self._clock = None
        if not self.transport.is_closing():
            self.transport.abort()


class _Server(uvicorn.Server):
    """Ends on a signal, as on a call: the signal is not raised once more, when all is done."""

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
        certificate: With *key*, files in PEM for TLS.
        key: See there.
        insecure: Whether other machines may connect without encryption.
        head_seconds: How long the head of a request may take.
        connections: How many connections there may be at once; more are answered with 503.
    """

    def __init__(
        self,
        app: HttpApp,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        insecure: bool = False,
        head_seconds: float = _SECONDS,
        connections: int = CONNECTIONS,
    ) -> None:
        self._insecure = insecure
        self._secure = certificate is not None
        protocol = type("Protocol", (BoundedProtocol,), {"head_seconds": head_seconds})
        config = uvicorn.Config(
            app,
            http=protocol,
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
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = _Server(config)
        self._sockets: list[socket.socket] = []
        self.urls: list[str] = []
        """Where it is to be found."""

    def listen(self, address: Address, *, mode: int = 0o600) -> None:
        """Listen at a place; raise `CompositionError` where that cannot be, or is not safe."""
        if not address.is_local and not self._secure and not self._insecure:
            raise CompositionError(
                f"at {address.target} other machines could read along: give --tls-cert and --tls-key,"
                " or --insecure if the network is trusted"
            )
        try:
            self._bind(address, mode)
        except OSError as error:
            raise CompositionError(f"cannot listen at {address.target}: {error.strerror or error}") from error

    def _bind(self, address: Address, mode: int) -> None:
        if address.path is not None:
            self._remove_stale(address.path)
            made = socket.socket(socket.AF_UNIX)
            before = os.umask(0o777 & ~mode)
            try:
                made.bind(str(address.path))
            finally:
                os.umask(before)
            made.listen(128)
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
        self.urls.append(f"{'https' if self._secure else 'http'}://{host}:{made.getsockname()[1]}/")

    @staticmethod
    def _remove_stale(path: Path) -> None:
        """Remove a socket that nobody listens at any more, and nothing else."""
        if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()

    def run(
        self, ready: Callable[[], object] = lambda: None, reload: Callable[[], object] | None = None
    ) -> None:
        """Serve until SIGTERM, SIGINT or `stop`.

        *ready* is called when it does, *reload* on SIGHUP.
        """

        async def serve() -> None:
            if reload is not None:
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
            serving = asyncio.ensure_future(self._server.serve(self._sockets))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            ready()
            await serving

        asyncio.run(serve())

    def stop(self) -> None:
        """End; answers under way are finished, within 10 s."""
        self._server.should_exit = True
