"""A bucket, and those who use it at once, under a clock of their own: one acts at a time, in an order drawn.

Every request waits before and after it is done, and a listing between its pages. Actors are threads, of which
one runs at any time; who waits hands over to the one that is next by the clock.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import threading
import time as real
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any
from unittest import mock

from castore import B3Digest, CastoreError, ChunkMeta, owned
from castore.format import blob_index, packs
from castore.threads.pool import Pool
from castore.upkeep import collect
from castore_objectstore import far_store
from castore_objectstore.far_store import FarObjectStore
from castore_objectstore.object_store import StoredObject, TooLargeError
from castore_objectstore.packed import claiming, known, service, sweeping
from castore_objectstore.packed.service import SweepablePacks

EPOCH = 1_700_000_000.0
PAGE = 12


class KilledError(BaseException):
    """The program of an actor ends here."""


class LostError(AssertionError):
    """Something was promised, and is not there."""


class EndError(BaseException):
    """The time is over."""


class World:
    """The clock, and whose turn it is."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.now = EPOCH
        self.until = EPOCH
        self.failure: BaseException | None = None
        self.skew: dict[int, float] = defaultdict(float)
        self._queue: list[tuple[float, int, threading.Semaphore]] = []
        self._count = 0
        self._over = threading.Semaphore(0)
        self._left = 0
        self.actor = 0

    # -- what stands for the module `time` --

    def time(self) -> float:
        return self.now + self.skew[self.actor]

    def monotonic(self) -> float:
        return self.now

    gmtime = staticmethod(real.gmtime)
    strftime = staticmethod(real.strftime)

    # -- what stands for the module `secrets` --

    def token_bytes(self, count: int) -> bytes:
        return self.chance.randbytes(count)

    def token_hex(self, count: int) -> str:
        return self.chance.randbytes(count).hex()

    # -- turns --

    def sleep(self, seconds: float) -> None:
        """Let others act for some time."""
        if self.now >= self.until or self.failure is not None:
            raise EndError
        me, mine = self.actor, threading.Semaphore(0)
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, mine))
        first = self._hand_over()
        if first is not mine:
            first.release()
            mine.acquire()
        self.actor = me
        if self.failure is not None:
            raise EndError

    def _hand_over(self) -> threading.Semaphore:
        when, _, first = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        return first

    def run(self, actors: Sequence[Callable[[], None]], seconds: float) -> None:
        """Let all act until the time is over; raise what one has raised."""
        self.until = self.now + seconds
        self._left = len(actors)
        threads = []
        for number, actor in enumerate(actors):
            begins = threading.Semaphore(0)
            self._count += 1
            heapq.heappush(self._queue, (self.now + number * 0.01, self._count, begins))
            threads.append(threading.Thread(target=self._act, args=(number, actor, begins), daemon=True))
            threads[-1].start()
        modules = (known, far_store, service, sweeping, claiming)
        patches = [mock.patch.object(each, "time", self) for each in modules]
        patches += [
            mock.patch.object(each, "randomness", self) for each in modules if hasattr(each, "randomness")
        ]
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            self._hand_over().release()
            self._over.acquire()
        for thread in threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _act(self, number: int, actor: Callable[[], None], begins: threading.Semaphore) -> None:
        begins.acquire()
        self.actor = number
        try:
            if self.failure is None:
                actor()
        except EndError:
            pass
        except BaseException as error:
            self.failure = self.failure or error
        self._left -= 1
        if self._left:
            self._hand_over().release()
        else:
            self._over.release()


