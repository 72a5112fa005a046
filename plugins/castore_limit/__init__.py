"""The `limit` service type: not too much of a service at once."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "limit", "castore_limit.config:LimitConfig")
