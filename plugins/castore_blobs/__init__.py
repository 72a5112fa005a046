"""The `blobs` type of directory services: directories as the blobs that their encodings are."""

from __future__ import annotations

from castore import Registry, hookimpl
from castore.contract.directories import DirectoryService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(DirectoryService, "blobs", "castore_blobs.config:BlobsConfig")
