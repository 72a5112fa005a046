"""Blobs in packs: thousands of chunks, and the indexes of blobs, in one object each."""

from __future__ import annotations

import contextlib
import logging
import secrets as randomness
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, Required, TypeAlias, TypedDict, Unpack

from castore import B3Digest, BlobReader, CastoreError, ChunkMeta, CorruptBlobError
from castore.contract.batches import batches
from castore.contract.blobs import Answer
from castore.contract.capabilities import ChunkStore, FoundChunks, FrameStore
from castore.contract.upkeep import DigestRange, Inventory, StoredItem, Sweepable
from castore.digest import EMPTY, no_digest
from castore.errors import BadIndexError, UnavailableError
from castore.format import blob_index, frames
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_CHUNK_SIZE, Chunker, FastCdc2020
from castore.format.packs import PackBuilder
from castore.streams.readers import BytesReader
from castore.threads.pool import Pool
from castore_objectstore.chunked import ChunkedStore
from castore_objectstore.object_store import ObjectStore
from castore_objectstore.packed.claiming import BucketClaims
from castore_objectstore.packed.known import PACKS, KnownPacks, Pack, hour_of
from castore_objectstore.packed.sweeping import Sweeping, chunk_name, index_name
from castore_objectstore.packed.table import Row
from castore_objectstore.packed.writing import Frames, Packer, Work

if TYPE_CHECKING:
    from typing_extensions import Buffer

_log: Final = logging.getLogger("castore_objectstore")

DEFAULT_PACK_SIZE: Final = 16 << 20
DEFAULT_MAX_WASTE: Final = 0.25

_LOCAL_GAP: Final = 64 << 10
_FAR_GAP: Final = 256 << 10
"""So many bytes that nobody wants are read rather than asking twice."""

_LONGEST_RUN: Final = 8 << 20
"""How many bytes are read at once, unless a single chunk has more."""

_ROUND: Final = 1024

_MOST_TRIES: Final = 20
"""How often it is looked where something is by now whose pack is gone."""

_Sizes: TypeAlias = Mapping[B3Digest, int | None]
_Read: TypeAlias = tuple[list[Row], bytes | CastoreError | None]


class Options(TypedDict, total=False):
    """What a service of packs is made with, beside its store."""

    instance: Required[str]
    pack_size: int
    max_waste: float
    chunker: type[Chunker]
    avg_chunk_size: int
    compression_level: int
    pool: Pool | None


