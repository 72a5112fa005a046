"""A service of blobs for async programs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, overload

from castore.aio.facade import Facade
from castore.aio.iterating import iterate
from castore.aio.reading import AsyncBlobReader
from castore.aio.stopping import Stop, StoppableService
from castore.aio.threads import GRACE, THREADS, Threads
from castore.aio.writing import AsyncBlobWriter
from castore.contract.blobs import Answer, BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import BlobDeleter, BlobLister
from castore.contract.inputs import Storable
from castore.digest import B3Digest
from castore.errors import CastoreError, SourceError, UnsupportedError

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")
T = TypeVar("T")
A = ParamSpec("A")

AsyncAnswer: TypeAlias = "bytes | AsyncBlobReader | CastoreError | None"
"""What `AsyncBlobService.read_many` gives for a digest."""


class AsyncBlobService(Facade):
    """Any `BlobService`, used by `await`. Each operation runs on a thread, and stops when it is cancelled.

    What it promises is what the service promises, and the errors are the same. A wait that is cancelled ends
    at once. The work beneath it ends at its next step, at the latest when the piece that is under way is read
    or written: no blob appears, writers are aborted, readers are closed. What hangs is left behind.

    It may be used in any number of event loops at the same time.

    Arguments:
        service: The service; it is closed with this.
        threads: How many operations run at a time; more of them wait in order. Or the threads of somebody
            else.
        grace: How many seconds `close` waits for calls that have not returned.

    Attributes:
        service: The service.
    """

    def __init__(
        self, service: BlobService, *, threads: int | Threads = THREADS, grace: float = GRACE
    ) -> None:
        super().__init__(service.close, threads=threads, grace=grace)
        self.service = service

    async def has(self, digest: B3Digest) -> bool:
        """Tell whether there is a blob, or on services that keep chunks a chunk, of this digest."""
        return await self.call(lambda service: service.has(digest))

    async def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that are absent."""
        wanted = set(digests)
        return await self.call(lambda service: service.missing(wanted))

    async def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob in order; `None` if it is absent, empty if it has no finer chunks."""
        return await self.call(lambda service: service.chunks(digest))

    async def read(self, digest: B3Digest) -> bytes:
        """Return a whole blob; raise `BlobNotFoundError` if it is absent."""
        return await self.call(lambda service: service.read(digest))

    async def open_read(self, digest: B3Digest) -> AsyncBlobReader | None:
        """Open a blob, or a chunk, at its start; `None` if it is absent."""
        reader = await self._threads.run(partial(self.service.open_read, digest), late=_close)
        return None if reader is None else AsyncBlobReader(reader, self._threads)

    async def open(self, digest: B3Digest) -> AsyncBlobReader:
        """Open a blob, or a chunk, at its start; raise `BlobNotFoundError` if it is absent."""
        reader = await self._threads.run(partial(self.service.open, digest), late=_close)
        return AsyncBlobReader(reader, self._threads)

    async def read_many(self, digests: Iterable[B3Digest]) -> AsyncIterator[tuple[B3Digest, AsyncAnswer]]:
        """Yield many blobs, each digest of *digests* once: small ones as bytes, others as readers.

        What is wrong with one is its value, and ends nothing; `None` stands for one that is absent. A reader
        is closed when the next blob is asked for. *digests* is iterated over on threads.
        """
        handed_out: BlobReader | None = None

        def begin(stop: Stop) -> Iterator[tuple[B3Digest, Answer]]:
            for digest, answer in StoppableService(self.service, stop).read_many(digests):
                try:
                    yield digest, answer
                finally:
                    # The iteration has ended before anybody had it.
                    if isinstance(answer, BlobReader) and answer is not handed_out:
                        answer.close()

        async with aclosing(iterate(self._threads, begin, _size_of)) as found:
            async for digest, answer in found:
                if isinstance(answer, BlobReader):
                    handed_out = answer
                    async with AsyncBlobReader(answer, self._threads) as reader:
                        yield digest, reader
                else:
                    yield digest, answer

    async def write(self, data: Buffer) -> B3Digest:
        """Store *data* as one blob; return its digest."""
        # A call that is given up may look at the bytes when the caller has changed them.
        kept = data if isinstance(data, bytes) else bytes(data)
        return await self.call(lambda service: service.write(kept))

    def open_write(self) -> AsyncBlobWriter:
        """Start a new blob."""
        return AsyncBlobWriter(self.service.open_write, self._threads)

    async def put_file(
        self, source: Storable, *, progress: Callable[[int], object] | None = None
    ) -> B3Digest:
        """Store a file, by its path or opened in binary mode from where it stands; return its digest.

        A file that cannot be opened or read raises `SourceError`, and nothing is stored. *progress* is called
        on the event loop with the number of bytes of each piece that is done.
        """
        told = _on_this_loop(progress)
        return await self.call(lambda service: service.put_file(source, progress=told))

    async def put_stream(self, pieces: AsyncIterable[Buffer]) -> B3Digest:
        """Store the bytes that an async iterable yields as one blob; return its digest.

        No more is asked for while the service cannot take more. What the iterable raises is raised, and
        nothing is stored.
        """
        async with self.open_write() as writer:
            async for piece in pieces:
                await writer.write(piece)
            return await writer.close()

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> AsyncIterator[B3Digest | SourceError]:
        """Store many files; yield for each, in order, its digest, or what kept it from being read.

        *progress* as for `put_file`. *paths* is iterated over on threads.
        """
        told = _on_this_loop(progress)
        return iterate(
            self._threads, lambda stop: StoppableService(self.service, stop).put_files(paths, progress=told)
        )

    def list_blobs(self) -> AsyncIterator[B3Digest]:
        """Yield the digest of every blob, each once, in no particular order.

        Raises `UnsupportedError` if the service cannot list its blobs.
        """
        return iterate(
            self._threads,
            lambda stop: _with_capability(
                StoppableService(self.service, stop), BlobLister, "list"
            ).list_blobs(),
        )

    async def delete(self, digest: B3Digest) -> bool:
        """Delete a blob; return whether it was there.

        Raises `UnsupportedError` if the service cannot delete blobs.
        """
        return await self.call(
            lambda service: _with_capability(service, BlobDeleter, "delete").delete(digest)
        )

    @overload
    async def call(self, function: Callable[[BlobService], T], /) -> T: ...

    @overload
    async def call(
        self,
        function: Callable[Concatenate[BlobService, BlobService, A], T],
        other: AsyncBlobService,
        /,
        *args: A.args,
        **kwargs: A.kwargs,
    ) -> T: ...

    @overload
    async def call(
        self, function: Callable[Concatenate[BlobService, A], T], /, *args: A.args, **kwargs: A.kwargs
    ) -> T: ...

    async def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Return what *function* returns, called on a thread with the synchronous service and the arguments.

        The service that it gets stops at its next operation, piece or file when the wait is cancelled; so
        does each `AsyncBlobService` among the positional arguments, in whose place its service comes::

            tally, failed = await near.call(castore.upkeep.copy, far)
        """
        stop = Stop()
        given = [
            StoppableService(argument.service, stop) if isinstance(argument, AsyncBlobService) else argument
            for argument in (self, *args)
        ]
        return await self._threads.run(partial(function, *given, **kwargs), stop=stop)


def _size_of(found: tuple[B3Digest, Answer]) -> int | None:
    _, answer = found
    return None if isinstance(answer, BlobReader) else len(answer) if isinstance(answer, bytes) else 0


def _close(reader: BlobReader | None) -> None:
    if reader is not None:
        reader.close()


def _with_capability(service: BlobService, kind: Callable[..., P], what: str) -> P:
    able = service.capability(kind)
    if able is None:
        raise UnsupportedError(f"this service cannot {what} blobs")
    return able


def _on_this_loop(progress: Callable[[int], object] | None) -> Callable[[int], object] | None:
    """Return what calls *progress* on the running loop, from any thread."""
    if progress is None:
        return None
    loop = asyncio.get_running_loop()
    return lambda count: loop.call_soon_threadsafe(progress, count)
