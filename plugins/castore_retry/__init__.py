"""The `retry` service type: what is unavailable is asked again."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_retry.config import RetryConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "retry", RetryConfig)
