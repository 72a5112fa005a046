"""Building: only what is needed, each once and shared; closing in order; failures kept, without secrets."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

import castore
from castore import (
    BlobService,
    BuildError,
    ClosedError,
    Composition,
    CompositionError,
    CycleError,
    PluginError,
    Ref,
    Registry,
)
from castore.composition import BuildContext
from castore.composition.types.plugins import discover
from castore.errors import describe
from castore.metrics.shell import bare
from castore_memory.service import MemoryBlobService
from tests.composition.conftest import Install, Probe

TAPE = """
import attrs, castore

@attrs.frozen
class Config:
    def build(self, name, context): ...

@castore.hookimpl
def castore_register(registry):
    registry.register(castore.BlobService, "tape", Config)
"""

Compose = Callable[..., Composition]


def probe(*parts: str, **others: Any) -> dict[str, Any]:
    return {"type": "probe", "parts": [f"&{part}" for part in parts], **others}


@pytest.fixture
def compose(probes: Registry) -> Compose:
    def compose(**instances: dict[str, Any]) -> Composition:
        return Composition.from_mapping({"blobservices": instances}, registry=probes)

    return compose


# -- what is built --


def test_nothing_is_built_before_it_is_asked_for(compose: Compose, log: list[str]) -> None:
    with compose(root=probe("a"), a=probe()):
        pass
    assert log == []


def test_only_what_the_instance_needs_is_built(compose: Compose, log: list[str]) -> None:
    """From the far ends on."""
    stores = compose(root=probe("a", "b"), a=probe("b"), b=probe(), c=probe())
    stores.blobs("a")
    assert log == ["build b", "build a"]
    stores.blobs()
    assert log == ["build b", "build a", "build root"]


def test_an_instance_is_built_once_and_shared(compose: Compose) -> None:
    stores = compose(root=probe("a", "b"), a=probe("c"), b=probe("c"), c=probe())
    root: Any = stores.blobs()
    assert root is stores.blobs() is stores.build(BlobService)
    assert root.parts == [stores.blobs("a"), stores.blobs("b")]
    assert root.parts[0].parts[0] is root.parts[1].parts[0] is stores.blobs("c")


def test_each_url_is_an_instance_of_its_own(compose: Compose) -> None:
    root: Any = compose(root={"type": "probe", "parts": ["memory:", "memory:"]}).blobs()
    assert all(isinstance(part, MemoryBlobService) for part in root.parts)
    assert root.parts[0] is not root.parts[1]


def test_a_cache_of_two_equal_urls_is_of_two_stores(registry: Registry) -> None:
    """What is written to far is not in near, though the two are written alike."""
    tables = {"root": {"type": "cache", "near": "memory:", "far": "memory:", "write": "far"}}
    stores = Composition.from_mapping({"blobservices": tables}, registry=registry)
    near, far = (
        stores._builder.build(stores.graph.instances[f"blobservices.root.{n}"]) for n in ("near", "far")
    )
    digest = stores.blobs().write(b"Hello World!")
    assert (near.has(digest), far.has(digest)) == (False, True)


def test_two_compositions_do_not_know_each_other(compose: Compose) -> None:
    assert compose(root=probe()).blobs() is not compose(root=probe()).blobs()


@pytest.mark.parametrize("names", [("root", "root"), ("root", "a"), ("a", "b")])
def test_threads_that_ask_at_the_same_time_get_the_same_object(
    registry: Registry, names: tuple[str, str]
) -> None:
    """Two threads are in the middle of building when they ask; whoever comes second waits."""
    together = threading.Barrier(2)
    built: list[str] = []

    @attrs.frozen
    class SlowConfig:
        parts: list[Ref[BlobService]] = attrs.field(factory=list)

        def build(self, name: str, context: BuildContext) -> BlobService:
            for part in self.parts:
                context.resolve(part)
            threading.Event().wait(0.02)
            built.append(name)
            return MemoryBlobService()

    attrs.resolve_types(SlowConfig, globals())
    registry.register(BlobService, "slow", SlowConfig)
    tables = {
        "root": {"type": "slow", "parts": ["&a", "&b"]},
        "a": {"type": "slow", "parts": ["&c"]},
        "b": {"type": "slow", "parts": ["&c"]},
        "c": {"type": "slow"},
    }
    stores = Composition.from_mapping({"blobservices": tables}, registry=registry)

    def ask(name: str) -> BlobService:
        together.wait(60)
        return stores.blobs(name)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(ask, names))

    assert found == [stores.blobs(name) for name in names]
    assert sorted(built) == sorted(set(built))


def test_a_cycle_has_the_chain_of_the_reference(registry: Registry) -> None:
    """The reference's own test: two caches, each near and far of the other."""
    root = {"type": "cache", "near": "&other", "far": "&other"}
    other = {"type": "cache", "near": "&root", "far": "&root"}
    with pytest.raises(CycleError) as caught:
        Composition.from_mapping({"blobservices": {"root": root, "other": other}}, registry=registry)
    assert caught.value.chain == ["root", "other"]


