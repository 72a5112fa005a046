"""Marks that tasks bring from elsewhere: a collection does with them what it does alone."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import attrs
import pytest

from castore import B3Digest, BadIndexError, Composition, UnavailableError
from castore.contract.upkeep import StoredItem
from castore.upkeep import Collected, MissingRootsError, collect, marking, spread

TOML = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
avg_chunk_size = 4096
durability = "process"

[blobservices.rows]
type = "sqlite"
path = "rows.db"
avg_chunk_size = 4096
durability = "process"

[blobservices.packs]
type = "packed"
object_store_url = "file:./packs"
avg_chunk_size = 4096
durability = "process"
"""

RNG = random.Random(5)
SHARED = RNG.randbytes(40_000)
BLOBS = [RNG.randbytes(RNG.randrange(1, 3000)) for _ in range(80)] + [
    SHARED + RNG.randbytes(20_000) for _ in range(6)
]
KEPT = [B3Digest.of(data) for data in BLOBS[::3]]
ABSENT = [B3Digest.of(b"absent %d" % number) for number in range(5)]
LATER = 1e7
GRACE = 3600.0


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Composition]:
    (tmp_path / "composition.toml").write_text(TOML)
    with Composition.from_toml(tmp_path / "composition.toml") as stores:
        fill(stores, "root")
        yield stores


def fill(stores: Composition, name: str) -> None:
    for data in BLOBS:
        stores.blobs(name).write(data)


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def collected(stores: Composition, name: str = "root", **options: Any) -> tuple[Collected, list[StoredItem]]:
    """Collect long after all was stored; return also what went, in its order."""
    gone: list[StoredItem] = []
    now = time.time() + LATER
    options = {"roots": KEPT, "dry_run": True, "clock": lambda: now} | options
    done = collect(stores.blobs(name), grace_seconds=GRACE, on_gone=gone.append, **options)
    return attrs.evolve(done, cutoff=0.0, goes_from=None), gone


def renew(folder: Path, *digests: B3Digest) -> None:
    """Make indexes young at that time, and no chunk."""
    for digest in digests:
        young = time.time() + LATER
        os.utime(folder / f"store/blobs/b3/{digest.hex()[:4]}/{digest.hex()}", (young, young))


class Task:
    def __init__(self, engine: Engine, call: Callable[[], Any]) -> None:
        self.engine = engine
        self.call = call

    def result(self) -> Any:
        return self.call()

    def cancel(self) -> None:
        self.engine.under_way -= 1


class Engine:
    """Runs each task twice, when its result is asked for, and loses one of them on demand."""

    def __init__(self, lost: int | None = None) -> None:
        self.lost = lost
        self.tasks = 0
        self.under_way = 0
        self.most = 0
        self.asked: list[int] = []
        self.cut = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Task:
        self.tasks += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.asked.append(len(arguments[-1]))
        if self.tasks == self.lost:
            return Task(self, self._lose)
        return Task(self, lambda: self._run(function, *arguments))

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        function(*arguments)
        run = function(*arguments)
        self.cut += run.count < len(arguments[-1])
        return run

    def _lose(self) -> Any:
        raise ConnectionError("the worker is gone")


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of five blobs, of which some leave a part to others."""
    monkeypatch.setattr(marking, "_MOST_BLOBS", 5)
    monkeypatch.setattr(marking, "_MOST_MARKS", 2)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("name", ["root", "rows", "packs"])
@pytest.mark.parametrize("parts", [1, 3, 100])
def test_what_goes_is_the_same(stores: Composition, tmp_path: Path, name: str, parts: int) -> None:
    """Of every kind of store, however many tasks are under way; some that are young stay."""
    if name != "root":
        fill(stores, name)
    else:
        renew(tmp_path, *map(B3Digest.of, (BLOBS[1], BLOBS[82])))
    optional = [(digest, False) for digest in ABSENT[2:]] + [(B3Digest.of(BLOBS[4]), True)]
    options = {"roots": [*KEPT, *ABSENT[:2]], "ignore_missing_roots": True}
    alone, gone = collected(stores, name, reached=optional, **options)
    assert alone.missing == sorted(ABSENT[:2])
    assert gone
    assert name != "root" or alone.too_new["chunk"].count
    engine = Engine()
    marker = spread("mark", stores, name, engine.submit, parts=parts, prove=False)
    assert collected(stores, name, reached=optional, marker=marker, **options) == (alone, gone)
    assert engine.most <= parts
    assert engine.under_way == 0
    assert name != "root" or engine.cut
    assert max(engine.asked) == 5


def test_in_processes(stores: Composition, processes: Executor, tmp_path: Path) -> None:
    """What is to stay can be read in the end; the rest is gone."""
    renew(tmp_path, B3Digest.of(BLOBS[82]))
    alone, gone = collected(stores)
    marker = spread("mark", stores, "root", processes.submit, prove=False)
    assert collected(stores, marker=marker, dry_run=False) == (alone, gone)
    for number, data in enumerate(BLOBS):
        digest = B3Digest.of(data)
        if digest in KEPT or number == 82:
            assert stores.blobs().read(digest) == data
        else:
            assert not stores.blobs().has(digest)


@pytest.mark.usefixtures("small_tasks")
def test_a_lost_run_ends_it(stores: Composition) -> None:
    """Whichever it is, no chunk goes, and nothing that is to stay."""
    before = collected(stores)
    everything = Engine()
    collected(stores, marker=spread("mark", stores, "root", everything.submit, prove=False))
    for lost in range(1, everything.tasks + 1):
        engine = Engine(lost)
        marker = spread("mark", stores, "root", engine.submit, parts=3, prove=False)
        with pytest.raises(ConnectionError, match="the worker is gone"):
            collected(stores, marker=marker, dry_run=False)
        assert engine.under_way == 0
    assert collected(stores) == before


def test_a_worker_that_is_killed(stores: Composition) -> None:
    """An engine that does not repeat says so; nothing hangs and nothing goes."""
    before = collected(stores)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(os.kill, executor.submit(os.getpid).result(), signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            collected(
                stores, marker=spread("mark", stores, "root", executor.submit, prove=False), dry_run=False
            )
    assert collected(stores) == before


@pytest.mark.parametrize("young", [False, True])
def test_workers_that_see_another_store(stores: Composition, tmp_path: Path, young: bool) -> None:
    """A folder of the same name on their machine: what is not there does not go here for that."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/composition.toml").write_text(TOML)
    options: dict[str, Any] = {}
    if young:
        renew(tmp_path, KEPT[3])
        options = {"roots": [], "no_roots": True}
    before = collected(stores, **options)
    with Composition.from_toml(tmp_path / "other/composition.toml") as other:
        marker = spread("mark", other, "root", Engine().submit, prove=False)
        assert isinstance(marker, marking.SpreadMarker)
        marker = attrs.evolve(marker, here=marking.LocalMarker(stores.blobs(), stores.pool))
        with pytest.raises(UnavailableError, match=r"a worker does not see .*, which is there"):
            collected(stores, marker=marker, dry_run=False, **options)
    if not young:
        assert collected(stores, **options) == before
    assert stores.blobs().read(KEPT[3]) == BLOBS[9]


