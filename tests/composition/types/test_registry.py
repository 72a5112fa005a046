"""The door for plugins: found by entry point, named in every error, and one that fails stops no other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from castore import (
    BlobService,
    Composition,
    CompositionError,
    DuplicatePluginError,
    PluginError,
    Ref,
    Registry,
)
from castore.composition.types.plugins import discover
from castore.composition.types.strangers import printing_to_stderr
from castore.composition.types.versions import satisfies
from castore.contract.directories import DirectoryService
from castore.format.chunking import Chunker

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


BUILDS = """
import attrs, castore
from castore.composition import BuildContext

@attrs.frozen
class Config:
    def build(self, name: str, context: BuildContext) -> castore.BlobService:
        return castore.from_url("memory:")

@castore.hookimpl
def castore_register(registry: castore.Registry) -> None:
    registry.register(castore.BlobService, "{tag}", Config)
"""


def test_two_types_with_one_tag_concern_those_who_use_it(install: Install, registry: Registry) -> None:
    """They are told of both distributions; all others go on."""
    install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": TYPE.format(tag="tape")})
    install("my-tape", "0.3", {"mytape": "tape_two"}, {"tape_two": TYPE.format(tag="tape")}, folder="two")
    install("third", "3", {"third": "tape_three"}, {"tape_three": TYPE.format(tag="tape")}, folder="three")
    load_all(registry, "tape", "mytape", "third")

    with Composition.from_mapping(
        {"blobservices": {"root": {"type": "memory"}}}, registry=registry
    ) as stores:
        stores.blobs()
    for table in ({"type": "tape"}, {"type": "cache", "near": "memory:", "far": "tape:x"}):
        with pytest.raises(CompositionError) as caught:
            Composition.from_mapping({"blobservices": {"root": table}}, registry=registry)
        (problem,) = caught.value.problems
        assert problem.code == "ambiguous-type"
        assert "two types of blob service have the tag `tape`" in problem.message
        assert "plugin `tape` of castore-tape 1.0" in problem.message
        assert "plugin `mytape` of my-tape 0.3" in problem.message
        assert problem.hint == "uninstall one of the two"
    assert registry.contested == [registry.why_contested(registry.kind(BlobService), "tape")]
    assert not registry.broken
    assert "tape" not in registry.types(registry.kind(BlobService))


def test_two_plugins_with_one_name_are_both_there(install: Install) -> None:
    """What they bring has other tags, so that each can be used; `sys.path` has no say in it."""
    install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": BUILDS.format(tag="one")})
    install("my-tape", "0.3", {"tape": "tape_two"}, {"tape_two": BUILDS.format(tag="two")}, folder="two")
    registry = Registry.default()
    assert {plugin.label for plugin in registry.plugins if plugin.name == "tape"} == {
        "plugin `tape` of castore-tape 1.0",
        "plugin `tape` of my-tape 0.3",
    }
    for tag in ("one", "two", "memory"):
        mapping = {"blobservices": {"root": {"type": tag}}}
        with Composition.from_mapping(mapping, registry=registry) as stores:
            stores.blobs()


def test_a_tag_of_a_bundled_type_can_be_contested(install: Install, registry: Registry) -> None:
    """It is not for a stranger to say what `memory` is, nor for the order in which they are found."""
    install("my-memory", "2", {"mine": "my_memory"}, {"my_memory": TYPE.format(tag="memory")})
    load_all(registry, "mine")
    with pytest.raises(CompositionError, match=r"(?s)plugin `memory` of castore .*`mine` of my-memory 2"):
        Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}, registry=registry)
    mapping = {"blobservices": {"root": {"type": "objectstore", "object_store_url": "memory:"}}}
    Composition.from_mapping(mapping, registry=registry).close()


def test_a_plugin_that_brings_one_tag_twice_is_broken(install: Install, registry: Registry) -> None:
    twice = TYPE.format(tag="tape") + '    registry.register(castore.BlobService, "tape", Config)\n'
    install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": twice})
    load_all(registry, "tape")
    (broken,) = registry.broken
    assert "both from plugin `tape` of castore-tape 1.0" in broken.cause


CHUNKER = """
import castore
from castore.format.chunking import Chunker

class Mine(Chunker):
    pass

