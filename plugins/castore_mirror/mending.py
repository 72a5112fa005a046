"""Copying a blob to the child that lacks it, or has it wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from castore import B3Digest, ChunkMeta, CorruptBlobError, UnavailableError
from castore.chunks.fetching import find_chunk
from castore.composites.failover_reading import FailoverChunks, open_with_failover
from castore.composites.members import Member, Members
from castore.composites.timed_writing import open_timed
from castore.contract.capabilities import ChunkStore
from castore.streams.readers import PieceReader
from castore_mirror.healing import Reason


class Mender:
    """Copies blobs between the children of a mirror.

    What is read is checked as for any other reader; what is written is named by the child itself.
    """

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self._name = name
        self._all = members

    def heal(self, member: Member, digest: B3Digest, reason: Reason, stop: Callable[[], bool]) -> bool:
        """Copy a blob to *child* from the others; return whether there was anything to copy.

        Raises what the children raise.
        """
        if reason == "missing" and member.call(lambda: member.service.has(digest)):
            return False
        # One that is gone everywhere else is not absent because of that: it is for the others to say.
        others = Members(self._name, [other for other in self._all if other is not member])
        reader = open_with_failover(others, digest)
        if reader is None:
            return False
        with reader:
            store = member.service.capability(ChunkStore) if reason == "corrupt" else None
            if store is not None:
                self._mend(member, store, digest, others=others, size=reader.size, stop=stop)
            else:
                _copy(member, digest, reader, stop)
        return not stop()

    def _mend(
        self,
        member: Member,
        store: ChunkStore,
        digest: B3Digest,
        *,
        others: Members,
        size: int,
        stop: Callable[[], bool],
    ) -> None:
        """Replace those chunks that are not right; a writer would pass over chunks that are there."""
        chunks = _list_of(member, digest)
        if not chunks:
            found = others.first(lambda other: other.service.chunks(digest))
            chunks = () if found is None else found.value
        source = FailoverChunks(others, blob=digest, chunks=chunks)
        for meta in chunks or (ChunkMeta(digest, size),):
            if stop():
                return
            # What can be read there need not be where it is to be written, as with a cache before it.
            if not member.call(lambda name=meta.digest: store.claim_chunk(name)) or not _is_right(
                member, meta
            ):  # type: ignore[misc]
                data = source.get_chunk(meta.digest, meta.size)
                if data is None:
                    raise CorruptBlobError(
                        f"chunk {meta.digest} of blob {digest} is nowhere", expected=digest
                    )
                member.call(lambda new=data, name=meta.digest: store.put_chunk(name, new))  # type: ignore[misc]
        member.call(lambda: store.put_index(digest, chunks))


def _list_of(member: Member, digest: B3Digest) -> Sequence[ChunkMeta]:
    try:
        return member.call(lambda: member.service.chunks(digest)) or ()
    except CorruptBlobError:
        return ()


def _is_right(member: Member, meta: ChunkMeta) -> bool:
    try:
        return member.call(lambda: find_chunk(member.service, member.source, meta)) is not None
    except CorruptBlobError:
        return False


def _copy(member: Member, digest: B3Digest, reader: PieceReader, stop: Callable[[], bool]) -> None:
    position = 0
    with open_timed(member) as writer:
        while position < reader.size:
            if stop():
                writer.abort()
                return
            piece = reader.piece_at(position)
            writer.write(piece)
            position += len(piece)
        if stop():
            writer.abort()
            return
        named = writer.close()
    if named != digest:
        raise UnavailableError(member.name, f"it took the blob {digest} for {named}")
