"""A server of its own for the live view, beside one that speaks something else; needs `castore[web]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from castore.composition.composition import Composition
from castore.errors import CompositionError
from castore.serving.access import Tokens
from castore.serving.http.app import HttpApp
from castore.serving.http.options import HttpOptions
from castore.serving.http.server import HttpServer
from castore.serving.listening import Address
from castore.serving.tls import TlsFiles
from castore.threads.deadlines import Deadlines, Pending

_SECONDS: Final = 15.0
"""How long its end is waited for."""


class LiveServer:
    """Serves the live view of a composition from a thread, until it is closed.

    Arguments:
        stores: The composition; whoever has opened it closes it, after this one.
        service: The blob service that is asked for digests.
        address: Where to listen.
        tokens: Returns the tokens that are taken now. If there are any it takes one.
        tls: The certificates; without them nothing is encrypted.
        insecure: Whether other machines may connect without encryption.
        report: Called with one line on what could not be answered.

    Raises `CompositionError` if it cannot listen there, and where others could connect without a token.
    """

    def __init__(
        self,
        stores: Composition,
        service: str,
        address: Address,
        *,
        tokens: Callable[[], Tokens] = Tokens,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        if not address.is_local and not tokens():
            raise CompositionError(
                f"{address.target} can be reached from other machines, and the live view shows places and"
                " hosts: it needs --tokens"
            )
        options = HttpOptions(
            live="token" if tokens() else "anybody",
            only_live=True,
            hosts={"localhost"} if address.is_local else None,
        )
        self._app = HttpApp(stores, service, options, tokens=tokens, report=report)
        self._server = HttpServer(self._app, tls=tls, insecure=insecure)
        self._server.listen(address)
        self._threads = Deadlines("live", threads=1)
        self._running: Pending[None] = self._threads.start(self._server.run)

    @property
    def url(self) -> str:
        """Where it is to be found."""
        return self._server.urls[0]

    def close(self) -> None:
        """End it; answers under way are finished."""
        self._server.stop()
        self._running.wait(_SECONDS)
        self._threads.close()
