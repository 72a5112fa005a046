"""The blobs that simulations work with, and the bytes of every chunk that they may be cut into."""

from __future__ import annotations

from random import Random
from typing import Final

import attrs

from castore.digest import B3Digest

CUTS: Final = (32, 48, 100)
"""The sizes of chunks, in bytes."""

_SIZES: Final = (0, 1, 20, 70, 150, 333)
_VARIANTS: Final = 3


@attrs.frozen
class Content:
    """One of the blobs."""

    number: int
    data: bytes = attrs.field(repr=False)
    digest: B3Digest = attrs.field(repr=False)
    parts: frozenset[B3Digest] = attrs.field(repr=False)
    """The blob, and all chunks that it may be made of."""

    def __str__(self) -> str:
        return f"blob {self.number} ({len(self.data)} bytes)"


def pieces_of(data: bytes, cut: int) -> list[bytes]:
    """Return *data* in chunks of *cut* bytes."""
    return [data[start : start + cut] for start in range(0, len(data), cut)]


def _contents() -> tuple[Content, ...]:
    found: dict[bytes, Content] = {}
    for size in _SIZES:
        for variant in range(_VARIANTS):
            # The second begins as the first does, so that they have chunks in common.
            common = Random("common").randbytes(size // 2) if variant < 2 else bytes(size // 2)
            data = common + Random(f"{size}/{variant}").randbytes(size - len(common))
            parts = frozenset(map(B3Digest.of, _all_pieces_of(data)))
            found.setdefault(data, Content(len(found), data, B3Digest.of(data), parts))
    return tuple(found.values())


def _all_pieces_of(data: bytes) -> set[bytes]:
    """Return all that it may be cut into, also where a chunk is stored as a blob, and cut again."""
    found: set[bytes] = set()
    left = [data]
    while left:
        piece = left.pop()
        if piece not in found:
            found.add(piece)
            left += (part for cut in CUTS for part in pieces_of(piece, cut))
    return found


CONTENTS: Final = _contents()

TRUTH: Final[dict[B3Digest, bytes]] = {
    B3Digest.of(piece): piece for content in CONTENTS for piece in _all_pieces_of(content.data)
}
"""What is behind each digest that can ever be stored."""

SHARING: Final[dict[B3Digest, frozenset[B3Digest]]] = {
    digest: frozenset(content.digest for content in CONTENTS if digest in content.parts) for digest in TRUTH
}
"""The blobs that may have a chunk of this digest."""

NOWHERE: Final = tuple(B3Digest.of(f"nobody stores this, {number}".encode()) for number in range(3))
"""Digests of what is never stored."""
