"""A service as others see it, measured at its door.

`measured` puts a thin shell around a service. What is asked through the shell is counted; what the service
asks of itself is not, and costs nothing. The shell has the capabilities of the service and no others, and for
everything but the contract it passes for the service itself: its attributes, and what `isinstance` says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

from castore.contract.blobs import Answer, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.contract.directories import DirectoryService, DirectoryWriter, FoundDirectories
from castore.contract.operations import (
    CLOSURE,
    COLLECTIONS,
    GET_MANY,
    MISSING,
    OPEN_TREE,
    OPERATIONS,
    PUT_MANY,
    READER_READ,
    WRITER_WRITE,
    Operation,
    operations_of,
    size_of,
)
from castore.digest import B3Digest
from castore.errors import CastoreError, ClosedError
from castore.format.directories import Directory
from castore.metrics.meters import MOST, Meter, Meters, clock
from castore.metrics.model import Gauges
from castore.streams.readers import BytesReader, PieceReader
from castore.threads import forks
from castore.wrapping.directories import ForwardingDirectoryWriter, begin_closure
from castore.wrapping.discreet import DiscreetDirectoryService, DiscreetService
from castore.wrapping.forwarding import (
    ForwardingWriter,
    forwarded_capability,
    forwarded_iterator,
    forwarding_class,
    pieces_of,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="BlobService | DirectoryService")

_OWN: Final = frozenset({"_inner", "_measuring"})
"""The attributes of a shell; all others are those of its service."""

_OPEN_WRITE: Final = OPERATIONS["open_write"]
_READ_MANY: Final = OPERATIONS["read_many"]


def measured(service: S, meters: Meters) -> S:
    """Return *service*, of blobs or of directories, in a shell that counts with *meters*."""
    shell: Any
    if isinstance(service, BlobService):
        shell = MeasuredService(service, meters)
    else:
        shell = MeasuredDirectoryService(service, meters)
    found: S = shell
    return found


def guarded(service: S) -> S:
    """Return *service*, of blobs or of directories, in a shell that counts nothing, and can be shut."""
    shell: Any
    shell = GuardedService(service) if isinstance(service, BlobService) else GuardedDirectoryService(service)
    found: S = shell
    return found


def bare(service: T) -> T:
    """Return a service without the shells around it."""
    while True:
        shell: type = type(service)
        if shell in {MeasuredService, MeasuredDirectoryService, GuardedService, GuardedDirectoryService}:
            service = service._inner  # type: ignore[attr-defined]  # noqa: SLF001 - it is our own shell
        elif shell in {DiscreetService, DiscreetDirectoryService, _Closed}:
            service = service.inner  # type: ignore[attr-defined] # as above
        else:
            return service


def shut(service: object) -> None:
    """Let a service in a shell, which its composition has closed, be used no more through it."""
    if isinstance(service, _Shell):
        service._shut()  # noqa: SLF001 - it is our own shell


class _Closed:
    """What a shell has in the place of a service that was closed."""

    def __init__(self, inner: object, what: str) -> None:
        self.inner = inner
        self._what = what

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ClosedError(f"the {self._what} is closed")

    def __repr__(self) -> str:
        return repr(self.inner)

    def close(self) -> None:
        """Do nothing: it was closed."""


class _Shell(Generic[S]):
    """Passes for the service that is in it."""

    _inner: S
    _measuring: _Measuring | _Passing

    def __init__(self, inner: S, measuring: _Measuring | _Passing) -> None:
        self._inner = inner
        self._measuring = measuring

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

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service, its methods measured."""
        known = self._measuring.forwarded.get(kind)
        if known is None:
            found = self._inner.capability(kind)
            # Who asks for a service by its own class, or how it stands, gets that.
            if (
                found is None
                or not isinstance(kind, type)
                or issubclass(kind, (BlobService, DirectoryService, Gauges))
            ):
                return found
            known = self._measuring.forwarded[kind] = forwarded_capability(
                cast("Any", kind), found, self._measuring, self._measuring.classes
            )
        wrapped: A | None = known
        return wrapped

    def close(self) -> None:
        """Close the service."""
        self._inner.close()

    def _shut(self, what: str = "composition") -> None:
        if type(self._inner) is not _Closed:  # type: ignore[comparison-overlap]
            self._inner = _Closed(self._inner, what)  # type: ignore[assignment] # it raises for all that is asked
            for found in list(self._measuring.forwarded.values()):
                found._found = _Closed(found._found, what)  # noqa: SLF001 - it is made here


