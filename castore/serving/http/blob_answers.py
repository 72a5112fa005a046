"""Answers to requests for blobs, and for files of trees: whole, by ranges, or as they are stored."""

from __future__ import annotations

import asyncio
import mimetypes
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from blake3 import blake3

from castore.aio.threads import Threads
from castore.contract.blobs import BlobReader, BlobService, BlobWriter
from castore.digest import B3Digest
from castore.format.nodes import FileNode, Node
from castore.serving.http import pages
from castore.serving.http.bodies import PIECE, frames, frames_of, pieces
from castore.serving.http.conditions import NoRangeError, accepts, parse_ranges, range_holds, verdict
from castore.serving.http.options import HttpOptions
from castore.serving.http.requests import AnswerError, Fields, Request

_WRONG_SIZE: Final = "the file has another size than its entry says"
_SMALL: Final = 64 << 10
_ASKED: Final = frozenset({"range", "if-range", "if-match", "if-none-match"})
SANDBOX: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'"
)
"""What contents may do that a browser shows: anybody may have written them."""


class BlobAnswers:
    """Sends and stores blobs.

    Arguments:
        blobs: Returns the service.
        threads: Where it is asked.
        options: How it is served.
    """

    def __init__(self, blobs: Callable[[], BlobService], threads: Threads, options: HttpOptions) -> None:
        self._blobs = blobs
        self._threads = threads
        self._options = options
        mimetypes.init()  # It reads files, the first time.

    async def send_blob(self, request: Request, digest: B3Digest, cache: str) -> None:
        """Answer with a blob, or that there is none; *cache* says for how long it may be kept."""
        fields = self._fields_of(b"", digest, request, cache)
        if await self._is_known(request, digest, fields):
            return
        reader: BlobReader | None = await self._threads.run(lambda: self._blobs().open_read(digest))
        if reader is None:
            raise AnswerError(404, "there is no blob of this digest")
        try:
            await self._send(request, FileNode(digest, reader.size), b"", fields, reader)
        finally:
            await self._threads.run(reader.close, insist=True)

    def read_if_small(self, request: Request, node: Node) -> bytes | None:
        """Return the contents of a small file if all of them will be sent, on the thread that has found it.

        Raises what `open` raises. Most files are small, and a turn of a thread takes longer than to read one.
        """
        if not isinstance(node, FileNode) or node.size > _SMALL or request.method != "GET":
            return None
        if request.slash or "view" in request.query or not _ASKED.isdisjoint(request.headers):
            return None
        if accepts(request.headers.get("accept-encoding"), "zstd"):
            return None
        return self._whole(node, None)

    async def send_file(
        self, request: Request, node: FileNode, name: bytes, cache: str, data: bytes | None = None
    ) -> None:
        """Answer with a file of a tree.

        Arguments:
            request: The request.
            node: The file.
            name: Its name, which tells the kind of its contents.
            cache: For how long it may be kept.
            data: Its contents, if they were read before.
        """
        fields = self._fields_of(name, node.digest, request, cache)
        if not await self._is_known(request, node.digest, fields):
            await self._send(request, node, name, fields, None, data=data)

    def _fields_of(self, name: bytes, digest: B3Digest, request: Request, cache: str) -> Fields:
        fields = [("Cache-Control", cache), ("Vary", "Accept-Encoding")]
        if not self._options.site:
            fields.append(("Content-Security-Policy", SANDBOX))
        if "download" in request.query:
            fields.append(attachment(name or str(digest).encode()))
        return fields

    @staticmethod
    async def _is_known(request: Request, digest: B3Digest, fields: Fields) -> bool:
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

    async def _send(
        self,
        request: Request,
        node: FileNode,
        name: bytes,
        fields: Fields,
        reader: BlobReader | None,
        *,
        data: bytes | None = None,
    ) -> None:
        """Send a blob as it is stored, or by a reader: that which is given, or else one of its own."""
        digest, size = node.digest, node.size
        media = media_of(name)
        headers = request.headers
        stored = None
        if "range" not in headers and accepts(headers.get("accept-encoding"), "zstd"):
            stored = await self._threads.run(lambda: frames_of(self._blobs(), digest, size))
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
            await self.stream(request, frames(self._blobs(), store, chunks, check=self._options.check_frames))
            return
        fields.append(("Accept-Ranges", "bytes"))
        ranges = _ranges_of(request, tag, size, fields)
        if request.method == "HEAD":
            await request.answer(200, [*fields, ("Content-Length", str(size))], None)
        elif not ranges and size <= PIECE:
            # One turn of a thread for all of it.
            if data is None:
                data = await self._threads.run(lambda: self._whole(node, reader))
            if data is None:
                raise AnswerError(500, _WRONG_SIZE)
            await request.answer(200, fields, data)
        elif reader is not None:
            await self._send_bytes(request, node, fields, ranges, reader)
        else:
            own: BlobReader = await self._threads.run(lambda: self._blobs().open(digest))
            try:
                await self._send_bytes(request, node, fields, ranges, own)
            finally:
                await self._threads.run(own.close, insist=True)

    async def _send_bytes(
        self,
        request: Request,
        node: FileNode,
        fields: Fields,
        ranges: list[tuple[int, int]],
        reader: BlobReader,
    ) -> None:
        if reader.size != node.size:
            raise AnswerError(500, _WRONG_SIZE)
        if not ranges:
            await request.begin(200, [*fields, ("Content-Length", str(node.size))])
            await self.stream(request, pieces(reader, 0, node.size))
        elif len(ranges) == 1:
            begin, end = ranges[0]
            fields = [*fields, ("Content-Range", f"bytes {begin}-{end - 1}/{node.size}")]
            await request.begin(206, [*fields, ("Content-Length", str(end - begin))])
            await self.stream(request, pieces(reader, begin, end))
        else:
            await self._send_parts(request, reader, fields, ranges)

    def _whole(self, node: FileNode, reader: BlobReader | None) -> bytes | None:
        """Return a file; `None` if it is not as large as its entry says."""
        if reader is not None:
            return reader.read()
        with self._blobs().open(node.digest) as own:
            return own.read() if own.size == node.size else None

    async def _send_parts(
        self, request: Request, reader: BlobReader, fields: Fields, ranges: list[tuple[int, int]]
    ) -> None:
        media = dict(fields)["Content-Type"]
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
        await self.stream(request, parts())

    async def stream(self, request: Request, body: Iterator[bytes]) -> None:
        """Send a body that is made on threads; while a piece is sent the next one is made."""
        coming = asyncio.ensure_future(self._threads.run(lambda: next(body, None)))
        try:
            request.watch()
            while (piece := await coming) is not None:
                coming = asyncio.ensure_future(self._threads.run(lambda: next(body, None)))
                await request.send_piece(piece)
            await request.end()
        finally:
            if not coming.done():
                # The reader is not closed while a thread reads.
                await asyncio.wait([coming])
            if not coming.cancelled():
                coming.exception()
            request.watch_no_longer()

    async def store(self, request: Request, digest: B3Digest | None) -> None:
        """Store the body of a request: a blob of this digest, or of any."""
        length = request.headers.get("content-length")
        if length is not None and (not length.isascii() or not length.isdecimal() or len(length) > 18):
            raise AnswerError(400, "Content-Length is no number")
        if length is not None and int(length) > self._options.most_body:
            raise AnswerError(413, f"a blob has {self._options.most_body} bytes at most here")
        if digest is not None and await self._threads.run(lambda: self._blobs().has(digest)):
            await request.answer(200, [("ETag", f'"{digest}"')])
            return
        hasher = blake3()

        def begin() -> BlobWriter:
            return self._blobs().open_write()

        def write(some: list[bytes]) -> None:
            for part in some:
                hasher.update(part)
                writer.write(part)

        def finish(some: list[bytes]) -> B3Digest:
            write(some)
            found = B3Digest(hasher.digest())
            # Other bytes than were meant become no blob.
            return found if digest is not None and found != digest else writer.close()

        writer = await self._threads.run(begin)
        try:
            size = held = 0
            waiting: list[bytes] = []
            async for piece in request.body():
                size += len(piece)
                held += len(piece)
                if size > self._options.most_body:
                    raise AnswerError(413, f"a blob has {self._options.most_body} bytes at most here")
                waiting.append(piece)
                if held >= PIECE:
                    some, waiting, held = waiting, [], 0
                    await self._threads.run(partial(write, some))
            found: B3Digest = await self._threads.run(lambda: finish(waiting))
        finally:
            await self._threads.run(writer.abort, insist=True)
        if digest is not None and found != digest:
            raise AnswerError(422, f"these bytes have the digest {found}")
        place = f"{request.base}blob/{found}"
        body = f"{found}\n".encode()
        await request.answer(201, [("Location", place), ("Content-Type", "text/plain")], body)


