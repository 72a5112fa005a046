"""What is forwarded goes through one function, and through nothing else; it costs no copy."""

from __future__ import annotations

import contextlib
import functools
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    UnavailableError,
    WriterClosedError,
    from_url,
)
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.contract.inputs import InputFile
from castore.contract.operations import Operation
from castore.streams.readers import BytesReader
from castore.testing import HELLO, P3M
from castore.wrapping.forwarding import ForwardingReader, ForwardingWriter, forwarded_capability, pieces_of
from castore.wrapping.wrapper import WrapperService
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


class Tape(ABC):
    """A stranger's capability, of which nobody has said anything."""

    speed: int = 7

    @property
    @abstractmethod
    def length(self) -> int: ...

    @abstractmethod
    def rewind(self, times: int, *, fast: bool = False) -> str: ...

    @abstractmethod
    def tracks(self, *names: str): ...  # type: ignore[no-untyped-def] # as strangers write it

    @abstractmethod
    def playing(self, name: str): ...  # type: ignore[no-untyped-def] # as above

    @functools.cache  # noqa: B019 - no function, but called like one
    def title(self) -> str:
        return "?"

    @abstractmethod
    def _motor(self) -> None: ...


class Recorder(MemoryBlobService, Tape):
    length = 90

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def rewind(self, times: int, *, fast: bool = False) -> str:
        self.events.append("rewind")
        return f"{times} {fast}"

    def tracks(self, *names):  # type: ignore[no-untyped-def]
        self.events.append("tracks")
        yield from names

    @contextlib.contextmanager
    def playing(self, name):  # type: ignore[no-untyped-def]
        self.events.append(f"in {name}")
        try:
            yield name.upper()
        finally:
            self.events.append(f"out {name}")

    def title(self) -> str:
        self.events.append("title")
        return "Tape"

    def _motor(self) -> None: ...