class MeasuredService(_Shell[BlobService], BlobService):
    """The shell of a service of blobs; see `measured`."""

    _measuring: _Measuring

    def __init__(self, inner: BlobService, meters: Meters) -> None:
        super().__init__(inner, _Measuring(meters))

    @property
    def high_latency(self) -> bool:  # type: ignore[override]
        """What the service says."""
        return self._inner.high_latency

    def has(self, digest: B3Digest) -> bool:
        """Ask the service."""
        meter = self._measuring.has
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

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service."""
        wanted = digests if type(digests) is set else set(digests)
        return _call_many(self._measuring.missing, _count_absent, self._inner.missing, wanted)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob there."""
        meter = self._measuring.chunks
        meter.begun.append(None)
        started = clock()
        try:
            found = self._inner.chunks(digest)
        except BaseException as error:
            meter.fail(error, clock() - started)
            raise
        ended = meter.ended
        ended.append(~(clock() - started) if found is None else clock() - started)
        if len(ended) > MOST:
            meter.fold()
        return found

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there, with a reader that is measured; bytes that are in memory have been read."""
        meter = self._measuring.open_read
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
        return None if reader is None else self._measured_reader(reader, meter)

    def _measured_reader(self, reader: BlobReader, opening: Meter) -> BlobReader:
        if getattr(type(reader), "piece_at", None) is BytesReader.piece_at:
            opening.sent.append(reader.size)
            return reader
        if type(reader) is MeasuredReader:
            # It was handed on as it is, so it is read as often there as here.
            reader.count_also(self._measuring.pieces)
            return reader
        return MeasuredReader(reader, self._measuring.pieces)

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Read many blobs: by their chunks, which is measured there, or as the service does."""
        if self.capability(ChunkSource) is not None:
            yield from super().read_many(digests)
            return
        meter = self._measuring.meters[_READ_MANY]
        for digest, answer in forwarded_iterator(
            _READ_MANY, self._measuring, self._inner.read_many, list(digests)
        ):
            if isinstance(answer, CastoreError):
                meter.spoil(answer)
            else:
                meter.batches.append((0, 0, 1) if answer is None else (0, 1, 0))
            if isinstance(answer, BlobReader):
                yield digest, self._measured_reader(answer, meter)
                continue
            meter.sent.append(size_of(answer))
            yield digest, answer

    def open_write(self) -> BlobWriter:
        """Start a blob there, with a writer that is measured."""
        return MeasuredWriter(self._measuring(_OPEN_WRITE, self._inner.open_write), self._measuring)


