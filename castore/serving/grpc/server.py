"""A server of gRPC over services of blobs and directories.

Each call has a thread for as long as it runs; short ones have threads of their own, so that no stream keeps
them waiting. A client that takes nothing is cut off after a while, and sooner if others wait for its thread.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import grpc

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import CompositionError, UnsupportedError
from castore.format.wire import PACKAGES, method_path
from castore.serving.access import Tokens
from castore.serving.activation import Relay
from castore.serving.grpc.blobs import BlobCalls
from castore.serving.grpc.calls import Code, Door, Recorder
from castore.serving.grpc.directories import DirectoryCalls
from castore.serving.grpc.limits import Limits
from castore.serving.grpc.services import Calls, Method
from castore.serving.grpc.tls import Certificates
from castore.serving.listening import SOCKET_MODE, Address, SocketFile, socket_made
from castore.serving.tls import TlsFiles
from castore.threads.executors import CountingExecutor
from castore.threads.idle import IdleWatch

_BESIDE_MESSAGES: Final = 64 << 10
_MOST_WAITING_CALLS: Final = 1000
_SECONDS_TO_SETTLE: Final = 2.0


class GrpcServer:
    """Serves blobs and directories, by both names that the reference has had for these services.

    Arguments:
        blobs: Returns the service of blobs; it is asked for each call.
        directories: Returns the service of directories; `None` if there are none to be served.
        limits: The bounds.
        tokens: Returns the tokens that are taken; by default none is asked for.
        record: Is told of each call that has ended.
        tls: The certificates; without them nothing is encrypted.
        insecure: Whether other machines may connect where nothing is encrypted.
        read_only: Whether nobody has the right to write.
        around: Returns a context in which a call is made, from before it gets its service to its end.
    """

    def __init__(
        self,
        blobs: Callable[[], BlobService],
        directories: Callable[[], DirectoryService] | None = None,
        *,
        limits: Limits | None = None,
        tokens: Callable[[], Tokens] = Tokens,
        record: Recorder = lambda _: None,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        read_only: bool = False,
        around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self.limits = limits or Limits()
        self._insecure = insecure
        self._read_only = read_only
        self._certificates = None if tls is None else Certificates(tls)
        self._streams = CountingExecutor(self.limits.streams, "stream")
        self._calls = CountingExecutor(self.limits.calls, "call")
        self._sockets: list[SocketFile] = []
        self._relays: list[Relay] = []
        self._door = Door(self.limits, tokens, record, IdleWatch(self._idle_seconds), around)
        services: list[Calls] = [BlobCalls(blobs)]
        if directories is not None:
            services.append(DirectoryCalls(directories))
        self.names = [f"{package}.{service.name}" for package in PACKAGES for service in services]
        # A handler finds its threads by an attribute of its function.
        self._handlers = _Handlers(self._handlers_of(services), self._streams, self._calls, self._door)
        most = max(self.limits.most_message, 4 << 20) * 2
        self.server = grpc.server(
            self._calls,
            handlers=(self._handlers,),
            options=[
                ("grpc.max_receive_message_length", most + _BESIDE_MESSAGES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ],
        )

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not (self._streams.under_way or self._calls.under_way)

    def _idle_seconds(self) -> float:
        limits = self.limits
        return (
            min(limits.crowded_seconds, limits.idle_seconds)
            if self._streams.is_crowded
            else limits.idle_seconds
        )

    def _handlers_of(self, services: Sequence[Calls]) -> dict[str, grpc.RpcMethodHandler]:
        return {
            path: self._handler(path, method)
            for package in PACKAGES
            for service in services
            for method in service.methods()
            for path in [method_path(package, service.name, method.name)]
        }

    def _handler(self, path: str, method: Method) -> grpc.RpcMethodHandler:
        make = self._door.stream if method.sends_many else self._door.unary
        refused = self._read_only and method.right == "write"
        behaviour: Any = make(path, method.right, _refuse_to_write if refused else method.work)
        behaviour.experimental_thread_pool = self._streams if method.streams else self._calls
        if method.takes_many:
            return grpc.stream_unary_rpc_method_handler(behaviour, method.parse)
        if method.sends_many:
            return grpc.unary_stream_rpc_method_handler(behaviour, method.parse)
        return grpc.unary_unary_rpc_method_handler(behaviour, method.parse)

    def listen(self, address: Address, *, mode: int = SOCKET_MODE) -> str:
        """Listen at a place as well; return it, with the port that was chosen for port 0.

        *mode* is that of a unix socket. Raises `CompositionError` if that cannot be.
        """
        address.require_safe(encrypted=self._certificates is not None, insecure=self._insecure)
        with socket_made(address.path, mode) if address.path else contextlib.nullcontext():
            try:
                if self._certificates is None or address.path is not None:
                    port = self.server.add_insecure_port(address.target)
                else:
                    port = self.server.add_secure_port(address.target, self._certificates.credentials())
            except RuntimeError as error:
                raise CompositionError(f"cannot listen at {address.target}: {_reason(error)}") from error
        if address.path is not None:
            self._sockets.append(SocketFile.of(address.path))
        return address.with_port(port)

    def take(self, listening: socket.socket) -> str:
        """Listen as well at a socket that somebody else has made, and keeps; return where that is.

        Raises `CompositionError` if that cannot be, or is not safe.
        """
        address = Address.of_socket(listening)
        address.require_safe(encrypted=self._certificates is not None, insecure=self._insecure)
        relay = Relay(listening)
        self._relays.append(relay)
        if self._certificates is None or address.path is not None:
            self.server.add_insecure_port(f"unix:{relay.path}")
        else:
            self.server.add_secure_port(f"unix:{relay.path}", self._certificates.credentials())
        return address.target

    def start(self) -> None:
        """Answer calls from now on."""
        self.server.start()
        for relay in self._relays:
            relay.start()

    def stop(self, grace: float | None) -> bool:
        """Take no more calls, and let those that run end within *grace* seconds; return whether they have."""
        for relay in self._relays:
            relay.take_no_more()
        ended = self.server.stop(grace)
        ended.wait(None if grace is None else grace + 5)
        # A call has ended for its client before its thread is done with it.
        settled = time.monotonic() + _SECONDS_TO_SETTLE
        while not self.idle and time.monotonic() < settled:
            time.sleep(0.005)
        done = self.idle
        for executor in (self._streams, self._calls):
            executor.shutdown(wait=False, cancel_futures=True)
        for made in self._sockets:
            made.remove()  # gRPC leaves it.
        for relay in self._relays:
            relay.close()
        self._sockets.clear()
        return done

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(10.0)


def _reason(error: RuntimeError) -> str:
    # gRPC tells no more than that it did not work.
    return str(error).partition(";")[0].strip() or "the address cannot be had"


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Finds the handler of a call; refuses it if too many wait already."""

    def __init__(
        self,
        handlers: dict[str, grpc.RpcMethodHandler],
        streams: CountingExecutor,
        calls: CountingExecutor,
        door: Door,
    ) -> None:
        self._handlers = handlers
        self._streams = streams
        self._calls = calls
        self._most_streams = door.limits.streams + door.limits.waiting
        self._refusal = grpc.unary_unary_rpc_method_handler(_refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler, `None` if there is none."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            return None
        streams = handler.request_streaming or handler.response_streaming
        full = (
            self._streams.under_way >= self._most_streams
            if streams
            else self._calls.under_way >= _MOST_WAITING_CALLS
        )
        return self._refusal if full else handler


def _refuse_to_write(*_: object) -> Any:
    raise UnsupportedError("this server stores nothing")


def _refuse(_: object, context: grpc.ServicerContext) -> None:
    context.abort(Code.RESOURCE_EXHAUSTED, "too many calls wait already; try again later")
