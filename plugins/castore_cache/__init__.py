"""The `cache` service type: a near service in front of a far one."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_cache.config import CacheConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "cache", CacheConfig, formerly=("combined",))
