"""The `breaker` service type: a service that is left alone while it fails."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "breaker", "castore_breaker.config:BreakerConfig")
