"""What a request costs: how often stores are asked, on which threads, and for a client that is gone."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from served_over_http import LARGE, TEXT, Web, serving

import castore
from castore.contract.refs import NamedRoot
from castore.serving.http import blob_answers, bodies, tree_answers
from castore.trees import import_tree

HEX = blake3(TEXT).hexdigest()


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait for something; return whether it has come about."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def stalled_reader(port: int, path: str = "/tree/www/large.txt") -> socket.socket:
    """Return a connection that has asked for something large, and takes nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def test_a_reader_that_stalls_is_given_up(large_web: Web) -> None:
    """Its connection is closed, though what was sent was never taken; others are served meanwhile."""
    with serving(large_web.stores, idle=0.5) as (port, reports):
        other = Web(large_web.stores, port, large_web.root, large_web.folder, reports)
        before = descriptors()
        stalled = [stalled_reader(port) for _ in range(20)]
        try:
            assert until(lambda: descriptors() >= before + 40)
            assert other.ask("/tree/www/ten.txt").body == TEXT
            assert until(lambda: descriptors() <= before + 20)
        finally:
            for connection in stalled:
                connection.close()


def test_a_reader_that_is_slow_is_not_given_up(large_web: Web) -> None:
    """As long as it takes something, which is tried for longer than others may take nothing."""
    with serving(large_web.stores, idle=1.5) as (port, _):  # noqa: SIM117
        with stalled_reader(port) as slow:
            size = 0
            ends = time.monotonic() + 3.5
            while time.monotonic() < ends:
                size += len(slow.recv(30_000))
                time.sleep(0.05)
            while size < len(LARGE) * 8 and (piece := slow.recv(1 << 20)):
                size += len(piece)
            assert size >= len(LARGE) * 8


def test_what_nobody_takes_any_more_is_not_read(large_web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has gone in the middle ends the reading."""
    given: list[int] = []

    def counted(*arguments: Any) -> Iterator[bytes]:
        for piece in bodies.pieces(*arguments):
            given.append(len(piece))
            yield piece

    monkeypatch.setattr(blob_answers, "pieces", counted)
    with serving(large_web.stores) as (port, _):
        with stalled_reader(port) as gone:
            assert gone.recv(100).startswith(b"HTTP/1.1 200")
        size = -1
        while size != sum(given):
            size = sum(given)
            time.sleep(0.3)
    assert size < len(LARGE) * 8


LARGEST = castore.B3Digest.of(LARGE * 8)


@pytest.fixture(scope="module")
def large_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A tree with a file that no buffer on the way has room for."""
    base = tmp_path_factory.mktemp("large")
    (base / "folder/sub").mkdir(parents=True)
    (base / "folder/ten.txt").write_bytes(TEXT)
    (base / "folder/sub/ten.txt").write_bytes(TEXT)
    (base / "folder/large.txt").write_bytes(LARGE * 8)
    store = {"type": "objectstore", "object_store_url": "file:./store"}
    table = {"blobservices": {"root": store}, "refservices": {"root": {"type": "memory"}}}
    with castore.Composition.from_mapping(table, base=base) as stores:
        node = import_tree(base / "folder", stores.blobs(), stores.directories()).node
        assert node is not None
        stores.refs().set("www", NamedRoot(node))
        stores.refs().set("team/site", NamedRoot(node))
        with serving(stores) as (port, reports):
            yield Web(stores, port, str(node.digest), base / "folder", reports)  # type: ignore[union-attr]


@pytest.fixture
def asked(large_web: Web, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the refs are asked, for how many names, and how often blobs are opened."""
    counts: Counter[str] = Counter()
    refs, blobs = type(large_web.stores.refs()), type(large_web.stores.blobs())
    get_many, open_read, chunks = refs.get_many, blobs.open_read, blobs.chunks

    def counted_refs(self: Any, names: Any) -> Any:
        names = list(names)
        counts["calls"] += 1
        counts["names"] += len(names)
        return get_many(self, names)

    def counted_open(self: Any, digest: Any) -> Any:
        counts["open"] += 1
        return open_read(self, digest)

    def counted_chunks(self: Any, digest: Any) -> Any:
        counts["chunks"] += 1
        return chunks(self, digest)

    monkeypatch.setattr(refs, "get_many", counted_refs)
    monkeypatch.setattr(blobs, "open_read", counted_open)
    monkeypatch.setattr(blobs, "chunks", counted_chunks)
    return counts


@pytest.mark.parametrize(
    ("path", "calls", "names"),
    [
        ("/tree/www/", 1, 1),
        ("/tree/www/sub/ten.txt", 1, 1),
        ("/tree/www/ten.txt?view", 1, 1),
        ("/api/tree/www/sub/", 1, 1),
        ("/tree/team/site/sub/ten.txt", 2, 4),
        ("/tree/nobody/" + "x/" * 200, 2, 16),
    ],
)
def test_a_ref_is_read_once(large_web: Web, asked: Counter[str], path: str, calls: int, names: int) -> None:
    """However many parts the path has: a name that a URL begins with has 16 at most."""
    large_web.ask(path)
    assert (asked["calls"], asked["names"]) == (calls, names)


def test_a_blob_is_opened_once(large_web: Web, asked: Counter[str]) -> None:
    for path, status in ((f"/blob/{HEX}", 200), (f"/blob/{LARGEST}", 200), (f"/blob/{'0' * 64}", 404)):
        asked.clear()
        assert large_web.ask(path).status == status
        assert asked["open"] == 1


@pytest.mark.parametrize("tag", [f'"{HEX}"', f'W/"{HEX}"', f'"other", "{HEX}-zstd"'])
def test_what_the_client_has_is_not_looked_for(large_web: Web, asked: Counter[str], tag: str) -> None:
    """A blob does not change: that it has it, in a form that it takes, is all there is to know."""
    headers = {"If-None-Match": tag, "Accept-Encoding": "zstd"}
    for path in (f"/blob/{HEX}", f"/tree/{large_web.root}/ten.txt"):
        large_web.ask(path)
        asked.clear()
        answer = large_web.ask(path, headers)
        assert answer.status == 304
        assert answer.headers["etag"] in tag
        assert "immutable" in answer.headers["cache-control"]
        assert not asked
    assert large_web.ask(f"/blob/{HEX}", {"If-None-Match": f'"{HEX}-zstd"'}).status == 200
    assert large_web.ask(f"/blob/{'0' * 64}", {"If-None-Match": "*"}).status == 404


def test_nothing_long_is_done_between_the_requests_of_others(
    large_web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages and documents are made on threads, and not at all for who has them."""
    done: list[tuple[str, str]] = []

    def note(holder: Any, name: str) -> None:
        real = getattr(holder, name)

        def noting(*arguments: Any, **options: Any) -> Any:
            done.append((name, threading.current_thread().name))
            return real(*arguments, **options)

        monkeypatch.setattr(holder, name, noting)

    for name in ("home", "listing", "preview"):
        note(tree_answers.pages, name)
    note(tree_answers.json, "dumps")
    paths = ("/", "/tree/www/", "/tree/www/ten.txt?view", "/api/tree/www/")
    tags = [large_web.ask(path).headers["etag"] for path in paths]
    assert [name for name, _ in done] == ["home", "listing", "preview", "dumps", "dumps"]
    assert {thread for _, thread in done} == {"castore-aio"}
    done.clear()
    for path, tag in zip(paths, tags, strict=True):
        assert large_web.ask(path, {"If-None-Match": tag}).status == 304
    # The list of refs is its own tag.
    assert [name for name, _ in done] == ["home"]
