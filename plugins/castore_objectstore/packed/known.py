"""What is known of a store of packs: which packs there are, what is in them, and which records count no more.

Packs are the truth. What is kept here is read from their ends, and looked up again where something is not
found, or a pack is gone that was there: another process may have written, or collected garbage.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from castore import B3Digest, UnavailableError, owned
from castore.contract.upkeep import DigestRange
from castore.format import packs
from castore.format.packs import Footer, PackDamageError, UnknownVersionError
from castore.threads import forks
from castore.threads.pool import Pool
from castore_objectstore.object_store import ObjectStore, StoredObject, TooLargeError
from castore_objectstore.packed.table import Row, Table

_log: Final = logging.getLogger("castore_objectstore")

PACKS: Final = "packs/"
DEAD: Final = "dead/"
FORMAT: Final = "format"

_FORMAT: Final = {"format": "castore-packed", "version": packs.VERSION}
_TAIL: Final = 64 << 10
"""So much of the end of a pack is read at first; mostly it is enough."""

_WINDOW: Final = 4 << 20

_NEWS_SECONDS: Final = 7200.0
"""How long before a look something may have got its key, in seconds, that is there after it."""

_MOST_LOOKS: Final = 20
"""How often it is looked again if packs are gone that were listed."""

_LOOK_SECONDS: Final = 5.0
"""How old the last look may be where it cannot be seen whether anything has changed."""


_EVERYTHING: Final = DigestRange()


def hour_of(seconds: float) -> str:
    """Return the hour of a time, in UTC, as it is in keys."""
    return time.strftime("%Y%m%d%H", time.gmtime(seconds))


class _Window:
    """Reads a pack in larger pieces than it is asked for."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._start = 0
        self._data = b""

    def __call__(self, offset: int, count: int) -> bytes:
        if not self._start <= offset <= offset + count <= self._start + len(self._data):
            self._start, self._data = offset, self._read(offset, max(count, _WINDOW))
        return self._data[offset - self._start : offset - self._start + count]


@attrs.define(eq=False)
class Pack:
    """A pack that counts.

    Attributes:
        key: Its key.
        name: The digest of its bytes.
        number: What it is called in tables.
        size: How many bytes it has.
        modified: When it was put or last claimed, as far as is known, in seconds since 1970.
        damage: What is wrong with its footer; then its chunks were found by walking along its frames.
        gone: Whether it is not there any more.
    """

    key: str
    name: B3Digest
    number: int
    size: int
    modified: float | None
    damage: str | None = None
    gone: bool = False


