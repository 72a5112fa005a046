"""The state machine finds what is wrong with a service, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from castore import B3Digest, BlobReader, BlobWriter, CastoreError, ChunkMeta
from castore.contract.blobs import Answer
from castore.streams.readers import BytesReader
from castore.testing import ContractError, blob_service_machine
from castore_memory.service import MemoryBlobService

if TYPE_CHECKING:
    from typing_extensions import Buffer

SETTINGS = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    # What is wrong is known: no need for the shortest story.
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


class ForgetsTheThird(MemoryBlobService):
    """As a store with room for two blobs."""

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        if len(self._indexes) > 2:
            self._indexes.clear()
            self._chunks.clear()
        super().put_indexes(blobs)


class LosesLargeEnds(MemoryBlobService):
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = super().open_read(digest)
        return None if reader is None else BytesReader(reader.read(20_000))


class ReadsManyWithoutTheLast(MemoryBlobService):
    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        return super().read_many(list(digests)[:-1])


class ListsTwice(MemoryBlobService):
    def list_blobs(self) -> Iterator[B3Digest]:
        yield from super().list_blobs()
        yield from super().list_blobs()


class AbortsTooMuch(MemoryBlobService):
    """An aborted writer takes with it the blob that was there before."""

    def open_write(self) -> BlobWriter:
        writer = super().open_write()
        write, discard = writer.write, writer.abort
        parts: list[bytes] = []

        def noting(data: Buffer) -> int:
            parts.append(bytes(data))
            return write(data)

        def abort() -> None:
            discard()
            digest = B3Digest.of(b"".join(parts))
            self._indexes.pop(digest, None)
            self._chunks.pop(digest, None)

        writer.write = noting
        writer.abort = abort
        return writer


class OneReaderForAll(MemoryBlobService):
    """Readers of one blob share their position."""

    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[B3Digest, BlobReader] = {}

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = self.shared.get(digest)
        if reader is None or reader.closed:
            reader = super().open_read(digest)
            if reader is not None:
                self.shared[digest] = reader
        return reader


@pytest.mark.parametrize(
    "broken",
    [ForgetsTheThird, LosesLargeEnds, ReadsManyWithoutTheLast, ListsTwice, AbortsTooMuch, OneReaderForAll],
)
def test_a_broken_service_is_caught(broken: type[MemoryBlobService]) -> None:
    """Some story shows that the service differs from a dictionary, or it fails by itself."""
    with pytest.raises((ContractError, CastoreError, ValueError, KeyError)):
        run_state_machine_as_test(blob_service_machine(broken), settings=SETTINGS)


def test_a_sound_service_passes_and_is_closed() -> None:
    """No story differs, and each ends with the service closed."""
    opened: list[MemoryBlobService] = []
    closed: list[MemoryBlobService] = []

    class Closing(MemoryBlobService):
        def __init__(self) -> None:
            super().__init__()
            opened.append(self)

        def close(self) -> None:
            closed.append(self)

    run_state_machine_as_test(blob_service_machine(Closing), settings=SETTINGS)
    assert opened
    assert opened == closed


def test_machines_are_independent() -> None:
    """Two machines made one after the other test each its own service."""
    sound, broken = blob_service_machine(MemoryBlobService), blob_service_machine(LosesLargeEnds)
    run_state_machine_as_test(sound, settings=SETTINGS)
    with pytest.raises(ContractError):
        run_state_machine_as_test(broken, settings=SETTINGS)
