"""What a flush has lost is lost until it is found again, and what a child of a fork does is no loss."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from children import in_a_child

from castore import B3Digest, Composition, UnavailableError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

TABLES = {
    "blobservices": {
        "root": {"type": "objectstore", "object_store_url": "file:./store", "avg_chunk_size": 16 << 10}
    }
}
DATA = os.urandom(5 << 20)


def test_a_child_gives_no_name_to_what_the_parent_has_written(tmp_path: Path) -> None:
    """It would take the files away from under the parent, whose blob would be refused as lost."""
    with Composition.from_mapping(TABLES, base=tmp_path) as stores:
        blobs = stores.blobs()
        with blobs.open_write() as writer:
            writer.write(DATA)
            in_a_child(lambda: blobs.write(b"something else"))
            assert any("#" in path.name for path in tmp_path.rglob("chunks/b3/*/*"))
        assert blobs.read(B3Digest.of(DATA)) == DATA


def test_a_blob_that_was_lost_can_be_stored_once_its_chunks_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has put them: the mark must not outlive the loss."""
    with Composition.from_mapping(TABLES, base=tmp_path) as stores:
        blobs = stores.blobs()
        store = blobs._inner._store  # type: ignore[attr-defined]

        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        store._flusher._syncfs = fail
        with pytest.raises(UnavailableError):
            blobs.write(DATA)
        assert store._staging._lost
        store._flusher._syncfs = lambda _: None
        with Composition.from_mapping(TABLES, base=tmp_path) as others:
            others.blobs().write(DATA)
        assert blobs.write(DATA) == B3Digest.of(DATA)
        assert blobs.write(DATA[:-1]) == B3Digest.of(DATA[:-1])
        assert not store._staging._lost
