"""What all calls have in common: who may make them, how they end, and what is told of them.

A handler of this server is a function of a request and a `Call`. What it raises becomes a status: a
`CastoreError` the one that says the same, and anything else `INTERNAL` with a number under which the log has
more.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import grpc

from castore.errors import (
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    InvalidDigestError,
    UnavailableError,
    UnsupportedError,
)
from castore.serving.access import Client, Right, Tokens
from castore.serving.grpc.limits import BudgetError, ByteBudget, Limits
from castore.threads.idle import IdleWatch, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable

_log: Final = logging.getLogger("castore.serving")

Code: Final = grpc.StatusCode

_CODES: Final[tuple[tuple[type[Exception], grpc.StatusCode], ...]] = (
    (InvalidDigestError, Code.INVALID_ARGUMENT),
    (BlobNotFoundError, Code.NOT_FOUND),
    (CorruptBlobError, Code.DATA_LOSS),
    (UnavailableError, Code.UNAVAILABLE),
    (UnsupportedError, Code.FAILED_PRECONDITION),
    (BudgetError, Code.RESOURCE_EXHAUSTED),
)
"""The status that says the same as an error; the first that fits."""


class StatusError(Exception):
    """Ends a call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


@attrs.frozen
class CallRecord:
    """What is told of a call when it has ended."""

    path: str
    client: str
    peer: str
    code: str
    details: str
    seconds: float
    received: int
    sent: int
    digest: str


class Recorder(Protocol):
    """Whoever is told of calls."""

    def __call__(self, record: CallRecord, /) -> object:
        """Take note; it must not raise."""
        ...


class Call:
    """A call that is being answered.

    Attributes:
        received: How many bytes have come.
        sent: How many were given to be sent.
        digest: What it is about, in hex.
    """

    def __init__(self, path: str, context: grpc.ServicerContext, waiting: Waiting, door: Door) -> None:
        self.path = path
        self._context = context
        self._waiting = waiting
        self._door = door
        self._began = time.monotonic()
        self.client: Client | None = None
        self.received = 0
        self.sent = 0
        self.digest = ""

    @property
    def limits(self) -> Limits:
        """The bounds of the server."""
        return self._door.limits

    @property
    def budget(self) -> ByteBudget:
        """The bytes that all streams hold together."""
        return self._door.budget

    @property
    def goes_on(self) -> bool:
        """Whether the client still waits for it, and was not given up."""
        return not self._waiting.expired and bool(self._context.is_active())

    def require(self, right: Right) -> None:
        """Raise `StatusError` unless the client has a right."""
        metadata = {key: value for key, value in self._context.invocation_metadata() if value is not None}
        self.client = self._door.tokens().client_of(metadata)
        if self.client is None:
            raise StatusError(
                Code.UNAUTHENTICATED, "a bearer token is needed, and none that is known was given"
            )
        if right not in self.client.rights:
            raise StatusError(Code.PERMISSION_DENIED, f"`{self.client.name}` has no right to {right}")

    def messages(self, requests: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the messages of a stream; raise `StatusError` for one that is too long."""
        iterator = iter(requests)
        while True:
            self._waiting.begin()
            try:
                message = next(iterator, None)
            finally:
                self._waiting.end()
            if message is None:
                return
            self.received += len(message)
            if len(message) > self.limits.most_message:
                raise StatusError(
                    Code.INTERNAL,
                    f"a message has {len(message)} bytes; {self.limits.most_message} are the most",
                )
            yield message

    def sending(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """Yield messages to be sent, and note how long the client takes for them."""
        for message in messages:
            self.sent += len(message)
            self._waiting.begin()
            yield message
            self._waiting.end()

    def status_of(self, error: BaseException) -> tuple[grpc.StatusCode, str]:
        """Return the status that a call ends with which has raised *error*."""
        if self._waiting.expired:
            return Code.DEADLINE_EXCEEDED, "the client neither sent nor took anything for too long"
        if isinstance(error, StatusError):
            return error.code, error.details
        for kind, code in _CODES:
            if isinstance(error, kind):
                return code, _short(str(error))
        if isinstance(error, CastoreError):
            return Code.INTERNAL, _short(str(error))
        if not self.goes_on:
            return Code.CANCELLED, "the client has gone"
        number = os.urandom(6).hex()
        _log.error("%s failed, as error %s", self.path, number, exc_info=error)
        return Code.INTERNAL, f"an error of the server, which is in its log as {number}"

    def record(self, code: grpc.StatusCode, details: str) -> CallRecord:
        """Return what is told of it."""
        return CallRecord(
            path=self.path,
            client=self.client.name if self.client is not None else "",
            peer=self._context.peer(),
            code=code.name,
            details=details,
            seconds=time.monotonic() - self._began,
            received=self.received,
            sent=self.sent,
            digest=self.digest,
        )


_LONGEST_DETAILS: Final = 1000
"""Details are sent in a header, of which clients take 8 KiB."""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_DETAILS else f"{text[:_LONGEST_DETAILS]}..."


class Door:
    """Makes handlers of gRPC of functions of requests and calls."""

    def __init__(
        self,
        limits: Limits,
        tokens: Callable[[], Tokens],
        record: Recorder,
        idle: IdleWatch,
        around: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.limits = limits
        self.tokens = tokens
        self.budget = ByteBudget(limits.bytes_in_flight, patience=limits.crowded_seconds)
        self._record = record
        self._idle = idle
        self._around = around

    def unary(self, path: str, right: Right, work: Callable[[Any, Call], bytes]) -> Callable[..., bytes]:
        """Return the behaviour of a call with one answer; *work* gets the request, or the stream of them."""

        def behave(request: Any, context: grpc.ServicerContext) -> bytes:
            with self._around(), self._idle.over(context.cancel) as waiting:
                call = Call(path, context, waiting, self)
                try:
                    call.require(right)
                    answer = work(request, call)
                except BaseException as error:  # noqa: BLE001 - each becomes a status
                    self._fail(call, context, error)
                call.sent += len(answer)
                self._record(call.record(Code.OK, ""))
                return answer

        return behave

    def stream(
        self, path: str, right: Right, work: Callable[[Any, Call], Iterator[bytes]]
    ) -> Callable[..., Iterator[bytes]]:
        """Return the behaviour of a call with a stream of answers."""

        def behave(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._around(), self._idle.over(context.cancel) as waiting:
                call = Call(path, context, waiting, self)
                try:
                    call.require(right)
                    yield from call.sending(work(request, call))
                except GeneratorExit:
                    details = "the client has gone, or took nothing for too long"
                    self._record(call.record(Code.CANCELLED, details))
                    raise
                except BaseException as error:  # noqa: BLE001 - as above
                    self._fail(call, context, error)
                self._record(call.record(Code.OK, ""))

        return behave

    def _fail(self, call: Call, context: grpc.ServicerContext, error: BaseException) -> None:
        code, details = call.status_of(error)
        self._record(call.record(code, details))
        context.abort(code, details)