class Bucket:
    """Objects with their times; sees to it that nothing is ever missing of what was promised."""

    def __init__(self, world: World, *, alone: bool) -> None:
        self.world = world
        self.alone = alone
        """Whether there is one collector: then each blob that is seen is whole."""
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.keys: list[str] = []
        self.roots: dict[B3Digest, float] = {}
        """What is to stay, and since when."""
        self.requests: defaultdict[str, int] = defaultdict(int)
        self._packs: dict[str, packs.Footer] = {}
        self._chunks: defaultdict[bytes, set[str]] = defaultdict(set)
        self._records: defaultdict[bytes, dict[str, tuple[bytes, ...]]] = defaultdict(dict)
        self._dead: set[bytes] = set()
        self.removed = 0

    def put(self, key: str, data: bytes) -> None:
        if key not in self.objects:
            bisect.insort(self.keys, key)
        self.objects[key] = data, self.world.now
        kind = key.partition("/")[0]
        if kind == "packs":
            self._take(key, data)
        elif kind == "dead":
            self._dead.update(pack + blob for pack, blob in packs.decode_dead(data))
            self.check_roots(f"{key} is put")

    def _take(self, key: str, data: bytes) -> None:
        footer = packs.decode_footer(data[len(data) - packs.footer_length(data, len(data)) :], len(data))
        self._packs[key] = footer
        for entry in footer.entries:
            self._chunks[entry.digest].add(key)
        for record in footer.records:
            index = data[record.offset : record.offset + record.length]
            chunks = blob_index.decode(index, B3Digest(record.digest), key=key)
            needed = tuple(bytes(meta.digest) for meta in chunks) or (record.digest,)
            self._records[record.digest][key] = needed
            if self.alone and not all(map(self._chunks.get, needed)):
                raise LostError(f"{key}: a record of {record.digest.hex()[:8]} without all of its chunks")

    def remove(self, key: str) -> None:
        if self.objects.pop(key, None) is None:
            return
        del self.keys[bisect.bisect_left(self.keys, key)]
        footer = self._packs.pop(key, None)
        if footer is not None:
            self.removed += 1
            for entry in footer.entries:
                self._chunks[entry.digest].discard(key)
            for record in footer.records:
                del self._records[record.digest][key]
            self.check_roots(f"{key} is removed")

    def check_roots(self, moment: str) -> None:
        """Raise `LostError` if a root is not there, with all of its chunks."""
        for root in self.roots:
            self.check(root, moment)
        if self.alone:
            for blob, records in self._records.items():
                for key, needed in records.items():
                    if self._counts(key, blob) and not all(map(self._chunks.get, needed)):
                        raise LostError(f"{moment}: {blob.hex()[:8]} is seen without all of its chunks")

    def _counts(self, key: str, blob: bytes) -> bool:
        return bytes.fromhex(key.rpartition("/")[2]) + blob not in self._dead

    def check(self, root: B3Digest, moment: str) -> None:
        found = [needed for key, needed in self._records[bytes(root)].items() if self._counts(key, root)]
        if not found:
            raise LostError(f"{moment}: no record of {str(root)[:8]}, a root, is there")
        if not any(all(map(self._chunks.get, needed)) for needed in found):
            raise LostError(f"{moment}: {str(root)[:8]}, a root, lacks chunks")


class Requests(FarObjectStore):
    """What one program does in the bucket."""

    lists_at_once = True
    lists_in_order = True

    def __init__(self, bucket: Bucket, scale: float, renewal: float) -> None:
        super().__init__("sim:", "store", (), renewal)
        self.bucket = bucket
        self.world = bucket.world
        self.scale = scale
        self.hangs = False
        """Whether what is to change anything may take long."""
        self.lives_for = -1
        """How many steps are left for the program, if it is not to live on."""

    def _wait(self, what: str) -> None:
        if self.lives_for == 0:
            raise KilledError
        self.lives_for -= 1
        chance = self.world.chance
        most = 0.002 if what == "get" else 0.2 if chance.random() < 0.03 else 0.01
        self.world.sleep(self.scale * chance.random() * most)

    @contextlib.contextmanager
    def _request(self, what: str) -> Iterator[None]:
        self.bucket.requests[what] += 1
        self._wait(what)
        if self.hangs and what in ("put", "delete") and self.world.chance.random() < 0.3:
            self.world.sleep(self.scale * self.world.chance.random())
        yield
        self._wait(what)

    def read_into(self, key: str, take: Callable[[bytes], object], most: int = 1 << 30) -> bool:
        with self._request("get"):
            found = self.bucket.objects.get(key)
        if found is None:
            return False
        if len(found[0]) > most:
            raise TooLargeError(most)
        take(found[0])
        return True

    def describe(self, key: str) -> StoredObject | None:
        with self._request("head"):
            found = self.bucket.objects.get(key)
        return None if found is None else StoredObject(key, len(found[0]), found[1])

    def put(self, key: str, data: bytes) -> None:
        with self._request("put"):
            self.bucket.put(key, bytes(data))

    def list(
        self, prefix: str, *, after: str | None = None, into: Callable[[str], bool] = owned.has_some_digests
    ) -> Iterator[StoredObject]:
        last, keys = max(prefix, after or ""), self.bucket.keys
        found: list[StoredObject] = []
        while True:
            with self._request("list"):
                start = bisect.bisect_right(keys, last)
                page = [key for key in keys[start : start + PAGE] if key.startswith(prefix)]
                for key in page:
                    data, modified = self.bucket.objects[key]
                    found.append(StoredObject(key, len(data), modified))
            if len(page) < PAGE:
                return iter(found)
            last = page[-1]

    def _remove(self, key: str) -> None:
        with self._request("delete"):
            self.bucket.remove(key)

    def _move(self, key: str, target: str) -> None:
        raise NotImplementedError

    def replace(self, *args: Any) -> bool:
        raise NotImplementedError

    def list_below(self, prefix: str) -> Iterator[str]:
        raise NotImplementedError