def _ranges_of(request: Request, tag: str, size: int, fields: Fields) -> list[tuple[int, int]]:
    """Return the parts that are asked for, none for all; raises `AnswerError` where none is there."""
    headers = request.headers
    if request.method != "GET" or not range_holds(headers.get("if-range"), tag):
        return []
    try:
        return parse_ranges(headers.get("range"), size)
    except NoRangeError:
        fields = [each for each in fields if each[0] != "Content-Type"]
        raise AnswerError(
            416, "there are no such bytes", [*fields, ("Content-Range", f"bytes */{size}")]
        ) from None


def media_of(name: bytes) -> str:
    """Return the media type of a file, by its name."""
    media, coding = mimetypes.guess_type(name.decode("utf-8", "replace"), strict=False)
    if media is None or coding is not None:
        return "application/octet-stream"
    return f"{media}; charset=utf-8" if media.startswith("text/") else media


def attachment(name: bytes) -> tuple[str, str]:
    """Return the field that has a browser keep something as a file of this name (RFC 6266)."""
    plain = "".join(
        chr(each) if chr(each).isalnum() or each in b"._- " else "_" for each in name if each < 0x80
    )
    encoded = pages.link_to(name.decode("utf-8", "replace").encode())
    return "Content-Disposition", f"attachment; filename=\"{plain or 'file'}\"; filename*=UTF-8''{encoded}"
