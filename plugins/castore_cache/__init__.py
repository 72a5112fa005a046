"""The `cache` service type: a near service in front of a far one."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "cache", "castore_cache.config:CacheConfig", formerly=("combined",))
