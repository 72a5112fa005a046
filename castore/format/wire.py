"""The messages that carry a blob over gRPC, made and read without a copy more than needed.

Pure. A blob is a stream of messages `BlobChunk`, whose only field is bytes: a tag, the length, the bytes.
The class that protobuf generates for it copies them once more, and takes the interpreter's lock meanwhile.
What is anything but such a message, as others may write it, is left to that class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from castore.digest import B3Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_MESSAGE: Final = 4 << 20
"""How many bytes a message has at most, as the reference takes it."""

PIECE_SIZE: Final = 512 << 10
"""So many bytes of a blob go into a message at most."""

PACKAGES: Final = ("snix.castore.v1", "tvix.castore.v1")
"""The packages of the services, which are in the path of each call: that of today, and that until 2025."""

_TAG: Final = 0x0A
_LONGEST_VARINT: Final = 5


def chunk_message(data: Buffer) -> bytes:
    """Return the message of some bytes of a blob."""
    size = memoryview(data).nbytes
    return b"".join((_head(size), data)) if size else b""


def joined_message(parts: Sequence[Buffer]) -> bytes:
    """Return the message of bytes that are in several pieces."""
    size = sum(memoryview(part).nbytes for part in parts)
    return b"".join((_head(size), *parts)) if size else b""


def _head(size: int) -> bytes:
    head = bytearray((_TAG,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def chunk_data(message: bytes) -> memoryview:
    """Return the bytes of a blob that a message carries, as a view of it where that can be.

    Raises `ValueError` for what is no message.
    """
    if not message:
        return memoryview(b"")
    if message[0] == _TAG:
        size = shift = 0
        for start, byte in enumerate(message[1 : 1 + _LONGEST_VARINT], 2):
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if start + size == len(message):
                    return memoryview(message)[start:]
                break
    return memoryview(_parsed(message))


def _parsed(message: bytes) -> bytes:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - few messages are of another form

    from castore.format.proto.castore_pb2 import BlobChunk  # noqa: PLC0415 - as above

    try:
        return BlobChunk.FromString(message).data
    except DecodeError:
        raise ValueError("this is no BlobChunk message") from None


def method_path(package: str, service: str, method: str) -> str:
    """Return the path of a call: `/snix.castore.v1.BlobService/Stat`."""
    return f"/{package}.{service}/{method}"


def stat_request(digest: bytes) -> bytes:
    """Return the request for the chunks of a blob."""
    return _digest_field(digest) + b"\x10\x01"


def read_request(digest: bytes) -> bytes:
    """Return the request for a blob."""
    return _digest_field(digest)


def directory_request(digest: bytes, *, recursive: bool) -> bytes:
    """Return the request for a directory, or for all of its tree."""
    return _digest_field(digest) + (b"\x10\x01" if recursive else b"")


def _digest_field(digest: bytes) -> bytes:
    return bytes((_TAG, len(digest))) + digest


def answered_digest(message: bytes) -> B3Digest:
    """Return the digest that a Put is answered with; raise `ValueError` if there is none."""
    # It has the same shape as a piece of a blob.
    return B3Digest(bytes(chunk_data(message)))


def gathered(pieces: Iterable[memoryview], *, least: int = PIECE_SIZE // 2) -> Iterable[bytes]:
    """Yield messages of the pieces of a blob: small ones together, large ones by themselves.

    A piece may be a view that is valid until the next one is asked for.
    """
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if not waiting and len(piece) >= least:
            yield chunk_message(piece)
            continue
        if size + len(piece) > PIECE_SIZE:
            yield joined_message(waiting)
            waiting, size = [], 0
        waiting.append(bytes(piece))
        size += len(piece)
        if size >= least:
            yield joined_message(waiting)
            waiting, size = [], 0
    if waiting:
        yield joined_message(waiting)
