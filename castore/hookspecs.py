"""The hook that a plugin implements.

A plugin is a module named by an entry point in the group `castore`::

    [project.entry-points.castore]
    tape = "castore_tape"

castore calls the module's hooks when it needs to know which types there are. Importing the module must be
cheap: leave what is heavy to the `build` method of a config class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from castore.composition.registry import Registry

PROJECT: Final = "castore"
"""The name of pluggy's project, and of the group of entry points."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of the hook of the same name."""


@hookspec
def castore_register(registry: Registry) -> None:
    """Register service types, kinds and chunkers with *registry*."""
