"""How fast blobs and files go over HTTP, as ratios to bare applications under the same server.

The bare application for large blobs unpacks and checks the same frames of the same store, four ahead in two
threads; that for frames sends them from memory; that for small files answers from a dictionary. Each figure
is the median of `--runs` ratios that were taken side by side; with `--cpu` of the servers' processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from corpora import source_text

import castore
from castore import B3Digest
from castore.format import blob_index, frames
from castore.trees import import_tree

SMALL, AT_ONCE = 2000, 8
PIECE = 1 << 20
_UNCHECKED = "frames, with --trust-store"


# -- bare applications, run by `python bench/web.py --serve KIND STORE` --


async def answer(send: Any, pieces: Any, size: int) -> None:
    head = [(b"content-length", b"%d" % size), (b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def bare(kind: str, folder: Path) -> Any:
    pool = ThreadPoolExecutor(2)
    kept: dict[str, bytes] = {}

    def path(what: str, digest: B3Digest) -> Path:
        return folder / what / "b3" / digest.hex()[:4] / digest.hex()

    def chunk(digest: B3Digest) -> bytes:
        return frames.decode_chunk(path("chunks", digest).read_bytes(), digest, limit=16 << 20)

    async def unpacked(chunks: list[B3Digest]) -> Any:
        loop = asyncio.get_running_loop()
        ahead = [loop.run_in_executor(pool, chunk, digest) for digest in chunks[:4]]
        for digest in chunks[4:]:
            ahead.append(loop.run_in_executor(pool, chunk, digest))
            yield await ahead.pop(0)
        for task in ahead:
            yield await task

    async def from_memory(data: bytes) -> Any:
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    async def app(scope: Any, _: Any, send: Any) -> None:
        name = scope["path"].rsplit("/", 1)[-1]
        if kind == "small":
            await answer(send, from_memory(kept[name]), len(kept[name]))
            return
        metas = blob_index.decode(path("blobs", blob := B3Digest.parse(name)).read_bytes(), blob)
        chunks = [meta.digest for meta in metas]
        if kind == "unpacked":
            await answer(send, unpacked(chunks), sum(meta.size for meta in metas))
        else:
            data = kept.setdefault(name, b"".join(path("chunks", each).read_bytes() for each in chunks))
            await answer(send, from_memory(data), len(data))

    if kind == "small":
        kept.update((file.name, file.read_bytes()) for file in folder.iterdir())
    return app


def serve_bare(kind: str, folder: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        bare(kind, folder), http="h11", loop="asyncio", lifespan="off", log_level="critical", access_log=False
    )
    asyncio.run(uvicorn.Server(config).serve([listening]))


# -- servers and clients --


class Server:
    """A process that serves, and how much of the processor it has taken."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(re.findall(r":(\d+)", ":" + line)[-1])

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def measure(self, work: Callable[[int], object], *, cpu: bool) -> float:
        before, begin = self.cpu(), time.monotonic()
        work(self.port)
        return self.cpu() - before if cpu else time.monotonic() - begin


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[Server]:
    server = Server(command, folder)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def some_text(size: int) -> bytes:
    found = bytearray()
    for file in source_text():
        found += file
        if len(found) >= size:
            break
    return bytes(found[:size])


def fetch(port: int, path: str, headers: dict[str, str], size: int | None = None) -> None:
    """Get all of something; nothing is done with it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path, headers=headers)
    response, found = connection.getresponse(), 0
    assert response.status == 200, response.status
    into = bytearray(PIECE)
    while count := response.readinto(into):
        found += count
    assert size is None or found == size
    connection.close()


def fetch_many(port: int, paths: list[str]) -> None:
    """Get small files by some connections, each of which stays open."""

    def part(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for path in paths[number::AT_ONCE]:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == 200
        connection.close()

    threads = [threading.Thread(target=part, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--size", type=int, default=256, help="of the large blob, in MiB")
    parser.add_argument("--cpu", action="store_true", help="compare the processor time of the servers")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "STORE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_bare(given.serve[0], Path(given.serve[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "composition.toml").write_text(
            '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
        )
        files = folder / "files"
        files.mkdir()
        text = some_text(given.size << 20)
        for number in range(SMALL):
            (files / f"f{number}").write_bytes(text[number * 4096 : number * 4096 + 1024 + number % 3072])
        with castore.open(folder / "composition.toml") as stores:
            blob = stores.blobs().write(text)
            root = import_tree(files, stores.blobs(), stores.directories()).node.digest  # type: ignore[union-attr]
        size = len(text)
        zstd = {"Accept-Encoding": "zstd"}
        works: dict[str, tuple[str, Callable[[int], object]]] = {
            "unpacked and checked": ("unpacked", lambda port: fetch(port, f"/blob/{blob}", {}, size)),
            "frames, checked": ("memory", lambda port: fetch(port, f"/blob/{blob}", zstd)),
            _UNCHECKED: ("memory", lambda port: fetch(port, f"/blob/{blob}", zstd)),
            "small files": (
                "small",
                lambda port: fetch_many(port, [f"/tree/{root}/f{number}" for number in range(SMALL)]),
            ),
        }
        own = [sys.executable, "-m", "castore", "--json", "http", "--listen", "127.0.0.1:0"]
        for what, (kind, work) in works.items():
            other = [
                sys.executable,
                __file__,
                "--serve",
                kind,
                str(files if kind == "small" else folder / "store"),
            ]
            trusting = ["--trust-store"] if what == _UNCHECKED else []
            with running([*own, *trusting], folder) as castores, running(other, folder) as bares:
                ratios = []
                for run in range(given.runs + 1):
                    seconds = {
                        server: server.measure(work, cpu=given.cpu)
                        for server in ((castores, bares) if run % 2 else (bares, castores))
                    }
                    if run:  # The first one warms both.
                        ratios.append(seconds[bares] / seconds[castores])
            print(
                f"{what:26} {statistics.median(ratios):.2f}  {min(ratios):.2f} to {max(ratios):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
