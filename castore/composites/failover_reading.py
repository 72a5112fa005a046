"""Reading one blob through several children: what breaks at one goes on at the next, at the same position."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from blake3 import blake3

from castore.chunks.fetching import find_in
from castore.chunks.reader import ChunkedReader
from castore.composites.members import Found, Member, Members
from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError, CorruptChunkError
from castore.streams.readers import BytesReader, PieceReader
from castore.threads.pool import Pool

SMALL: Final = 4 << 20
"""Up to this size, in bytes, a blob without finer chunks is read whole, and checked before a byte is used."""

_PIECE: Final = 256 << 10

Watch: TypeAlias = Callable[[Found[Any]], object]
"""Is told of each answer, with what the children asked before it lacked or had wrong."""


class FailoverChunks(ChunkSource):
    """Chunks, each from the first member that has it right.

    Of the blob that they are part of, if it is named: then a member that has the blob, but not cut alike, is
    read at the place of the chunk. A member that has failed is asked last from then on.

    Arguments:
        watch: Is told of each chunk for which more than one member had to be asked.
        blob: What the chunks are parts of.
        chunks: Its chunks in order.
        first: The member to begin with.
    """

    def __init__(
        self,
        members: Members,
        *,
        watch: Watch | None = None,
        blob: B3Digest | None = None,
        chunks: Sequence[ChunkMeta] = (),
        first: Member | None = None,
    ) -> None:
        self._members = members
        self._watch = watch
        self._blob = blob
        self._offsets = _offsets(chunks)
        self._order = sorted(members.all, key=lambda member: member is not first)
        self.high_latency = members.high_latency

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that a member has."""
        found, lacking = self._members.gather(_find_chunks, digests)
        for votes in lacking.values():
            votes.decide(self._members.name, self._members.misses)
        return set(found)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks; the verdict is on each by itself."""

        def ask(member: Member, rest: Collection[B3Digest]) -> FoundChunks:
            return self._fetch(member, {digest: sizes[digest] for digest in rest})

        found, lacking = self._members.gather(ask, sizes, order=tuple(self._order))
        answers: FoundChunks = {}
        failed: set[Member] = set()
        for digest, answer in found.items():
            answers[digest] = answer.value
            if answer.votes.missed or answer.votes.faults:
                failed |= answer.votes.others
                if self._watch is not None:
                    self._watch(answer)
        for digest, votes in lacking.items():
            try:
                votes.decide(self._members.name, self._members.misses)
            except CastoreError as error:
                answers[digest] = error
        if failed:
            # A new list: another thread may be at the old one.
            self._order = sorted(self._order, key=lambda member: member in failed)
        return answers

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where the first member that tells keeps a chunk."""
        keys = (member.source.chunk_key(digest) for member in self._order if member.source is not None)
        return next((key for key in keys if key is not None), None)

    def _fetch(self, member: Member, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        found = find_in(member.service, member.source, sizes)
        for digest, size in sizes.items():
            # Asked for the blob, a member with members of its own may find one that has cut it elsewhere.
            fault = found.get(digest)
            if size is None or digest not in self._offsets:
                continue
            if fault is not None and not isinstance(fault, CorruptBlobError):
                continue
            assert self._blob is not None
            try:
                data = _cut_out(member.service, self._blob, self._offsets[digest], ChunkMeta(digest, size))
            except CastoreError as error:
                found[digest] = error
                continue
            if data is not None:
                found[digest] = data
        return found


def _find_chunks(member: Member, digests: Collection[B3Digest]) -> dict[B3Digest, bool]:
    source = member.source
    found = set(digests) - member.service.missing(digests) if source is None else source.find_chunks(digests)
    return dict.fromkeys(found, True)


def _offsets(chunks: Sequence[ChunkMeta]) -> dict[B3Digest, int]:
    offsets: dict[B3Digest, int] = {}
    position = 0
    for meta in chunks:
        offsets.setdefault(meta.digest, position)
        position += meta.size
    return offsets


def _checked(reader: BlobReader, digest: B3Digest) -> bytes:
    data = reader.read()
    found = B3Digest.of(data)
    if found != digest:
        raise wrong_bytes(digest, found)
    return data


def _cut_out(service: BlobService, blob: B3Digest, offset: int, meta: ChunkMeta) -> bytes | None:
    """Return a chunk out of a blob that is cut in another way, `None` if the blob is absent."""
    reader = service.open_read(blob)
    if reader is None:
        return None
    with reader:
        if offset + meta.size > reader.size:
            raise CorruptBlobError(f"blob {blob} is shorter than its chunks", expected=blob)
        reader.seek(offset)
        data = reader.read(meta.size)
    found = B3Digest.of(data)
    if found != meta.digest:
        raise CorruptChunkError(
            f"blob {blob} has at {offset} not the chunk {meta.digest}", expected=meta.digest, found=found
        )
    return data


class CheckedReader(BytesReader):
    """A reader over all bytes of a blob, whose digest is right."""


def open_with_failover(
    members: Members, digest: B3Digest, *, watch: Watch | None = None, pool: Pool | None = None
) -> PieceReader | None:
    """Open a blob at the first child that has it; `None` if it is absent.

    *watch* is told who had it, and of each chunk and piece for which another child had to be asked. With
    *pool* chunks are fetched ahead.

    Raises as `Members.first` does, and so do the reads.
    """
    found = members.first(lambda member: _open(member, digest), late=_release)
    if found is None:
        return None
    if watch is not None:
        watch(found)
    reader, chunks = found.value
    if isinstance(reader, CheckedReader):
        return reader
    if reader is not None:
        return FailoverReader(members, digest, reader, found.member, watch)
    source = FailoverChunks(members, watch=watch, blob=digest, chunks=chunks, first=found.member)
    return ChunkedReader(found.member.service, chunks, digest=digest, source=source, pool=pool)


def _open(member: Member, digest: B3Digest) -> tuple[BlobReader | None, Sequence[ChunkMeta]] | None:
    """Return the chunks of a blob; a reader of its checked bytes if it is small; else a reader."""
    chunks = member.service.chunks(digest)
    if chunks:
        return None, chunks
    reader = None if chunks is None else member.service.open_read(digest)
    if reader is None:
        return None
    if reader.size > SMALL:
        return reader, ()
    with reader:
        return CheckedReader(_checked(reader, digest)), ()


def _release(opened: tuple[BlobReader | None, object] | None) -> None:
    if opened is not None and opened[0] is not None:
        opened[0].close()


class FailoverReader(PieceReader):
    """Reads a large blob that is kept in one piece; where a child fails the next one goes on.

    Read from start to end its digest is checked: the last piece is held back until it is right. Read in
    another order a byte is as good as the word of the child's reader.
    """

    def __init__(
        self, members: Members, digest: B3Digest, reader: BlobReader, member: Member, watch: Watch | None
    ) -> None:
        self._members = members
        self._digest = digest
        self._size = reader.size
        self._readers: dict[Member, BlobReader] = {member: reader}
        self._order = sorted(members.all, key=lambda other: other is not member)
        self._watch = watch
        self._held = memoryview(b"")
        self._held_at = 0
        self._hasher = blake3()
        self._hashed = 0
        self._mismatch: CorruptBlobError | None = None

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    def piece_at(self, position: int) -> memoryview:
        """Return the bytes held from *position* on; read a piece there if there are none."""
        offset = position - self._held_at
        if not 0 <= offset < len(self._held):
            # What is held is the reader's, and gone when that reads on.
            self._held = memoryview(b"")
            data = self._read(position)
            self._check(position, data)
            self._held, self._held_at, offset = data, position, 0
        return self._held[offset:]

    def _check(self, position: int, data: memoryview) -> None:
        if self._mismatch is not None:
            raise self._mismatch
        if position == self._hashed:
            self._hasher.update(data)
            self._hashed += len(data)
            if self._hashed == self._size and self._hasher.digest() != self._digest:
                self._mismatch = wrong_bytes(self._digest, B3Digest(self._hasher.digest()))
                raise self._mismatch

    def _read(self, position: int) -> memoryview:
        found = self._members.first(
            lambda member: self._read_at(member, position), order=tuple(self._order), late=_release_piece
        )
        if found is None:
            raise CorruptBlobError(f"blob {self._digest} went away while it was read", expected=self._digest)
        reader, data = found.value
        self._readers[found.member] = reader
        if found.votes.missed or found.votes.faults:
            failed = found.votes.others
            self._order = sorted(self._order, key=lambda member: member in failed)
            if self._watch is not None:
                self._watch(found)
        return data

    def _read_at(self, member: Member, position: int) -> tuple[BlobReader, memoryview] | None:
        # Taken out, so that a call that is given up has it for itself, and closes it in the end.
        reader = self._readers.pop(member, None) or member.service.open_read(self._digest)
        if reader is None:
            return None
        try:
            return reader, self._piece_of(reader, member, position)
        except BaseException:
            reader.close()
            raise

    def _piece_of(self, reader: BlobReader, member: Member, position: int) -> memoryview:
        if reader.size != self._size:
            words = f"has {reader.size} bytes in `{member.name}`, and {self._size} elsewhere"
            raise CorruptBlobError(f"blob {self._digest} {words}", expected=self._digest)
        if isinstance(reader, PieceReader):
            data = reader.piece_at(position)
        else:
            if reader.tell() != position:
                reader.seek(position)
            data = memoryview(reader.read(min(_PIECE, self._size - position)))
        if not data:
            words = f"ends at {position}, before its size of {self._size}"
            raise CorruptBlobError(f"blob {self._digest} {words}", expected=self._digest)
        return data

    def close(self) -> None:
        """Close the readers beneath."""
        readers, self._readers = self._readers, {}
        for member, reader in readers.items():
            with contextlib.suppress(CastoreError):
                member.call(reader.close)
        super().close()


def _release_piece(answer: tuple[BlobReader, memoryview] | None) -> None:
    if answer is not None:
        answer[0].close()


def wrong_bytes(expected: B3Digest, found: B3Digest) -> CorruptBlobError:
    """Return the error for a blob whose bytes have the digest *found*."""
    return CorruptBlobError(
        f"blob {expected} is corrupt: its bytes have the digest {found}", expected=expected, found=found
    )
