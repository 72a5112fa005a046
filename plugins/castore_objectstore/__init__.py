"""The `objectstore` service types: chunks and indexes, or trees, as objects in a folder or a cloud bucket."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(BlobService, "objectstore", "castore_objectstore.config:ObjectStoreConfig")
    registry.register(
        DirectoryService, "objectstore", "castore_objectstore.config:ObjectStoreDirectoriesConfig"
    )
