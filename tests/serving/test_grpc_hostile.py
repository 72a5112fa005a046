"""A peer that lies, rambles, hangs or breaks off: the client has an error of its own for each.

It comes in bounded time, holds bounded memory, and a cache in front keeps nothing of it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from peers import Answers, chunk_entry, field, peer, refuse

from castore import B3Digest, BlobService, Composition
from castore.errors import (
    BadIndexError,
    CastoreError,
    CorruptBlobError,
    CorruptDirectoryError,
    MissingChunkError,
    MissingDirectoryError,
    UnavailableError,
)
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.testing import P3M

CODE = grpc.StatusCode
GOOD = b"what was asked for"
WANTED = B3Digest.of(GOOD)
TIMEOUT = 0.5


def probed(request: bytes, context: grpc.ServicerContext) -> None:
    """Refuse the empty request by which a client finds out the package."""
    if not request:
        context.abort(CODE.INVALID_ARGUMENT, "invalid digest length")


def stats(answer: bytes) -> Callable[..., bytes]:
    def stat(request: bytes, context: grpc.ServicerContext) -> bytes:
        probed(request, context)
        return answer

    return stat


def reads(*messages: Any) -> Callable[..., Iterator[bytes]]:
    """Send messages; an exception among them breaks off, and a function is called."""

    def read(_: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for message in itertools.chain.from_iterable(map(several, messages)):
            if isinstance(message, grpc.StatusCode):
                context.abort(message, "broken off")
            yield message

    return read


def several(message: Any) -> Any:
    return message() if callable(message) else [message]


def hangs(_: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield field(1, GOOD[:4])
    while context.is_active():
        time.sleep(0.02)


def endless() -> Iterator[bytes]:
    return itertools.repeat(field(1, bytes(64 << 10)))


def nothings() -> Iterator[bytes]:
    return itertools.repeat(b"")


PARTS = [GOOD[:6], GOOD[6:]]
LIST = b"".join(chunk_entry(B3Digest.of(part), len(part)) for part in PARTS)
FOREIGN = b"".join(chunk_entry(B3Digest.of(part), len(part)) for part in (b"some", b"thing"))

BLOBS: dict[str, tuple[Answers, type[CastoreError]]] = {
    "wrong bytes": ({"Stat": stats(b""), "Read": reads(field(1, b"something else"))}, CorruptBlobError),
    "too many bytes": ({"Stat": stats(b""), "Read": reads(field(1, GOOD), field(1, b"!"))}, CorruptBlobError),
    "too few bytes": ({"Stat": stats(b""), "Read": reads(field(1, GOOD[:5]))}, CorruptBlobError),
    "an endless stream": ({"Stat": stats(b""), "Read": reads(endless)}, CorruptBlobError),
    "messages without end and without anything in them": (
        {"Stat": stats(b""), "Read": reads(nothings)},
        UnavailableError,
    ),
    "a message of 4 MiB and 1": (
        {"Stat": stats(b""), "Read": reads(field(1, bytes((4 << 20) + 1)))},
        UnavailableError,
    ),
    "a message of 33 MiB": ({"Stat": stats(b""), "Read": reads(field(1, bytes(33 << 20)))}, UnavailableError),
    "what is no message": ({"Stat": stats(b""), "Read": reads(b"\x0a\xff")}, UnavailableError),
    "a hang": ({"Stat": stats(b""), "Read": hangs}, UnavailableError),
    "a reset in the middle": (
        {"Stat": stats(b""), "Read": reads(field(1, GOOD[:5]), CODE.UNAVAILABLE)},
        UnavailableError,
    ),
    "lost in the middle": (
        {"Stat": stats(b""), "Read": reads(field(1, GOOD[:5]), CODE.NOT_FOUND)},
        CorruptBlobError,
    ),
    "there, and nowhere to be read": (
        {"Stat": stats(b""), "Read": reads(CODE.NOT_FOUND)},
        MissingChunkError,
    ),
    "damaged at the peer": ({"Stat": stats(b""), "Read": reads(CODE.DATA_LOSS)}, CorruptBlobError),
    "a digest of 31 bytes": (
        {"Stat": stats(chunk_entry(bytes(31), 5) * 2), "Read": reads(CODE.NOT_FOUND)},
        BadIndexError,
    ),
    "a chunk of no bytes": (
        {"Stat": stats(chunk_entry(bytes(32), 0) * 2), "Read": reads(CODE.NOT_FOUND)},
        BadIndexError,
    ),
    "chunks that add up to too much": (
        {"Stat": stats(chunk_entry(bytes(32), 1 << 62) * 2), "Read": reads(CODE.NOT_FOUND)},
        BadIndexError,
    ),
    "10,000,000 chunks": (
        {"Stat": stats(chunk_entry(bytes(32), 1) * 10_000_000), "Read": reads(CODE.NOT_FOUND)},
        UnavailableError,
    ),
    "an answer that is none": ({"Stat": stats(b"\x12\xff"), "Read": reads(CODE.NOT_FOUND)}, BadIndexError),
    "no right": ({"Stat": stats(b""), "Read": reads(CODE.UNAUTHENTICATED)}, UnavailableError),
}


def blobs_of(answers: Answers) -> Answers:
    return {f"BlobService/{name}": answer for name, answer in answers.items()}


def read_all(service: BlobService) -> bytes | None:
    reader = service.open_read(WANTED)
    if reader is None:
        return None
    with reader:
        return reader.read()


@pytest.mark.parametrize("name", BLOBS)
def test_a_blob_that_is_not_right_is_an_error(sockets: Any, name: str) -> None:
    """And not a byte of it is kept by a cache in front."""
    answers, kind = BLOBS[name]
    with peer(next(sockets), blobs_of(answers)) as url, contextlib.ExitStack() as stack:
        tables = {
            "root": {"type": "cache", "near": "&near", "far": "&far"},
            "near": {"type": "memory"},
            "far": {"type": "grpc", "url": url, "timeout": TIMEOUT, "max_whole_size": "8 MiB"},
        }
        stores = stack.enter_context(Composition.from_mapping({"blobservices": tables}))
        tracemalloc.start()
        with pytest.raises(kind):
            read_all(stores.blobs("far"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        with pytest.raises(CastoreError):
            read_all(stores.blobs())
        assert not list(stores.blobs("near").list_blobs())  # type: ignore[attr-defined]
        assert not stores.blobs("near").has(WANTED)
    # Both ends are in this process: the list of ten million chunks is the peer's.
    assert peak < 100 << 20


def test_a_list_of_other_chunks_is_found_out_at_the_end(sockets: Any) -> None:
    """Each chunk is right, and what they make up is not: the last one is held back."""

    def read(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for part in (b"some", b"thing"):
            if request[2:] == B3Digest.of(part):
                yield field(1, part)
                return
        context.abort(CODE.NOT_FOUND, "")

    answers = blobs_of({"Stat": stats(FOREIGN), "Read": read})
    with (
        peer(next(sockets), answers) as url,
        Composition.from_mapping({"blobservices": {"root": {"type": "grpc", "url": url}}}) as stores,
        stores.blobs().open(WANTED) as reader,
    ):
        assert reader.read1(4) == b"some"
        with pytest.raises(CorruptBlobError):
            reader.read()


def takes(answer: bytes) -> Callable[..., bytes]:
    def put(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        for _message in requests:
            pass
        return answer

    return put


def takes_nothing(_: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    while context.is_active():
        time.sleep(0.02)
    return b""


PUTS: dict[str, tuple[Any, type[CastoreError]]] = {
    "another digest": (takes(field(1, bytes(32))), CorruptBlobError),
    "31 bytes": (takes(field(1, bytes(31))), UnavailableError),
    "nothing": (takes(b""), UnavailableError),
    "an error": (refuse(CODE.INTERNAL, "error copying"), UnavailableError),
    "an answer before the end": (lambda *_: field(1, bytes(32)), CastoreError),
    "nobody who takes it": (takes_nothing, UnavailableError),
}


@pytest.mark.parametrize("size", [5, 3 << 20])
@pytest.mark.parametrize("name", PUTS)
def test_a_blob_is_stored_once_its_own_digest_is_answered(sockets: Any, name: str, size: int) -> None:
    """A small one, which goes with one message, and a large one."""
    put, kind = PUTS[name]
    answers = blobs_of({"Stat": stats(b""), "Put": put})
    with (
        peer(next(sockets), answers) as url,
        Composition.from_mapping(
            {"blobservices": {"root": {"type": "grpc", "url": url, "timeout": TIMEOUT}}}
        ) as stores,
        pytest.raises(kind),
    ):
        stores.blobs().write(P3M.data[:size])


EMPTY = Directory()
INNER = Directory({b"f": FileNode(EMPTY.digest, 0)})
ROOT = Directory({b"a": EMPTY.node, b"b": INNER.node})
OTHER = Directory({b"x": FileNode(EMPTY.digest, 0)})


def gets(*messages: Any) -> Callable[..., Iterator[bytes]]:
    send = reads(*messages)

    def get(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        probed(request, context)
        yield from send(request, context)

    return get


def hangs_after(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    probed(request, context)
    yield ROOT.encoded
    while context.is_active():
        time.sleep(0.02)


TREES: dict[str, tuple[Any, type[CastoreError]]] = {
    "cut short": (gets(ROOT.encoded, EMPTY.encoded), MissingDirectoryError),
    "only its root": (gets(ROOT.encoded), MissingDirectoryError),
    "another one": (gets(OTHER.encoded), CorruptDirectoryError),
    "a foreign directory in it": (gets(ROOT.encoded, OTHER.encoded), CorruptDirectoryError),
    "the same again and again": (
        gets(ROOT.encoded, lambda: itertools.repeat(ROOT.encoded)),
        UnavailableError,
    ),
    "what is no directory": (gets(b"\xff\xff"), CorruptDirectoryError),
    "a hang": (hangs_after, UnavailableError),
    "an error in the middle": (gets(ROOT.encoded, CODE.INTERNAL), UnavailableError),
    "lost in the middle": (gets(ROOT.encoded, CODE.NOT_FOUND), CorruptDirectoryError),
    "too long": (gets(bytes(17 << 20)), UnavailableError),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_that_is_not_right_is_an_error(sockets: Any, name: str) -> None:
    """It never ends as if it were whole."""
    get, kind = TREES[name]
    with (
        peer(next(sockets), {"DirectoryService/Get": get}) as url,
        Composition.from_mapping(
            {
                "blobservices": {"root": {"type": "memory"}},
                "directoryservices": {"root": {"type": "grpc", "url": url, "timeout": TIMEOUT}},
            }
        ) as stores,
        pytest.raises(kind),
    ):
        list(stores.directories().closure(ROOT.digest) or ())


def test_a_directory_that_is_another_one_is_an_error(sockets: Any) -> None:
    """So is none, without that the peer says so, and more than one."""
    for messages, kind in (
        ((OTHER.encoded,), CorruptDirectoryError),
        ((), UnavailableError),
        ((ROOT.encoded, ROOT.encoded), UnavailableError),
    ):
        with (
            peer(next(sockets), {"DirectoryService/Get": gets(*messages)}) as url,
            Composition.from_mapping(
                {
                    "blobservices": {"root": {"type": "memory"}},
                    "directoryservices": {"root": {"type": "grpc", "url": url}},
                }
            ) as stores,
            pytest.raises(kind),
        ):
            stores.directories().get(ROOT.digest)


def test_a_tree_is_stored_once_its_own_digest_is_answered(sockets: Any) -> None:
    """The answer is compared with the root that was sent."""
    answers = {
        "DirectoryService/Get": gets(CODE.NOT_FOUND),
        "DirectoryService/Put": takes(field(1, bytes(32))),
    }
    with (
        peer(next(sockets), answers) as url,
        Composition.from_mapping(
            {
                "blobservices": {"root": {"type": "memory"}},
                "directoryservices": {"root": {"type": "grpc", "url": url}},
            }
        ) as stores,
        pytest.raises(CorruptDirectoryError),
    ):
        stores.directories().put_closure([EMPTY, INNER, ROOT])


@contextlib.contextmanager
def resetting(path: Path, after: int) -> Iterator[str]:
    """Pass connections on to a server, and reset each when so many bytes have gone either way."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        left = after
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(min(left, 65536))):
                target.sendall(data)
                left -= len(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                # It is closed with a reset, not with an end.
                if each.family == socket.AF_INET:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD)
                each.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listening.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(path))
                for pair in ((client, server), (server, client)):
                    threads.append(threading.Thread(target=pass_on, args=pair))
                    threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"grpc+http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for each in threads:
            each.join(20)


