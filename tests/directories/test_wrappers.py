"""Wrappers of services of directories do to each operation what they do to those on blobs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import pytest

from castore import (
    B3Digest,
    CastoreError,
    Composition,
    CorruptDirectoryError,
    MissingDirectoryError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import Durable
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    FoundDirectories,
)
from castore.faults import FaultPlan
from castore.format.directories import Directory
from castore.testing import FaultyDirectoryService
from castore_memory.directories import MemoryDirectoryService
from castore_wrappers.breaker.service import BreakerDirectoryService
from castore_wrappers.error.service import StubDirectoryService
from castore_wrappers.limit.service import LimitDirectoryService
from castore_wrappers.read_only.service import ReadOnlyDirectoryService
from castore_wrappers.retry.patience import Policy
from castore_wrappers.retry.service import RetryDirectoryService
from castore_wrappers.timeout.service import TimeoutDirectoryService
from castore_wrappers.verify.directories import VerifyDirectoryService
from tests.format.test_directories import WITH_KEEP, A, B, C, D, E

TREE = [A, B, D, E]
PATIENT = Policy(attempts=5, first_delay=0.0, deadline=1e9)


class Scripted(DirectoryService):
    """Gives what it is told to give."""

    def __init__(self, found: FoundDirectories | None = None, tree: Iterable[Any] = ()) -> None:
        self.found = found or {}
        self.trees = [list(tree)]

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        return self.found

    def put_many(self, directories: Collection[Directory]) -> None:
        """Drop them."""

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        tree = self.trees.pop(0) if len(self.trees) > 1 else self.trees[0]
        return _each(tree) if tree else None


def _each(tree: Iterable[Any]) -> Iterator[Directory]:
    for each in tree:
        if isinstance(each, Exception):
            raise each
        yield each


def filled() -> MemoryDirectoryService:
    service = MemoryDirectoryService()
    service.put_closure(TREE)
    return service


DOWN = UnavailableError("far", "down")


class TestRetry:
    def test_a_tree_goes_on_where_it_broke(self) -> None:
        """What has come is not given again, though it comes in another order."""
        inner = Scripted()
        inner.trees = [[E, D, DOWN], [DOWN], [E, D, B, DOWN], [E, D, B, A]]
        service = RetryDirectoryService(inner, PATIENT, sleep=lambda _: None)
        assert list(service.closure(E.digest) or ()) == [E, D, B, A]

    def test_a_tree_that_is_gone_then(self) -> None:
        inner = Scripted()
        inner.trees = [[E, DOWN], []]
        service = RetryDirectoryService(inner, PATIENT, sleep=lambda _: None)
        with pytest.raises(MissingDirectoryError):
            list(service.closure(E.digest) or ())

    def test_patience_ends(self) -> None:
        service = RetryDirectoryService(Scripted(tree=[DOWN]), PATIENT, sleep=lambda _: None)
        with pytest.raises(UnavailableError, match="5 attempts failed"):
            service.closure(E.digest)

    def test_only_what_failed_is_asked_again(self) -> None:
        calls: list[set[B3Digest]] = []

        class Counted(MemoryDirectoryService):
            def get_many(
                self, digests: Iterable[B3Digest], *, within: B3Digest | None = None
            ) -> FoundDirectories:
                calls.append(set(digests))
                found = super().get_many(calls[-1], within=within)
                return {**found, B.digest: DOWN} if len(calls) == 1 else found

        inner = Counted()
        inner.put_closure(TREE)
        service = RetryDirectoryService(inner, PATIENT, sleep=lambda _: None)
        assert service.get_many([A.digest, B.digest]) == {A.digest: A, B.digest: B}
        assert calls == [{A.digest, B.digest}, {B.digest}]


class TestVerify:
    @pytest.mark.parametrize("wrong", [C, A])
    def test_another_directory_is_corrupt(self, wrong: Directory) -> None:
        service = VerifyDirectoryService(Scripted({B.digest: wrong, D.digest: D}))
        found = service.get_many([B.digest, D.digest])
        assert found[D.digest] == D
        assert isinstance(found[B.digest], CorruptDirectoryError)

    def test_what_was_not_asked_for_is_left_out(self) -> None:
        assert VerifyDirectoryService(Scripted({B.digest: B, D.digest: D})).get_many([D.digest]) == {
            D.digest: D
        }

    @pytest.mark.parametrize(
        "tree", [[E, D, A], [E, D, B], [E], [D, A, B], [E, D, A, B, WITH_KEEP], [E, A, D, B]]
    )
    def test_no_shorter_tree(self, tree: list[Directory]) -> None:
        """Nor one with another root, with something else in it, or in the wrong order."""
        service = VerifyDirectoryService(Scripted(tree=tree))
        with pytest.raises(CorruptDirectoryError):
            list(service.closure(E.digest) or ())

    def test_what_is_right_passes(self) -> None:
        service = VerifyDirectoryService(Scripted(tree=[E, D, D, A, B]))
        assert list(service.closure(E.digest) or ()) == [E, D, A, B]


def everything(service: DirectoryService) -> list[Callable[[], object]]:
    return [
        lambda: service.get(E.digest),
        lambda: service.has(E.digest),
        lambda: list(service.closure(E.digest) or ()),
        lambda: service.put_closure(TREE),
        lambda: service.put_many(TREE),
    ]


def test_read_only() -> None:
    service = ReadOnlyDirectoryService(filled(), name="archive")
    assert list(service.closure(E.digest) or ()) == [E, D, A, B]
    assert service.get(B.digest) == B
    calls: list[Callable[[], object]] = [lambda: service.put(A), lambda: service.put_many([A])]
    for call in calls:
        with pytest.raises(UnsupportedError, match="`archive` is read-only"):
            call()
    assert service.capability(DirectoryLister) is not None
    assert service.capability(AnyDirectory) is not None
    assert service.capability(Durable) is None


@pytest.mark.parametrize(
    ("outcome", "get", "has"),
    [
        ("absent", None, False),
        ("corrupt", CorruptDirectoryError, True),
        ("unavailable", UnavailableError, UnavailableError),
    ],
)
def test_error(outcome: Any, get: Any, has: Any) -> None:
    service = StubDirectoryService(outcome, name="down")
    for call, expected in [(lambda: service.get(B.digest), get), (lambda: service.has(B.digest), has)]:
        if isinstance(expected, type):
            with pytest.raises(expected):
                call()
        else:
            assert call() is expected
    with pytest.raises(UnavailableError if outcome == "unavailable" else UnsupportedError):
        service.put(A)


def test_breaker() -> None:
    """It opens by any operation, refuses all of them, and closes again."""
    now = [0.0]
    inner = FaultyDirectoryService(filled(), {"get_many"})
    service = BreakerDirectoryService(inner, failures=2, open_for=10, clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(UnavailableError, match="told to fail"):
            service.get(E.digest)
    for call in everything(service):
        with pytest.raises(UnavailableError, match="left alone"):
            call()
    now[0], inner.failing = 11.0, set()
    assert service.get(E.digest) == E
    assert list(service.closure(E.digest) or ()) == [E, D, A, B]


def test_limit() -> None:
    """Items and bytes are counted, in a tree as well."""
    slept: list[float] = []
    inner = FaultyDirectoryService(filled())
    service = LimitDirectoryService(
        inner, concurrency=2, bytes_per_second=1, clock=lambda: 0.0, sleep=slept.append
    )
    assert len(service.get_many([A.digest, B.digest, D.digest, E.digest])) == 4
    assert inner.calls == ["get_many"] * 4  # each may have more bytes than there are in a second
    sizes = sum(len(each.encoded) for each in TREE)
    slept.clear()
    assert list(service.closure(E.digest) or ()) == [E, D, A, B]
    assert max(slept) >= 2 * sizes - 1


def test_timeout() -> None:
    plan = FaultPlan(hang=1.0, hang_seconds=60)
    inner = FaultyDirectoryService(filled(), plan=plan)
    service = TimeoutDirectoryService(inner, timeout=0.01)
    try:
        for call in everything(service):
            with pytest.raises(UnavailableError, match=r"no answer within 0\.01 s"):
                call()
    finally:
        inner.faults.release()
        service.close()


@pytest.mark.parametrize("kind", ["fail", "corrupt", "forget", "truncate", "flip", "partial"])
def test_faults_are_caught_or_told(kind: str) -> None:
    """Behind `verify` each answer is right, an error, or says that it is absent where it was forgotten."""
    for seed in range(20):
        plan = FaultPlan(seed=seed, **{kind: 0.4})
        service = VerifyDirectoryService(FaultyDirectoryService(filled(), plan=plan))
        for digest, answer in service.get_many([each.digest for each in TREE]).items():
            assert isinstance(answer, CastoreError) or answer.digest == digest
        with contextlib.suppress(CastoreError):
            tree = service.closure(E.digest)
            assert tree is None or list(tree) == [E, D, A, B]


def test_what_a_composition_measures() -> None:
    """Calls on services of directories are counted by the same table; repr and errors name them."""
    tables: Any = {
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": {
            "root": {"type": "retry", "inner": "&store", "attempts": 1},
            "store": {"type": "memory"},
        },
    }
    with Composition.from_mapping(tables) as stores:
        service = stores.directories()
        assert repr(service) == "<retry `root`>"
        assert isinstance(service, RetryDirectoryService)
        service.put_closure(TREE)
        assert service.get(B.digest) == B
        assert service.get(C.digest) is None
        assert len(list(service.closure(E.digest) or ())) == 4
        assert {kind for kind in (AnyDirectory, Complete, DirectoryLister) if service.capability(kind)} == {
            AnyDirectory,
            Complete,
            DirectoryLister,
        }
        measured = {
            entry.name: entry.operations
            for entry in stores.metrics().instances
            if entry.kind == "directory service"
        }
    sizes = sum(len(each.encoded) for each in TREE)
    root = measured["root"]
    assert (root["get_many"].calls, root["get_many"].hits, root["get_many"].misses) == (2, 1, 1)
    assert root["get_many"].bytes_out == len(B.encoded)
    assert (root["writer.put"].calls, root["writer.put"].bytes_in) == (4, sizes)
    assert (root["closure"].calls, root["closure"].bytes_out) == (1, sizes)
    assert (measured["store"]["put_many"].calls, measured["store"]["put_many"].bytes_in) == (1, sizes)
