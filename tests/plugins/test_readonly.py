"""The `read_only` type: what is within can be read, and no write ever gets there."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from castore import BlobService, Composition, CompositionError, UnsupportedError
from castore.contract.capabilities import ChunkStore, FrameStore
from castore.contract.upkeep import Inventory, Sweepable
from castore.testing import EMPTY, HELLO, P3M, FaultyService
from castore_memory.service import MemoryBlobService
from castore_wrappers.read_only.service import ReadOnlyService


@pytest.mark.parametrize(
    "write",
    [
        lambda service: service.open_write(),
        lambda service: service.write(HELLO.data),
        lambda service: service.put_file(io.BytesIO(HELLO.data)),
    ],
    ids=["open_write", "write", "put_file"],
)
def test_writing_is_refused(write: Callable[[BlobService], object]) -> None:
    """The error names the instance, and what is within was not even asked."""
    within = FaultyService(MemoryBlobService())
    with pytest.raises(UnsupportedError, match="`archive` is read-only"):
        write(ReadOnlyService(within, name="archive"))
    assert within.calls == []


@pytest.mark.parametrize("blob", [EMPTY, HELLO, P3M], ids=str)
def test_reading_is_that_of_the_service_within(blob: Any) -> None:
    """All that can be asked is answered from there, and the reader is the one from there."""
    within = MemoryBlobService()
    service = ReadOnlyService(within)
    assert service.has(blob.digest) is False
    assert service.open_read(blob.digest) is None
    within.write(blob.data)
    assert service.read(blob.digest) == blob.data
    assert type(service.open_read(blob.digest)) is type(within.open_read(blob.digest))
    assert service.missing([blob.digest]) == set()
    assert service.chunks(blob.digest) == within.chunks(blob.digest)


def test_what_can_also_write_is_denied(blobs_of: Any, store: Any) -> None:
    """A capability that changes anything is not there, however much of it only reads."""
    service = ReadOnlyService(blobs_of(store))
    for kind in (ChunkStore, FrameStore, Inventory, Sweepable):
        assert service.capability(kind) is None


def test_capabilities_of_strangers_are_denied() -> None:
    """Of a capability that is not known it cannot be told whether it writes."""

    class Erasing:
        def erase(self) -> None: ...

    class Tape(MemoryBlobService, Erasing):
        pass

    assert Tape().capability(Erasing) is not None
    assert ReadOnlyService(Tape()).capability(Erasing) is None


def test_config() -> None:
    """`inner` is a reference, and all there is."""
    with (
        Composition.from_mapping(
            {"blobservices": {"root": {"type": "read_only", "inner": "memory:"}}}
        ) as stores,
        pytest.raises(UnsupportedError, match="`root` is read-only"),
    ):
        stores.blobs().write(b"")
    with pytest.raises(CompositionError, match="inner"):
        Composition.from_mapping({"blobservices": {"root": {"type": "read_only"}}})
