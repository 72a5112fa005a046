"""The `lru` service type: a service kept within bounds, by evicting what was not used for longest."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(
        BlobService,
        "lru",
        "castore_lru.config:LruConfig",
        sought_as=("bounded", "evict", "size_limit", "quota"),
    )
