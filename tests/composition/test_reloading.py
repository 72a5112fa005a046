"""A composition that is read anew keeps what did not change, and nothing of the rest is left behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from castore import BlobService, Composition, Registry
from castore.composition import BuildContext, Ref
from castore.composition.reloading import plan_reload
from castore.composition.source import ConfigSource
from castore.errors import BuildError, ClosedError, CompositionError
from castore.metrics.shell import bare
from castore_memory.service import MemoryBlobService

OPENED: list[str] = []
CLOSED: list[str] = []


class Noting(MemoryBlobService):
    """Notes when it is closed, under its name and number."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.resolve: Callable[[], BlobService] | None = None
        OPENED.append(name)

    def close(self) -> None:
        CLOSED.append(self.name)


@attrs.frozen
class NotingConfig:
    """A service that notes."""

    number: int = 0
    fails: bool = False
    uses: Ref[BlobService] | None = None

    def build(self, name: str, context: BuildContext) -> BlobService:
        if self.fails:
            raise ValueError("it fails")
        service = Noting(f"{name}{self.number}")
        if self.uses is not None:
            context.resolve(self.uses)
            uses = self.uses
            service.resolve = lambda: context.resolve(uses)
        return service


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    OPENED.clear()
    CLOSED.clear()


def registry() -> Registry:
    known = Registry.default()
    known.register(BlobService, "noting", NotingConfig)
    return known


KNOWN = registry()


def source(**tables: dict[str, Any]) -> ConfigSource:
    services = {name: {"type": "noting", **table} for name, table in tables.items()}
    return ConfigSource.of_mapping({"blobservices": services}, Path())


def opened(**tables: dict[str, Any]) -> Composition:
    return Composition(source(**tables), KNOWN)


BEFORE: dict[str, dict[str, Any]] = {
    "root": {"uses": "&near"},
    "near": {"number": 1},
    "other": {"uses": "&far"},
    "far": {},
}


@pytest.mark.parametrize(
    ("after", "fates"),
    [
        (BEFORE, ["kept", "kept", "kept", "kept"]),
        ({**BEFORE, "near": {"number": 2}}, ["changed", "changed", "kept", "kept"]),
        ({**BEFORE, "far": {"number": 2}}, ["kept", "kept", "changed", "changed"]),
        ({**BEFORE, "root": {"uses": "&far"}}, ["changed", "kept", "kept", "kept"]),
        ({**BEFORE, "root": {"uses": "memory:"}}, ["added", "changed", "kept", "kept", "kept"]),
        ({**BEFORE, "new": {}}, ["kept", "kept", "kept", "kept", "added"]),
        ({"root": {"uses": "&near"}, "near": {"number": 1}}, ["kept", "kept", "removed", "removed"]),
        ({**BEFORE, "far": {"type": "memory"}}, ["kept", "kept", "changed", "changed"]),
    ],
)
def test_the_plan(after: dict[str, dict[str, Any]], fates: list[str]) -> None:
    with opened(**BEFORE) as old, opened(**after) as new:
        plan = plan_reload(old.graph, new.graph)
        assert [change.fate for change in plan.changes] == fates
        assert all(change.reasons for change in plan.changes if change.fate == "changed")
        assert OPENED == []


def test_another_folder_keeps_nothing() -> None:
    with opened(**BEFORE) as old:
        plan = plan_reload(old.graph, old.graph, same_folder=False)
        assert plan.of("kept") == []


def test_a_plan_says_which_field_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(value: str) -> Composition:
        monkeypatch.setenv("NUMBER", value)
        return opened(root={"number": "${NUMBER}"})

    with read("4711") as old, read("4712") as new:
        plan = old.plan_reload(new)
        assert plan.changes[0].reasons == ("`number` differs",)
        assert "471" not in repr(plan)


def test_what_did_not_change_is_the_same_service() -> None:
    with opened(**BEFORE) as stores:
        other, far = stores.blobs("other"), stores.blobs("far")
        digest = far.write(b"kept")
        root = stores.blobs()
        root.write(b"gone")
        with stores.reload(source(**{**BEFORE, "near": {"number": 2}})) as reloaded:
            assert reloaded.plan.of("changed") == ["blobservices.root", "blobservices.near"]
            assert stores.blobs("other") is other
            assert stores.blobs("far") is far
            assert stores.blobs() is not root
            assert root.write(b"still") is not None
            assert CLOSED == []
        assert CLOSED == ["root0", "near1"]
        with pytest.raises(ClosedError):
            root.write(b"no more")
        assert stores.blobs("far").read(digest) == b"kept"
    assert sorted(CLOSED) == ["far0", "near1", "near2", "other0", "root0", "root0"]
    assert sorted(OPENED) == sorted(CLOSED)


def test_what_was_built_is_built_before_the_step() -> None:
    with opened(**BEFORE) as stores:
        stores.blobs("near")
        stores.reload(source(**{**BEFORE, "near": {"number": 2}, "far": {"number": 2}})).close()
        assert OPENED == ["near1", "near2"]
        assert CLOSED == ["near1"]


@pytest.mark.parametrize(
    ("after", "error"),
    [
        ({**BEFORE, "near": {"number": "many"}}, CompositionError),
        ({**BEFORE, "near": {"fails": True}}, BuildError),
        ({**BEFORE, "near": {"number": 5}, "root": {"uses": "&near", "fails": True}}, BuildError),
    ],
)
def test_one_that_is_no_good_changes_nothing(
    after: dict[str, dict[str, Any]], error: type[Exception]
) -> None:
    with opened(**BEFORE) as stores:
        root, other = stores.blobs(), stores.blobs("other")
        with pytest.raises(error):
            stores.reload(source(**after))
        assert stores.blobs() is root
        assert stores.blobs("other") is other
        assert stores.graph.instances["blobservices.near"].config.number == 1
        root.write(b"goes on")
        assert set(CLOSED) <= {"near5"}


