"""The hook by which plugins say what is to be kept when garbage is collected."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

import castore
from castore import B3Digest, Composition, PluginError, Registry
from castore.composition.types.plugins import Plugin

DIGESTS = [B3Digest.of(bytes([number])) for number in range(3)]


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Composition]:
    """A composition whose registry has plugins with the given hooks."""

    def make(*hooks: Callable[..., Any] | None) -> Composition:
        registry = Registry.default()
        for number, hook in enumerate(hooks):
            module = ModuleType(f"rooted_{number}")
            module.castore_register = castore.hookimpl(_nothing())  # type: ignore[attr-defined]
            if hook is not None:
                module.castore_roots = castore.hookimpl(hook)  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
            entry_point = EntryPoint(f"rooted-{number}", module.__name__, "castore")
            registry.load(Plugin(entry_point.name, "rooted 1.0", entry_point))
        return Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}, registry=registry)

    return make


def _nothing() -> Callable[..., None]:
    def castore_register(registry: Registry) -> None:
        pass

    return castore_register


def test_without_the_hook_there_are_none(compose: Callable[..., Composition]) -> None:
    """The bundled plugins refer to no blobs."""
    assert list(compose(None).roots()) == []


def test_the_roots_of_all_plugins(compose: Callable[..., Composition]) -> None:
    """A list or a generator; a hook may look into the composition, or not ask for it."""

    def castore_roots(composition: Composition) -> Any:
        yield from DIGESTS[:2]
        yield composition.blobs().write(b"\x07")

    found = list(compose(castore_roots, lambda: [DIGESTS[2]]).roots())

    assert set(found) == {*DIGESTS, B3Digest.of(b"\x07")}


def test_a_hook_that_fails(compose: Callable[..., Composition]) -> None:
    """Also halfway: nobody may take what came for all."""

    def castore_roots(composition: Composition) -> Any:
        yield DIGESTS[0]
        raise OSError("the database is locked")

    with pytest.raises(PluginError, match=r"`castore_roots` of plugin `rooted-0` of rooted 1.0.*locked"):
        list(compose(castore_roots).roots())


@pytest.mark.parametrize("answer", [None, 7, ["0" * 64], [b"0" * 32]])
def test_a_hook_that_gives_something_else(compose: Callable[..., Composition], answer: Any) -> None:
    """Text is no digest, and a forgotten `return` is no list: a mistake must not pass for `no roots`."""
    with pytest.raises(PluginError, match="castore_roots"):
        list(compose(lambda: answer).roots())


def test_a_plugin_that_does_not_load(compose: Callable[..., Composition]) -> None:
    """It may refer to blobs, and nobody knows which."""
    stores = compose()
    stores._known.load(Plugin("lost", "lost 1.0", EntryPoint("lost", "not_there", "castore")))

    with pytest.raises(PluginError, match=r"`lost` of lost 1.0 does not load.*mend it or uninstall it"):
        list(stores.roots())
