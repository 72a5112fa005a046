"""The `cache` service types: a near service in front of a far one."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(BlobService, "cache", "castore_cache.config:CacheConfig", formerly=("combined",))
    registry.register(DirectoryService, "cache", "castore_cache.config:CacheDirectoriesConfig")