class Scene:
    """Writers, collectors and readers of one bucket.

    Arguments:
        seed: Of all that is drawn.
        writers, collectors, readers: How many of each.
        scale: How long things take: 1 for requests of some hundredths of a second and a grace time of 2.
    """

    GRACE = 2.0
    RENEWAL = 0.5
    SETTLE = 1.0
    LEASE = 12.0

    def __init__(
        self, seed: int, *, writers: int = 8, collectors: int = 2, readers: int = 4, scale: float = 1.0
    ) -> None:
        self.world = World(seed)
        self.chance = self.world.chance
        self.scale = scale
        self.bucket = Bucket(self.world, alone=collectors == 1)
        self.actors: list[Callable[[], None]] = []
        for role, count in ((self.write, writers), (self.collect, collectors), (self.read, readers)):
            self.actors += [role] * count
        for number in range(len(self.actors)):
            self.world.skew[number] = scale * self.chance.uniform(-0.1, 0.1)
        parts = [Random(number).randbytes(900) for number in range(14)]
        self.blobs = [b"".join(self.chance.sample(parts, self.chance.randint(1, 4))) for _ in range(40)]
        self.written = self.unrooted = self.collected = self.killed = self.reads = 0

    def run(self, seconds: float) -> None:
        # What a writer leaves that is killed holds up collectors for a day.
        with mock.patch.object(far_store, "_LEASE_SECONDS", self.LEASE * self.scale):
            self.world.run(self.actors, seconds * self.scale)
        self.bucket.check_roots("in the end")

    def open(self) -> SweepablePacks:
        store = Requests(self.bucket, self.scale, self.RENEWAL * self.scale)
        made = SweepablePacks(store, instance="store", pack_size=6000, avg_chunk_size=512, pool=Pool(0))
        made._sweeping.settle_seconds = self.SETTLE * self.scale
        return made

    def _sleep(self, most: float) -> None:
        self.world.sleep(self.scale * self.chance.random() * most)

    def _mortal(self, opened: SweepablePacks, odds: float) -> None:
        """Let a program be killed soon, or not."""
        assert isinstance(opened._store, Requests)
        opened._store.lives_for = self.chance.randint(1, 60) if self.chance.random() < odds else -1

    def write(self) -> None:
        opened = self.open()
        while True:
            self._sleep(3.0)
            if self.chance.random() < 0.1:
                opened = self.open()
            self._mortal(opened, 0.05)
            try:
                if self.chance.random() < 0.15:
                    self._write_slowly(opened)
                else:
                    self._root(opened.write(self.chance.choice(self.blobs)))
            except KilledError:
                self.killed += 1
                opened = self.open()
            while len(self.bucket.roots) > 12 or (self.bucket.roots and self.chance.random() < 0.3):
                del self.bucket.roots[self.chance.choice(sorted(self.bucket.roots))]
                self.unrooted += 1

    def _write_slowly(self, opened: SweepablePacks) -> None:
        """Hold a lease for longer than the grace time."""
        with opened.lease() as leased:
            some = self.chance.sample(self.blobs, 3)
            with opened_writers(leased, some) as indexes:
                self._sleep(6.0)
                leased.put_indexes(indexes)
            for digest in indexes:
                self._root(digest)

    def _root(self, digest: B3Digest) -> None:
        self.written += 1
        self.bucket.roots[digest] = self.world.now
        self.bucket.check(digest, "as it was stored")

    def collect(self) -> None:
        while True:
            self._sleep(1.0)
            opened = self.open()
            assert isinstance(opened._store, Requests)
            opened._store.hangs = True
            self._mortal(opened, 0.25)
            try:
                collect(
                    opened,
                    self._roots_now(),
                    grace_seconds=self.GRACE * self.scale,
                    no_roots=True,
                    ignore_missing_roots=True,
                    clock=self.world.time,
                )
                self.collected += 1
            except KilledError:
                self.killed += 1

    def _roots_now(self) -> Iterator[B3Digest]:
        yield from list(self.bucket.roots)

    def read(self) -> None:
        opened = self.open()
        while True:
            self._sleep(0.5)
            if self.chance.random() < 0.2:
                opened = self.open()
            # Who has looked just now does not look again within five seconds.
            roots = {
                root: since
                for root, since in self.bucket.roots.items()
                if self.world.now - since > 5 + self.scale
            }
            if not roots:
                continue
            root = self.chance.choice(sorted(roots))
            try:
                data = opened.read(root)
                if B3Digest.of(data) != root:
                    raise LostError(f"{root}: other bytes")
                self.reads += 1
            except CastoreError as error:
                if self.bucket.roots.get(root) is not None and self.bucket.roots[root] == roots[root]:
                    raise LostError(f"a reader does not find {root}: {error}") from error


@contextlib.contextmanager
def opened_writers(leased: Any, blobs: Iterable[bytes]) -> Iterator[dict[B3Digest, Any]]:
    """Claim or put the chunks of blobs; give what their indexes are."""
    indexes: dict[B3Digest, list[ChunkMeta]] = {}
    wanted: dict[B3Digest, bytes] = {}
    for blob in blobs:
        cuts = [blob[start : start + 900] for start in range(0, len(blob), 900)]
        metas = [ChunkMeta(B3Digest.of(cut), len(cut)) for cut in cuts]
        wanted |= dict(zip((meta.digest for meta in metas), cuts, strict=True))
        indexes[B3Digest.of(blob)] = metas if len(metas) > 1 else []
    claimed = leased.claim(list(wanted))
    leased.put_chunks({digest: data for digest, data in wanted.items() if digest not in claimed})
    yield indexes
