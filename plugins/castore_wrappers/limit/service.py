"""A service of which not too much is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter
from castore.streams.readers import BytesReader
from castore.streams.writers import GuardedWriter
from castore.wrapping.forwarding import Around, ForwardingReader, ForwardingWriter
from castore.wrapping.wrapper import WrapperService
from castore_wrappers.limit.rates import Rate, Slots

P = ParamSpec("P")
T = TypeVar("T")

_SENDS: Final = frozenset({"writer.write", "put_chunk", "put_frame"})
"""What sends its last argument."""

_RECEIVES: Final = frozenset({"get_chunk", "get_frame"})
"""What receives bytes; the pieces of readers are counted by those."""

_NOT_COUNTED: Final = frozenset({"writer.write"})
"""Writers gather bytes as they like: their opening and closing count as operations, not what is between."""

_PLAIN: Final = frozenset(
    {"has", "open_read", "chunks", "reader.read", "writer.write", "get_chunk", "put_chunk"}
)
"""What is given nothing that does work of its own, for certain."""

_PARTS_PER_SECOND: Final = 16
_LEAST_PART: Final = 4 << 10
_MOST_PART: Final = 1 << 20


class LimitService(WrapperService):
    """Asks *inner* for no more than so much at once, and so much in a second.

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
        inner: BlobService,
        *,
        concurrency: int | None = None,
        operations_per_second: float | None = None,
        bytes_per_second: float | None = None,
        name: str = "limit",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        wait: Callable[[threading.Event], object] | None = None,
    ) -> None:
        super().__init__(inner, name=name)
        self._slots = None if concurrency is None else Slots(concurrency, wait)
        self._operations = (
            None if operations_per_second is None else Rate(operations_per_second, clock, least=1.0)
        )
        self._sent = None if bytes_per_second is None else Rate(bytes_per_second, clock)
        self._received = None if bytes_per_second is None else Rate(bytes_per_second, clock)
        self._part = min(max(int(bytes_per_second or 0) // _PARTS_PER_SECOND, _LEAST_PART), _MOST_PART)
        self._ended = threading.Event()
        self._sleep = self._ended.wait if sleep is None else sleep

    @property
    def waiting(self) -> int:
        """How many operations wait for others to end."""
        return 0 if self._slots is None else self._slots.waiting

    def gauges(self) -> Mapping[str, float]:
        """Return how many operations are under way and how many wait, if that is limited."""
        slots = self._slots
        return {} if slots is None else {"under_way": slots.taken, "waiting": slots.waiting}

    def around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Wait until it may be done, then call."""
        if self._operations is not None and operation not in _NOT_COUNTED:
            self._wait(self._operations.take(1))
        if self._sent is not None and operation in _SENDS:
            data: Any = (*args, *kwargs.values())[-1]
            self._wait(self._sent.take(memoryview(data).nbytes))
        slots = self._slots
        if slots is None or (operation not in _PLAIN and _calls_back((*args, *kwargs.values()))):
            result = call(*args, **kwargs)
        else:
            slots.take()
            try:
                result = call(*args, **kwargs)
            finally:
                slots.give_back()
        if operation in _RECEIVES and result is not None:
            self._receive(len(result))  # type: ignore[arg-type]
        return result

    def _receive(self, count: int) -> None:
        if self._received is not None:
            self._wait(self._received.take(count))

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:  # noqa: ARG002 - as declared
        """Return a reader whose pieces are limited; bytes in memory are so only in their rate."""
        if self._received is None:
            return reader if type(reader) is BytesReader else ForwardingReader(reader, self.around)
        return _EvenReader(reader, self.around, self._receive, self._part)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        """Return a writer that waits with the bytes."""
        return _LimitedWriter(writer, self.around)

    def close(self) -> None:
        """Let those who wait for the next second go on at once."""
        self._ended.set()


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
        self._whole_at = 0

    def _next_piece(self, position: int) -> memoryview:
        offset = position - self._whole_at
        if not 0 <= offset < len(self._whole):
            self._whole = memoryview(b"")
            self._whole = super()._next_piece(position)
            self._whole_at = position
            offset = 0
        part = self._whole[offset : offset + self._most]
        self._receive(len(part))
        return part

    def close(self) -> None:
        self._whole = memoryview(b"")
        super().close()


class _LimitedWriter(ForwardingWriter):
    # Through a buffer of its own: what is read from may be a blob of this very service (`_calls_back`).
    fill = GuardedWriter.fill
