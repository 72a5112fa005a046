"""The type `faulty`: only where the composition allows it, and then as it is declared."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import (
    BlobService,
    Composition,
    CompositionError,
    CorruptBlobError,
    PluginError,
    Ref,
    Registry,
    UnavailableError,
)
from castore.composition.schema import schema_of
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.errors import ClosedError
from castore.testing import HELLO, P3M


def stores(allow: bool = True, **fields: Any) -> Composition:
    table = {"type": "faulty", "inner": "&store", **fields}
    tables = {"blobservices": {"root": table, "store": {"type": "memory"}}}
    return Composition.from_mapping({"allow_faults": allow, **tables} if allow else tables)


class TestAllowed:
    def test_without_a_word_it_is_refused(self) -> None:
        with pytest.raises(CompositionError) as caught:
            stores(allow=False)
        (problem,) = caught.value.problems
        assert (problem.code, problem.dotted) == ("not-allowed", "blobservices.root.type")
        assert "allow_faults = true" in problem.message

    def test_with_it_nothing_else_changes(self) -> None:
        with Composition.from_mapping(
            {"allow_faults": True, "blobservices": {"root": {"type": "memory"}}}
        ) as composition:
            assert composition.blobs().write(HELLO.data) == HELLO.digest

    def test_a_url_cannot_allow_it(self) -> None:
        """Neither as a reference nor alone: here a stranger's type that has a URL form and asks for it."""
        registry = Registry.default()
        config = registry.find(registry.kind(BlobService), "memory").config  # type: ignore[union-attr]
        registry.register(BlobService, "strange", type("C", (config,), {}), only_if="allow_faults")
        registry.register(BlobService, "tame", type("C", (config,), {}))
        with castore.from_url("tame:", registry=registry):
            pass
        with pytest.raises(CompositionError, match="`strange` is refused unless"):
            castore.from_url("strange:", registry=registry)
        tables = {"blobservices": {"root": {"type": "cache", "near": "memory:", "far": "strange:"}}}
        with pytest.raises(CompositionError) as caught:
            Composition.from_mapping(tables, registry=registry)
        assert [problem.dotted for problem in caught.value.problems] == ["blobservices.root.far"]
        Composition.from_mapping({"allow_faults": True, **tables}, registry=registry).close()

    def test_a_plugin_asks_for_a_setting_that_there_is(self) -> None:
        config = Registry.default().find(Registry.default().kind(BlobService), "memory").config  # type: ignore[union-attr]
        with pytest.raises(PluginError, match=r"setting `allow_all`; there is `allow_faults`"):
            Registry().register(BlobService, "x", config, only_if="allow_all")

    def test_editors_know_the_setting(self) -> None:
        properties = schema_of(Registry.default())["properties"]
        setting = properties["allow_faults"]
        assert "boolean" in str(setting)
        assert setting["default"] is False


class TestService:
    def test_by_default_nothing_goes_wrong(self) -> None:
        with stores() as composition:
            service = composition.blobs()
            assert service.write(P3M.data) == P3M.digest
            assert service.read(P3M.digest) == P3M.data
            assert service.capability(ChunkStore) is not None
            assert service.faults.trace == []

    def test_it_fails_by_its_name(self) -> None:
        with stores(fail=1) as composition, pytest.raises(UnavailableError, match="`root`"):
            composition.blobs().has(HELLO.digest)

    def test_two_runs_are_alike(self) -> None:
        def run(seed: int) -> list[Any]:
            with stores(seed=seed, fail=0.3) as composition:
                service = composition.blobs()
                for _ in range(50):
                    try:
                        service.has(HELLO.digest)
                    except UnavailableError:
                        continue
                return service.faults.trace

        assert run(1) == run(1) != run(2)

    def test_only_where_it_is_told_to(self) -> None:
        """Groups and names of operations may stand together."""
        with stores(fail=1, operations=["writes", "chunks"]) as composition:
            service = composition.blobs()
            assert service.has(HELLO.digest) is False
            with pytest.raises(UnavailableError):
                service.chunks(HELLO.digest)
            with pytest.raises(UnavailableError):
                service.open_write()

    def test_each_chance_is_that_of_its_kind(self) -> None:
        """No two fields are mixed up."""
        for kind in ("delay", "fail", "corrupt", "forget", "truncate", "flip", "partial"):
            with stores(latency=0, **{kind: 1}) as composition:
                composition.blobs("store").write(HELLO.data)
                service = composition.blobs()
                for call in (self.read, self.listed):
                    with contextlib.suppress(UnavailableError, CorruptBlobError, KeyError):
                        call(service)
                assert {fault.kind for fault in service.faults.trace} == {kind}

    @staticmethod
    def read(service: BlobService) -> bytes:
        return service.read(HELLO.digest)

    @staticmethod
    def listed(service: BlobService) -> list[Any]:
        lister = service.capability(BlobLister)
        assert lister is not None
        return list(lister.list_blobs())

    def test_times(self) -> None:
        with stores(latency="250 ms", hang_time="2 min") as composition:
            plan = composition.blobs().faults.plan
        assert (plan.latency, plan.hang_seconds) == (0.25, 120)

    def test_closing_lets_go_of_who_hangs(self) -> None:
        """The service behind is closed by then, and answers nothing."""
        with ThreadPoolExecutor(1) as pool:
            with stores(hang=1, hang_time="1 h") as composition:
                service = composition.blobs()
                answer = pool.submit(service.has, HELLO.digest)
                assert service.faults.wait_until_hanging()
            with pytest.raises(ClosedError):
                answer.result(60)

    def test_faults_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """A warning each, but for delays."""
        caplog.set_level(logging.INFO, "castore_wrappers.faulty")
        with stores(delay=1, latency=0, forget=1) as composition:
            composition.blobs().has(HELLO.digest)
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("INFO", f"`root`: has #1 of {HELLO.digest}: delay, 0.0000 s"),
            ("WARNING", f"`root`: has #1 of {HELLO.digest}: forget"),
        ]

    def test_a_store_on_the_disk_behind_a_cache(self, tmp_path: Path) -> None:
        """What a rehearsal is for: with a far that often fails, reading ends well or as unavailable."""
        tables = {
            "root": {"type": "cache", "near": "memory:", "far": "&rehearsal"},
            "rehearsal": {"type": "faulty", "inner": "&far", "fail": 0.2},
            "far": {"type": "objectstore", "object_store_url": "file:far"},
        }
        with Composition.from_mapping(
            {"allow_faults": True, "blobservices": tables}, base=tmp_path
        ) as composition:
            composition.blobs("far").write(P3M.data)
            service, failures = composition.blobs(), 0
            for _ in range(200):
                try:
                    assert service.read(P3M.digest) == P3M.data
                    break
                except UnavailableError:
                    failures += 1
            else:
                pytest.fail("never read")
            assert failures > 0


def test_the_reference_of_its_config_is_an_edge() -> None:
    """So it is in the graph, and its service is built before it."""
    with stores() as composition:
        (edge,) = composition.instance(BlobService).edges
        assert (edge.label, edge.target) == ("inner", "blobservices.store")
        assert edge.ref == Ref("&store", BlobService)
