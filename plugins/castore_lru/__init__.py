"""The `lru` service type: a service kept within bounds, by evicting what was not used for longest."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_lru.config import LruConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "lru", LruConfig)
