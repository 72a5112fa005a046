"""Copying a blob to the member that lacks it, or has it wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from blake3 import blake3

from castore import B3Digest, CastoreError, ChunkMeta, CorruptBlobError, UnavailableError
from castore.chunks.fetching import find_in
from castore.composites.failover_reading import FailoverChunks, open_with_failover
from castore.composites.members import Member, Members, periods, periods_of
from castore.composites.timed_writing import leased, open_timed
from castore.contract.batches import batches
from castore.contract.capabilities import ChunkStore
from castore.streams.readers import PieceReader
from castore_mirror.healing import Reason


class Mender:
    """Copies blobs between the members of a mirror.

    What is read is checked as for any other reader; what is written is named by the member itself.
    """

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self._name = name
        self._all = members

    def heal(self, member: Member, digest: B3Digest, reason: Reason, stop: Callable[[], bool]) -> bool:
        """Copy a blob to *member* from the others; return whether there was anything to copy.

        Raises what the members raise.
        """
        try:
            return self._heal(member, digest, reason, stop)
        except CorruptBlobError as error:
            if not error.passed_over:
                raise
        return self._heal(member, digest, reason, stop)

    def _heal(self, member: Member, digest: B3Digest, reason: Reason, stop: Callable[[], bool]) -> bool:
        store = member.service.capability(ChunkStore)
        if reason == "missing" and _is_there(member, store, digest):
            return False
        # One that is gone everywhere else is not absent because of that: it is for the others to say.
        others = Members(self._name, [other for other in self._all if other is not member])
        reader = open_with_failover(others, digest)
        if reader is None:
            return False
        with reader:
            if (
                reason == "missing"
                or store is None
                or not _mend(member, store, digest, reader.size, others=others, stop=stop)
            ):
                _copy(member, digest, reader, stop)
                member.wrong.forget(digest)
        return not stop()


def _is_there(member: Member, store: ChunkStore | None, digest: B3Digest) -> bool:
    if store is None:
        return member.call(lambda: member.service.has(digest))
    # A chunk of that digest may be there without the blob.
    if not member.call(lambda: store.claim_blob(digest)):
        return False
    member.call(lambda: store.put_indexes({}))
    return True


def _mend(
    member: Member,
    store: ChunkStore,
    digest: B3Digest,
    size: int,
    *,
    others: Members,
    stop: Callable[[], bool],
) -> bool:
    """Replace what is wrong of a blob, as it is cut; return False if it is in too large a piece for that.

    By the list of the member, or if that is wrong by the one that others have.
    """
    fault: CorruptBlobError | None = None
    for chunks in _lists_of(member, digest, others):
        if not chunks and size > store.new_chunker().max_size:
            return False
        try:
            with leased(member, store, brief=False) as held:
                if _rebuild(
                    member, held, digest, chunks or (ChunkMeta(digest, size),), others=others, stop=stop
                ):
                    member.call(lambda listed=chunks: held.put_index(digest, listed))  # type: ignore[misc]
                return True
        except CorruptBlobError as error:
            fault = error
    if fault is not None:
        raise fault
    return False


def _lists_of(member: Member, digest: B3Digest, others: Members) -> Iterator[Sequence[ChunkMeta]]:
    """Yield the chunks that the member lists, then those that others do."""
    with contextlib.suppress(CorruptBlobError):
        if chunks := member.call(lambda: member.chunks(digest)):
            yield chunks
    found = others.first(lambda other: other.chunks(digest))
    yield () if found is None else found.value


def _rebuild(
    member: Member,
    store: ChunkStore,
    blob: B3Digest,
    chunks: Sequence[ChunkMeta],
    *,
    others: Members,
    stop: Callable[[], bool],
) -> bool:
    """Replace chunks that are not right; return False if it was stopped.

    Raises `CorruptBlobError` if they do not make up the blob.
    """
    source = FailoverChunks(others, blob=blob, chunks=chunks)
    hasher = blake3()
    for batch in batches(chunks, lambda meta: meta.size):
        if stop():
            return False
        right = _replace_wrong(member, store, batch, source, blob)
        for meta in batch:
            hasher.update(right[meta.digest])
    if hasher.digest() != blob:
        raise member.wrong_index(blob)
    return True


def _replace_wrong(
    member: Member,
    store: ChunkStore,
    metas: Sequence[ChunkMeta],
    source: FailoverChunks,
    blob: B3Digest,
) -> dict[B3Digest, bytes]:
    """Replace those chunks that are not right; return all. A writer would pass over chunks that are there."""
    sizes = {meta.digest: meta.size for meta in metas}
    times = periods_of(sizes.values())
    # What can be read there need not be where it is to be written, as with a cache before it.
    there = member.call(lambda: store.claim(sizes), periods=periods(len(sizes)))
    read = member.call(lambda: find_in(member.service, member.source, sizes), periods=times)
    right = {
        digest: data
        for digest, data in read.items()
        if digest in there and isinstance(data, bytes) and len(data) == sizes[digest]
    }
    found = source.get_chunks({digest: size for digest, size in sizes.items() if digest not in right})
    new: dict[B3Digest, bytes] = {}
    for digest in sizes.keys() - right.keys():
        data = found.get(digest)
        if isinstance(data, CastoreError):
            raise data
        if data is None:
            raise CorruptBlobError(f"chunk {digest} of blob {blob} is nowhere", expected=blob)
        new[digest] = data
    if new:
        member.call(lambda: store.put_chunks(new), periods=periods_of(map(len, new.values())))
    return right | new


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