def test_the_sample_of_the_reference_loads_and_works(registry: Registry) -> None:
    tables = {
        "blobstore1": {"type": "memory"},
        "blobstore2": {"type": "memory"},
        "root": {"type": "cache", "near": "&blobstore1", "far": "&blobstore2"},
    }
    with Composition.from_mapping({"blobservices": tables}, registry=registry) as stores:
        digest = stores.blobs("blobstore2").write(b"far")
        assert stores.blobs().read(digest) == b"far"


def test_the_older_sample_of_the_reference_says_what_to_write(registry: Registry) -> None:
    """Type, keys, references and the root have other names today; each has its problem."""
    tables = {
        "blobstore1": {"type": "memory"},
        "blobstore2": {"type": "memory"},
        "default": {"type": "combined", "local": "blobstore1", "remote": "blobstore2"},
    }
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping({"blobservices": tables}, registry=registry)
    hints = "\n".join(problem.hint or "" for problem in caught.value.problems)
    for word in ("[blobservices.root]", "`cache`", "`near`", "`far`", "`&blobstore1`", "`&blobstore2`"):
        assert word in hints


# -- what cannot be built --


def test_a_failed_build_is_remembered_with_its_chain(compose: Compose, log: list[str]) -> None:
    stores = compose(root=probe("a"), a=probe("b"), b=probe(fails="no such tape"))
    causes = []
    for _ in range(2):
        with pytest.raises(BuildError) as caught:
            stores.blobs()
        assert caught.value.chain == ["root", "a", "b"]
        assert "no such tape" in str(caught.value)
        assert isinstance(caught.value.cause, OSError)
        causes.append(caught.value.cause)
    assert causes[0] is causes[1]
    assert log == []


def test_what_does_not_need_the_failed_one_can_be_built(compose: Compose) -> None:
    stores = compose(root=probe("a", "b"), a=probe(), b=probe(fails="no such tape"))
    with pytest.raises(BuildError):
        stores.blobs()
    assert stores.blobs("a").has(castore.B3Digest(bytes(32))) is False


