"""The `fallback` service type: several services, of which the first that has a blob gives it."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "fallback", "castore_fallback.config:FallbackConfig")
