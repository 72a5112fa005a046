"""Taking away what is garbage in a store of packs, beside writers, readers and other collectors.

A pack is removed as a whole. What is to stay of one is first written into a new pack, or is known, by a look
at its bytes, to be in another one. A pack of which little is garbage stays as it is.

What keeps each race harmless in a folder (`claiming` says what does so in a bucket):

- *A writer claims a pack that is about to be removed.* A claim renews its time, under a lock; the time is
  looked at again under that lock in the moment of removal. Either the pack stays, or the claim says that it
  is not there.
- *A writer claims a record that is about to count no more.* That is said under the lock, and only of a pack
  whose time is old in that moment; who claims a record looks after its claim whether it counts.
- *Two collectors have each the other's pack for the one that stays.* Each claims what it relies on before it
  removes anything, as a writer does. One of the claims comes first; the pack that it is of is young then.
- *A reader has it from a pack that is gone by now.* It looks again, and finds the new one: that was there
  before. A list of packs is made under the lock, or else the new pack might not be there yet when it comes
  to its place, and the old one not any more.
- *A collector is killed.* New packs are there twice over until the next one comes. Nothing is removed before
  all that takes its place is as lasting as what is put.

Records go before chunks, and are gone for good before the first pack is touched.
"""

from __future__ import annotations

import logging
import secrets as randomness
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Final, TypeAlias

import attrs

from castore import B3Digest, CastoreError, CorruptBlobError, owned
from castore.contract.upkeep import StoredItem
from castore.format import blob_index, frames, packs
from castore.format.packs import PackBuilder
from castore_objectstore.object_store import ObjectStore, StoredObject
from castore_objectstore.packed.claiming import CLAIMS, MARKS, BucketClaims
from castore_objectstore.packed.known import DEAD, PACKS, KnownPacks, Pack, hour_of
from castore_objectstore.packed.table import Row

_log: Final = logging.getLogger("castore_objectstore")

_WASTE: Final = 0.10
"""Of what part of a store waste is borne with, wherever it is."""

_SMALL: Final = 4
"""Packs of less than this part of a full one are written together once they make a full one."""

_MOST_CHUNKS: Final = 1 << 16

_RECORD_SIZE: Final = 36
_LEAST: Final = packs.LEAST_BYTES + 24
"""The bytes of a pack with records that has nothing in it."""

_INDEX_OF: Final = "index of "

SETTLE_SECONDS: Final = 3600.0
"""How old what takes the place of a pack must be in a bucket before that goes.

Longer than a list of all packs takes, which else might have neither the old pack nor the new one.
"""

Reads: TypeAlias = Callable[[Iterable[Row]], Iterable[tuple[list[Row], "bytes | CastoreError | None"]]]
_Going: TypeAlias = tuple[StoredItem, Pack, tuple[bytes, bytes]]
"""The item of a record, its pack, and the names of that and of the blob."""

Stores: TypeAlias = Callable[[PackBuilder, Mapping[B3Digest, bytes]], Pack]


def chunk_name(key: str, digest: B3Digest) -> str:
    """Return what a chunk in a pack is called."""
    return f"{key}: {digest}"


def index_name(key: str, digest: B3Digest) -> str:
    """Return what the record of a blob in a pack is called."""
    return f"{key}: {_INDEX_OF}{digest}"


@attrs.define(eq=False)
class _Removal:
    """A pack that is to be removed.

    Attributes:
        pack: It.
        relies: The packs that are to stay for it.
        relies_on_records: The records in them, with their packs.
        kept: What is wrong with it, so that it stays.
        left: Whether it is left alone for this time: others were faster somewhere.
    """

    pack: Pack
    relies: set[int] = attrs.field(factory=set)
    relies_on_records: set[tuple[int, bytes]] = attrs.field(factory=set)
    kept: str | None = None
    left: bool = False