def test_the_same_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "composition.toml"
    file.write_text('[blobservices.root]\ntype = "memory"\n')
    with Composition.from_toml(file) as stores:
        stores.blobs()
        assert stores.reload().plan.changes_nothing
        file.write_text('[blobservices.root]\ntype = "memory"\n[blobservices.new]\ntype = "memory"\n')
        assert stores.reload().plan.of("added") == ["blobservices.new"]
        assert stores.blobs("new") is not None
        file.write_text('[blobservices.root]\ntype = "memroy"\n')
        with pytest.raises(CompositionError, match=r"composition\.toml:2"):
            stores.reload()
        assert stores.blobs("new") is not None


def test_a_mapping_cannot_be_read_again() -> None:
    with opened(**BEFORE) as stores, pytest.raises(CompositionError, match="is no file"):
        stores.reload()


def test_after_the_end() -> None:
    stores = opened(**BEFORE)
    stores.close()
    with pytest.raises(ClosedError):
        stores.reload(source(**BEFORE))


def test_all_is_closed_with_the_composition() -> None:
    """Also what was replaced and is not closed yet."""
    with opened(**BEFORE) as stores:
        stores.blobs()
        for number in range(2, 6):
            stores.reload(source(**{**BEFORE, "near": {"number": number}}))
        assert CLOSED == []
    assert sorted(CLOSED) == sorted(OPENED)


def test_who_uses_another_is_closed_before_it() -> None:
    """Also where that came to a later composition, and was replaced there."""
    with opened(**BEFORE) as stores:
        stores.blobs()
        stores.reload(source(**{**BEFORE, "root": {"uses": "&near", "number": 2}}))
        stores.reload(source(**{**BEFORE, "root": {"uses": "&near", "number": 2}, "near": {"number": 3}}))
    assert CLOSED.index("root0") < CLOSED.index("near1")
    assert CLOSED.index("root2") < CLOSED.index("near3")
    assert sorted(CLOSED) == sorted(OPENED)


def test_what_an_earlier_one_uses_waits_for_it() -> None:
    with opened(**BEFORE) as stores:
        stores.blobs()
        first = stores.reload(source(**{**BEFORE, "root": {"uses": "&near", "number": 2}}))
        second = stores.reload(source(root={"uses": "&far"}, far={}))
        second.close()
        assert CLOSED == []
        first.close()
        assert CLOSED == ["root0", "root2", "near1"]


@pytest.mark.parametrize("after", [{"near": {"number": 3}}, {"root": {"uses": "&far"}, "near": None}])
def test_what_is_resolved_late_is_what_was_there(after: dict[str, Any]) -> None:
    """By a service that was handed out before: its neighbour, whatever has its name now."""
    with opened(**BEFORE) as stores:
        root: Any = bare(stores.blobs())
        near = root.resolve()
        tables = {**BEFORE, "root": {"uses": "&near", "number": 2}}
        stores.reload(source(**tables))
        stores.reload(
            source(**{name: table for name, table in {**tables, **after}.items() if table is not None})
        )
        assert root.resolve() is near


def test_one_that_could_not_be_built_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = True
    build = NotingConfig.build

    def at_first(config: NotingConfig, name: str, context: BuildContext) -> BlobService:
        if broken:
            raise ValueError("not yet")
        return build(config, name, context)

    monkeypatch.setattr(NotingConfig, "build", at_first)
    with opened(**BEFORE) as stores:
        with pytest.raises(BuildError):
            stores.blobs("far")
        broken = False
        with pytest.raises(BuildError):
            stores.blobs("far")
        stores.reload(source(**BEFORE)).close()
        assert stores.blobs("far") is not None


def test_counters_go_on() -> None:
    with opened(**BEFORE) as stores:
        stores.blobs().write(b"one")
        stores.reload(source(**{**BEFORE, "near": {"number": 2}})).close()
        stores.blobs().write(b"two")
        written = {each.name: each.operations for each in stores.metrics().instances}["root"]
        assert written["put_indexes"].calls == 2


def test_a_kept_service_keeps_no_old_builder_alive() -> None:
    """A server is told to read its composition anew for years."""
    with opened(**BEFORE) as stores:
        stores.blobs("other")
        gone = []
        for number in range(10):
            stores.blobs()
            gone.append(weakref.ref(stores._state.builder))
            stores.reload(source(**{**BEFORE, "near": {"number": number + 2}})).close()
        gc.collect()
        # The first has built what is kept, and is asked by it for its neighbours.
        assert sum(builder() is not None for builder in gone) <= 1


def test_those_who_ask_meanwhile_get_one_or_the_other() -> None:
    """No call fails, and each instance is built once and closed once."""
    with opened(**BEFORE) as stores:
        stop = threading.Event()
        failures: list[BaseException] = []

        def ask(name: str) -> None:
            while not stop.is_set():
                try:
                    stores.blobs(name)
                    stores.graph.instances["blobservices.near"]
                except BaseException as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=ask, args=(name,)) for name in BEFORE for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(200):
            stores.reload(source(**{**BEFORE, "near": {"number": number % 3}})).close()
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
    assert sorted(OPENED) == sorted(CLOSED)
    assert OPENED.count("far0") == OPENED.count("other0") == 1