class KnownPacks:
    """The packs of an `ObjectStore`, and what is in them; used by many threads at once."""

    def __init__(self, store: ObjectStore, instance: str, pool: Callable[[], Pool]) -> None:
        self._store = store
        self._instance = instance
        self._pool = pool
        self._chunks = Table()
        self._records = Table()
        self._packs: list[Pack] = []
        self._by_key: dict[str, Pack] = {}
        self._dead: set[bytes] = set()
        self._dead_keys: dict[str, frozenset[bytes]] = {}
        """The objects of the dead that were read, each with the packs that it names."""
        self._dead_before: frozenset[str] = frozenset()
        """Those of them that were there before all packs were listed last."""
        self._checked_format = False
        self._stamp: object = None
        self._looked = self._looked_at_all = float("-inf")
        self._looked_at: float | None = None
        """The time of the last look, as keys have it; `None` before all was looked at once."""
        self._looking = forks.new_lock()

    # -- questions --

    def pack(self, number: int) -> Pack:
        """Return a pack by its number."""
        return self._packs[number]

    def pack_at(self, key: str) -> Pack | None:
        """Return a pack that counts by its key."""
        return self._by_key.get(key)

    def places(self, digest: bytes) -> list[Row]:
        """Return where a chunk is, in packs that count, the newest first."""
        return [place for place in self._chunks.find(digest) if not self._packs[place.pack].gone]

    def records(self, digest: bytes) -> list[Row]:
        """Return where the index of a blob is, in packs that count, and by records that do; newest first."""
        return [place for place in self._records.find(digest) if self.counts(place)]

    def counts(self, place: Row) -> bool:
        """Tell whether a record counts: its pack is there, and nothing says that it is dead."""
        pack = self._packs[place.pack]
        return not pack.gone and pack.name + place.digest not in self._dead

    def is_dead(self, pack: bytes, blob: bytes) -> bool:
        """Tell whether something says that a record is dead."""
        return pack + blob in self._dead

    def all_chunks(self, part: DigestRange = _EVERYTHING) -> Iterator[Row]:
        """Go through the places of all chunks in a range, by their digests."""
        return (place for place in self._chunks.within(part) if not self._packs[place.pack].gone)

    def all_records(self, part: DigestRange = _EVERYTHING) -> Iterator[Row]:
        """Go through the places of all records in a range that count, by their digests."""
        return (place for place in self._records.within(part) if self.counts(place))

    def all_packs(self) -> list[Pack]:
        """Return the packs that count."""
        return [pack for pack in self._packs if not pack.gone]

    # -- looking --

    def look(self) -> bool:
        """Look for news, unless it can be seen that there are none; tell whether anything was looked at.

        A pack that is gone need not be missed: who reads it finds that out.
        """
        with self._looking:
            if time.monotonic() - self._looked < _LOOK_SECONDS:
                stamp = self._stamp_now()
                if self._stamp is None:
                    # In a folder it can mostly be seen; where it cannot, not everybody looks all the time.
                    if stamp is None and not self._store.tells_changes:
                        return False
                elif stamp == self._stamp:
                    return False
            self._look(None if self._looked_at is None else PACKS + self._news_since(self._looked_at))
            return True

    def look_anew(self) -> None:
        """Look at everything."""
        with self._looking:
            self._look(None)

    def look_for_part(self, part: DigestRange) -> bool:
        """Look at everything for the first of several parts, for others if that is some time ago; tell it.

        So a store that is gone through in many parts is not listed as often. For news it is looked each time,
        as `look` does.
        """
        with self._looking:
            anew = part.first is None or time.monotonic() - self._looked_at_all >= _LOOK_SECONDS
            if anew:
                self._look(None)
        if not anew:
            self.look()
        return anew

    def look_for_dead(self) -> None:
        """Look which records count no more, of packs just claimed."""
        with self._looking:
            self._read_dead()

    @staticmethod
    def _news_since(seconds: float) -> str:
        """Return the first hour in which somebody may have put what was not seen at a time."""
        return hour_of(min(seconds, time.time()) - _NEWS_SECONDS)

    def _stamp_now(self) -> object:
        return self._store.stamp((PACKS, DEAD), self._news_since(time.time()))

    def _look(self, after: str | None) -> None:
        """Look at all packs, or at those whose keys come after one."""
        if not self._checked_format:
            self._check_format()
        # First: what is listed may change from now on.
        stamp, now = self._stamp_now(), time.time()
        for _ in range(_MOST_LOOKS):
            # The dead before the packs: an object of the dead goes when its packs are gone.
            self._read_dead()
            if after is None:
                self._dead_before = frozenset(self._dead_keys)
            with self._store.steady() as steady:
                found = self._list_packs(after)
            if not steady:
                # Somebody began to collect meanwhile, for the first time here; later ones let it be listed.
                with self._store.steady() as steady:
                    found = self._list_packs(after) if steady else found
            if self._note(found, after):
                break
        else:
            raise UnavailableError(self._instance, "packs were removed each time that they were looked at")
        if after is None:
            self._looked_at = now
        elif self._looked_at is not None:
            self._looked_at = max(now, self._looked_at)
        self._stamp, self._looked = stamp, time.monotonic()
        if after is None:
            self._looked_at_all = self._looked

    def _list_packs(self, after: str | None) -> dict[str, StoredObject]:
        found = {}
        for entry in self._store.list(PACKS, after=after, into=owned.is_hour):
            place = None if entry.foreign else owned.packed_at(entry.key)
            if place is not None and not place.left_over:
                found[entry.key] = entry
        return found

    def _note(self, found: Mapping[str, StoredObject], after: str | None) -> bool:
        """Take note of what was listed; False if some of it was gone when it was to be read.

        Then what is to stay of that is in other packs, which may not have been listed.
        """
        there = self._by_key.keys() if after is None else {key for key in self._by_key if key > after}
        for key in there - found.keys():
            self._by_key.pop(key).gone = True
        new = []
        for key in sorted(found):
            entry = found[key]
            pack = self._by_key.get(key)
            if pack is None or _is_another(pack, entry):
                new.append(entry)
            else:
                pack.modified = entry.modified
        whole = True
        for entry, footer, damage in self._pool().map(self._read_end, new):
            if footer is not None:
                self._take(entry, footer, damage)
            else:
                whole = False
        return whole

    def _check_format(self) -> None:
        try:
            data = self._store.get(FORMAT, 4096)
        except TooLargeError:
            data = b""
        if data is None:
            return  # It is written with the first pack.
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if found != _FORMAT:
            raise UnavailableError(
                self._instance,
                f"what `{FORMAT}` says there is no store of packs that this castore reads: it expects"
                f" {json.dumps(_FORMAT)}; if the store is of a newer version, use a newer castore",
            )
        self._checked_format = True

    def ensure_format(self) -> None:
        """Say in the store what it is, if nothing says it yet."""
        if not self._checked_format:
            self._check_format()
            if not self._checked_format:
                self._store.put_pieces(FORMAT, (json.dumps(_FORMAT).encode() + b"\n",))
                self._checked_format = True

    def _read_dead(self) -> None:
        for entry in self._store.list(DEAD, into=owned.is_hour):
            place = None if entry.foreign else owned.packed_at(entry.key)
            if place is None or place.left_over or entry.key in self._dead_keys:
                continue
            try:
                pairs = self.read_dead_at(entry.key)
            except PackDamageError as error:
                # The blobs that it hides come to light again, and lack chunks.
                _log.warning("%s is damaged: %s", entry.key, error)
                pairs = []
            self._note_dead(entry.key, pairs)

    def read_dead_at(self, key: str) -> list[tuple[bytes, bytes]]:
        """Return the pairs that an object of the dead names; none if it is gone.

        Raises `PackDamageError` if that cannot be known.
        """
        place = owned.packed_at(key)
        try:
            data = self._store.get(key, packs.MOST_DEAD_BYTES)
        except TooLargeError as error:
            raise PackDamageError(str(error)) from None
        if data is None:
            return []
        if place is None or B3Digest.of(data) != place.digest:
            raise PackDamageError("its bytes are not those that it is named by")
        return list(packs.decode_dead(data))

    def bury(self, key: str, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Take note of records that count no more, as the object *key* says by now."""
        with self._looking:
            self._note_dead(key, pairs)

    def _note_dead(self, key: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = list(pairs)
        # First the records: who looks in between finds one that still counts, and not a key without them.
        self._dead.update(pack + blob for pack, blob in pairs)
        self._dead_keys[key] = frozenset(pack for pack, _ in pairs)

    def needless_dead(self) -> list[str]:
        """Return the objects of the dead of which no pack is there any more, as of the last look at all.

        One that came after that may be about a pack that did, too.
        """
        there = {bytes(pack.name) for pack in self._packs if not pack.gone}
        return [
            key
            for key, names in self._dead_keys.items()
            if key in self._dead_before and names.isdisjoint(there)
        ]

    def _read_end(self, entry: StoredObject) -> tuple[StoredObject, Footer | None, str | None]:
        """Return what is in a pack, nothing if it is gone; and what is wrong with its end."""
        size = entry.size
        if size is None:
            described = self._store.describe(entry.key)
            size = None if described is None else described.size
        if size is None:
            return entry, None, None
        entry = attrs.evolve(entry, size=size)
        try:
            footer = self.read_footer(entry.key, size)
        except UnknownVersionError as error:
            raise UnavailableError(self._instance, f"{entry.key}: {error}") from None
        except PackDamageError as error:
            _log.warning("%s: %s; its chunks are looked for by their frames", entry.key, error)
            found = packs.recover(_Window(partial(self._read, entry.key)), size)
            # Of one chunk that is there twice the first will do.
            entries = {each.digest: each for each in found}
            return entry, Footer(sorted(entries.values()), ()), str(error)
        return entry, footer, None

    def read_footer(self, key: str, size: int) -> Footer | None:
        """Read the end of a pack of *size* bytes; `None` if it is gone. Raises `PackDamageError`."""
        count = min(size, _TAIL)
        tail = self._store.get_range(key, size - count, count)
        if tail is None:
            return None
        length = packs.footer_length(tail, size)
        if length > len(tail):
            more = self._store.get_range(key, size - length, length - len(tail))
            if more is None:
                return None
            tail = more + tail
        return packs.decode_footer(tail[len(tail) - length :], size)

    def _read(self, key: str, offset: int, count: int) -> bytes:
        return self._store.get_range(key, offset, count) or b""

    # -- what this process does itself --

    def _take(self, entry: StoredObject, footer: Footer, damage: str | None = None) -> Pack:
        known = self._by_key.get(entry.key)
        if known is not None:
            if not _is_another(known, entry):
                known.modified = entry.modified
                return known
            # It was damaged, and somebody has put it again.
            known.gone = True
        place = owned.packed_at(entry.key)
        assert place is not None
        assert entry.size is not None
        pack = Pack(entry.key, place.digest, len(self._packs), entry.size, entry.modified, damage)
        self._packs.append(pack)
        number = pack.number
        self._chunks.add(Row(each[0], number, each[1], each[2], each[3]) for each in footer.entries)
        self._records.add(Row(each[0], number, each[1], each[2], 0) for each in footer.records)
        self._by_key[entry.key] = pack
        return pack

    def add(self, key: str, size: int, footer: Footer) -> Pack:
        """Take note of a pack that this process has put."""
        with self._looking:
            return self._take(StoredObject(key, size, time.time()), footer)

    def lose(self, pack: Pack) -> None:
        """Take note that a pack is gone."""
        with self._looking:
            pack.gone = True
            if self._by_key.get(pack.key) is pack:
                del self._by_key[pack.key]


def _is_another(pack: Pack, entry: StoredObject) -> bool:
    """Tell whether what has the name of a pack may have other bytes than when its end was read."""
    if entry.size is not None and entry.size != pack.size:
        return True
    return pack.damage is not None and entry.modified != pack.modified
