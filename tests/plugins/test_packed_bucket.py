"""Collecting garbage in a bucket: nothing locks there, and what is rooted stays whoever acts when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

import castore
from castore import B3Digest, UnavailableError
from castore.contract.upkeep import Sweepable
from castore.threads.pool import Pool
from castore.upkeep import collect, verify
from castore_objectstore import far_store
from castore_objectstore.fsspec_store import FsspecObjectStore
from castore_objectstore.locations import open_store
from castore_objectstore.packed import claiming, known, service, sweeping
from castore_objectstore.packed.service import SweepablePacks
from tests.plugins.packed_mutants import MUTANTS
from tests.plugins.packed_world import Bucket, Requests, Scene, World

DAY = 86400.0
FOUND_SOON = [
    "a-record-before-its-chunks",
    "marks-after-a-look-at-claims",
    "the-dead-after-chunks",
    "a-claim-without-a-look-at-marks",
    "claims-do-not-count",
]
FOUND_ALONE = ("a-record-before-its-chunks", "the-dead-after-chunks")
"""With one collector each blob that is seen is whole."""


class TestSimulation:
    @pytest.mark.parametrize(("seed", "collectors"), [(1, 2), (2, 1)])
    def test_a_minute(self, seed: int, collectors: int) -> None:
        """Eight writers, collectors with a grace time of 2 s, and four readers; all may be killed."""
        scene = Scene(seed, collectors=collectors)
        scene.run(60)
        assert scene.written > 100
        assert scene.collected > 3
        assert scene.bucket.removed > 5
        assert scene.reads > 50

    @pytest.mark.long
    @pytest.mark.parametrize("collectors", [2, 1])
    def test_a_day(self, collectors: int) -> None:
        """All takes sixty times as long: 24 hours."""
        scene = Scene(5, collectors=collectors, scale=60.0)
        scene.run(1440)
        assert scene.collected > 20
        assert scene.bucket.removed > 100

    @pytest.mark.parametrize("name", FOUND_SOON)
    def test_what_is_wrong_is_found(self, name: str) -> None:
        require_found(name, tries=20)

    @pytest.mark.long
    @pytest.mark.parametrize("name", sorted(set(MUTANTS) - set(FOUND_SOON)))
    def test_what_is_wrong_is_found_in_the_end(self, name: str) -> None:
        require_found(name, tries=150)


def require_found(name: str, tries: int) -> None:
    for seed in range(tries):
        with MUTANTS[name]():
            try:
                Scene(seed, collectors=2 if seed % 2 and name not in FOUND_ALONE else 1).run(60)
            except AssertionError:
                return
    raise AssertionError(f"{name}: nothing was noticed")


class Hooked(Requests):
    """A program in a bucket without any delay that calls somebody before and after each request."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket, 0.0, 3600.0)
        self.before: Callable[[str, str], object] = lambda call, key: None

    def _wait(self, what: str) -> None:
        pass

    def put(self, key: str, data: bytes) -> None:
        self.before("put", key)
        super().put(key, data)
        self.before("after put", key)

    def describe(self, key: str) -> Any:
        self.before("describe", key)
        return super().describe(key)

    def list(self, prefix: str, **kwargs: Any) -> Any:
        self.before("list", prefix)
        return super().list(prefix, **kwargs)

    def _remove(self, key: str) -> None:
        self.before("remove", key)
        super()._remove(key)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(1)
    for module in (known, far_store, service, sweeping, claiming):
        monkeypatch.setattr(module, "time", world)
    return world


@pytest.fixture
def bucket(world: World) -> Bucket:
    return Bucket(world, alone=True)


def opened(bucket: Bucket) -> SweepablePacks:
    return SweepablePacks(
        Hooked(bucket), instance="store", pack_size=64 << 10, avg_chunk_size=1024, pool=Pool(0)
    )


def hooked(store: SweepablePacks) -> Hooked:
    assert isinstance(store._store, Hooked)
    return store._store


def put_together(store: SweepablePacks, blobs: Iterable[bytes]) -> dict[B3Digest, bytes]:
    found = {B3Digest.of(data): data for data in blobs}
    with store.lease(brief=True) as leased:
        leased.put_chunks(found)
        leased.put_indexes(dict.fromkeys(found, ()))
    return found


