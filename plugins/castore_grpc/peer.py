"""A peer: its connection, the calls that are made to it, and what its refusals mean.

The library has threads and locks of its own, and a fork that finds a call under way hangs in the child. So a
connection is closed before a fork, and its calls end; parent and child connect anew when they have to.
Short calls, and the beginning of long ones, are waited for. What only reads is then done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from castore import B3Digest
from castore.composition import scrub
from castore.errors import CastoreError, CorruptBlobError, UnavailableError, UnsupportedError
from castore.format.wire import MOST_MESSAGE, PACKAGES, method_path
from castore.threads import forks
from castore.threads.idle import IdleWatch

if TYPE_CHECKING:
    from castore_grpc.target import Target

# The library looks at it once, when it is first used: then its threads stop for as long as a fork takes. What
# the program is set to, and starts, stays as it is.
_FORK_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"
_set_before: Final = os.environ.get(_FORK_SUPPORT)
os.environ.setdefault(_FORK_SUPPORT, "1")
import grpc  # noqa: E402 - as above
from grpc.experimental.session_cache import ssl_session_cache_lru  # noqa: E402 - as above

_anchor: Final[object] = ssl_session_cache_lru(1)
"""What the library is in use for, to the end of the process.

Else it ends itself with the last connection, and a fork comes amidst that.
"""
if _set_before is None:
    del os.environ[_FORK_SUPPORT]
# It stops its threads before a fork: then no call could end, and no connection be closed.
forks.come_before_others()

T = TypeVar("T")

Code: Final = grpc.StatusCode

MOST_ANSWER: Final = 32 << 20
"""How many bytes a message has at most: the list of chunks of a blob of 200 GiB, say."""

_MOST_EMPTY: Final = 1000
"""So many messages without anything in them may come one after the other."""

_BLOBS: Final = "BlobService"
_DIRECTORIES: Final = "DirectoryService"
_PROBES: Final = {_BLOBS: ("Stat", False), _DIRECTORIES: ("Get", True)}
"""A call that each service refuses at once, if there is such a service, and whether that is a stream."""

_READING: Final = ((_BLOBS, "Stat"), (_BLOBS, "Read"), (_DIRECTORIES, "Get"))
"""What the library may repeat by itself: nothing is stored by it."""

_SECONDS_TO_LEAVE: Final = 2.0
"""How long a fork waits for those whose calls it has ended."""

_SECONDS_TO_LET_GO: Final = 0.01
"""The library skips all that it does for a fork if a thread is within it, and does not tell when none is."""

_RETRIED: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@attrs.frozen
class Tls:
    """The files of an encrypted connection, each `None` if there is none, and the name of the peer."""

    ca: Path | None
    certificate: Path | None
    key: Path | None
    server_name: str | None

    def credentials(self, instance: str) -> grpc.ChannelCredentials:
        """Read the files; raise `UnavailableError` for one that cannot be read."""
        try:
            ca, certificate, key = (
                None if path is None else path.read_bytes() for path in (self.ca, self.certificate, self.key)
            )
            if ca is None:
                system = ssl.get_default_verify_paths().cafile
                ca = Path(system).read_bytes() if system else None
        except OSError as error:
            raise UnavailableError(instance, error) from error
        return grpc.ssl_channel_credentials(ca, key, certificate)


class AbsentError(Exception):
    """The peer does not have what it was asked for."""


class _Connection:
    """A connection, from one fork to the next."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.generation = forks.generation()
        self.calls: dict[tuple[str, str], Any] = {}
        self.packages: dict[str, str] = {}
        self.is_cut = False
        """Whether a fork has ended it, and all its calls."""
        self.inside: set[object] = set()
        """Those who wait within the library."""

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        """Enter for as long as this thread is within the library."""
        me = object()
        self.inside.add(me)
        try:
            yield
        finally:
            self.inside.discard(me)


@attrs.frozen
class Running:
    """A call that was begun."""

    call: Any
    _connection: _Connection

    @property
    def is_cut(self) -> bool:
        """Whether a fork has ended it."""
        return self._connection.is_cut

    def next(self) -> Any:
        """Return the next message, `None` at the end."""
        with self._connection.within():
            return next(self.call, None)


