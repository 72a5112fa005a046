"""What a composition gave is closed with it: what is asked of it afterwards is an error, of every type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, Composition
from castore.contract.capabilities import ChunkStore
from castore.errors import ClosedError

CONFIGS: dict[str, dict[str, Any]] = {
    "memory": {"root": {"type": "memory"}},
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:./store"}},
    "sqlite": {"root": {"type": "sqlite", "path": "./blobs.sqlite"}},
    "cache": {"root": {"type": "cache", "near": "memory:", "far": "objectstore+file:./store"}},
    "mirror": {"root": {"type": "mirror", "services": ["memory:", "sqlite:./blobs.sqlite"]}},
    "retry": {"root": {"type": "retry", "inner": "objectstore+file:./store"}},
}

CALLS: dict[str, Callable[[BlobService, B3Digest], object]] = {
    "has": lambda service, digest: service.has(digest),
    "missing": lambda service, digest: service.missing([digest]),
    "read": lambda service, digest: service.read(digest),
    "open_read": lambda service, digest: service.open_read(digest),
    "read_many": lambda service, digest: list(service.read_many([digest])),
    "write": lambda service, _: service.write(b"new"),
    "open_write": lambda service, _: service.open_write(),
    "put_files": lambda service, _: list(service.put_files([__file__])),
    "chunks": lambda service, digest: service.chunks(digest),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_service_is_closed_with_its_composition(config: dict[str, Any], tmp_path: Path) -> None:
    with Composition.from_mapping({"blobservices": config}, base=tmp_path) as composition:
        service = composition.blobs()
        digest = service.write(b"data")
        store = service.capability(ChunkStore)
        shown = repr(service)
    for name, call in CALLS.items():
        with pytest.raises(ClosedError, match="the composition is closed"):
            pytest.fail(f"{name} answered {call(service, digest)!r}")
    assert store is not None
    with pytest.raises(ClosedError):
        store.find_chunks([digest])
    service.close()
    assert repr(service) == shown
    assert isinstance(service, BlobService)


def test_what_another_composition_gave_goes_on(tmp_path: Path) -> None:
    config = {"blobservices": CONFIGS["objectstore"]}
    with Composition.from_mapping(config, base=tmp_path) as stays:
        with Composition.from_mapping(config, base=tmp_path) as goes:
            digest = goes.blobs().write(b"data")
        assert stays.blobs().read(digest) == b"data"