def some(first: int, last: int) -> list[bytes]:
    return [bytes([number]) * 10 + number.to_bytes(2) * 100 for number in range(first, last)]


def collected(
    bucket: Bucket, roots: Iterable[B3Digest], store: SweepablePacks | None = None, grace: float = DAY
) -> Any:
    bucket.roots = dict.fromkeys(roots, 0.0)
    return collect(
        store or opened(bucket), bucket.roots, grace_seconds=grace, no_roots=True, clock=bucket.world.time
    )


def keys(bucket: Bucket, kind: str) -> list[str]:
    return [key for key in bucket.keys if key.startswith(f"{kind}/")]


class At:
    """Acts once, at one of the moments that it is called at."""

    def __init__(self, moment: int, act: Callable[[], object]) -> None:
        self.left = moment
        self._act = act

    def __call__(self, call: str, key: str) -> None:
        self.left -= 1
        if self.left == -1:
            self._act()


def kill() -> None:
    raise KeyboardInterrupt


def turn_round(store: SweepablePacks) -> None:
    """Let a service take the oldest place of all for the best."""
    best = store._sweeping._best_first
    store._sweeping._best_first = lambda rows: best(rows)[::-1]  # type: ignore[method-assign]


def put_root(bucket: Bucket, writer: SweepablePacks, data: bytes) -> None:
    bucket.roots[writer.write(data)] = bucket.world.now


class TestWhatGoes:
    def test_what_is_all_garbage_goes_at_once(self, world: World, bucket: Bucket) -> None:
        going, staying = put_together(opened(bucket), some(0, 20)), put_together(opened(bucket), some(20, 40))
        world.now += 3 * DAY
        found = collected(bucket, staying)
        assert found.gone["index"].count == len(going)
        assert len(keys(bucket, "packs")) == 1
        reader = opened(bucket)
        assert reader.missing([*going, *staying]) == going.keys()

    def test_what_is_written_anew_goes_with_a_later_run(self, world: World, bucket: Bucket) -> None:
        """A list of packs that is made meanwhile has the old one or the new one."""
        blobs = put_together(opened(bucket), some(0, 40))
        roots = dict(list(blobs.items())[:10])
        world.now += 3 * DAY
        for hours, packs, marks in ((0, 3, 1), (0.5, 3, 1), (1, 2, 0)):
            world.now += hours * 3600
            collected(bucket, roots)
            assert (len(keys(bucket, "packs")), len(keys(bucket, "condemned"))) == (packs, marks)
            for digest, data in roots.items():
                assert opened(bucket).read(digest) == data
        world.now += 3 * DAY
        collected(bucket, roots)
        # Nothing is left but packs of chunks and of records, and what says what the store is.
        assert [key.partition("/")[0] for key in bucket.keys] == ["format", "packs", "packs"]
        assert verify(opened(bucket)).findings == []

    def test_a_collector_that_is_killed_at_any_moment(self, world: World) -> None:
        """What is rooted is there, every blob that is seen is whole, and the next runs end its work."""
        moment = 0
        while True:
            bucket = Bucket(world, alone=True)
            blobs = put_together(opened(bucket), some(0, 40)) | put_together(opened(bucket), some(40, 60))
            roots = dict(list(blobs.items())[:10])
            world.now += 3 * DAY
            store = opened(bucket)
            hooked(store).before = At(moment, kill)
            try:
                collected(bucket, roots, store)
            except KeyboardInterrupt:
                pass
            else:
                break
            for _ in range(3):
                world.now += DAY
                collected(bucket, roots)
            for digest, data in roots.items():
                assert opened(bucket).read(digest) == data
            assert opened(bucket).missing(blobs) == blobs.keys() - roots.keys()
            # What was written anew twice is little waste.
            assert len(keys(bucket, "packs")) <= 4
            assert keys(bucket, "condemned") == []
            moment += 1
        assert moment > 15


