"""Blobs with known digests, for tests of any service.

Their digests are those that the reference implementation computes, written out rather than computed, so
that a mistake in the hashing cannot agree with itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Final

import attrs

from castore.contract.blobs import ChunkMeta
from castore.digest import B3Digest


def _digest(text: str) -> B3Digest:
    return B3Digest.parse(text)


@attrs.frozen
class Blob:
    """Some bytes and the digest that they must have."""

    name: str
    digest: B3Digest = attrs.field(converter=_digest)
    size: int
    """In bytes."""
    _make: Callable[[], bytes] = attrs.field(repr=False, eq=False)

    @cached_property
    def data(self) -> bytes:
        """The bytes, made when they are first asked for."""
        return self._make()

    @property
    def meta(self) -> ChunkMeta:
        """The blob as a chunk of a larger one."""
        return ChunkMeta(self.digest, self.size)

    def __str__(self) -> str:
        return self.name


def noise(size: int) -> bytes:
    """Return *size* bytes that neither repeat nor compress, the same ones each time."""
    blocks = -(-size // 32)
    digests = (hashlib.sha256(b"castore-vector" + i.to_bytes(8, "big")).digest() for i in range(blocks))
    return b"".join(digests)[:size]


EMPTY: Final = Blob(
    "EMPTY", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", 0, lambda: b""
)
HELLO: Final = Blob(
    "HELLO", "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c", 12, lambda: b"Hello World!"
)
BLOB_A: Final = Blob(
    "BLOB_A", "7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63", 2, lambda: b"\0\1"
)
BLOB_B: Final = Blob(
    "BLOB_B",
    "a82c5154a7a0c262c6fdb929a317585646f8fbcf80326d0a7b8747edaf2d99d2",
    1_044_480,
    lambda: bytes(range(255)) * 4096,
)
ZEROS_1M: Final = Blob(
    "ZEROS_1M",
    "488de202f73bd976de4e7048f4e1f39a776d86d582b7348ff53bf432b987fca8",
    1 << 20,
    lambda: bytes(1 << 20),
)
P3M: Final = Blob(
    "P3M",
    "abdd4e99ed8b8c37e585bc3b28ded7b3347580a77c70358b2951f1b94aaddc7b",
    3 << 20,
    lambda: noise(3 << 20),
)

BLOBS: Final = (EMPTY, HELLO, BLOB_A, BLOB_B, ZEROS_1M, P3M)

CHUNKS: Final = (
    BLOB_A,
    Blob(
        "CHUNK_2",
        "024a7fdb2a86c4eae9600a1cfbfd4487ddc15c0a8fa59abfebd6f92bd0031fe5",
        4,
        lambda: bytes(range(2, 6)),
    ),
    Blob(
        "CHUNK_3",
        "1c310b6bdadd69991cd4e5dbef96c2638536c32b534e3ed64785846bfcebd206",
        1,
        lambda: b"\x06",
    ),
    Blob(
        "CHUNK_4",
        "d241b5ab32d2206564b51c8ec05944f6af6d7622c2f607f34c0622223a2b3cd7",
        2,
        lambda: b"\x07\x08",
    ),
    Blob(
        "CHUNK_5",
        "465ded54852258aadefafc109bac1cb1c1275ad9ac15af4fe9996dff9473f50e",
        7,
        lambda: bytes(range(9, 16)),
    ),
)
"""Five chunks that make up the bytes 0 to 15."""
