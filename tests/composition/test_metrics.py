"""A composition measures its instances without being asked, and changes nothing else by it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

import castore
from castore import BlobService, ClosedError, Composition, Ref, Registry
from castore.composition import BuildContext
from castore.metrics.shell import bare
from castore.testing import HELLO, P3M
from castore_memory.service import MemoryBlobService

CACHE: dict[str, Any] = {
    "root": {"type": "cache", "near": "&near", "far": "&far", "write": "far"},
    "near": {"type": "memory"},
    "far": {"type": "objectstore", "object_store_url": "memory:"},
}
Compose = Callable[..., Composition]


@pytest.fixture
def registry() -> Registry:
    """All that is installed."""
    return Registry.default()


@pytest.fixture
def compose(registry: Registry) -> Iterator[Compose]:
    opened = []

    def compose(tables: Mapping[str, Any], **options: Any) -> Composition:
        opened.append(Composition.from_mapping({"blobservices": tables}, registry=registry, **options))
        return opened[-1]

    yield compose
    for stores in opened:
        stores.close()


@pytest.fixture
def handing_on(registry: Registry) -> None:
    """Registers a type that hands on what another built."""

    @attrs.frozen
    class AliasConfig:
        of: Ref[BlobService]

        def build(self, name: str, context: BuildContext) -> BlobService:
            return context.resolve(self.of)

    attrs.resolve_types(AliasConfig, globals())
    registry.register(BlobService, "alias", AliasConfig)


def test_a_cold_read_and_a_warm_one(compose: Compose) -> None:
    """Each instance has what was asked of it, and nothing else: far is not asked when near has all."""
    stores = compose(CACHE)
    root = stores.blobs()
    digest = root.write(P3M.data)
    cold = stores.metrics()
    assert (cold["near"].calls, cold["near"].bytes_in) == (0, 0)
    assert cold["far"].bytes_in == cold["root"].bytes_in == len(P3M.data)
    root.read(digest)
    read = stores.metrics()
    assert read["far"].bytes_out == read["near"].bytes_in == read["root"].bytes_out == len(P3M.data)
    root.read(digest)
    warm = stores.metrics()
    assert warm["far"].bytes_out == len(P3M.data)
    assert warm["near"].hits > read["near"].hits
    assert warm["near"].misses == read["near"].misses
    assert warm["root"].operations["open_read"].calls == 2
    assert all(entry.errors == {} and entry.under_way == 0 for entry in warm)


def test_all_instances_are_there_by_name_type_and_kind(compose: Compose) -> None:
    """Built or not; one that is made by a URL by its place."""
    stores = compose({"root": {"type": "cache", "near": "memory:", "far": "&far"}, "far": {"type": "memory"}})
    shown = [(entry.name, entry.type, entry.kind, entry.calls) for entry in stores.metrics()]
    assert sorted(shown) == [
        ("far", "memory", "blob service", 0),
        ("root", "cache", "blob service", 0),
        ("root.near", "memory", "blob service", 0),
    ]
    assert not stores.blobs().has(HELLO.digest)
    assert [stores.metrics()[name].misses for name in ("root", "root.near", "far")] == [1, 1, 1]


def test_two_compositions_count_for_themselves(compose: Compose) -> None:
    one, other = compose(CACHE), compose(CACHE)
    one.blobs().has(HELLO.digest)
    assert (one.metrics()["root"].calls, other.metrics()["root"].calls) == (1, 0)


def test_from_many_threads(compose: Compose) -> None:
    stores = compose(CACHE)
    root = stores.blobs()
    digest = root.write(HELLO.data)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: root.has(digest), range(4000)))
    assert stores.metrics()["root"].operations["has"].hits == 4000


def test_it_can_be_switched_off(compose: Compose, tmp_path: Path, registry: Registry) -> None:
    """Then nothing was counted."""
    file = tmp_path / "composition.toml"
    file.write_text('[blobservices.root]\ntype = "memory"\n')
    for stores in (
        compose({"root": {"type": "memory"}}, metrics=False),
        Composition.from_toml(file, metrics=False),
        castore.open(file, metrics=False),
        pickle.loads(pickle.dumps(Composition.from_toml(file, metrics=False))),
    ):
        with stores:
            assert isinstance(stores.blobs(), MemoryBlobService)
            stores.blobs().has(HELLO.digest)
            assert [(entry.name, entry.calls) for entry in stores.metrics()] == [("root", 0)]


def test_what_another_built_is_measured_for_both(
    compose: Compose, handing_on: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under each of its names, and it is closed once."""
    closed: list[object] = []

    def close(self: BlobService) -> None:
        closed.append(self)

    monkeypatch.setattr(MemoryBlobService, "close", close)
    stores = compose({"root": {"type": "alias", "of": "&kept"}, "kept": {"type": "memory"}})
    stores.blobs().has(HELLO.digest)
    stores.blobs("kept").has(HELLO.digest)
    assert [stores.metrics()[name].calls for name in ("root", "kept")] == [1, 2]
    assert isinstance(stores.blobs(), MemoryBlobService)
    kept = bare(stores.blobs("kept"))
    stores.close()
    assert closed == [kept]


def test_services_that_are_released_are_closed_once(compose: Compose, handing_on: None) -> None:
    """The caller closes what it got, and the others after that; also where two names are one service."""
    stores = compose({"root": {"type": "alias", "of": "&kept"}, "kept": {"type": "memory"}})
    service, others = stores.released()
    assert isinstance(service, MemoryBlobService)
    assert others == []


def test_a_call_that_hangs_can_be_seen(compose: Compose, registry: Registry) -> None:
    asked, go = threading.Event(), threading.Event()

    class Hanging(MemoryBlobService):
        def has(self, digest: Any) -> bool:
            asked.set()
            return go.wait(30)

    @attrs.frozen
    class HangingConfig:
        def build(self, name: str, context: BuildContext) -> BlobService:
            return Hanging()

    registry.register(BlobService, "hanging", HangingConfig)
    stores = compose({"root": {"type": "hanging"}})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stores.blobs().has, HELLO.digest)
        assert asked.wait(30)
        assert (stores.metrics()["root"].calls, stores.metrics()["root"].under_way) == (0, 1)
        go.set()
        assert answer.result()
    assert (stores.metrics()["root"].calls, stores.metrics()["root"].under_way) == (1, 0)


def test_gauges_are_those_of_the_instance_itself(compose: Compose) -> None:
    """And of nothing within it; also after closing, as they stood before."""
    stores = compose(
        {
            "root": {"type": "read_only", "inner": "&gate"},
            "gate": {"type": "breaker", "inner": "&kept"},
            "kept": {"type": "memory"},
        }
    )
    assert stores.metrics()["gate"].gauges == {}  # It is not built yet.
    stores.blobs()
    closed = {"is_closed": 1.0, "is_open": 0.0, "is_half_open": 0.0}
    assert [entry.gauges for entry in stores.metrics()] == [{}, closed, {}]
    stores.close()
    assert [entry.gauges for entry in stores.metrics()] == [{}, closed, {}]
    with pytest.raises(ClosedError):
        stores.blobs()
