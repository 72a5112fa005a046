"""Answers to requests for trees: pages of directories, previews, JSON, archives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any, Final, Literal, cast

import attrs

from castore.aio.threads import Threads
from castore.contract.blobs import BlobService
from castore.digest import B3Digest
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, node_to_json
from castore.serving.http import pages
from castore.serving.http.blob_answers import SANDBOX, BlobAnswers, attachment, media_of
from castore.serving.http.bodies import Outlet
from castore.serving.http.options import HttpOptions
from castore.serving.http.requests import AnswerError, Request
from castore.serving.http.served_trees import ServedRoot, ServedTrees
from castore.trees.packing import PackOptions, pack_tree

_ARCHIVES: Final[Mapping[str, tuple[Literal["tar", "zip"], Literal["", "zst"], str]]] = {
    "tar": ("tar", "", "application/x-tar"),
    "tar.zst": ("tar", "zst", "application/zstd"),
    "zip": ("zip", "", "application/zip"),
}
_ARCHIVES_AT_ONCE: Final = 4
_BEGINNING: Final = 64 << 10
"""How much of a file its page has."""
_ENTRIES_AT_ONCE: Final = 1000
"""So many entries are made JSON before they are sent."""


@attrs.frozen
class ServedPlace:
    """What stands at a path of a tree, and where it is to be found.

    Attributes:
        root: The tree.
        base: The URL of its top, with a slash at its end.
        parts: The path in the tree.
        node: What stands there.
    """

    root: ServedRoot
    base: str
    parts: list[bytes]
    node: Node

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.parts[-1] if self.parts else b""

    def home(self, request: Request) -> str:
        """Return the URL of the page above the tree; none if the tree is at the top."""
        return "" if self.base == request.base else request.base


def _tag_of(node: Node) -> str:
    """Return what is the same only for entries that are the same."""
    if isinstance(node, FileNode):
        return f"{node.digest}-x" if node.executable else str(node.digest)
    return str(node.digest if isinstance(node, DirectoryNode) else B3Digest.of(bytes(node.target)))


class TreeAnswers:
    """Shows trees.

    Arguments:
        trees: What they are found in.
        files: Sends their files.
        blobs: Returns the service that has these.
        threads: Where it is asked.
        options: How it is served.
    """

    def __init__(
        self,
        trees: ServedTrees,
        files: BlobAnswers,
        blobs: Callable[[], BlobService],
        threads: Threads,
        options: HttpOptions,
    ) -> None:
        self._trees = trees
        self._files = files
        self._blobs = blobs
        self._threads = threads
        self._options = options
        self._packing: asyncio.Semaphore | None = None
        self._program = version("castore")

    async def send_tree(
        self, request: Request, place: ServedPlace, *, lasting: bool, data: bytes | None = None
    ) -> None:
        """Answer with what stands at a place: a file, a page, or an archive.

        Arguments:
            request: The request.
            place: The place.
            lasting: Whether what stands there never changes.
            data: The contents of a file, if they were read before.
        """
        node = place.node
        if isinstance(node, FileNode):
            if request.slash:
                raise AnswerError(404, "this is a file, and no directory")
            if "view" in request.query and not self._options.site:
                await self._send_preview(request, place, node)
            else:
                cache = self._options.keep_for_ever if lasting else self._options.ask_again
                await self._files.send_file(request, node, place.name, cache, data)
            return
        if not isinstance(node, DirectoryNode):
            raise AnswerError(404, "this is a link that leads nowhere")
        if not request.slash and (place.parts or not request.url.endswith("/")):
            await request.redirect(request.url + "/")
            return
        archive = request.query.get("archive")
        if archive is not None and not self._options.site:
            await self._send_archive(request, node, place.name, archive)
            return
        if self._options.index_names:
            index = await self._threads.run(
                lambda: self._trees.index_in(self._trees.directory(node, place.root))
            )
            if index is not None:
                await self._files.send_file(request, index[1], index[0], self._options.ask_again)
                return
        if not self._options.auto_index:
            raise AnswerError(403, "directories are not listed here")
        await self._send_listing(request, place, node)

    async def _send_listing(self, request: Request, place: ServedPlace, node: DirectoryNode) -> None:
        down, by = request.query.get("order") == "down", request.query.get("sort", "name")
        by = by if by in {"name", "size"} else "name"
        text = request.query.get("page", "1")
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 1
        root, home = place.root, place.home(request)

        def page() -> bytes:
            entries = self._trees.directory(node, root)
            return pages.listing(
                root.title,
                place.base,
                place.parts,
                node,
                entries,
                by=by,
                down=down,
                number=number,
                home=home,
            )

        await self.send_page(request, page, f'W/"{node.digest}-{self._program}-{by}-{down}-{number}"')

    async def _send_preview(self, request: Request, place: ServedPlace, node: FileNode) -> None:
        media, home = media_of(place.name), place.home(request)

        def page() -> bytes:
            beginning = b""
            if not media.startswith(("image/", "video/", "audio/")):
                with self._blobs().open(node.digest) as reader:
                    beginning = reader.read(_BEGINNING)
            return pages.preview(place.root.title, place.base, place.parts, node, media, beginning, home=home)

        await self.send_page(request, page, f'W/"{node.digest}-{self._program}"')

    async def send_page(self, request: Request, page: Callable[[], bytes], tag: str) -> None:
        """Serve what *page* makes, on a thread, unless the client has it."""
        fields = [
            ("ETag", tag),
            ("Cache-Control", self._options.ask_again),
            ("Content-Security-Policy", pages.POLICY),
        ]
        if not await request.is_settled(fields, tag):
            body = await self._threads.run(page)
            await request.answer(200, [*fields, ("Content-Type", "text/html; charset=utf-8")], body)

    async def send_json(self, request: Request, root: ServedRoot, node: Node) -> None:
        """Answer with an entry of a tree as JSON, of a directory with its entries."""
        tag = f'W/"{_tag_of(node)}-{self._program}-json"'
        fields = [("ETag", tag), ("Cache-Control", self._options.ask_again)]
        if await request.is_settled(fields, tag):
            return
        fields.append(("Content-Type", "application/json"))

        def begin() -> tuple[Iterator[bytes], bytes | None]:
            directory = self._trees.directory(node, root) if isinstance(node, DirectoryNode) else None
            document = _document(node, directory)
            is_small = directory is None or len(directory) <= _ENTRIES_AT_ONCE
            return document, b"".join(document) if is_small else None

        document, whole = await self._threads.run(begin)
        if whole is not None:
            await request.answer(200, fields, whole)
        elif request.method == "HEAD":
            await request.answer(200, fields, None)
        else:
            await request.begin(200, fields)
            await self._files.stream(request, document)

    async def _send_archive(self, request: Request, node: DirectoryNode, name: bytes, archive: str) -> None:
        if archive not in _ARCHIVES:
            raise AnswerError(404, f"there is no archive of this kind; there are {', '.join(_ARCHIVES)}")
        form, compression, media = _ARCHIVES[archive]
        name = name or str(node.digest)[:16].encode()
        tag = f'"{node.digest}-{pages.link_to(name)}-{archive}"'
        fields = [
            ("ETag", tag),
            ("Cache-Control", self._options.ask_again),
            ("Content-Security-Policy", SANDBOX),
        ]
        if await request.is_settled(fields, tag):
            return
        fields += [("Content-Type", media), attachment(name + b"." + archive.encode())]
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
            pack_tree(node, cast("Any", file), self._blobs(), self._trees.directories, options)
            file.flush()

        async with self._packing:
            await request.begin(200, fields)
            request.watch()
            try:
                await self._threads.run(pack)
                await request.end()
            finally:
                request.watch_no_longer()


def _document(node: Node, directory: Directory | None) -> Iterator[bytes]:
    """Yield an entry of a tree as JSON, some entries of its directory at a time."""
    text = json.dumps(node_to_json(node))
    if directory is None:
        yield f"{text}\n".encode()
        return
    between = text[:-1] + ', "entries": ['
    entries = iter(directory.items())
    while some := list(islice(entries, _ENTRIES_AT_ONCE)):
        part = json.dumps(
            [{"name": name.decode("utf-8", "surrogateescape"), **node_to_json(each)} for name, each in some]
        )
        yield (between + part[1:-1]).encode()
        between = ", "
    yield (("" if directory else between) + "]}\n").encode()