class MeasuredDirectoryService(_Shell[DirectoryService], DirectoryService):
    """The shell of a service of directories; see `measured`."""

    _measuring: _Measuring

    def __init__(self, inner: DirectoryService, meters: Meters) -> None:
        super().__init__(inner, _Measuring(meters))

    @property
    def high_latency(self) -> bool:  # type: ignore[override]
        """What the service says."""
        return self._inner.high_latency

    @property
    def whole_trees(self) -> bool:  # type: ignore[override]
        """What the service says."""
        return self._inner.whole_trees

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Ask the service."""
        wanted = digests if isinstance(digests, Sized) else list(digests)
        return self._measuring(GET_MANY, self._inner.get_many, wanted, within=within)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service."""
        return self._measuring(MISSING, self._inner.missing, set(digests))

    def put_many(self, directories: Collection[Directory]) -> None:
        """Put them there."""
        self._measuring(PUT_MANY, self._inner.put_many, list(directories))

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return all directories of a tree there."""
        first, rest = self._measuring(CLOSURE, partial(begin_closure, self._inner), root)
        return self._weighed(first, rest) if first else None

    def _weighed(self, first: Sequence[Directory], rest: Iterator[Directory]) -> Iterator[Directory]:
        meter = self._measuring.meters[CLOSURE]
        for directory in chain(first, rest):
            meter.sent.append(len(directory.encoded))
            if len(meter.sent) > MOST:
                meter.fold()
            yield directory

    def open_write(self) -> DirectoryWriter:
        """Start a tree there, with a writer that is measured."""
        return ForwardingDirectoryWriter(self._measuring(OPEN_TREE, self._inner.open_write), self._measuring)


class _Guard(_Shell[S]):
    def __init__(self, inner: S) -> None:
        super().__init__(inner, _Passing())

    def close(self) -> None:
        """Close the service, which is used no more through this."""
        self._inner.close()
        self._shut("service")


class GuardedService(_Guard[BlobService], BlobService):
    """The shell of a service of blobs; see `guarded`."""

    @property
    def high_latency(self) -> bool:  # type: ignore[override]
        """What the service says."""
        return self._inner.high_latency

    def has(self, digest: B3Digest) -> bool:
        """Ask the service."""
        return self._inner.has(digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service."""
        return self._inner.missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob there."""
        return self._inner.chunks(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there."""
        return self._inner.open_read(digest)

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Read many blobs there."""
        return self._inner.read_many(digests)

    def open_write(self) -> BlobWriter:
        """Start a blob there."""
        return self._inner.open_write()


class GuardedDirectoryService(_Guard[DirectoryService], DirectoryService):
    """The shell of a service of directories; see `guarded`."""

    @property
    def high_latency(self) -> bool:  # type: ignore[override]
        """What the service says."""
        return self._inner.high_latency

    @property
    def whole_trees(self) -> bool:  # type: ignore[override]
        """What the service says."""
        return self._inner.whole_trees

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Ask the service."""
        return self._inner.get_many(digests, within=within)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service."""
        return self._inner.missing(digests)

    def put_many(self, directories: Collection[Directory]) -> None:
        """Put them there."""
        self._inner.put_many(directories)

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return all directories of a tree there."""
        return self._inner.closure(root)

    def open_write(self) -> DirectoryWriter:
        """Start a tree there."""
        return self._inner.open_write()