@castore.hookimpl
def castore_register(registry: castore.Registry) -> None:
    registry.register_chunker("{tag}", Mine)
"""


def test_two_chunkers_with_one_tag_concern_those_who_use_it(install: Install, registry: Registry) -> None:
    install("one", "1.0", {"one": "cut_one"}, {"cut_one": CHUNKER.format(tag="rabin")})
    install("two", "2.0", {"two": "cut_two"}, {"cut_two": CHUNKER.format(tag="rabin")}, folder="two")
    install(
        "three",
        "3.0",
        {"three": "cut_three"},
        {"cut_three": CHUNKER.format(tag="fastcdc-2020")},
        folder="three",
    )
    load_all(registry, "one", "two", "three")
    (broken,) = registry.broken
    assert broken.plugin.name == "three"

    def table(chunker: str) -> dict[str, Any]:
        root = {"type": "objectstore", "object_store_url": "memory:", "chunker": chunker}
        return {"blobservices": {"root": root}}

    Composition.from_mapping(table("fastcdc-2020"), registry=registry).close()
    with pytest.raises(CompositionError, match="two chunkers have the tag `rabin`: one from plugin `one`"):
        Composition.from_mapping(table("rabin"), registry=registry)


PRINTS = 'print("imported")\n' + BUILDS.format(tag="tape").replace(
    "        return", '        print("built")\n        return'
).replace("    registry.register", '    print("registered")\n    registry.register')


def test_what_a_plugin_prints_goes_to_stderr(
    install: Install, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stdout may be where a blob goes; what the program itself prints meanwhile stays there."""
    printing = PRINTS.replace("    def build", '    print("config")\n\n    def build')
    install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": printing})
    before = sys.stdout
    load_all(registry, "tape")
    with Composition.from_mapping({"blobservices": {"root": {"type": "tape"}}}, registry=registry) as stores:
        stores.blobs()
    assert sys.stdout is before
    output = capsys.readouterr()
    assert output.out == ""
    assert {*output.err.split()} == {"imported", "config", "registered", "built"}


