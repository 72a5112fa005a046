"""Keeping claims and removals apart in a bucket, where nothing can be locked.

Two sorts of objects do it, both lists of packs or of records in them, each with a name of its own. Who
relies on a pack puts a *claim*, and looks for *marks* then. Who is to remove a pack, or a record, puts a
mark, and looks for claims then. A listing shows whatever was put before it began: so one of the two sees
the other. A mark is never taken back. Hence a collector may take any time from its look to the removal:
nobody relies on the pack after the mark, whoever else collects beside it or was killed at it.

- *A claim was seen.* Nothing is removed before that claim is old. By then its blob has a record.
- *A mark was seen.* The pack counts as absent for writers, who store its chunks anew. Readers go on with it.
- *Neither a mark nor a pack.* It was removed, and its mark after it: so the pack is looked for last.

A pack is never put under a name that was there before. So it is no harm if somebody removes one late.
"""

from __future__ import annotations

import math
import secrets as randomness
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Final, TypeAlias

from castore import B3Digest, UnavailableError, owned
from castore.format import packs
from castore.format.packs import PackDamageError
from castore.threads import forks
from castore.threads.pool import Pool
from castore_objectstore.object_store import ObjectStore, StoredObject
from castore_objectstore.packed.known import KnownPacks, Pack, hour_of

CLAIMS: Final = "claims/"
MARKS: Final = "condemned/"

_WHOLE: Final = bytes(32)
"""In the place of a blob: all of the pack."""

_LOOK_SECONDS: Final = 60.0
"""How old the last look at marks may be before a claim, which would be in vain for what has one."""

_RELIED_ON: Final = 0.9
"""For how much of the time that it holds a claim is relied on: clocks differ."""

Pair: TypeAlias = tuple[bytes, bytes]
"""The names of a pack, and of a blob that has a record in it."""


class _Lists:
    """Objects at a prefix that name packs or records; each is read once, as none ever changes."""

    def __init__(
        self, store: ObjectStore, known: KnownPacks, instance: str, prefix: str, *, keeps_own: bool
    ) -> None:
        # A writer, which puts claims for as long as it runs, never lists them.
        self._keeps_own = keeps_own
        self._store = store
        self._known = known
        self._instance = instance
        self._prefix = prefix
        self._read: dict[str, tuple[Pair, ...]] = {}

    def put(self, pairs: Iterable[Pair]) -> dict[str, tuple[Pair, ...]]:
        """Put new objects, which are there for all when this returns; return them by their keys."""
        left, made = iter(pairs), {}
        while some := list(islice(left, packs.MOST_PAIRS)):
            data = packs.encode_dead(some, randomness.token_bytes(16))
            key = f"{self._prefix}{hour_of(time.time())}/{B3Digest.of(data).hex()}"
            self._store.put_pieces(key, (data,))
            made[key] = tuple(some)
        if self._keeps_own:
            self._read.update(made)
        return made

    def list(self, pool: Pool) -> list[tuple[StoredObject, tuple[Pair, ...]]]:
        """Return all that were put before this was called, and are there; raises `UnavailableError`."""
        entries = []
        for entry in self._store.list(self._prefix, into=owned.is_hour):
            place = None if entry.foreign else owned.packed_at(entry.key)
            if place is not None and not place.left_over:
                entries.append(entry)
        there = {entry.key for entry in entries}
        for key in [key for key in list(self._read) if key not in there]:  # Others add to it meanwhile.
            self._read.pop(key, None)
        found = []
        for entry, pairs in pool.map(self._pairs_of, entries):
            if pairs:  # Else it is gone by now.
                self._read[entry.key] = pairs
                found.append((entry, pairs))
        return found

    def _pairs_of(self, entry: StoredObject) -> tuple[StoredObject, tuple[Pair, ...]]:
        known = self._read.get(entry.key)
        if known is not None:
            return entry, known
        try:
            return entry, tuple(self._known.read_dead_at(entry.key))
        except PackDamageError as error:
            raise UnavailableError(
                self._instance,
                f"{entry.key}: {error}; so nobody knows what may be removed: move it away while nobody writes"
                " or collects",
            ) from None

    def remove(self, keys: Sequence[str]) -> None:
        self._store.remove(keys)
        for key in keys:
            self._read.pop(key, None)


