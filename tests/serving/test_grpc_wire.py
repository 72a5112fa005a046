"""Calls that were made to the reference, and what it has answered: castore answers the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from castore import B3Digest
from castore.format.proto.castore_pb2 import (
    BlobChunk,
    Directory,
    DirectoryEntry,
    FileEntry,
    GetDirectoryRequest,
    PutBlobResponse,
    PutDirectoryResponse,
    ReadBlobRequest,
    StatBlobRequest,
    StatBlobResponse,
    SymlinkEntry,
)
from castore.format.wire import PACKAGES

RECORDED = json.loads((Path(__file__).parents[1] / "testdata/wire/snix-2025-12.json").read_text())

HELLO = b"Hello World"
BIG = random.Random(9).randbytes(3_000_000)
A = bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
B = Directory(directories=[DirectoryEntry(name=b"a", digest=A)])
B_DIGEST = B3Digest.of(B.SerializeToString(deterministic=True))

OURS_DIFFER = {"health snix.castore.v1.BlobService", "reflection", "tvix package"}
"""castore tells of each service whether it is healthy, and has both names; other tests say how."""


def blob_calls(channel: grpc.Channel, package: str) -> dict[str, Callable[[], Any]]:
    service = f"/{package}.BlobService"
    put_many = channel.stream_unary(f"{service}/Put", BlobChunk.SerializeToString, PutBlobResponse.FromString)
    read_many = channel.unary_stream(
        f"{service}/Read", ReadBlobRequest.SerializeToString, BlobChunk.FromString
    )
    ask = channel.unary_unary(
        f"{service}/Stat", StatBlobRequest.SerializeToString, StatBlobResponse.FromString
    )

    def put(*pieces: bytes) -> str:
        return put_many(iter([BlobChunk(data=piece) for piece in pieces])).digest.hex()

    def read(digest: bytes) -> str:
        return B3Digest.of(b"".join(chunk.data for chunk in read_many(ReadBlobRequest(digest=digest)))).hex()

    def stat(digest: bytes, **flags: bool) -> Any:
        answer = ask(StatBlobRequest(digest=digest, **flags))
        chunks = [[chunk.digest.hex(), chunk.size] for chunk in answer.chunks]
        return {"chunks": chunks[:3], "n": len(chunks), "bao": answer.bao.hex()}

    hello, big, empty = (B3Digest.of(data) for data in (HELLO, BIG, b""))
    absent = B3Digest.of(b"absent")
    chunk = bytes.fromhex(RECORDED["stat big"]["chunks"][0][0])
    return {
        "put empty stream": put,
        "put one empty message": lambda: put(b""),
        "put hello": lambda: put(HELLO[:6], HELLO[6:]),
        "put big in 64k": lambda: put(*(BIG[at : at + 65536] for at in range(0, len(BIG), 65536))),
        "put one message 3MB": lambda: put(BIG),
        "put 5MiB message": lambda: put(bytes(5 << 20)),
        "read hello": lambda: read(hello),
        "read empty": lambda: read(empty),
        "read big": lambda: read(big),
        "read absent": lambda: read(absent),
        "read short digest": lambda: read(b"short"),
        "read no digest": lambda: read(b""),
        "read a chunk of big": lambda: read(chunk),
        "stat hello": lambda: stat(hello),
        "stat hello send_chunks": lambda: stat(hello, send_chunks=True),
        "stat big": lambda: stat(big),
        "stat big chunks": lambda: stat(big, send_chunks=True),
        "stat big bao": lambda: stat(big, send_bao=True),
        "stat absent": lambda: stat(absent),
        "stat empty": lambda: stat(empty),
        "stat 31": lambda: stat(bytes(31)),
        "stat a chunk of big": lambda: stat(chunk),
    }


def directory_calls(channel: grpc.Channel, package: str) -> dict[str, Callable[[], Any]]:
    service = f"/{package}.DirectoryService"
    put_many = channel.stream_unary(
        f"{service}/Put", Directory.SerializeToString, PutDirectoryResponse.FromString
    )
    get_many = channel.unary_stream(
        f"{service}/Get", GetDirectoryRequest.SerializeToString, lambda message: message.hex()
    )

    def put(*directories: Directory) -> str:
        return put_many(iter(directories)).root_digest.hex()

    def get(digest: bytes | None, *, recursive: bool = False) -> list[str]:
        request = GetDirectoryRequest(recursive=recursive)
        if digest is not None:
            request.digest = digest
        return list(get_many(request))

    def file(name: bytes, digest: bytes = A) -> FileEntry:
        return FileEntry(name=name, digest=digest)

    empty = Directory()
    absent = B3Digest.of(b"no such directory")
    return {
        "dir put none": put,
        "dir put A": lambda: put(empty),
        "dir put B alone (unknown child)": lambda: put(B),
        "dir put A,B": lambda: put(empty, B),
        "dir put A,A,B": lambda: put(empty, empty, B),
        "dir put B,A (wrong order)": lambda: put(B, empty),
        "dir put unsorted": lambda: put(Directory(files=[file(b"b"), file(b"a")])),
        "dir put dup": lambda: put(Directory(files=[file(b"a"), file(b"a")])),
        "dir put bad name": lambda: put(Directory(files=[file(b"a/b")])),
        "dir put short digest": lambda: put(Directory(files=[file(b"a", b"x")])),
        "dir put dot": lambda: put(Directory(files=[file(b"..")])),
        "dir put empty target": lambda: put(Directory(symlinks=[SymlinkEntry(name=b"a")])),
        "dir put wrong size": lambda: put(
            empty, Directory(directories=[DirectoryEntry(name=b"foo", digest=A, size=42)])
        ),
        "dir put unreferenced": lambda: put(empty, B, Directory(files=[file(b"x")])),
        "dir get A": lambda: get(A),
        "dir get B rec": lambda: get(B_DIGEST, recursive=True),
        "dir get B": lambda: get(B_DIGEST),
        "dir get absent": lambda: get(absent),
        "dir get absent rec": lambda: get(absent, recursive=True),
        "dir get short": lambda: get(b"short"),
        "dir get unset": lambda: get(None),
    }


def expected(name: str) -> Any:
    """What was recorded, but for the texts of errors and how many messages there were."""
    found = RECORDED[name]
    if isinstance(found, dict):
        return found.get("code") or found.get("digest") or found
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_castore_answers_as_the_reference_did(serving: Any, package: str) -> None:
    """Each call by both names of the package: the same values, or the same code."""
    store = {"type": "objectstore", "object_store_url": "memory:"}
    server = serving({"root": store}, {"root": store})
    with server.channel() as channel:
        calls = blob_calls(channel, package) | directory_calls(channel, package)
        wrong = {}
        for name, call in calls.items():
            try:
                answer = call()
            except grpc.RpcError as error:
                answer = error.code().name
            if answer != expected(name):
                wrong[name] = (answer, expected(name))
    assert wrong == {}
    told = {name for name in RECORDED if not name.startswith("health")}
    assert told - calls.keys() == OURS_DIFFER - {"health snix.castore.v1.BlobService"}
