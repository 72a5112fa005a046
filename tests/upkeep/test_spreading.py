"""Work that is spread over processes: what comes of it is what one process finds."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, Composition, UnavailableError, UnsupportedError
from castore.contract.upkeep import DigestRange, Inventory
from castore.format.chunking import FastCdc2020
from castore.upkeep import Finding, spread, verify
from castore.upkeep.spreading import verify_part

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

[blobservices.forgetful]
type = "memory"

[blobservices.archive]
type = "objectstore"
object_store_url = "file:./archive"
durability = "process"
"""

RNG = random.Random(19)
SHARED = RNG.randbytes(40_000)
BLOBS = [RNG.randbytes(RNG.randrange(1, 3000)) for _ in range(120)] + [
    SHARED + RNG.randbytes(20_000) for _ in range(6)
]
LENGTHS = list(FastCdc2020(4096).cut(memoryview(SHARED)))[:-1]
CUTS = [
    B3Digest.of(SHARED[end - length : end]) for length, end in zip(LENGTHS, accumulate(LENGTHS), strict=True)
]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Composition]:
    (tmp_path / "composition.toml").write_text(TOML)
    with Composition.from_toml(tmp_path / "composition.toml") as stores:
        for name in ("root", "rows"):
            for data in BLOBS:
                stores.blobs(name).write(data)
        yield stores


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def damage(folder: Path) -> None:
    """Spoil two chunks, one that six blobs share, and an index; remove another one; leave residue."""
    chunks = sorted((folder / "store/chunks").rglob("*/*/*"))
    shared = [next(path for path in chunks if path.name == cut.hex()) for cut in CUTS]
    indexes = sorted((folder / "store/blobs").rglob("*/*/*"), key=lambda path: path.stat().st_size)
    for path in (shared[2], chunks[5]):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    shared[4].unlink()
    indexes[-1].chmod(0o600)
    indexes[-1].write_bytes(b"nonsense")
    for name in ("blobs/b3/stranger", "chunks/b3/0000/stranger", "chunks/b3/zzzz"):
        (folder / "store" / name).parent.mkdir(exist_ok=True)
        (folder / "store" / name).write_bytes(b"")


def facts(findings: list[Finding]) -> set[tuple[Any, ...]]:
    return {(finding.what, finding.digest, finding.code) for finding in findings}


@pytest.mark.parametrize("name", ["root", "rows"])
@pytest.mark.parametrize("count", [1, 2, 16, 256])
def test_what_is_found_is_what_one_finds(stores: Composition, tmp_path: Path, name: str, count: int) -> None:
    """Whatever the number of parts; here in threads of this process, which take turns."""
    if name == "root":
        damage(tmp_path)
    alone = verify(stores.blobs(name), expected=[B3Digest.of(b"absent")])
    assert name == "rows" or len(alone.findings) >= 10
    with ThreadPoolExecutor(2) as threads:
        found = spread("verify", stores, name, threads.submit, parts=count, expected=[B3Digest.of(b"absent")])
    assert facts(found.findings) == facts(alone.findings)
    assert len(found.findings) == len(alone.findings)
    assert (found.tally.blobs, found.tally.chunks) == (alone.tally.blobs, alone.tally.chunks)
    assert Counter(found.residue) == Counter(alone.residue)


def test_in_processes(stores: Composition, processes: Executor, tmp_path: Path) -> None:
    damage(tmp_path)
    alone = verify(stores.blobs())
    parts: list[int] = []
    found = spread(
        "verify", stores, "root", processes.submit, parts=8, progress=lambda done: parts.append(done.listed)
    )
    assert facts(found.findings) == facts(alone.findings)
    assert found.tally.blobs == alone.tally.blobs
    assert len(parts) == 8
    assert sum(parts) == len(list(stores.blobs().capability(Inventory).list_items()))  # type: ignore[union-attr]


