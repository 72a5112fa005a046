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
import ipaddress
import json
import mimetypes
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import attrs
from blake3 import blake3

from castore.aio.threads import Threads
from castore.composition.composition import Composition
from castore.contract.blobs import BlobReader, BlobService, BlobWriter
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    CompositionError,
    InvalidDigestError,
    InvalidDirectoryError,
    InvalidRefError,
    MissingDirectoryError,
    NodeNotFoundError,
    UnavailableError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, TreePath, node_to_json
from castore.serving.access import ANYBODY, Client, Tokens
from castore.serving.http import pages
from castore.serving.http.bodies import PIECE, Outlet, frames, frames_of, pieces
from castore.serving.http.conditions import NoRangeError, accepts, parse_ranges, range_holds, verdict
from castore.trees.leading_refs import find_leading_ref
from castore.trees.naming import TreeLookup, TreePlace, parse_root
from castore.trees.packing import PackOptions, pack_tree
from castore.trees.reading_ahead import RecentDirectories
from castore.trees.ref_names import RefName, refs_of
from castore.trees.walking import resolve

if TYPE_CHECKING:
    from castore.serving.live.view import LiveView

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Fields: TypeAlias = list[tuple[str, str]]

_HEX: Final = re.compile(rb"[0-9a-fA-F]{64}")
_ARCHIVES: Final[Mapping[str, tuple[Literal["tar", "zip"], Literal["", "zst"], str]]] = {
    "tar": ("tar", "", "application/x-tar"),
    "tar.zst": ("tar", "zst", "application/zstd"),
    "zip": ("zip", "", "application/zip"),
}
_MOST_URL: Final = 8 << 10
WATCHED: Final = "castore.watched"
"""What a request has in its state if its server gives a client up that takes nothing."""
_BEGINNING: Final = 64 << 10
"""How much of a file its page has."""
_ARCHIVES_AT_ONCE: Final = 4
_LOOKING_AT_ONCE: Final = 4
_WRONG_SIZE: Final = "the file has another size than its entry says"
_FOR_EVER: Final = "max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"

_SAFE: Final[Fields] = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_SANDBOX: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'"
)
"""What contents may do that a browser shows: anybody may have written them."""


@attrs.frozen(kw_only=True)
class HttpOptions:
    """How blobs and trees are served.

    Attributes:
        root: The tree at `/`, as `TreePlace.parse` reads it; without one there is a list of refs.
        auto_index: Whether directories are listed; else they are 403.
        index_names: The files that stand for their directory, the first one that is there.
        site: Whether the tree at `/` is a site that is trusted: its pages may do what pages do, and nothing
            but the tree is served.
        writable: Whether blobs may be stored, by who has a token for that.
        private: Whether reading takes a token as well.
        hosts: The hosts that requests may name, without a port; `None` takes any. On a machine's own address
            it keeps pages of others from reading by a name that leads there.
        cors: The origins whose pages may read, such as `https://example.org`.
        check_frames: Whether frames that are sent as they are stored are unpacked and checked before.
        live: Who sees the live view of the composition, which shows places and hosts: nobody (`off`),
            `anybody` who may read, or who has a `token` for reading, also where nothing else takes one.
        only_live: Whether nothing else is served, and `/` leads to it.
        most_body: How many bytes a blob may have that is stored.
        idle: After how many seconds a client that takes, or sends, nothing is given up.
    """

    root: str | None = None
    auto_index: bool = True
    index_names: Sequence[str] = ()
    site: bool = False
    writable: bool = False
    private: bool = False
    hosts: Collection[str] | None = None
    cors: Collection[str] = ()
    check_frames: bool = True
    live: Literal["off", "anybody", "token"] = "off"
    only_live: bool = False
    most_body: int = 1 << 40
    idle: float = 30.0


