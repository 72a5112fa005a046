"""Stores that somebody made to use up memory: each is an error of its type, and a few MiB.

What is too large is so by far, and the bound is near to what a program takes that reads one small blob.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest

import castore

HERE = Path(__file__).parent

SPARSE, ENDLESS, LONG, ZEROS, SKIPPED = ("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32, "ee" * 32)

WRAPPED = """
[blobservices.bounded]
type = "lru"
inner = "&root"
max_bytes = "10 GiB"

[blobservices.cached]
type = "cache"
near = "memory:"
far = "&root"

[blobservices.first]
type = "fallback"
services = ["&root", "memory:"]

[blobservices.both]
type = "mirror"
services = ["&root", "memory:"]

[blobservices.verified]
type = "verify"
inner = "&root"
"""

EVERYTHING = "root,cached,first,both,verified,bounded"


@attrs.frozen
class Sizes:
    """How much a hostile store has, and how many MiB a program may take that looks at it."""

    chunks: int
    row: int
    most: int


SMALL = Sizes(chunks=150_000, row=180 << 20, most=128)
LARGE = Sizes(chunks=3_000_000, row=600 << 20, most=300)


def index_of(chunks: int) -> bytes:
    """An index of so many chunks that are nowhere."""
    digests = os.urandom(32 * chunks)
    head, tail = b"\x12\x26\x0a\x20", b"\x10\xc0\x9a\x0c"
    return b"".join(head + digests[at : at + 32] + tail for at in range(0, len(digests), 32))


def put(folder: Path, kind: str, digest: str, data: bytes = b"", size: int | None = None) -> None:
    path = folder / kind / "b3" / digest[:4] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if size is not None:
        os.truncate(path, size)


def folder_in(place: Path, sizes: Sizes) -> Path:
    """A store: chunks and an index of a GiB each, an index of many chunks, and a chunk of empty frames."""
    folder = place / "store"
    put(folder, "blobs", LONG, index_of(sizes.chunks))
    put(folder, "blobs", ZEROS, size=1 << 30)
    for number in range(10):
        digest = f"{number:02x}" * 32
        put(folder, "blobs", digest)
        put(folder, "chunks", digest, size=1 << 30)
    put(folder, "blobs", SPARSE)
    put(folder, "chunks", SPARSE, size=1 << 30)
    put(folder, "chunks", SKIPPED, b"\x50\x2a\x4d\x18\0\0\0\0" * (1 << 17))
    return folder


def look(place: Path, toml: str, services: str, digests: list[str], sizes: Sizes) -> list[str]:
    """Return what the program says of each digest, by each service; it must not take more than it may."""
    (place / "composition.toml").write_text(toml)
    command = [sys.executable, HERE / "looking.py", place / "composition.toml", services, *digests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.splitlines()
    assert int(peak) >> 10 < sizes.most, done.stdout
    return said


def said_of(services: str, said: list[str], digest: str) -> list[str]:
    """What each of *services* said of a digest, without the name."""
    return [
        line.removeprefix(f"{name} {digest[:2]} ")
        for name in services.split(",")
        for line in said
        if line.startswith(f"{name} {digest[:2]} ")
    ]


def check_folder(place: Path, sizes: Sizes) -> None:
    folder = folder_in(place, sizes)
    toml = f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:{folder}"\n{WRAPPED}'
    # Last of all by the one that removes an index of chunks that are not there.
    said = look(place, toml, EVERYTHING.replace("verified,", ""), [SPARSE, ZEROS, SKIPPED, LONG], sizes)
    for line in said:
        assert "Error" not in line, line
    assert said_of("root", said, SPARSE) == ["has True chunks 0 read oversized-frame part oversized-frame"]
    assert said_of("root", said, ZEROS) == ["has True chunks bad-index read bad-index part bad-index"]
    assert said_of("root", said, SKIPPED) == ["has True chunks 0 read bad-frame part bad-frame"]
    assert said_of("root", said, LONG) == [
        f"has True chunks {sizes.chunks} read missing-chunk part missing-chunk"
    ]
    others = said_of("cached,first,both", said, LONG)
    assert len(others) == 3
    for line in others:
        assert f"chunks {sizes.chunks}" in line, line


def test_a_folder(tmp_path: Path) -> None:
    """By the store itself, and by what stands around it. It starts a program that asks five services."""
    check_folder(tmp_path, SMALL)


def test_a_folder_that_is_verified(tmp_path: Path) -> None:
    """Ten chunks of a GiB each, by four threads."""
    folder = folder_in(tmp_path, attrs.evolve(SMALL, chunks=100))
    toml = f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:{folder}"\n{WRAPPED}'
    said = look(tmp_path, toml, "verified", [SPARSE], SMALL)
    assert int(said[-1].split()[-1]) >= 12


def database_in(place: Path, sizes: Sizes) -> Path:
    """A file with the same in rows."""
    path = place / "blobs.sqlite"
    with castore.from_url(f"sqlite:{path}") as blobs:
        blobs.write(b"there")
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA synchronous = OFF")
        insert = "INSERT INTO {} VALUES (?, 0, ?)"
        chunks = insert.format("chunks (digest, modified, frame)")
        indexes = insert.format("indexes (digest, modified, chunks)")
        file.execute(indexes, (bytes.fromhex(LONG), index_of(sizes.chunks)))
        file.execute(indexes, (bytes.fromhex(SPARSE), b""))
        file.execute(chunks.replace("?)", "zeroblob(?))"), (bytes.fromhex(SPARSE), sizes.row))
        file.execute(indexes.replace("?)", "zeroblob(?))"), (bytes.fromhex(ZEROS), sizes.row))
    file.close()
    return path


def check_database(place: Path, sizes: Sizes, services: str = EVERYTHING) -> None:
    toml = f'[blobservices.root]\ntype = "sqlite"\npath = "{database_in(place, sizes)}"\n{WRAPPED}'
    said = look(place, toml, services.replace("verified,", ""), [SPARSE, ZEROS, LONG], sizes)
    assert said_of("root", said, SPARSE) == ["has True chunks 0 read oversized-frame part oversized-frame"]
    assert said_of("root", said, ZEROS) == ["has True chunks bad-index read bad-index part bad-index"]
    assert said_of("root", said, LONG) == [
        f"has True chunks {sizes.chunks} read missing-chunk part missing-chunk"
    ]


def test_a_database(tmp_path: Path) -> None:
    check_database(tmp_path, SMALL)


class EndlessHandler(BaseHTTPRequestHandler):
    """Answers everything with bytes that never end, or with those of a file of the server's folder."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        block = bytes(1 << 20) if "b3" in self.path else b'<a href="x">x</a>\n' * 50_000
        try:
            for _ in itertools.count():
                self.wfile.write(block)
        except OSError:
            self.server.closed += 1

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EndlessHandler)
    server.daemon_threads = True
    server.closed = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_never_ends(tmp_path: Path, endless: str) -> None:
    """Chunks and indexes are given up when they are longer than any; likewise the page of a folder."""
    toml = f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "{endless}"\n{WRAPPED}'
    services = "root,cached,first"
    said = look(tmp_path, toml, services, [ENDLESS], SMALL)
    assert said_of("root", said, ENDLESS) == [
        "has True chunks bad-index read oversized-frame part oversized-frame"
    ]
    with castore.from_url(f"objectstore+{endless}") as blobs:
        lister = blobs.capability(castore.contract.capabilities.BlobLister)
        assert lister is not None
        with pytest.raises(castore.UnavailableError):
            list(lister.list_blobs())


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_large_ones(tmp_path: Path) -> None:
    """An index of three million chunks, rows of 600 MiB: with 300 MiB.

    SQLite itself needs as much as a row has to give a part of it; so of a file the store alone is asked, and
    not what has the list of its chunks at the same time.
    """
    for name in ("folder", "database"):
        (tmp_path / name).mkdir()
    check_folder(tmp_path / "folder", LARGE)
    check_database(tmp_path / "database", LARGE, "root")