class Sweeping:
    """Removes records, chunks and packs; each call is on its own.

    Arguments:
        store: Where the packs are.
        known: What is known of them; it was looked at everything just before each call.
        store_pack: Stores a pack for good.
        read: Reads parts of packs, those beside each other at once.
        claims: Keeps claims and removals apart where nothing can be locked; `None` in a folder.
        pack_size: How many bytes a full pack has.
        max_waste: What part of a pack may be waste.
    """

    def __init__(
        self,
        store: ObjectStore,
        known: KnownPacks,
        store_pack: Stores,
        read: Reads,
        *,
        claims: BucketClaims | None,
        pack_size: int,
        max_waste: float,
    ) -> None:
        self._store = store
        self._known = known
        self._store_pack = store_pack
        self._read = read
        self._claims = claims
        self.settle_seconds = SETTLE_SECONDS
        self._pack_size = pack_size
        self._max_waste = max_waste

    # -- items --

    def index_item(self, row: Row) -> StoredItem:
        """Return the item of a record."""
        pack, digest = self._known.pack(row.pack), B3Digest(row.digest)
        size = _RECORD_SIZE + row.length
        return StoredItem("index", index_name(pack.key, digest), digest, size, self._time_of(pack))

    def chunk_item(self, row: Row) -> StoredItem:
        """Return the item of a chunk in a pack."""
        pack, digest = self._known.pack(row.pack), B3Digest(row.digest)
        return StoredItem("chunk", chunk_name(pack.key, digest), digest, row.length, self._time_of(pack))

    def _time_of(self, pack: Pack) -> float | None:
        return pack.modified if self._claims is None else self._claims.time_of(pack)

    def _is_old(self, pack: Pack, limit: float) -> bool:
        modified = self._time_of(pack)
        return modified is not None and modified < limit

    def _is_marked(self, pack: Pack) -> bool:
        return self._claims is not None and self._claims.is_marked(pack)

    def residue(self) -> Iterator[StoredItem]:
        """Yield what killed writers have left, and what is somebody else's."""
        for prefix in (PACKS, DEAD) if self._claims is None else (PACKS, DEAD, CLAIMS, MARKS):
            for entry in self._store.list(prefix, into=owned.is_hour):
                place = None if entry.foreign else owned.packed_at(entry.key)
                if place is None or place.left_over:
                    yield StoredItem(
                        "residue", entry.key, None, entry.size, entry.modified, foreign=place is None
                    )
        for mark in self._store.list_marks():
            yield StoredItem("residue", mark.key, None, mark.size, mark.modified)

    # -- records --

    def bury(self, pairs: Sequence[tuple[bytes, bytes]]) -> str:
        """Have records count no more, pairs of a pack's name and a blob's digest; return what says so."""
        key = ""
        for start in range(0, len(pairs), packs.MOST_PAIRS):
            some = pairs[start : start + packs.MOST_PAIRS]
            key = self._put_dead(some)
            self._known.bury(key, some)
        return key

    def _put_dead(self, pairs: Sequence[tuple[bytes, bytes]]) -> str:
        data = packs.encode_dead(pairs, randomness.token_bytes(16))
        key = f"{DEAD}{hour_of(time.time())}/{B3Digest.of(data).hex()}"
        self._store.put_pieces(key, (data,))
        return key

    def _sweep_records(self, items: Sequence[StoredItem], limit: float) -> Iterator[StoredItem]:
        bury = self._bury_locked if self._claims is None else partial(self._bury_marked, self._claims)
        for start in range(0, len(items), packs.MOST_PAIRS):
            going: list[_Going] = []
            for item in items[start : start + packs.MOST_PAIRS]:
                pack = self._known.pack_at(_pack_key(item.key))
                if pack is not None and item.digest is not None:
                    going.append((item, pack, (bytes(pack.name), bytes(item.digest))))
            yield from bury(going, limit)

    def _bury_locked(self, items: Sequence[_Going], limit: float) -> list[StoredItem]:
        """Bury records of old packs in a folder; return those that are."""
        going = []
        key = ""
        # A record that somebody claims meanwhile is claimed when this is said, or not yet.
        with self._store.without_claims():
            ages: dict[str, bool] = {}
            for item, pack, pair in items:
                if pack.key not in ages:
                    found = self._store.describe(pack.key)
                    ages[pack.key] = (
                        found is not None and found.modified is not None and found.modified < limit
                    )
                if ages[pack.key]:
                    going.append((item, pair))
            if going:
                key = self._put_dead([pair for _, pair in going])
        # Not before: who looks at packs waits for that lock.
        if going:
            self._known.bury(key, [pair for _, pair in going])
        return [item for item, _ in going]

    def _bury_marked(self, claims: BucketClaims, items: Sequence[_Going], limit: float) -> list[StoredItem]:
        """Do the same in a bucket: who claims a record later sees the mark, others are seen here."""
        old = [each for each in items if self._is_old(each[1], limit)]
        if not old:
            return []
        claims.mark(pair for _, _, pair in old)
        going = [(item, pair) for item, pack, pair in old if self._is_old(pack, limit)]
        if going:
            pairs = [pair for _, pair in going]
            self._known.bury(self._put_dead(pairs), pairs)
        return [item for item, _ in going]

    # -- all of it --

    def sweep(self, items: Iterable[StoredItem], older_than: float) -> Iterator[StoredItem]:
        """Remove items that are old, see `Sweepable.sweep`; of none, put the packs in order.

        Records alone leave the packs as they are: chunks come after them, and are listed by their packs.
        """
        # A claim may have left a time as it was that was recent enough.
        limit = older_than - self._store.renewal_seconds
        nothing = True
        records: list[StoredItem] = []
        residue: list[StoredItem] = []
        chunks: defaultdict[int, dict[bytes, int]] = defaultdict(dict)
        for item in items:
            nothing = False
            if item.kind == "index":
                records.append(item)
            elif item.kind == "residue":
                residue.append(item)
            elif (pack := self._known.pack_at(_pack_key(item.key))) is not None and item.digest is not None:
                # There may be many of them: a size is all that is kept.
                chunks[pack.number][bytes(item.digest)] = item.size or 0
        yield from self._sweep_records(records, limit)
        if chunks or nothing:
            for pack in self._sweep_packs(chunks, limit, older_than):
                for name, size in chunks.get(pack.number, {}).items():
                    digest = B3Digest(name)
                    yield StoredItem("chunk", chunk_name(pack.key, digest), digest, size, pack.modified)
            self._remove_needless_dead()
            if self._claims is not None:
                self._claims.remove_needless(limit)
        for item in residue:
            entry = StoredObject(item.key, item.size, item.modified)
            if not item.foreign and list(self._store.sweep((entry,), older_than)):
                yield item

    def _remove_needless_dead(self) -> None:
        needless = self._known.needless_dead()
        if needless:
            # The packs that they are about must not come back without them.
            self._store.flush()
            self._store.remove(needless)

    # -- packs --

    def _sweep_packs(
        self, garbage: Mapping[int, Collection[bytes]], limit: float, older_than: float
    ) -> Iterator[Pack]:
        """Yield the packs that are gone."""
        chosen = self._choose(garbage, limit)
        if self._claims is not None and chosen:
            self._claims.mark_packs(chosen)
            # After the marks: who claims one later does not rely on it.
            chosen = [pack for pack in chosen if self._is_old(pack, limit)]
        removals = {pack.number: _Removal(pack) for pack in chosen}
        if not removals:
            return
        self._move_chunks(removals, garbage)
        self._move_records(removals)
        self._claim_what_stays(removals.values())
        for removal in removals.values():
            pack = removal.pack
            if removal.kept is not None:
                _log.warning("%s stays: %s", pack.key, removal.kept)
            if removal.kept is not None or removal.left:
                continue
            entry = StoredObject(pack.key, pack.size, pack.modified)
            if list(self._store.sweep((entry,), older_than)):
                self._known.lose(pack)
                yield pack

    def _claim_what_stays(self, removals: Collection[_Removal]) -> None:
        """Claim all that others rely on; leave alone what relies on something that is not there."""
        relied = {number for removal in removals if not removal.left for number in removal.relies}
        if self._claims is None:
            there = {number for number in relied if self._claim(self._known.pack(number))}
        else:
            settled = time.time() - self.settle_seconds
            there = self._claims.claim(
                pack
                for number in relied
                if (pack := self._known.pack(number)).modified is not None and pack.modified < settled
            )
        for removal in removals:
            if not removal.relies <= there or any(
                self._is_record_marked(number, digest) for number, digest in removal.relies_on_records
            ):
                removal.left = True

    def _is_record_marked(self, number: int, digest: bytes) -> bool:
        return self._claims is not None and self._claims.is_record_marked(self._known.pack(number), digest)

    def _claim(self, pack: Pack) -> bool:
        return self._store.claim(pack.key, lambda _, size: size == pack.size, packs.MOST_BYTES)

    def _chunks_by_digest(self, garbage: Mapping[int, Collection[bytes]]) -> Iterator[list[Row]]:
        """Yield the places of each chunk that is to stay, the best one first."""
        for digest, group in groupby(self._known.all_chunks(), attrgetter("digest")):
            rows = [row for row in group if digest not in garbage.get(row.pack, ())]
            if rows:
                yield self._best_first(rows)

    def _records_by_digest(self) -> Iterator[list[Row]]:
        for _, group in groupby(self._known.all_records(), attrgetter("digest")):
            yield self._best_first(group)

    def _best_first(self, rows: Iterable[Row]) -> list[Row]:
        """Sort places, the newest first, and last those that are to go anyway."""
        return sorted(rows, key=lambda row: (self._is_marked(self._known.pack(row.pack)), -row.pack))

    def _choose(self, garbage: Mapping[int, Collection[bytes]], limit: float) -> list[Pack]:
        """Return the packs that are to be removed: those of garbage alone, and those of much."""
        old = {
            pack.number
            for pack in self._known.all_packs()
            if pack.damage is None and self._is_old(pack, limit)
        }
        leaving = {pack.number for pack in self._known.all_packs() if self._is_marked(pack)}
        used: defaultdict[int, int] = defaultdict(int)
        for rows in self._chunks_by_digest(garbage):
            home = _home(rows, old | leaving)
            used[home.pack] += home.length + packs.ENTRY_SIZE
        for rows in self._records_by_digest():
            home = _home(rows, old | leaving)
            used[home.pack] += home.length + _RECORD_SIZE
        needless, partly = [], []
        size = waste = 0
        for pack in self._known.all_packs():
            if pack.number in leaving:
                if pack.number in old:
                    needless.append(pack)
                continue
            if pack.number in old and not used[pack.number]:
                needless.append(pack)
                continue
            size += pack.size
            spoilt = max(pack.size - used[pack.number] - _LEAST, 0)
            if pack.number in old:
                waste += spoilt
                partly.append((spoilt / pack.size, spoilt, pack))
        partly.sort(key=lambda each: -each[0])
        rewritten = []
        small = []
        for part, spoilt, pack in partly:
            if spoilt and (part > self._max_waste or waste > _WASTE * size):
                rewritten.append(pack)
                waste -= spoilt
                size -= spoilt
            elif pack.size < self._pack_size // _SMALL:
                small.append(pack)
        if sum(pack.size for pack in small) >= self._pack_size:
            rewritten += small
        return needless + rewritten

    # -- what is to stay --

    def _move_chunks(
        self, removals: Mapping[int, _Removal], garbage: Mapping[int, Collection[bytes]]
    ) -> None:
        """Store all chunks that are to stay of packs that are not, unless they are whole elsewhere."""
        shared: dict[Row, list[Row]] = {}
        moving: list[list[Row]] = []
        for rows in self._chunks_by_digest(garbage):
            leaving = [row for row in rows if row.pack in removals]
            staying = next((row for row in rows if row.pack not in removals and self._is_sure(row)), None)
            if leaving and staying is None:
                moving.append(leaving)
            elif leaving and staying is not None:
                shared[staying] = leaving
        for row, found in self._read_each(shared):
            if found is None:
                moving.append(shared[row])
            else:
                for each in shared[row]:
                    removals[each.pack].relies.add(row.pack)
        self._leave(moving, removals)
        builder = PackBuilder()
        for row, data, frame in self._read_any(moving, removals):
            builder.add(row.digest, frame, len(data))
            if builder.size >= self._pack_size or len(builder) >= _MOST_CHUNKS:
                self._store_pack(builder, {})
                builder = PackBuilder()
        if len(builder):
            self._store_pack(builder, {})

    def _is_sure(self, row: Row) -> bool:
        pack = self._known.pack(row.pack)
        return pack.damage is None and not self._is_marked(pack)

    def _leave(self, moving: Iterable[Iterable[Row]], removals: Mapping[int, _Removal]) -> None:
        """Leave for a later run what is now written anew, where lists of packs are made at any time."""
        if self._claims is not None:
            for rows in moving:
                for row in rows:
                    removals[row.pack].left = True

    def _read_any(
        self, moving: Iterable[list[Row]], removals: Mapping[int, _Removal]
    ) -> Iterator[tuple[Row, bytes, bytes]]:
        """Yield each chunk and its frame, from the first of its places that is right.

        What is right in none of them keeps the packs that it is in.
        """
        places = {rows[0]: rows[1:] for rows in moving}
        while places:
            later: dict[Row, list[Row]] = {}
            for row, found in self._read_each(places):
                others = places[row]
                if found is not None:
                    yield row, *found
                elif others:
                    later[others[0]] = others[1:]
                else:
                    for each in self._known.places(row.digest):
                        if each.pack in removals:
                            self._keep(removals[each.pack], f"chunk {B3Digest(row.digest)} is damaged in it")
            places = later

    def _keep(self, removal: _Removal, message: str) -> None:
        """Let a pack stay that lacks something; another collector may have removed it meanwhile."""
        if self._store.describe(removal.pack.key) is None:
            removal.left = True
        else:
            removal.kept = message

    def _read_each(self, rows: Iterable[Row]) -> Iterator[tuple[Row, tuple[bytes, bytes] | None]]:
        """Yield chunks in the order of their places, with their checked bytes and frames, `None` if bad."""
        for places, data in self._read(rows):
            for row, frame in _parts(places, data):
                yield row, _checked(frame, row.digest)

    def _move_records(self, removals: Mapping[int, _Removal]) -> None:
        """Store all records of packs that are to be removed, after the chunks."""
        moving = []
        for rows in self._records_by_digest():
            leaving = [row for row in rows if row.pack in removals]
            staying = next(
                (
                    row
                    for row in rows
                    if row.pack not in removals
                    and self._is_sure(row)
                    and not self._is_record_marked(row.pack, row.digest)
                ),
                None,
            )
            if leaving and staying is not None:
                for row in leaving:
                    removals[row.pack].relies.add(staying.pack)
                    removals[row.pack].relies_on_records.add((staying.pack, row.digest))
            elif leaving:
                moving.append(leaving[0])
                self._leave((leaving,), removals)
        indexes: dict[B3Digest, bytes] = {}
        size = 0
        for row, index in self._read_records(moving, removals):
            indexes[B3Digest(row.digest)] = index
            size += _RECORD_SIZE + len(index)
            if size >= self._pack_size or len(indexes) >= _MOST_CHUNKS:
                self._store_pack(PackBuilder(), indexes)
                indexes, size = {}, 0
        if indexes:
            self._store_pack(PackBuilder(), indexes)

    def _read_records(
        self, rows: Iterable[Row], removals: Mapping[int, _Removal]
    ) -> Iterator[tuple[Row, bytes]]:
        with_list = []
        for row in rows:
            if row.length:
                with_list.append(row)
            else:
                yield row, b""
        for places, data in self._read(with_list):
            for row, index in _parts(places, data):
                if _is_index(index, row):
                    yield row, index
                else:
                    message = f"the index of blob {B3Digest(row.digest)} is damaged in it"
                    self._keep(removals[row.pack], message)

    # -- what is damaged --

    def set_aside(self, item: StoredItem) -> str:
        """Move an item out of the way; return where it is now."""
        if item.digest is None:
            return self._store.set_aside(item.key)
        pack = self._known.pack_at(_pack_key(item.key))
        if item.kind == "index":
            # After other chunks of it were set aside a pack has another name.
            rows = self._known.records(item.digest)
            names = {self._known.pack(row.pack).name for row in rows}
            if pack is not None and pack.name in names:
                names = {pack.name}
            return self.bury([(bytes(name), bytes(item.digest)) for name in names]) or item.key
        places = self._known.places(item.digest)
        numbers = [row.pack for row in places]
        if pack is None or pack.number not in numbers:
            if not numbers:
                return item.key
            pack = self._known.pack(numbers[0])
        self._write_without(pack, item.digest)
        where = self._store.set_aside(pack.key)
        self._known.lose(pack)
        return where

    def _write_without(self, pack: Pack, digest: bytes) -> None:
        """Store all that a pack has anew, as it is, but for one chunk."""
        rows = [row for row in self._known.all_chunks() if row.pack == pack.number and row.digest != digest]
        builder = PackBuilder()
        for places, data in self._read(rows):
            for row, frame in _parts(places, data):
                if len(frame) == row.length:
                    builder.add(row.digest, frame, row.size)
        records = [row for row in self._known.all_records() if row.pack == pack.number]
        indexes = {B3Digest(row.digest): b"" for row in records}
        for places, data in self._read(row for row in records if row.length):
            for row, index in _parts(places, data):
                indexes[B3Digest(row.digest)] = index
        whole = {
            B3Digest(row.digest): indexes[B3Digest(row.digest)]
            for row in records
            if len(indexes[B3Digest(row.digest)]) == row.length
        }
        if len(builder) or whole:
            self._store_pack(builder, whole)


def _pack_key(key: str) -> str:
    """Return the key of the pack that an item is in, by its name."""
    return key.partition(": ")[0]


def _parts(places: Sequence[Row], data: bytes | CastoreError | None) -> Iterator[tuple[Row, bytes]]:
    """Yield each of several places with its bytes, none of a pack that is gone; raises what was met."""
    if isinstance(data, CastoreError):
        raise data
    for row in places:
        start = row.offset - places[0].offset
        yield row, b"" if data is None else data[start : start + row.length]


def _home(rows: Sequence[Row], old: Collection[int]) -> Row:
    """Return the one of several places that is to stay: in a pack that stays anyway, or the newest."""
    return next((row for row in rows if row.pack not in old), rows[0])


def _checked(frame: bytes, digest: bytes) -> tuple[bytes, bytes] | None:
    """Return a chunk and its frame, if they are right."""
    try:
        data = frames.unpack(frame)
    except CorruptBlobError:
        return None
    return (data, frame) if frame and B3Digest.of(data) == digest else None


def _is_index(index: bytes, row: Row) -> bool:
    if len(index) != row.length:
        return False
    try:
        blob_index.decode(index, B3Digest(row.digest), key="")
    except CorruptBlobError:
        return False
    return True
