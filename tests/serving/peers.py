"""Peers of the tests' own: servers of gRPC that answer as they are told to, rightly or not."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

Answers = Mapping[str, Callable[[Any, grpc.ServicerContext], Any]]

SENDS_MANY = {"Read", "Get"}


class _Answering(grpc.GenericRpcHandler):
    def __init__(self, package: str, answers: Answers) -> None:
        self._package = package
        self._answers = answers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        package, _, method = details.method.strip("/").rpartition("/")
        service = package.rpartition(".")
        answer = self._answers.get(f"{service[2]}/{method}")
        if service[0] != self._package or answer is None:
            return None
        if method == "Put":
            return grpc.stream_unary_rpc_method_handler(answer)
        if method in SENDS_MANY:
            return grpc.unary_stream_rpc_method_handler(answer)
        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def peer(path: Path, answers: Answers, package: str = "snix.castore.v1") -> Iterator[str]:
    """Serve, and give the URL. What is not answered is unimplemented."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((_Answering(package, answers),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield f"grpc+unix:{path}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def something_is_stored(store: Path) -> Iterator[None]:
    """Wait, at the end, for a file more in the folder of a server's store: it is at a call that was sent."""

    def files() -> int:
        return sum(len(each) for *_, each in os.walk(store))

    before, deadline = files(), time.monotonic() + 60
    yield
    while files() <= before:
        assert time.monotonic() < deadline, f"nothing is stored in {store}"
        time.sleep(0.01)


def refuse(code: grpc.StatusCode, details: str = "") -> Callable[[Any, grpc.ServicerContext], Any]:
    """An answer that is none."""

    def answer(_: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, details)

    return answer


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def chunk_entry(digest: bytes, size: int) -> bytes:
    """An entry of the answer to Stat."""
    return field(2, field(1, digest) + b"\x10" + varint(size))
