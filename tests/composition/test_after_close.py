"""What a composition gave is closed with it: what is asked of it afterwards is an error, of every type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import B3Digest, BlobService, Composition
from castore.contract.capabilities import ChunkStore
from castore.errors import ClosedError
from castore.format.directories import Directory

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


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_service_is_closed_with_its_composition(
    config: dict[str, Any], metrics: bool, tmp_path: Path
) -> None:
    with Composition.from_mapping({"blobservices": config}, base=tmp_path, metrics=metrics) as composition:
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


@pytest.mark.parametrize("metrics", [True, False])
def test_directories_are_closed_with_their_composition(metrics: bool) -> None:
    tables = {"blobservices": CONFIGS["memory"], "directoryservices": {"root": {"type": "memory"}}}
    with Composition.from_mapping(tables, metrics=metrics) as composition:
        directories = composition.directories()
        root = directories.put(Directory())
        assert directories.get(root) == Directory()
        assert [each.digest for each in directories.closure(root) or ()] == [root]
    calls: list[Callable[[], object]] = [
        lambda: directories.get(root),
        lambda: directories.missing([root]),
        lambda: directories.put(Directory()),
        lambda: directories.put_many([Directory()]),
        lambda: directories.closure(root),
        directories.open_write,
        lambda: directories.high_latency,
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="the composition is closed"):
            call()


def test_a_service_by_its_url_says_so_when_it_is_closed(tmp_path: Path) -> None:
    service = castore.from_url(f"objectstore+file:{tmp_path}/store")
    digest = service.write(b"data")
    store = service.capability(ChunkStore)
    assert store is not None
    with service.open(digest) as reader:
        service.close()
        service.close()
        for name, call in CALLS.items():
            with pytest.raises(ClosedError, match="the service is closed"):
                pytest.fail(f"{name} answered {call(service, digest)!r}")
        with pytest.raises(ClosedError, match="the service is closed"):
            store.find_chunks([digest])
        del service, store
        assert reader.read() == b"data"
