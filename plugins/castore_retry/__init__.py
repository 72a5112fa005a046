"""The `retry` service type: what is unavailable is asked again."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "retry", "castore_retry.config:RetryConfig")
