"""The two bases of services that stand around one other service.

A `WrapperService` passes everything on, and says in one place, `around`, what happens on the way: it is
called for the methods of the service, the reads of its readers, the writes of its writers and the methods of
its capabilities alike::

    class CountingService(WrapperService):
        def __init__(self, inner):
            super().__init__(inner)
            self.counts = Counter()

        def around(self, operation, call, /, *args, **kwargs):
            self.counts[operation] += 1
            return call(*args, **kwargs)

It has all the capabilities of the service within, also those that castore has never heard of, and no other.

A `SelectiveService` transforms what it passes on, or hides some of it. So it has no capability but those that
it lists, for through each other one what it hides would come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, ParamSpec, TypeVar, final

from castore.contract.blobs import Answer, BatchBlobService, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.contract.directories import DirectoryService
from castore.contract.operations import OPERATIONS, Operation
from castore.contract.refs import RefService
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.streams.readers import BytesReader
from castore.wrapping.forwarding import (
    ForwardingReader,
    ForwardingWriter,
    forwarded_capability,
    forwarded_iterator,
)

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="BlobService | DirectoryService | RefService")

_MISSING: Final = OPERATIONS["missing"]
_CHUNKS: Final = OPERATIONS["chunks"]
_OPEN_READ: Final = OPERATIONS["open_read"]
_OPEN_WRITE: Final = OPERATIONS["open_write"]
_READ_MANY: Final = OPERATIONS["read_many"]


class Wrapping(Generic[S]):
    """What all services have that pass everything on to one within, of whatever kind: `around`, and the rest.

    Attributes:
        inner: The service within.
        name: The name of this instance, for errors.
    """

    def __init__(self, inner: S, *, name: str = "wrapper") -> None:
        self.inner = inner
        self.name = name
        self.high_latency = inner.high_latency
        self._forwarded: dict[Any, Any] = {}

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ARG002 - for overriding
        """Do one operation by calling *call* with the arguments; override it to do more, or else.

        Arguments:
            operation: The name of a method of the service or of a capability, or `reader.read`, called with
                the position, `writer.write`, with the bytes, `writer.fill`, with an `InputFile`, or
                `writer.close`; as attributes it has what is known of it (`castore.contract.operations`).
            call: Does the operation; it may be called again, or not at all.
            *args: What to call it with.
            **kwargs: Likewise.
        """
        return call(*args, **kwargs)

    def _capability(self, kind: Callable[..., A], own: A | None) -> A | None:
        """Return the capability of the service within, unless it is this one's *own*."""
        if own is not None or not isinstance(kind, type) or issubclass(kind, (BlobService, DirectoryService)):
            return own
        answer = self._forwarded.get(kind)
        if answer is None:
            found = self.inner.capability(kind)
            if found is not None:
                answer = self._forwarded[kind] = self._forward(kind, found)
        wrapped: A | None = answer
        return wrapped

    def _forward(self, kind: type, found: Any) -> Any:
        """Return the capability *kind* of this service, for that of the service within."""
        return forwarded_capability(kind, found, self.around)


class WrapperService(Wrapping[BlobService], BatchBlobService):
    """Passes everything on to *inner*, each operation through `around`.

    Files are stored through the capabilities that this service has: nothing bypasses what a wrapper does.
    Closing it leaves *inner* open, which who has made it closes.

    Attributes:
        inner: The service within.
        name: The name of this instance, for errors.
    """

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:  # noqa: ARG002 - for overriding
        """Return the reader to hand out for one of the service within, of the blob *digest*."""
        return ForwardingReader(reader, self.around)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        """Return the writer to hand out for one of the service within."""
        return ForwardingWriter(writer, self.around)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service within."""
        # A set, as the call may be done again, and an iterator would be used up then.
        return self.around(_MISSING, self.inner.missing, set(digests))

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there."""
        reader = self.around(_OPEN_READ, self.inner.open_read, digest)
        return None if reader is None else self.wrap_reader(reader, digest)

    def open_write(self) -> BlobWriter:
        """Start a blob there."""
        return self.wrap_writer(self.around(_OPEN_WRITE, self.inner.open_write))

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks there."""
        return self.around(_CHUNKS, self.inner.chunks, digest)

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Read many blobs: by their chunks, or as the service within does."""
        if self.capability(ChunkSource) is not None:
            yield from super().read_many(digests)
            return
        wanted = dict.fromkeys(digests)
        try:
            for digest, answer in self.begin_read_many(list(wanted)):
                wanted.pop(digest, None)
                yield digest, self._wrapped_answer(answer, digest)
        except CastoreError as error:
            yield from ((digest, error) for digest in wanted)

    def begin_read_many(self, digests: Sequence[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Return what the service within yields; up to the first answer it is one operation."""
        return forwarded_iterator(_READ_MANY, self.around, self.inner.read_many, digests)

    def _wrapped_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        try:
            return self.wrap_answer(answer, digest)
        except CastoreError as error:
            return error

    def wrap_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        """Return what `read_many` is to give of the blob *digest* for an answer of the service within.

        What it raises is what is wrong with that blob.
        """
        if isinstance(answer, BlobReader):
            return self.wrap_reader(answer, digest)
        if not isinstance(answer, bytes):
            return answer
        # What is done with the bytes of a reader is to be done with these, too.
        with self.wrap_reader(BytesReader(answer, digest), digest) as reader:
            return answer if type(reader) is BytesReader else reader.read()

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service within, each of its methods passed through `around`.

        A capability that is among the bases of the wrapper's own class is its own.
        """
        return self._capability(kind, super().capability(kind))


class SelectiveService(BatchBlobService):
    """Stands around *inner*, and has only those capabilities that `listed` names.

    Everything else that a subclass does not write it lacks: it need not know which capabilities there are.

    Attributes:
        inner: The service within.
        name: The name of this instance, for errors.
    """

    def __init__(self, inner: BlobService, *, name: str = "selective") -> None:
        self.inner = inner
        self.name = name
        self.high_latency = inner.high_latency
        self._made: dict[Any, Any] = {}

    def listed(self) -> Mapping[type, Callable[[], Any]]:
        """Return the capabilities that this service may have, each with what makes it, or returns `None`."""
        return {}

    def pass_on(self, kind: type) -> Any:
        """Return the capability *kind* of the service within, and nothing else of it; `None` if it has none.

        For `listed`: a capability through which nothing comes out that is to be hidden, or transformed.
        """
        found = self.inner.capability(kind)
        return None if found is None else forwarded_capability(kind, found, _as_it_is)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Return that a blob has no finer chunks, `None` if it is absent."""
        return () if self.has(digest) else None

    @final
    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return one of the listed capabilities, or what the class itself is."""
        own = super().capability(kind)
        if own is not None:
            return own
        if kind not in self._made:
            make = self.listed().get(kind)  # type: ignore[call-overload]
            if make is None:
                return None
            self._made[kind] = make()
        made: A | None = self._made[kind]
        return made


def _as_it_is(operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ARG001 - called as `around` is
    return call(*args, **kwargs)
