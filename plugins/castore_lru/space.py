"""The space that a store may take: what the service asks before it writes, and tells after it has read.

A write reserves its bytes first, for which others are evicted; only then do they land. All items of a call
are reserved together, with one turn at the journal.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from castore import (
    B3Digest,
    BlobService,
    CastoreError,
    ChunkMeta,
    ClosedError,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import FoundChunks
from castore.contract.upkeep import Evictable, ItemKind
from castore.errors import BatchError
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.accounts import Accounts
from castore_lru.bounds import Amount, Bounds, Excess
from castore_lru.evicting import AGING_STEPS, Evictor
from castore_lru.journal import Journal, transaction
from castore_lru.ledger import Write
from castore_lru.scanning import Scanner, in_batches

_UNFLUSHED_SHARE: Final = 16
_MOST_UNFLUSHED: Final = 16 << 20
"""Which part of all, and how many bytes, may wait in a store that defers: nobody can evict those."""

_MOST_WAITING: Final = 2048
"""How many items may wait there, of leases as well."""

INDEX_ENTRY: Final = 64
"""Bytes that a chunk takes in an index, at most."""

_SAME_USE: Final = 0.5
"""By how many seconds a use must be later than the last one to be noted."""

_ROUNDS_WITHIN: Final = 4
"""How many rounds of small files must fit within the bounds: two are on their way, and others write, too."""

_log: Final = logging.getLogger("castore_lru")


class Space:
    """The space of *store*, a capability of *service*, within *bounds*."""

    def __init__(
        self, service: BlobService, store: Evictable, bounds: Bounds, *, name: str, clock: Clock
    ) -> None:
        self._name = name
        self._service = service
        self._store = store
        self._bounds = bounds
        self._clock = clock
        self._journal = Journal(store.state_folder, name, store.make_state_folder)
        self._scanner = Scanner(self._journal, service, store, clock)
        same_use = _SAME_USE if bounds.max_age is None else min(_SAME_USE, bounds.max_age / AGING_STEPS)
        self._accounts = Accounts(self._journal, self._scanner, clock, same_use=same_use)
        self._evictor = Evictor(store, bounds, clock, lambda: self._accounts.owner)
        self._listeners: list[Callable[[B3Digest], None]] = []
        self._loose = Amount()
        self._told: set[str] = set()

    def open(self) -> None:
        """Join those who share the store; what is there and too much goes."""
        if self._accounts.open():
            self.enforce()

    def close(self) -> None:
        """Leave."""
        try:
            if self._accounts.is_open:
                self._flush()
        except UnavailableError as error:
            # These are of no blob that anybody was told of.
            _log.warning("`%s`: what waited for a flush is dropped: %s", self._name, error)
        except ClosedError:
            pass  # Another thread has closed it, and has said the same.
        finally:
            self._accounts.close()

    # -- writing --

    def write(
        self,
        kind: ItemKind,
        sizes: Mapping[B3Digest, int],
        put: Callable[[Collection[B3Digest]], object],
        *,
        tag: int | None = None,
        blobs: Mapping[B3Digest, Sequence[ChunkMeta]] | None = None,
    ) -> None:
        """Let *put* store items, for which there is room then.

        Where there is no room for all at once *put* is called several times, with some of them.

        Arguments:
            kind: What they are.
            sizes: Their digests, each with how many bytes it may take at most.
            put: Called with digests.
            tag: Pins them until it is released.
            blobs: For indexes the chunks of each, none of which goes meanwhile.

        Raises `UnsupportedError` for what can never fit, `UnavailableError` if there is no room now or a
        chunk of a blob was evicted, and what *put* raises; `BatchError` if only some are stored.
        """
        self.open()
        largest = Amount(max(sizes.values()), 1)
        if not self._bounds.allow(largest):
            raise self._too_large(largest)
        done: list[B3Digest] = []
        faults: dict[B3Digest, CastoreError] = {}
        parts = [sizes]
        while parts:
            part = parts.pop()
            try:
                reserved = self._reserve(kind, part, blobs or {}, tag)
                if reserved is None and len(part) > 1:
                    parts += _halves(part)
                    continue
                if reserved is None:
                    raise self._no_room(Amount(sum(part.values()), 1), tag)
                write, lost = reserved
                faults |= lost
                if write is not None:
                    self._put(write, put)
                    done += write.digests
            except UnavailableError as error:
                if len(part) == len(sizes) and not faults:
                    raise
                _note_faults(error, part, done, faults)
                for other in parts:
                    faults |= dict.fromkeys(other, error)
                break
        if faults:
            first = next(iter(faults.values()))
            raise first if len(sizes) == 1 else BatchError(self._name, faults, done=done) from first

    def _put(self, write: Write, put: Callable[[Collection[B3Digest]], object]) -> None:
        waits = self._store.defers and write.kind == "chunk"
        waiting = self._accounts.waiting if write.kind == "index" else []
        try:
            put(write.digests)
            write.put = True
        finally:
            # Whatever has become of them is looked up.
            self._accounts.end(write, waits=waits)
        self._evictor.note_new()
        if write.kind == "index":
            self._flushed(waiting)
        if waits:
            self._flush_if_much(write)
        with self._passing_over("what was put cannot be noted"):
            # With an index a lease has done its work.
            self._accounts.tell_if_much(write.tag if write.kind == "index" else None)

    def _reserve(
        self,
        kind: ItemKind,
        sizes: Mapping[B3Digest, int],
        blobs: Mapping[B3Digest, Sequence[ChunkMeta]],
        tag: int | None,
    ) -> tuple[Write | None, dict[B3Digest, CastoreError]] | None:
        """Return what may be written, and what may not as chunks are lost; `None` if there is no room."""
        if not self._bounds.allow(Amount(sum(sizes.values()), len(sizes))):
            return None
        try:
            reserved = self._try_to_reserve(kind, sizes, blobs, tag)
            # What stands in the way may be this process's own, or that of one that has died.
            for make_way in (self._flush, self._accounts.bury):
                if reserved is None:
                    make_way()
                    reserved = self._try_to_reserve(kind, sizes, blobs, tag)
        finally:
            self._tell()
        if reserved is not None:
            self._relax()
        return reserved

    def _try_to_reserve(
        self,
        kind: ItemKind,
        sizes: Mapping[B3Digest, int],
        blobs: Mapping[B3Digest, Sequence[ChunkMeta]],
        tag: int | None,
    ) -> tuple[Write | None, dict[B3Digest, CastoreError]] | None:
        with self._accounts.turn() as db:
            with transaction(db):
                lost: dict[B3Digest, CastoreError] = {}
                listed: list[B3Digest] = []
                if kind == "index":
                    lost = self._find_lost(blobs, sizes)
                    listed = ledger.find_listed(db, sizes.keys() - lost.keys())
                    for blob in sizes.keys() - lost.keys():
                        if len(blobs[blob]) > 1:
                            ledger.add_parts(db, blob, blobs[blob])
                if lost:
                    sizes = {digest: size for digest, size in sizes.items() if digest not in lost}
                    if not sizes:
                        return None, lost
                write = ledger.begin_write(
                    db,
                    kind,
                    sizes,
                    owner=self._accounts.owner,
                    tag=tag if self._accounts.is_live(tag) else None,
                    since=self._clock.now(),
                )
                # What they were made of before counts until they are made of something else.
                write.relisted = {blob: blobs[blob] for blob in listed}
            fits = False
            try:
                fits = self._make_room(Amount(write.size, len(write.digests)))
            finally:
                if not fits:
                    with transaction(db):
                        ledger.end_writes(db, (write,))
            return (write, lost) if fits else None

    def _make_room(self, coming: Amount) -> bool:
        db = self._journal.connection
        excess = self._evictor.excess(db, coming)
        if excess == Excess():
            return True
        if excess.is_crowded:
            # Less may be there than was reserved for it.
            self._accounts.settle(db)
            while self._evictor.excess(db, coming).is_crowded and self._accounts.make_sure(db):
                pass
        return self._evictor.make_room(db, coming)

    def _find_lost(
        self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]], wanted: Collection[B3Digest]
    ) -> dict[B3Digest, CastoreError]:
        """Return those of *wanted* a chunk of which is not there, with the error."""
        chunks: set[B3Digest] = set()
        for blob in wanted:
            chunks.update(ledger.needs_of(blob, blobs[blob]))
        db = self._journal.connection
        gone = self._accounts.find_unknown(db, "chunk", chunks)
        gone -= self._scanner.look_up(db, "chunk", gone)
        if not gone:
            return {}
        firsts = {
            blob: next((part for part in ledger.needs_of(blob, blobs[blob]) if part in gone), None)
            for blob in wanted
        }
        return {blob: self._evicted(blob, part) for blob, part in firsts.items() if part is not None}

    def _too_large(self, coming: Amount) -> UnsupportedError:
        return UnsupportedError(
            f"`{self._name}`: {coming.size} bytes in {coming.entries} items can never fit within"
            f" {self._bounds}; nothing of it is kept"
        )

    def _evicted(self, blob: B3Digest, chunk: B3Digest) -> UnavailableError:
        return UnavailableError(
            self._name, f"chunk {chunk} was evicted before blob {blob} had its index; store the blob again"
        )

    def _no_room(self, coming: Amount, tag: int | None) -> CastoreError:
        if tag is not None:
            with self._accounts.turn() as db:
                own = ledger.pinned_by(db, self._accounts.owner, tag)
            total = Amount(own.size + coming.size, own.entries + coming.entries)
            if not self._bounds.allow(total):
                return self._too_large(total)
        return UnavailableError(
            self._name,
            f"no room for {coming.size} bytes within {self._bounds}: what is there is pinned, or about to be"
            " read or written",
        )

    def most_files(self, size: int) -> int:
        """Return how many files of *size* bytes may be on their way together."""
        each = Amount(size * _ROUNDS_WITHIN, 2 * _ROUNDS_WITHIN)
        return self._bounds.most(each)

    # -- stores that defer --

    def _flush(self) -> None:
        """Let others find, and evict, what this process has put."""
        waiting = self._accounts.waiting
        if waiting:
            self._store.flush()
            self._flushed(waiting)

    def _flushed(self, writes: Sequence[Write]) -> None:
        self._loose = Amount()
        self._accounts.flushed(writes)

    def _flush_if_much(self, write: Write) -> None:
        # What leases have put comes with their indexes.
        size = 0 if self._accounts.is_live(write.tag) else write.size
        self._loose = Amount(self._loose.size + size, self._loose.entries + len(write.digests))
        limit = self._bounds.max_bytes
        most = _MOST_UNFLUSHED if limit is None else min(limit // _UNFLUSHED_SHARE, _MOST_UNFLUSHED)
        if self._loose.size > most or self._loose.entries > _MOST_WAITING:
            self._flush()

    # -- pins --

    def new_tag(self) -> int:
        """Return what to pin by."""
        return self._accounts.new_tag()

    def pin(self, digests: Collection[B3Digest]) -> int:
        """Keep blobs and their chunks, or chunks, until the tag that is returned is released."""
        self.open()
        tag = self._accounts.new_tag()
        try:
            with self._accounts.changing() as db:
                ledger.pin(db, self._accounts.owner, tag, digests, since=self._clock.now())
        except BaseException:
            self.release(tag)
            raise
        return tag

    def pin_to_read(self, digests: Collection[B3Digest]) -> int | None:
        """Do the same; `None` if that cannot be noted in the journal."""
        with self._passing_over("what is read cannot be kept from being evicted"):
            return self.pin(digests)
        return None

    def release(self, tag: int) -> None:
        """Let go of what a tag has pinned; if the journal cannot be told now, it is later."""
        with self._passing_over("that something is pinned no longer cannot be noted"):
            self._accounts.release(tag)

    def keep(self, kind: ItemKind, digests: Collection[B3Digest], tag: int | None) -> set[B3Digest]:
        """Take note of a use of items that were there a moment ago, and pin them if there is a *tag*.

        Returns those that the journal has, which are there; without a tag, all.
        """
        if tag is None:
            self.touch(digests)
            return set(digests)
        self.open()
        with self._accounts.changing() as db:
            gone = self._accounts.keep(db, kind, digests, tag)
            if kind == "chunk":
                gone -= self._scanner.look_up(db, kind, gone)
        return set(digests) - gone

    def keep_blobs(
        self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None], tag: int | None
    ) -> set[B3Digest]:
        """Do the same with blobs, whose chunks need not be known; those that are there are so as a whole."""
        kept = self.keep("index", blobs, tag)
        if len(kept) == len(blobs):
            return kept
        others = {}
        for digest in blobs.keys() - kept:
            chunks = blobs[digest]
            if chunks is None:
                with contextlib.suppress(CorruptBlobError):
                    chunks = self._service.chunks(digest)
            if chunks is not None:
                others[digest] = chunks
        return kept | self.adopt(others)

    def knows_blob(self, digest: B3Digest) -> bool:
        """Tell whether the journal knows what a blob is made of."""
        with self._accounts.turn() as db:
            return not self._accounts.find_unknown(db, "index", (digest,))

    def adopt(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> set[B3Digest]:
        """Take note of pinned blobs that the journal does not know; return those of which all is there."""
        with self._accounts.changing() as db:
            listed = self._scanner.look_up(db, "index", blobs)
            lost = {blob for blob in listed if not self._note_parts(db, blob, blobs[blob])}
            unlisted = self._find_lost(blobs, blobs.keys() - listed)
        if lost:
            self._scanner.mend()
        # A store may keep the index of a blob of no chunks as a chunk.
        return {
            blob
            for blob, chunks in blobs.items()
            if (blob in listed or not chunks) and blob not in lost and blob not in unlisted
        }

    def _note_parts(self, db: sqlite3.Connection, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Take note of what a blob is made of; return False once a chunk is not there, which is enough."""
        for some in in_batches(chunks) if chunks else ((),):
            ledger.add_parts(db, blob, some)
            digests = ledger.needs_of(blob, some)
            gone = self._accounts.find_unknown(db, "chunk", digests)
            if gone - self._scanner.look_up(db, "chunk", gone):
                return False
        return True

    # -- reading --

    def touch(self, digests: Collection[B3Digest]) -> None:
        """Take note that something was read. If that fails the read has succeeded all the same."""
        if digests:
            with self._passing_over("that it was read cannot be noted"):
                self._accounts.touch(digests)

    def touch_read(self, found: FoundChunks) -> None:
        """Take note of those chunks that could be read."""
        self.touch([digest for digest, data in found.items() if not isinstance(data, CastoreError)])

    def doubt(self, digest: B3Digest) -> None:
        """Take note that somebody else may have removed something."""
        self._accounts.doubt(digest)

    # -- evicting --

    def age(self) -> None:
        """Evict what is too old; one comparison if nothing is."""
        if self._bounds.max_age is None:
            return
        with self._passing_over("what is too old cannot be evicted"):
            if not self._accounts.is_open:
                if self._accounts.exist:
                    self.open()
            elif self._clock.now() >= self._evictor.due:
                self.enforce()

    @contextlib.contextmanager
    def _passing_over(self, what: str) -> Iterator[None]:
        try:
            yield
        except CastoreError as error:
            # Mostly it goes on like this, and each read would say it.
            level = logging.DEBUG if what in self._told else logging.WARNING
            self._told.add(what)
            _log.log(level, "`%s`: %s: %s", self._name, what, error)

    def enforce(self) -> int:
        """Evict what is too old, or too much; return how many items went."""
        self.open()
        self._accounts.bury()
        before = self._evictor.count
        try:
            with self._accounts.turn() as db:
                self._make_room(Amount())
                self._evictor.note_age(db)
        finally:
            self._tell()
        self._relax()
        return self._evictor.count - before

    def _relax(self) -> None:
        """Go on to the low watermark, if something had to go; others get their turn in between."""
        try:
            while self._evictor.relaxing:
                with self._accounts.turn() as db:
                    self._evictor.relax(db)
        finally:
            self._tell()

    def _tell(self) -> None:
        for digest in self._evictor.take_gone():
            for listener in list(self._listeners):
                listener(digest)

    def _make_sure(self) -> None:
        """Look up how much is there in truth; others get their turn in between."""
        unsure = True
        while unsure:
            with self._accounts.turn() as db:
                unsure = self._accounts.make_sure(db)

    def listen(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        """Call *callback* for what is evicted; return what ends this."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def gauges(self) -> Mapping[str, float]:
        """Return how much is there, reserved bytes among it, and how many digests are pinned."""
        gauges = {"bytes": 0.0, "entries": 0.0, "evictions": float(self._evictor.count), "pinned": 0.0}
        if self._accounts.is_open or self._accounts.exist:
            self.open()
            self._accounts.bury()
            self._make_sure()
            with self._accounts.turn() as db:
                there = ledger.totals(db)
                gauges |= {
                    "bytes": float(there.size),
                    "entries": float(there.entries),
                    "pinned": float(ledger.count_pinned(db)),
                }
        return gauges


def _halves(sizes: Mapping[B3Digest, int]) -> list[dict[B3Digest, int]]:
    """Return the second half and the first one, which is taken first from the end."""
    middle = len(sizes) // 2
    return [dict(islice(sizes.items(), middle, None)), dict(islice(sizes.items(), middle))]


def _note_faults(
    error: UnavailableError,
    part: Collection[B3Digest],
    done: list[B3Digest],
    faults: dict[B3Digest, CastoreError],
) -> None:
    """Take note of what an error says of *part*."""
    known = error.faults if isinstance(error, BatchError) else {}
    stored = error.done if isinstance(error, BatchError) else frozenset()
    done += (digest for digest in part if digest in stored)
    faults |= {
        digest: known.get(digest, error) for digest in part if digest not in stored and digest not in faults
    }
