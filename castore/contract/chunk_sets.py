"""Which chunks of some lists are meant: a bit for each, however many they are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, count, islice
from typing import Final

import attrs

from castore.contract.blobs import ChunkMeta
from castore.contract.chunk_list import ChunkList

_PER_BOX: Final = 1 << 14
"""About how many chunks are compared with each other at a time."""


@attrs.frozen(repr=False)
class ChunkSet:
    """Different chunks out of a list, as a bit for each.

    Sets of one list are joined (`|`), cut (`&`), taken from each other (`-`) and compared (`>=`). The empty
    one goes with all.

    Attributes:
        chunks: The list.
        bits: Bit *n* stands for the chunk of number *n*.
    """

    chunks: ChunkList = attrs.field(factory=ChunkList, hash=False)
    bits: int = 0

    def __or__(self, other: ChunkSet) -> ChunkSet:
        return ChunkSet(self._shared(other), self.bits | other.bits)

    def __and__(self, other: ChunkSet) -> ChunkSet:
        return ChunkSet(self._shared(other), self.bits & other.bits)

    def __sub__(self, other: ChunkSet) -> ChunkSet:
        return ChunkSet(self._shared(other), self.bits & ~other.bits)

    def __ge__(self, other: ChunkSet) -> bool:
        self._shared(other)
        return not other.bits & ~self.bits

    def _shared(self, other: ChunkSet) -> ChunkList:
        if self.bits and other.bits and self.chunks is not other.chunks:
            raise ValueError("sets of chunks of different lists are not compared")
        return self.chunks if self.bits else other.chunks

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __bool__(self) -> bool:
        return self.bits != 0

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the chunks in the list, in order."""
        return compress(count(), map("1".__eq__, reversed(f"{self.bits:b}")))

    def __iter__(self) -> Iterator[ChunkMeta]:
        return map(self.chunks.__getitem__, self.numbers())

    @property
    def size(self) -> int:
        """How many bytes they have together."""
        offsets = self.chunks.offsets
        return sum(offsets[number + 1] - offsets[number] for number in self.numbers())

    def __repr__(self) -> str:
        return f"<ChunkSet of {len(self)} chunks>"


class ChunkUniverse:
    """All the chunks of some lists, each once: what their sets are made of.

    It takes four bytes a chunk, and the lists once more if there are several.
    """

    def __init__(self, lists: Sequence[ChunkList]) -> None:
        self._chunks = lists[0] if len(lists) == 1 else ChunkList()
        self._starts = [0]
        for chunks in lists:
            self._starts.append(self._starts[-1] + len(chunks))
            if len(lists) > 1:
                self._append(chunks)
        self._first = _first_ones(self._chunks)

    def _append(self, chunks: ChunkList) -> None:
        digests, sizes = chunks.raw_digests(range(len(chunks))), chunks.sizes()
        while some := list(islice(digests, _PER_BOX)):
            self._chunks.add(some, list(islice(sizes, len(some))))

    def of_list(self, number: int) -> ChunkSet:
        """Return the chunks of a list, given by its number."""
        return self.of_numbers(self._first[self._starts[number] : self._starts[number + 1]])

    def every(self) -> ChunkSet:
        """Return all of them."""
        return self.of_numbers(self._first)

    def of_numbers(self, numbers: Iterable[int]) -> ChunkSet:
        """Return those of these numbers, as a set has them."""
        marks = bytearray(len(self._chunks) // 8 + 1)
        for number in numbers:
            marks[number >> 3] |= 1 << (number & 7)
        return ChunkSet(self._chunks, int.from_bytes(marks, "little"))


def _first_ones(chunks: ChunkList) -> array[int]:
    """Return, for each chunk, the number of the first one that is the same."""
    found = array("I", range(len(chunks)))
    # Sorted into boxes first: one table of all of them would take several times as much as the list.
    boxes = [array("I") for _ in range(len(chunks) // _PER_BOX + 1)]
    for number, digest in enumerate(chunks.raw_digests(range(len(chunks)))):
        boxes[hash(digest) % len(boxes)].append(number)
    offsets = chunks.offsets
    for box in boxes:
        seen: dict[tuple[bytes, int], int] = {}
        for number, digest in zip(box, chunks.raw_digests(box), strict=True):
            found[number] = seen.setdefault((digest, offsets[number + 1] - offsets[number]), number)
    return found
