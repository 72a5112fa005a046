"""The `error` service type: every operation has one fixed outcome."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_error.config import ErrorConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "error", ErrorConfig)
