"""Composites of services of directories: what is asked of whom, and what becomes of faults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from castore import (
    Composition,
    CompositionError,
    CorruptDirectoryError,
    MissingDirectoryError,
    UnavailableError,
)
from castore.composites.directories import DirectoryMember
from castore.contract.directories import Complete, DirectoryLister, DirectoryService
from castore.format.directories import Directory
from castore.testing import FaultyDirectoryService
from castore.testing.expecting import fresh_tree, in_threads
from castore_cache.directories import CacheDirectoryService
from castore_fallback.directories import FallbackDirectoryService
from castore_memory.directories import MemoryDirectoryService
from castore_mirror.directories import MirrorDirectoryService
from tests.directories.test_wrappers import DOWN, Scripted
from tests.format.test_directories import A, B, C, D, E

TREE: Final = [A, B, D, E]


def filled(*directories: Directory, bound: int | None = None) -> MemoryDirectoryService:
    service = MemoryDirectoryService(bound)
    service.put_many(directories)
    return service


def counted(service: DirectoryService, failing: Iterable[str] = ()) -> FaultyDirectoryService:
    return FaultyDirectoryService(service, failing)


LOOSE: Final = 1 << 20


class TestCache:
    def test_one_directory_stays_where_near_takes_any(self) -> None:
        near, far = filled(bound=LOOSE), counted(filled(*TREE))
        cache = CacheDirectoryService(near, far)
        assert cache.get(D.digest) == D
        assert set(near.list_directories()) == {D.digest}
        far.calls.clear()
        assert cache.get(D.digest) == D
        assert far.calls == []
        assert list(cache.closure(E.digest) or ()) == [E, D, A, B]
        assert far.calls == ["get_many"] * 2  # what was not there, level by level

    def test_a_tree_stays_where_near_takes_no_less(self) -> None:
        near, far = filled(), counted(filled(*TREE))
        cache = CacheDirectoryService(near, far)
        assert cache.get(D.digest) == D
        assert set(near.list_directories()) == {A.digest, B.digest, D.digest}
        far.calls.clear()
        assert cache.get(B.digest) == B
        assert list(cache.closure(D.digest) or ()) == [D, A, B]
        assert far.calls == []

    def test_what_is_read_as_a_whole_stays(self) -> None:
        near, far = filled(), counted(filled(*TREE))
        cache = CacheDirectoryService(near, far)
        assert list(cache.closure(E.digest) or ()) == [E, D, A, B]
        assert set(near.list_directories()) == {each.digest for each in TREE}
        assert far.calls == ["closure"]

    def test_writes_go_to_far_then_near(self) -> None:
        near, far = filled(bound=LOOSE), filled()
        cache = CacheDirectoryService(near, far)
        cache.put_closure(TREE)
        assert list(far.closure(E.digest) or ()) == list(near.closure(E.digest) or ()) == [E, D, A, B]

    def test_a_far_that_fails_gets_an_error_and_near_nothing(self) -> None:
        near = filled(bound=LOOSE)
        cache = CacheDirectoryService(near, counted(filled(), {"put_many"}))
        with pytest.raises(UnavailableError):
            cache.put_closure(TREE)
        assert not list(near.list_directories())

    def test_a_near_that_fails_is_passed_over(self) -> None:
        near = counted(filled(bound=LOOSE), {"get_many", "missing", "put_many", "closure"})
        cache = CacheDirectoryService(near, filled())
        cache.put_closure(TREE)
        assert list(cache.closure(E.digest) or ()) == [E, D, A, B]
        assert cache.get(B.digest) == B
        assert cache.missing([B.digest, C.digest]) == {C.digest}
        assert cache.gauges()["near_failures"] > 3

    def test_what_far_has_not_been_told(self) -> None:
        """Far has each tree as a whole: what it lacks of a new one comes from near."""
        near, far = filled(A, B, D), filled()
        cache = CacheDirectoryService(near, far)
        with cache.open_write() as writer:
            writer.graft(D.node)
            writer.put(E)
        assert list(far.closure(E.digest) or ()) == [E, D, A, B]

    def test_an_error_of_far_is_no_absence(self) -> None:
        cache = CacheDirectoryService(filled(bound=LOOSE), counted(filled(), {"get_many", "missing"}))
        for call in (
            lambda: cache.get(B.digest),
            lambda: cache.has(B.digest),
            lambda: cache.closure(B.digest),
        ):
            with pytest.raises(UnavailableError):
                call()

    def test_what_is_corrupt_in_near_comes_from_far(self) -> None:
        corrupt = CorruptDirectoryError("corrupt", expected=B.digest)
        cache = CacheDirectoryService(Scripted({B.digest: corrupt}), filled(*TREE))
        assert cache.get(B.digest) == B

    def test_a_near_tree_that_breaks_goes_on_from_far(self) -> None:
        cache = CacheDirectoryService(Scripted(tree=[E, D, DOWN]), filled(*TREE))
        cache._fills_singly = False
        assert list(cache.closure(E.digest) or ()) == [E, D, A, B]

    def test_many_who_want_the_same(self) -> None:
        """Far is asked once."""
        tree = fresh_tree()
        far = counted(filled(*tree))
        cache = CacheDirectoryService(filled(bound=LOOSE), far)
        found = in_threads(16, lambda _: cache.get(tree[-1].digest))
        assert found == [tree[-1]] * 16
        assert far.calls == ["get_many"]


def fallback(*services: DirectoryService, write_to: str = "0", final: Any = ()) -> FallbackDirectoryService:
    members = [
        DirectoryMember(str(number), service, final=number in final)
        for number, service in enumerate(services)
    ]
    return FallbackDirectoryService(members, write_to=write_to)


class TestFallback:
    def test_the_first_that_has_it(self) -> None:
        first, second = counted(filled(A, B)), counted(filled(*TREE))
        service = fallback(first, second)
        assert service.get_many([B.digest, D.digest, C.digest]) == {B.digest: B, D.digest: D}
        assert (first.calls, second.calls) == (["get_many"], ["get_many"])
        second.calls.clear()
        assert service.get(B.digest) == B
        assert second.calls == []
        assert list(service.closure(E.digest) or ()) == [E, D, A, B]

    def test_one_that_fails_is_passed_over_and_makes_absence_unknown(self) -> None:
        service = fallback(counted(filled(), {"get_many", "missing"}), filled(*TREE))
        assert service.get(D.digest) == D
        for call in (lambda: service.get(C.digest), lambda: service.has(C.digest)):
            with pytest.raises(UnavailableError):
                call()

    def test_the_error_of_one_that_is_final(self) -> None:
        service = fallback(counted(filled(), {"get_many"}), filled(*TREE), final={0})
        with pytest.raises(UnavailableError):
            service.get(D.digest)

    def test_a_new_tree_is_whole_where_it_goes(self) -> None:
        target = filled()
        service = fallback(target, filled(A, B, D))
        with service.open_write() as writer:
            writer.graft(D.node)
            writer.put(E)
        assert list(target.closure(E.digest) or ()) == [E, D, A, B]

    def test_a_tree_that_breaks_goes_on_at_the_next(self) -> None:
        service = fallback(Scripted(tree=[E, D, DOWN]), Scripted(tree=[E, D, B, A]))
        assert list(service.closure(E.digest) or ()) == [E, D, B, A]
        with pytest.raises(UnavailableError):
            list(fallback(Scripted(tree=[E, DOWN]), Scripted(tree=[E, D, DOWN])).closure(E.digest) or ())

    def test_nor_does_another_go_on_for_one_that_is_final(self) -> None:
        service = fallback(Scripted(tree=[E, D, DOWN]), Scripted(tree=[E, D, B, A]), final={0})
        with pytest.raises(UnavailableError):
            list(service.closure(E.digest) or ())

    def test_it_lists_what_any_has(self) -> None:
        lister = fallback(filled(A, B), filled(A, C)).capability(DirectoryLister)
        assert lister is not None
        assert sorted(lister.list_directories()) == sorted([A.digest, B.digest, C.digest])
        assert fallback(filled(), filled(bound=9)).capability(Complete) is None


def mirror(*services: DirectoryService, writes: int = 2) -> MirrorDirectoryService:
    members = [DirectoryMember(str(number), service) for number, service in enumerate(services)]
    return MirrorDirectoryService(members, write_quorum=writes, miss_quorum=len(services) - writes + 1)


class TestMirror:
    def test_all_have_what_is_written(self) -> None:
        stores = [filled() for _ in range(3)]
        with mirror(*stores) as service:
            service.put_closure(TREE)
        for store in stores:
            assert list(store.closure(E.digest) or ()) == [E, D, A, B]

    def test_one_that_failed_is_healed(self) -> None:
        behind = counted(filled(), {"put_many", "missing"})
        with mirror(filled(), filled(), behind) as service:
            service.put_closure(TREE)
            behind.failing = set()
            service.get(E.digest)
        assert list(behind.inner.closure(E.digest) or ()) == [E, D, A, B]

    def test_too_few(self) -> None:
        down = [counted(filled(), {"put_many", "missing", "get_many"}) for _ in range(2)]
        with mirror(filled(*TREE), *down) as service:
            with pytest.raises(UnavailableError, match=r"`1`.*`2`"):
                service.put_closure([A])
            assert service.get(D.digest) == D
            with pytest.raises(UnavailableError):
                service.get(C.digest)

    def test_absence_takes_a_quorum(self) -> None:
        with mirror(counted(filled(), {"get_many", "missing"}), filled(), filled()) as service:
            assert service.get(C.digest) is None
            assert not service.has(C.digest)

    def test_what_a_reader_finds_missing_is_copied(self) -> None:
        first = filled()
        with mirror(first, filled(*TREE), filled(*TREE)) as service:
            assert service.get(E.digest) == E
            assert service.queue.wait_until_idle(30)
        assert list(first.closure(E.digest) or ()) == [E, D, A, B]

    def test_a_child_that_nobody_has(self) -> None:
        with mirror(filled(), filled()) as service, pytest.raises(MissingDirectoryError):
            service.put_many([E])


def problems(tables: dict[str, Any]) -> str:
    blobs = {"blobservices": {"root": {"type": "memory"}}}
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping({**blobs, "directoryservices": tables})
    return str(caught.value)


@pytest.mark.parametrize("tag", ["redb", "bigtable"])
def test_what_only_the_reference_reads(tag: str) -> None:
    """The error names the way."""
    said = problems({"root": {"type": tag, "path": "/var/lib/directories.redb"}})
    assert "let its daemon serve that" in said
    assert 'type = "grpc"' in said


def test_names_of_the_past() -> None:
    said = problems({"root": {"type": "cache", "local": "&a", "remote": "&a"}, "a": {"type": "memory"}})
    assert "`near`" in said
    assert "`far`" in said


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"type": "cache", "near": "&a", "far": "&nowhere"}, "nowhere"),
        ({"type": "cache", "near": "&root", "far": "&a"}, "root"),
        ({"type": "priority", "services": {}}, "at least one service"),
        ({"type": "priority", "services": {"x": "&a"}}, "services"),
        ({"type": "priority", "services": {"1": "&nowhere"}}, "nowhere"),
        ({"type": "fallback", "services": ["&a"], "write_to": "b"}, "none of the `services` is named `b`"),
        ({"type": "mirror", "services": ["&a"]}, "at least 2 services"),
        ({"type": "retry", "inner": "&a", "replay": "1 MiB"}, "replay"),
        ({"type": "blobs", "blobs": "&a"}, "a"),
    ],
)
def test_mistakes(table: dict[str, Any], words: str) -> None:
    assert words in problems({"root": table, "a": {"type": "memory"}})


def test_a_reference_to_another_kind() -> None:
    """Names are of their own in each kind; what is there under another one is said."""
    tables: Any = {
        "blobservices": {"root": {"type": "memory"}, "store": {"type": "memory"}},
        "directoryservices": {"root": {"type": "retry", "inner": "&store"}},
    }
    with pytest.raises(CompositionError, match="store") as caught:
        Composition.from_mapping(tables)
    assert "blob service" in str(caught.value)


def test_what_is_known_before_anything_is_built() -> None:
    tables: Any = {
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": {
            "root": {"type": "cache", "near": "&near", "far": "&far"},
            "near": {"type": "read_only", "inner": "memory:"},
            "far": {"type": "fallback", "services": ["&closed", "&open"]},
            "closed": {"type": "error"},
            "open": {"type": "sqlite", "path": "d.sqlite"},
        },
    }
    with Composition.from_mapping(tables) as stores:
        codes = {warning.code for warning in stores.warnings}
    assert codes >= {"near-not-writable", "write-ends-nowhere"}
