"""An ASGI application that serves blobs and trees of a composition.

=====================  ===================================================================
`/`                    one tree, if the application is given a root; else the names of refs
`/blob/HEX`            a blob: GET, HEAD; PUT stores it
`/blob`                POST stores a blob, and says where it is
`/tree/ROOT/path`      something in a tree: ROOT is a digest or the name of a ref
`/api/tree/ROOT/path`  the same as JSON
`/ui/composition`      the live view of the composition, where it is wanted; `/state` below it is its JSON
=====================  ===================================================================

Where a tree is served at `/` its own names come first.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from castore.aio.threads import Threads
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDirectoryError, NodeNotFoundError, UnavailableError
from castore.format.nodes import Node
from castore.serving.access import ANYBODY, Client, Tokens
from castore.serving.http import pages
from castore.serving.http.blob_answers import BlobAnswers
from castore.serving.http.options import HttpOptions
from castore.serving.http.requests import AnswerError, GoneError, Receive, Request, Scope, Send
from castore.serving.http.served_trees import ServedRoot, ServedTrees
from castore.serving.http.tree_answers import ServedPlace, TreeAnswers

if TYPE_CHECKING:
    from castore.serving.live.view import LiveView

_HEX: Final = re.compile(rb"[0-9a-fA-F]{64}")
_LOOKING_AT_ONCE: Final = 4


class HttpApp:
    """The application; it is given to a server, or mounted in another application.

    Arguments:
        stores: The composition; whoever has opened it closes it.
        service: The name of the blob service in it.
        options: How it is served.
        tokens: Returns the tokens that are taken now; none are known by default.
        report: Called with one line on each answer that could not be given.
    """

    def __init__(
        self,
        stores: Composition,
        service: str = "root",
        options: HttpOptions | None = None,
        *,
        tokens: Callable[[], Tokens] = Tokens,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.options = options or HttpOptions()
        self._stores = stores
        self._service = service
        self._tokens = tokens
        self._report = report
        self._threads = Threads(32)
        self._found = ServedTrees(stores, service, self.options)
        self._blobs = BlobAnswers(self._service_of_blobs, self._threads, self.options)
        self._trees = TreeAnswers(
            self._found, self._blobs, self._service_of_blobs, self._threads, self.options
        )
        self._live_view: LiveView | None = None
        self._looking: asyncio.Semaphore | None = None
        if self.options.live != "off":
            from castore.serving.live.view import LiveView  # noqa: PLC0415 - for those who want it

            self._live_view = LiveView(stores, service, alone=self.options.only_live)

    def require_root(self) -> None:
        """Raise `NodeNotFoundError` for a root that is not there, and what else is wrong with it.

        A server that asks before it listens tells a mistake at once; what was read is not read again.
        """
        self._found.require_top()

    def _service_of_blobs(self) -> BlobService:
        return self._stores.blobs(self._service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            request = Request(self.options, scope, receive, send)
            try:
                await self._answer(request)
            except GoneError:
                pass  # Without its end the server closes the connection.
            except CastoreError as error:
                # Also in the midst of a body, which must not end as if it were whole.
                self._report(f"{scope['method']} {request.shown}: {error}")
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, request: Request) -> None:
        try:
            try:
                request.check()
                self._authorize(request)
                await self._route(request)
            except (NodeNotFoundError, InvalidDirectoryError) as error:
                raise AnswerError(404, error.message) from error
            except UnavailableError as error:
                if request.begun:
                    raise
                self._report(f"{request.method} {request.shown}: {error}")
                raise AnswerError(503, "the store does not answer", [("Retry-After", "5")]) from error
            except CastoreError as error:
                if request.begun:
                    raise
                self._report(f"{request.method} {request.shown}: {error}")
                raise AnswerError(500, "what is stored cannot be read") from error
        except AnswerError as answer:
            await request.refuse(answer)

    def _authorize(self, request: Request) -> None:
        tokens = self._tokens()
        writing = request.method not in {"GET", "HEAD", "OPTIONS"}
        client: Client | None = ANYBODY
        if writing and not (self.options.writable and tokens):
            raise AnswerError(403, "nothing is stored here")
        live = request.parts[:1] == [b"ui"] and self.options.live == "token"
        if writing or self.options.private or live:
            client = (
                tokens.client_of(request.headers if writing else _with_basic(request.headers))
                if tokens
                else None
            )
        if client is None:
            # A browser asks for a name and a password; for what changes nothing these do as well. Each way
            # has a field of its own, or it finds only the first.
            ways = [("WWW-Authenticate", 'Bearer realm="castore"')]
            if not writing:
                ways.append(("WWW-Authenticate", 'Basic realm="castore", charset="UTF-8"'))
            raise AnswerError(401, "this takes a token", ways)
        if ("write" if writing else "read") not in client.rights:
            raise AnswerError(403, "this token is not for that")

    async def _route(self, request: Request) -> None:
        parts = request.parts
        has_top = self._found.has_top and not self.options.only_live
        top = await self._threads.run(lambda: self._found_at_top(request)) if has_top else None
        if self.options.only_live and parts[:1] != [b"ui"]:
            request.only("GET", "HEAD")
            if parts:
                raise AnswerError(404, "there is nothing here but the live view")
            await request.redirect(request.base + "ui/composition")
        elif top is not None:
            request.only("GET", "HEAD")
            root, node, data = top
            place = ServedPlace(root, request.base, parts, node)
            await self._trees.send_tree(request, place, lasting=False, data=data)
        elif parts == [b"blob"]:
            request.only("POST")
            await self._blobs.store(request, None)
        elif len(parts) == 2 and parts[0] == b"blob" and _HEX.fullmatch(parts[1]):
            digest = B3Digest.parse(parts[1].decode())
            request.only("GET", "HEAD", *(["PUT"] if self.options.writable else []))
            if request.method == "PUT":
                await self._blobs.store(request, digest)
            else:
                await self._blobs.send_blob(request, digest, self.options.keep_for_ever)
        elif len(parts) >= 2 and parts[0] == b"tree":
            request.only("GET", "HEAD")
            root, used, node, data = await self._threads.run(lambda: self._found_in(request, parts[1:]))
            base = request.base + "".join(pages.link_to(part) + "/" for part in parts[: used + 1])
            place = ServedPlace(root, base, parts[1 + used :], node)
            lasting = isinstance(root.place.root, B3Digest)
            await self._trees.send_tree(request, place, lasting=lasting, data=data)
        elif len(parts) >= 3 and parts[:2] == [b"api", b"tree"]:
            request.only("GET", "HEAD")
            root, _, node = await self._threads.run(lambda: self._found.at(parts[2:]))
            await self._trees.send_json(request, root, node)
        elif parts[:2] == [b"ui", b"composition"] and self._live_view is not None:
            request.only("GET", "HEAD")
            await self._send_live(request, self._live_view, parts[2:])
        elif not parts and not self._found.has_top:
            request.only("GET", "HEAD")
            body, tag = await self._threads.run(lambda: self._home(request.base))
            await self._trees.send_page(request, lambda: body, tag)
        else:
            raise AnswerError(404, "there is nothing here")

    # -- looking up; on a thread, in one turn --

    def _found_at_top(self, request: Request) -> tuple[ServedRoot, Node, bytes | None] | None:
        own = {b"blob", b"tree", b"api"} | ({b"ui"} if self._live_view is not None else set())
        root = self._found.top(request.parts, own)
        if root is None:
            return None
        request.only("GET", "HEAD")
        node = self._found.find(root, request.parts)
        return root, node, self._blobs.read_if_small(request, node)

    def _found_in(self, request: Request, parts: list[bytes]) -> tuple[ServedRoot, int, Node, bytes | None]:
        root, used, node = self._found.at(parts)
        return root, used, node, self._blobs.read_if_small(request, node)

    def _home(self, base: str) -> tuple[bytes, str]:
        body = pages.home(base, self._found.names(), live=self._live_view is not None)
        return body, f'W/"{B3Digest.of(body).hex()[:32]}"'

    async def _send_live(self, request: Request, view: LiveView, parts: list[bytes]) -> None:
        from castore.serving.live.page import POLICY  # noqa: PLC0415 - as where the view is made

        fields = [("Cache-Control", "no-store"), ("Content-Security-Policy", POLICY)]
        if parts == [b"state"]:
            body = await self._threads.run(view.state)
            await request.answer(200, [*fields, ("Content-Type", "application/json")], body)
        elif not parts and not request.slash:
            # Stores that hang keep threads; who looks for blobs must not have all of them.
            if self._looking is None:
                self._looking = asyncio.Semaphore(_LOOKING_AT_ONCE)
            async with self._looking if request.query.get("digest") else contextlib.nullcontext():
                body = await self._threads.run(lambda: view.page(request.base, request.query))
            await request.answer(200, [*fields, ("Content-Type", "text/html; charset=utf-8")], body)
        else:
            raise AnswerError(404, "there is nothing here")


def _with_basic(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers in which a password, with any name, stands as the token that it is (RFC 7617)."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return headers
    try:
        _, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except ValueError:
        password = ""
    return {**headers, "authorization": f"Bearer {password}"}
