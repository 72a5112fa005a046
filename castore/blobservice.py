"""The contract: what every service of blobs promises, and what its readers and writers do.

A backend subclasses `BlobService` and writes three methods, `has`, `open_read` and `open_write`, and a
fourth, `chunks`, if it keeps blobs in chunks. `castore.readers` and `castore.writers` have the usual
readers and writers ready made. Services are used by many threads at once; a reader or a writer belongs
to one thread at a time.
"""

from __future__ import annotations

import contextlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeVar, cast

import attrs

from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CastoreError, SourceError

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

    Subclass `castore.readers.PieceReader` for a reader with all methods derived from one.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """The size of the blob in bytes."""

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

    Subclass `castore.writers.GuardedWriter` for a writer with these rules kept.
    """

    @abstractmethod
    def write(self, data: Buffer, /) -> int:
        """Take all of *data*, in bytes; return how many that were. The buffer may be reused afterwards."""

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
            raise BlobNotFoundError(digest)
        with reader:
            return reader.read()

    def write(self, data: Buffer) -> B3Digest:
        """Store *data* as one blob; return its digest."""
        with self.open_write() as writer:
            writer.write(data)
            return writer.close()

    def put_file(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> B3Digest:
        """Store a file, by its path or opened in binary mode from where it stands; return its digest.

        A file that cannot be opened or read raises `SourceError`, and nothing is stored. *progress* is
        called with the number of bytes of each piece read.
        """
        if not isinstance(source, (str, os.PathLike)):
            if not hasattr(source, "read") and not hasattr(source, "readinto"):
                raise TypeError(f"a path or a binary file is needed, not {source!r}")
            return self._put_stream(source, getattr(source, "name", "the stream"), progress)
        try:
            file = open(source, "rb", buffering=0)  # noqa: PTH123, SIM115 - a path of any kind
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {os.fspath(source)!r}: {_reason(error)}") from error
        with file:
            return self._put_stream(file, os.fspath(source), progress)

    def _put_stream(
        self, file: BinaryIO | io.RawIOBase, name: object, progress: Callable[[int], object] | None
    ) -> B3Digest:
        buffer = memoryview(bytearray(_COPY_SIZE))
        with self.open_write() as writer:
            while count := _read_some(file, buffer, name):
                writer.write(buffer[:count])
                if progress is not None:
                    progress(count)
            return writer.close()

    def capability(self, power: Callable[..., P]) -> P | None:
        """Return this service as one with the optional *power*, or `None` if it does not have it.

        *power* is a class of `castore.capabilities`. (It is typed as a callable because type checkers
        refuse an abstract class where `type[P]` is asked for.) A wrapper overrides this to derive its
        answer from its children, so that it neither loses nor fakes a power.
        """
        has_it = isinstance(power, type) and isinstance(self, power)
        return cast("P", self) if has_it else None

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release what the service holds. Closing again does nothing; using it afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_some(file: BinaryIO | io.RawIOBase, buffer: memoryview, name: object) -> int:
    """Fill *buffer* from *file* as far as one read goes; 0 at the end."""
    try:
        if hasattr(file, "readinto"):
            count = file.readinto(buffer)
        else:
            data = file.read(len(buffer))
            if isinstance(data, str):
                raise TypeError("it is open as text; open it in binary mode")
            count = None if data is None else len(data)
            if count:
                buffer[:count] = data
    except CastoreError:
        # The source is a blob of another store, and the error says what is wrong with it.
        raise
    except Exception as error:
        raise SourceError(f"cannot read {name!r}: {_reason(error)}") from error
    if count is None:
        raise SourceError(f"cannot read {name!r}: it is in non-blocking mode and has no data yet")
    return count


def _reason(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        if error.strerror:  # type: ignore[attr-defined]
            return str(error.strerror)  # type: ignore[attr-defined]
    return str(error)
