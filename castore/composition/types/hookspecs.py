"""The hooks that a plugin implements.

A plugin is a module named by an entry point in the group `castore`::

    [project.entry-points.castore]
    tape = "castore_tape"

castore calls the module's hooks when it needs to know which types there are. Importing the module must be
cheap: name a config class by its place, and leave what is heavy to its `build` method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castore.composition.composition import Composition
    from castore.composition.types.registry import Registry
    from castore.digest import B3Digest

PROJECT: Final = "castore"
"""The name of pluggy's project, and of the group of entry points."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of the hook of the same name."""


@hookspec
def castore_register(registry: Registry) -> None:
    """Register service types, kinds and chunkers with *registry*."""


@hookspec
def castore_roots(composition: Composition) -> Iterable[B3Digest]:  # type: ignore[empty-body]
    """Return the digests of blobs that are to be kept when garbage is collected.

    A plugin that refers to blobs, say from a database of its own, implements this beside `castore_register`.
    It is called when a collection begins, with the composition whose service is collected; it may be a
    generator. Name all that you refer to: what no plugin and no user names is removed. An error that you
    raise ends the collection, before anything is removed.
    """