class TestOrders:
    """A writer claims what a collector is about to remove, before or after each request of either."""

    def test_a_writer_at_each_moment_of_a_collector(self, world: World) -> None:
        moment, kept = 0, set()
        while True:
            bucket, store, blobs = self._begun(world)
            writer, again = opened(bucket), next(iter(blobs))
            assert writer.has(again)
            at = At(moment, partial(put_root, bucket, writer, blobs[again]))
            hooked(store).before = at
            collected(bucket, (), store)
            if at.left >= 0:
                break
            bucket.check(again, "after the collection")
            assert opened(bucket).read(again) == blobs[again]
            kept.add(len(keys(bucket, "packs")))
            self._run_again(world, bucket, {again: blobs[again]})
            moment += 1
        assert moment > 8
        # The old pack stays as it is claimed, or the blob is stored anew.
        assert len(keys(bucket, "packs")) == 0

    def test_a_collector_at_each_moment_of_a_writer(self, world: World) -> None:
        moment = 0
        while True:
            bucket, store, blobs = self._begun(world)
            writer, again = opened(bucket), next(iter(blobs))
            assert writer.has(again)
            hooked(writer).before = at = At(moment, partial(collected, bucket, (), store))
            bucket.roots = {}
            digest = writer.write(blobs[again])
            bucket.roots = {digest: world.now}
            bucket.check(digest, "as it was stored")
            assert opened(bucket).read(again) == blobs[again]
            self._run_again(world, bucket, {again: blobs[again]})
            if at.left >= 0:
                break
            moment += 1
        assert moment > 4

    def test_two_collectors_with_two_copies(self, world: World) -> None:
        """Each takes the other's copy for the one that stays, at each moment of the first one."""
        moment = 0
        while True:
            bucket = Bucket(world, alone=True)
            kept = put_together(opened(bucket), some(0, 20))
            with opened(bucket).lease(brief=True) as leased:
                leased.put_chunks(dict(reversed(kept.items())))
                leased.put_indexes({})
            world.now += 3 * DAY
            one, two = opened(bucket), opened(bucket)
            turn_round(two)
            hooked(one).before = at = At(moment, partial(collected, bucket, kept, two))
            collected(bucket, kept, one)
            self._run_again(world, bucket, kept)
            if at.left >= 0:
                break
            moment += 1
        assert moment > 8

    def _begun(self, world: World) -> tuple[Bucket, SweepablePacks, dict[B3Digest, bytes]]:
        bucket = Bucket(world, alone=True)
        blobs = put_together(opened(bucket), some(0, 20))
        world.now += 3 * DAY
        return bucket, opened(bucket), blobs

    def _run_again(self, world: World, bucket: Bucket, roots: dict[B3Digest, bytes]) -> None:
        for _ in range(3):
            world.now += 2 * DAY
            collected(bucket, roots)
            for digest, data in roots.items():
                assert opened(bucket).read(digest) == data


class TestErrors:
    @pytest.mark.parametrize("prefix", ["packs/", "dead/", "claims/", "condemned/"])
    def test_an_error_in_a_list_removes_nothing(self, world: World, bucket: Bucket, prefix: str) -> None:
        put_together(opened(bucket), some(0, 20))
        world.now += 3 * DAY
        store = opened(bucket)

        def fail(call: str, key: str) -> None:
            if call == "list" and key == prefix:
                raise UnavailableError("store", "no answer")

        hooked(store).before = fail
        with pytest.raises(UnavailableError, match="no answer"):
            collected(bucket, (), store)
        assert bucket.removed == 0

    @pytest.mark.parametrize("kind", ["claims", "condemned"])
    def test_a_claim_or_mark_that_is_damaged_removes_nothing(
        self, world: World, bucket: Bucket, kind: str
    ) -> None:
        put_together(opened(bucket), some(0, 20))
        world.now += 3 * DAY
        bucket.put(f"{kind}/2026010203/{'a' * 64}", b"not what it is named by")
        with pytest.raises(UnavailableError, match=f"{kind}/.*nobody knows what may be removed"):
            collected(bucket, ())
        assert bucket.removed == 0

    def test_what_is_under_a_lease_stays(self, world: World, bucket: Bucket) -> None:
        """What was claimed by way of it, and what others put since: an import writes by other leases."""
        (old, *_) = put_together(opened(bucket), some(0, 20))
        world.now += 3 * DAY
        writer = opened(bucket)
        with writer.lease() as leased:
            assert len(keys(bucket, "leases")) == 1
            assert leased.claim([old]) == {old}
            (beside,) = put_together(opened(bucket), some(20, 21))
            world.now += 0.9 * DAY
            collected(bucket, (), grace=DAY / 4)
            leased.put_indexes({old: ()})
            fresh = opened(bucket)
            assert [fresh.has(digest) for digest in (old, beside)] == [True, True]
        assert keys(bucket, "leases") == []

    def test_looks_at_claims_at_once_forget_none(self, world: World, bucket: Bucket) -> None:
        """One that began before a claim, and is through after one that has seen it."""
        digests = set(put_together(opened(bucket), some(0, 1)))
        world.now += 3 * DAY
        collector = opened(bucket)
        collector._known.look_anew()
        claims, (pack,) = collector._claims, collector._known.all_packs()
        assert claims is not None
        listed, late = claims._claims.list, []

        def hold_back(pool: Pool) -> Any:
            late.append(listed(pool))
            claims._claims.list = listed  # type: ignore[method-assign]
            assert opened(bucket).claim(digests) == digests
            claims.look_at_claims()
            return late[0]

        claims._claims.list = hold_back  # type: ignore[method-assign]
        claims.look_at_claims()
        assert claims.time_of(pack) == pytest.approx(world.now, abs=DAY / 24)

    @pytest.mark.parametrize(
        ("url", "collects"),
        [
            ("memory:", True),
            ("s3://bucket/x", True),
            ("simplecache::s3://bucket/x", False),
            ("ftp://host/x", False),
        ],
    )
    def test_where_it_collects(self, url: str, collects: bool, tmp_path: Any) -> None:
        """Where each listing is known to have all that was put before."""
        with castore.from_url(f"packed+{url}") as blobs:
            assert (blobs.capability(Sweepable) is not None) == collects