class BucketClaims:
    """Claims packs for writers, and tells collectors what is claimed; used by many threads at once.

    Arguments:
        store: Where the packs are; a listing there has all that was put before it began.
        known: What is known of the packs.
        instance: The name of the service, for errors.
        pool: Gives the threads for requests.
    """

    def __init__(
        self, store: ObjectStore, known: KnownPacks, instance: str, pool: Callable[[], Pool]
    ) -> None:
        self._store = store
        self._known = known
        self._pool = pool
        self._claims = _Lists(store, known, instance, CLAIMS, keeps_own=False)
        self._marks = _Lists(store, known, instance, MARKS, keeps_own=True)
        self._lock = forks.new_lock()
        self._mine: dict[bytes, float] = {}
        """When this process has claimed a pack."""
        self._marked: frozenset[bytes] = frozenset()
        """Names of packs, and of packs and blobs in a row for records."""
        self._marks_seen: dict[str, tuple[Pair, ...]] = {}
        self._marks_looked = -math.inf
        self._old_marks: Collection[str] = ()
        """The marks that were there before all packs were listed last."""
        self._times: dict[bytes, float] = {}
        """When a pack was claimed last, by whomsoever, as of all looks."""
        self._claims_seen: dict[str, float] = {}

    # -- for who relies on packs --

    def claim(self, wanted: Iterable[Pack]) -> set[int]:
        """Return the numbers of those packs that are there, and from now on kept from collectors.

        A claim holds for `renewal_seconds` without another request, as does the put of the pack.
        """
        now = time.time()
        different = {pack.number: pack for pack in wanted}
        kept = {number for number, pack in different.items() if self._holds(pack, now)}
        due = [pack for number, pack in different.items() if number not in kept]
        if due and time.monotonic() - self._marks_looked > _LOOK_SECONDS:
            self.look_at_marks()
        due = [pack for pack in due if not self.is_marked(pack)]
        if not due:
            return kept
        self._claims.put((bytes(pack.name), _WHOLE) for pack in due)
        # Not before: who puts a mark now looks for claims after that.
        self.look_at_marks()
        unmarked = [pack for pack in due if not self.is_marked(pack)]
        # Not before either: a mark goes after its pack.
        for pack, there in self._pool().map(self._is_there, unmarked):
            if there:
                self._mine[bytes(pack.name)] = now
                kept.add(pack.number)
        return kept

    def _holds(self, pack: Pack, now: float) -> bool:
        times = (pack.modified, self._mine.get(bytes(pack.name)))
        # A collector adds all of that time to a claim, by its own clock and that of the store.
        longest = _RELIED_ON * self._store.renewal_seconds
        return any(each is not None and now - each < longest for each in times)

    def _is_there(self, pack: Pack) -> tuple[Pack, bool]:
        found = self._store.describe(pack.key)
        return pack, found is not None and found.size in (None, pack.size)

    def is_marked(self, pack: Pack) -> bool:
        """Tell whether a pack is to go, as far as was looked."""
        return bytes(pack.name) in self._marked

    def is_record_marked(self, pack: Pack, digest: bytes) -> bool:
        """Tell whether a record is to go, as far as was looked, and so is nothing to rely on."""
        return self.is_marked(pack) or bytes(pack.name) + bytes(digest) in self._marked

    def look_at_marks(self) -> None:
        """Look which packs and records are to go."""
        looked = time.monotonic()
        found = {entry.key: pairs for entry, pairs in self._marks.list(self._pool())}
        with self._lock:
            # What another thread has seen meanwhile is no less true. A pack that is gone stays marked.
            self._marks_seen = found
            self._marked |= {_name(pair) for pairs in found.values() for pair in pairs}
            self._marks_looked = max(self._marks_looked, looked)

    # -- for who collects --

    def look_at_all(self) -> None:
        """Look at marks, at all packs, and at claims, in this order."""
        self.look_at_marks()
        old = frozenset(self._marks_seen)
        self._known.look_anew()
        self._old_marks = old
        self.look_at_claims()

    def look_at_claims(self) -> None:
        """Look when packs were claimed."""
        times: dict[bytes, float] = {}
        seen = {}
        for entry, pairs in self._claims.list(self._pool()):
            # Of a claim that does not tell its time nobody can say that it is old.
            seen[entry.key] = modified = math.inf if entry.modified is None else entry.modified
            for name, _ in pairs:
                times[name] = max(modified, times.get(name, modified))
        with self._lock:
            # Another thread may have looked later, and be through before: a claim makes nothing older.
            for name, modified in times.items():
                self._times[name] = max(modified, self._times.get(name, modified))
            self._claims_seen |= seen

    def time_of(self, pack: Pack) -> float | None:
        """Return when a pack was put or last claimed, as of the last look; `None` if that is not told."""
        if pack.modified is None:
            return None
        return max(pack.modified, self._times.get(bytes(pack.name), pack.modified))

    def mark(self, pairs: Iterable[Pair]) -> None:
        """Have records not be claimed any more, and look at claims: who is not seen there sees the mark."""
        self._mark(pairs)

    def mark_packs(self, going: Iterable[Pack]) -> None:
        """Do the same with packs."""
        self._mark((bytes(pack.name), _WHOLE) for pack in going)

    def _mark(self, pairs: Iterable[Pair]) -> None:
        new = [pair for pair in pairs if _name(pair) not in self._marked]
        made = self._marks.put(new)
        with self._lock:
            self._marks_seen = {**self._marks_seen, **made}
            self._marked |= {_name(pair) for pair in new}
        self.look_at_claims()

    def remove_needless(self, limit: float) -> None:
        """Remove claims from before *limit*, and marks of what is not there any more."""
        there = {bytes(pack.name) for pack in self._known.all_packs()}
        self._marks.remove(
            [
                key
                for key, pairs in self._marks_seen.items()
                if all(
                    self._known.is_dead(*pair) or (key in self._old_marks and pair[0] not in there)
                    for pair in pairs
                )
            ]
        )
        old = [key for key, modified in self._claims_seen.items() if modified < limit]
        self._claims.remove(old)
        with self._lock:
            for key in old:
                self._claims_seen.pop(key, None)


def _name(pair: Pair) -> bytes:
    return pair[0] if pair[1] == _WHOLE else pair[0] + pair[1]
