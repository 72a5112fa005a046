"""Powers of a service over several children that need the power of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final

from castore.composites.members import Child, no_answer
from castore.contract.capabilities import BatchExistence, BlobDeleter, BlobLister, ChunkStore
from castore.digest import B3Digest
from castore.errors import CastoreError

_BATCH: Final = 1000


class JoinedLister(BlobLister):
    """Lists what any child has. If one of them fails so does the list, for it would be short."""

    def __init__(self, children: Sequence[tuple[Child, BlobLister]]) -> None:
        self._children = children

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob of every child, each once."""
        seen: set[B3Digest] = set()
        for child, lister in self._children:
            for digest in _in_batches(child, lister):
                if digest not in seen:
                    seen.add(digest)
                    yield digest


def _in_batches(child: Child, lister: BlobLister) -> Iterator[B3Digest]:
    # In batches, so that a deadline is met once for many.
    digests = child.call(lister.list_blobs)
    while batch := child.call(lambda: list(islice(digests, _BATCH))):
        yield from batch


class JoinedDeleter(BlobDeleter):
    """Deletes at all children: a blob that one of them still has would still be there."""

    def __init__(self, name: str, children: Sequence[tuple[Child, BlobDeleter]]) -> None:
        self._name = name
        self._children = children

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere; return whether it was anywhere.

        Raises `UnavailableError` if a child failed; the others have deleted it then.
        """
        there, faults = False, []
        for child, deleter in self._children:
            try:
                there = child.call(lambda entry=deleter: entry.delete(digest)) or there  # type: ignore[misc]
            except CastoreError as error:
                faults.append((child, error))
        if faults:
            raise no_answer(self._name, faults)
        return there


@contextmanager
def held(child: Child, store: ChunkStore) -> Iterator[None]:
    """Hold what is put or claimed at a child; entering and leaving take no longer than its timeout."""
    hold = store.hold()
    child.call(hold.__enter__, late=lambda _: hold.__exit__(None, None, None))
    try:
        yield
    finally:
        # One that cannot be ended now ends with its process; the error would hide what came before.
        with suppress(CastoreError):
            child.call(lambda: hold.__exit__(None, None, None))


class AskingForMany(BatchExistence):
    """Asks for many digests at once through *missing*, a method of the service."""

    def __init__(self, missing: Callable[[Iterable[B3Digest]], set[B3Digest]]) -> None:
        self._missing = missing

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are absent."""
        return self._missing(digests)