def test_other_threads_print_where_they_always_did(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_to_stderr(), printing_to_stderr(), ThreadPoolExecutor(1) as pool:
        pool.submit(print, "other").result()
        print("own")
    print("after")
    output = capsys.readouterr()
    assert (output.out, output.err) == ("other\nafter\n", "own\n")


REQUIRED = [
    ("castore>=9", "it needs castore>=9, and this is castore "),
    ("castore (>=9,<10)", "it needs castore>=9,<10"),
    ("castore[s3]>=9", "it needs castore>=9"),
    ("castore==9.*", "it needs castore==9.*"),
    ("castore<0.0.1", "it needs castore<0.0.1"),
    ("castore>=0", None),
    ("castore", None),
    ("castore>=9; extra == 'test'", None),
    ("castore-tools>=9", None),
    ("castore>=soon", None),
]


@pytest.mark.parametrize(("requirement", "cause"), REQUIRED)
def test_a_plugin_for_another_castore_is_not_loaded(
    install: Install, registry: Registry, requirement: str, cause: str | None
) -> None:
    """pip looks at that when a plugin is installed, and not when castore is."""
    site = install("castore-tape", "1.0", {"tape": "tape_one"}, {"tape_one": TYPE.format(tag="tape")})
    with (site / "castore_tape-1.0.dist-info" / "METADATA").open("a") as metadata:
        metadata.write(f"Requires-Dist: attrs\nRequires-Dist: {requirement}\n")
    load_all(registry, "tape")
    assert [entry.cause.startswith(cause or "?") for entry in registry.broken] == [True] * (cause is not None)
    assert ("tape" in registry.types(registry.kind(BlobService))) == (cause is None)


@pytest.mark.parametrize(
    ("bound", "met"),
    [
        (">=1.2", True), (">=1.2.4", False), (">1.2.3", False), ("<1.10", True), ("==1.2.3", True),
        ("==1.2", False), ("==1.2.*", True), ("!=1.2.*", False), ("!=1.3", True), ("~=1.2", True),
        ("~=1.2.0", True), ("~=1.1.0", False), ("~=2.0", False), ("<=1.2.3.0", True), ("===1.2.3", True),
    ],
)  # fmt: skip
def test_versions_are_compared_by_their_numbers(bound: str, met: bool) -> None:
    assert satisfies("1.2.3.dev1+local", [bound]) is met
    assert satisfies("1.2.3", [bound, ">=0"]) is met


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import tapelib", "the module `tapelib` is not installed"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "it ends the program while it is imported"),
        ("class Odd(BaseException): ...\nraise Odd('no')", "it raises Odd: no"),
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
    assert set(registry.types(kind)) == {"cache", "memory", "objectstore", "packed"}
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


LATER = """
import castore

@castore.hookimpl
def castore_register(registry):
    registry.register(castore.BlobService, "tape", "castore_tape_config:Config")
    registry.register(castore.BlobService, "reel", "castore_reel_config:Config")
"""
CONFIG = TYPE[: TYPE.index("@castore.hookimpl")]


def install_later(install: Install, registry: Registry, tape: str, reel: str = CONFIG) -> None:
    code = {"castore_tape": LATER, "castore_tape_config": tape, "castore_reel_config": reel}
    install("castore-tape", "1.0", {"tape": "castore_tape"}, code)
    load_all(registry, "tape")


def test_a_config_class_is_imported_when_its_type_is_used(install: Install, registry: Registry) -> None:
    """If only its place is registered; then it is like any other."""
    install_later(install, registry, CONFIG, reel="raise SystemExit('this is not needed')")
    kind = registry.kind(BlobService)
    assert "castore_tape_config" not in sys.modules
    tape = registry.find(kind, "tape")
    assert tape is not None
    assert tape.imported
    assert tape.config.__module__ == "castore_tape_config"
    assert attrs.has(tape.config)
    assert "castore_reel_config" not in sys.modules


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import tapelib", "the module `tapelib` is not installed"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "it ends the program while it is imported"),
        ("class Odd(BaseException): ...\nraise Odd('no')", "it raises Odd: no"),
        ("", "has no attribute 'Config'"),
        ("class Config: ...", "is not an attrs class"),
        (CONFIG.replace("build", "make"), "has no method `build`"),
    ],
)
def test_a_config_class_that_fails_stops_no_other(
    install: Install, registry: Registry, code: str, cause: str
) -> None:
    """Not even one of the same plugin; whoever uses it is told why."""
    install_later(install, registry, code)
    kind = registry.kind(BlobService)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: registry.find(kind, "tape"), range(50))) == {None}
    assert registry.find(kind, "reel") is not None
    (broken,) = registry.broken
    assert cause in broken.cause
    assert registry.why_unknown(kind, "tape") == str(broken)
    assert str(broken).startswith("plugin `tape` of castore-tape 1.0 does not load: ")
    assert set(registry.types(kind)) == {"cache", "memory", "objectstore", "packed", "reel"}


def test_all_types_are_tried_by_who_asks_for_all(install: Install, registry: Registry) -> None:
    install_later(install, registry, "1 / 0")
    assert [entry.tag for entry in registry.all_types()] == [
        "cache",
        "memory",
        "objectstore",
        "packed",
        "reel",
        "cache",
        "memory",
        "objectstore",
        "memory",
        "objectstore",
    ]
    assert len(registry.broken) == 1


def test_the_tag_of_a_type_that_is_not_imported_is_taken(install: Install, registry: Registry) -> None:
    install_later(install, registry, CONFIG)
    with pytest.raises(DuplicatePluginError, match="two types of blob service have the tag `tape`"):
        registry.register(BlobService, "tape", Plain)
    assert "castore_tape_config" not in sys.modules


def test_where_a_config_class_is_must_be_a_place() -> None:
    with pytest.raises(PluginError, match=r"named 'a b', which is not `module:Class`"):
        Registry().register(BlobService, "tape", "a b")


def test_a_program_that_names_a_class_which_is_not_there_is_told_so() -> None:
    """There is no plugin that could be left out."""
    registry = Registry()
    registry.register(BlobService, "tape", "castore:NoSuchClass")
    with pytest.raises(PluginError, match=r"the type `tape` does not load: .* no attribute `NoSuchClass`"):
        registry.find(registry.kind(BlobService), "tape")


def test_a_kind_is_named_by_its_contract(registry: Registry) -> None:
    """One tag may be used once in each kind; a contract that is no kind is refused with those that are."""
    registry.register(DirectoryService, "reel", Plain)
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