def test_no_secret_is_in_the_error_of_a_build(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor in those that led to it, which a traceback shows."""
    monkeypatch.setenv("TAPE_TOKEN", "hunter2-and-more")
    stores = compose(root=probe(fails="refused for ${TAPE_TOKEN}"))
    with pytest.raises(BuildError) as caught:
        stores.blobs()
    links, link = [], caught.value
    while link is not None:
        links += [str(link), repr(link), describe(link)]
        link = link.__cause__ or link.__context__  # type: ignore[assignment]
    assert "refused for ***" in str(caught.value)
    assert not [text for text in links if "hunter2" in text]


def test_a_type_that_builds_something_else_is_named(registry: Registry) -> None:
    @attrs.frozen
    class WrongConfig:
        def build(self, name: str, context: BuildContext) -> Any:
            return "a service"

    registry.register(BlobService, "wrong", WrongConfig)
    stores = Composition.from_mapping({"blobservices": {"root": {"type": "wrong"}}}, registry=registry)
    with pytest.raises(BuildError, match="the type `wrong` built 'a service', which is no blob service"):
        stores.blobs()


def test_a_type_resolves_what_its_config_holds_and_nothing_else(registry: Registry) -> None:
    @attrs.frozen
    class ReachingConfig:
        def build(self, name: str, context: BuildContext) -> BlobService:
            return context.resolve(Ref("&hidden"))

    registry.register(BlobService, "reaching", ReachingConfig)
    tables = {"root": {"type": "reaching"}, "hidden": {"type": "memory"}}
    stores = Composition.from_mapping({"blobservices": tables}, registry=registry)
    with pytest.raises(BuildError, match="which no field of its config holds") as caught:
        stores.blobs()
    assert isinstance(caught.value.cause, PluginError)


def test_a_name_that_is_not_declared_has_a_suggestion(compose: Compose) -> None:
    with pytest.raises(CompositionError, match=r"no blob service is named `rot`.*`root`"):
        compose(root=probe()).blobs("rot")
    with pytest.raises(CompositionError, match="no directory service is named `tree`"):
        compose(root=probe()).directories("tree")


# -- closing --


def test_dependants_are_closed_before_what_they_need(compose: Compose, log: list[str]) -> None:
    stores = compose(root=probe("a", "b"), a=probe("c"), b=probe("c"), c=probe(), d=probe())
    stores.blobs()
    stores.close()
    stores.close()
    closed = [entry.partition(" ")[2] for entry in log if entry.startswith("close")]
    assert sorted(closed) == ["a", "b", "c", "root"]
    assert closed[0] == "root"
    assert closed[-1] == "c"


def test_what_one_type_hands_on_is_closed_once(probes: Registry, log: list[str]) -> None:
    """After all that use it."""

    @attrs.frozen
    class AliasConfig:
        inner: Ref[BlobService]

        def build(self, name: str, context: BuildContext) -> BlobService:
            return context.resolve(self.inner)

    attrs.resolve_types(AliasConfig, globals())
    probes.register(BlobService, "alias", AliasConfig)
    tables = {"root": probe("alias"), "alias": {"type": "alias", "inner": "&kept"}, "kept": probe()}
    with Composition.from_mapping({"blobservices": tables}, registry=probes) as stores:
        stores.blobs()
    assert log == ["build kept", "build root", "close root", "close kept"]


def test_one_that_does_not_close_keeps_no_other_open(compose: Compose, log: list[str]) -> None:
    stores = compose(root=probe("a"), a=probe("b", fails_to_close=True), b=probe())
    stores.blobs()
    with pytest.raises(OSError, match="a does not close"):
        stores.close()
    assert log[-3:] == ["close root", "close a", "close b"]


def test_several_that_do_not_close_are_all_told(compose: Compose) -> None:
    stores = compose(root=probe("a", fails_to_close=True), a=probe(fails_to_close=True))
    stores.blobs()
    with pytest.raises(ExceptionGroup) as caught:
        stores.close()
    assert [str(error) for error in caught.value.exceptions] == ["root does not close", "a does not close"]


def test_a_closed_composition_builds_nothing(compose: Compose) -> None:
    stores = compose(root=probe("a"), a=probe())
    stores.blobs("a")
    stores.close()
    for name in ("root", "a"):
        with pytest.raises(ClosedError):
            stores.blobs(name)


def test_what_is_complete_after_closing_is_closed_at_once(registry: Registry, log: list[str]) -> None:
    """One thread builds while another closes: nothing is left open, and who asked is told."""
    building, closed = threading.Event(), threading.Event()

    class Late(MemoryBlobService):
        def close(self) -> None:
            log.append("close")

    @attrs.frozen
    class LateConfig:
        def build(self, name: str, context: BuildContext) -> BlobService:
            building.set()
            closed.wait(60)
            return Late()

    registry.register(BlobService, "late", LateConfig)
    stores = Composition.from_mapping({"blobservices": {"root": {"type": "late"}}}, registry=registry)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stores.blobs)
        assert building.wait(60)
        stores.close()
        closed.set()
        with pytest.raises(ClosedError):
            asked.result(60)
    assert log == ["close"]


# -- pickling --


def test_a_composition_pickles_as_its_config(tmp_path: Path) -> None:
    """It is read anew where it lands, with the same base folder; nothing that was built comes with it."""
    path = tmp_path / "composition.toml"
    path.write_text('[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:store"\n')
    with Composition.from_toml(path) as stores:
        digest = stores.blobs().write(b"Hello World!")
        with pickle.loads(pickle.dumps(stores)) as theirs:
            assert theirs.blobs() is not stores.blobs()
            assert theirs.blobs().read(digest) == b"Hello World!"


@attrs.frozen
class Placed:
    """A type of the program, at the top of a module."""

    size: int = 0

    def build(self, name: str, context: BuildContext) -> BlobService:
        return Probe(name, [], [])


def test_a_registry_of_its_own_goes_along(registry: Registry, install: Install) -> None:
    """Its types, those of plugins by their places, and what it found broken."""
    install("castore-tape", "1.0", {"tape": "tape_one", "bad": "no_such_module"}, {"tape_one": TAPE})
    for plugin in discover():
        if plugin.name in {"tape", "bad"}:
            registry.load(plugin)
    registry.register(BlobService, "placed", Placed)
    mapping = {"blobservices": {"root": {"type": "placed", "size": 3}, "other": {"type": "tape"}}}
    with Composition.from_mapping(mapping, registry=registry) as stores:
        with pickle.loads(pickle.dumps(stores)) as theirs:
            assert theirs.graph.instances["blobservices.root"].config == Placed(3)
            assert isinstance(bare(theirs.blobs()), Probe)
            assert (
                theirs.graph.instances["blobservices.other"].type.owner == "plugin `tape` of castore-tape 1.0"
            )
        again = pickle.loads(pickle.dumps(registry))
    assert [entry.tag for entry in again.all_types()] == [entry.tag for entry in registry.all_types()]
    assert [str(entry) for entry in again.broken] == [str(entry) for entry in registry.broken]
    assert [plugin.label for plugin in again.plugins] == [plugin.label for plugin in registry.plugins]
    again.register(BlobService, "another", Placed)
    assert registry.find(registry.kind(BlobService), "another") is None


def test_a_class_without_a_place_keeps_a_registry_here(compose: Compose) -> None:
    """The error says which one, and what to do."""
    with (
        compose(root=probe()) as stores,
        pytest.raises(TypeError, match=r"ProbeConfig.* at the top of a module"),
    ):
        pickle.dumps(stores)


def test_no_secret_is_in_a_pickle_and_it_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STORE_TOKEN", "hunter2-and-more")
    (tmp_path / "key").write_text("hunter3-and-more\n")
    options = {"token": "${STORE_TOKEN}", "key": {"file": "key"}}
    root = {"type": "objectstore", "object_store_url": "s3://bucket", "object_store_options": options}
    stores = Composition.from_mapping({"blobservices": {"root": root}}, base=tmp_path)
    pickled = pickle.dumps(stores)
    assert b"hunter" not in pickled
    monkeypatch.setenv("STORE_TOKEN", "another-one")
    theirs = pickle.loads(pickled).graph.instances["blobservices.root"].config.object_store_options
    assert theirs == {"token": "another-one", "key": "hunter3-and-more"}
