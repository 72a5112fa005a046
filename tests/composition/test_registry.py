"""The door for plugins: found by entry point, named in every error, and one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from castore import BlobService, DuplicatePluginError, PluginError, Ref, Registry
from castore.chunking import Chunker
from castore.directoryservice import DirectoryService
from castore.plugins import discover

Install = Callable[..., Path]

TYPE = """
import attrs, castore

@attrs.frozen
class Config:
    def build(self, name, context): ...

@castore.hookimpl
def castore_register(registry):
    registry.register(castore.BlobService, {tag!r}, Config)
"""


@attrs.frozen
class Plain:
    def build(self, name: str, context: Any) -> BlobService:
        raise NotImplementedError


def load_all(registry: Registry, *names: str) -> None:
    for plugin in discover():
        if plugin.name in names:
            registry.load(plugin)


def test_a_plugin_is_found_by_its_entry_point(install: Install) -> None:
    """And not imported before it is needed."""
    install("castore-tape", "1.0", {"tape": "no_such_module"})
    (tape,) = [plugin for plugin in discover() if plugin.name == "tape"]
    assert tape.label == "plugin `tape` of castore-tape 1.0"


def test_two_types_with_one_tag_name_both_distributions(install: Install, registry: Registry) -> None:
    install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": TYPE.format(tag="tape")})
    install("my-tape", "0.3", {"mytape": "tape_two"}, {"tape_two": TYPE.format(tag="tape")}, folder="two")
    with pytest.raises(DuplicatePluginError) as caught:
        load_all(registry, "tape", "mytape")
    assert "two types of blob service have the tag `tape`" in str(caught.value)
    assert "plugin `tape` of castore-tape 1.0" in str(caught.value)
    assert "plugin `mytape` of my-tape 0.3" in str(caught.value)
    assert "uninstall one of the two" in str(caught.value)


def test_two_plugins_with_one_name_name_both_distributions(install: Install) -> None:
    """Which one would be used is not for the order of `sys.path` to say."""
    install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": TYPE.format(tag="tape")})
    install("my-tape", "0.3", {"tape": "tape_two"}, {"tape_two": TYPE.format(tag="mine")}, folder="two")
    with pytest.raises(DuplicatePluginError) as caught:
        Registry.default()
    assert "two plugins are named `tape`" in str(caught.value)
    assert "castore-tape 1.0" in str(caught.value)
    assert "my-tape 0.3" in str(caught.value)
    assert caught.value.plugin == "tape"


def test_a_tag_of_a_bundled_type_is_taken_as_well(install: Install, registry: Registry) -> None:
    install("my-memory", "2", {"mine": "my_memory"}, {"my_memory": TYPE.format(tag="memory")})
    with pytest.raises(DuplicatePluginError, match=r"(?s)plugin `memory` of castore .*`mine` of my-memory 2"):
        load_all(registry, "mine")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import tapelib", "the module `tapelib` is not installed"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "it ends the program while it is imported"),
        ("def castore_register(registry): ...", "is not marked with `@castore.hookimpl`"),
        ("", "is missing: define it with `@castore.hookimpl`"),
        ("import castore\n@castore.hookimpl\ndef castore_regster(registry): ...", "castore_regster"),
        (TYPE.format(tag=""), "must not be empty"),
        (TYPE.format(tag="tape") + "    1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_fails_is_named_with_the_reason_and_stops_no_other(
    install: Install, registry: Registry, code: str, cause: str
) -> None:
    """Nothing of it is registered, not even the half that came before the failure."""
    install("castore-tape", "1.0", {"tape": "castore_tape"}, {"castore_tape": code})
    load_all(registry, "tape")
    (broken,) = registry.broken
    assert cause in broken.cause
    assert str(broken).startswith("plugin `tape` of castore-tape 1.0 does not load: ")
    kind = registry.kind(BlobService)
    assert set(registry.types(kind)) == {"cache", "memory", "objectstore"}
    assert registry.why_unknown(kind, "tape") == str(broken)


def test_registries_do_not_know_each_other(registry: Registry) -> None:
    registry.register(BlobService, "plain", Plain)
    kind = registry.kind(BlobService)
    assert registry.find(kind, "plain") is not None
    assert Registry.default().find(kind, "plain") is None
    assert dict(Registry().types(kind)) == {}


@attrs.frozen
class WithAFieldType:
    type: str = ""

    def build(self, name: str, context: Any) -> BlobService:
        raise NotImplementedError


@attrs.frozen
class WithoutBuild:
    path: str = ""


@attrs.frozen
class Unresolvable:
    inner: NoSuchName  # type: ignore[name-defined] # noqa: F821

    def build(self, name: str, context: Any) -> BlobService:
        raise NotImplementedError


class NoAttrs:
    def build(self, name: str, context: Any) -> BlobService:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("tag", "config", "words"),
    [
        ("a+b", Plain, "cannot be the tag of a type"),
        ("a:b", Plain, "cannot be the tag of a type"),
        ("a", NoAttrs, "is not an attrs class"),
        ("a", WithoutBuild, "has no method `build`"),
        ("a", WithAFieldType, "has a field `type`"),
        ("a", Unresolvable, "has an annotation that means nothing at run time"),
    ],
)
def test_a_config_class_that_cannot_work_is_refused_at_once(tag: str, config: type, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        Registry().register(BlobService, tag, config)


def test_a_kind_is_named_by_its_contract(registry: Registry) -> None:
    """One tag may be used once in each kind; a contract that is no kind is refused with those that are."""
    registry.register(DirectoryService, "memory", Plain)
    with pytest.raises(PluginError, match=r"no kind of service; the kinds are `blobservices`"):
        registry.register(int, "memory", Plain)
    with pytest.raises(DuplicatePluginError, match="`blobservices` is there already"):
        registry.add_kind(int, "blobservices", "number")


def test_a_chunker_has_a_tag_of_its_own(registry: Registry) -> None:
    class Mine(Chunker):
        pass

    registry.register_chunker("mine", Mine)
    assert registry.chunkers["mine"] is Mine
    assert {"fastcdc-2016", "fastcdc-2020"} < set(registry.chunkers)
    with pytest.raises(DuplicatePluginError, match="two chunkers have the tag `fastcdc-2020`"):
        registry.register_chunker("fastcdc-2020", Mine)


def test_a_reference_shows_how_it_was_written() -> None:
    assert (Ref("&near").name, Ref("&near").url) == ("near", None)
    assert (Ref("memory:").name, Ref("memory:").url) == (None, "memory:")
    assert repr(Ref("s3://user:hunter2@host/path")) == "Ref('s3://user:***@host/path')"