class _AnswerError(Exception):
    """A request that is answered with a status and words."""

    def __init__(self, status: int, words: str, fields: Fields | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.fields = fields or []


@attrs.frozen
class _Root:
    """A root that was looked up, as it stood then."""

    place: TreePlace
    node: Node

    @property
    def title(self) -> str:
        """What a page calls it."""
        if isinstance(self.place.root, B3Digest):
            return str(self.place.root)[:16]
        return str(self.place) if self.place.path else str(self.place.root)


class _GoneError(Exception):
    """The client went away, or does not go on."""


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
        self._place = None if self.options.root is None else TreePlace.parse(self.options.root)
        self._lookup = TreeLookup(stores, service)
        self._recent = RecentDirectories(self._lookup.directories)
        if self._place is not None and isinstance(self._place.root, ShortDigest):
            whole = cast("DirectoryNode", self._lookup.root(self._place.root)).digest
            self._place = attrs.evolve(self._place, root=whole)
        self._threads = Threads(32)
        self._packing: asyncio.Semaphore | None = None
        self._program = version("castore")
        # What takes a token is nobody else's, such as that of a proxy on the way.
        whose = "private" if self.options.private else "public"
        self._for_ever = f"{whose}, {_FOR_EVER}"
        self._ask_again = f"private, {_ASK_AGAIN}" if self.options.private else _ASK_AGAIN
        mimetypes.init()  # It reads files, the first time.
        self._live_view: LiveView | None = None
        self._looking: asyncio.Semaphore | None = None
        if self.options.live != "off":
            from castore.serving.live.view import LiveView  # noqa: PLC0415 - for those who want it

            self._live_view = LiveView(stores, service, alone=self.options.only_live)

    @property
    def _blobs(self) -> BlobService:
        return self._stores.blobs(self._service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            request = _Request(self, scope, receive, send)
            try:
                await self._answer(request)
            except _GoneError:
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

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what *call* returns, on a thread."""
        return await self._threads.run(call)

    async def _answer(self, request: _Request) -> None:
        try:
            try:
                request.check()
                self._authorize(request)
                await self._route(request)
            except (NodeNotFoundError, InvalidDirectoryError) as error:
                raise _AnswerError(404, error.message) from error
            except UnavailableError as error:
                if request.begun:
                    raise
                self._report(f"{request.method} {request.shown}: {error}")
                raise _AnswerError(503, "the store does not answer", [("Retry-After", "5")]) from error
            except CastoreError as error:
                if request.begun:
                    raise
                self._report(f"{request.method} {request.shown}: {error}")
                raise _AnswerError(500, "what is stored cannot be read") from error
        except _AnswerError as answer:
            await request.refuse(answer)

    def _authorize(self, request: _Request) -> None:
        tokens = self._tokens()
        writing = request.method not in {"GET", "HEAD", "OPTIONS"}
        client: Client | None = ANYBODY
        if writing and not (self.options.writable and tokens):
            raise _AnswerError(403, "nothing is stored here")
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
            raise _AnswerError(401, "this takes a token", ways)
        if ("write" if writing else "read") not in client.rights:
            raise _AnswerError(403, "this token is not for that")

    async def _route(self, request: _Request) -> None:
        parts = request.parts
        top = None if self._place is None else await self.run(lambda: self._top(parts))
        if self.options.only_live and parts[:1] != [b"ui"]:
            request.only("GET", "HEAD")
            if parts:
                raise _AnswerError(404, "there is nothing here but the live view")
            await request.redirect(request.base + "ui/composition")
        elif top is not None:
            request.only("GET", "HEAD")
            await self._serve_tree(request, top, request.base, parts, lasting=False)
        elif parts == [b"blob"]:
            request.only("POST")
            await self._store(request, None)
        elif len(parts) == 2 and parts[0] == b"blob" and _HEX.fullmatch(parts[1]):
            digest = B3Digest.parse(parts[1].decode())
            request.only("GET", "HEAD", *(["PUT"] if self.options.writable else []))
            if request.method == "PUT":
                await self._store(request, digest)
            else:
                await self._serve_blob(request, digest)
        elif len(parts) >= 2 and parts[0] == b"tree":
            request.only("GET", "HEAD")
            root, used = await self.run(lambda: self._root_in(parts[1:]))
            base = request.base + "".join(pages.link_to(part) + "/" for part in parts[: used + 1])
            lasting = isinstance(root.place.root, B3Digest)
            await self._serve_tree(request, root, base, parts[1 + used :], lasting=lasting)
        elif len(parts) >= 3 and parts[:2] == [b"api", b"tree"]:
            request.only("GET", "HEAD")
            root, used = await self.run(lambda: self._root_in(parts[2:]))
            await self._serve_json(request, root, parts[2 + used :])
        elif parts[:2] == [b"ui", b"composition"] and self._live_view is not None:
            request.only("GET", "HEAD")
            await self._serve_live(request, self._live_view, parts[2:])
        elif not parts and self._place is None:
            request.only("GET", "HEAD")
            body, tag = await self.run(lambda: self._home(request.base))
            await self._serve_page(request, lambda: body, tag)
        else:
            raise _AnswerError(404, "there is nothing here")

    # -- looking up; on a thread --

    def _top(self, parts: list[bytes]) -> _Root | None:
        """Return the tree at `/` if it is asked for: by what has no other meaning, or what it has itself."""
        assert self._place is not None
        own = {b"blob", b"tree", b"api"} | ({b"ui"} if self._live_view is not None else set())
        if self.options.site or not parts or parts[0] not in own:
            return self._node_of(self._place)
        with contextlib.suppress(NodeNotFoundError, InvalidDirectoryError):
            root = self._node_of(self._place)
            path = self._place.path.join(parts[0])
            if resolve(self._recent, root.node, path, follow=False) is not None:
                return root
        return None

    def _node_of(self, place: TreePlace) -> _Root:
        if isinstance(place.root, B3Digest):
            directory = self._recent.get(place.root)
            if directory is None:
                raise NodeNotFoundError(f"no directory {place.root} in `{self._service}`")
            return _Root(place, directory.node)
        return _Root(place, self._lookup.root(place.root))

    def _root_in(self, parts: list[bytes]) -> tuple[_Root, int]:
        """Return the root that a path begins with, and how many parts that has: a ref may have several."""
        with contextlib.suppress(InvalidDigestError, InvalidRefError, UnicodeDecodeError):
            first = parse_root(parts[0].decode())
            if isinstance(first, B3Digest):
                return self._node_of(TreePlace(first, in_tree=True)), 1
            # To complete the beginning of a digest takes a list of all that there is.
            if isinstance(first, RefName):
                refs = refs_of(self._stores, self._service)
                names = [part.decode("utf-8", "replace") for part in parts]
                found = find_leading_ref(refs, names)
                if found is not None:
                    name, named, used = found
                    return _Root(TreePlace(name, in_tree=True), named.node), used
        raise NodeNotFoundError("no tree has this digest or name")

    def _find(self, root: _Root, parts: list[bytes]) -> Node:
        node = resolve(self._recent, root.node, root.place.path.join(*parts))
        if node is None:
            raise NodeNotFoundError(f"the tree has nothing at {str(TreePath(parts))!r}")
        return node

    def _directory(self, node: DirectoryNode, root: _Root) -> Directory:
        within = root.node.digest if isinstance(root.node, DirectoryNode) else None
        found = self._recent.get(node.digest, within=within)
        if found is None:
            raise MissingDirectoryError(node.digest)
        return found

    def _index_in(self, directory: Directory) -> tuple[bytes, FileNode] | None:
        """Return the file that stands for a directory."""
        entries = {bytes(name): node for name, node in directory.items()} if self.options.index_names else {}
        for name in map(os.fsencode, self.options.index_names):
            node = entries.get(name)
            if isinstance(node, FileNode):
                return name, node
        return None

    def _home(self, base: str) -> tuple[bytes, str]:
        names: list[str] = []
        with contextlib.suppress(CompositionError):
            names = [name for name, _ in refs_of(self._stores, self._service).list()]
        body = pages.home(base, names, live=self._live_view is not None)
        return body, f'W/"{B3Digest.of(body).hex()[:32]}"'

    async def _serve_live(self, request: _Request, view: LiveView, parts: list[bytes]) -> None:
        from castore.serving.live.page import POLICY  # noqa: PLC0415 - as where the view is made

        fields = [("Cache-Control", "no-store"), ("Content-Security-Policy", POLICY)]
        if parts == [b"state"]:
            body = await self.run(view.state)
            await request.answer(200, [*fields, ("Content-Type", "application/json")], body)
        elif not parts and not request.slash:
            # Stores that hang keep threads; who looks for blobs must not have all of them.
            if self._looking is None:
                self._looking = asyncio.Semaphore(_LOOKING_AT_ONCE)
            async with self._looking if request.query.get("digest") else contextlib.nullcontext():
                body = await self.run(lambda: view.page(request.base, request.query))
            await request.answer(200, [*fields, ("Content-Type", "text/html; charset=utf-8")], body)
        else:
            raise _AnswerError(404, "there is nothing here")

    # -- trees --

    async def _serve_tree(
        self, request: _Request, root: _Root, base: str, parts: list[bytes], *, lasting: bool
    ) -> None:
        node = await self.run(lambda: self._find(root, parts))
        if isinstance(node, FileNode):
            if request.slash:
                raise _AnswerError(404, "this is a file, and no directory")
            name = parts[-1] if parts else b""
            if "view" in request.query and not self.options.site:
                await self._serve_preview(request, root, base, parts, node)
            else:
                await self._serve_file(request, node, name, self._for_ever if lasting else self._ask_again)
            return
        if not isinstance(node, DirectoryNode):
            raise _AnswerError(404, "this is a link that leads nowhere")
        if not request.slash and parts:
            await request.redirect(request.url + "/")
            return
        if not request.slash and not request.url.endswith("/"):
            await request.redirect(request.url + "/")
            return
        archive = request.query.get("archive")
        if archive is not None and not self.options.site:
            await self._serve_archive(request, node, parts, archive)
            return
        if self.options.index_names:
            index = await self.run(lambda: self._index_in(self._directory(node, root)))
            if index is not None:
                await self._serve_file(request, index[1], index[0], self._ask_again)
                return
        if not self.options.auto_index:
            raise _AnswerError(403, "directories are not listed here")
        down, by = request.query.get("order") == "down", request.query.get("sort", "name")
        by = by if by in {"name", "size"} else "name"
        text = request.query.get("page", "1")
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 1

        home = "" if base == request.base else request.base

        def page() -> bytes:
            entries = self._directory(node, root).items()
            return pages.listing(
                root.title, base, parts, node, entries, by=by, down=down, number=number, home=home
            )

        await self._serve_page(request, page, f'W/"{node.digest}-{self._program}-{by}-{down}-{number}"')

    async def _serve_preview(
        self, request: _Request, root: _Root, base: str, parts: list[bytes], node: FileNode
    ) -> None:
        media = _media_of(parts[-1] if parts else b"")
        home = "" if base == request.base else request.base

        def page() -> bytes:
            beginning = b""
            if not media.startswith(("image/", "video/", "audio/")):
                with self._blobs.open(node.digest) as reader:
                    beginning = reader.read(_BEGINNING)
            return pages.preview(root.title, base, parts, node, media, beginning, home=home)

        await self._serve_page(request, page, f'W/"{node.digest}-{self._program}"')

    async def _serve_page(self, request: _Request, page: Callable[[], bytes], tag: str) -> None:
        """Serve what *page* makes, on a thread, unless the client has it."""
        fields = [
            ("ETag", tag),
            ("Cache-Control", self._ask_again),
            ("Content-Security-Policy", pages.POLICY),
        ]
        if not await request.is_settled(fields, tag):
            body = await self.run(page)
            await request.answer(200, [*fields, ("Content-Type", "text/html; charset=utf-8")], body)

    async def _serve_json(self, request: _Request, root: _Root, parts: list[bytes]) -> None:
        node = await self.run(lambda: self._find(root, parts))
        tag = f'W/"{getattr(node, "digest", "link")}-{self._program}-json"'

        def document() -> bytes:
            found: dict[str, Any] = node_to_json(node)
            if isinstance(node, DirectoryNode):
                found["entries"] = [
                    {"name": name.decode("utf-8", "surrogateescape"), **node_to_json(each)}
                    for name, each in self._directory(node, root).items()
                ]
            return json.dumps(found).encode() + b"\n"

        fields = [("ETag", tag), ("Cache-Control", self._ask_again)]
        if not await request.is_settled(fields, tag):
            body = await self.run(document)
            await request.answer(200, [*fields, ("Content-Type", "application/json")], body)

    async def _serve_archive(
        self, request: _Request, node: DirectoryNode, parts: list[bytes], archive: str
    ) -> None:
        if archive not in _ARCHIVES:
            raise _AnswerError(404, f"there is no archive of this kind; there are {', '.join(_ARCHIVES)}")
        form, compression, media = _ARCHIVES[archive]
        name = parts[-1] if parts else str(node.digest)[:16].encode()
        tag = f'"{node.digest}-{pages.link_to(name)}-{archive}"'
        fields = [
            ("ETag", tag),
            ("Cache-Control", self._ask_again),
            ("Content-Security-Policy", _SANDBOX),
        ]
        if await request.is_settled(fields, tag):
            return
        fields += [("Content-Type", media), _attachment(name + b"." + archive.encode())]
        if request.method == "HEAD":
            await request.answer(200, fields, None)
            return
        if self._packing is None:
            self._packing = asyncio.Semaphore(_ARCHIVES_AT_ONCE)
        loop = asyncio.get_running_loop()

        def give(piece: bytes) -> None:
            # On the thread that packs: it goes on when the client has taken this.
            asyncio.run_coroutine_threadsafe(request.send_piece(piece), loop).result()

        def pack() -> None:
            file = Outlet(give)
            options = PackOptions(form, compression, name)
            pack_tree(node, cast("Any", file), self._blobs, self._lookup.directories, options)
            file.flush()

        async with self._packing:
            await request.begin(200, fields)
            request.watch()
            try:
                await self.run(pack)
                await request.end()
            finally:
                request.watch_no_longer()

    # -- blobs --

    async def _serve_blob(self, request: _Request, digest: B3Digest) -> None:
        fields = self._fields_of(b"", digest, request, self._for_ever)
        if await self._is_known(request, digest, fields):
            return
        reader: BlobReader | None = await self.run(lambda: self._blobs.open_read(digest))
        if reader is None:
            raise _AnswerError(404, "there is no blob of this digest")
        try:
            await self._send_file(request, FileNode(digest, reader.size), b"", fields, reader)
        finally:
            await self._threads.run(reader.close, insist=True)

    async def _serve_file(self, request: _Request, node: FileNode, name: bytes, cache: str) -> None:
        fields = self._fields_of(name, node.digest, request, cache)
        if not await self._is_known(request, node.digest, fields):
            await self._send_file(request, node, name, fields, None)

    def _fields_of(self, name: bytes, digest: B3Digest, request: _Request, cache: str) -> Fields:
        fields = [("Cache-Control", cache), ("Vary", "Accept-Encoding")]
        if not self.options.site:
            fields.append(("Content-Security-Policy", _SANDBOX))
        if "download" in request.query:
            fields.append(_attachment(name or str(digest).encode()))
        return fields

    @staticmethod
    async def _is_known(request: _Request, digest: B3Digest, fields: Fields) -> bool:
        """Answer a client that has this blob, in either form: without a look at it, as it never changes."""
        listed = request.headers.get("if-none-match", "")
        if "*" in listed or "if-match" in request.headers:
            return False  # That asks whether it is there.
        tags = [f'"{digest}"']
        if "range" not in request.headers and accepts(request.headers.get("accept-encoding"), "zstd"):
            tags.append(f'"{digest}-zstd"')
        for tag in tags:
            if verdict(request.method, request.headers, tag) == 304:
                await request.answer(304, [*fields, ("ETag", tag)])
                return True
        return False

    async def _send_file(
        self, request: _Request, node: FileNode, name: bytes, fields: Fields, reader: BlobReader | None
    ) -> None:
        """Send a blob as it is stored, or by a reader: that which is given, or else one of its own."""
        digest, size = node.digest, node.size
        media = _media_of(name)
        headers = request.headers
        stored = None
        if "range" not in headers and accepts(headers.get("accept-encoding"), "zstd"):
            stored = await self.run(lambda: frames_of(self._blobs, digest, size))
        tag = f'"{digest}-zstd"' if stored else f'"{digest}"'
        fields = [*fields, ("ETag", tag)]
        if await request.is_settled(fields, tag):
            return
        fields.append(("Content-Type", media))
        if stored is not None:
            fields.append(("Content-Encoding", "zstd"))
            if request.method == "HEAD":
                await request.answer(200, fields, None)
                return
            await request.begin(200, fields)
            store, chunks = stored
            await self._stream(request, frames(self._blobs, store, chunks, check=self.options.check_frames))
            return
        fields.append(("Accept-Ranges", "bytes"))
        ranges: list[tuple[int, int]] = []
        if request.method == "GET" and range_holds(headers.get("if-range"), tag):
            try:
                ranges = parse_ranges(headers.get("range"), size)
            except NoRangeError:
                fields = [each for each in fields if each[0] != "Content-Type"]
                raise _AnswerError(
                    416, "there are no such bytes", [*fields, ("Content-Range", f"bytes */{size}")]
                ) from None
        if request.method == "HEAD":
            await request.answer(200, [*fields, ("Content-Length", str(size))], None)
        elif not ranges and size <= PIECE:
            # Most files are small: one turn of a thread for all of it.
            data: bytes | None = await self.run(lambda: self._whole(node, reader))
            if data is None:
                raise _AnswerError(500, _WRONG_SIZE)
            await request.answer(200, fields, data)
        elif reader is not None:
            await self._send_bytes(request, node, fields, ranges, media, reader)
        else:
            own: BlobReader = await self.run(lambda: self._blobs.open(digest))
            try:
                await self._send_bytes(request, node, fields, ranges, media, own)
            finally:
                await self._threads.run(own.close, insist=True)

    async def _send_bytes(  # noqa: PLR0917 - one step of `_send_file`, to itself
        self,
        request: _Request,
        node: FileNode,
        fields: Fields,
        ranges: list[tuple[int, int]],
        media: str,
        reader: BlobReader,
    ) -> None:
        if reader.size != node.size:
            raise _AnswerError(500, _WRONG_SIZE)
        if not ranges:
            await request.begin(200, [*fields, ("Content-Length", str(node.size))])
            await self._stream(request, pieces(reader, 0, node.size))
        elif len(ranges) == 1:
            begin, end = ranges[0]
            fields = [*fields, ("Content-Range", f"bytes {begin}-{end - 1}/{node.size}")]
            await request.begin(206, [*fields, ("Content-Length", str(end - begin))])
            await self._stream(request, pieces(reader, begin, end))
        else:
            await self._send_parts(request, reader, fields, ranges, media)

    def _whole(self, node: FileNode, reader: BlobReader | None) -> bytes | None:
        """Return a file; `None` if it is not as large as its entry says."""
        if reader is not None:
            return reader.read()
        with self._blobs.open(node.digest) as own:
            return own.read() if own.size == node.size else None

    async def _send_parts(
        self, request: _Request, reader: BlobReader, fields: Fields, ranges: list[tuple[int, int]], media: str
    ) -> None:
        boundary = os.urandom(16).hex()
        heads = [
            (
                f"\r\n--{boundary}\r\nContent-Type: {media}\r\n"
                f"Content-Range: bytes {begin}-{end - 1}/{reader.size}\r\n\r\n"
            ).encode()
            for begin, end in ranges
        ]
        last = f"\r\n--{boundary}--\r\n".encode()
        length = sum(map(len, heads)) + sum(end - begin for begin, end in ranges) + len(last)
        fields = [each for each in fields if each[0] != "Content-Type"]
        fields += [
            ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
            ("Content-Length", str(length)),
        ]

        def parts() -> Iterator[bytes]:
            for head, (begin, end) in zip(heads, ranges, strict=True):
                yield head
                yield from pieces(reader, begin, end)
            yield last

        await request.begin(206, fields)
        await self._stream(request, parts())

    async def _stream(self, request: _Request, body: Iterator[bytes]) -> None:
        """Send a body; while a piece is sent the next one is read."""
        coming = asyncio.ensure_future(self.run(lambda: next(body, None)))
        try:
            request.watch()
            while (piece := await coming) is not None:
                coming = asyncio.ensure_future(self.run(lambda: next(body, None)))
                await request.send_piece(piece)
            await request.end()
        finally:
            if not coming.done():
                # The reader is not closed while a thread reads.
                await asyncio.wait([coming])
            if not coming.cancelled():
                coming.exception()
            request.watch_no_longer()

    async def _store(self, request: _Request, digest: B3Digest | None) -> None:
        length = request.headers.get("content-length")
        if length is not None and (not length.isascii() or not length.isdecimal() or len(length) > 18):
            raise _AnswerError(400, "Content-Length is no number")
        if length is not None and int(length) > self.options.most_body:
            raise _AnswerError(413, f"a blob has {self.options.most_body} bytes at most here")
        if digest is not None and await self.run(lambda: self._blobs.has(digest)):
            await request.answer(200, [("ETag", f'"{digest}"')])
            return
        hasher = blake3()

        def begin() -> BlobWriter:
            return self._blobs.open_write()

        def write(some: list[bytes]) -> None:
            for part in some:
                hasher.update(part)
                writer.write(part)

        def finish(some: list[bytes]) -> B3Digest:
            write(some)
            found = B3Digest(hasher.digest())
            # Other bytes than were meant become no blob.
            return found if digest is not None and found != digest else writer.close()

        writer = await self.run(begin)
        try:
            size = held = 0
            waiting: list[bytes] = []
            async for piece in request.body():
                size += len(piece)
                held += len(piece)
                if size > self.options.most_body:
                    raise _AnswerError(413, f"a blob has {self.options.most_body} bytes at most here")
                waiting.append(piece)
                if held >= PIECE:
                    some, waiting, held = waiting, [], 0
                    await self.run(partial(write, some))
            found: B3Digest = await self.run(lambda: finish(waiting))
        finally:
            await self._threads.run(writer.abort, insist=True)
        if digest is not None and found != digest:
            raise _AnswerError(422, f"these bytes have the digest {found}")
        place = f"{request.base}blob/{found}"
        body = f"{found}\n".encode()
        await request.answer(201, [("Location", place), ("Content-Type", "text/plain")], body)


class _Request:
    """One request, and its answer."""

    def __init__(self, app: HttpApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._receive = receive
        self._send = send
        self.begun = False
        self._gone: asyncio.Task[None] | None = None
        self._is_watched = bool(scope.get("state", {}).get(WATCHED))
        # A unix socket has no port, and no name leads there.
        self._is_local = (scope.get("server") or ("", 0))[1] is None
        self.method: str = scope["method"]
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            # What may be a list comes in several fields as well; of others the first one counts.
            lists = key in {"if-match", "if-none-match", "accept-encoding"}
            self.headers[key] = (
                f"{self.headers[key]},{text}"
                if lists and key in self.headers
                else self.headers.get(key, text)
            )
        mounted = scope.get("root_path", "")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        raw = raw.partition(b"?")[0]
        prefix = mounted.encode()
        self._raw = raw.removeprefix(prefix) if raw.startswith(prefix) else raw
        self.base = pages_prefix(prefix)
        self.url = raw.decode("latin-1")
        self.slash = self._raw.endswith(b"/")
        self.parts: list[bytes] = []
        self.query: dict[str, str] = {}
        for field in scope.get("query_string", b"").decode("latin-1").split("&"):
            key, _, text = field.partition("=")
            self.query.setdefault(key, text)

    @property
    def shown(self) -> str:
        """Its path, for a log: on one line."""
        return self.url[:200].encode("unicode_escape").decode()

    def check(self) -> None:
        """Raise `_AnswerError` for a URL, or a host, that nothing is served for; else `parts` are known."""
        if len(self.url) > _MOST_URL:
            raise _AnswerError(414, f"a URL has {_MOST_URL} bytes at most here")
        if not (self._is_local or self._names_this_server()):
            raise _AnswerError(421, "this server has another name")
        if self._raw in {b"", b"/"}:
            return
        parts = [unquote_to_bytes(part) for part in self._raw.strip(b"/").split(b"/")]
        if self._raw.startswith(b"//") or self._raw.endswith(b"//"):
            parts.append(b"")
        if any(not part or part in {b".", b".."} or b"/" in part or b"\0" in part for part in parts):
            raise _AnswerError(400, "this path has an empty part, or one that is no name")
        self.parts = parts

    def _names_this_server(self) -> bool:
        hosts = self._app.options.hosts
        host = re.sub(r":\d+$", "", self.headers.get("host", "")).lower()
        if hosts is None or not host or host.rstrip(".") in hosts:
            return True
        # No name leads to an address that is written out, and browsers always say a name.
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            return True
        return False

    async def is_settled(self, fields: Fields, tag: str) -> bool:
        """Answer if the conditions of the request say so: it has what *tag* is of, or wants another one."""
        status = verdict(self.method, self.headers, tag)
        if status != 200:
            await self.answer(status, fields)
        return status != 200

    def watch(self) -> None:
        """Look out, while an answer is sent, for the client to go away."""

        async def wait() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass

        self._gone = asyncio.ensure_future(wait())

    def watch_no_longer(self) -> None:
        """Look out no longer."""
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None

    def only(self, *methods: str) -> None:
        """Raise `_AnswerError` for another method."""
        if self.method not in methods:
            raise _AnswerError(405, "this cannot be done here", [("Allow", ", ".join(methods))])

    async def body(self) -> Any:
        """Yield what comes; raise `_GoneError` if the client goes away, or sends nothing for too long."""
        while True:
            try:
                async with asyncio.timeout(self._app.options.idle):
                    message = await self._receive()
            except TimeoutError:
                raise _AnswerError(408, "nothing came for too long", [("Connection", "close")]) from None
            if message["type"] == "http.disconnect":
                raise _GoneError
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def begin(self, status: int, fields: Fields) -> None:
        """Send the head."""
        self.begun = True
        headers = [(name.lower().encode(), text.encode("latin-1")) for name, text in [*fields, *self._safe()]]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _safe(self) -> Fields:
        """Return the fields that every answer has."""
        cors, origin = self._app.options.cors, self.headers.get("origin")
        if not cors:
            return _SAFE
        found = [*_SAFE, ("Vary", "Origin")]
        if origin in cors and self.method in {"GET", "HEAD"}:
            found = [each for each in found if each[0] != "Cross-Origin-Resource-Policy"]
            found += [
                ("Access-Control-Allow-Origin", cast("str", origin)),
                ("Access-Control-Expose-Headers", "ETag, Content-Range, Accept-Ranges"),
            ]
        return found

    async def send_piece(self, piece: bytes) -> None:
        """Send a part of the body; raise `_GoneError` if the client has gone, or does not take it."""
        try:
            async with asyncio.timeout(None if self._is_watched else self._app.options.idle):
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except (TimeoutError, OSError):
            raise _GoneError from None
        if self._gone is not None and self._gone.done():
            raise _GoneError

    async def end(self, piece: bytes = b"") -> None:
        """Send the last part."""
        await self._send({"type": "http.response.body", "body": piece})

    async def answer(self, status: int, fields: Fields, body: bytes | None = b"") -> None:
        """Send a whole answer; `None` stands for a body whose length is not known, or said in *fields*."""
        if body is not None and status != 304:
            fields = [*fields, ("Content-Length", str(len(body)))]
        await self.begin(status, fields)
        await self.end(b"" if body is None or self.method == "HEAD" else body)

    async def redirect(self, place: str) -> None:
        """Send the client to another path of this server."""
        await self.answer(308, [("Location", place), ("Cache-Control", "no-store")])

    async def refuse(self, answer: _AnswerError) -> None:
        """Say why there is nothing else."""
        if self.begun:
            raise _GoneError
        fields = [
            each for each in answer.fields if each[0] not in {"Content-Security-Policy", "Cache-Control"}
        ]
        fields += [("Cache-Control", "no-store"), ("Content-Security-Policy", pages.POLICY)]
        if "text/html" in self.headers.get("accept", ""):
            title = f"{answer.status} {HTTPStatus(answer.status).phrase}"
            body, media = pages.message(title, answer.words, self.base), "text/html; charset=utf-8"
        else:
            body, media = f"{answer.words}\n".encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8"
        await self.answer(answer.status, [*fields, ("Content-Type", media)], body)


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


def pages_prefix(mounted: bytes) -> str:
    """Return the URL of the top, with a slash at its end."""
    return mounted.decode("latin-1").rstrip("/") + "/"


def _media_of(name: bytes) -> str:
    """Return the media type of a file, by its name."""
    media, coding = mimetypes.guess_type(name.decode("utf-8", "replace"), strict=False)
    if media is None or coding is not None:
        return "application/octet-stream"
    return f"{media}; charset=utf-8" if media.startswith("text/") else media


def _attachment(name: bytes) -> tuple[str, str]:
    """Return the field that has a browser keep something as a file of this name (RFC 6266)."""
    plain = "".join(
        chr(each) if chr(each).isalnum() or each in b"._- " else "_" for each in name if each < 0x80
    )
    encoded = pages.link_to(name.decode("utf-8", "replace").encode())
    return "Content-Disposition", f"attachment; filename=\"{plain or 'file'}\"; filename*=UTF-8''{encoded}"
