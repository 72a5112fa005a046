"""Start the server on a free port, and talk to it as any client would."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse

import uvicorn
from app import create_app

from castore import B3Digest


@contextmanager
def served() -> Iterator[int]:
    """Serve the composition in this folder; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[HTTPResponse, bytes]:
    """Make one request; show it, and what came of it."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request(method, path, body=body, headers=headers)  # type: ignore[arg-type]
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    asked = " ".join([method, path[:16], *headers.values()])
    length = answer.headers["content-length"]
    print(f"{asked:<34}{answer.status} {answer.reason}, {length} bytes")
    return answer, data


def main() -> None:
    """Store a stream, and get it back in whole and in part."""
    pieces = [f"line {number}\n".encode() for number in range(100_000)]
    whole = b"".join(pieces)
    with served() as port:
        answer, _ = ask(port, "PUT", "/blobs", iter(pieces))
        path = answer.headers["location"]
        _, data = ask(port, "GET", path)
        _, tail = ask(port, "GET", path, Range="bytes=-12")
        ask(port, "HEAD", path)
        ask(port, "GET", f"/blobs/{B3Digest.of(b'something else')}")
    if data != whole or tail != whole[-12:]:
        sys.exit("what came back is not what was stored")


if __name__ == "__main__":
    main()
