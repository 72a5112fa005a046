"""The contract: what every service of blobs promises, and what its readers and writers do.

A backend that keeps blobs whole subclasses `BlobService` and writes three methods, `has`, `open_read` and
`open_write`; one that keeps them in chunks subclasses `castore.chunks.backend.ChunkBackend`.
`castore.streams` has the usual readers and writers ready made. Services are used by many threads at once; a
reader or a writer belongs to one thread at a time.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeAlias, TypeVar, cast, final

import attrs

from castore.buffers import new_buffer
from castore.contract.batches import CALLS_AT_ONCE
from castore.contract.inputs import InputFile, Storable
from castore.digest import B3Digest, no_digest
from castore.errors import BlobNotFoundError, CastoreError, CorruptBlobError, SourceError

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

    @property
    def verified(self) -> bool:
        """Whether all bytes of the blob have come, and have its digest.

        Until then what was read is as good as the index of the blob, or the word of its service. A reader
        that cannot tell says no. This asks for no bytes, and hashes none but those that are at hand.
        """
        return False

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

    def fill(self, source: InputFile) -> int:
        """Take some bytes of *source*, which is read once; return how many, 0 at its end.

        As reading into a buffer and writing that, but a writer may spare a copy of the bytes. One that has to
        begin again may rewind the source, if that `rewinds` and all bytes so far were taken from it.
        """
        if self._buffer is None:
            # One byte more than a small source has, so that the second read finds its end.
            self._buffer = new_buffer(_COPY_SIZE if source.size is None else min(_COPY_SIZE, source.size + 1))
        count = source.readinto(self._buffer)
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


Answer: TypeAlias = "bytes | BlobReader | CastoreError | None"
"""What `BlobService.read_many` gives for a digest: a small blob as bytes, another as a reader, what is wrong
with it, or `None` if it is absent."""


class BlobService(ABC):
    """A place that keeps blobs, named by the BLAKE3 digest of their bytes.

    Three outcomes are never mixed up: a blob is *absent* (`None`, `False`), *corrupt*
    (`CorruptBlobError`), or the service is *unavailable* (`UnavailableError`).

    A subclass needs no call of a constructor of this class.
    """

    high_latency: bool = False
    """Whether its requests mostly wait: then `put_files`, `read_many` and `missing` make up to 16 calls at
    once, if it keeps no chunks."""

    _named: str = ""
    """What a composition has built it as: its type, name and place."""

    def __repr__(self) -> str:
        return f"<{self._named}>" if self._named else object.__repr__(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a copy, of `memory` for example, would be another store."""
        raise TypeError(
            "a service does not leave its process: pickle the composition, which is read anew where it lands"
        )

    def __copy__(self) -> Self:
        """Return one that shares all that this has, as what a lease gives may be."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    @abstractmethod
    def has(self, digest: B3Digest) -> bool:
        """Tell whether there is a blob, or on services that keep chunks a chunk, of this digest."""

    @abstractmethod
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob, or a chunk, at its start; `None` if it is absent."""

    @abstractmethod
    def open_write(self) -> BlobWriter:
        """Start a new blob."""

    # -- made of those; a service has its own where it can do better --

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that `has` is false for."""
        wanted = list(set(digests))
        if not self.high_latency:
            return {digest for digest in wanted if not self.has(digest)}
        from castore.threads.pool import process_pool  # noqa: PLC0415 - that stands above the contract

        found = process_pool().io_pool.map(self.has, wanted, most=CALLS_AT_ONCE)
        return {digest for digest, there in zip(wanted, found, strict=True) if not there}

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob in order.

        Returns `None` if the blob is absent; an empty sequence if it is there with no finer chunks; else
        at least two chunks, which `open_read` opens by their digests.
        """
        return () if self.has(digest) else None

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Yield many blobs, each digest of *digests* once: small ones as bytes, others as readers.

        What is wrong with one is its value, and ends nothing; `None` stands for one that is absent. A reader
        is the caller's to close, at the latest before the next one is asked for.
        """
        from castore.chunks.reading_many import read_many  # noqa: PLC0415 - that stands above the contract

        return read_many(self, digests)

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return what has the optional capability *kind*, or `None` if the service does not have it.

        *kind* is a class such as those of `castore.contract.capabilities`. (It is typed as a callable because
        type checkers refuse an abstract class where `type[P]` is asked for.) A wrapper overrides this to
        derive its answer from the service within, so that it neither loses nor fakes a capability.
        """
        has_it = isinstance(kind, type) and isinstance(self, kind)
        return cast("P", self) if has_it else None

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release what the service holds. Closing again does nothing; using it afterwards is an error."""

    # -- written once, for all services, on top of the above and of `ChunkStore` --

    @final
    def open(self, digest: B3Digest) -> BlobReader:
        """Open a blob, or a chunk, at its start; raise `BlobNotFoundError` if it is absent."""
        reader = self.open_read(digest)
        if reader is None:
            if not isinstance(digest, bytes):
                raise no_digest(digest)
            raise BlobNotFoundError(digest)
        return reader

    @final
    def read(self, digest: B3Digest) -> bytes:
        """Return a whole blob; raise `BlobNotFoundError` if it is absent."""
        try:
            with self.open(digest) as reader:
                return reader.read()
        except CorruptBlobError as error:
            if not error.passed_over:
                raise
        with self.open(digest) as reader:
            return reader.read()

    @final
    def write(self, data: Buffer) -> B3Digest:
        """Store *data* as one blob; return its digest."""
        from castore.chunks import storing  # noqa: PLC0415 - that stands above the contract

        return storing.store_bytes(self, data)

    @final
    def put_file(self, source: Storable, *, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file, by its path or opened in binary mode from where it stands; return its digest.

        A file that cannot be opened or read raises `SourceError`, and nothing is stored. One that changes
        meanwhile is read again, up to three times, and raises `SourceChangedError` then. *progress* is called
        with the number of bytes of each piece that is done; with a negative one, before a file is read again.
        """
        from castore.chunks import storing  # noqa: PLC0415 - as above

        return storing.store_file(self, source, progress)

    @final
    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files; yield for each, in order, its digest, or what kept it from being read.

        Several are stored at once, so that it yields later than it reads: what was yielded is stored.
        """
        from castore.chunks import storing  # noqa: PLC0415 - as above

        return storing.store_files(self, paths, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BatchBlobService(BlobService):
    """A service that is asked for many digests at once: `has` is the same question as `missing`."""

    @final
    def has(self, digest: B3Digest) -> bool:
        """Tell what `missing` tells of one digest."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        return digest not in self.missing({digest})

    @abstractmethod
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that are absent."""
