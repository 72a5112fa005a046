"""The `objectstore` service type: chunks and indexes as objects in a folder or a cloud bucket."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "objectstore", "castore_objectstore.config:ObjectStoreConfig")
