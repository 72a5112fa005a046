"""What is sent to another process is a composition, and never a service."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from forked_stacks import STACKS, tables

from castore import B3Digest, Composition, from_url
from castore_memory.service import MemoryBlobService


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("metrics", [True, False], ids=["measured", "bare"])
def test_a_service_is_refused(stack: str, metrics: bool, tmp_path: Path) -> None:
    with (
        Composition.from_mapping(tables(stack), base=tmp_path, metrics=metrics) as stores,
        pytest.raises(TypeError, match="pickle the composition"),
    ):
        pickle.dumps(stores.blobs())


def test_those_without_a_composition_are_refused_too() -> None:
    with from_url("memory:") as blobs, pytest.raises(TypeError, match="pickle the composition"):
        pickle.dumps(blobs)
    with pytest.raises(TypeError, match="pickle the composition"):
        pickle.dumps(MemoryBlobService())


def test_a_composition_is_read_anew_where_it_lands(tmp_path: Path) -> None:
    with Composition.from_mapping(tables("files"), base=tmp_path) as stores:
        digest = stores.blobs().write(b"x")
        with pickle.loads(pickle.dumps(stores)) as other:
            assert other.blobs() is not stores.blobs()
            assert other.blobs().read(digest) == b"x"
    assert digest == B3Digest.of(b"x")
