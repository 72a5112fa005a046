"""Whole objects, read through fsspec up to a bound: a server may send without end."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from fsspec.asyn import sync

from castore.errors import CastoreError, describe
from castore_objectstore.drivers import CONNECT_SECONDS, SILENT_SECONDS
from castore_objectstore.object_store import TooLargeError

_PIECE: Final = 1 << 20

_READS: Final = 2
"""How often an object is read from S3 whose body ends before its end, before any of it was passed on."""

_MOST_OF_AN_ERROR: Final = 64 << 10
"""So much is read of the answer that goes with an error, so that the connection can be used again."""

_MOST_OF_A_LISTING: Final = 32 << 20
"""Bytes of the page that a server of HTTP shows for a folder, at most."""


Take: TypeAlias = Callable[[bytes], object]


def read_pieces(fs: Any, path: str, take: Take, most: int, *, plain: bool = False) -> None:
    """Give *take* the bytes of a file in pieces; raise `TooLargeError` if there are more than *most*.

    Raises what the driver and *take* raise. It is one request, as `cat_file` is at its best. With *plain* no
    use is made of what is known of drivers, as for a chain of them.
    """
    pieces = _Pieces(take, most)
    if plain:
        _read_file(fs.open(path, "rb"), pieces, most)
    elif fs.async_impl and hasattr(fs, "_raise_not_found_for_status"):
        sync(fs.loop, _read_http, fs, path, pieces)
    elif fs.async_impl and hasattr(fs, "_call_s3"):
        sync(fs.loop, _read_s3, fs, path, take, most)
    elif fs.async_impl:
        pieces.add(_read_range(fs, path, most + 1))
    elif hasattr(fs, "ftp") and hasattr(fs.ftp, "getfo"):
        _read_sftp(fs.ftp.open(path, "rb"), pieces, most)
    else:
        _read_file(fs.open(path, "rb"), pieces, most)
    pieces.end()


def _read_file(file: Any, pieces: _Pieces, most: int) -> None:
    with file:
        while piece := file.read(min(_PIECE, most + 1)):
            pieces.add(piece)


def _read_sftp(file: Any, pieces: _Pieces, most: int) -> None:
    """Read with many requests under way at once, and not one for each 32 KiB."""
    with file:
        size = file.stat().st_size
        pieces.require(size)
        if size > file.MAX_REQUEST_SIZE:
            _prefetch(file, size)
        _read_file(file, pieces, most)


def _prefetch(file: Any, size: int) -> None:
    """Ask for all of a file from a thread of the driver's.

    What ends that thread, say a connection that is lost, is what the reader meets, too, and raises.
    The thread would print it.
    """
    ask = file._prefetch_thread  # noqa: SLF001 - the thread has no other place to catch it

    def ask_quietly(*args: Any) -> None:
        with contextlib.suppress(Exception):
            ask(*args)

    file._prefetch_thread = ask_quietly  # noqa: SLF001
    file.prefetch(size)


class _Pieces:
    """Passes on what comes, small parts of it together."""

    def __init__(self, take: Take, most: int) -> None:
        self._take = take
        self._most = most
        self._size = 0
        self._parts: list[bytes] = []
        self._waiting = 0
        self.begun = False

    def require(self, size: int) -> None:
        """Raise `TooLargeError` if so many bytes are too many."""
        if size > self._most:
            raise TooLargeError(self._most)

    def add(self, part: bytes) -> None:
        self._size += len(part)
        self.require(self._size)
        self._parts.append(part)
        self._waiting += len(part)
        if self._waiting >= _PIECE:
            self.end()

    def end(self) -> None:
        if self._parts:
            self.begun = True
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts, self._waiting = [], 0
            self._take(data)


async def _read_http(fs: Any, path: str, pieces: _Pieces) -> None:
    session = await fs.set_session()
    async with session.get(fs.encode_url(path), **fs.kwargs) as response:
        if response.status >= 400:
            await response.content.read(_MOST_OF_AN_ERROR)
        fs._raise_not_found_for_status(response, path)  # noqa: SLF001 - as its own methods do
        pieces.require(response.content_length or 0)
        async for part in response.content.iter_any():
            pieces.add(part)


class _BrokenOffError(Exception):
    """The connection ended after some was passed on, so that it is no use to begin again here."""


async def _read_s3(fs: Any, path: str, take: Take, most: int) -> None:
    from s3fs.core import _error_wrapper, version_id_kw  # noqa: PLC0415 - it is there: *fs* is of it

    bucket, key, version = fs.split_path(path)

    async def read() -> None:
        pieces = _Pieces(take, most)
        answer = await fs._call_s3(  # noqa: SLF001 - as its own methods do
            "get_object", Bucket=bucket, Key=key, **version_id_kw(version)
        )
        body = answer["Body"]
        try:
            pieces.require(answer.get("ContentLength") or 0)
            while part := await body.read(_PIECE):
                pieces.add(part)
        except (TooLargeError, CastoreError):
            raise
        except Exception as error:
            if pieces.begun:
                raise _BrokenOffError(describe(error)) from error
            raise
        finally:
            body.close()
        pieces.end()

    await _error_wrapper(read, retries=_READS)


async def http_client(**options: Any) -> Any:
    """Return what the driver for HTTP makes requests by, which reads no more than a listing may have."""
    import aiohttp  # noqa: PLC0415 - the driver is there

    class BoundedResponse(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                found: list[bytes] = []
                pieces = _Pieces(found.append, _MOST_OF_A_LISTING)
                try:
                    async for part in self.content.iter_any():
                        pieces.add(part)
                except TooLargeError as error:
                    raise OSError(errno.EFBIG, f"The page of a folder: {error}") from None
                pieces.end()
                self._body = b"".join(found)
            return self._body

    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return aiohttp.ClientSession(response_class=BoundedResponse, **{"timeout": limits, **options})


def _read_range(fs: Any, path: str, end: int) -> bytes:
    """Ask for the first bytes of a file: a server that sends more has an error of its own."""
    try:
        data: bytes = fs.cat_file(path, start=0, end=end)
    except FileNotFoundError:
        raise
    except Exception:
        # Of nothing there is no range.
        if fs.info(path)["size"] == 0:
            return b""
        raise
    return data
