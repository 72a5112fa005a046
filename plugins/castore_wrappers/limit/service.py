"""A service of which not too much is asked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, cast

from castore import B3Digest, BlobReader, BlobService, BlobWriter, UnavailableError
from castore.contract.batches import MOST_BYTES, MOST_ITEMS, batches
from castore.contract.blobs import Answer
from castore.contract.directories import DirectoryService
from castore.contract.operations import OPERATIONS, READER_READ, Operation, size_of
from castore.errors import BatchError
from castore.format.directories import Directory
from castore.streams.readers import BytesReader
from castore.streams.writers import GuardedWriter
from castore.threads.waiting import Flag
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.forwarding import Around, ForwardingReader, ForwardingWriter
from castore.wrapping.wrapper import WrapperService, Wrapping
from castore_wrappers.batches import Batch, alike, comes_in_parts
from castore_wrappers.kinds import S
from castore_wrappers.limit.rates import Rate, Slots, Ticket

P = ParamSpec("P")
T = TypeVar("T")

_READ_MANY: Final = OPERATIONS["read_many"]

_PARTS_PER_SECOND: Final = 16
_LEAST_PART: Final = 4 << 10
_MOST_PART: Final = 1 << 20


class Limiting(Wrapping[S]):
    """Asks *inner* for no more than so much at once, and so much in a second.

    A call for many counts as often as it has items. It is made in parts, one after the other, none of which
    has more items than may be under way, or may begin in a second, or more bytes than a second has.

    Arguments:
        inner: The service to be spared.
        concurrency: How many operations may be under way; others wait for their turn, in order. The life
            of a reader or writer is no operation, but each piece that is read or written is.
        operations_per_second: How many may begin.
        bytes_per_second: How many bytes may go there, and how many come from there.
        name: The name of this instance.
        clock: Returns a time in seconds that never goes back.
        sleep: Waits so many seconds. By default that ends with `close`.
        wait: Waits for its turn, until an event is set, in place of the event's own waiting.
    """

    def __init__(
        self,
        inner: S,
        *,
        concurrency: int | None = None,
        operations_per_second: float | None = None,
        bytes_per_second: float | None = None,
        name: str = "limit",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        wait: Callable[[Flag], object] | None = None,
    ) -> None:
        super().__init__(inner, name=name)
        self._slots = None if concurrency is None else Slots(concurrency, wait)
        self._operations = (
            None if operations_per_second is None else Rate(operations_per_second, clock, least=1.0)
        )
        self._sent = None if bytes_per_second is None else Rate(bytes_per_second, clock)
        self._received = None if bytes_per_second is None else Rate(bytes_per_second, clock)
        self._most_items = max(
            int(min(concurrency or MOST_ITEMS, operations_per_second or MOST_ITEMS, MOST_ITEMS)), 1
        )
        self._most_bytes = int(min(bytes_per_second or MOST_BYTES, MOST_BYTES))
        self._part = min(max(int(bytes_per_second or 0) // _PARTS_PER_SECOND, _LEAST_PART), _MOST_PART)
        self._ended = Flag()
        self._sleep = self._ended.wait if sleep is None else sleep

    @property
    def waiting(self) -> int:
        """How many operations wait for others to end."""
        return 0 if self._slots is None else self._slots.waiting

    def gauges(self) -> Mapping[str, float]:
        """Return how many operations are under way and how many wait, if that is limited."""
        slots = self._slots
        return {} if slots is None else {"under_way": slots.taken, "waiting": slots.waiting}

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Wait until it may be done, then call; in parts if it is too much."""
        if operation.items is not None and operation.yields is None:
            parts = self._parts(operation, args, kwargs)
            if len(parts) > 1:
                return cast("T", self._do_in_parts(operation, parts, call, args, kwargs))
        answer = self._do(operation, call, *args, **kwargs)
        if self._received is not None and operation.receives:
            self._receive(size_of(answer))
        return answer

    def _do(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what may be done at once. What comes of it has come, and is not counted yet."""
        count = 1 if operation.items is None else max(operation.count_items(args, kwargs), 1)
        # Writers gather bytes as they like: their opening and closing are operations, not what is between.
        gathers = operation.buffered and (operation.sends or operation.counts)
        if self._operations is not None and not gathers:
            self._wait(self._operations.take(count))
        if self._sent is not None and operation.sends:
            self._wait(self._sent.take(operation.bytes_sent(args, kwargs)))
        slots = self._slots
        # Of a piece that is read, as most operations are, it is known.
        if slots is None or (operation is not READER_READ and _calls_back((*args, *kwargs.values()))):
            answer = call(*args, **kwargs)
        else:
            ticket = Ticket(min(count, slots.count))
            try:
                slots.take(ticket)
                answer = call(*args, **kwargs)
            finally:
                slots.give_back(ticket)
        if self._sent is not None and operation.counts:
            self._wait(self._sent.take(operation.bytes_sent(args, kwargs, answer)))
        return answer

    def _parts(
        self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Sequence[Collection[Any]]:
        """Return the items of a call as those of the calls that are made for them; one or none: as it is."""
        assert operation.items is not None
        items = operation.argument(operation.items, args, kwargs)
        if not isinstance(items, Collection):
            return ()
        if self._sent is not None and (operation.sends or operation.receives):
            sent = None if operation.sends is None else operation.argument(operation.sends, args, kwargs)
            sizes = _sizes_of(sent if operation.sends else items)
            return list(batches(items, sizes, most_items=self._most_items, most_bytes=self._most_bytes))
        if len(items) <= self._most_items:
            return ()
        return list(batches(items, lambda _: 0, most_items=self._most_items))

    def _do_in_parts(
        self,
        operation: Operation,
        parts: Sequence[Collection[Any]],
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        batch = Batch(operation, partial(self.around, operation, call), args, kwargs)
        remaining = iter(parts)
        for part in remaining:
            try:
                batch.make(part)
            except UnavailableError as error:
                if not comes_in_parts(operation):
                    raise
                batch.fail(part, error)
                if not isinstance(error, BatchError) or not error.done:
                    if not batch.anything_known:
                        raise
                    # It does not answer: what comes after that would fail alike.
                    for later in remaining:
                        batch.fail(later, alike(error))
        return batch.result(self.name)

    def _receive(self, count: int) -> None:
        if self._received is not None and (seconds := self._received.take(count)) > 0:
            self._sleep(seconds)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    def close(self) -> None:
        """Let those who wait for the next second go on at once."""
        self._ended.set()


class LimitService(Limiting[BlobService], WrapperService):
    """Asks a service of blobs for no more."""

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:  # noqa: ARG002 - as declared
        """Return a reader whose pieces are limited; bytes in memory are so only in their rate."""
        if self._received is None:
            return reader if type(reader) is BytesReader else ForwardingReader(reader, self.around)
        return _EvenReader(reader, self._do, self._receive, self._part)

    def wrap_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        """Hand out the bytes of a small blob when they are due."""
        if isinstance(answer, bytes):
            self._receive(len(answer))
            return answer
        return super().wrap_answer(answer, digest)

    def begin_read_many(self, digests: Sequence[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Yield what the service within yields, asked for no more at a time than may be under way."""
        if self._slots is None and self._operations is None:
            yield from super().begin_read_many(digests)
            return
        for part in batches(digests, lambda _: None, most_items=self._most_items):
            first, rest = self.around(_READ_MANY, self._read_part, part)
            try:
                while first:
                    yield first.popleft()
                yield from rest
            finally:
                # Who has enough closes what was handed out, and not what was about to be.
                for _, answer in first:
                    if isinstance(answer, BlobReader):
                        answer.close()

    def _read_part(self, digests: Sequence[B3Digest]) -> tuple[deque[tuple[B3Digest, Answer]], Any]:
        """Return the small blobs up to one that its user reads, in operations of its own; and the rest."""
        answers = iter(self.inner.read_many(digests))
        first: deque[tuple[B3Digest, Answer]] = deque()
        for digest, answer in answers:
            first.append((digest, answer))
            if isinstance(answer, BlobReader):
                break
        return first, answers

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        """Return a writer that waits with the bytes."""
        return _LimitedWriter(writer, self.around)


class LimitDirectoryService(Limiting[DirectoryService], WrapperDirectoryService):
    """Asks a service of directories for no more."""

    def wrap_closure(self, directories: Iterator[Directory], root: B3Digest) -> Iterator[Directory]:  # noqa: ARG002 - as declared
        """Hand each directory out when its bytes are due."""
        for directory in directories:
            self._receive(len(directory.encoded))
            yield directory


def _sizes_of(items: object) -> Callable[[Any], int | None]:
    """Return what tells the bytes of an item: by its size, or by itself."""
    if not isinstance(items, Mapping):
        return lambda _: None
    sizes = items

    def size(item: Any) -> int | None:
        value = sizes.get(item)
        return value if value is None or isinstance(value, int) else size_of(value)

    return size


def _calls_back(arguments: tuple[object, ...]) -> bool:
    """Tell whether an operation is given something that does work of its own, with this service perhaps.

    Who has a slot must not wait for one who needs it: such an operation is done without.
    """
    return any(isinstance(argument, Iterator) or callable(argument) for argument in arguments)


class _EvenReader(ForwardingReader):
    """Hands out long pieces in parts of *most* bytes, each when it is due."""

    def __init__(self, reader: BlobReader, around: Around, receive: Callable[[int], None], most: int) -> None:
        super().__init__(reader, around)
        self._receive = receive
        self._most = most
        self._whole = memoryview(b"")
        """A piece that is longer than that, of which a part was handed out."""
        self._whole_at = 0

    def _next_piece(self, position: int) -> memoryview:
        offset = position - self._whole_at
        if 0 <= offset < len(self._whole):
            part = self._whole[offset : offset + self._most]
        else:
            self._whole = memoryview(b"")
            part = super()._next_piece(position)
            if len(part) > self._most:
                self._whole, self._whole_at = part, position
                part = part[: self._most]
        self._receive(len(part))
        return part

    def close(self) -> None:
        self._whole = memoryview(b"")
        super().close()


class _LimitedWriter(ForwardingWriter):
    # Through a buffer of its own: what is read from may be a blob of this very service (`_calls_back`).
    fill = GuardedWriter.fill
