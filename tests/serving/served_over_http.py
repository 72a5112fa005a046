"""A server on a socket, with a tree behind it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

import castore
from castore.contract.refs import NamedRoot
from castore.serving.access import Tokens
from castore.serving.http.app import HttpApp
from castore.serving.http.options import HttpOptions
from castore.serving.http.server import HttpServer
from castore.serving.listening import Address
from castore.trees import import_tree

TEXT = b"0123456789"
LARGE = b"".join(b"line %d of a text\n" % number for number in range(200_000))
HOSTILE = [
    b"<img src=x onerror=alert(1)>",
    b"\"'>&quot;",
    b"new\nline",
    b"%2f",
    b"\xff\xfe",
    b"?view#x",
    b"a:b",
    b"javascript:alert(1)",
]


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class Web:
    """A server that runs."""

    stores: castore.Composition
    port: int
    root: str
    folder: Path
    reports: list[str]

    def ask(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", body: Any = None
    ) -> Answer:
        return ask(self.port, path, headers, method=method, body=body)


def ask(
    port: int, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", body: Any = None
) -> Answer:
    """Return what a server of this machine answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        given = headers or {}
        connection.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def make_folder(folder: Path) -> Path:
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "ten.txt").write_bytes(TEXT)
    (folder / "empty").write_bytes(b"")
    (folder / "large.txt").write_bytes(LARGE)
    (folder / "sub/page.html").write_text("<script>alert(1)</script>")
    (folder / "sub/deep/data.bin").write_bytes(bytes(range(256)))
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("sub/deep/data.bin")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("../..")
    (folder / "loop").symlink_to("loop")
    (folder / "hostile").mkdir()
    for name in HOSTILE:
        (folder / "hostile" / name.decode("utf-8", "surrogateescape")).write_bytes(b"in " + name)
    return folder


@contextmanager
def serving(
    stores: castore.Composition, tokens: Tokens | None = None, **options: Any
) -> Iterator[tuple[int, list[str]]]:
    """Give the port of a server that runs on a thread."""
    reports: list[str] = []
    bounds = {name: options.pop(name) for name in ("connections",) if name in options}
    known = tokens or Tokens()
    app = HttpApp(stores, "root", HttpOptions(**options), tokens=lambda: known, report=reports.append)
    server = HttpServer(app, idle=app.options.idle, **bounds)
    server.listen(Address.parse("127.0.0.1:0"))
    port = int(server.urls[0].rpartition(":")[2].strip("/"))
    started = threading.Event()
    thread = threading.Thread(target=server.run, args=(started.set,))
    thread.start()
    try:
        assert started.wait(20)
        yield port, reports
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    base = tmp_path_factory.mktemp("web")
    folder = make_folder(base / "folder")
    store = {"type": "objectstore", "object_store_url": "file:./store", "avg_chunk_size": "64 KiB"}
    table = {"blobservices": {"root": store}, "refservices": {"root": {"type": "memory"}}}
    with castore.Composition.from_mapping(table, base=base) as stores:
        node = import_tree(folder, stores.blobs(), stores.directories()).node
        assert node is not None
        stores.refs().set("www", NamedRoot(node))
        stores.refs().set("team/site", NamedRoot(node))
        with serving(stores) as (port, reports):
            yield Web(stores, port, str(node.digest), folder, reports)  # type: ignore[union-attr]
