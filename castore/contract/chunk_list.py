"""The chunks of a blob as one object of few bytes, however many they are."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import eq, sub
from typing import Any, Final, overload

from castore.contract.blobs import ChunkMeta
from castore.digest import DIGEST_SIZE, B3Digest

MAX_CHUNKS: Final = 1 << 22
"""How many chunks a blob has at most: those of a TiB, at the usual size of 256 KiB."""


class ChunkList(Sequence[ChunkMeta]):
    """Chunks in order, each of which takes 40 bytes and is made an object when it is asked for.

    It equals any other sequence of the same chunks.
    """

    __slots__ = ("__weakref__", "_digests", "offsets")

    offsets: array[int]
    """Where each chunk begins in the blob, and in the end how many bytes all have together."""

    def __init__(self, chunks: Iterable[ChunkMeta] = ()) -> None:
        self._digests = bytearray()
        self.offsets = array("Q", (0,))
        for chunk in chunks:
            self.add((chunk.digest,), (chunk.size,))

    @classmethod
    def of(cls, chunks: Sequence[ChunkMeta]) -> ChunkList:
        """Return *chunks* as such a list: themselves if they are one."""
        return chunks if isinstance(chunks, ChunkList) else cls(chunks)

    def add(self, digests: Sequence[bytes], sizes: Sequence[int]) -> None:
        """Append chunks: their digests of 32 bytes each, and their sizes in bytes."""
        self._digests += b"".join(digests)
        ends = accumulate(sizes, initial=self.offsets.pop())
        self.offsets.extend(ends)

    def has_at(self, start: int, digests: Sequence[bytes], sizes: Sequence[int]) -> bool:
        """Tell whether the chunks from number *start* on have these digests and sizes."""
        end = start + len(digests)
        offsets = self.offsets[start : end + 1]
        return self._digests.startswith(b"".join(digests), DIGEST_SIZE * start) and all(
            map(eq, map(sub, offsets[1:], offsets), sizes)
        )

    def up_to(self, end: int) -> ChunkList:
        """Return a list of the chunks before the one of number *end*."""
        found = ChunkList()
        found._digests = self._digests[: DIGEST_SIZE * end]
        found.offsets = self.offsets[: end + 1]
        return found

    def sizes(self) -> Iterator[int]:
        """Yield the sizes in bytes."""
        return map(sub, self.offsets[1:], self.offsets)

    @property
    def size(self) -> int:
        """How many bytes all of them have together."""
        return self.offsets[-1]

    def index_at(self, position: int) -> int | None:
        """Return the number of the chunk that has the byte at *position*, `None` beyond the end."""
        return bisect_right(self.offsets, position) - 1 if 0 <= position < self.size else None

    @property
    def largest(self) -> int:
        """The size of the largest chunk, 0 if there is none."""
        return max(self.sizes(), default=0)

    def find(self, digest: B3Digest, start: int = 0) -> int | None:
        """Return the number of a chunk of this digest, looked for from number *start* on; `None` for none.

        That takes no table, and so no memory: who reads in order finds the next one at once.
        """
        for begin, end in ((start, len(self)), (0, start)):
            at = self._digests.find(digest, DIGEST_SIZE * begin, DIGEST_SIZE * end)
            while at >= 0 and at % DIGEST_SIZE:
                at = self._digests.find(digest, at + 1, DIGEST_SIZE * end)
            if at >= 0:
                return at // DIGEST_SIZE
        return None

    def count_distinct(self) -> int:
        """Return how many different chunks there are."""
        if len(self) <= 1 << 16:
            return len(set(self.raw_digests(range(len(self)))))
        # Sorted into boxes first: one set of all of them would take several times as much as the list.
        boxes = [array("I") for _ in range(len(self) >> 14)]
        for number, digest in enumerate(self.raw_digests(range(len(self)))):
            boxes[hash(digest) % len(boxes)].append(number)
        return sum(len(set(self.raw_digests(box))) for box in boxes)

    def raw_digests(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Yield the digests of the chunks of these numbers, as mere bytes."""
        with memoryview(self._digests) as view:
            for number in numbers:
                yield bytes(view[DIGEST_SIZE * number : DIGEST_SIZE * (number + 1)])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, key: int) -> ChunkMeta: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[ChunkMeta]: ...

    def __getitem__(self, key: int | slice) -> ChunkMeta | Sequence[ChunkMeta]:
        if isinstance(key, slice):
            return tuple(self[number] for number in range(*key.indices(len(self))))
        number = key + len(self) if key < 0 else key
        if not 0 <= number < len(self):
            raise IndexError(f"there is no chunk {key} of {len(self)}")
        return self._at(number)

    def _at(self, number: int) -> ChunkMeta:
        digest = B3Digest(self._digests[DIGEST_SIZE * number : DIGEST_SIZE * (number + 1)])
        return ChunkMeta(digest, self.offsets[number + 1] - self.offsets[number])

    def __iter__(self) -> Iterator[ChunkMeta]:
        # By their number at the time: more may be added to the end meanwhile.
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ChunkList):
            return self.offsets == other.offsets and self._digests == other._digests
        if isinstance(other, Sequence) and not isinstance(other, str | bytes | bytearray | memoryview):
            return len(self) == len(other) and all(map(_equal, self, other))
        return NotImplemented

    __hash__: Any = None  # more may be added

    def __repr__(self) -> str:
        return f"<ChunkList of {len(self)} chunks, {self.size} bytes>"


def _equal(one: object, other: object) -> bool:
    return one == other
