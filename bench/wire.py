"""How fast blobs go over gRPC, as ratios: to a bare server, to a local store, to a raw stream.

The bare server unpacks and checks the same frames of the same store, in two threads; that for small blobs
answers from a dictionary. Each figure is the median of `--runs` ratios that were taken side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from blake3 import blake3
from corpora import source_text

import castore
from castore import B3Digest
from castore.format import blob_index, frames
from castore.format.wire import chunk_data, chunk_message, read_request

READ, PUT = "/snix.castore.v1.BlobService/Read", "/snix.castore.v1.BlobService/Put"
SMALL = 5000
AT_ONCE = 16


# -- bare servers --


def bare_reading(folder: Path) -> Callable[[bytes], Iterator[bytes]]:
    """Unpack and check the chunks of a blob, four ahead, in two threads."""
    pool = ThreadPoolExecutor(2)

    def path(kind: str, digest: B3Digest) -> Path:
        return folder / kind / "b3" / digest.hex()[:4] / digest.hex()

    def chunk(digest: B3Digest) -> bytes:
        data = frames.decode_chunk(path("chunks", digest).read_bytes(), digest, limit=16 << 20)
        return chunk_message(data)

    def read(request: bytes) -> Iterator[bytes]:
        blob = B3Digest(request[2:34])
        chunks = [meta.digest for meta in blob_index.decode(path("blobs", blob).read_bytes(), blob)]
        ahead = [pool.submit(chunk, digest) for digest in chunks[:4]]
        for digest in chunks[4:]:
            ahead.append(pool.submit(chunk, digest))
            yield ahead.pop(0).result()
        for task in ahead:
            yield task.result()

    return read


def raw_reading(size: int) -> Callable[[bytes], Iterator[bytes]]:
    message = chunk_message(bytes(range(256)) * 1024)

    def read(_: bytes) -> Iterator[bytes]:
        return iter([message] * (size >> 18))

    return read


@contextlib.contextmanager
def bare_server(what: str, folder: Path, size: int) -> Iterator[str]:
    """A bare server, in a process of its own."""
    with serving([sys.executable, __file__, "--serve", what, "--folder", folder, "--size", size]) as place:
        yield place


def serve(what: str, folder: Path, size: int) -> None:
    kept: dict[bytes, bytes] = {}
    reading: Any = {"frames": lambda: bare_reading(folder), "raw": lambda: raw_reading(size)}.get(
        what, lambda: None
    )()

    def read(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        if reading is not None:
            yield from reading(request)
        else:
            yield chunk_message(kept[request[2:34]])

    def put(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        data = b"".join(map(chunk_data, requests))
        digest = blake3(data).digest()
        kept[digest] = data
        return chunk_message(digest)

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            if details.method == READ:
                return grpc.unary_stream_rpc_method_handler(read)
            return grpc.stream_unary_rpc_method_handler(put)

    server = grpc.server(ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"listening": [f"127.0.0.1:{port}"]}), flush=True)
    server.wait_for_termination()


@contextlib.contextmanager
def serving(command: list[object]) -> Iterator[str]:
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        place: str = json.loads(process.stdout.readline())["listening"][0]
        yield place
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def castore_server(folder: Path, kind: str) -> Iterator[str]:
    table = f'[blobservices.root]\ntype = "{kind}"\n'
    table += f'object_store_url = "file:{folder}"\ndurability = "process"\n' if kind == "objectstore" else ""
    (folder / "composition.toml").write_text(table)
    command = ["-m", "castore", "--json", "--composition", folder / "composition.toml", "serve"]
    with serving([sys.executable, *command, "--listen", "127.0.0.1:0"]) as place:
        yield place


# -- the works --


def processor_seconds() -> float:
    """Return what this process and its servers have had of the processors, on Linux."""
    found = 0.0
    for pid in [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


clocks: list[Callable[[], float]] = [time.perf_counter]


def seconds_of(work: Callable[[], object]) -> float:
    began = clocks[-1]()
    work()
    return clocks[-1]() - began


def read_stream(place: str, digest: B3Digest) -> None:
    """Take the stream of a blob, and hash nothing."""
    with grpc.insecure_channel(place) as channel:
        for message in channel.unary_stream(READ)(read_request(digest)):
            chunk_data(message)


def small_ones(place: str, blobs: list[bytes]) -> None:
    """Put and get small blobs, some at once."""
    with grpc.insecure_channel(place) as channel, ThreadPoolExecutor(AT_ONCE) as pool:
        put, read = channel.unary_unary(PUT), channel.unary_stream(READ)

        def work(data: bytes) -> None:
            digest = bytes(chunk_data(put(chunk_message(data))))
            assert sum(len(chunk_data(message)) for message in read(read_request(digest))) == len(data)

        list(pool.map(work, blobs))


def get(place: str, digest: B3Digest) -> None:
    with castore.from_url(f"grpc+http://{place}") as blobs, blobs.open(digest) as reader:
        while reader.read_view(1 << 20):
            pass


def put_whole(url: str, data: bytes) -> None:
    with castore.from_url(url) as blobs:
        blobs.write(data)


def text(size: int, seed: int) -> bytes:
    """Return source text that no other seed has."""
    found = bytearray()
    for data in source_text(seed):
        found += data
        if len(found) >= size:
            return bytes(found[:size])
    raise AssertionError("it goes on for ever")


Ratios = dict[str, list[float]]


def measure_large(folder: Path, digest: B3Digest, fresh: bytes, found: Ratios) -> None:
    """Read a blob that is in a folder, and write another one."""
    size = len(fresh)
    with (
        castore_server(folder, "objectstore") as ours,
        bare_server("frames", folder, size) as bare,
        bare_server("raw", folder, size) as raw,
    ):
        stream = seconds_of(lambda: read_stream(ours, digest))
        theirs = seconds_of(lambda: read_stream(bare, digest))
        found.setdefault("stream of a blob, to the bare server", []).append(theirs / stream)
        got = seconds_of(lambda: get(ours, digest))
        found.setdefault("get, to the stream of the bare server", []).append(theirs / got)
        plain = seconds_of(lambda: read_stream(raw, digest))
        found.setdefault("get, to a raw stream", []).append(plain / got)
        there = tempfile.mkdtemp(dir=folder)
        alone = seconds_of(lambda: put_whole(f"objectstore+file:{there}?durability=process", fresh))
        over = seconds_of(lambda: put_whole(f"grpc+http://{ours}", fresh))
        found.setdefault("put, to a local put", []).append(alone / over)


def measure_small(folder: Path, blobs: list[bytes], found: Ratios) -> None:
    """Put and get small blobs, with the same client for both servers."""
    with castore_server(folder, "memory") as ours, bare_server("dict", folder, 0) as bare:
        one = seconds_of(lambda: small_ones(ours, blobs))
        other = seconds_of(lambda: small_ones(bare, blobs))
    found.setdefault("small blobs, to a dictionary", []).append(other / one)


def measure(size: int, runs: int) -> None:
    data = text(size, 1)
    small = [data[at * 307 : at * 307 + 1024 + at % 3072] for at in range(SMALL)]
    found: Ratios = {}
    for run in range(runs):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            with castore.from_url(f"objectstore+file:{folder}?durability=process") as blobs:
                digest = blobs.write(data)
            measure_large(folder, digest, text(size, run + 2), found)
            measure_small(folder, small, found)
    for name, ratios in found.items():
        print(f"{name:42} {statistics.median(ratios):.2f}  {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256 << 20, help="of the blob, in bytes")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processor", action="store_true", help="time of processors, and not of the clock")
    parser.add_argument("--serve", choices=["frames", "raw", "dict"])
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    if arguments.processor:
        clocks.append(processor_seconds)
    if arguments.serve:
        serve(arguments.serve, arguments.folder, arguments.size)
    else:
        measure(arguments.size, arguments.runs)