class TestStrangers:
    """A capability that castore has never heard of goes through as well, and all of it."""

    @pytest.fixture
    def recorder(self) -> Recorder:
        return Recorder()

    def test_each_method_is_an_operation(self, recorder: Recorder) -> None:
        """Also those whose answer does work later, without a word of that in their signatures."""
        noting = Noting(recorder)
        found = kind(noting, Tape)
        assert isinstance(found, Tape)
        assert (found.speed, found.length, found.rewind(2, fast=True)) == (7, 90, "2 True")
        assert found.title() == "Tape"
        assert list(found.tracks("a", "b")) == ["a", "b"]
        with pytest.raises(ZeroDivisionError), found.playing("a") as playing:  # noqa: PT012 - the block matters
            assert playing == "A"
            raise ZeroDivisionError
        assert noting.noted == ["rewind", "title", "tracks", "playing"]
        assert recorder.events == ["rewind", "title", "tracks", "in a", "out a"]

    @pytest.mark.parametrize(
        "call",
        [
            lambda tape: tape.rewind(1),
            lambda tape: tape.title(),
            lambda tape: list(tape.tracks("a")),
            lambda tape: tape.playing("a").__enter__(),
        ],
        ids=["rewind", "title", "tracks", "playing"],
    )
    def test_nothing_is_done_outside(self, recorder: Recorder, call: Callable[[Any], object]) -> None:
        """An operation that is refused is not done, and not begun."""
        found = kind(Noting(recorder, "rewind", "title", "tracks", "playing"), Tape)
        with pytest.raises(UnavailableError):
            call(found)
        assert recorder.events == []

    def test_an_iterator_that_a_function_returns_begins_within(self) -> None:
        """It is no generator function, but what it returns does its work later all the same."""

        class Lazy(ABC):
            @abstractmethod
            def lines(self): ...  # type: ignore[no-untyped-def]

        class Text(MemoryBlobService, Lazy):
            def lines(self):  # type: ignore[no-untyped-def]
                return (self.line(number) for number in range(2))

            def line(self, number: int) -> int:
                assert inside
                return number

        inside: list[str] = []

        def around(operation: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            inside.append(operation)
            answer = call(*args, **kwargs)
            inside.pop()
            return answer

        lines = forwarded_capability(Lazy, Text(), around).lines()
        inside.append("the rest")
        assert list(lines) == [0, 1]

    def test_without_rows_nothing_is_said_of_them(self, recorder: Recorder) -> None:
        """Nobody knows whether such an operation may be repeated."""
        seen = self.seen(recorder, Tape, lambda tape: tape.rewind(1))
        assert not seen.declared
        assert not seen.repeatable

    @staticmethod
    def seen(service: BlobService, capability: Any, call: Callable[[Any], object]) -> Operation:
        operations: list[Operation] = []

        def around(operation: Any, do: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            operations.append(operation)
            return do(*args, **kwargs)

        call(forwarded_capability(capability, kind(service, capability), around))
        (operation,) = operations
        return operation

    def test_with_rows_they_are_as_those_say(self) -> None:
        """An iterator can be gone through again; a name that castore has, too, is another all the same."""

        class Undoing(ABC):
            OPERATIONS = (
                Operation(
                    "undelete", repeatable=True, iterables=("digests",), items="digests", tells="found"
                ),
                Operation("undoing", repeatable=True, yields="context"),
            )

            @abstractmethod
            def undelete(self, digests: Any) -> set[B3Digest]: ...

            @abstractmethod
            def undoing(self) -> Any: ...

            def claim(self, digests: Any) -> str:
                return "a claim of another kind"

        class Undo(MemoryBlobService, Undoing):
            def undelete(self, digests: Any) -> set[B3Digest]:
                return set(digests)

            def undoing(self) -> Any:
                return contextlib.nullcontext("undoing")

            claim = Undoing.claim  # type: ignore[assignment]

        def twice(operation: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            if operation.repeatable:
                call(*args, **kwargs)
            return call(*args, **kwargs)

        found = forwarded_capability(Undoing, Undo(), twice)
        for digests in ((iter([HELLO.digest]),), ()):
            named = {} if digests else {"digests": iter([HELLO.digest])}
            assert found.undelete(*digests, **named) == {HELLO.digest}
        with found.undoing() as value:
            assert value == "undoing"
        row = self.seen(Undo(), Undoing, lambda undo: undo.undelete([HELLO.digest]))
        assert (row.capability, row.declared, row.items) == (Undoing, True, "digests")
        own = self.seen(Undo(), Undoing, lambda undo: undo.claim([HELLO.digest]))
        assert (own, own.declared, own.repeatable) == ("claim", False, False)

    def test_of_a_service_that_is_none_of_blobs(self) -> None:
        """Forwarding asks for a class and an object, whatever kind of service has them."""

        class Notes:
            def __init__(self) -> None:
                self.lines: list[str] = []

            def add(self, line: str) -> int:
                self.lines.append(line)
                return len(self.lines)

        counts: Counter[str] = Counter()

        def around(operation: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            counts[operation] += 1
            return call(*args, **kwargs)

        notes = Notes()
        forwarded = forwarded_capability(Notes, notes, around)
        assert forwarded.add("a") == 1
        assert forwarded.add(line="b") == 2
        assert notes.lines == ["a", "b"]
        assert counts == {"add": 2}


class Listing(BlobLister):
    """Lists two blobs; the first attempts fail, before any of them."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.begun = 0

    def list_blobs(self) -> Iterator[B3Digest]:
        self.begun += 1
        if self.begun <= self.failures:
            raise UnavailableError("listing", "not now")
        yield HELLO.digest
        yield P3M.digest


class TestIterators:
    def test_begin_when_they_are_iterated(self) -> None:
        """Asking for a list does nothing; no item is lost."""
        listing = Listing()
        iterator = forwarded_capability(
            BlobLister, listing, WrapperService(MemoryBlobService()).around
        ).list_blobs()
        assert listing.begun == 0
        assert list(iterator) == [HELLO.digest, P3M.digest]
        assert listing.begun == 1

    def test_can_be_tried_again(self) -> None:
        """Each attempt begins a list of its own: none is mistaken for one that has ended."""

        def twice(operation: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(UnavailableError):
                return call(*args, **kwargs)
            return call(*args, **kwargs)

        listing = Listing(failures=1)
        assert list(forwarded_capability(BlobLister, listing, twice).list_blobs()) == [
            HELLO.digest,
            P3M.digest,
        ]
        assert listing.begun == 2

    def test_of_nothing(self) -> None:
        """An empty list is one."""
        noting = Noting(MemoryBlobService())
        assert list(kind(noting, BlobLister).list_blobs()) == []

    def test_a_lease_lasts_as_long_as_its_block(self) -> None:
        """It is entered once and left once, also after an error; what goes through it is forwarded, too."""
        events: list[str] = []

        class Leasing(MemoryBlobService):
            @contextlib.contextmanager
            def lease(self, *, brief: bool = False) -> Iterator[ChunkStore]:
                events.append(f"in {brief}")
                try:
                    yield self
                finally:
                    events.append("out")

        noting = Noting(Leasing())
        store = kind(noting, ChunkStore)
        with pytest.raises(ZeroDivisionError), store.lease(brief=True) as leased:  # noqa: PT012 - the block matters
            assert events == ["in True"]
            leased.put_chunk(HELLO.digest, HELLO.data)
            with leased.lease() as again:
                again.claim_chunk(HELLO.digest)
            raise ZeroDivisionError
        assert events == ["in True", "in False", "out", "out"]
        assert noting.noted == ["lease", "put_chunks", "lease", "claim"]


class TestReaders:
    def test_pieces_are_not_copied(self) -> None:
        """Through ten readers the piece is a view of the very bytes that are kept."""
        reader: Any = BytesReader(P3M.data)
        for _ in range(10):
            reader = ForwardingReader(reader, WrapperService(MemoryBlobService()).around)
        with reader:
            assert reader.piece_at(5).obj is P3M.data

    def test_small_reads_stay_in_the_piece(self, chunked: BlobService) -> None:
        """A piece is asked for once, however small the reads are."""
        noting = Noting(chunked)
        digest = chunked.write(P3M.data)
        first = (chunked.chunks(digest) or ())[0].size
        with noting.open_read(digest) as reader:  # type: ignore[union-attr]
            noting.take()
            for start in range(0, first, 1000):
                reader.seek(start)
                assert reader.read(min(1000, first - start)) == P3M.data[start : min(start + 1000, first)]
            assert noting.take() == ["reader.read"]
            reader.seek(0)
            assert reader.read(10) == P3M.data[:10]
            assert noting.take() == []

    def test_what_is_going_to_be_read_is_told(self) -> None:
        """So that the reader beneath can fetch it at once, however many stand before it."""
        told: list[tuple[int, int]] = []

        class Told(BytesReader):
            def expect(self, begin: int, end: int) -> None:
                told.append((begin, end))

        noting = Noting(MemoryBlobService())
        with ForwardingReader(ForwardingReader(Told(P3M.data), noting.around), noting.around) as reader:
            reader.seek(100)
            reader.read(50_000)
            reader.readinto(bytearray(70))
        assert told == [(100, 50_100), (50_100, 50_170)]

    def test_after_a_fault_nothing_old_is_given(self) -> None:
        """A piece ends with the next one, also if that does not come."""

        class Reusing(BytesReader):
            """Has one buffer for all of its pieces, and spoils it before it fails."""

            buffer = bytearray(4)
            failing = False

            def piece_at(self, position: int) -> memoryview:
                self.buffer[:] = b"????"
                if self.failing:
                    raise UnavailableError("reusing", "not now")
                piece = super().piece_at(position)[:4]
                self.buffer[: len(piece)] = piece
                return memoryview(self.buffer)[: len(piece)]

        inner = Reusing(b"abcdefgh")
        with ForwardingReader(inner, WrapperService(MemoryBlobService()).around) as reader:
            assert reader.read(4) == b"abcd"
            inner.failing = True
            with pytest.raises(UnavailableError):
                reader.read(4)
            inner.failing = False
            reader.seek(0)
            assert reader.read() == b"abcdefgh"

    def test_a_reader_without_pieces(self) -> None:
        """Any reader of a stranger has pieces, and is closed with those."""

        class Strange(BlobReader):
            size = 26  # type: ignore[assignment]
            at = 0

            def tell(self) -> int:
                return self.at

            def seek(self, offset: int, whence: int = 0, /) -> int:
                self.at = offset
                return offset

            def read(self, size: int | None = -1, /) -> bytes:
                data = bytes(range(97, 123))[self.at :][:size]
                self.at += len(data)
                return data

        strange = Strange()
        with ForwardingReader(strange, WrapperService(MemoryBlobService()).around) as reader:
            assert reader.read(3) == b"abc"
            reader.seek(23)
            assert reader.read() == b"xyz"
        assert strange.closed
        pieces = BytesReader(b"")
        assert pieces_of(pieces) is pieces

    def test_closing(self) -> None:
        """The reader within closes once; what is held goes, and reading on is refused."""
        inner = BytesReader(HELLO.data)
        reader = ForwardingReader(inner, WrapperService(MemoryBlobService()).around)
        reader.read(1)
        reader.close()
        reader.close()
        assert inner.closed
        with pytest.raises(ValueError, match="closed"):
            reader.read(1)


class TestWriters:
    def test_fill_reads_into_the_buffer_within(self) -> None:
        """Bytes go from the source to where they are needed, without a copy in between."""
        buffer = bytearray(8)

        class Filling(BlobWriter):
            def fill(self, source: InputFile) -> int:
                return source.readinto(memoryview(buffer))

            def write(self, data: Any, /) -> int:
                raise NotImplementedError

            def close(self) -> B3Digest:
                return B3Digest.of(buffer[:5])

            def abort(self) -> None: ...

        source = InputFile(io.BytesIO(b"bytes"), "x")
        around = WrapperService(MemoryBlobService()).around
        writer = ForwardingWriter(ForwardingWriter(Filling(), around), around)
        assert writer.fill(source) == 5
        assert writer.tell() == 5
        assert buffer[:5] == b"bytes"
        writer.close()
        with pytest.raises(WriterClosedError):
            writer.fill(source)

    def test_a_failed_write_is_given_up(self) -> None:
        """What fails in a writer ends it, within as without."""
        inner = MemoryBlobService()
        for operation in ("writer.write", "writer.close"):
            writer = Noting(inner, operation).open_write()
            with pytest.raises(UnavailableError, match=operation):
                writer.write(HELLO.data) and writer.close()
            with pytest.raises(WriterClosedError):
                writer.close()
            writer.abort()
        assert not inner.has(HELLO.digest)

    def test_aborting(self) -> None:
        """No operation: the blob is forgotten within."""
        noting = Noting(MemoryBlobService())
        with noting.open_write() as writer:
            writer.write(HELLO.data)
            writer.abort()
        assert noting.take() == ["open_write", "writer.write"]
        assert noting.has(HELLO.digest) is False
