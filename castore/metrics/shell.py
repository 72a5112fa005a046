"""A service as others see it, measured at its door.

`measured` puts a thin shell around a service. What is asked through the shell is counted; what the service
asks of itself is not, and costs nothing. The shell has the capabilities of the service and no others, and for
everything but the contract it passes for the service itself: its attributes, and what `isinstance` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from castore.buffers import byte_view
from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import BatchExistence
from castore.contract.inputs import Source, Sourceable
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.metrics.meters import MOST, Meter, Meters, clock
from castore.metrics.model import Gauges
from castore.streams.readers import BytesReader, PieceReader
from castore.wrapping.forwarding import forwarded_capability, pieces_of
from castore.wrapping.wrapper import AskingForBatches

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

_SENDS: Final = frozenset({"get_chunk", "get_frame"})
_TAKES: Final = frozenset({"put_chunk", "put_frame"})
_PLAIN: Final = _SENDS | _TAKES | {"has_chunk", "claim_chunk", "claim_blob", "delete"}
"""What is called with a digest, and may be so for each chunk."""

_OWN: Final = frozenset({
    "_inner", "_meters", "_powers", "_has", "_open_read", "_pieces", "_chunks", "_missing", "_read",
    "_write",
})  # fmt: skip
"""The attributes of a shell; all others are those of its service."""

_LISTS: Final = frozenset({"list_blobs", "list_items", "sweep"})


def measured(service: BlobService, meters: Meters) -> BlobService:
    """Return *service* in a shell that counts with *meters*."""
    if type(service).put_files is BlobService.put_files:
        return _OneByOneService(service, meters)
    return MeasuredService(service, meters)


def bare(service: T) -> T:
    """Return a service without the shells around it."""
    while type(service) in {MeasuredService, _OneByOneService}:
        service = service._inner  # type: ignore[attr-defined]  # noqa: SLF001 - it is our own shell
    return service


class MeasuredService(BlobService):
    """The shell of a service; see `measured`."""

    def __init__(self, inner: BlobService, meters: Meters) -> None:
        self._inner = inner
        self._meters = meters
        self._capabilities: dict[Any, Any] = {}
        # Made once, as looking them up would cost about as much as they do.
        self._has = meters["has"]
        self._open_read = meters["open_read"]
        self._pieces = meters["reader.read"]
        self._chunks: Callable[[B3Digest], Sequence[ChunkMeta] | None]
        self._chunks = timed(meters["chunks"], inner, "chunks")
        self._missing = meters["missing"]
        self._read: Callable[[B3Digest], bytes] = timed(meters["read"], inner, "read")
        self._write: Callable[[Buffer], B3Digest] = timed(meters["write"], inner, "write")

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Say what `isinstance` is to say: that of the service."""
        return type(bare(self._inner))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._inner, name, value)

    def __repr__(self) -> str:
        return repr(self._inner)

    def has(self, digest: B3Digest) -> bool:
        """Ask the service."""
        meter = self._has
        meter.begun.append(None)
        started = clock()
        try:
            found = self._inner.has(digest)
        except BaseException as error:
            meter.fail(error, clock() - started)
            raise
        ended = meter.ended
        ended.append(clock() - started if found else ~(clock() - started))
        if len(ended) > MOST:
            meter.fold()
        return found

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there, with a reader that is measured; bytes that are in memory have been read."""
        meter = self._open_read
        meter.begun.append(None)
        started = clock()
        try:
            reader = self._inner.open_read(digest)
        except BaseException as error:
            meter.fail(error, clock() - started)
            raise
        ended = meter.ended
        ended.append(~(clock() - started) if reader is None else clock() - started)
        if len(ended) > MOST:
            meter.fold()
        if reader is None:
            return None
        if getattr(type(reader), "piece_at", None) is BytesReader.piece_at:
            meter.sent.append(reader.size)
            return reader
        if type(reader) is MeasuredReader:
            # It was handed on as it is, so it is read as often there as here.
            reader.count_also(self._pieces)
            return reader
        return MeasuredReader(reader, self._pieces)

    def open_write(self) -> BlobWriter:
        """Start a blob there, with a writer that is measured."""
        return MeasuredWriter(self._around("open_write", self._inner.open_write), self._meters)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks there."""
        return self._chunks(digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service."""
        meter = self._missing
        wanted = digests if type(digests) is set else set(digests)
        meter.begun.append(None)
        started = clock()
        try:
            absent = self._inner.missing(wanted)
        except BaseException as error:
            meter.fail(error, clock() - started)
            raise
        ended = meter.ended
        ended.append(clock() - started)
        meter.found.append(len(wanted) - len(absent))
        meter.absent.append(len(absent))
        if len(ended) > MOST:
            meter.fold()
        return absent

    def read(self, digest: B3Digest) -> bytes:
        """Read a whole blob there."""
        data = self._read(digest)
        self._meters["read"].sent.append(len(data))
        return data

    def write(self, data: Buffer) -> B3Digest:
        """Store *data* there."""
        digest = self._write(data)
        self._meters["write"].taken.append(_bytes_of(data))
        return digest

    def put_file(self, source: Sourceable, *, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file there."""
        told = _telling(self._meters["put_file"], progress)
        return self._around("put_file", self._inner.put_file, source, progress=told)

    def put_source(self, source: Source, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file there."""
        told = _telling(self._meters["put_source"], progress)
        return self._around("put_source", self._inner.put_source, source, told)

    def put_files(
        self, paths: Iterable[str | os.PathLike[str]], *, progress: Callable[[int], object] | None = None
    ) -> Iterator[B3Digest | SourceError]:
        """Store many files there; each is an operation."""
        meter = self._meters["put_files"]
        return _each_timed(meter, self._inner.put_files(paths, progress=_telling(meter, progress)))

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service, its methods measured."""
        known = self._capabilities.get(kind)
        if known is None:
            found = self._inner.capability(kind)
            # Who asks for a service by its own class, or how it stands, gets that.
            if found is None or not isinstance(kind, type) or issubclass(kind, (BlobService, Gauges)):
                return found
            known = self._capabilities[kind] = self._measured_power(kind, found)
        wrapped: A | None = known
        return wrapped

    def close(self) -> None:
        """Close the service."""
        self._inner.close()

    def _measured_power(self, kind: type, found: Any) -> Any:
        if kind is BatchExistence:
            # That of the service is the same question.
            return AskingForBatches(self)
        made = forwarded_capability(kind, found, self._around)
        for name in _PLAIN:
            if hasattr(kind, name):
                # In the way of the method of the class, which would call `_around`: these are called most.
                setattr(made, name, _timed_member(name, self._meters[name], found))
        return made

    def _around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        meter = self._meters[operation]
        answer: Any = timed(meter, call, "__call__")(*args, **kwargs)
        if operation in _LISTS:
            first, rest = answer
            answer = first, _each_failure_noted(meter, rest)
        return answer  # type: ignore[no-any-return]


class _OneByOneService(MeasuredService):
    """The shell of a service that stores many files as all do, which can be seen from its class."""

    put_files = BlobService.put_files


class MeasuredReader(PieceReader):
    """A reader over the pieces of another; each new piece is a `reader.read`.

    Arguments:
        reader: Closed with this one.
        meter: Counts.
    """

    def __init__(self, reader: BlobReader, meter: Meter) -> None:
        self._reader = reader
        self._pieces = pieces_of(reader)
        self._size = reader.size
        self._meter = meter
        self._others: tuple[Meter, ...] = ()
        self._start = self._end = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    @property
    def verified(self) -> bool:
        """Whether the whole blob was found right, if it is a reader that knows (`ChunkedReader`)."""
        # No `__getattr__` for all there is: `io` looks for an attribute that is not there at each read.
        known: bool = self._reader.verified  # type: ignore[attr-defined]
        return known

    def count_also(self, meter: Meter) -> None:
        """Count with *meter*, too: one more service hands this reader out."""
        self._others = (*self._others, meter)

    def piece_at(self, position: int) -> memoryview:
        """Return the piece as it is; it is not noted again when its rest is read."""
        if self._start <= position < self._end:
            return self._rest_at(position)
        meter = self._meter
        meter.begun.append(None)
        for other in self._others:
            other.begun.append(None)
        started = clock()
        try:
            piece = self._pieces.piece_at(position)
        except BaseException as error:
            self._fail(error, clock() - started)
            raise
        ns = clock() - started
        count = len(piece)
        meter.ended.append(ns)
        meter.sent.append(count)
        if len(meter.ended) > MOST:
            meter.fold()
        for other in self._others:
            other.ended.append(ns)
            other.sent.append(count)
            if len(other.ended) > MOST:
                other.fold()
        self._start = position
        self._end = position + count
        return piece

    def _rest_at(self, position: int) -> memoryview:
        try:
            piece = self._pieces.piece_at(position)
        except BaseException as error:
            for meter in (self._meter, *self._others):
                meter.begun.append(None)
            self._fail(error, 0)
            raise
        more = position + len(piece) - self._end
        if more > 0:  # Of a reader that holds nothing: each of its pieces begins where it is asked for.
            self._end += more
            for meter in (self._meter, *self._others):
                meter.sent.append(more)
        return piece

    def _fail(self, error: BaseException, ns: int) -> None:
        for meter in (self._meter, *self._others):
            meter.fail(error, ns)

    def close(self) -> None:
        """Close the reader beneath."""
        if not self.closed:
            self._pieces.close()
        super().close()


class MeasuredWriter(BlobWriter):
    """Another writer, measured; `abort` is not."""

    def __init__(self, writer: BlobWriter, meters: Meters) -> None:
        self._writer = writer
        self._write: Callable[..., int] = timed(meters["writer.write"], writer, "write")
        self._meters = meters
        self._digest: B3Digest | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_writer":
            raise AttributeError(name)
        return getattr(self._writer, name)

    def write(self, data: Buffer, /) -> int:
        """Pass the bytes on."""
        count = self._write(data)
        self._meters["writer.write"].taken.append(count)
        return count

    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        """Let the writer take bytes in its own way."""
        meter = self._meters["writer.fill"]
        count: int = timed(meter, self._writer, "fill")(readinto)
        meter.taken.append(count)
        return count

    def close(self) -> B3Digest:
        """Close the writer; the first time is the one that counts."""
        if self._digest is None:
            self._digest = timed(self._meters["writer.close"], self._writer, "close")()
            return self._digest
        return self._writer.close()

    def abort(self) -> None:
        """Abort the writer."""
        self._writer.abort()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What ends the block well is the writer's own to say: it may have been aborted inside.
        if kind is None and self._digest is None and not getattr(self._writer, "closed", False):
            self.close()
        else:
            self._writer.__exit__(kind, error, trace)


def timed(meter: Meter, owner: object, name: str) -> Callable[..., Any]:
    """Return a function that calls the method *name* of *owner*, whatever that is then, and counts it."""
    begun, ended = meter.begun, meter.ended

    def measure(*args: Any, **kwargs: Any) -> Any:
        begun.append(None)
        started = clock()
        try:
            answer = getattr(owner, name)(*args, **kwargs)
        except BaseException as error:
            meter.fail(error, clock() - started)
            raise
        ended.append(~(clock() - started) if answer is None or answer is False else clock() - started)
        if len(ended) > MOST:
            meter.fold()
        return answer

    return measure


def _timed_member(name: str, meter: Meter, owner: object) -> Callable[..., Any]:
    """Return what counts a method of a capability, with the bytes that go through it."""
    measure = timed(meter, owner, name)

    def get(*args: Any, **kwargs: Any) -> Any:
        data = measure(*args, **kwargs)
        if data is not None:
            meter.sent.append(len(data))
        return data

    def put(*args: Any, **kwargs: Any) -> Any:
        answer = measure(*args, **kwargs)
        meter.taken.append(_bytes_of((*args, *kwargs.values())[-1]))
        return answer

    return get if name in _SENDS else put if name in _TAKES else measure


def _bytes_of(data: Buffer) -> int:
    return len(data) if isinstance(data, bytes) else byte_view(data).nbytes


def _telling(meter: Meter, progress: Callable[[int], object] | None) -> Callable[[int], object]:
    """Return a function for progress that counts the bytes, and tells *progress*."""
    taken = meter.taken
    if progress is None:
        return taken.append

    def tell(count: int) -> None:
        taken.append(count)
        progress(count)

    return tell


def _each_timed(meter: Meter, outcomes: Iterator[T]) -> Iterator[T]:
    """Yield *outcomes*, each an operation; an error among them is one that failed."""
    while True:
        meter.begun.append(None)
        started = clock()
        try:
            outcome = next(outcomes)
        except StopIteration:
            meter.withdraw()
            return
        except BaseException as error:
            meter.fail(error, clock() - started)
            raise
        if isinstance(outcome, Exception):
            meter.fail(outcome, clock() - started)
        else:
            meter.ended.append(clock() - started)
        yield outcome


def _each_failure_noted(meter: Meter, rest: Iterator[T]) -> Iterator[T]:
    """Yield the rest of a list, whose beginning went well; note it if it fails after all."""
    try:
        yield from rest
    except Exception as error:
        meter.spoil(error)
        raise
