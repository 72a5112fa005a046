"""Capabilities of a service over several children that need the capability of each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final

from castore.composites.members import Member, no_answer
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkStore
from castore.digest import B3Digest
from castore.errors import CastoreError

_BATCH: Final = 1000


class UnionLister(BlobLister):
    """Lists what any child has. If one of them fails so does the list, for it would be short."""

    def __init__(self, members: Sequence[tuple[Member, BlobLister]]) -> None:
        self._members = members

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob of every child, each once."""
        seen: set[B3Digest] = set()
        for member, lister in self._members:
            for digest in _in_batches(member, lister):
                if digest not in seen:
                    seen.add(digest)
                    yield digest


def _in_batches(member: Member, lister: BlobLister) -> Iterator[B3Digest]:
    # In batches, so that a deadline is met once for many.
    digests = member.call(lister.list_blobs)
    while batch := member.call(lambda: list(islice(digests, _BATCH))):
        yield from batch


class UnionDeleter(BlobDeleter):
    """Deletes at all children: a blob that one of them still has would still be there."""

    def __init__(self, name: str, members: Sequence[tuple[Member, BlobDeleter]]) -> None:
        self._name = name
        self._members = members

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere; return whether it was anywhere.

        Raises `UnavailableError` if a child failed; the others have deleted it then.
        """
        there, faults = False, []
        for member, deleter in self._members:
            try:
                there = member.call(lambda entry=deleter: entry.delete(digest)) or there  # type: ignore[misc]
            except CastoreError as error:
                faults.append((member, error))
        if faults:
            raise no_answer(self._name, faults)
        return there


@contextmanager
def leased(member: Member, store: ChunkStore, *, brief: bool) -> Iterator[ChunkStore]:
    """Lease the store of a member; entering and leaving take no longer than its timeout."""
    lease = store.lease(brief=brief)
    entered = member.call(lease.__enter__, late=lambda _: lease.__exit__(None, None, None))
    try:
        yield entered
    finally:
        # One that cannot be ended now ends with its process; the error would hide what came before.
        with suppress(CastoreError):
            member.call(lambda: lease.__exit__(None, None, None))
