"""Blobs that are there already, claimed together: as good as if they had just been stored, but not read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from castore.contract.batches import MOST_ITEMS
from castore.contract.capabilities import ChunkStore
from castore.digest import EMPTY, B3Digest

if TYPE_CHECKING:
    from castore.contract.blobs import BlobService, ChunkMeta


class BlobClaims:
    """A context in which blobs of a service are claimed; they stay until it ends, and last from then on.

    Where a service keeps no chunks it is only asked what it lacks.

    Arguments:
        service: Where they are.
        brief: Whether it ends within the time for which collectors spare what is young.
    """

    def __init__(self, service: BlobService, *, brief: bool = False) -> None:
        self._service = service
        self._brief = brief
        self._stack = ExitStack()
        self._store: ChunkStore | None = None
        self._limit: int | None = None

    def claim(self, sizes: Mapping[B3Digest, int]) -> set[B3Digest]:
        """Return those that are there.

        Arguments:
            sizes: How many bytes each has.
        """
        digests = list(sizes)
        there: set[B3Digest] = set()
        for start in range(0, len(digests), MOST_ITEMS):
            there |= self._claim(digests[start : start + MOST_ITEMS], sizes)
        return there

    def _claim(self, digests: list[B3Digest], sizes: Mapping[B3Digest, int]) -> set[B3Digest]:
        store = self._entered()
        if store is None:
            return set(digests) - self._service.missing(digests)
        assert self._limit is not None
        limit = self._limit
        lists: dict[B3Digest, tuple[ChunkMeta, ...] | None] = {
            digest: () if sizes[digest] <= limit else None for digest in digests
        }
        there = store.claim_blobs(lists)
        # Where a blob of one chunk is not told from that chunk it is made sure of.
        small = {digest for digest in digests if digest not in there and lists[digest] is not None}
        if small:
            found = store.claim(small - {EMPTY}) | (small & {EMPTY})
            if found:
                store.put_indexes(dict.fromkeys(found, ()))
            there |= found
        return there

    def _entered(self) -> ChunkStore | None:
        if self._limit is None:
            store = self._service.capability(ChunkStore)
            if store is not None:
                self._limit = store.new_chunker().min_size
                self._store = self._stack.enter_context(store.lease(brief=self._brief))
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if self._store is not None and kind is None:
                self._store.put_indexes({})