def test_a_copy(stores: Composition, processes: Executor) -> None:
    """All blobs arrive, each once."""
    tally, failed = spread("copy", stores, "rows", processes.submit, parts=5, target="archive")
    assert failed == []
    assert tally.blobs_copied + tally.blobs_skipped == len(BLOBS)
    for data in BLOBS:
        assert stores.blobs("archive").read(B3Digest.of(data)) == data
    again, _ = spread("copy", stores, "rows", processes.submit, parts=5, target="archive")
    assert (again.blobs_copied, again.blobs_skipped) == (0, len(BLOBS))


def test_what_a_copy_cannot_read(stores: Composition, processes: Executor, tmp_path: Path) -> None:
    damage(tmp_path)
    _, failed = spread("copy", stores, "root", processes.submit, parts=5, target="archive")
    bad = {finding.digest for finding in verify(stores.blobs()).findings if finding.what != "chunk"}
    assert {copied.digest for copied in failed} >= bad


def test_workers_that_see_nothing(stores: Composition, processes: Executor) -> None:
    """What one process keeps in memory no other one finds: that is no report of a sound store."""
    stores.blobs("forgetful").write(b"only here")
    with pytest.raises(UnavailableError, match="a worker sees nothing of what is there"):
        spread("verify", stores, "forgetful", processes.submit, parts=4)


def test_a_service_without_a_list(
    monkeypatch: pytest.MonkeyPatch, stores: Composition, smallest: BlobService
) -> None:
    """It is refused before anything is sent."""
    monkeypatch.setattr(stores, "blobs", lambda _: smallest)
    with pytest.raises(UnsupportedError, match="lists neither"):
        spread("verify", stores, "root", Repeating().submit)


class Repeating:
    """An engine that loses the first run of each third task, and runs it again."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Repeating:
        self.runs += 1
        if self.runs % 3 == 0:
            function(*arguments)
        task = Repeating()
        task.result = lambda: function(*arguments)  # type: ignore[method-assign]
        task.cancel = lambda: setattr(self, "cancelled", self.cancelled + 1)  # type: ignore[method-assign]
        return task

    def result(self) -> Any:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError


def test_tasks_that_run_twice(stores: Composition, tmp_path: Path) -> None:
    damage(tmp_path)
    alone = verify(stores.blobs())
    found = spread("verify", stores, "root", Repeating().submit, parts=9)
    assert facts(found.findings) == facts(alone.findings)
    assert found.tally.blobs == alone.tally.blobs


def test_an_error_ends_all(stores: Composition) -> None:
    engine = Repeating()

    def stop(done: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        spread("verify", stores, "root", engine.submit, parts=7, progress=stop)
    assert engine.cancelled == 7


def test_a_worker_that_is_killed(stores: Composition) -> None:
    """An engine that does not repeat says so; nothing hangs, and the next run finds all."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(os.kill, executor.submit(os.getpid).result(), signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            spread("verify", stores, "root", executor.submit, parts=3)


def test_ranges() -> None:
    """Parts have each digest once, in order."""
    for count in (1, 2, 3, 16, 256, 1000):
        parts = DigestRange.parts(count)
        assert len(parts) == count
        for digest in (bytes(32), b"\xff" * 32, *(B3Digest.of(bytes([number])) for number in range(50))):
            assert sum(digest in part for part in parts) == 1
    for digest in (B3Digest(bytes(32)), B3Digest(b"\xff" * 32), B3Digest.of(b"one")):
        assert digest in DigestRange.of(digest)
        assert B3Digest.of(b"another") not in DigestRange.of(digest)


def test_a_part_alone_pickles_nothing_open(stores: Composition) -> None:
    """What is sent is small: the composition as it is written, and a range."""
    assert len(pickle.dumps((pickle.dumps(stores), "root", DigestRange.parts(2)[0]))) < 4000
    assert verify_part.__module__ == "castore.upkeep.spreading"
