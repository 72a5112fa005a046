"""The two bases of wrappers: one passes on all that it does not know, the other hides it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobReader, BlobService, BlobWriter, SourceError, UnavailableError, from_url
from castore.contract.blobs import Answer
from castore.contract.capabilities import (
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
)
from castore.contract.upkeep import Sweepable
from castore.testing import CHUNKS, EMPTY, HELLO, P3M, FaultyService
from castore.wrapping.wrapper import SelectiveService, WrapperService
from castore_memory.service import MemoryBlobService


class Noting(WrapperService):
    """Notes the operations, and fails at those of `failing`."""

    def __init__(self, inner: BlobService, *failing: str) -> None:
        super().__init__(inner)
        self.failing = set(failing)
        self.noted: list[str] = []

    def around(self, operation: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.noted.append(operation)
        if operation in self.failing:
            raise UnavailableError("noting", operation)
        return call(*args, **kwargs)

    def take(self) -> list[str]:
        taken, self.noted = self.noted, []
        return taken


@pytest.fixture
def chunked() -> Iterator[BlobService]:
    """A service that keeps blobs in chunks."""
    with from_url("objectstore+memory:") as service:
        yield service


def kind(service: BlobService, which: Callable[..., Any]) -> Any:
    found = service.capability(which)
    assert found is not None
    return found


def whole(inner: BlobService) -> BlobService:
    """The service without capabilities."""
    return FaultyService(inner, capabilities=False)


class TestOperations:
    @pytest.fixture
    def noting(self, chunked: BlobService) -> Noting:
        return Noting(chunked)

    def test_of_the_service(self, noting: Noting, chunked: BlobService) -> None:
        """Each method is an operation of its name; what is made of them is no operation by itself."""
        digest = chunked.write(P3M.data)
        assert noting.has(digest) is True
        assert len(noting.chunks(digest) or ()) == 8
        assert noting.missing([digest, HELLO.digest]) == {HELLO.digest}
        assert noting.open_read(HELLO.digest) is None
        assert noting.take() == ["missing", "chunks", "missing", "open_read"]
        assert noting.read(digest) == P3M.data
        assert noting.take() == ["open_read", *["reader.read"] * 8]
        with noting.open_write() as writer:
            writer.write(HELLO.data)
        assert noting.take() == ["open_write", "writer.write", "writer.close"]

    def test_of_capabilities(self, noting: Noting) -> None:
        """So is each method of a capability; what it only states about itself is none."""
        chunk = CHUNKS[0]
        store = kind(noting, ChunkStore)
        with store.lease() as leased:
            assert leased.claim_chunk(chunk.digest) is False
            leased.put_chunk(chunk.digest, chunk.data)
            leased.put_index(chunk.digest, ())
        assert store.get_chunk(chunk.digest, chunk.size) == chunk.data
        assert noting.take() == ["lease", "claim", "put_chunks", "put_indexes", "get_chunks"]
        assert store.chunk_key(chunk.digest).startswith("chunks/b3/")
        assert kind(noting, FrameStore).frame_format == "zstd"
        assert kind(noting, Durable).durability in {"process", "full"}
        assert noting.take() == []
        assert list(kind(noting, BlobLister).list_blobs()) == [chunk.digest]
        items = list(kind(noting, Sweepable).list_items())
        assert [item.kind for item in items] == ["index", "chunk"]
        assert list(kind(noting, Sweepable).sweep(items, older_than=0.0)) == []
        assert noting.take() == ["list_blobs", "list_items", "sweep"]

    @pytest.mark.parametrize("operation", ["chunks", "missing", "open_read", "open_write"])
    def test_that_fail_do_not_reach_the_service(self, operation: str) -> None:
        """An operation that `around` does not do is not done."""
        inner = Noting(MemoryBlobService())
        outer = Noting(inner, operation)
        arguments = {"open_write": (), "missing": ([HELLO.digest],)}.get(operation, (HELLO.digest,))
        with pytest.raises(UnavailableError, match=operation):
            getattr(outer, operation)(*arguments)
        assert inner.noted == []

    def test_missing_may_be_asked_again(self) -> None:
        """What was given as an iterator is there a second time."""

        class Twice(WrapperService):
            def around(self, operation: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
                call(*args, **kwargs)
                return call(*args, **kwargs)

        assert Twice(MemoryBlobService()).missing(iter([HELLO.digest])) == {HELLO.digest}


@pytest.mark.parametrize("base", [WrapperService, SelectiveService])
def test_has_is_made_of_missing(base: type) -> None:
    """Once and for all: who hides a blob from one hides it from the other."""
    assert base.has is not BlobService.has
    assert base.has.__final__ is True  # type: ignore[attr-defined]
    assert "has" not in base.__dict__

    class Hiding(base):  # type: ignore[misc, valid-type]
        def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
            return {digest for digest in digests if digest != HELLO.digest}

        open_read = open_write = None

    service = Hiding(MemoryBlobService())
    assert service.has(HELLO.digest) is True
    assert service.has(P3M.digest) is False
    with pytest.raises(TypeError):
        service.has(str(HELLO.digest))


class TestCapabilities:
    def test_are_those_within(self) -> None:
        """A wrapper has what is within, as an object of that capability alone, and the same one each time."""
        wrapped = WrapperService(MemoryBlobService())
        source = wrapped.capability(ChunkSource)
        assert isinstance(source, ChunkSource)
        assert not isinstance(source, ChunkStore)
        assert wrapped.capability(ChunkSource) is source
        assert wrapped.capability(Durable) is None

    def test_the_class_of_a_service_is_no_capability(self) -> None:
        """A wrapper is what it is, and does not pose as what is within."""
        wrapped = WrapperService(MemoryBlobService())
        assert wrapped.capability(MemoryBlobService) is None
        assert wrapped.capability(WrapperService) is wrapped

    def test_of_the_wrapper_itself_are_its_own(self) -> None:
        """Though the service within has the same."""

        class Empty(WrapperService, BlobLister):
            def list_blobs(self) -> Iterator[B3Digest]:
                return iter(())

        inner = MemoryBlobService()
        inner.write(HELLO.data)
        service = Empty(inner)
        assert service.capability(BlobLister) is service
        assert list(kind(service, BlobLister).list_blobs()) == []

    def test_that_only_subscribe_are_no_operations(self) -> None:
        class Evicting(MemoryBlobService, EvictionEvents):
            def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
                callback(HELLO.digest)
                return lambda: None

        noting = Noting(Evicting())
        told: list[B3Digest] = []
        kind(noting, EvictionEvents).on_evict(told.append)
        assert (told, noting.take()) == ([HELLO.digest], [])


class Lists(FaultyService):
    """Keeps no chunks, and has its own way to read many: large blobs as readers, small ones as bytes."""

    fails_after = 99

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        for number, digest in enumerate(digests):
            if number == self.fails_after:
                raise UnavailableError("lists", "lost the connection")
            reader = self.open_read(digest)
            if reader is None or reader.size >= 100:
                yield digest, reader
            else:
                with reader:
                    yield digest, reader.read()


class TestReadingMany:
    WANTED = (HELLO.digest, EMPTY.digest, P3M.digest, CHUNKS[0].digest)

    @pytest.fixture
    def lists(self) -> Lists:
        inner = MemoryBlobService()
        for blob in (HELLO, EMPTY, P3M):
            inner.write(blob.data)
        return Lists(inner, capabilities=False)

    @staticmethod
    def read(service: BlobService) -> dict[B3Digest, Any]:
        found: dict[B3Digest, Any] = {}
        for digest, answer in service.read_many(iter(TestReadingMany.WANTED)):
            found[digest] = answer
            if isinstance(answer, BlobReader):
                with answer:
                    found[digest] = answer.read()
        return found

    def test_is_one_operation_whose_bytes_are_read_like_any(self, lists: Lists) -> None:
        """Also those that came as bytes: what a wrapper does with the bytes of a reader it does with them."""
        noting = Noting(lists)
        found = self.read(noting)
        assert found == dict(zip(self.WANTED, [HELLO.data, b"", P3M.data, None], strict=True))
        assert noting.noted[0] == "read_many"
        assert set(noting.noted[1:]) == {"reader.read"}

    def test_goes_by_chunks_where_there_are_some(self, chunked: BlobService) -> None:
        """In one call for all that are small."""
        chunked.write(HELLO.data)
        noting = Noting(chunked)
        assert self.read(noting)[HELLO.digest] == HELLO.data
        assert noting.noted == ["get_chunks", *["open_read"] * 3]

    def test_what_is_wrong_with_one_is_its_value(self, lists: Lists) -> None:
        """Also if it is found by the wrapper."""

        class Choosy(WrapperService):
            def wrap_answer(self, answer: Answer, digest: B3Digest) -> Answer:
                if digest == HELLO.digest:
                    raise UnavailableError("choosy", "not this one")
                return super().wrap_answer(answer, digest)

        found = self.read(Choosy(lists))
        assert isinstance(found.pop(HELLO.digest), UnavailableError)
        assert found == dict(zip(self.WANTED[1:], [b"", P3M.data, None], strict=True))

    @pytest.mark.parametrize("fails_after", [0, 2])
    def test_a_failure_is_that_of_all_that_follow(self, lists: Lists, fails_after: int) -> None:
        lists.fails_after = fails_after
        found = list(self.read(Noting(lists)).values())
        assert [isinstance(each, UnavailableError) for each in found] == [
            number >= fails_after for number in range(4)
        ]


class TestFiles:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / "a", tmp_path / "gone", tmp_path / "b"]
        paths[0].write_bytes(HELLO.data)
        paths[2].write_bytes(P3M.data)
        return paths

    def test_go_through_the_chunks_of_the_wrapper(self, chunked: BlobService, paths: list[Path]) -> None:
        """So that nothing gets past what a wrapper does; many in as few calls as without it."""
        noting = Noting(chunked)
        first, gone, second = noting.put_files(paths)
        assert (first, second) == (HELLO.digest, P3M.digest)
        assert isinstance(gone, SourceError)
        called = noting.take()
        assert {"lease", "claim", "claim_blobs", "put_chunks", "put_indexes"} >= set(called)
        assert "put_chunks" in called

    def test_go_through_writers_where_there_are_no_chunks(
        self, chunked: BlobService, paths: list[Path]
    ) -> None:
        noting = Noting(whole(chunked))
        assert noting.put_file(paths[0]) == HELLO.digest
        assert noting.take() == ["open_write", "writer.fill", "writer.fill", "writer.close"]


class Public(SelectiveService):
    """Has but one blob of those within, and lists it."""

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        wanted = set(digests)
        return (wanted - {HELLO.digest}) | self.inner.missing(wanted & {HELLO.digest})

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return self.inner.open_read(digest) if digest == HELLO.digest else None

    def open_write(self) -> BlobWriter:
        return self.inner.open_write()

    def listed(self) -> Mapping[type, Callable[[], Any]]:
        return {Durable: partial(self.pass_on, Durable), BlobLister: lambda: self.made}

    made: Any = None


class TestSelective:
    @pytest.fixture
    def service(self, chunked: BlobService) -> Public:
        for blob in (HELLO, P3M):
            chunked.write(blob.data)
        return Public(chunked)

    def test_has_what_it_lists_and_nothing_else(self, service: Public) -> None:
        """Not even a capability of which nobody has heard, which all of it could come out of."""

        class Strange:
            pass

        for capability in (ChunkSource, ChunkStore, FrameStore, Sweepable, Strange, BlobLister):
            assert service.capability(capability) is None
        durable = kind(service, Durable)
        assert durable.durability in {"process", "full"}
        assert not isinstance(durable, BlobService)
        assert service.capability(Durable) is durable
        assert service.capability(Public) is service

    def test_hides_through_every_door(self, service: Public) -> None:
        """What it is made of asks it, and not what is within."""
        assert service.has(HELLO.digest) is True
        assert service.has(P3M.digest) is False
        assert service.missing({HELLO.digest, P3M.digest}) == {P3M.digest}
        assert service.chunks(HELLO.digest) == ()
        assert service.chunks(P3M.digest) is None
        answers = dict(service.read_many([HELLO.digest, P3M.digest]))
        assert answers[P3M.digest] is None
        answers[HELLO.digest].close()  # type: ignore[union-attr]

    def test_passes_nothing_on_that_the_service_within_lacks(self) -> None:
        assert Public(MemoryBlobService()).capability(Durable) is None

    def test_stores_through_its_own_writers(self, service: Public, tmp_path: Path) -> None:
        """It has no chunks: nothing goes around it."""
        (tmp_path / "file").write_bytes(b"new")
        assert list(service.put_files([tmp_path / "file"])) == [B3Digest.of(b"new")]


def test_closing_leaves_what_is_within() -> None:
    """Who has made the service within closes it."""
    closed = itertools.count()

    class Closing(MemoryBlobService):
        def close(self) -> None:
            next(closed)

    WrapperService(Closing()).close()
    assert next(closed) == 0