class _Passing:
    """Makes calls, and counts nothing."""

    classes = None

    def __init__(self) -> None:
        self.forwarded: dict[Any, Any] = {}
        """The capabilities that can be shut."""

    def __call__(
        self, _operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make any call."""
        return call(*args, **kwargs)


class _Measuring:
    """Makes calls, and counts them with *meters*."""

    @property
    def classes(self) -> Callable[[Callable[..., Any]], type[Any]]:
        """What makes the classes of capabilities."""
        return _measured_class

    def __init__(self, meters: Meters) -> None:
        self.meters = meters
        self.forwarded: dict[Any, Any] = {}
        """The capabilities whose methods are measured."""
        # Looked up once, as that costs about as much as what they do.
        self.has = meters[OPERATIONS["has"]]
        self.missing = meters[OPERATIONS["missing"]]
        self.chunks = meters[OPERATIONS["chunks"]]
        self.open_read = meters[OPERATIONS["open_read"]]
        self.pieces = meters[READER_READ]
        self.writes = meters[WRITER_WRITE]

    def __call__(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make any call."""
        meter = self.meters[operation]
        meter.begun.append(None)
        started = clock()
        try:
            answer = call(*args, **kwargs)
        except BaseException as error:
            meter.fail(error, clock() - started, operation.count_items(args, kwargs))
            raise
        ns = clock() - started
        meter.ended.append(~ns if answer is None or answer is False else ns)
        if meter.weighs:
            _weigh(operation, meter, args, kwargs, answer)
        if len(meter.ended) > MOST:
            meter.fold()
        if meter.yields and isinstance(answer, tuple):
            first, rest = answer
            return first, _with_failures(meter, rest)  # type: ignore[return-value]
        return answer


def _weigh(
    operation: Operation, meter: Meter, args: Sequence[Any], kwargs: Mapping[str, Any], answer: Any
) -> None:
    """Note the items of a call, and the bytes."""
    if operation.sends is not None or operation.counts:
        meter.taken.append(operation.bytes_sent(args, kwargs, answer))
    elif operation.receives:
        meter.sent.append(operation.bytes_received(answer))
    if operation.items is None:
        return
    found, absent = operation.count_found(args, kwargs, answer)
    if isinstance(answer, Mapping):
        faults = [each for each in answer.values() if isinstance(each, CastoreError)]
        for fault in faults:
            meter.spoil(fault)
        found -= len(faults)
    meter.batches.append((operation.count_items(args, kwargs), found, absent))


def _with_failures(meter: Meter, rest: Iterator[T]) -> Iterator[T]:
    """Yield the rest of what has begun well; note it if it fails after all."""
    try:
        yield from rest
    except Exception as error:
        meter.spoil(error)
        raise


# -- calls for many, which are made most: the same in a third of the time --


@cache
def _measured_class(kind: Callable[..., Any]) -> type[Any]:
    """Return the class of a capability whose methods are measured."""
    common = forwarding_class(kind)
    many = [
        row
        for row in operations_of(cast("type", kind)).values()
        if row.items is not None and row.yields is None
    ]
    return type(common.__name__, (common,), {row: _calling_many(row, getattr(common, row)) for row in many})


def _calling_many(row: Operation, in_general: Callable[..., Any]) -> Callable[..., Any]:
    count = _counter(row)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or type(args[0]) not in COLLECTIONS:
            return in_general(self, *args, **kwargs)
        return _call_many(self._around.meters[row], count, getattr(self._found, row), args[0])

    return call


Count = Callable[[Meter, Collection[Any], Any], None]


def _call_many(meter: Meter, count: Count, call: Callable[[Any], T], items: Collection[Any]) -> T:
    meter.begun.append(None)
    started = clock()
    try:
        answer = call(items)
    except BaseException as error:
        meter.fail(error, clock() - started, len(items))
        raise
    meter.ended.append(clock() - started)
    count(meter, items, answer)
    if len(meter.ended) > MOST:
        meter.fold()
    return answer


def _counter(row: Operation) -> Count:
    """Return what notes the items of a call, and the bytes."""
    if row.receives:
        return _count_received
    if row.tells is not None:
        return _count_found if row.tells == "found" else _count_absent
    return _count_items if row.sends is None else _count_sent


def _count_received(meter: Meter, items: Collection[Any], answer: Mapping[Any, Any]) -> None:
    there = size = 0
    for data in answer.values():
        if type(data) is bytes:
            there += 1
            size += len(data)
        elif isinstance(data, CastoreError):
            meter.spoil(data)
        else:
            there += 1
            size += size_of(data)
    meter.sent.append(size)
    meter.batches.append((len(items), there, len(items) - len(answer)))


def _count_sent(meter: Meter, items: Any, _: object) -> None:
    meter.taken.append(size_of(items))
    meter.batches.append((len(items), 0, 0))


def _count_items(meter: Meter, items: Collection[Any], _: object) -> None:
    meter.batches.append((len(items), 0, 0))


def _count_found(meter: Meter, items: Collection[Any], answer: Collection[Any]) -> None:
    meter.batches.append((len(items), len(answer), len(items) - len(answer)))


def _count_absent(meter: Meter, items: Collection[Any], answer: Collection[Any]) -> None:
    meter.batches.append((len(items), len(items) - len(answer), len(answer)))


class MeasuredReader(PieceReader):
    """A reader over the pieces of another; each new piece is a `reader.read`.

    Arguments:
        reader: Closed with this one.
        meter: Counts.
    """

    def __init__(self, reader: BlobReader, meter: Meter) -> None:
        self._reader = reader
        self._pieces = pieces_of(reader)
        self._holds = self._pieces._holds  # noqa: SLF001 - of a reader about one beneath
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
        """Whether the whole blob was found right, as the reader beneath knows."""
        return self._pieces.verified

    def expect(self, begin: int, end: int) -> None:
        """Tell the reader beneath."""
        self._pieces.expect(begin, end)

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


class MeasuredWriter(ForwardingWriter):
    """Passes bytes on to another writer, and counts them."""

    def __init__(self, writer: BlobWriter, measuring: _Measuring) -> None:
        super().__init__(writer, measuring)
        self._meter = measuring.writes

    def write(self, data: Buffer, /) -> int:
        """Take all of *data*; return its size in bytes."""
        if type(data) is not bytes or not data:
            return super().write(data)
        # Small pieces are many, and nobody can change these: the same in half of the time.
        if self._state != "open" or self._generation != forks.generation():
            self._require_open("write")
        meter = self._meter
        meter.begun.append(None)
        started = clock()
        try:
            self._writer.write(data)
        except BaseException as error:
            meter.fail(error, clock() - started)
            self._fail()
            raise
        meter.ended.append(clock() - started)
        count = len(data)
        meter.taken.append(count)
        if len(meter.ended) > MOST:
            meter.fold()
        self._written += count
        return count
