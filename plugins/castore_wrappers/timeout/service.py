"""A service that is waited for no longer than a timeout, whatever hangs in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, cast

from castore import B3Digest, BlobReader, BlobService, BlobWriter, CastoreError, UnavailableError
from castore.composites.members import periods, periods_of
from castore.contract.directories import DirectoryService
from castore.contract.operations import OPERATIONS, Operation
from castore.streams.readers import BytesReader
from castore.streams.writers import GuardedWriter
from castore.threads.deadlines import CLOCK, Clock, Deadlines
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.forwarding import Entering, ForwardingReader, ForwardingWriter
from castore.wrapping.wrapper import WrapperService, Wrapping
from castore_wrappers.kinds import S
from castore_wrappers.timeout.progress import Watched

P = ParamSpec("P")
T = TypeVar("T")

_OPEN_READ: Final = OPERATIONS["open_read"]
_OPEN_WRITE: Final = OPERATIONS["open_write"]

_RUN_PERIODS: Final = 3
"""A piece of a blob in chunks may be fetched with others: no more than 12 MiB of them together."""


class Timing(Wrapping[S]):
    """Passes everything on to *inner*, and waits for each answer no longer than *timeout*.

    Then `UnavailableError` is raised, and the call is given up: it goes on by itself until it returns, and
    may still do what it was to do. What it gives in the end is released: a reader closed, a writer aborted, a
    lease ended. A reader or a writer with a call that was given up is not used any more.

    A call for many may take as long for each 64 items, or 4 MiB, that it begins. What yields is waited for
    item by item, and what is given an iterator only while that does not work.

    Arguments:
        inner: The service that may hang.
        timeout: In seconds.
        calls_at_once: How many calls there may be, those among them that were given up and have not returned.
            If all were, others are refused at once.
        name: The name of this instance.
        clock: What the waiting is done with.
    """

    def __init__(
        self,
        inner: S,
        *,
        timeout: float,
        calls_at_once: int = 64,
        name: str = "timeout",
        clock: Clock = CLOCK,
    ) -> None:
        super().__init__(inner, name=name)
        self.timeout = timeout
        self._deadlines = Deadlines(name, threads=calls_at_once, clock=clock)
        self._given_up = 0

    def gauges(self) -> Mapping[str, float]:
        """Return how many calls were given up, and how many of these have not returned yet."""
        return {"given_up": self._given_up, "not_returned": self._deadlines.abandoned}

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make the call on another thread, and wait for it as long as it may take."""
        seconds = self.timeout * _periods(operation, args, kwargs)
        made: Callable[..., Any] = call
        answer: Any
        if isinstance(call, Entering):
            answer = self._enter(call, seconds, args, kwargs)
        elif operation == _OPEN_READ:
            answer = self.wait(partial(_open, made, *args, **kwargs), seconds, late=_close)
        else:
            given, named, watched = self._lent(operation, args, kwargs)
            late = _abort if operation == _OPEN_WRITE else None
            answer = self.wait(partial(made, *given, **named), seconds, late=late, watched=watched)
            if operation.yields == "iterator":
                first, rest = answer
                answer = first, self._each(rest, seconds, watched)
        return cast("T", answer)

    def wait(
        self,
        call: Callable[[], T],
        seconds: float,
        *,
        late: Callable[[Any], object] | None = None,
        watched: Watched | None = None,
    ) -> T:
        """Return what a call returns, within so many *seconds* in which *watched* is not at work."""
        pending = self._deadlines.start(call, late=late)
        try:
            while watched is not None and not pending.wait(seconds):
                if not watched.take_progress():
                    break
            answer: T = pending.result(seconds if watched is None else 0.0)
        except UnavailableError as error:
            if not pending.abandoned:
                raise
            self._given_up += 1
            # How long was waited in the end says less than how long it may be silent.
            raise UnavailableError(self.name, f"no answer within {seconds:g} s") from error.__cause__
        return answer

    def _lent(
        self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any], Watched | None]:
        """Return arguments that a call may look at when it was given up: buffers are the caller's."""
        if operation.sends is not None:
            sent = operation.argument(operation.sends, args, kwargs)
            return *operation.with_argument(operation.sends, _copied(sent), args, kwargs), None
        watched = Watched(self._deadlines.clock)
        lent = tuple(watched.over(each) if isinstance(each, Iterator) else each for each in args)
        return lent, kwargs, watched if watched.has_any else None

    def _each(self, rest: Iterator[T], seconds: float, watched: Watched | None) -> Iterator[T]:
        ended = object()
        lost = False
        try:
            while True:
                try:
                    item = self.wait(
                        partial(next, rest, ended), seconds, late=lambda _: _end(rest), watched=watched
                    )
                except UnavailableError:
                    lost = True
                    raise
                if item is ended:
                    return
                yield cast("T", item)
        finally:
            if not lost:
                self._leave(partial(_end, rest))

    def _enter(
        self, entering: Entering, seconds: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        entered = self.wait(partial(entering, *args, **kwargs), seconds, late=lambda _: entering.release())
        within = entering.stack.pop_all()
        entering.stack.callback(self._leave, within.close)
        return entered

    def _leave(self, leave: Callable[[], object]) -> None:
        # What cannot be ended now ends with the process; the error would hide what came before.
        try:
            self.wait(leave, self.timeout)
        except CastoreError:
            return

    def close(self) -> None:
        """End the threads that have nothing to do."""
        self._deadlines.close()


class TimeoutService(Timing[BlobService], WrapperService):
    """Waits for a service of blobs no longer."""

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:  # noqa: ARG002 - as declared
        """Return a reader whose pieces are waited for; bytes in memory need not be."""
        return reader if type(reader) is BytesReader else _TimedReader(reader, self)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        """Return a writer whose steps are waited for."""
        return _TimedWriter(writer, self)


class TimeoutDirectoryService(Timing[DirectoryService], WrapperDirectoryService):
    """Waits for a service of directories no longer; for a tree, from directory to directory."""


def _periods(operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return how many times the timeout a call may take."""
    if operation.items is None:
        return periods(size=operation.bytes_sent(args, kwargs))
    items = operation.argument(operation.items, args, kwargs)
    if not isinstance(items, Sized):
        return 1
    if operation.receives and isinstance(items, Mapping):
        return periods_of(value if isinstance(value, int) else None for value in items.values())
    sent = operation.bytes_sent(args, kwargs)
    return periods(len(items), sent)


def _copied(sent: Any) -> Any:
    if isinstance(sent, Mapping):
        return {digest: bytes(data) for digest, data in sent.items()}
    return list(sent) if isinstance(sent, list) else bytes(sent)


def _open(call: Callable[..., BlobReader | None], *args: Any, **kwargs: Any) -> BlobReader | None:
    reader = call(*args, **kwargs)
    if reader is not None:
        _ = reader.size  # Some find it out when they are asked.
    return reader


def _close(reader: BlobReader | None) -> None:
    if reader is not None:
        reader.close()


def _abort(writer: BlobWriter | None) -> None:
    if writer is not None:
        writer.abort()


def _end(iterator: Iterator[Any]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


class _TimedReader(ForwardingReader):
    """Is lost when a piece does not come in time: the thread that waits for it has what is beneath."""

    def __init__(self, reader: BlobReader, service: TimeoutService) -> None:
        super().__init__(reader, service.around)
        self._service = service
        self._lost: UnavailableError | None = None
        self._read_before = False

    def _next_piece(self, position: int) -> memoryview:
        if self._lost is not None:
            raise UnavailableError(self._lost.instance, self._lost.cause)
        seconds = self._service.timeout * (_RUN_PERIODS if self._read_before else 1)
        pieces = self._pieces
        try:
            piece = self._service.wait(
                partial(pieces.piece_at, position), seconds, late=lambda _: pieces.close()
            )
        except UnavailableError as error:
            if error.instance == self._service.name:
                self._lost = error
            raise
        self._read_before = True
        return piece

    def close(self) -> None:
        if not self.closed and self._lost is None:
            self._held = memoryview(b"")
            pieces = self._pieces
            self._service._leave(pieces.close)  # noqa: SLF001 - of the class above
        self._lost = self._lost or UnavailableError(self._service.name, "it is closed")
        super(ForwardingReader, self).close()


class _TimedWriter(ForwardingWriter):
    # What is read from is not waited for.
    fill = GuardedWriter.fill

    def __init__(self, writer: BlobWriter, service: TimeoutService) -> None:
        super().__init__(writer, service.around)
        self._service = service
        self._lost = False

    def _take(self, view: memoryview) -> None:
        data = bytes(view)
        self._step(lambda: self._writer.write(data), periods(size=len(data)))

    def _finish(self) -> B3Digest:
        return self._step(self._writer.close, _RUN_PERIODS)

    def _step(self, step: Callable[[], T], count: int) -> T:
        try:
            return self._service.wait(
                step, self._service.timeout * count, late=lambda _: self._writer.abort()
            )
        except UnavailableError as error:
            self._lost = self._lost or error.instance == self._service.name
            raise

    def _discard(self) -> None:
        if not self._lost:
            self._service._leave(self._writer.abort)  # noqa: SLF001 - of the class above