@pytest.mark.parametrize("after", [20, 100_000, 1_000_000])
def test_a_connection_that_is_reset(serving: Any, after: int) -> None:
    """In the midst of a head, and of a blob, in either direction: it is unavailable."""
    served = serving({"root": {"type": "objectstore", "object_store_url": "memory:"}})
    served.stores.blobs().write(P3M.data)
    with resetting(served.path, after) as url:
        tables = {
            "root": {"type": "cache", "near": "&near", "far": "&far"},
            "near": {"type": "memory"},
            "far": {"type": "grpc", "url": url, "timeout": "5 s"},
        }
        with Composition.from_mapping({"blobservices": tables}) as stores:
            for service in (stores.blobs("far"), stores.blobs()):
                with pytest.raises(UnavailableError):
                    service.read(P3M.digest)
            near = stores.blobs("near")
            # Chunks that came whole are right; the blob is not there.
            assert near.chunks(P3M.digest) is None
            with pytest.raises(UnavailableError):
                stores.blobs("far").write(P3M.data[1:])
    assert not served.stores.blobs().has(B3Digest.of(P3M.data[1:]))


TOO_LONG = b"".join(chunk_entry(B3Digest.of(part), len(part)) for part in (b"some", b"other"))


@pytest.mark.parametrize("listed", [FOREIGN, TOO_LONG])
def test_right_chunks_of_another_blob_do_not_become_this_one_in_a_cache(sockets: Any, listed: bytes) -> None:
    """Chunks may be kept, as they are what they are called; the blob is not."""
    parts = {bytes(B3Digest.of(part)): part for part in (b"some", b"thing", b"other")}

    def read(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        part = parts.get(request[2:])
        if part is None:
            context.abort(CODE.NOT_FOUND, "")
        assert part is not None
        yield field(1, part)

    with peer(next(sockets), blobs_of({"Stat": stats(listed), "Read": read})) as url:
        tables = {
            "root": {"type": "cache", "near": "&near", "far": "&far"},
            "near": {"type": "objectstore", "object_store_url": "memory:"},
            "far": {"type": "grpc", "url": url, "timeout": TIMEOUT},
        }
        with Composition.from_mapping({"blobservices": tables}) as stores:
            for _ in range(2):
                with pytest.raises(CorruptBlobError):
                    read_all(stores.blobs())
            assert not stores.blobs("near").has(WANTED)


@pytest.mark.parametrize("name", [name for name in TREES if name != "a hang"])
def test_a_tree_that_is_not_right_stays_in_no_cache(sockets: Any, name: str) -> None:
    """Directories that came are what they are called; that the tree is whole nobody believes."""
    get, _ = TREES[name]
    with peer(next(sockets), {"DirectoryService/Get": get}) as url:
        tables = {
            "root": {"type": "cache", "near": "&near", "far": "&far"},
            "near": {"type": "memory"},
            "far": {"type": "grpc", "url": url, "timeout": TIMEOUT},
        }
        mapping = {"blobservices": {"root": {"type": "memory"}}, "directoryservices": tables}
        with Composition.from_mapping(mapping) as stores:
            for _ in range(2):
                with pytest.raises(CastoreError):
                    list(stores.directories().closure(ROOT.digest) or ())
            near = stores.directories("near")
            for digest, found in near.get_many(
                [ROOT.digest, EMPTY.digest, INNER.digest, OTHER.digest]
            ).items():
                assert isinstance(found, Directory)
                assert found.digest == digest
            assert near.missing([INNER.digest]) == {INNER.digest}
