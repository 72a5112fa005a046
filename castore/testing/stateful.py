"""A service against the simplest model there is: a dictionary from digests to bytes.

Hypothesis stores, aborts, reads and lists in any order, and after a difference finds the shortest story
that leads to it.
"""

# ruff: noqa: D401 - a rule states a fact

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from castore.contract.blobs import BlobReader, BlobService
from castore.contract.capabilities import BlobLister
from castore.digest import B3Digest
from castore.testing.expecting import absent, expect, expect_absent, expect_that, reader_of


def blob_service_machine(
    make: Callable[[], BlobService], *, max_size: int = 40_000
) -> type[RuleBasedStateMachine]:
    """Return a state machine that compares a service with a dictionary.

    Arguments:
        make: Returns a new service, which is closed at the end of the story.
        max_size: The size in bytes of the largest blobs; choose it so that the service cuts some.

    Run it with `hypothesis.stateful.run_state_machine_as_test`, or let pytest find its `TestCase`::

        TestTapeModel = blob_service_machine(TapeBlobService).TestCase
    """

    class Machine(BlobServiceMachine):
        service_factory = staticmethod(make)
        largest = max_size

    Machine.__name__ = Machine.__qualname__ = "BlobServiceMachine"
    return Machine


def _pattern(seed: int, size: int) -> bytes:
    """Return bytes that hypothesis need not draw one by one; equal seeds have beginnings in common."""
    return bytes((seed + i * i) % 251 for i in range(min(size, 997))) * (size // 997 + 1)


def _content_of(answer: object) -> object:
    if not isinstance(answer, BlobReader):
        return answer
    with answer:
        return answer.read()


@attrs.define(eq=False)
class _Opened:
    """A reader and where it must stand, whatever else is done."""

    reader: BlobReader
    data: bytes
    position: int = 0


class BlobServiceMachine(RuleBasedStateMachine):
    """The stories that are told of a service; made by `blob_service_machine`."""

    service_factory: Callable[[], BlobService]
    largest = 40_000

    stored = Bundle("stored")
    readers = Bundle("readers")
    contents = st.one_of(
        st.binary(max_size=40),
        st.tuples(st.integers(0, 3), st.floats(0, 1)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.service = type(self).service_factory()
        self.model: dict[B3Digest, bytes] = {}
        self.open_readers: list[BlobReader] = []

    def _data(self, content: bytes | tuple[int, float]) -> bytes:
        if isinstance(content, bytes):
            return content
        seed, part = content
        size = int(part * self.largest)
        return _pattern(seed, size)[:size]

    # -- writing --

    @rule(target=stored, content=contents)
    def put(self, content: bytes | tuple[int, float]) -> B3Digest:
        """Store a blob, new or known, in one piece."""
        return self._keep(self._data(content), self.service.write(self._data(content)))

    @rule(target=stored, content=contents, cuts=st.lists(st.floats(0, 1), max_size=3))
    def put_in_pieces(self, content: bytes | tuple[int, float], cuts: list[float]) -> B3Digest:
        """Store a blob in pieces, and close the writer twice."""
        data = self._data(content)
        places = sorted({0, len(data), *(int(cut * len(data)) for cut in cuts)})
        with self.service.open_write() as writer:
            for start, end in itertools.pairwise(places):
                expect("write()", writer.write(data[start:end]), end - start)
            digest = writer.close()
            expect("close() again", writer.close(), digest)
        return self._keep(data, digest)

    @rule(target=stored, content=contents)
    def put_stream(self, content: bytes | tuple[int, float]) -> B3Digest:
        """Store a stream."""
        data = self._data(content)
        return self._keep(data, self.service.put_file(io.BytesIO(data)))

    def _keep(self, data: bytes, digest: B3Digest) -> B3Digest:
        expect("the digest", digest, B3Digest.of(data))
        self.model[digest] = data
        return digest

    @rule(content=contents)
    def abort(self, content: bytes | tuple[int, float]) -> None:
        """Write a blob and drop it: what was there before still is, what was not is not."""
        data = self._data(content)
        writer = self.service.open_write()
        writer.write(data)
        writer.abort()
        digest = B3Digest.of(data)
        if digest in self.model:
            expect("read() of what was stored before", self.service.read(digest), self.model[digest])

    # -- asking --

    @rule(digest=stored)
    def has(self, digest: B3Digest) -> None:
        """What was stored is there."""
        expect(f"has({digest})", self.service.has(digest), True)

    @rule()
    def ask_for_absent(self) -> None:
        """What was never stored is not there."""
        expect_absent(self.service, absent())

    @rule(digests=st.lists(stored, max_size=3), others=st.integers(0, 2))
    def missing(self, digests: list[B3Digest], others: int) -> None:
        """Of stored and absent digests, the absent ones are missing."""
        gone = {absent() for _ in range(others)}
        expect("missing()", self.service.missing([*digests, *gone]), gone)

    @rule(digest=stored)
    def chunks(self, digest: B3Digest) -> None:
        """The chunks of a blob make it up, and each can be read."""
        found = self.service.chunks(digest)
        expect_that(found is not None and len(found) != 1, "chunks() to be none, or several", found)
        parts = [self.service.read(chunk.digest) for chunk in found or ()]
        if parts:
            expect("the sizes", [chunk.size for chunk in found or ()], [len(part) for part in parts])
            expect("the chunks, joined,", b"".join(parts), self.model[digest])

    @rule()
    def list_blobs(self) -> None:
        """If the service can list, it lists all that was stored, each once."""
        lister = self.service.capability(BlobLister)
        if lister is not None:
            listed = list(lister.list_blobs())
            expect("the number of blobs listed", len(listed), len(set(listed)))
            expect("what was stored but is not listed", set(self.model) - set(listed), set())

    # -- reading --

    @rule(digest=stored)
    def read(self, digest: B3Digest) -> None:
        """A blob reads back."""
        expect(f"read({digest})", self.service.read(digest), self.model[digest])

    @rule(digests=st.lists(stored, max_size=3))
    def read_many(self, digests: list[B3Digest]) -> None:
        """Many blobs come each once, whole, and absent ones as such."""
        wanted = {digest: self.model[digest] for digest in digests} | {absent(): None}
        found = {}
        for digest, answer in self.service.read_many([*digests, *wanted]):
            expect(f"whether read_many() yields {digest} again", digest in found, False)
            found[digest] = _content_of(answer)
        expect("what read_many() yields", found, wanted)

    @rule(target=readers, digest=stored)
    def open_reader(self, digest: B3Digest) -> _Opened:
        """Open a reader, which stays open while other things happen."""
        reader = reader_of(self.service, digest)
        self.open_readers.append(reader)
        expect("size", reader.size, len(self.model[digest]))
        return _Opened(reader, self.model[digest])

    @rule(opened=readers, part=st.floats(0, 1))
    def read_on(self, opened: _Opened, part: float) -> None:
        """Read on from where this reader stands."""
        self._read(opened, int(part * len(opened.data)))

    @rule(
        opened=readers,
        place=st.floats(0, 1),
        part=st.floats(0, 1),
        whence=st.sampled_from((io.SEEK_SET, io.SEEK_CUR, io.SEEK_END)),
    )
    def read_range(self, opened: _Opened, place: float, part: float, whence: int) -> None:
        """Go somewhere in the blob and read a part of it."""
        size = len(opened.data)
        at = int(place * size)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: opened.position, io.SEEK_END: size}[whence]
        expect("seek()", opened.reader.seek(at - base, whence), at)
        opened.position = at
        self._read(opened, int(part * size))

    def _read(self, opened: _Opened, count: int) -> None:
        at = opened.position
        expect("tell()", opened.reader.tell(), at)
        expect(f"read({count}) at {at}", opened.reader.read(count), opened.data[at : at + count])
        opened.position = min(at + count, len(opened.data))
        expect("tell()", opened.reader.tell(), opened.position)

    @rule(opened=consumes(readers))
    def close_reader(self, opened: _Opened) -> None:
        """Close a reader."""
        opened.reader.close()

    def teardown(self) -> None:
        """End the story."""
        for reader in self.open_readers:
            reader.close()
        self.service.close()
