"""The example `web`, over real connections: what it answers, and what a client leaves that goes away."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import castore
from castore import B3Digest, BlobReader, BlobService, BlobWriter
from castore.aio import AsyncBlobService
from castore.testing import FaultyService
from castore.wrapping.forwarding import ForwardingReader, ForwardingWriter
from castore.wrapping.wrapper import WrapperService

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
FOLDER: Final = EXAMPLES / "web"
DATA: Final = bytes(range(256)) * 4000
DIGEST: Final = B3Digest.of(DATA)
PIECE: Final = 100_000
PATH: Final = f"/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def app() -> Iterator[ModuleType]:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("castore_example_web", FOLDER / "app.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def serve(app: ModuleType) -> Callable[..., Any]:
    """Serve a service on a free port, for an `async with` block."""

    @asynccontextmanager
    async def serve(service: BlobService) -> AsyncIterator[int]:
        config = uvicorn.Config(
            app.create_app(lambda: AsyncBlobService(service)), port=0, ws="none", log_level="critical"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
            assert not serving.done()
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            await serving

    return serve


async def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[Any, bytes]:
    """Make one request, as a client in a program of its own would."""

    def request() -> tuple[Any, bytes]:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(request)


def test_a_stream_is_stored_and_comes_back(serve: Any) -> None:
    """Of unknown length, in pieces; also the empty blob."""

    async def main() -> None:
        async with serve(castore.from_url("memory:")) as port:
            pieces = (DATA[start : start + 70_000] for start in range(0, len(DATA), 70_000))
            answer, body = await ask(port, "PUT", "/blobs", pieces)
            assert (answer.status, answer.headers["location"]) == (201, PATH)
            assert body.decode() == f'{{"digest":"{DIGEST}"}}'
            answer, body = await ask(port, "GET", answer.headers["location"])
            assert (answer.status, body) == (200, DATA)
            assert answer.headers["content-length"] == str(len(DATA))
            assert answer.headers["etag"] == f'"{DIGEST}"'
            answer, _ = await ask(port, "PUT", "/blobs", b"")
            assert answer.headers["location"] == f"/blobs/{B3Digest.of(b'')}"
            answer, body = await ask(port, "GET", answer.headers["location"])
            assert (answer.status, body) == (200, b"")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=500000-", (500_000, len(DATA))),
        ("bytes=1000-300999", (1000, 301_000)),
        ("bytes=-12", (len(DATA) - 12, len(DATA))),
        ("bytes=-9999999", None),
        ("bytes=5-9999999", (5, len(DATA))),
        ("bytes=0-", None),
        ("bytes=-", None),
        ("bytes=5-4", "outside"),
        ("bytes=1024000-", "outside"),
        ("bytes=-0", "outside"),
        ("bytes=0-1,5-6", None),
        ("lines=1-2", None),
    ],
)
def test_ranges(serve: Any, header: str, expected: Any) -> None:
    """One range is sent alone; what is not understood is passed over, and what is outside refused."""

    async def main() -> None:
        service = castore.from_url("memory:")
        service.write(DATA)
        async with serve(service) as port:
            answer, body = await ask(port, "GET", PATH, Range=header)
            if expected == "outside":
                assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")
            elif expected is None:
                assert (answer.status, body == DATA) == (200, True)
            else:
                start, stop = expected
                assert (answer.status, body == DATA[start:stop]) == (206, True)
                assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"

    asyncio.run(main())


def test_what_is_asked_without_a_body(serve: Any) -> None:
    """`HEAD`, and a client that has the blob."""

    async def main() -> None:
        service = Held(castore.from_url("memory:"))
        service.inner.write(DATA)
        async with serve(service) as port:
            answer, body = await ask(port, "HEAD", PATH)
            assert (answer.status, answer.headers["content-length"], body) == (200, str(len(DATA)), b"")
            assert answer.headers["accept-ranges"] == "bytes"
            answer, body = await ask(port, "GET", PATH, **{"If-None-Match": f'"{DIGEST}"'})
            assert (answer.status, body) == (304, b"")
        assert service.reads == 0
        assert service.open_readers == 0

    asyncio.run(main())


def test_what_is_wrong_has_its_own_answers(serve: Any) -> None:
    """Absent, no digest at all, and unavailable are three things."""

    async def main() -> None:
        failing = FaultyService(castore.from_url("memory:"), instance="far")
        async with serve(failing) as port:
            for method in ("GET", "HEAD"):
                answer, _ = await ask(port, method, PATH)
                assert answer.status == 404
            answer, body = await ask(port, "GET", "/blobs/sha256-abc")
            assert (answer.status, b"castore names blobs by BLAKE3" in body) == (400, True)
            failing.failing = {"open_read", "open_write"}
            for method, path in (("GET", PATH), ("PUT", "/blobs")):
                answer, body = await ask(port, method, path, b"x" if method == "PUT" else None)
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert b"`far` is unavailable" in body

    asyncio.run(main())


def test_a_blob_that_breaks_off_is_seen_to(serve: Any) -> None:
    """The answer has begun: the connection ends before the length that was announced."""

    async def main() -> None:
        service = castore.from_url("memory:")
        service.write(DATA)
        failing = FaultyService(service, {"reader.read"}, instance="far")
        async with serve(failing) as port:
            with pytest.raises((IncompleteRead, RemoteDisconnected)):
                await ask(port, "GET", PATH)

    asyncio.run(main())


# -- clients that go away --


class Held(WrapperService):
    """Counts what is open, and can hold one read until it is let go."""

    def __init__(self, inner: BlobService) -> None:
        super().__init__(inner)
        self.written = threading.Event()
        self.aborted = threading.Event()
        self.holding = False
        self.held = threading.Event()
        self.let_go = threading.Event()
        self.closed = threading.Event()
        self.reads = 0
        self.open_readers = 0

    def around(self, operation: str, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        if operation == "reader.read":
            self.reads += 1
            if self.holding:
                self.held.set()
                assert self.let_go.wait(30)
        result = call(*args, **kwargs)
        if operation == "writer.write":
            self.written.set()
        return result

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        self.open_readers += 1
        return HeldReader(reader, self)

    def wrap_writer(self, writer: BlobWriter) -> BlobWriter:
        return HeldWriter(writer, self)


class HeldReader(ForwardingReader):
    def __init__(self, reader: BlobReader, service: Held) -> None:
        super().__init__(reader, service.around)
        self._service = service

    def _next_piece(self, position: int) -> memoryview:
        return super()._next_piece(position)[:PIECE]

    def close(self) -> None:
        if not self.closed:
            self._service.open_readers -= 1
            self._service.closed.set()
        super().close()


class HeldWriter(ForwardingWriter):
    def __init__(self, writer: BlobWriter, service: Held) -> None:
        super().__init__(writer, service.around)
        self._service = service

    def _discard(self) -> None:
        super()._discard()
        self._service.aborted.set()


def test_an_upload_that_breaks_off_is_aborted(serve: Any) -> None:
    """In the middle of a blob: the writer of the service is aborted, and no blob is visible."""

    async def main() -> None:
        service = Held(castore.from_url("memory:"))
        async with serve(service) as port:
            _, client = await asyncio.open_connection("127.0.0.1", port)
            client.write(
                b"PUT /blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + bytes(3 << 20)
            )
            await client.drain()
            assert await asyncio.to_thread(service.written.wait, 30)
            assert not service.aborted.is_set()
            client.transport.abort()
            assert await asyncio.to_thread(service.aborted.wait, 30)
            answer, _ = await ask(port, "GET", PATH)
            assert answer.status == 404
        assert list(service.inner.list_blobs()) == []

    asyncio.run(main())


def test_a_download_that_breaks_off_is_closed(serve: Any) -> None:
    """The reader is closed, and little more is read than what was sent before that was noticed."""

    async def main() -> None:
        service = Held(castore.from_url("memory:"))
        digest = service.inner.write(bytes(64 << 20))
        service.holding = True
        async with serve(service) as port:
            _, client = await asyncio.open_connection("127.0.0.1", port)
            client.write(f"GET /blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert await asyncio.to_thread(service.held.wait, 30)
            client.transport.abort()
            service.let_go.set()
            assert await asyncio.to_thread(service.closed.wait, 30)
            assert service.open_readers == 0
            assert service.reads < (64 << 20) // PIECE

    asyncio.run(main())


def test_what_the_example_needs_is_what_is_tested() -> None:
    """Its requirements are among those of the tests."""
    project = (FOLDER.parents[1] / "pyproject.toml").read_text()

    for requirement in (FOLDER / "requirements.txt").read_text().split():
        assert f'"{requirement}"' in project