def test_workers_that_see_the_same_blobs_cut_in_another_way(stores: Composition, tmp_path: Path) -> None:
    """Their lists are of no use here: each shows that it sees what was stored here just now."""
    (tmp_path / "other").mkdir()
    config = tmp_path / "other/composition.toml"
    config.write_text(TOML.replace("4096", "16384"))
    with Composition.from_toml(config) as other:
        fill(other, "root")
        engine = Engine()

        def elsewhere(function: Callable[..., Any], _: bytes, *arguments: Any) -> Task:
            return engine.submit(function, pickle.dumps(other), *arguments)

        with pytest.raises(UnavailableError, match="a worker sees another store by this name"):
            collected(stores, marker=spread("mark", stores, "root", elsewhere), dry_run=False)
    assert [stores.blobs().read(digest) for digest in KEPT] == BLOBS[::3]
    collected(stores, marker=spread("mark", stores, "root", Engine().submit), dry_run=False)
    assert [stores.blobs().read(digest) for digest in KEPT] == BLOBS[::3]


def test_errors_are_those_of_one_process(stores: Composition, processes: Executor, tmp_path: Path) -> None:
    marker = spread("mark", stores, "root", processes.submit, prove=False)
    with pytest.raises(MissingRootsError) as missing:
        collected(stores, roots=ABSENT, marker=marker)
    assert missing.value.digests == sorted(ABSENT)
    index = tmp_path / f"store/blobs/b3/{KEPT[3].hex()[:4]}/{KEPT[3].hex()}"
    index.chmod(0o600)
    index.write_bytes(b"nonsense")
    told = []
    for each in (None, marker):
        with pytest.raises(BadIndexError) as bad:
            collected(stores, marker=each, dry_run=False)
        told.append((str(bad.value), bad.value.expected))
    assert told[0] == told[1]
    assert "mend the store first" in told[0][0]


def test_no_tasks_at_a_time(stores: Composition) -> None:
    with pytest.raises(ValueError, match="0 tasks at a time"):
        spread("mark", stores, "root", Engine().submit, parts=0)


@pytest.mark.usefixtures("small_tasks")
def test_blobs_are_asked_for_as_runs_come(stores: Composition) -> None:
    """However many there are, only those of the tasks under way are in memory."""
    given = 0

    def blobs() -> Iterator[B3Digest]:
        nonlocal given
        for digest in KEPT:
            given += 1
            yield digest

    marker = spread("mark", stores, "root", Engine().submit, parts=2)
    done = 0
    for found in marker(blobs()):
        done += len(found.blobs)
        assert given <= done + 2 * 5 + 5
    assert done == given == len(KEPT)
