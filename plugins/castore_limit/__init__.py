"""The `limit` service type: not too much of a service at once."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_limit.config import LimitConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "limit", LimitConfig)
