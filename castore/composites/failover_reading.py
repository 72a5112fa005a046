"""Reading one blob through several members: what breaks at one goes on at the next, at the same position.

A member whose index turns out to be wrong is passed over for that blob: the others are read instead, and who
watches is told of it, as of a damaged chunk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from castore.chunks.fetching import find_in
from castore.chunks.reader import ChunkedReader
from castore.chunks.recovery import Recovery
from castore.composites.members import Found, Member, Members, Votes, periods_of
from castore.contract.batches import MOST_UNKNOWN
from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, FoundChunks
from castore.contract.chunk_list import ChunkList
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError, CorruptChunkError, UnavailableError
from castore.streams.checked import HashedPieceReader, read_piece, wrong_bytes
from castore.streams.readers import BytesReader, PieceReader
from castore.threads.pool import Pool

SMALL: Final = 4 << 20
"""Up to this size, in bytes, a blob without finer chunks is read whole, and checked before a byte is used."""

Watch: TypeAlias = "Callable[[Mapping[B3Digest, Found[Any]]], object]"
"""Is told of blobs that are read, with an answer for each, and what the members asked before had to say."""


class FailoverChunks(ChunkSource):
    """Chunks, each from the first member that has it right.

    Of the blob that they are part of, if it is named: then a member that has the blob, but not cut alike, is
    read at the places of the chunks, and a member that has failed is asked last from then on.

    Arguments:
        watch: Is told of each chunk for which more than one member had to be asked. Those that are asked for
            without their sizes are taken for blobs; of others it is told only if *blob* is named.
        blob: What the chunks are parts of.
        chunks: Its chunks in order.
        first: The member to begin with.
        mended: One that is not asked last if it lacks something: who watches puts that there.
    """

    def __init__(
        self,
        members: Members,
        *,
        watch: Watch | None = None,
        blob: B3Digest | None = None,
        chunks: Sequence[ChunkMeta] = (),
        first: Member | None = None,
        mended: Member | None = None,
    ) -> None:
        self._members = members
        self._watch = watch
        self._blob = blob
        self._chunks = ChunkList.of(chunks)
        self._mended = mended
        self._last = 0
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

        def of(rest: Collection[B3Digest]) -> dict[B3Digest, int | None]:
            return {digest: sizes[digest] for digest in rest}

        found, lacking = self._members.gather(
            lambda member, rest: self._fetch(member, of(rest)),
            sizes,
            order=self._order,
            periods_for=lambda rest: periods_of(of(rest).values()),
        )
        late = {
            digest: answer for digest, answer in found.items() if answer.votes.missed or answer.votes.faults
        }
        if late:
            self._note(late, sizes)
        answers: FoundChunks = {digest: answer.value for digest, answer in found.items()}
        for digest, votes in lacking.items():
            try:
                votes.decide(self._members.name, self._members.misses)
            except CastoreError as error:
                answers[digest] = error
        unknown = [error for error in answers.values() if isinstance(error, UnavailableError)]
        if unknown and len(unknown) == len(sizes):
            raise unknown[0]
        return answers

    def _note(self, late: Mapping[B3Digest, Found[bytes]], sizes: Mapping[B3Digest, int | None]) -> None:
        """Take note of those that the first member did not have right."""
        if self._blob is None:
            whole = {digest: answer for digest, answer in late.items() if sizes[digest] is None}
            if whole and self._watch is not None:
                self._watch(whole)
            return
        failed = set().union(*(answer.votes.others for answer in late.values())) - {self._mended}
        # A new list: another thread may be at the old one.
        self._order = sorted(self._order, key=lambda member: member in failed)
        if self._watch is not None:
            for answer in late.values():
                self._watch({self._blob: answer})

    def chunk_key(self, digest: B3Digest) -> str | None:
        """Return where the first member that tells keeps a chunk."""
        keys = (member.source.chunk_key(digest) for member in self._order if member.source is not None)
        return next((key for key in keys if key is not None), None)

    def _fetch(self, member: Member, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        found = find_in(member.service, member.source, sizes, most=MOST_UNKNOWN)
        if self._blob is None:
            return found
        # Asked for the blob, a member with members of its own may find one that has cut it elsewhere.
        wrong = {
            digest: size
            for digest, size in sizes.items()
            if size is not None and isinstance(found.get(digest), CorruptBlobError | None)
        }
        return {**found, **self._cut_out(member, self._blob, wrong)} if wrong else found

    def _cut_out(self, member: Member, blob: B3Digest, sizes: Mapping[B3Digest, int]) -> FoundChunks:
        places = {}
        for digest, size in sizes.items():
            # Mostly it comes right after the last one.
            number = self._chunks.find(digest, self._last)
            if number is not None:
                places[self._chunks.offsets[number]] = ChunkMeta(digest, size)
                self._last = number
        return _cut_out(member.service, blob, places) if places else {}


def _find_chunks(member: Member, digests: Collection[B3Digest]) -> dict[B3Digest, bool]:
    source = member.source
    found = set(digests) - member.service.missing(digests) if source is None else source.find_chunks(digests)
    return dict.fromkeys(found, True)


def _checked(reader: BlobReader, digest: B3Digest) -> bytes:
    data = reader.read()
    found = B3Digest.of(data)
    if found != digest:
        raise wrong_bytes(digest, found)
    return data


def _cut_out(service: BlobService, blob: B3Digest, places: Mapping[int, ChunkMeta]) -> FoundChunks:
    """Return chunks out of a blob that is cut in another way, by the places that they have in it.

    Of a blob that is absent there are none.
    """
    found: FoundChunks = {}
    try:
        reader = service.open_read(blob)
        if reader is None:
            return {}
        with reader:
            for offset in sorted(places):
                meta = places[offset]
                try:
                    found[meta.digest] = _read_at(reader, blob, offset, meta)
                except CorruptBlobError as error:
                    found[meta.digest] = error
    except CastoreError as error:
        # One that cannot be asked now is not asked for each.
        for meta in places.values():
            found.setdefault(meta.digest, error)
    return found


def _read_at(reader: BlobReader, blob: B3Digest, offset: int, meta: ChunkMeta) -> bytes:
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
    members: Members,
    digest: B3Digest,
    *,
    watch: Watch | None = None,
    mended: Member | None = None,
    pool: Pool | None = None,
) -> PieceReader | None:
    """Open a blob at the first member that has it; `None` if it is absent.

    *watch* is told the member that had it, and each chunk and piece for which another had to be asked. With
    *pool* chunks are fetched ahead. *mended*: see `FailoverChunks`.

    Raises as `Members.first` does, and so do the reads.
    """
    doubted = any(member.wrong.doubts(digest) for member in members.all)
    order = sorted(members.all, key=lambda member: member.wrong.doubts(digest)) if doubted else None
    found = members.first(lambda member: _open(member, digest), order=order, late=_release)
    if found is None:
        return None
    if watch is not None:
        watch({digest: found})
    reader, chunks = found.value
    if isinstance(reader, CheckedReader):
        return reader
    if reader is not None:
        return FailoverReader(members, digest, reader, found.member, watch)
    source = FailoverChunks(
        members, watch=watch, blob=digest, chunks=chunks, first=found.member, mended=mended
    )
    others = _Others(members, found.member, digest, chunks, watch=watch, pool=pool)
    return ChunkedReader(
        found.member.service, chunks, digest=digest, source=source, pool=pool, recovery=others
    )


class _Others(Recovery):
    """Reads a blob at the members other than the one whose list has failed.

    For single chunks they have been asked already, by their places.
    """

    def __init__(
        self,
        members: Members,
        member: Member,
        digest: B3Digest,
        chunks: Sequence[ChunkMeta],
        *,
        watch: Watch | None,
        pool: Pool | None,
    ) -> None:
        self._others = Members(members.name, [other for other in members.all if other is not member])
        self._member = member
        self._digest = digest
        self._chunks = chunks
        self._watch = watch
        self._pool = pool

    def instead(self) -> BlobReader | None:
        """Open the blob at one of the others."""
        if self._member.final or not self._others.all:
            return None
        return open_with_failover(self._others, self._digest, watch=self._watch, pool=self._pool)

    def proved_wrong(self, error: CastoreError) -> None:  # noqa: ARG002 - it is the list that was wrong
        """Pass the list over from now on, and tell of it."""
        note_wrong(self._member, self._digest, self._chunks, self._watch)


def note_wrong(member: Member, digest: B3Digest, chunks: Sequence[ChunkMeta], watch: Watch | None) -> None:
    """Take note that what a member has of a blob is not the blob."""
    member.wrong.add(digest, chunks)
    if watch is not None:
        votes = Votes()
        votes.faults.append((member, member.wrong_index(digest)))
        watch({digest: Found(None, member, votes)})


def _open(member: Member, digest: B3Digest) -> tuple[BlobReader | None, Sequence[ChunkMeta]] | None:
    """Return the chunks of a blob; a reader of its checked bytes if it is small; else a reader."""
    chunks = member.chunks(digest)
    if chunks:
        return None, chunks
    reader = None if chunks is None else member.service.open_read(digest)
    if reader is None:
        return None
    if reader.size > SMALL:
        return reader, ()
    with reader:
        return CheckedReader(_checked(reader, digest), digest), ()


def _release(opened: tuple[BlobReader | None, object] | None) -> None:
    if opened is not None and opened[0] is not None:
        opened[0].close()


class FailoverReader(HashedPieceReader):
    """Reads a large blob that is kept in one piece; where a member fails the next one goes on."""

    def __init__(
        self, members: Members, digest: B3Digest, reader: BlobReader, member: Member, watch: Watch | None
    ) -> None:
        super().__init__(digest, reader.size)
        self._members = members
        self._readers: dict[Member, BlobReader] = {member: reader}
        self._order = sorted(members.all, key=lambda other: other is not member)
        self._watch = watch
        self._served: set[Member] = set()

    def _mismatched(self) -> bool:
        # Of several it is not known whose bytes were wrong.
        if len(self._served) != 1 or len(self._members.all) == 1:
            return False
        note_wrong(self._served.pop(), self._digest, (), self._watch)
        return True

    def _read_piece(self, position: int) -> bytes | memoryview:
        found = self._members.first(
            lambda member: self._read_at(member, position), order=self._order, late=_release_piece
        )
        if found is None:
            raise CorruptBlobError(f"blob {self._digest} went away while it was read", expected=self._digest)
        reader, data = found.value
        self._readers[found.member] = reader
        self._served.add(found.member)
        if found.votes.missed or found.votes.faults:
            failed = found.votes.others
            self._order = sorted(self._order, key=lambda member: member in failed)
            if self._watch is not None:
                self._watch({self._digest: found})
        return data

    def _read_at(self, member: Member, position: int) -> tuple[BlobReader, bytes | memoryview] | None:
        # Taken out, so that a call that is given up has it for itself, and closes it in the end.
        reader = self._readers.pop(member, None) or member.service.open_read(self._digest)
        if reader is None:
            return None
        try:
            return reader, self._piece_of(reader, member, position)
        except BaseException:
            reader.close()
            raise

    def _piece_of(self, reader: BlobReader, member: Member, position: int) -> bytes | memoryview:
        if reader.size != self._size:
            words = f"has {reader.size} bytes in `{member.name}`, and {self._size} elsewhere"
            raise CorruptBlobError(f"blob {self._digest} {words}", expected=self._digest)
        data = read_piece(reader, position)
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


def _release_piece(answer: tuple[BlobReader, object] | None) -> None:
    if answer is not None:
        answer[0].close()
