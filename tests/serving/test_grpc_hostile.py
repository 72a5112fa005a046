"""A peer that lies, rambles, hangs or breaks off: the client has an error of its own for each.

It comes in bounded time, holds bounded memory, and a cache in front keeps nothing of it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator
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