class PackedBlobService(ChunkedStore):
    """Keeps blobs as chunks in packs, in an `ObjectStore`.

    A chunk waits in memory until its pack is full, or the index of a blob is put; readers of this service
    find it meanwhile. The record of a blob is stored with its last chunks, or after them. No pack is ever
    changed: what is to go is left out when the others are written anew.
    """

    round = _ROUND

    def __init__(
        self,
        store: ObjectStore,
        *,
        instance: str,
        pack_size: int = DEFAULT_PACK_SIZE,
        max_waste: float = DEFAULT_MAX_WASTE,
        chunker: type[Chunker] = FastCdc2020,
        avg_chunk_size: int = DEFAULT_AVG_SIZE,
        compression_level: int = frames.DEFAULT_LEVEL,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(
            store,
            chunker=chunker,
            avg_chunk_size=avg_chunk_size,
            compression_level=compression_level,
            pool=pool,
        )
        self._instance = instance
        self._gap = _FAR_GAP if store.high_latency else _LOCAL_GAP

        def pool_of_requests() -> Pool:
            return self._pool if store.high_latency else Pool(0)

        self._known = KnownPacks(store, instance, pool_of_requests)
        in_bucket = store.folder is None and store.removes and store.lists_at_once
        self._claims = BucketClaims(store, self._known, instance, pool_of_requests) if in_bucket else None
        self._packer = Packer(self._store_pack, pack_size)
        self._sweeping = Sweeping(
            store,
            self._known,
            self._store_pack,
            self._read_runs,
            claims=self._claims,
            pack_size=pack_size,
            max_waste=max_waste,
        )

    def chunk_key(self, digest: B3Digest) -> str:
        """Return the key of the pack that has a chunk, and the chunk; of an unknown one where packs are."""
        return chunk_name(self._key(self._known.places(digest)), digest)

    def index_key(self, digest: B3Digest) -> str:
        """Return the same for the record of a blob."""
        return index_name(self._key(self._known.records(digest)), digest)

    def _key(self, places: Sequence[Row]) -> str:
        return self._known.pack(places[0].pack).key if places else PACKS.rstrip("/")

    # -- blobs --

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are neither in a record nor a chunk; nothing is asked for what is known."""
        absent = self._absent(digests)
        if absent and self._known.look():
            absent = self._absent(absent)
        return absent

    def _absent(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return {digest for digest in digests if not (self._known.records(digest) or self._has_chunk(digest))}

    def _has_chunk(self, digest: B3Digest) -> bool:
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        return self._packer.get(digest) is not None or bool(self._known.places(digest))

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk. The empty blob is always there, without asking."""
        return BytesReader(b"", EMPTY) if digest == EMPTY else super().open_read(digest)

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Yield many blobs; the sizes of chunks are known here, so a call has as many as it may."""
        wanted = dict.fromkeys(digests)
        for digest in wanted:
            if not isinstance(digest, bytes):
                raise no_digest(digest)
        sizes = {digest: self._size_of(digest) for digest in wanted}
        if None in sizes.values() and self._known.look():
            sizes = {digest: self._size_of(digest) for digest in wanted}
        for some in batches(wanted, sizes.__getitem__):
            found = self.get_chunks({digest: sizes[digest] for digest in some})
            for digest in some:
                data = found.pop(digest, None)
                # What is no chunk, or a damaged one, goes through a reader: that knows more ways.
                yield digest, data if isinstance(data, bytes) else self._opened(digest)

    def _size_of(self, digest: B3Digest) -> int | None:
        places = self._known.places(digest)
        return places[0].size or None if places else None

    def _opened(self, digest: B3Digest) -> Answer:
        try:
            return self.open_read(digest)
        except CastoreError as error:
            return error

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Read and check the index of a blob; a chunk, too, is a blob with no finer chunks."""
        index = self._index(digest)
        if index is None:
            return () if digest in self.find_chunks((digest,)) else None
        return index

    def _index(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        for looks in (self._known.look, *[self._known.look_anew] * _MOST_TRIES):
            records = self._known.records(digest)
            if not records and looks():
                records = self._known.records(digest)
            if not records:
                return None
            found = self._lists(records[:1])[digest]
            if isinstance(found, CorruptBlobError):
                raise found
            if found is not None:
                return found
            # Its pack is gone; if the blob is to stay its record is in another one by now.
            self._lose(self._known.pack(records[0].pack))
        raise self._always_gone(digest)

    def _lists(self, records: Iterable[Row]) -> dict[B3Digest, Sequence[ChunkMeta] | CorruptBlobError | None]:
        """Read what records say, those beside each other at once; `None` of one whose pack is gone."""
        found: dict[B3Digest, Sequence[ChunkMeta] | CorruptBlobError | None] = {}
        rows = []
        for row in records:
            if row.length:
                rows.append(row)
            else:
                found[B3Digest(row.digest)] = ()
        for places, data in self._read_runs(rows):
            if isinstance(data, CastoreError):
                raise data
            key = self._known.pack(places[0].pack).key
            for row in places:
                digest = B3Digest(row.digest)
                found[digest] = None
                if data is not None:
                    start = row.offset - places[0].offset
                    found[digest] = _decoded(data[start : start + row.length], row, index_name(key, digest))
        return found

    def _always_gone(self, digest: B3Digest) -> UnavailableError:
        return UnavailableError(
            self._instance, f"{digest}: its pack was gone each time that it was looked up"
        )

    def _lose(self, pack: Pack) -> None:
        self._known.lose(pack)
        self._known.look_anew()

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every record; then raise `UnavailableError` if others may have been lost."""
        self._known.look_anew()
        last = None
        for place in self._known.all_records():
            if place.digest != last:
                last = place.digest
                yield B3Digest(last)
        self._require_footers()

    def _require_footers(self) -> None:
        """Raise `UnavailableError` if blobs may be there that are not known."""
        for pack in self._known.all_packs():
            if pack.damage is not None:
                raise UnavailableError(
                    self._instance,
                    f"{pack.key}: {pack.damage}; its blobs are not known, and this list may lack some:"
                    " bring the pack back from a copy, or store these blobs again, and move it away",
                )

    def complete(self, digits: str) -> Iterator[B3Digest]:
        """Yield the blobs and chunks that begin with *digits*."""
        self._known.look_anew()
        seen: set[bytes] = set()
        for places in (self._known.all_records(), self._known.all_chunks()):
            for place in places:
                if place.digest.hex().startswith(digits) and place.digest not in seen:
                    seen.add(place.digest)
                    yield B3Digest(place.digest)

    # -- chunks --

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that wait, or are in a pack."""
        wanted = set(digests)
        found = {digest for digest in wanted if self._has_chunk(digest)}
        if found != wanted and self._known.look():
            found |= {digest for digest in wanted - found if self._has_chunk(digest)}
        return found

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks, unpacked within bounds and checked; a damaged one is taken from another pack."""
        return self._get(sizes, self._decode)

    def _decode(self, frame: bytes, digest: B3Digest, size: int | None, key: str) -> bytes:
        return frames.decode_chunk(frame, digest, size=size, key=key)

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        """Return the frames of chunks, unchecked."""
        known = digests if isinstance(digests, Mapping) else {}
        wanted = list(dict.fromkeys(digests))
        # One alone may be as large as any.
        default = MAX_CHUNK_SIZE if len(wanted) == 1 else None
        sizes = {digest: size if isinstance(size := known.get(digest), int) else default for digest in wanted}
        return self._get(sizes, lambda frame, *_: frame)

    def _get(self, sizes: _Sizes, take: _Take) -> FoundChunks:
        found: FoundChunks = {}
        left = self._get_waiting(sizes, sizes, take, found)
        tried: defaultdict[B3Digest, set[int]] = defaultdict(set)
        looked = False
        while left:
            runs, absent = self._runs(left, tried, sizes, found)
            if absent and not looked:
                looked = True
                # Between the look at what waits and that at packs it may have got into one.
                still = self._get_waiting(absent, sizes, take, found)
                if still and self._known.look():
                    left = [digest for run in runs for digest in run] + still
                    continue
            left = []
            for places, data in self._read_all(runs.values()):
                if data is None:
                    self._lose(self._known.pack(places[0].pack))
                    looked = False
                    left += [B3Digest(place.digest) for place in places]
                else:
                    left += self._take_run((places, data), sizes, take, found, tried)
        return found

    def _get_waiting(
        self, digests: Iterable[B3Digest], sizes: _Sizes, take: _Take, found: FoundChunks
    ) -> list[B3Digest]:
        """Get what waits; return what does not."""
        left = []
        for digest in digests:
            frame = self._packer.get(digest)
            if frame is None:
                left.append(digest)
            else:
                found[digest] = _attempt(take, frame, digest, sizes[digest], "(waits to be stored)")
        return left

    def _take_run(
        self,
        read: tuple[list[Row], bytes | CastoreError],
        sizes: _Sizes,
        take: _Take,
        found: FoundChunks,
        tried: Mapping[B3Digest, set[int]],
    ) -> Iterator[B3Digest]:
        """Take what was read; yield those that are to be had from another pack, if at all."""
        places, data = read
        pack = self._known.pack(places[0].pack)
        for place in places:
            digest = B3Digest(place.digest)
            tried[digest].add(place.pack)
            answer: bytes | CastoreError
            if isinstance(data, CastoreError):
                answer = data
            else:
                start = place.offset - places[0].offset
                frame = data[start : start + place.length]
                answer = _attempt(take, frame, digest, sizes[digest], chunk_name(pack.key, digest))
            if not isinstance(answer, CastoreError):
                found[digest] = answer
                continue
            found.setdefault(digest, answer)
            if any(each.pack not in tried[digest] for each in self._known.places(digest)):
                yield digest

    def _runs(
        self,
        digests: Iterable[B3Digest],
        tried: Mapping[B3Digest, set[int]],
        sizes: _Sizes,
        found: FoundChunks,
    ) -> tuple[dict[tuple[B3Digest, ...], list[Row]], list[B3Digest]]:
        """Return what is to be read at once, and those of which there is no place."""
        by_pack: defaultdict[int, list[Row]] = defaultdict(list)
        absent = []
        for digest in digests:
            done = tried.get(digest, ())
            places = [place for place in self._known.places(digest) if place.pack not in done]
            if not places:
                if digest not in found:
                    absent.append(digest)
            elif places[0].length > frames.longest(sizes[digest]):
                found[digest] = frames.too_long(digest, sizes[digest], key=self.chunk_key(digest))
            else:
                by_pack[places[0].pack].append(places[0])
        runs = {
            tuple(B3Digest(place.digest) for place in run): run
            for places in by_pack.values()
            for run in self._joined(places)
        }
        return runs, absent

    def _joined(self, places: list[Row]) -> Iterator[list[Row]]:
        """Yield what is to be read at once of one pack."""
        places.sort(key=lambda place: place.offset)
        run: list[Row] = []
        for place in places:
            if run and (
                place.offset - (run[-1].offset + run[-1].length) > self._gap
                or place.offset + place.length - run[0].offset > _LONGEST_RUN
            ):
                yield run
                run = []
            run.append(place)
        if run:
            yield run

    def _read_runs(self, rows: Iterable[Row]) -> Iterator[_Read]:
        """Read parts of packs, in the order of packs and offsets; with `None` those whose pack is gone."""
        by_pack: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_pack[row.pack].append(row)
        return self._read_all(run for number in sorted(by_pack) for run in self._joined(by_pack[number]))

    def _read_all(self, runs: Iterable[list[Row]]) -> Iterator[_Read]:
        return (self._pool.map if self.high_latency else map)(self._read_run, runs)

    def _read_run(self, places: list[Row]) -> _Read:
        start, last = places[0].offset, places[-1]
        try:
            key = self._known.pack(places[0].pack).key
            return places, self._store.get_range(key, start, last.offset + last.length - start)
        except CastoreError as error:
            return places, error

    # -- writing --

    @contextlib.contextmanager
    def _leased(self, *, brief: bool) -> Iterator[ChunkStore]:
        work = Work()
        # A collector looks for one in folders, and in buckets that it collects.
        is_needed = not brief and (self._store.folder is not None or self._claims is not None)
        with self._store.lease() if is_needed else contextlib.nullcontext():
            try:
                yield _LeasedPacks(self, work)
            finally:
                self._packer.leave(work)

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        """Enter with a store that has a pack of its own, so that what goes through it lies together."""
        return self._leased(brief=brief)

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Compress chunks together, and let them wait for their pack to be stored."""
        self.put_chunks_of(self._packer.common, chunks)

    def put_chunks_of(self, work: Work, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Do the same for a lease."""
        ticket = self._packer.take_ticket(work)
        packed: Frames = ()
        try:
            data = list(chunks.values())
            found = zip(chunks, frames.compress_each(data, self._level), data, strict=True)
            packed = [(digest, frame, memoryview(each).nbytes) for digest, frame, each in found]
        finally:
            self._packer.add(work, ticket, packed)

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Let the frames of chunks wait for their pack to be stored."""
        self.put_frames_of(self._packer.common, frames)

    def put_frames_of(self, work: Work, stored: Mapping[B3Digest, bytes]) -> None:
        """Do the same for a lease; a chunk of several frames becomes one."""
        ticket = self._packer.take_ticket(work)
        packed: Frames = ()
        try:
            packed = [
                (digest, bytes(frame) if frames.is_single(frame) else self._as_one(frame), 0)
                for digest, frame in stored.items()
            ]
        finally:
            self._packer.add(work, ticket, packed)

    def _as_one(self, frame: bytes) -> bytes:
        return frames.compress(frames.unpack(frame), self._level)

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are there; packs that are not recent are renewed, once for all their chunks."""
        return self.claim_for(self._packer.common, digests)

    def claim_for(self, work: Work, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Do the same for a lease, which counts on what waits in others from now on."""
        return self._claim(work, set(digests), {})

    def _claim(self, work: Work, wanted: set[B3Digest], there: dict[int, bool]) -> set[B3Digest]:
        """Claim chunks; *there* has the packs that were claimed already, and whether they are there."""
        claimed = self._packer.claim(wanted, work)
        left = wanted - claimed
        looked = False
        while left:
            places = {digest: self._known.places(digest) for digest in left}
            lost = self._claim_packs((row.pack for rows in places.values() for row in rows[:1]), there)
            # Where the newest pack is no use there may be others.
            found = {digest for digest, rows in places.items() if any(there.get(row.pack) for row in rows)}
            others = (row.pack for digest, rows in places.items() if digest not in found for row in rows)
            lost = self._claim_packs(others, there) or lost
            found = {digest for digest, rows in places.items() if any(there.get(row.pack) for row in rows)}
            claimed |= found
            left -= found
            if lost:
                # What is to stay of a pack that is gone is in another one by now.
                self._known.look_anew()
            elif looked or not left or not self._known.look():
                break
            looked = True
        return claimed | self._packer.claim(left, work)

    def _claim_packs(self, numbers: Iterable[int], there: dict[int, bool]) -> bool:
        """Claim packs that are not in *there*, where it is noted; tell whether any of them is gone."""
        new = [number for number in dict.fromkeys(numbers) if number not in there]
        if self._claims is None:
            there.update({number: self._claim_pack(number) for number in new})
        else:
            packs = [self._known.pack(number) for number in new]
            kept = self._claims.claim(packs)
            there.update({number: number in kept for number in new})
            # One that is to go is there, and is not to be relied on: nothing is to be looked for.
            new = [pack.number for pack in packs if not self._claims.is_marked(pack)]
            for number in new:
                if not there[number]:
                    self._known.lose(self._known.pack(number))
        return not all(there[number] for number in new)

    def _claim_pack(self, number: int) -> bool:
        if self._store.folder is None:
            return True  # Nothing takes it away there.
        pack = self._known.pack(number)
        # It has its name only as a whole; one that was cut since has another size.
        if self._store.claim(pack.key, lambda _, size: size == pack.size, sys.maxsize):
            return True
        self._known.lose(pack)
        return False

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those of which there is a record, and all chunks."""
        return self.claim_blobs_for(self._packer.common, blobs)

    def claim_blobs_for(
        self, work: Work, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]
    ) -> set[B3Digest]:
        """Do the same for a lease."""
        if any(not self._known.records(digest) for digest in blobs):
            self._known.look()
        there: dict[int, bool] = {}
        needs = {}
        for digest, chunks in self._claim_records(blobs, there).items():
            known = blobs[digest]
            if known is None or blob_index.same_list(chunks, known):
                needs[digest] = {meta.digest for meta in chunks} or {digest} - {EMPTY}
        claimed = self._claim(work, set().union(*needs.values()), there)
        return {digest for digest, needed in needs.items() if needed <= claimed}

    def _claim_records(
        self, blobs: Iterable[B3Digest], there: dict[int, bool]
    ) -> dict[B3Digest, Sequence[ChunkMeta]]:
        """Claim the packs of records; return the lists of those that still count after that."""
        claimed = {}
        records = {digest: self._known.records(digest) for digest in blobs}
        self._claim_packs((row.pack for rows in records.values() for row in rows[:1]), there)
        for digest, rows in records.items():
            for row in rows:
                self._claim_packs((row.pack,), there)
                if there[row.pack] and not self._is_to_go(row):
                    claimed[digest] = row
                    break
        if not claimed:
            return {}
        # After the claim: somebody may have buried a record just before.
        self._known.look_for_dead()
        lists = self._lists(row for row in claimed.values() if self._known.counts(row))
        return {
            digest: chunks
            for digest, chunks in lists.items()
            if chunks is not None and not isinstance(chunks, CorruptBlobError)
        }

    def _is_to_go(self, record: Row) -> bool:
        """Tell whether a collector has seen to it that nobody relies on a record; its pack is claimed."""
        if self._claims is None:
            return False
        return self._claims.is_record_marked(self._known.pack(record.pack), record.digest)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Store the records of blobs with all chunks that wait, or after them."""
        self.put_indexes_of(self._packer.common, blobs)

    def put_indexes_of(self, work: Work, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Do the same for a lease."""
        new: dict[B3Digest, bytes] = {}
        others: list[tuple[bytes, bytes]] = []
        needed: set[B3Digest] = set()
        claimed = self._claim_records(blobs, {})
        for digest, chunks in blobs.items():
            if digest in claimed and blob_index.same_list(claimed[digest], chunks):
                continue
            records = self._known.records(digest)
            others += ((self._known.pack(place.pack).name, digest) for place in records)
            new[digest] = blob_index.encode(chunks)
            needed.update(meta.digest for meta in chunks)
            needed.add(digest)
        # They may wait in a pack of another lease.
        self._packer.claim(needed, work)
        self._packer.close_pack(work, new)
        self._sweeping.bury(others)

    def _store_pack(self, builder: PackBuilder, indexes: Mapping[B3Digest, bytes]) -> Pack:
        self._known.ensure_format()
        # A record may take the place of one that counts no more, and be stored with nothing else: without
        # a name of its own its pack could be the very one of which that is said.
        # In a bucket no name ever comes back, as somebody may be about to remove what had it.
        own_name = bool(indexes) or self._claims is not None
        pack = builder.finish(indexes, randomness.token_bytes(16) if own_name else b"")
        key = f"{PACKS}{hour_of(time.time())}/{pack.digest.hex()}"
        self._store.put_pieces(key, pack.pieces)
        return self._known.add(key, pack.size, pack.footer)

    # -- the store --

    def close(self) -> None:
        """Store what waits, and release connections.

        What waits is no part of a blob that anybody was told of: that it cannot be kept is no error.
        """
        try:
            self._packer.close_pack(self._packer.common, {})
        except UnavailableError as error:
            _log.warning("chunks that are of no blob are dropped: %s", error)
        finally:
            super().close()


class PackInventory(PackedBlobService, Inventory):
    """The same, where things can be removed: it lists all that it has, and moves single things away."""

    def list_items(self) -> Iterator[StoredItem]:
        """Yield each record that counts, each chunk in each pack, and what killed writers have left.

        Raises `UnavailableError` after the records if others may have been lost.
        """
        self._known.look_anew()
        yield from map(self._sweeping.index_item, self._known.all_records())
        self._require_footers()
        yield from map(self._sweeping.chunk_item, self._known.all_chunks())
        yield from self._sweeping.residue()

    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        """Yield those in a range, of what is known; what killed writers have left comes with the first.

        The packs are listed anew for the first range, and for others if that is some seconds ago.
        """
        self._look_for_part(part)
        yield from map(self._sweeping.index_item, self._known.all_records(part))
        self._require_footers()
        yield from map(self._sweeping.chunk_item, self._known.all_chunks(part))
        if part.first is None:
            yield from self._sweeping.residue()

    def _look_for_part(self, part: DigestRange) -> bool:
        return self._known.look_for_part(part)

    def set_aside(self, item: StoredItem) -> str:
        """Let a record count no more; write the pack of a chunk anew without it, and move the old one."""
        self._known.look_anew()
        return self._sweeping.set_aside(item)


class SweepablePacks(PackInventory, Sweepable):
    """The same where garbage is collected: in a folder, or a bucket that lists what was put."""

    def list_items(self) -> Iterator[StoredItem]:
        """Yield the same, with the times of claims where these are objects."""
        if self._claims is not None:
            self._claims.look_at_claims()
        yield from super().list_items()

    def _look_for_part(self, part: DigestRange) -> bool:
        anew = super()._look_for_part(part)
        if anew and self._claims is not None:
            self._claims.look_at_claims()
        return anew

    @property
    def sweeps_together(self) -> bool:
        """A pack has many items, and goes as a whole."""
        return True

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Let records count no more; remove packs of which enough is garbage, once the rest is elsewhere."""
        if self._claims is None:
            self._known.look_anew()
        else:
            self._claims.look_at_all()
        self._require_footers()
        yield from self._sweeping.sweep(items, older_than)
        self._store.flush()

    @property
    def renewal_seconds(self) -> float:
        """How old the time of a pack may be before a claim renews it."""
        return self._store.renewal_seconds

    def leased_since(self) -> float | None:
        """Return the time of the oldest lease in the store."""
        return self._store.leased_since()


def packs_in(store: ObjectStore, **options: Unpack[Options]) -> PackedBlobService:
    """Return the service that can do what its store can; *options* are those of `PackedBlobService`."""
    if not store.removes:
        return PackedBlobService(store, **options)
    collects = store.folder is not None or store.lists_at_once
    return (SweepablePacks if collects else PackInventory)(store, **options)


class _LeasedPacks(ChunkStore, FrameStore):
    """The chunk store of one lease: a pack of its own, and all that is there."""

    def __init__(self, service: PackedBlobService, work: Work) -> None:
        self._service = service
        self._work = work
        self.high_latency = service.high_latency
        self.round = service.round

    @property
    def pool(self) -> Pool:
        return self._service.pool

    def new_chunker(self) -> Chunker:
        return self._service.new_chunker()

    def chunk_key(self, digest: B3Digest) -> str:
        return self._service.chunk_key(digest)

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self._service.find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return self._service.get_chunks(sizes)

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        return self._service.claim_for(self._work, digests)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        return self._service.claim_blobs_for(self._work, blobs)

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        self._service.put_chunks_of(self._work, chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self._service.put_indexes_of(self._work, blobs)

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        return self._service.lease(brief=brief)

    @property
    def frame_format(self) -> str:
        return self._service.frame_format

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        return self._service.get_frames(digests)

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        self._service.put_frames_of(self._work, frames)


class _Take(Protocol):
    """What is made of a frame: called with it, its digest, the size that is known, and its key."""

    def __call__(self, frame: bytes, digest: B3Digest, size: int | None, key: str) -> bytes: ...


def _decoded(data: bytes, row: Row, key: str) -> Sequence[ChunkMeta] | CorruptBlobError:
    digest = B3Digest(row.digest)
    if len(data) != row.length:
        return BadIndexError(f"the index of blob {digest} is cut short", expected=digest, key=key)
    try:
        return blob_index.decode(data, digest, key=key)
    except CorruptBlobError as error:
        return error


def _attempt(take: _Take, frame: bytes, digest: B3Digest, size: int | None, key: str) -> bytes | CastoreError:
    try:
        return take(frame, digest, size, key)
    except CastoreError as error:
        return error