class Peer:
    """Makes calls to a peer.

    Arguments:
        target: Where it is.
        instance: The name of the service that it is called for, for errors.
        package: `snix`, `tvix`, or `auto`.
        token: A bearer token.
        timeout: In seconds: how long an answer may take, or a stream stand still.
        keepalive: In seconds: after which silence it is asked whether it is there; 0 is never.
        tls: The files of an encrypted connection.
        secrets: What no error may show.
    """

    def __init__(
        self,
        target: Target,
        *,
        instance: str,
        package: str = "auto",
        token: str | None = None,
        timeout: float = 30.0,
        keepalive: float = 30.0,
        tls: Tls | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.instance = instance
        self.timeout = timeout
        self._target = target
        self._package = package
        self._keepalive = keepalive
        self._tls = tls
        self._secrets = secrets
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        self._lock = forks.new_lock()
        self._connection: _Connection | None = None
        self._closed = False
        self.idle = IdleWatch(lambda: self.timeout)
        forks.let_go_before_fork(self)

    # -- the connection --

    def _connected(self) -> _Connection:
        with self._lock:
            if self._closed:
                raise UnavailableError(self.instance, "the service was closed")
            connection = self._connection
            if connection is None or connection.generation != forks.generation():
                connection = self._connection = _Connection(self._open())
            return connection

    def _open(self) -> grpc.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MOST_ANSWER),
            ("grpc.max_send_message_length", -1),
            ("grpc.service_config", _service_config()),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 5000),
            ("grpc.primary_user_agent", "castore"),
            # Each service has a connection of its own, so that closing one ends none of another.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._keepalive:
            options += [
                ("grpc.keepalive_time_ms", max(int(self._keepalive * 1000), 1000)),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        target = self._target
        if target.scheme == "unix":
            return grpc.insecure_channel(f"unix:{target.path}", options)
        address = f"dns:///{target.shown}"
        if self._tls is None:
            return grpc.insecure_channel(address, options)
        if self._tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.secure_channel(address, self._tls.credentials(self.instance), options)

    def connect(self) -> None:
        """Connect now; raise `UnavailableError` if that cannot be."""
        with forks.held_off():
            ready = grpc.channel_ready_future(self._connected().channel)
            try:
                ready.result(timeout=self.timeout)
            except grpc.FutureTimeoutError:
                ready.cancel()
                raise UnavailableError(
                    self.instance, f"no connection to {self._target.shown} within {self.timeout:g} s"
                ) from None

    def let_go(self) -> None:
        """Close the connection before a fork: calls that run end with an error, and may be made again."""
        # Without the lock, for which nobody waits here: it is a single step.
        connection, self._connection = self._connection, None
        if connection is None or connection.generation != forks.generation():
            return
        connection.is_cut = True
        connection.channel.close()
        # Whoever is still within the library could have one of its locks.
        ends = time.monotonic() + _SECONDS_TO_LEAVE
        while connection.inside and time.monotonic() < ends:
            time.sleep(0.001)
        # They, and threads of the library, are still letting go of what was closed.
        time.sleep(_SECONDS_TO_LET_GO)

    def close(self) -> None:
        """Close the connection, if it is this process's."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None and connection.generation == forks.generation():
            connection.channel.close()

    # -- calls --

    def _path(self, connection: _Connection, service: str, method: str) -> str:
        package = connection.packages.get(service)
        if package is None:
            package = connection.packages[service] = self._find_package(connection, service)
        return method_path(package, service, method)

    def _find_package(self, connection: _Connection, service: str) -> str:
        """Return the package that the peer has for a service: that by which a wrong request is refused."""
        known = dict(zip(("snix", "tvix"), PACKAGES, strict=True))
        if self._package in known:
            return known[self._package]
        probe, is_stream = _PROBES[service]
        for package in known.values():
            path = method_path(package, service, probe)
            try:
                call = self._callable(connection, "unary_stream" if is_stream else "unary_unary", path)
                answer = call(b"", timeout=self.timeout, metadata=self._metadata)
                if is_stream:
                    next(answer, None)
            except grpc.RpcError as error:
                if error.code() is Code.UNIMPLEMENTED:
                    continue
                if error.code() in (Code.INVALID_ARGUMENT, Code.NOT_FOUND):
                    return package
                raise self.error_of(error) from error
            return package
        raise UnsupportedError(f"`{self.instance}`: {self._target.shown} has no {service}, by neither name")

    @staticmethod
    def _callable(connection: _Connection, kind: str, path: str) -> Any:
        found = connection.calls.get((kind, path))
        if found is None:
            try:
                found = connection.calls[kind, path] = getattr(connection.channel, kind)(path)
            except ValueError as error:
                raise UnavailableError("grpc", error) from error
        return found

    def _begin(self, kind: str, service: str, method: str, request: Any) -> Running:
        with forks.held_off():
            connection = self._connected()
            call = self._callable(connection, kind, self._path(connection, service, method))
            if kind == "stream_unary":
                call = call.future
            try:
                return Running(call(request, timeout=None, metadata=self._metadata), connection)
            except ValueError as error:
                # The channel was closed meanwhile.
                raise UnavailableError(self.instance, error) from error

    def ask(self, service: str, method: str, request: bytes) -> bytes:
        """Return the answer to a request; raise `AbsentError`, or what else it was refused for."""
        with forks.held_off():
            connection = self._connected()
            try:
                call = self._callable(connection, "unary_unary", self._path(connection, service, method))
                with connection.within():
                    answer: bytes = call(request, timeout=self.timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                raise self.cut_off() if connection.is_cut else self.error_of(error) from error
            except ValueError as error:
                raise UnavailableError(self.instance, error) from error
            return answer

    def send(self, service: str, method: str, messages: Iterator[bytes]) -> Running:
        """Begin to send a stream of messages; return the call, a future of its answer."""
        return self._begin("stream_unary", service, method, messages)

    def receive(
        self, service: str, method: str, request: bytes, *, most: int = MOST_MESSAGE
    ) -> Iterator[bytes]:
        """Yield the messages of a stream.

        Raises `AbsentError`, `UnavailableError` for one that stands still, or has a message of more than
        *most* bytes, or what else it was refused for. Closing the iterator ends the call.
        """
        yield from self.messages_of(self.begin_to_receive(service, method, request), most=most)

    def begin_to_receive(self, service: str, method: str, request: bytes) -> Running:
        """Begin a stream of messages, whoever goes through them."""
        return self._begin("unary_stream", service, method, request)

    def messages_of(self, begun: Running, *, most: int = MOST_MESSAGE) -> Iterator[bytes]:
        """Yield the messages of a stream that was begun, as `receive` does."""
        call = begun.call
        empty = 0
        with self.idle.over(call.cancel) as waiting:
            try:
                while True:
                    waiting.begin()
                    message = begun.next()
                    waiting.end()
                    if message is None:
                        return
                    if len(message) > most:
                        raise UnavailableError(
                            self.instance, f"it sent a message of {len(message)} bytes; {most} are the most"
                        )
                    empty = 0 if message else empty + 1
                    if empty > _MOST_EMPTY:
                        raise UnavailableError(
                            self.instance, f"it sent {empty} messages with nothing in them"
                        )
                    yield message
            except grpc.RpcError as error:
                if begun.is_cut:
                    raise self.cut_off() from error
                if waiting.expired:
                    raise self.silent() from error
                raise self.error_of(error) from error
            finally:
                call.cancel()

    # -- what refusals mean --

    def silent(self) -> UnavailableError:
        """Return the error for a peer that does nothing."""
        return UnavailableError(self.instance, f"{self._target.shown} did nothing for {self.timeout:g} s")

    def cut_off(self) -> CutError:
        """Return the error for a call that a fork has ended."""
        return CutError(
            self.instance, "the process was forked in the midst of this call, which may be made again"
        )

    def refusal_of(self, error: grpc.RpcError) -> CastoreError:
        """Return what a status means for a call that stores something."""
        found = self.error_of(error)
        if isinstance(found, CastoreError):
            return found
        return UnavailableError(self.instance, f"{self._target.shown}: {error.code().name}: {found}")

    def error_of(self, error: grpc.RpcError) -> CastoreError | AbsentError:
        """Return what a status means for a call that asks for something."""
        code = error.code()
        details = scrub(str(error.details() or ""), self._secrets)
        if code is Code.NOT_FOUND:
            return AbsentError(details)
        if code is Code.DATA_LOSS:
            return RemoteDamageError(details)
        if code is Code.FAILED_PRECONDITION:
            return UnsupportedError(f"`{self.instance}`: {details or 'the peer does not do that'}")
        if code is Code.PERMISSION_DENIED:
            return UnsupportedError(f"`{self.instance}` refuses this: {details or 'permission denied'}")
        if code is Code.UNAUTHENTICATED:
            return UnavailableError(
                self.instance, f"{details or 'it wants to know who calls'}; give it a `token`, or another one"
            )
        words = {Code.DEADLINE_EXCEEDED: f"no answer within {self.timeout:g} s"}.get(code, details)
        return UnavailableError(
            self.instance, f"{self._target.shown}: {code.name}: {words or 'no reason given'}"
        )


class CutError(UnavailableError):
    """A fork has ended a call."""


def again_if_cut(call: Callable[[], T]) -> T:
    """Return what *call* returns, which is made again whenever a fork has ended it."""
    while True:
        try:
            return call()
        except CutError:
            continue


class RemoteDamageError(AbsentError):
    """The peer says that what it has is damaged."""

    def of(self, digest: B3Digest) -> CorruptBlobError:
        """Return the error for this blob."""
        return CorruptBlobError(f"blob {digest} is corrupt at the peer: {self}", expected=digest)


def _service_config() -> str:
    names = [
        {"service": f"{package}.{service}", "method": method}
        for package in PACKAGES
        for service, method in _READING
    ]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": _RETRIED}]})
