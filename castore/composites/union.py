"""Capabilities of a service over several members that need the capability of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

from castore.composites.members import Member, no_answer
from castore.contract.capabilities import BlobDeleter, BlobLister
from castore.digest import B3Digest
from castore.errors import CastoreError

_BATCH: Final = 1000


class UnionLister(BlobLister):
    """Lists what any member has. If one of them fails so does the list, for it would be short."""

    def __init__(self, members: Sequence[tuple[Member, BlobLister]]) -> None:
        self._members = members

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob of every member, each once."""
        return self._union(lambda lister: lister.list_blobs())

    def complete(self, digits: str) -> Iterator[B3Digest]:
        """Yield what any member has that begins with *digits*, each once."""
        return self._union(lambda lister: lister.complete(digits))

    def _union(self, ask: Callable[[BlobLister], Iterator[B3Digest]]) -> Iterator[B3Digest]:
        seen: set[B3Digest] = set()
        for member, lister in self._members:
            for digest in _in_batches(member, partial(ask, lister)):
                if digest not in seen:
                    seen.add(digest)
                    yield digest


def _in_batches(member: Member, begin: Callable[[], Iterator[B3Digest]]) -> Iterator[B3Digest]:
    # In batches, so that a deadline is met once for many.
    digests = member.call(begin)
    while batch := member.call(lambda: list(islice(digests, _BATCH))):
        yield from batch


class UnionDeleter(BlobDeleter):
    """Deletes at all members: a blob that one of them still has would still be there."""

    def __init__(self, name: str, members: Sequence[tuple[Member, BlobDeleter]]) -> None:
        self._name = name
        self._members = members

    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob everywhere; return whether it was anywhere.

        Raises `UnavailableError` if a member failed; the others have deleted it then.
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
