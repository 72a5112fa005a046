"""A plugin of castore: the type `onefile`, which keeps all blobs in one SQLite file."""

from __future__ import annotations

import castore


@castore.hookimpl
def castore_register(registry: castore.Registry) -> None:
    """Add the type `onefile`."""
    registry.register(castore.BlobService, "onefile", "castore_onefile.config:OneFileConfig")
