"""The space that a store may take: what the service asks before it writes, and tells after it has read.

A write reserves its bytes first, for which others are evicted; only then do they land.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from castore import B3Digest, BlobService, CastoreError, ChunkMeta, UnavailableError, UnsupportedError
from castore.contract.upkeep import Evictable
from castore.threads.deadlines import Clock
from castore_lru import ledger
from castore_lru.accounts import Accounts
from castore_lru.bounds import Amount, Bounds
from castore_lru.evicting import Evictor
from castore_lru.journal import Journal, transaction
from castore_lru.ledger import Kind, Write
from castore_lru.scanning import Scanner

_UNSETTLED_SHARE: Final = 16
_MOST_UNSETTLED: Final = 16 << 20
"""Which part of all, and how many bytes, may wait in a store that defers: nobody can evict those."""

_INDEX_ENTRY: Final = 64
"""Bytes that a chunk takes in an index, at most."""

_log: Final = logging.getLogger("castore_lru")


@attrs.frozen
class Wanted:
    """What is about to be written, how many bytes at most, and the chunks that it needs."""

    kind: Kind
    digest: B3Digest
    size: int
    parts: Sequence[B3Digest] = ()


def index_wanted(digest: B3Digest, chunks: Sequence[ChunkMeta]) -> Wanted:
    """Return what the index of a blob takes."""
    size = _INDEX_ENTRY * len(chunks) if len(chunks) > 1 else 0
    return Wanted("index", digest, size, ledger.part_digests(digest, chunks))


class Space:
    """The space of *store*, a capability of *service*, within *bounds*."""

    def __init__(
        self, service: BlobService, store: Evictable, bounds: Bounds, *, name: str, clock: Clock
    ) -> None:
        self._name = name
        self._store = store
        self._bounds = bounds
        self._clock = clock
        self._journal = Journal(store.state_folder, name)
        self._scanner = Scanner(self._journal, service, store, clock)
        self._accounts = Accounts(self._journal, self._scanner, clock)
        self._evictor = Evictor(store, bounds, clock, lambda: self._accounts.owner)
        self._listeners: list[Callable[[B3Digest], None]] = []
        self._unsettled: dict[int, Write] = {}
        self._unheld = 0

    def open(self) -> None:
        """Join those who share the store; what is there and too much goes."""
        if self._accounts.open():
            self.enforce()

    def close(self) -> None:
        """Leave."""
        try:
            if self._accounts.is_open:
                self._settle()
        finally:
            self._accounts.close()

    def forget(self) -> None:
        """Begin anew in a process that was forked."""
        self._accounts.forget()
        self._unsettled.clear()

    # -- writing --

    @contextlib.contextmanager
    def writing(self, wanted: Sequence[Wanted], tags: Sequence[int] = ()) -> Iterator[None]:
        """Have room for what is written in the context; the *tags* pin it until they are released.

        Raises `UnsupportedError` for what can never fit, and `UnavailableError` if there is no room now, or
        a chunk that is needed was evicted.
        """
        indexes = any(entry.kind == "index" for entry in wanted)
        before = list(self._unsettled.values())
        writes = self._reserve(wanted, tags)
        try:
            yield
        except BaseException:
            # It may be there or not.
            self._accounts.end(writes)
            raise
        self._evictor.note_new()
        if self._store.defers and not indexes:
            self._unsettled.update((write.number, write) for write in writes)
            if not tags:
                self._settle_some(writes)
            return
        self._end_settling(before)
        self._accounts.end_and_tell(writes)

    def _reserve(self, wanted: Sequence[Wanted], tags: Sequence[int]) -> list[Write]:
        self.open()
        coming = Amount(sum(entry.size for entry in wanted), len(wanted))
        if not self._bounds.allow(coming):
            raise self._too_large(coming)
        guard = self._guard(wanted)
        try:
            writes = self._make_room_and_reserve(wanted, coming, tags)
        finally:
            if guard is not None:
                self.release(guard)
            self._tell()
        self._relax()
        return writes

    def _guard(self, wanted: Sequence[Wanted]) -> int | None:
        """Pin the blobs that are to get their indexes, and with them their chunks, which must be there."""
        if not any(entry.parts for entry in wanted):
            return None
        guard = self._accounts.new_tag()
        with self._accounts.changing() as db:
            for entry in wanted:
                for part in entry.parts:
                    if not self._is_there(part):
                        raise self._evicted(entry.digest, part)
                ledger.add_parts(db, entry.digest, entry.parts)
                ledger.pin(db, self._accounts.owner, guard, entry.digest)
        return guard

    def _make_room_and_reserve(
        self, wanted: Sequence[Wanted], coming: Amount, tags: Sequence[int]
    ) -> list[Write]:
        # What stands in the way may be this process's own, or that of one that has died.
        for make_way in (self._settle, self._accounts.bury):
            writes = self._try_to_reserve(wanted, coming, tags)
            if writes is not None:
                return writes
            make_way()
        writes = self._try_to_reserve(wanted, coming, tags)
        if writes is None:
            raise self._no_room(coming, tags)
        return writes

    def _try_to_reserve(
        self, wanted: Sequence[Wanted], coming: Amount, tags: Sequence[int]
    ) -> list[Write] | None:
        owner, now = self._accounts.owner, self._clock.now()
        with self._accounts.turn() as db:
            if not self._evictor.make_room(db, coming):
                return None
            with transaction(db):
                for tag in tags:
                    for entry in wanted:
                        ledger.pin(db, owner, tag, entry.digest)
                return [
                    ledger.begin_write(db, entry.kind, entry.digest, entry.size, owner=owner, since=now)
                    for entry in wanted
                ]

    def _too_large(self, coming: Amount) -> UnsupportedError:
        return UnsupportedError(
            f"`{self._name}`: {coming.size} bytes in {coming.entries} items can never fit within"
            f" {self._bounds}; nothing of it is kept"
        )

    def _evicted(self, blob: B3Digest, chunk: B3Digest) -> UnavailableError:
        return UnavailableError(
            self._name, f"chunk {chunk} was evicted before blob {blob} had its index; store the blob again"
        )

    def _no_room(self, coming: Amount, tags: Sequence[int]) -> CastoreError:
        with self._accounts.turn() as db:
            for tag in tags:
                own = ledger.pinned_by(db, self._accounts.owner, tag)
                total = Amount(own.size + coming.size, own.entries + coming.entries)
                if not self._bounds.allow(total):
                    return self._too_large(total)
        return UnavailableError(
            self._name,
            f"no room for {coming.size} bytes within {self._bounds}: what is there is pinned, or about to be"
            " read or written",
        )

    # -- stores that defer --

    def _settle(self) -> None:
        """Let others find, and evict, what this process has put."""
        before = list(self._unsettled.values())
        if before:
            self._store.settle()
            self._end_settling(before)

    def _settle_some(self, writes: Sequence[Write]) -> None:
        self._unheld += sum(write.size for write in writes)
        limit = self._bounds.max_bytes
        most = _MOST_UNSETTLED if limit is None else min(limit // _UNSETTLED_SHARE, _MOST_UNSETTLED)
        if self._unheld > most:
            self._settle()

    def _end_settling(self, writes: Sequence[Write]) -> None:
        self._unheld = 0
        ended = [self._unsettled.pop(write.number, None) for write in writes]
        self._accounts.end(write for write in ended if write is not None)

    # -- pins --

    def new_tag(self) -> int:
        """Return what to pin by."""
        return self._accounts.new_tag()

    def pin(self, digest: B3Digest) -> int:
        """Keep a blob and its chunks, or a chunk, until the tag that is returned is released."""
        self.open()
        tag = self._accounts.new_tag()
        with self._accounts.changing() as db:
            ledger.pin(db, self._accounts.owner, tag, digest)
        return tag

    def release(self, tag: int) -> None:
        """Let go of what a tag has pinned; if the journal cannot be told now, it is later."""
        with self._passing_over("that something is pinned no longer cannot be noted"):
            self._accounts.release(tag)

    def keep(self, digest: B3Digest, tags: Sequence[int]) -> bool:
        """Pin a chunk if it is there; return whether it is."""
        self.open()
        with self._accounts.changing() as db:
            if not self._is_there(digest):
                return False
            for tag in tags:
                ledger.pin(db, self._accounts.owner, tag, digest)
            ledger.touch(db, digest, self._clock.now())
        return True

    def knows(self, digest: B3Digest) -> bool:
        """Tell whether the journal has anything of a digest, without waiting for others."""
        self.open()
        return self._journal.knows(digest)

    def knows_blob(self, digest: B3Digest) -> bool:
        """Tell whether the journal knows what a blob is made of."""
        with self._accounts.turn() as db:
            return ledger.has_item(db, "index", digest) or ledger.is_written(db, "index", digest)

    def adopt(self, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Take note of a pinned blob that the journal does not know; return whether all of it is there."""
        parts = ledger.part_digests(blob, chunks)
        with self._accounts.changing() as db:
            if not self._scanner.look_up(db, "index", blob):
                return False
            ledger.add_parts(db, blob, parts)
            there = [self._is_there(part) for part in parts]
        if not all(there):
            self._scanner.mend()
        return all(there)

    def _is_there(self, chunk: B3Digest) -> bool:
        """Tell whether a chunk is there or being written; the caller is in a transaction."""
        db = self._journal.connection
        known = ledger.has_item(db, "chunk", chunk) or ledger.is_written(db, "chunk", chunk)
        return known or self._scanner.look_up(db, "chunk", chunk)

    # -- reading --

    def touch(self, digest: B3Digest) -> None:
        """Take note that something was read. If that fails the read has succeeded all the same."""
        with self._passing_over("that it was read cannot be noted"):
            self._accounts.touch(digest)

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
            _log.warning("`%s`: %s: %s", self._name, what, error)

    def enforce(self) -> int:
        """Evict what is too old, or too much; return how many items went."""
        self.open()
        self._accounts.bury()
        before = self._evictor.count
        try:
            with self._accounts.turn() as db:
                self._evictor.make_room(db, Amount())
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
            with self._accounts.turn() as db:
                there = ledger.totals(db)
                gauges |= {
                    "bytes": float(there.size),
                    "entries": float(there.entries),
                    "pinned": float(ledger.count_pinned(db)),
                }
        return gauges
