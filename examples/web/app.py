"""Blobs over HTTP: `GET` with ranges, `HEAD`, and `PUT` of a stream of any length.

Run it with `uvicorn --factory app:create_app`. Nothing is held in memory but a piece of each blob, and when a
client goes away the work for it stops.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import castore.aio
from castore import B3Digest, CorruptBlobError, InvalidDigestError, UnavailableError
from castore.aio import AsyncBlobReader, AsyncBlobService

PIECE = 256 << 10
RANGE = re.compile(r"bytes=(\d*)-(\d*)")

Door = Callable[[], AbstractAsyncContextManager[AsyncBlobService]]


@asynccontextmanager
async def door() -> AsyncIterator[AsyncBlobService]:
    """Open the composition in the current folder, for as long as the server runs."""
    async with castore.aio.open("composition.toml") as stores:
        yield await stores.blobs()


def create_app(door: Door = door) -> Starlette:
    """Return the application; *door* opens the service that its blobs are kept in."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with door() as blobs:
            yield {"blobs": blobs}

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/blobs", put, methods=["PUT"]),
            Route("/blobs/{digest}", get, methods=["GET", "HEAD"]),
        ],
        exception_handlers={UnavailableError: unavailable, CorruptBlobError: corrupt},
    )


async def put(request: Request) -> Response:
    """Store the body. A client that goes away before its end leaves nothing behind."""
    blobs: AsyncBlobService = request.state.blobs
    try:
        digest = await blobs.put_stream(request.stream())
    except ClientDisconnect:
        return Response(status_code=400)  # The writer is aborted, and nobody reads this.
    return JSONResponse({"digest": str(digest)}, 201, headers={"Location": f"/blobs/{digest}"})


async def get(request: Request) -> Response:
    """Return a blob, or the range of it that is asked for."""
    blobs: AsyncBlobService = request.state.blobs
    try:
        digest = B3Digest.parse(request.path_params["digest"])
    except InvalidDigestError as error:
        raise HTTPException(400, str(error)) from error
    # What has this name never changes.
    headers = {"ETag": f'"{digest}"', "Cache-Control": "public, max-age=31536000, immutable"}
    reader = await blobs.open_read(digest)
    if reader is None:
        raise HTTPException(404, f"no blob {digest}")
    if request.headers.get("if-none-match") == headers["ETag"]:
        await reader.close()
        return Response(status_code=304, headers=headers)
    headers["Accept-Ranges"] = "bytes"
    part = wanted(request.headers.get("range", ""), reader.size)
    if part is None:
        await reader.close()
        raise HTTPException(416, "no such range", {"Content-Range": f"bytes */{reader.size}"})
    headers["Content-Length"] = str(len(part))
    if len(part) < reader.size:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{reader.size}"
    return BlobResponse(reader, part, headers, body=request.method != "HEAD")


def wanted(header: str, size: int) -> range | None:
    """Return the range that a header asks for: all of the blob if there is none, `None` if it is outside."""
    match = RANGE.fullmatch(header)
    if match is None or match[0] == "bytes=-":
        return range(size)  # A server may pass over what it does not understand, such as several ranges.
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size) if int(last) and size else None
    stop = min(int(last) + 1, size) if last else size
    return range(int(first), stop) if int(first) < stop else None


class BlobResponse(StreamingResponse):
    """Sends what is wanted of a blob, and closes its reader, whatever becomes of the client."""

    def __init__(self, reader: AsyncBlobReader, part: range, headers: dict[str, str], *, body: bool) -> None:
        super().__init__(
            self.pieces(part) if body else nothing(),
            status_code=206 if "Content-Range" in headers else 200,
            headers=headers,
            media_type="application/octet-stream",
        )
        self.reader = reader

    async def pieces(self, part: range) -> AsyncIterator[bytes]:
        """Yield the bytes. Each was checked before; a blob that turns out to be damaged is cut off there."""
        await self.reader.seek(part.start)
        left = len(part)
        while left:
            piece = await self.reader.read(min(left, PIECE))
            left -= len(piece)
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all; when the client goes away this is cancelled."""
        async with self.reader:
            await super().__call__(scope, receive, send)


async def nothing() -> AsyncIterator[bytes]:
    """Yield no bytes, as the answer to `HEAD`."""
    for piece in ():
        yield piece


async def unavailable(_: Request, error: Exception) -> Response:
    """Say that it may be worth trying again."""
    return PlainTextResponse(str(error), 503, headers={"Retry-After": "1"})


async def corrupt(_: Request, error: Exception) -> Response:
    """Say that it is not."""
    return PlainTextResponse(str(error), 500)
