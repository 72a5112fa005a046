"""The `breaker` service type: a service that is left alone while it fails."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_breaker.config import BreakerConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "breaker", BreakerConfig)
