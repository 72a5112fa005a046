"""The contract: what every service of blobs promises, and what its readers and writers do.

A backend subclasses `BlobService` and writes three methods, `has`, `open_read` and `open_write`, and a
fourth, `chunks`, if it keeps blobs in chunks. `castore.streams` has the usual readers and writers ready made. Services are used by many threads at once; a reader or a writer belongs
to one thread at a time.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

import attrs

from castore.buffers import new_buffer
from castore.contract.inputs import Source, Sourceable, open_source
from castore.digest import B3Digest, no_digest
from castore.errors import BlobNotFoundError, SourceError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

P = TypeVar("P")

_COPY_SIZE: Final = 1 << 20


@attrs.frozen(slots=True)
class ChunkMeta:
    """One chunk of a blob: the digest of its bytes and how many they are."""

    digest: B3Digest
    size: int


class BlobReader(io.BufferedIOBase):
    """A seekable binary file object over one blob, opened by `BlobService.open_read`.

    It works wherever Python takes a binary file: `shutil.copyfileobj`, `zipfile`, `tarfile`,
    `io.TextIOWrapper`, `pandas.read_csv`. A reader may raise `CorruptBlobError` or `UnavailableError` in
    the middle of a blob, but never hands out a byte that failed its check.

    Subclass `castore.streams.readers.PieceReader` for a reader with all methods derived from one.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """The size of the blob in bytes."""

    def read_view(self, size: int = -1, /) -> memoryview:
        """Return up to *size* bytes as a view, valid until the next call; empty only at the end of the blob.

        As `read1`, but a reader that has the bytes at hand need not copy them.
        """
        return memoryview(self.read1(size))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True


class BlobWriter(ABC):
    """Takes the bytes of one blob and, on `close`, names it. Opened by `BlobService.open_write`.

    Nothing is visible before `close`. As a context manager it closes on success and aborts on an
    exception. After `close` or `abort`, writing raises `WriterClosedError`.

    Subclass `castore.streams.writers.GuardedWriter` for a writer with these rules kept.
    """

    _buffer: memoryview | None = None

    @abstractmethod
    def write(self, data: Buffer, /) -> int:
        """Take all of *data*, in bytes; return how many that were. The buffer may be reused afterwards."""

    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        """Take bytes from *readinto*, called once with a buffer; return how many it put there, 0 at the end.

        As reading into a buffer and writing that, but a writer may spare a copy of the bytes.
        """
        if self._buffer is None:
            self._buffer = new_buffer(_COPY_SIZE)
        count = readinto(self._buffer)
        self.write(self._buffer[:count])
        return count

    @abstractmethod
    def close(self) -> B3Digest:
        """Make the blob visible and return its digest; again the same digest when called again."""

    @abstractmethod
    def abort(self) -> None:
        """Forget what was written: no blob appears. Does nothing after `close` or a first `abort`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class BlobService(ABC):
    """A place that keeps blobs, named by the BLAKE3 digest of their bytes.

    Three outcomes are never mixed up: a blob is *absent* (`None`, `False`), *corrupt*
    (`CorruptBlobError`), or the service is *unavailable* (`UnavailableError`).

    A subclass needs no call of a constructor of this class.
    """

    @abstractmethod
    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is a blob, or on services that keep chunks a chunk, of this digest."""

    @abstractmethod
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob, or a chunk, at its start; `None` if it is absent."""

    @abstractmethod
    def open_write(self) -> BlobWriter:
        """Start a new blob."""

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob in order.

        Returns `None` if the blob is absent; an empty sequence if it is there with no finer chunks; else
        at least two chunks, which `open_read` opens by their digests.
        """
        return () if self.has(digest) else None

    # -- written once on top of the four; a service overrides one only to be faster --

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that `has` is false for."""
        return {digest for digest in set(digests) if not self.has(digest)}

    def read(self, digest: B3Digest) -> bytes:
        """Return a whole blob; raise `BlobNotFoundError` if it is absent."""
        reader = self.open_read(digest)
        if reader is None:
            if not isinstance(digest, bytes):
                raise no_digest(digest)
            raise BlobNotFoundError(digest)
        with reader:
            return reader.read()

    def write(self, data: Buffer) -> B3Digest:
        """Store *data* as one blob; return its digest."""
        with self.open_write() as writer:
            writer.write(data)
            return writer.close()

    def put_file(self, source: Sourceable, *, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file, by its path or opened in binary mode from where it stands; return its digest.

        A file that cannot be opened or read raises `SourceError`, and nothing is stored. *progress* is
        called with the number of bytes of each piece that is done.
        """
        with open_source(source) as opened:
            return self.put_source(opened, progress)

    def put_source(self, source: Source, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store what `put_file` has opened; overridden by a service that need not read it all."""
        with self.open_write() as writer:
            while count := writer.fill(source.readinto):
                if progress is not None:
                    progress(count)
            return writer.close()

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files; yield for each, in order, its digest, or what kept it from being read.

        A service that can store several at once yields later than it reads: what was yielded is stored.
        """
        for path in paths:
            try:
                yield self.put_file(path, progress=progress)
            except SourceError as error:
                yield error

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return this service as one with the optional *kind*, or `None` if it does not have it.

        *kind* is a class of `castore.contract.capabilities`. (It is typed as a callable because type
        checkers refuse an abstract class where `type[P]` is asked for.) A wrapper overrides this to derive its
        answer from its children, so that it neither loses nor fakes a capability.
        """
        has_it = isinstance(kind, type) and isinstance(self, kind)
        return cast("P", self) if has_it else None

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release what the service holds. Closing again does nothing; using it afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
