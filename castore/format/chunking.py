"""Cutting a blob into chunks at places that its content decides.

Pure: bytes in, lengths out. The default, `fastcdc-2020`, is FastCDC as its 2020 paper ("The Design of Fast
Content-Defined Chunking for Data Deduplication Based Storage Systems", Xia et al.) has it, at
normalization level 1, and cuts where the reference implementation cuts: minimum avg // 2, maximum avg * 2.
`fastcdc-2016` is the algorithm of the 2016 paper; it cuts elsewhere, and is there for stores that were
written with it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

DEFAULT_AVG_SIZE: Final = 256 << 10
"""The average chunk size, in bytes, where none is given."""

MIN_AVG_SIZE: Final = 512
MAX_AVG_SIZE: Final = 2_097_153
"""The average sizes between which the reference works: its cutter refuses others."""

MAX_CHUNK_SIZE: Final = 16 << 20
"""The largest chunk that any setting of the reference's cutter can make, in bytes."""


class Chunker(ABC):
    """Cuts bytes into chunks. An object serves one writer at a time.

    Where a chunk ends depends on nothing but the `max_size` bytes from its start: that lets a stream be
    cut piece by piece, with the same result as in one.
    """

    looks_ahead = True
    """Whether it may depend on bytes behind that end. If not, a chunk that ends before the data does is
    settled, however little follows; less of a stream is then cut twice."""

    def __init__(self, avg_size: int = DEFAULT_AVG_SIZE) -> None:
        if not MIN_AVG_SIZE <= avg_size <= MAX_AVG_SIZE:
            raise ValueError(
                f"an average of {avg_size} bytes is not between {MIN_AVG_SIZE} and {MAX_AVG_SIZE}"
            )
        self.avg_size = avg_size
        self.min_size = avg_size // 2
        self.max_size = avg_size * 2

    @abstractmethod
    def cut(self, data: memoryview) -> Iterator[int]:
        """Yield the length of each chunk of *data* in order; together they are all of it."""


class FastCdc2020(Chunker):
    """FastCDC v2020, level 1, seed 0: the chunk boundaries of the reference."""

    looks_ahead = False

    def __init__(self, avg_size: int = DEFAULT_AVG_SIZE) -> None:
        super().__init__(avg_size)
        from pyfastcdc import FastCDC  # noqa: PLC0415 - only who writes needs a cutter

        self._cutter = FastCDC(
            avg_size, min_size=self.min_size, max_size=self.max_size, normalized_chunking=1, seed=0
        )

    def cut(self, data: memoryview) -> Iterator[int]:
        """Yield the length of each chunk of *data* in order."""
        for chunk in self._cutter.cut_buf(data):
            yield chunk.length


class FastCdc2016(Chunker):
    """FastCDC as of 2016, with the same bounds on the size of a chunk."""

    looks_ahead = False

    def cut(self, data: memoryview) -> Iterator[int]:
        """Yield the length of each chunk of *data* in order."""
        with contextlib.redirect_stdout(None):  # Without its C extension it says so there.
            from fastcdc import fastcdc  # noqa: PLC0415 - only who writes needs a cutter

        for chunk in fastcdc(data, self.min_size, self.avg_size, self.max_size):
            yield chunk.length


BUNDLED_CHUNKERS: Final[dict[str, type[Chunker]]] = {
    "fastcdc-2020": FastCdc2020,
    "fastcdc-2016": FastCdc2016,
}


def settled_cuts(chunker: Chunker, data: memoryview, *, final: bool) -> Iterator[int]:
    """Yield the chunk lengths of *data* that bytes yet to come cannot change; all of them if *final*."""
    # Bytes from the start of a chunk to those that it is settled without.
    behind = chunker.max_size if chunker.looks_ahead else 0
    start = 0
    for length in chunker.cut(data):
        end = start + length
        if not final and (start + behind > len(data) or (end == len(data) and length < chunker.max_size)):
            return
        yield length
        start = end
