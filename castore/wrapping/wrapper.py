"""The base of services that stand around one other service and do something at each of its operations.

A wrapper says in one place, `around`, what happens: it is called for the methods of the service, the reads
of its readers, the writes of its writers and the methods of its capabilities alike::

    class CountingService(WrapperService):
        def __init__(self, inner):
            super().__init__(inner)
            self.counts = Counter()

        def around(self, operation, call, /, *args, **kwargs):
            self.counts[operation] += 1
            return call(*args, **kwargs)

It has all the capabilities of the service within, also those that castore has never heard of, and no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, ParamSpec, TypeVar

from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import BatchExistence
from castore.contract.inputs import Source
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.wrapping.forwarding import (
    ForwardingReader,
    ForwardingWriter,
    forwarded_capability,
    forwarded_iterator,
)

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")


class WrapperService(BlobService):
    """Passes everything on to *inner*, each operation through `around`.

    `read` and `write` are made of the others, and so is the storing of files: nothing bypasses what a wrapper
    does with readers and writers. Closing it leaves *inner* open, which who has made it closes.

    Attributes:
        inner: The service within.
        name: The name of this instance, for errors.
    """

    passes_files: ClassVar[bool] = False
    """Whether files are stored in the way of the service within, which may be faster: as the operations
    `put_source` and `put_files`. For a wrapper that does nothing with the bytes that are written."""

    def __init__(self, inner: BlobService, *, name: str = "wrapper") -> None:
        self.inner = inner
        self.name = name
        self._capabilities: dict[Any, Any] = {}

    def around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ARG002
        """Do one operation by calling *call* with the arguments; override it to do more, or else.

        Arguments:
            operation: The name of a method of `BlobService` or of a capability, or `reader.read`, called with
                the position, `writer.write`, with the bytes, `writer.fill`, or `writer.close`.
            call: Does the operation; it may be called again, or not at all.
            *args: What to call it with.
            **kwargs: Likewise.
        """
        return call(*args, **kwargs)

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:  # noqa: ARG002 - for overriding
        """Return the reader to hand out for one of the service within, of the blob *digest*."""
        if type(self).around is WrapperService.around:
            return reader  # There is nothing to be done with it.
        return ForwardingReader(reader, self.around)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        """Return the writer to hand out for one of the service within."""
        if type(self).around is WrapperService.around:
            return writer
        return ForwardingWriter(writer, self.around)

    def has(self, digest: B3Digest) -> bool:
        """Ask the service within."""
        return self.around("has", self.inner.has, digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there."""
        reader = self.around("open_read", self.inner.open_read, digest)
        return None if reader is None else self.wrap_reader(reader, digest)

    def open_write(self) -> BlobWriter:
        """Start a blob there."""
        return self.wrap_writer(self.around("open_write", self.inner.open_write))

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks there."""
        return self.around("chunks", self.inner.chunks, digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service within."""
        # A set, as the call may be done again, and an iterator would be used up then.
        return self.around("missing", self.inner.missing, set(digests))

    def put_source(self, source: Source, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file through a writer, or in the way of the service within."""
        if not self.passes_files:
            return super().put_source(source, progress)
        return self.around("put_source", self.inner.put_source, source, progress)

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files one by one, or in the way of the service within."""
        if not self.passes_files:
            return super().put_files(paths, progress=progress)
        return forwarded_iterator("put_files", self.around, self.inner.put_files, paths, progress=progress)

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service within, each of its methods passed through `around`."""
        own = super().capability(kind)
        if own is not None or not isinstance(kind, type) or issubclass(kind, BlobService):
            return own
        answer = self._capabilities.get(kind)
        if answer is None:
            found = self.inner.capability(kind)
            if found is not None:
                answer = self._capabilities[kind] = self._wrap_power(kind, found)
        wrapped: A | None = answer
        return wrapped

    def _wrap_power(self, kind: type, found: Any) -> Any:
        # That of the service is the same question, and already knows that it may be asked again.
        return (
            AskingForBatches(self)
            if kind is BatchExistence
            else forwarded_capability(kind, found, self.around)
        )


class AskingForBatches(BatchExistence):
    """The capability to ask for many digests, as `BlobService.missing` of *service* does."""

    def __init__(self, service: BlobService) -> None:
        self._service = service

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service."""
        return self._service.missing(digests)