def after(at: At, right: Callable[..., object], *args: object) -> object:
    at("", "")
    return right(*args)


@pytest.fixture
def endpoint() -> Iterator[str]:
    pytest.importorskip("moto.server")
    from tests.plugins.moto_servers import moto_server  # noqa: PLC0415 - the others need none

    with moto_server() as url:
        yield url


@pytest.mark.parametrize("driver", ["fsspec", "obstore"])
def test_on_s3(endpoint: str, driver: Any, tmp_path: Any) -> None:
    """A collector ends at some of its removals and puts, as if killed; the next ones finish."""
    secret = "a-secret"
    s3 = pytest.importorskip("boto3").client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="an-id",
        aws_secret_access_key=secret,
    )
    s3.create_bucket(Bucket=f"packs-{driver}")
    options = {
        "aws_access_key_id": "an-id",
        "aws_secret_access_key": secret,
        "aws_region": "us-east-1",
        "aws_endpoint_url": endpoint,
        "aws_allow_http": "true",
    }

    def made() -> SweepablePacks:
        store = open_store(f"s3://packs-{driver}/x", options, base=tmp_path, instance="s3", driver=driver)
        store.renewal_seconds = -1.0  # Times there have whole seconds.
        packs = SweepablePacks(store, instance="s3", pack_size=64 << 10, pool=Pool(0))
        packs._sweeping.settle_seconds = -1.0
        return packs

    def gone() -> Iterator[int]:
        """Collect until nothing more goes; end at the first, second, ... request that changes anything."""
        # By fsspec the same costs several times as much.
        for moment in range(3, 40, 20 if driver == "fsspec" else 2):
            store = made()
            at = At(moment, kill)
            for name in ("put", "_remove", "_remove_all"):
                setattr(store._store, name, partial(after, at, getattr(store._store, name)))
            try:
                collect(store, roots, grace_seconds=0)
            except KeyboardInterrupt:
                yield moment
            else:
                return
            finally:
                store.close()

    first = made()
    blobs = put_together(first, some(0, 40)) | put_together(first, some(40, 60))
    roots = dict(list(blobs.items())[:10])
    first.close()
    for _ in gone():
        reader = made()
        assert dict(reader.read_many(roots)) == roots
        reader.close()
    for _ in range(2):
        last = made()
        collect(last, roots, grace_seconds=0)
        last.close()
    reader = made()
    assert dict(reader.read_many(roots)) == roots
    assert set(reader.list_blobs()) == roots.keys()
    assert verify(reader).findings == []
    assert len(list(reader._store.list("packs/", into=lambda _: True))) <= 4
    assert isinstance(reader._store, FsspecObjectStore) == (driver == "fsspec")
    reader.close()
