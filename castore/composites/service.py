"""The base of services over several others, of which the first that has a blob gives it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from castore.composites.members import Members
from castore.contract.blobs import BatchBlobService, ChunkMeta
from castore.digest import B3Digest


class MembersBlobService(BatchBlobService):
    """Asks *members* what they have, as they are asked in turn."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self.high_latency = any(member.service.high_latency for member in members.all)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are absent; each member is asked only for what those before it lack."""
        return self._members.missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks as the first member that has the blob does."""
        found = self._members.first(lambda member: member.chunks(digest))
        return None if found is None else found.value
